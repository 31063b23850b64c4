#!/bin/bash
# Builds the guest in which other people's programs drive our OCI runtime:
# vm/real/image/{vmlinuz,initrd.img,root.ext4}. Like ../build-image.sh, whose guest is the
# learner's and has none of this.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
# shellcheck source=vm/image.sh
. "$here/../image.sh"
PATH=$PATH:/usr/sbin:/sbin

# The tools; the engines, with what they run; what crun's tests are written in.
packages=linux-image-cloud-amd64,busybox-static,dash,bash,coreutils,util-linux,bsdutils,mount,grep,sed,mawk,findutils,tar,procps,psmisc,iproute2,iputils-ping,nftables,iptables,conntrack,socat,kmod,strace,ca-certificates,libgcc-s1
packages+=,podman,conmon,crun,runc,containerd,containernetworking-plugins,netavark,aardvark-dns,catatonit,systemd,dbus,uidmap,slirp4netns
packages+=,python3
modules="virtio_pci virtio_blk overlay bridge br_netfilter veth dummy tun loop fuse nf_tables nft_chain_nat nft_masq nft_nat nft_redir nft_ct nft_reject_inet nft_fib_inet
         nft_compat nf_conntrack_netlink iptable_filter iptable_nat ip6table_filter ip6table_nat iptable_mangle ip6table_mangle ip_tables ip6_tables
         xt_MASQUERADE xt_nat xt_conntrack xt_addrtype xt_comment xt_tcpudp xt_mark xt_multiport xt_statistic ipt_REJECT"

begin_image "$here/image" 2 "$here/build-image.sh"
step "fetching and extracting Debian packages: podman, containerd, crun, runc, systemd, python3 (110 MB)"
extract "$packages" "$work/root.tar"
"$vm/rootfs.sh" "$work/busybox"

export modules
cat >"$work/assemble" <<'ASSEMBLE'
unpack root.tar root
choose_iptables
# shellcheck disable=SC2086  # words
take_kernel $modules
make_bootable
put_rootfs_busybox

# What their packages' scripts would have made: users; ranges of ids for `--userns auto`.
echo 'messagebus:x:100:100:D-Bus:/nonexistent:/usr/sbin/nologin' >>root/etc/passwd
echo 'messagebus:x:100:' >>root/etc/group
printf 'root:100000:65536\ncontainers:200000:1000000\n' | tee root/etc/subuid >root/etc/subgid
mkdir -p root/var/lib/dbus root/run/dbus
echo 0123456789abcdef0123456789abcdef >root/etc/machine-id
# What systemd starts as PID 1: see ../init.
cat >root/usr/lib/systemd/system/vm.service <<'UNIT'
[Unit]
Description=What this guest is there for
Requires=dbus.socket
After=dbus.socket
[Service]
ExecStart=/usr/sbin/init work
StandardOutput=null
StandardError=null
Delegate=yes
UNIT
make_disks
ASSEMBLE
step "assembling the guest's disk"
assemble "$work/assemble"
end_image
