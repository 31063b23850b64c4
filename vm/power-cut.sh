#!/bin/bash
# vm/power-cut.sh [MKFS...]: does the state directory survive a power cut? A guest starts
# containers on a disk that forgets what was not flushed when the power goes (see
# forgetful-disk.py), and the power goes in the middle of it. The next guest boots with what
# is left of that disk, and looks whether what was promised is kept:
#
#   a record is whole, or said to be none: of a container of the last second it may be
#   empty, or full of zeros
#   a container that had been running for a second is remembered
#   an exit code that was recorded a second ago stays
#   an image that is said to be there is whole; one that was flushed is there
#   a pull that was interrupted can be made again
#
# MKFS: how to make the file system; without it mke2fs -q -t ext4 -b 4096, as on a disk of any size. (The guest must know it.)
set -euo pipefail
# shellcheck source=vm/payload.sh
. "$(dirname "$(readlink -f "$0")")/payload.sh"
PATH=$PATH:/usr/sbin:/sbin
[ $# -gt 0 ] || set -- mke2fs -q -t ext4 -b 4096
size=$((64 << 20))
command -v python3 >/dev/null || { echo "power-cut: python3 is missing; install it" >&2; exit 1; }

new_payload "$(newest_day)" "$repo"
cat >"$stage/root/payload/run" <<'RUN'
#!/bin/bash
set -u
size=$(($(blockdev --getsize64 /dev/vdd) - 8192))
# The notebook and the power switch, behind the end of the file system.
write_to() { dd of=/dev/vdd bs=4096 seek=$(($1 / 4096)) count=1 conv=sync oflag=direct 2>/dev/null; }
mkdir -p /var/lib/tiny-docker
# Where images are alone, what has a name gets it on the disk after a second, and not after five:
# that is, before what is in it.
options=commit=5
if grep -q alone /payload/round; then options=commit=1; fi
mount -o $options /dev/vdd /var/lib/tiny-docker || exit
cd /var/lib/tiny-docker || exit
failed=0
wrong() { echo "power-cut: $*" && failed=1; }
. /payload/images
publish kept next late

dd if=/dev/vdd bs=4096 skip=$((size / 4096)) count=1 iflag=direct 2>/dev/null | tr -d '\0' >/tmp/noted
if [ -s /tmp/noted ]; then
    tiny-docker ps -a >/tmp/said 2>/tmp/complaints
    ended=$?
    # Each record is whole: the newest one, or the one before. Only the first one of a container may have
    # got its name before its content: ext4 looks after a new file that takes the place of another one, and
    # of no other. Such a one was promised to nobody, and is said to be none.
    none='config.json is no record: \(EOF while parsing\|expected value at line 1 column 1$\)'
    torn=$(sed -n "s#^tiny-docker: .*/containers/\([0-9a-f]*\): $none.*#\1#p" /tmp/complaints)
    [ "$(wc -w <<<"$torn")" = "$(wc -l </tmp/complaints)" ] || wrong "ps -a complains: $(cat /tmp/complaints)"
    [ $ended = 0 ] || [ -n "$torn" ] || wrong "ps -a failed"
    for id in $torn; do ! grep "^$id " /tmp/noted || wrong "its record is torn, and it was noted"; done
    grep ' Up ' /tmp/said && wrong "ps -a says that something runs"
    while read -r id end; do
        grep "^$id " /tmp/said | grep -qF "Exited ($end)" || wrong "not as noted, $id $end: $(grep "$id" /tmp/said)"
        # The disk may have lost the end of a log. What it has must be right.
        tiny-docker logs "$id" >/tmp/log 2>/tmp/errors || wrong "the log of $id: $(cat /tmp/errors)"
        tr -d '\0' </tmp/log | grep -vqx 'a line of the log' && wrong "the log of $id holds what was never written"
    done </tmp/noted
    echo "power-cut: noted $(wc -l </tmp/noted), found $(($(wc -l </tmp/said) - 1))"
    tiny-docker ps -aq | xargs -r tiny-docker rm -f >/dev/null || wrong "rm -f failed"
    [ -z "$(ls -A containers)" ] || wrong "rm -f left $(ls -A containers)"
    check_images kept
fi
if grep -qx last /payload/round || [ $failed = 1 ]; then exit $failed; fi

run() { tiny-docker run --net none --rootfs /rootfs/busybox "$@"; }
for number in 1 2 3; do
    id=$(run -d /bin/sh -c 'while :; do echo a line of the log; usleep 100000; done') || exit
    echo "$id unknown"
    id=$(run -d --name "ended-$number" /bin/sh -c "echo a line of the log; exit $number") || exit
    tiny-docker wait "$id" >/dev/null
    echo "$id $number"
done >/tmp/noted
make_images
[ $failed = 0 ] || exit $failed
# These are being made, written down and removed when the power goes. In one round there are none:
# for they have all that others write brought to the disk, too.
if ! grep -q alone /payload/round; then
    for flags in "" --rm "-d"; do
        while :; do run $flags /bin/true; done >/dev/null 2>&1 &
    done
    change_images &
else
    sleep 1
fi
# What was promised is promised for what is a second old.
sleep 1
write_to "$size" </tmp/noted
usleep "$((RANDOM * 20))"
echo "exit=0" >/dev/ttyS1
write_to $((size + 4096)) </payload/round
echo b >/proc/sysrq-trigger
sleep 10
RUN
chmod 755 "$stage/root/payload/run"
cp "$vm/power-cut-images" "$stage/root/payload/images"
truncate -s $size "$stage/disk"
"$@" "$stage/disk"
truncate -s $((size + 8192)) "$stage/disk"
for round in all some "all, images alone" some last; do
    echo "$round" >"$stage/root/payload/round"
    pack_payload
    rm -f "$stage/socket"
    "$vm/forgetful-disk.py" "$stage/disk" $size "$stage/socket" &
    disk=$!
    until [ -S "$stage/socket" ]; do sleep 0.05; done
    VM_DISK=nbd:unix:$stage/socket "$vm/run.sh" "$stage/payload.tar"
    wait "$disk"
done
echo "power-cut: four times the power was cut, and what was promised was kept"
