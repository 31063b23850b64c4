# Sourced: what `make demo` and `make vm-shell` bring into the guest.
# shellcheck shell=bash

vm=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
# shellcheck source=days/days.sh
. "$vm/../days/days.sh"

# Builds a crate with the features of a day, and stages what comes of it as
# /usr/local/bin/tiny-docker in $stage/root; and as tiny-runc, if there is one.
new_payload() { # DAY CRATE
    local day=$1 crate=$2
    stage=$(mktemp -d "${TMPDIR:-/tmp}/tiny-docker-payload.XXXXXX")
    trap 'rm -rf "$stage"' EXIT
    "$vm/setup.sh"
    "$vm/build-image.sh"
    echo "vm: building tiny-docker of day $day (the first time: a few minutes)" >&2
    (cd "$crate" && quietly "vm: building" cargo --color never build --release --features "day$day" --target-dir "$crate/target")
    install -D -m 755 "$crate"/target/*/release/tiny-docker "$stage/root/usr/local/bin/tiny-docker"
    [ "$day" -lt 18 ] || install -m 755 "$crate"/target/*/release/tiny-runc "$stage/root/usr/local/bin/tiny-runc"
    mkdir -p "$stage/root/payload"
    # The guest's folders get these modes, and mktemp's would shut out all but root.
    chmod 755 "$stage/root" "$stage/root/payload"
}

# Makes $stage/payload.tar of it.
pack_payload() {
    tar -C "$stage/root" -cf "$stage/payload.tar" --owner=0 --group=0 .
}
