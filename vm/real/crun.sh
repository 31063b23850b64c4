#!/bin/bash
# make crun-test: crun's own tests, of Debian's crun source, on the runtime, in the guest. What
# passes is compared with tests/real/crun-score.NAME: nothing that is written there may be missing.
# UPDATE=1 writes it anew. CRUN_SUITE=trixie: the tests of that Debian's crun.
set -euo pipefail
# shellcheck source=vm/real/payload.sh
. "$(dirname "$(readlink -f "$0")")/payload.sh"
# shellcheck source=vm/real/sources.sh
. "$real/sources.sh"

real_payload crun
debian_source crun base-files "${CRUN_SUITE:-bookworm}"
tests=$kept/crun/tests
# (One test has the path tests/init in it.)
mkdir -p "$stage/root/payload/crun/tests"
cp "$tests"/*.py "$real/libmount.py" "$stage/root/payload/crun/tests/"
# The program that the tests run in their containers: it must need no library there.
mkdir "$stage/config"
echo '#define HAVE_ERROR_H 1' >"$stage/config/config.h"
cc -O1 -w -static -I "$stage/config" -o "$stage/root/payload/crun/tests/init" "$tests/init.c"
export VM_TIMEOUT=${VM_TIMEOUT:-3600}
real_run

score=$repo/tests/real/crun-score.${RUNTIME##*/}
mkdir -p "${score%/*}"
sort "$stage/out/results" >"$stage/now"
awk '{ count[$1]++ } END { printf "%d passed, %d failed, %d skipped\n", count["ok"], count["FAILED"], count["skipped"] }' "$stage/now"
if [ -n "${UPDATE:-}" ]; then
    cp "$stage/now" "$score"
    echo "crun-test: ${score#"$repo"/} is written anew; git diff shows what changed"
    exit
fi
[ -f "$score" ] || { echo "crun-test: ${score#"$repo"/} is not there to compare with; UPDATE=1 writes it" >&2; exit 1; }
grep '^ok ' "$score" >"$stage/before" || true
if grep '^ok ' "$stage/now" | comm -23 "$stage/before" - | grep .; then
    echo "crun-test: these passed when ${score#"$repo"/} was written, and do not now" >&2
    exit 1
fi
gained=$(grep '^ok ' "$stage/now" | comm -13 "$stage/before" - | wc -l)
[ "$gained" = 0 ] || echo "crun-test: $gained more than in ${score#"$repo"/}; UPDATE=1 writes them there"
