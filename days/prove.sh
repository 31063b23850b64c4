#!/bin/bash
# days/prove.sh [DAY...]: proves that the exercises are exercises. For every day N:
#   - its tests, and what people read of it, are green with the solution, on exactly its
#     features. (But the long tests; and all of the newest day, which is vm/test.sh's, as are
#     all tests on the newest features.)
#   - its starter builds without warnings, and each test of day N is red on it, because
#     of a todo!() of that day;
#   - day N-1 is green on it, for whoever comes late has the days before complete;
#   - for each task K, as somebody has it who has done the tasks before: each test that
#     the exercise promises for K is red because of a todo!() of K, and green when K is
#     there, with the later tasks as the exercise has them "for now". (Green but for the
#     long tests, which `make check TASK=K` leaves to the whole day, unless the exercise
#     names them; and but for the last task, with which the solution is whole.)
#   - each wrong solution in days/dayN-*/wrong is caught by the test it names.
# PROVE_STAGES=2: task by task, with the days before complete, and its tests on its own features,
# only the two newest days, for that is two thirds of the time; and all else of all days.
#
# All variants of a day are one program: days/schemata.sh.
set -euo pipefail
# shellcheck source=days/lab.sh
. "$(dirname "$(readlink -f "$0")")/lab.sh"
# shellcheck source=vm/jobs.sh
. "$repo/vm/jobs.sh"

crates=$(mktemp -d "${TMPDIR:-/tmp}/tiny-docker-prove.XXXXXX")
new_jobs
trap 'end_guests; rm -rf "$crates"' EXIT
# The dependencies are built once, with the repo's own.
export CARGO_TARGET_DIR=$repo/target

days=("$@")
[ $# -gt 0 ] || mapfile -t days < <(all_days)
expected=${#days[@]}
staged=${PROVE_STAGES:-$expected}

build_all() {
    local day own left=$expected
    for day in "${days[@]}"; do
        build_starter "$day" && build_variants "$day" || return
        [ "$left" -gt "$staged" ] || { add_solution "$day" && add_day_before "$day" && add_stages "$day"; } || return
        add_wrong "$day" || return
        left=$((left - 1))
    done
}

# As the learner gets it.
build_starter() { # DAY
    local check
    "$repo/days/start.sh" "$1" "$crates/starter$1" && set_version "$crates/starter$1" "starter$1" || return
    check=$(cd "$crates/starter$1" && cargo --color never check --quiet --features "day$1" --lib --bins 2>&1) || check+=" "
    [ -z "$check" ] || fail "$check" "prove: the starter of day $1 does not build, or has warnings"
}

build_variants() { # DAY
    local day=$1
    own=$(test_programs "$day" "$day")
    "$repo/days/schemata.sh" "$day" "$crates/day$day" &&
        add_crate "schemata$day" "$crates/day$day" "$day" "$own $(programs_of_every_day "$day")" || return
    [ "$day" = "$(newest_day)" ] || add_run green "day$day" "" "" "" "$(programs_of_every_day "$day")" || return
    add_run red "starter$day" "not yet implemented: day $day, " "" "TINY_DOCKER_STAGE=$day:0:99" "$own"
}

add_solution() { # DAY
    [ "$1" = "$(newest_day)" ] || add_run green "day$1" "" "--skip _long_" "" "$own"
}

# Of day N+1's starter, the tests of day N: if there is a todo!() of a later day in what day N
# builds. Else it is the solution.
add_day_before() { # DAY
    local day=$1 next=$(($1 + 1)) later
    # shellcheck disable=SC2046  # words
    later=$(grep -rhoE 'todo!\("day [0-9]+' $(sources_up_to "$day" "$crates/day$day") | grep -vx "todo!(\"day $day" || true)
    [ -z "$later" ] || add_run green "starter$next-before" "" "" "TINY_DOCKER_STAGE=$next:0:99" "$own"
}

add_stages() { # DAY
    local day=$1 last task promised
    last=$(open_tasks "$day" "$crates/day$day" | tr ' ' '\n' | sort -n | tail -n 1)
    for task in $(tasks_of "$day" | cut -f 1); do
        promised=$(green_after "$day" "$task" | xargs)
        [ -n "$promised" ] || continue
        # A task without a todo!() of its own writes one again.
        if grep -rqF "todo!(\"day $day, task $task: " "$crates/day$day/src"; then
            add_run red "task$day.$task" "not yet implemented: day $day, task $task: " "--exact $promised" "TINY_DOCKER_STAGE=$day:$((task - 1)):$task" || return
        fi
        [ "$task" -lt "$last" ] || continue
        promised=$(quick_or_named "$day" "$promised")
        [ -n "$promised" ] || continue
        add_run green "task$day.$task-done" "" "--exact $promised" "TINY_DOCKER_STAGE=$day:$task:$task" || return
    done
}

# Of TESTS those that are not long, and those that the exercise has by their whole name.
quick_or_named() { # DAY TESTS
    local test
    for test in $2; do
        # shellcheck disable=SC2016  # the quotes are Markdown's
        if [[ $test != task*_long_* ]] || grep -qF "\`$test\`" "$(folder_of "$1")/README.md"; then echo "$test"; fi
    done | xargs
}

add_wrong() { # DAY
    local patch caught_by name
    for patch in "$(folder_of "$1")"/wrong/*.patch; do
        caught_by=$(sed -n 's/^# caught by: //p' "$patch")
        name=$(basename "$patch" .patch)
        add_run red "wrong$1-$name" "$caught_by" "--exact $caught_by" "TINY_DOCKER_WRONG=$name" || return
    done
}

run_while_with_progress "$stage/out" build_all | tee "$repo/target/prove.log"
[ $# -gt 0 ] || "$repo/days/mutants.sh" <"$repo/target/prove.log" | tee "$repo/target/mutants.md"
