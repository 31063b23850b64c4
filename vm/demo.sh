#!/bin/bash
# vm/demo.sh: sets up everything, and runs a container with all of it, in the VM.
set -euo pipefail
# shellcheck source=vm/payload.sh
. "$(dirname "$(readlink -f "$0")")/payload.sh"

new_payload
cat >"$stage/root/payload/run" <<'RUN'
#!/bin/bash
# Each command as it would be typed, then what it says.
type_it() {
    printf '\n\033[1m$ %s\033[0m\n' "$*"
    "$@"
}
type_it tiny-docker --explain run --rootfs rootfs/busybox --hostname demo /bin/true || exit
type_it tiny-docker run --rootfs rootfs/busybox --hostname demo /bin/sh -c '
echo "I am PID $$ on $(hostname), and these are all the processes there are:"
ps -o pid,user,comm
echo "My root file system: $(echo /*)"
echo "It says it is: $(. /etc/os-release; echo $PRETTY_NAME)"'
RUN
chmod 755 "$stage/root/payload/run"
pack_payload
"$vm/run.sh" "$stage/payload.tar"
