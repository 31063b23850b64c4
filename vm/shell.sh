#!/bin/bash
# vm/shell.sh PAYLOAD.tar: the classroom. A root shell in the VM, with what
# PAYLOAD.tar brings. Nothing that is done in there outlives it.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
# shellcheck source=vm/qemu.sh
. "$here/qemu.sh"
payload=$1

accel=$("$here/accel.sh")
size=$(stty size)
saved=$(stty -g)
# QEMU sets the terminal to raw mode and, when it is killed, leaves it so.
trap 'stty "$saved"' EXIT

# signal=off: Ctrl-C is a character for the guest, not a signal for QEMU.
VM_TIMEOUT=${VM_TIMEOUT:-86400} qemu "$accel" "vm.shell vm.rows=${size% *} vm.columns=${size#* }" \
    -chardev stdio,id=terminal,mux=on,signal=off -serial chardev:terminal -serial null -mon chardev=terminal \
    -drive "if=virtio,format=raw,file=$image/root.ext4,snapshot=on" \
    -drive "if=virtio,format=raw,file=$payload,readonly=on"
