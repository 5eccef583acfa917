#!/usr/bin/env bash
# Writes everything that is generated from api/**/*.proto, or, with --check, only
# says what is not up to date and fails. Needs the tools of "make tools" and no
# network. Files whose content is unchanged keep their time; generated files that
# no proto asks for any more are removed.
set -euo pipefail
cd "$(dirname "$0")/.."
check=${1:-}
bin=$PWD/.tools/bin
tmp=$(mktemp -d "${TMPDIR:-/tmp}/certwright-gen.XXXXXX")
trap 'rm -rf "$tmp"' EXIT

"$bin/buf" generate --output "$tmp"
"$bin/buf" build api --as-file-descriptor-set --output "$tmp/image.binpb"
# The document is written by docgen, from what the plugin made.
mv "$tmp/api/openapi/openapi.yaml" "$tmp/openapi.yaml"
# docgen reads the options from the image: it needs no generated code.
GOWORK=off CGO_ENABLED=0 go -C api run ./internal/cmd/docgen \
  -image "$tmp/image.binpb" -openapi "$tmp/openapi.yaml" -out "$tmp"
rm "$tmp/image.binpb" "$tmp/openapi.yaml"

stale=0
while read -r f; do
  cmp -s "$tmp/$f" "$f" && continue
  stale=1
  if [ "$check" = --check ]; then
    echo "not up to date: $f"
  else
    mkdir -p "$(dirname "$f")"
    cp "$tmp/$f" "$f.new" && mv "$f.new" "$f"
    echo "wrote $f"
  fi
done < <(cd "$tmp" && find . -type f | sed 's|^\./||' | LC_ALL=C sort)
# Left over from protos that are gone.
while read -r f; do
  [ -e "$tmp/$f" ] && continue
  stale=1
  if [ "$check" = --check ]; then
    echo "left over: $f"
  else
    rm "$f"
    echo "removed $f"
  fi
done < <(find api -type f \( -name '*.pb.go' -o -name '*.pb.gw.go' -o -name '*.gen.go' \) | LC_ALL=C sort)
if [ "$check" = --check ] && [ $stale = 1 ]; then
  echo "run \"make gen\" and commit what it writes" >&2
  exit 1
fi
