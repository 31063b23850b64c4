# Sourced: what the scripts of this folder bring into their guest. The runtime that the engines
# are to drive, and a script of guest/ that drives them.
# shellcheck shell=bash
#
# RUNTIME=NAME: a program of this crate, built here; or, if the crate has none of that name, the
# guest's own: crun, runc. RUNTIME=./FILE: that file of this machine, and so /bin/false too, which
# a test must not survive.
# CGROUPS=systemd: the engines ask systemd for cgroups, which then is the guest's PID 1.

real=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
# shellcheck source=vm/payload.sh
. "$real/../payload.sh"
RUNTIME=${RUNTIME:-tiny-runc}
CGROUPS=${CGROUPS:-cgroupfs}
export VM_IMAGE=$real/image VM_MEMORY=${VM_MEMORY:-3072}

real_payload() { # GUEST-SCRIPT
    case $CGROUPS in
        cgroupfs) ;;
        systemd) export VM_APPEND=vm.systemd ;;
        *) echo "vm: CGROUPS=$CGROUPS: expected cgroupfs or systemd" >&2 && exit 1 ;;
    esac
    stage=$(mktemp -d "${TMPDIR:-/tmp}/tiny-docker-payload.XXXXXX")
    trap 'rm -rf "$stage"' EXIT
    "$vm/setup.sh"
    "$real/build-image.sh"
    mkdir -p "$stage/root/payload" "$stage/root/usr/local/bin"
    chmod 755 "$stage"/root "$stage"/root/{payload,usr,usr/local,usr/local/bin}
    stage_runtime
    {
        printf 'export RUNTIME=%q CGROUPS=%q\n' "$runtime" "$CGROUPS"
        [ -z "${ONLY:-}" ] || printf 'export ONLY=%q\n' "$ONLY"
        [ -z "${TEST_TRIES:-}" ] || printf 'export TEST_TRIES=%q\n' "$TEST_TRIES"
    } >"$stage/root/payload/env"
    install -m 755 "$real/guest/$1" "$stage/root/payload/run"
    cp "$real/guest/steps.sh" "$stage/root/payload/steps.sh"
}

# Its path in the guest is then in $runtime.
stage_runtime() {
    case $RUNTIME in
        */*)
            runtime=/usr/local/bin/${RUNTIME##*/}
            install -m 755 "$RUNTIME" "$stage/root$runtime"
            return
            ;;
    esac
    runtime=/usr/bin/$RUNTIME
    [ "$RUNTIME" != runc ] || runtime=/usr/sbin/runc
    if ! grep -qx "name = \"$RUNTIME\"" "$repo/Cargo.toml"; then
        case $RUNTIME in crun | runc) return ;; esac
        echo "vm: RUNTIME=$RUNTIME: expected a program of this crate (no [[bin]] in Cargo.toml has that name), crun, runc, or a file by its path" >&2
        exit 1
    fi
    echo "vm: building $RUNTIME (the first time: a few minutes)" >&2
    (cd "$repo" && quietly "vm: building" cargo --color never build --release --features "day$(newest_day)" --bin "$RUNTIME" --target-dir "$repo/target")
    runtime=/usr/local/bin/$RUNTIME
    install -m 755 "$repo"/target/*/release/"$RUNTIME" "$stage/root$runtime"
}

# Boots, with what new_payload staged. What the guest's script wrote to /out is then in $stage/out.
real_run() {
    pack_payload
    "$vm/run.sh" "$stage/payload.tar" "$stage/out"
}
