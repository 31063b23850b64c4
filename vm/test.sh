#!/bin/bash
# vm/test.sh [DAY...]: every test of every day, each day built with exactly its
# own features, all in one boot of the VM; then the death of the machine itself.
# With TINY_DOCKER_UPDATE=1 the tests write anew what they compare with
# (tests/snapshots, tests/transcripts).
set -euo pipefail
# shellcheck source=vm/jobs.sh
. "$(dirname "$(readlink -f "$0")")/jobs.sh"

days=("$@")
[ $# -gt 0 ] || mapfile -t days < <(all_days)
new_jobs
for day in "${days[@]}"; do add_job green "day$day" "$repo" "$day"; done

ended=0
run_jobs "$stage/out" || ended=$?
if [ -n "${TINY_DOCKER_UPDATE:-}" ] && [ -d "$stage/out/tests" ]; then
    cp -R "$stage/out/tests/." "$repo/tests/"
    echo "vm: tests/snapshots and tests/transcripts are written anew; git diff shows what changed" >&2
fi
[ $ended = 0 ] || exit $ended
[ $# -gt 0 ] || "$vm/power-cut.sh"
