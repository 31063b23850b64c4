# Sourced: what compiles k8s-cri's protocol files, extracted from Debian's packages; $PROTOC.
# shellcheck shell=bash disable=SC2154  # repo: days.sh

need_protoc() {
    local kept=$repo/target/real/protoc
    if [ ! -x "$kept/protoc" ]; then
        echo "vm: fetching Debian's protoc" >&2
        mkdir -p "$kept"
        mmdebstrap --aptopt='APT::Sandbox::User "root"' --variant=extract --mode=chrootless --include=protobuf-compiler \
            bookworm "$kept/root.tar" >"$kept/log" 2>&1 || { cat "$kept/log" >&2 && return 1; }
        tar -C "$kept" --exclude='./dev/*' -xf "$kept/root.tar"
        rm "$kept/root.tar"
        # Its libraries are its own, and so is the C library's loader: it runs on any Linux.
        printf '#!/bin/sh\nexec %q --library-path %q %q "$@"\n' "$kept/lib64/ld-linux-x86-64.so.2" \
            "$kept/usr/lib/x86_64-linux-gnu:$kept/lib/x86_64-linux-gnu" "$kept/usr/bin/protoc" >"$kept/protoc"
        chmod 755 "$kept/protoc"
    fi
    export PROTOC=$kept/protoc
}
