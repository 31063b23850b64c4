#!/bin/bash
# vm/classroom.sh [DAY] [LAB]: a root shell in the VM, with tiny-docker as it is on
# DAY (or the newest), the root file systems, and the tools of the by-hand parts. With
# LAB it is the learner's own, of lab/.
set -euo pipefail
# shellcheck source=vm/payload.sh
. "$(dirname "$(readlink -f "$0")")/payload.sh"

[ -t 0 ] || { echo "vm: a shell needs a terminal, and stdin is none" >&2; exit 125; }
[ -z "${1:-}" ] || require_day "$1" vm-shell
[ -z "${2:-}" ] || [ -d "$repo/lab" ] || { echo "there is no lab/ yet; make it first: make start DAY=1" >&2; exit 1; }
new_payload "${1:-$(newest_day)}" "$repo${2:+/lab}"
install -m 755 "$repo/days/day9-net/broken.sh" "$stage/root/usr/local/bin/"
pack_payload
echo "vm: booting (about 10 s; where QEMU must emulate, about a minute)" >&2
"$vm/shell.sh" "$stage/payload.tar"
