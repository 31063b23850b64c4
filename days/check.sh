#!/bin/bash
# days/check.sh DAY: the tests of DAY and of all days before it, on lab/, the
# learner's crate, in the VM.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/../vm/jobs.sh"
day=${1:-}
lab=$repo/lab

days=$(sed -n 's/^day\([0-9]*\)-.*/\1/p' "$repo/Cargo.toml" | sort -n | tail -n 1)
if ! [[ $day =~ ^[0-9]+$ ]] || [ "$day" -lt 1 ] || [ "$day" -gt "$days" ]; then
    echo "days/check.sh: which day? expected DAY=1 to DAY=$days, such as: make check DAY=1" >&2
    exit 1
fi
if [ ! -d "$lab" ]; then
    echo "days/check.sh: there is no lab/ yet; make it first: make start DAY=$day" >&2
    exit 1
fi

programs=
for ((n = 1; n <= day; n++)); do
    programs+=" $(basename "$repo"/tests/day"$n"_*.rs .rs)"
done
new_jobs
add_job green "day$day" "$lab" "$day" "" "$programs"
run_jobs || {
    echo "Not there yet. The tests are named by task: days/day$day-*/README.md says which task is which." >&2
    exit 1
}
echo "Day $day is done."
