#!/bin/bash
# vm/bench.sh [BENCH]: start to exit with everything on. In the VM, for there cgroups are of
# version 2. The figures, a JSON object a line, are then in target/bench.jsonl, and a chart
# in target/bench.svg: the book has a copy, book/src/pictures/bench.svg.
#
# vm/bench.sh ports: what a published port costs (benches/ports.rs); vm/bench.sh exec: exec
# against crun's (benches/exec.rs); vm/bench.sh runtime: the OCI runtime with podman's config.json
# against crun and runc (benches/runtime.rs); printed. With the limits that they have to keep:
# BENCH_DNAT_LIMIT=0.9 BENCH_LOOP_LIMIT=0.5 vm/bench.sh ports
# BENCH_RUNTIME_CRUN_LIMIT=0.7 BENCH_RUNTIME_RUNC_LIMIT=0.35 vm/bench.sh runtime
# It takes its time where QEMU emulates; BENCH_ROUNDS=5 has fewer turns.
set -euo pipefail
# shellcheck source=vm/payload.sh
. "$(dirname "$(readlink -f "$0")")/payload.sh"
cd "$repo"
bench=${1:-everything}
[ "$bench" != ports ] || export VM_TIMEOUT=${VM_TIMEOUT:-3600}

new_payload "$(newest_day)" "$repo"
echo "vm: building the bench" >&2
cargo bench --color never --no-run --features "day$(newest_day)" --bench "$bench" --target-dir target 2>"$stage/log" || {
    cat "$stage/log" >&2
    exit 1
}
install -m 755 "$(sed -n 's/^ *Executable .*(\(.*\))$/\1/p' "$stage/log")" "$stage/root/payload/bench"
cc -O2 -static -o "$stage/root/usr/local/bin/floor" benches/floor.c
{
    echo "export BENCH_JSON=/out/bench.jsonl BENCH_SVG=/out/bench.svg BENCH_ACCEL=$("$vm/accel.sh")"
    for variable in BENCH_ALL_LIMIT BENCH_CRUN_LIMIT BENCH_DNAT_LIMIT BENCH_EXEC_LIMIT BENCH_LOOP_LIMIT BENCH_ROUNDS \
        BENCH_RUNTIME_CRUN_LIMIT BENCH_RUNTIME_RUNC_LIMIT; do
        [ -z "${!variable:-}" ] || echo "export $variable=${!variable}"
    done
} >"$stage/root/payload/env"
cat >"$stage/root/payload/run" <<'RUN'
#!/bin/bash
set -e
# The floor's bridge, and where its cgroups go. tiny-docker makes its own.
ip link add floor0 address 02:74:0a:0b:00:01 up type bridge
ip address add 10.11.0.1/24 dev floor0
mkdir /sys/fs/cgroup/tiny-docker-floor
echo +memory >/sys/fs/cgroup/tiny-docker-floor/cgroup.subtree_control
# What a container's own files are mounted on.
touch /rootfs/busybox/etc/{hostname,hosts,resolv.conf}
/payload/bench
RUN
chmod 755 "$stage/root/payload/run"
pack_payload

ended=0
"$vm/run.sh" "$stage/payload.tar" "$stage/out" || ended=$?
[ "$bench" = everything ] || exit $ended
for figures in bench.jsonl bench.svg; do
    [ ! -f "$stage/out/$figures" ] || cp "$stage/out/$figures" target/
done
exit $ended
