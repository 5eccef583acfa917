#!/usr/bin/env bash
# From a fresh clone with an empty build cache to the demo's first certificate, then the same warm. Modules that were downloaded before are used,
# so that it is the compiler that is measured and not the network.
set -euo pipefail

root=$(git -C "$(dirname "${BASH_SOURCE[0]}")" rev-parse --show-toplevel)
dir=$(mktemp -d "${TMPDIR:-/tmp}/certwright-cold.XXXXXX")
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
export GOCACHE=$dir/cache

git clone --quiet "$root" "$dir/clone"
cd "$dir/clone"
for run in "cold, with an empty build cache" "warm"; do
  begin=$(date +%s.%N)
  first=
  while IFS= read -r line; do
    if [ -z "$first" ] && [[ $line == *"certificate.issued"* || $line == *"issued ver_"* ]]; then
      first=$(date +%s.%N)
    fi
  done < <(make --no-print-directory demo DEMO_ARGS=--exit 2>&1)
  end=$(date +%s.%N)
  if [ -z "$first" ]; then
    echo "the demo issued nothing" >&2
    exit 1
  fi
  awk -v run="$run" -v b="$begin" -v f="$first" -v e="$end" 'BEGIN { printf "%s: first certificate after %.1f s, all seven steps after %.1f s\n", run, f - b, e - b }'
done
