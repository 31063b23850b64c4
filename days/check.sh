#!/bin/bash
# days/check.sh DAY [TASK]: the tests of DAY on lab/, the learner's crate, in the VM;
# when all are green, those of the days before it too. With TASK, the tests of that
# task alone, but for the long ones: that is the loop, and must be quick.
set -euo pipefail
# shellcheck source=days/lab.sh
. "$(dirname "$(readlink -f "$0")")/lab.sh"
# shellcheck source=days/report.sh
. "$repo/days/report.sh"
# shellcheck source=vm/jobs.sh
. "$repo/vm/jobs.sh"
day=${1:-} task=${2:-}

# What hangs is ended: the longest test takes a minute where QEMU emulates.
export TEST_TIMEOUT=${TEST_TIMEOUT:-150}

require_day "$day" check
require_lab "$day"
require_task "$day" "$task"

set_editors_day "$day"
one_at_a_time "make check DAY=$day${task:+ TASK=$task}"
# What is tested, built, remembered and kept is this one tree, whatever is saved meanwhile.
tree=$(tree_of_now)
# shellcheck disable=SC2034  # for report_on
now=$(source_id "$tree")
check_out "$tree"

# The loop of somebody who works on it: so the guest boots while cargo builds.
this_day() {
    boot_ahead "$stage/out" &&
        add_crate "day$day" "$checked" "$day" "$(test_programs "$day" "$day")" &&
        add_run green "day$day" "" "${task:+task${task}_ --skip _long_}" &&
        run_jobs "$stage/out"
}

days_before() {
    local before
    for before in $(seq $((day - 1))); do
        # One build serves them all, and cargo has most of it.
        add_crate "day$before" "$checked" "$day" "$(test_programs "$before" "$before")" || return
        add_run green "day$before" || return
    done
}

new_jobs
report_on this_day || exit 1
if [ -n "$task" ]; then
    say_next_task "$day" "$task" check
    if grep -q "^fn task${task}_long_" "$repo/tests/day${day}"_*.rs; then
        echo "(Its long tests come with all of the day: make check DAY=$day)"
    fi
    exit
fi

if [ "$day" -gt 1 ]; then
    echo "Day $day is green. Do the days before it still hold?"
    new_jobs
    brief=1 report_on run_while "$stage/out" days_before || fail "Day $day is green, but something it did breaks an earlier day."
fi
# So that the next day can be begun again: make reset.
git -C "$lab" update-ref "refs/lab/day$day" "$(commit_of "$tree" "Day $day is done")"
echo "Day $day is done."
next=$(day_after "$day")
[ -z "$next" ] ||
    echo "Next, in the same lab/: $(chapter_of "$next"), and $(folder_of "$next" | sed "s|^$repo/||")/README.md"
