#!/bin/bash
# vm/run.sh PAYLOAD.tar [OUTDIR]
#
# Boots the VM, unpacks PAYLOAD.tar at the guest's /, runs its /payload/run, and
# exits with that program's exit code. What it wrote to /out is then in OUTDIR.
# 125: the guest gave no exit code (it crashed, or took more than VM_TIMEOUT s).
# VM_DISK=FILE: one more disk, /dev/vdd, which keeps what the guest writes; or nbd:unix:SOCKET.
# VM_INPUT=FILE: what the guest reads from its first serial line.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
# shellcheck source=vm/qemu.sh
. "$here/qemu.sh"
payload=$1
outdir=${2:-}

accel=$("$here/accel.sh")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
truncate -s 64M "$scratch/out.tar"

disk=()
[ -z "${VM_DISK:-}" ] || disk=(-drive "if=virtio,format=raw,file=$VM_DISK")
ended=0
qemu "$accel" "${VM_APPEND:-}" -serial stdio -serial "file:$scratch/status" \
    -drive "if=virtio,format=raw,file=$image/root.ext4,snapshot=on" \
    -drive "if=virtio,format=raw,file=$payload,readonly=on" \
    -drive "if=virtio,format=raw,file=$scratch/out.tar" "${disk[@]}" <"${VM_INPUT:-/dev/null}" || ended=$?

if [ -n "$outdir" ]; then
    mkdir -p "$outdir"
    tar -C "$outdir" -xf "$scratch/out.tar" 2>/dev/null || true
fi
status=$(sed -n 's/.*exit=\([0-9]*\).*/\1/p' "$scratch/status" 2>/dev/null)
if [ -z "$status" ]; then
    case $ended in
        124 | 137) echo "vm: still running after ${VM_TIMEOUT:-900} s, so it was stopped; VM_TIMEOUT=SECONDS allows more" >&2 ;;
        *)
            tail -n 20 "$scratch/status" >&2 || true
            echo "vm: the guest ended without an exit code (QEMU exited with $ended); above is what its kernel said" >&2
            ;;
    esac
    exit 125
fi
exit "$status"
