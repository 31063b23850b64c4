#!/bin/bash
# vm/test.sh: all days' tests on the newest day's features, in the VM; of the long ones, which
# take as long as all others together, those of the two newest days. Then the death of the
# machine itself. (That each day's tests are green on its own features, make prove proves.)
# LONG=1: with all long tests; each day's tests on exactly that day's features, with the museum of
# escapes; and those of days 1 to 16 once more as an ordinary user (tests/without-root.txt).
# vm/test.sh DAY...: all tests up to DAY, on DAY's features.
# ALL=1: every day so: what one runs before a release. The time it takes grows with the
# square of the days.
# With TINY_DOCKER_UPDATE=1 the tests write anew what they compare with
# (tests/snapshots, tests/transcripts).
set -euo pipefail
# shellcheck source=vm/jobs.sh
. "$(dirname "$(readlink -f "$0")")/jobs.sh"

days=("$@")
every=${ALL:-}${LONG:-}${TINY_DOCKER_UPDATE:-}
# Each with all tests up to its own?
whole=${ALL:-}${1:-}
[ $# -gt 0 ] || mapfile -t days < <(if [ -n "$every" ]; then all_days; else newest_day; fi)
build_all() {
    local day newest tests short
    newest=$(newest_day)
    for day in "${days[@]}"; do
        tests='' short=''
        if [ -z "$whole" ]; then
            [ "$day" = "$newest" ] || tests="$(test_programs "$day" "$day") $(programs_of_every_day "$day")"
            [ "$day" = "$newest" ] && [ -n "${LONG:-}" ] || short="--skip _long_"
        fi
        add_crate "day$day" "$repo" "$day" "$tests" && add_run green "day$day" "" "$short" || return
    done
    [ -z "$short" ] || add_run green "day$newest" "" _long_ "" "$(test_programs $((newest - 1)) "$newest")" || return
    [ -z "${LONG:-}" ] || [ -n "$whole" ] || as_an_ordinary_user "$newest"
}

# What tests/without-root.txt says: some programs, but for some of their tests.
as_an_ordinary_user() { # NEWEST
    local list=$repo/tests/without-root.txt
    add_run green "day$1-person" "" "--skip _long_ $(sed -n 's/^task/--skip &/p' "$list" | xargs)" \
        TINY_DOCKER_TEST_AS=1500 "$(sed -n 's/^programs: //p' "$list" | xargs)"
}

new_jobs
expected=${#days[@]}
ended=0
run_while_with_progress "$stage/out" build_all || ended=$?
if [ -n "${TINY_DOCKER_UPDATE:-}" ] && [ -d "$stage/out/tests" ]; then
    cp -R "$stage/out/tests/." "$repo/tests/"
    echo "vm: tests/snapshots and tests/transcripts are written anew; git diff shows what changed" >&2
fi
[ $ended = 0 ] || exit $ended
[ $# -gt 0 ] || "$vm/power-cut.sh"
