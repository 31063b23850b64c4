#!/bin/bash
# make containerd-test: containerd drives the runtime in the guest, by ctr and over the CRI; each
# step of guest/containerd in a table.
set -euo pipefail
# shellcheck source=vm/real/payload.sh
. "$(dirname "$(readlink -f "$0")")/payload.sh"
# shellcheck source=vm/real/protoc.sh
. "$real/protoc.sh"

real_payload containerd
need_protoc
echo "vm: building the client of the CRI (the first time: a few minutes)" >&2
(cd "$real/cri" && quietly "vm: building" cargo --color never build --locked --release --target-dir "$repo/target/real/cri")
install -m 755 "$repo"/target/real/cri/*/release/cri "$stage/root/usr/local/bin/cri"
cp "$real/guest/containerd-up.sh" "$stage/root/payload/"
export VM_TIMEOUT=${VM_TIMEOUT:-1800}
real_run
