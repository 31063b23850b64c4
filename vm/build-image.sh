#!/bin/bash
# Builds the guest: vm/image/{vmlinuz,initrd.img,root.ext4}. Needs no root, and
# does nothing when all that goes in is as it was.
#
# Kernel and userland come from one run of mmdebstrap, which only extracts
# packages: no maintainer script runs, so what those would have done and the lab
# needs is done by hand below.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
PATH=$PATH:/usr/sbin:/sbin

suite=bookworm
packages=linux-image-cloud-amd64,busybox-static,dash,bash,coreutils,util-linux,bsdutils,mount,grep,sed,mawk,findutils,tar,procps,psmisc,iproute2,iputils-ping,nftables,iptables,conntrack,socat,iperf3,crun,runc,kmod,strace,less,vim-tiny,tmux,ncurses-base,python3-minimal,ca-certificates,libgcc-s1,docker-registry,skopeo,umoci,podman
container_packages=base-files,base-passwd,dash,bash,coreutils,grep,sed,mawk,findutils,util-linux,procps,iproute2,python3
modules="virtio_pci virtio_blk overlay bridge veth dummy tun loop nf_tables nft_chain_nat nft_masq nft_nat nft_redir nft_ct nft_reject_inet nft_fib_inet
         nft_compat nf_conntrack_netlink iptable_filter iptable_nat xt_MASQUERADE xt_nat xt_conntrack xt_addrtype xt_comment xt_tcpudp"

stamp=$(cat "$here"/{build-image.sh,init,initrd-init,classroom.bashrc,rootfs.sh} | sha256sum | cut -d' ' -f1)
up_to_date() { [ "$(cat "$here/image/stamp" 2>/dev/null)" = "$stamp" ]; }
if up_to_date; then exit; fi

# Two builds at once: the second waits, and finds the first one's.
exec 9>"$here/.image.lock"
flock 9
if up_to_date; then exit; fi

work=$(mktemp -d "${TMPDIR:-/tmp}/tiny-docker-image.XXXXXX")
new=$here/image.new
trap 'rm -rf "$work" "$new"' EXIT
rm -rf "$new"
mkdir -p "$new"
number=0
step() { printf 'vm: %3d s  [%d of 2]  %s\n' "$SECONDS" $((++number)) "$1" >&2; }
# On a terminal what mmdebstrap says, each line in the place of the one before.
shown() { if [ -t 2 ]; then tr '\r' '\n' | while read -r line; do printf '\r\033[Kvm:        %s' "${line:0:70}" >&2; done && printf '\r\033[K' >&2; else cat >/dev/null; fi; }

extract() { # PACKAGES TAR
    mmdebstrap --aptopt='APT::Sandbox::User "root"' --variant=extract --mode=chrootless --include="$1" "$suite" "$2" 2>&1 | tee "$2.log" | shown || {
        cat "$2.log" >&2
        echo "vm: Debian's packages cannot be fetched; is there a network, or a mirror in /etc/apt?" >&2
        exit 1
    }
}
step "fetching and extracting Debian packages: kernel, tools, a rootfs with python3 (120 MB; half a minute where they come fast)"
extract "$container_packages" "$work/debian.tar" &
debian=$!
extract "$packages" "$work/root.tar"
wait "$debian"
"$here/rootfs.sh" "$work/busybox"

