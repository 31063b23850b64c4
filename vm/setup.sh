#!/bin/bash
# Installs what the host needs, and only what is missing: a C compiler for
# Rust's linker, QEMU, the tools that make the guest's image, and Python for the disk of the
# power cut.
set -euo pipefail

# command it is known by : Debian package
needed="cc:gcc make:make git:git qemu-system-x86_64:qemu-system-x86 mmdebstrap:mmdebstrap fakeroot:fakeroot
        cpio:cpio zstd:zstd mke2fs:e2fsprogs depmod:kmod python3:python3"

fail() {
    printf 'vm/setup.sh: %s\n' "$@" >&2
    exit 1
}

if [ "$(uname -s)/$(uname -m)" != Linux/x86_64 ]; then
    fail "this is $(uname -s) on $(uname -m), and the lab's VM is for Linux on x86-64." \
        "On a Mac, or on arm64:  limactl start vm/lima.yaml" \
        "With Vagrant:           cd vm && vagrant up" \
        "On Windows:             inside WSL2 (Debian or Ubuntu), all of this works."
fi

# Debian keeps some of them where only root's PATH leads.
PATH=$PATH:/usr/sbin:/sbin
missing=
for pair in $needed; do
    command -v "${pair%%:*}" >/dev/null || missing+=" ${pair#*:}"
done
# Rust links statically: the archive is in the C library's development package.
[ -e "$(cc -print-file-name=libc.a 2>/dev/null)" ] || missing+=" libc6-dev"
# The guest is Debian, whatever the host is; its packages are signed.
[ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || missing+=" debian-archive-keyring"

if [ -n "$missing" ]; then
    command -v apt-get >/dev/null || fail "missing, by their Debian names:$missing" \
        "Only Debian and Ubuntu get them installed. Install the like of them yourself, such as" \
        "  Fedora: dnf install gcc glibc-static qemu-system-x86-core mmdebstrap fakeroot cpio zstd e2fsprogs kmod python3 debian-keyring" \
        "  Arch:   pacman -S gcc qemu-system-x86 mmdebstrap fakeroot cpio zstd e2fsprogs kmod python debian-archive-keyring" \
        "or use a machine that has them: vm/lima.yaml, vm/Vagrantfile."
    sudo=
    if [ "$(id -u)" != 0 ]; then
        sudo=sudo
        command -v sudo >/dev/null || fail "missing:$missing" "and no sudo here. As root:  apt-get install$missing"
    fi
    echo "vm: installing$missing" >&2
    $sudo apt-get update -qq
    # shellcheck disable=SC2086  # a list of words
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi

command -v cargo >/dev/null || [ -x "$HOME/.cargo/bin/cargo" ] ||
    fail "no cargo here. Install Rust's toolchain with rustup: https://rustup.rs"
