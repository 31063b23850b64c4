#!/bin/bash
# days/prove.sh: proves that the exercises are exercises. For every day N:
#   - its starter builds without warnings, and each test of day N is red on it, because
#     of a todo!() of that day;
#   - day N-1 is green on it: who comes late has the days before complete;
#   - for each task K, as somebody has it who has done the tasks before: each test that
#     the exercise promises for K is red because of a todo!() of K, and green when K is
#     there, with the later tasks as the exercise has them "for now";
#   - each wrong solution in days/dayN-*/wrong is caught by the test it names.
# (That the whole solution is green is proved by vm/test.sh.)
set -euo pipefail
# shellcheck source=days/lab.sh
. "$(dirname "$(readlink -f "$0")")/lab.sh"
# shellcheck source=vm/jobs.sh
. "$repo/vm/jobs.sh"

crates=$(mktemp -d "${TMPDIR:-/tmp}/tiny-docker-prove.XXXXXX")
new_jobs
trap 'end_guests; rm -rf "$crates"' EXIT
# One target folder for all: the dependencies are built once. But not the repo's
# own: cargo tells a package by its name and the age of its files, so that it
# would take the wrong solution that was built last for the repo's program.
export CARGO_TARGET_DIR=$repo/target/prove

for folder in "$repo"/days/day*-*; do
    name=$(basename "$folder")
    day=${name#day}
    day=${day%%-*}
    tests=$(test_programs "$day" "$day")

    starter=$crates/starter$day
    "$repo/days/start.sh" "$day" "$starter"
    add_job red "starter$day" "$starter" "$day" "not yet implemented: day $day, " "$tests"
    if [ "$day" -gt 1 ]; then
        before=$((day - 1))
        add_job green "starter$day-before" "$starter" "$before" "" "$(test_programs "$before" "$before")"
    fi

    for task in $(tasks_of "$day" | cut -f 1); do
        promised=$(green_after "$day" "$task" | xargs)
        [ -n "$promised" ] || continue
        on_the_way=$crates/task$day.$task
        "$repo/days/start.sh" "$day" "$on_the_way" $((task - 1)) "$task"
        # A task without a todo!() of its own writes one again.
        if grep -qF "todo!(\"day $day, task $task: " "$on_the_way"/src/*.rs; then
            add_job red "task$day.$task" "$on_the_way" "$day" "not yet implemented: day $day, task $task: " "$tests" "--exact $promised"
        fi
        "$repo/days/start.sh" "$day" "$on_the_way-done" "$task" "$task"
        add_job green "task$day.$task-done" "$on_the_way-done" "$day" "" "$tests" "--exact $promised"
    done

    for patch in "$folder"/wrong/*.patch; do
        wrong=$crates/$(basename "$patch" .patch)
        mkdir "$wrong"
        copy_crate "$wrong"
        patch --quiet --directory="$wrong" --strip=1 <"$patch"
        caught_by=$(sed -n 's/^# caught by: //p' "$patch")
        add_job red "wrong$day-$(basename "$patch" .patch)" "$wrong" "$day" "$caught_by" "$tests" "--exact $caught_by"
    done
done
mkdir -p "$repo/target"
run_jobs "$stage/out" | tee "$repo/target/prove.log"
"$repo/days/mutants.sh" <"$repo/target/prove.log" | tee "$repo/target/mutants.md"
