#!/bin/bash
# Prints how QEMU can run here: kvm, or tcg (emulation, slower).
#
# That /dev/kvm is there proves nothing: in a nested VM it may open and still not
# run a guest. So boot the real kernel with it, and wait for a word from user space.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
# shellcheck source=vm/qemu.sh
. "$here/qemu.sh"

if [ -n "${TINY_DOCKER_ACCEL:-}" ]; then
    echo "$TINY_DOCKER_ACCEL"
    exit
fi

# The answer holds until the next boot, for this image.
known=$image/accel
boot=$(cat /proc/sys/kernel/random/boot_id)
if [ -f "$known" ] && [ "$(cut -d' ' -f1 "$known")" = "$boot" ]; then
    cut -d' ' -f2 "$known"
    exit
fi

answer=tcg
if [ -r /dev/kvm ] && [ -w /dev/kvm ]; then
    said=$(mktemp)
    trap 'rm -f "$said"' EXIT
    VM_TIMEOUT=15 qemu kvm vm.probe -serial "file:$said" </dev/null >/dev/null 2>&1 || true
    if grep -q vm-probe-ok "$said"; then answer=kvm; fi
fi
[ "$answer" = kvm ] || echo "vm: no working KVM here, so QEMU emulates: it works, and is several times slower" >&2
echo "$boot $answer" >"$known"
echo "$answer"
