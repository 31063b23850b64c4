#!/bin/bash
# days/progress.sh: every day at a glance: what is still to be written, and how the
# last check ended.
set -euo pipefail
# shellcheck source=days/lab.sh
. "$(dirname "$(readlink -f "$0")")/lab.sh"
require_lab 1

now=$(source_id "$(tree_of_now)")
printf '%-26s %-9s %s\n' day 'todo!()s' 'last check'
for day in $(all_days); do
    name=$(basename "$(folder_of "$day")")
    todos=$({ grep -rho "todo!(\"day $day, " "$lab/src" || true; } | wc -l)
    results=$memory/day$day
    if [ -f "$results" ]; then
        # Each line is a test, and how it ended; the first one which source it was.
        green=$(grep -c ' ok$' "$results" || true)
        all=$(cat "$lab"/tests/day"$day"_*.rs | grep -c '^fn task')
        [ "$green" = "$all" ] && [ "$todos" = 0 ] && mark='✓' || mark=' '
        failed=$(grep -c ' FAILED$' "$results" || true)
        check="$green of $all tests green"
        later=$(grep -c ' later$' "$results" || true)
        [ "$failed" = 0 ] || check+=", $failed red"
        [ "$later" = 0 ] || check+=", $later wait for a later task"
        [ $((green + failed + later)) = "$all" ] || check+=", $((all - green - failed - later)) not run"
        check+=", $(date -r "$results" '+%a %H:%M')"
        [ "$(head -n 1 "$results")" = "$now" ] || check+="; lab/src has changed since"
    else
        mark=' ' check="not yet"
    fi
    printf '%s %-24s %-9s %s\n' "$mark" "${name/-/  }" "$todos" "$check"
done
