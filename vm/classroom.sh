#!/bin/bash
# vm/classroom.sh: a root shell in the VM, with tiny-docker, the root file
# systems, and the tools of the by-hand parts.
set -euo pipefail
# shellcheck source=vm/payload.sh
. "$(dirname "$(readlink -f "$0")")/payload.sh"

new_payload
pack_payload
"$vm/shell.sh" "$stage/payload.tar"
