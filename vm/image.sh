# Sourced by build-image.sh and real/build-image.sh: how a guest's image is built, where they
# do the same.
# shellcheck shell=bash
#
#   begin_image "$here/image" STEPS FILES-THAT-GO-IN...   (ends the script if nothing changed)
#   extract PACKAGES TAR [OPTION...]
#   assemble SCRIPT                                       (its functions: assemble.sh)
#   end_image

vm=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
suite=bookworm

begin_image() { # DIR STEPS FILE...
    destination=$1 steps=$2
    stamp=$(cat "${@:3}" "$vm"/{image.sh,assemble.sh,init,initrd-init,rootfs.sh} | sha256sum | cut -d' ' -f1)
    if up_to_date; then exit; fi

    # Two builds at once: the second waits, and finds the first one's.
    exec 9>"$(dirname "$destination")/.image.lock"
    flock 9
    if up_to_date; then exit; fi

    work=$(mktemp -d "${TMPDIR:-/tmp}/tiny-docker-image.XXXXXX")
    new=$destination.new
    trap 'rm -rf "$work" "$new"' EXIT
    rm -rf "$new"
    mkdir -p "$new"
    number=0
}

up_to_date() { [ "$(cat "$destination/stamp" 2>/dev/null)" = "$stamp" ]; }

step() { printf 'vm: %3d s  [%d of %d]  %s\n' "$SECONDS" $((++number)) "$steps" "$1" >&2; }

# On a terminal what mmdebstrap says, each line in the place of the one before.
shown() { if [ -t 2 ]; then tr '\r' '\n' | while read -r line; do printf '\r\033[Kvm:        %s' "${line:0:70}" >&2; done && printf '\r\033[K' >&2; else cat >/dev/null; fi; }

extract() { # PACKAGES TAR [OPTION...]
    mmdebstrap --aptopt='APT::Sandbox::User "root"' --variant=extract --mode=chrootless --include="$1" "${@:3}" "$suite" "$2" 2>&1 | tee "$2.log" | shown || {
        cat "$2.log" >&2
        echo "vm: Debian's packages cannot be fetched; is there a network, or a mirror in /etc/apt?" >&2
        exit 1
    }
}

# Files of the guest belong to its root; fakeroot lets anybody say so.
assemble() { # SCRIPT
    export vm work new
    # shellcheck disable=SC2016  # the other shell's variables
    fakeroot bash -euo pipefail -c 'cd "$work"; . "$vm/assemble.sh"; . "$1"' bash "$1"
}

end_image() {
    echo "$stamp" >"$new/stamp"
    rm -rf "$destination"
    mv "$new" "$destination"
    printf 'vm: %3d s  the image is built (%s)\n' "$SECONDS" "$(du -sh "$destination" | cut -f1)" >&2
}
