#!/bin/bash
# vm/rootfs.sh [DIR]: makes DIR (rootfs/busybox) a root file system of one
# program, the distribution's static busybox. Needs no root.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
dir=${1:-$here/../rootfs/busybox}

# Done already, by this very script?
stamp=$(sha256sum "$0" | cut -d' ' -f1)
[ "$(cat "$dir/etc/made-by" 2>/dev/null)" != "$stamp" ] || exit 0

mkdir -p "$(dirname "$dir")"
new=$(mktemp -d "$(dirname "$dir")/.new.XXXXXX")
trap 'rm -rf "$new"' EXIT

is_static() { [ -n "$1" ] && [ -x "$1" ] && ! ldd "$1" >/dev/null 2>&1; }
busybox=$(command -v busybox || true)
if ! is_static "$busybox"; then
    command -v apt-get >/dev/null || {
        echo "vm/rootfs.sh: no static busybox here; install your distribution's (busybox, busybox-static)" >&2
        exit 1
    }
    (mkdir "$new/.package" && cd "$new/.package" && apt-get -o APT::Sandbox::User=root download -qq busybox-static && dpkg-deb -x ./*.deb .)
    busybox=$new/.package/bin/busybox
    # The package has it in /bin or, since /usr is merged, in /usr/bin.
    [ -e "$busybox" ] || busybox=$new/.package/usr/bin/busybox
fi
is_static "$busybox" || { echo "vm/rootfs.sh: $busybox is not static, and would not start in an empty root" >&2; exit 1; }

mkdir -p "$new"/{bin,dev,etc,home/app,proc,root,sbin,srv,sys,tmp,usr/bin,usr/sbin,var}
install -m 755 "$busybox" "$new/bin/busybox"
rm -rf "$new/.package"
# --list-full says where each belongs: usr/bin/env, sbin/ip.
"$new/bin/busybox" --list-full | while read -r applet; do
    case $applet in
        bin/busybox) ;;
        usr/*) ln -s ../../bin/busybox "$new/$applet" ;;
        */*) ln -s ../bin/busybox "$new/$applet" ;;
    esac
done
cat >"$new/etc/passwd" <<'EOF'
root:x:0:0:root:/root:/bin/sh
app:x:1000:1000:an ordinary user:/home/app:/bin/sh
nobody:x:65534:65534:nobody:/:/bin/false
EOF
cat >"$new/etc/group" <<'EOF'
root:x:0:
staff:x:50:app
app:x:1000:
nogroup:x:65534:
EOF
cat >"$new/etc/os-release" <<'EOF'
NAME="busybox"
PRETTY_NAME="A root file system of one program"
ID=busybox
EOF
echo "$stamp" >"$new/etc/made-by"
chmod 755 "$new"
chmod 700 "$new/root"
chmod 1777 "$new/tmp"

rm -rf "$dir"
mv "$new" "$dir"
trap - EXIT
