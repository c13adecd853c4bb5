#!/usr/bin/env bash
# The step of the GitHub Action that inspects: annotations to the log, the report into files, the verdict into outputs.
# Everything comes in through the environment (action.yml fills it), so no input is ever part of a script's text.
#
#   INPUT_PATH      checkpoints or run directories, one a line     INPUT_COMMAND   inspect or scan
#   INPUT_ARGS      further options, split as a shell splits them  INPUT_FAIL_ON   info, warning, error or never
#   INPUT_OUTPUT    directory for the files                        INPUT_SUMMARY   true: write the step summary
#   CKPTDOCTOR      the program, `ckptdoctor` by default
#
# Ends with the program's own status: 0 nothing wrong, 1 something wrong was found, 2 it could not be answered.
set -euo pipefail

program=${CKPTDOCTOR:-ckptdoctor}
command=${INPUT_COMMAND:-inspect}
folder=${INPUT_OUTPUT:-ckptdoctor-report}

fail() {
  printf '::error title=ckptdoctor::%s\n' "$1"
  exit 2
}

command -v "$program" >/dev/null || fail "'$program' is not installed; leave the input 'install' true, or install it in a step before"
case $command in
  inspect) data=report.json also=--also ;;
  scan) data=results.jsonl also=--output ;;
  *) fail "the input 'command' must be inspect or scan" ;;
esac

paths=()
while IFS= read -r path; do
  [ -z "$path" ] || paths+=("$path")
done <<<"${INPUT_PATH:-}"
[ ${#paths[@]} -gt 0 ] || fail "the input 'path' names nothing to look at"

args=()
while IFS= read -r -d '' word; do # a quoted word stays one word; nothing is expanded or run
  args+=("$word")
done < <(printf '%s' "${INPUT_ARGS:-}" | xargs -r printf '%s\0')

mkdir -p "$folder"
rm -f "$folder"/{report.html,report.json,results.jsonl,junit.xml,summary.md} # of an earlier step: they would pass for this one's
files=("$also" "$folder/report.html" "$also" "$folder/$data" "$also" "$folder/junit.xml" "$also" "$folder/summary.md")
gate=(--fail-on "${INPUT_FAIL_ON:-error}")
status=0
if [ "$command" = inspect ]; then
  "$program" inspect --format github "${gate[@]}" "${files[@]}" "${args[@]}" -- "${paths[@]}" || status=$?
else
  "$program" scan "${gate[@]}" "${files[@]}" "${args[@]}" -- "${paths[@]}" || status=$?
  [ ! -s "$folder/$data" ] || "$program" merge --format github --fail-on never --ignore-errors "$folder/$data"
fi

if [ "${INPUT_SUMMARY:-true}" = true ] && [ -n "${GITHUB_STEP_SUMMARY:-}" ] && [ -f "$folder/summary.md" ]; then
  head -c 1000000 "$folder/summary.md" >>"$GITHUB_STEP_SUMMARY" # a summary takes 1 MiB
fi

verdict() { # a word of the verdict; only letters and _ can come out of it
  [ "$command" = inspect ] && [ -f "$folder/$data" ] || return 0
  sed -n '/"verdict"/,/}/p' "$folder/$data" | sed -n "s/.*\"$1\": *\"\([a-z_]*\)\".*/\1/p" | head -n 1
}

if [ -n "${GITHUB_OUTPUT:-}" ]; then
  {
    echo "exit-status=$status"
    echo "status=$(verdict status)"
    echo "cause=$(verdict cause)"
    echo "report=$folder/report.html"
    echo "data=$folder/$data"
    echo "junit=$folder/junit.xml"
    echo "folder=$folder"
  } >>"$GITHUB_OUTPUT"
fi
exit "$status"
