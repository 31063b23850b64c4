#!/bin/bash
# days/check.sh DAY: the tests of DAY and of all days before it, on lab/, the
# learner's crate, in the VM.
set -euo pipefail
# shellcheck source=vm/jobs.sh
. "$(dirname "$(readlink -f "$0")")/../vm/jobs.sh"
day=${1:-}
lab=$repo/lab

require_day "$day" check
if [ ! -d "$lab" ]; then
    echo "days/check.sh: there is no lab/ yet; make it first: make start DAY=$day" >&2
    exit 1
fi

new_jobs
add_job green "day$day" "$lab" "$day" "" "$(test_programs 1 "$day" | xargs)"
run_jobs "$stage/out" || {
    echo "Not there yet. The tests are named by task: days/day$day-*/README.md says which task is which." >&2
    exit 1
}
echo "Day $day is done."
