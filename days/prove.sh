#!/bin/bash
# days/prove.sh: proves that the exercises are exercises. For every day N:
#   - its starter builds without warnings;
#   - on the starter, the days before N are green;
#   - on the starter, each test of day N is red, because of day N's todo!();
#   - each wrong solution in days/dayN-*/wrong is caught by the test it names.
# (That the solution is green is proved by vm/test.sh.)
set -euo pipefail
# shellcheck source=vm/jobs.sh
. "$(dirname "$(readlink -f "$0")")/../vm/jobs.sh"

crates=$(mktemp -d "${TMPDIR:-/tmp}/tiny-docker-prove.XXXXXX")
new_jobs
trap 'rm -rf "$stage" "$crates"' EXIT
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
    add_job red "starter$day" "$starter" "$day" "not yet implemented: day $day" "$tests"
    if [ "$day" -gt 1 ]; then
        before=$(test_programs 1 $((day - 1)) | xargs)
        add_job green "starter$day-before" "$starter" $((day - 1)) "" "$before"
    fi

    for patch in "$folder"/wrong/*.patch; do
        wrong=$crates/$(basename "$patch" .patch)
        mkdir "$wrong"
        copy_crate "$wrong"
        patch --quiet --directory="$wrong" --strip=1 <"$patch"
        caught_by=$(sed -n 's/^# caught by: //p' "$patch")
        add_job red "wrong$day-$(basename "$patch" .patch)" "$wrong" "$day" "$caught_by" "$tests" "--exact $caught_by"
    done
done
run_jobs "$stage/out"
