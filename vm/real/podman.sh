#!/bin/bash
# make podman-test: podman drives the runtime in the guest; each step of guest/podman in a table.
# UPDATE=1 writes tests/real/podman.console anew, which the book shows.
set -euo pipefail
# shellcheck source=vm/real/payload.sh
. "$(dirname "$(readlink -f "$0")")/payload.sh"

real_payload podman
cp "$repo/tests/real/podman.console" "$stage/root/payload/"
ended=0
real_run || ended=$?
[ -z "${UPDATE:-}" ] || cp "$stage/out/podman.console" "$repo/tests/real/podman.console"
exit $ended
