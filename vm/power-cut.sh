#!/bin/bash
# vm/power-cut.sh: does the state directory survive the machine? A guest starts
# containers on a disk that is kept, and its kernel is stopped in the middle of
# them: no signal, no sync. The next guest boots with that disk, looks at what
# ps says of it, removes all, and is cut off again.
set -euo pipefail
# shellcheck source=vm/payload.sh
. "$(dirname "$(readlink -f "$0")")/payload.sh"
PATH=$PATH:/usr/sbin:/sbin
cuts=3

new_payload "$(newest_day)" "$repo"
cat >"$stage/root/payload/run" <<'RUN'
#!/bin/bash
set -u
mkdir -p /var/lib/tiny-docker
mount /dev/vdd /var/lib/tiny-docker || exit
cd /var/lib/tiny-docker || exit
failed=0
wrong() { echo "power-cut: $*" && failed=1; }

if [ -f known ]; then
    tiny-docker ps -a --format json >/tmp/said 2>/tmp/complaints || wrong "ps -a failed"
    grep -q '"running"' /tmp/said && wrong "ps -a says that something runs: $(cat /tmp/said)"
    while read -r id; do
        grep -q "$id" /tmp/said || wrong "ps -a does not know $id any more"
        tiny-docker ps -a | grep "^$id " | grep -q 'Exited (unknown)' || wrong "$id has not ended unseen"
        # The disk may have lost the end of a log. What it has must be right.
        tiny-docker logs "$id" >/tmp/log 2>/tmp/errors || wrong "the log of $id: $(cat /tmp/errors)"
        grep -vqx 'a line of the log' /tmp/log && wrong "the log of $id holds what was never written"
    done <known
    # What was being made at that moment: a directory without a record, and never half of one.
    while read -r complaint; do
        case $complaint in *'no config.json that can be read'*) ;; *) wrong "$complaint" ;; esac
    done </tmp/complaints
    echo "power-cut: found $(ls containers | wc -l) containers, $(wc -l </tmp/complaints) of them without a record"
    ls containers | xargs -r tiny-docker rm -f >/dev/null || wrong "rm -f failed"
    [ -z "$(ls containers)" ] || wrong "rm -f left $(ls containers)"
    rm known
fi
if grep -qx last /payload/round || [ $failed = 1 ]; then exit $failed; fi

for _ in 1 2 3 4 5; do
    tiny-docker run -d --rootfs /rootfs/busybox /bin/sh -c 'while :; do echo a line of the log; usleep 1000; done'
done >known || exit
sync
# These are being made, written down and removed when the power goes.
for flags in "" --rm "-d"; do
    while :; do tiny-docker run $flags --rootfs /rootfs/busybox /bin/true; done >/dev/null &
done
sleep "1.$RANDOM"
echo "exit=0" >/dev/ttyS1
echo b >/proc/sysrq-trigger
RUN
chmod 755 "$stage/root/payload/run"
truncate -s 64M "$stage/disk.ext4"
mke2fs -q -t ext4 "$stage/disk.ext4"
for round in $(seq 0 $cuts); do
    if [ "$round" = $cuts ]; then echo last; else echo "$round"; fi >"$stage/root/payload/round"
    pack_payload
    VM_DISK=$stage/disk.ext4 "$vm/run.sh" "$stage/payload.tar"
done
echo "power-cut: $cuts times the power was cut, and what was found was true"