export work new here modules
cat >"$work/assemble" <<'ASSEMBLE'
set -euo pipefail
cd "$work"
unpack() { # TAR DIR: what dpkg would have left there
    mkdir "$2"
    # (perl and gpg: scripts of packages need them, and none of those runs here.)
    tar -C "$2" -xpf "$1" --no-same-owner --exclude='./dev/*' --exclude='./usr/share/doc/*' \
        --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*' --exclude='./usr/share/info/*' \
        --exclude='./var/cache/*' --exclude='./var/lib/apt/*' \
        --exclude='*/perl*' --exclude='./usr/bin/gpg*' --exclude='./usr/bin/dirmngr*' --exclude='./usr/lib/gnupg*'
    # /bin is /usr/bin, and so on.
    for dir in bin sbin lib lib32 lib64 libx32; do
        [ -d "$2/$dir" ] && [ ! -L "$2/$dir" ] || continue
        mkdir -p "$2/usr/$dir"
        cp -a "$2/$dir/." "$2/usr/$dir/"
        rm -rf "${2:?}/$dir"
        ln -s "usr/$dir" "$2/$dir"
    done
    ln -sfn dash "$2/usr/bin/sh"
    [ -e "$2/usr/bin/awk" ] || ln -s mawk "$2/usr/bin/awk"
    mkdir -p "$2"/{dev,etc,home/app,mnt,proc,root,run,srv,sys,tmp,var/lib,var/log,var/tmp}
    ln -sfn /run "$2/var/run"
    chmod 755 "$2"
    chmod 700 "$2/root"
    chmod 1777 "$2/tmp" "$2/var/tmp"
    chown 1000:1000 "$2/home/app"
    cp "$work/busybox/etc/passwd" "$work/busybox/etc/group" "$2/etc/"
    sed -i 's/^root:.*/root:x:0:0:root:\/root:\/bin\/bash/' "$2/etc/passwd"
    # mmdebstrap leaves the name servers of the machine that it ran on.
    : >"$2/etc/resolv.conf"
    printf '127.0.0.1 localhost\n::1 localhost\n' >"$2/etc/hosts"
}
unpack root.tar root
unpack debian.tar debian
# What Debian's alternatives would have chosen.
for name in {iptables,ip6tables}{,-save,-restore}; do ln -s xtables-nft-multi "root/usr/sbin/$name"; done

version=$(basename root/usr/lib/modules/*)
mv "root/boot/vmlinuz-$version" "$new/vmlinuz"
rm -rf root/boot
# Of the modules, those that the lab needs, and what they need.
mv "root/usr/lib/modules/$version" all-modules
mkdir -p "depmod/lib/modules" && ln -s "$work/all-modules" "depmod/lib/modules/$version"
depmod -b depmod "$version"
closure() { # MODULE...: their files, dependencies included
    for module in "$@"; do
        pattern="/${module//_/[-_]}\.ko:"
        grep -qE "$pattern" all-modules/modules.dep || { echo "vm: kernel $version has no module $module" >&2; exit 1; }
        grep -E "$pattern" all-modules/modules.dep | tr -d ':' | tr ' ' '\n'
    done | sort -u
}
for file in $(closure $modules); do
    install -D -m 644 "all-modules/$file" "root/usr/lib/modules/$version/$file"
done
cp all-modules/modules.builtin all-modules/modules.builtin.modinfo all-modules/modules.order "root/usr/lib/modules/$version/"
depmod -b root "$version"

install -m 755 "$here/init" root/usr/sbin/init
install -m 644 "$here/classroom.bashrc" root/etc/classroom.bashrc
echo vm >root/etc/hostname
# Whatever a tool is missing for: busybox has it, and the real one goes first.
root/usr/bin/busybox --list | while read -r applet; do
    [ -e "root/usr/bin/$applet" ] || [ -e "root/usr/sbin/$applet" ] || ln -s busybox "root/usr/bin/$applet"
done
mkdir root/rootfs
mv debian root/rootfs/debian
cp -a busybox root/rootfs/busybox
chown -R 0:0 root/rootfs/busybox
chown 1000:1000 root/rootfs/busybox/home/app
ln -s /rootfs root/root/rootfs

mkdir -p initrd/{bin,dev,proc,new}
cp root/usr/bin/busybox initrd/bin/
for file in $(closure virtio_pci virtio_blk); do
    install -D -m 644 "all-modules/$file" "initrd/lib/modules/$version/$file"
done
cp all-modules/modules.{builtin,builtin.modinfo,order} "initrd/lib/modules/$version/"
depmod -b initrd "$version"
install -m 755 "$here/initrd-init" initrd/init
(cd initrd && find . | cpio -o -H newc --quiet | zstd -q -10 >"$new/initrd.img")
mke2fs -q -t ext4 -d root -L root -m 0 -O ^has_journal -E lazy_itable_init=1,nodiscard "$new/root.ext4" 4G >/dev/null
ASSEMBLE
step "assembling the guest's disk"
# Files of the guest belong to its root; fakeroot lets anybody say so.
fakeroot bash "$work/assemble"
echo "$stamp" >"$new/stamp"
rm -rf "$here/image"
mv "$new" "$here/image"
printf 'vm: %3d s  the image is built (%s)\n' "$SECONDS" "$(du -sh "$here/image" | cut -f1)" >&2
