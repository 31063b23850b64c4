#!/bin/bash
# vm/bundle.sh [FILE]: all that a room needs, in one file: the repository with its
# history, every crate, the built image of the VM, a root file system, the book and
# what builds it.
# On another machine it needs no network. That Rust and QEMU are there it takes for
# granted: they are not the same on every machine.
set -euo pipefail
# shellcheck source=days/days.sh
. "$(dirname "$(readlink -f "$0")")/../days/days.sh"
file=$(realpath -m "${1:-$repo/tiny-docker-bundle.tar.gz}")

[ -z "$(git -C "$repo" status --porcelain)" ] ||
    echo "bundle: what is not committed does not go in: $(git -C "$repo" status --porcelain | wc -l) file(s)" >&2
number=0
step() { printf 'bundle: %3d s  [%d of 5]  %s\n' "$SECONDS" $((++number)) "$1" >&2; }
step "the VM's image, a root file system"
"$repo/vm/setup.sh"
"$repo/vm/build-image.sh"
"$repo/vm/rootfs.sh"
step "the book"
"$repo/book/build.sh" >/dev/null

work=$(mktemp -d "${TMPDIR:-/tmp}/tiny-docker-bundle.XXXXXX")
trap 'rm -rf "$work"' EXIT
top=$work/tiny-docker-bundle
step "the repository"
git clone --quiet --no-hardlinks "$repo" "$top/tiny-docker-rs"
# Where one day's changes could come from: not from this machine's disk.
git -C "$top/tiny-docker-rs" remote remove origin
mkdir "$top/tiny-docker-rs/vm/image" "$top/tiny-docker-rs/rootfs"
cp --sparse=always "$repo"/vm/image/{vmlinuz,initrd.img,root.ext4,stamp} "$top/tiny-docker-rs/vm/image/"
cp -a "$repo/rootfs/busybox" "$top/tiny-docker-rs/rootfs/"
cp -R "$repo/book/book" "$top/tiny-docker-rs/book/book"
install -D "$(command -v mdbook)" "$top/tiny-docker-rs/book/bin/mdbook"

step "the crates"
# Cargo reads the folders above a crate's, too: so this holds for the repository
# and for lab/ in it, and neither knows of it.
mkdir "$top/.cargo"
quietly "bundle: crates" cargo --color never vendor --locked --versioned-dirs --manifest-path "$top/tiny-docker-rs/Cargo.toml" "$top/vendor"
cat >"$top/.cargo/config.toml" <<'END'
[source.crates-io]
replace-with = "vendored-sources"
[source.vendored-sources]
directory = "vendor"
[net]
offline = true
END
cat >"$top/README.md" <<'END'
# tiny-docker-rs, without a network

    cd tiny-docker-rs
    make demo

The book: `tiny-docker-rs/book/book/index.html`. What this machine must have: Rust,
a C compiler, make, git, QEMU (`vm/setup.sh` says what is missing).
END
step "packing"
tar -C "$work" --sparse -cvzf "$file" tiny-docker-bundle | in_place "bundle: packing"
printf 'bundle: %3d s  %s, %s\n' "$SECONDS" "$file" "$(du -h "$file" | cut -f1)" >&2
