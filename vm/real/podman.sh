#!/bin/bash
# make podman-test: podman drives the runtime in the guest; each step of guest/podman in a table.
set -euo pipefail
# shellcheck source=vm/real/payload.sh
. "$(dirname "$(readlink -f "$0")")/payload.sh"

real_payload podman
real_run
