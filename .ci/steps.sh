# Sourced by check and full: runs named steps and says how long each took. A step
# that exits 77 is skipped; its last line says why. Every step runs, whatever
# another one did, so that one run shows all there is to mend. With STEP_ROWS=file
# each outcome is also appended there, as a row of a Markdown table.

summary=()
failed=0

# step NAME COMMAND... runs the command, in a shell of its own.
step() {
  local name=$1 begin=$SECONDS code log status reason= took
  shift
  log=$(mktemp "${TMPDIR:-/tmp}/certwright-step.XXXXXX")
  printf '\n=== %s\n' "$name"
  "$@" 2>&1 | tee "$log"
  code=${PIPESTATUS[0]}
  took=$((SECONDS - begin))
  case $code in
    0) status=passed ;;
    77)
      status=skipped
      reason=$(tail -n 1 "$log")
      ;;
    *)
      status=failed
      reason="exit status $code"
      failed=1
      ;;
  esac
  rm -f "$log"
  printf -- '--- %s: %s in %d s%s\n' "$name" "$status" "$took" "${reason:+ ($reason)}"
  summary+=("$(printf '%-26s %-8s %5d s  %s' "$name" "$status" "$took" "$reason")")
  if [ -n "${STEP_ROWS:-}" ]; then
    echo "| $name | $status | $took s | ${reason:-–} |" >>"$STEP_ROWS"
  fi
}

# finish prints all outcomes and answers whether every step passed or was skipped.
finish() {
  printf '\n=== summary\n'
  printf '%s\n' "${summary[@]}"
  return $failed
}
