# Sourced: Debian's source packages, fetched once and kept in target/real.
# shellcheck shell=bash disable=SC2154  # repo: days.sh

# NAME's source, with Debian's patches, in $kept/NAME; and with it, in $kept/NAME.root, the packages
# that are named, extracted.
debian_source() { # NAME PACKAGES [SUITE]
    local name=$1 packages=$2 suite=${3:-bookworm} work hook patch
    kept=$repo/target/real/$suite
    [ ! -e "$kept/$name/.complete" ] || return 0
    echo "vm: fetching the source of Debian's $name ($suite)" >&2
    mkdir -p "$kept"
    rm -rf "${kept:?}/$name" "$kept/$name.root"
    work=$(mktemp -d "${TMPDIR:-/tmp}/tiny-docker-source.XXXXXX")
    # Where mmdebstrap has found the packages, their sources are too.
    # shellcheck disable=SC2016  # mmdebstrap has a shell run it
    hook='set -e; export APT_CONFIG=$MMDEBSTRAP_APT_CONFIG
          sed -n "s/^deb /deb-src /p" "$1/etc/apt/sources.list" >"$1/etc/apt/sources.list.d/source.list"
          apt-get -qq update; cd "$work"; apt-get -qq source --download-only "$name"'
    export work name
    mmdebstrap --aptopt='APT::Sandbox::User "root"' --variant=extract --mode=chrootless --include="$packages" \
        --extract-hook="$hook" "$suite" "$work/root.tar" >"$work/log" 2>&1 || { cat "$work/log" >&2 && rm -rf "$work" && return 1; }
    mkdir "$kept/$name" "$kept/$name.root"
    tar -C "$kept/$name" --strip-components=1 -xf "$(ls "$work"/*.orig.tar.*z)"
    tar -C "$kept/$name" -xf "$(ls "$work"/*.debian.tar.*)"
    tar -C "$kept/$name.root" --exclude='./dev/*' -xf "$work/root.tar"
    rm -rf "$work"
    # (git, for the host has that; not every host has patch. It must not take our repository for
    # the one to be patched.)
    while read -r patch; do
        (cd "$kept/$name" && GIT_CEILING_DIRECTORIES=$kept git apply "debian/patches/$patch") || return
    done < <(sed 's/#.*//; /^ *$/d' "$kept/$name/debian/patches/series" 2>/dev/null)
    touch "$kept/$name/.complete"
}
