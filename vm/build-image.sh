#!/bin/bash
# Builds the guest: vm/image/{vmlinuz,initrd.img,root.ext4}. Needs no root, and
# does nothing when all that goes in is as it was.
#
# Kernel and userland come from one run of mmdebstrap, which only extracts
# packages: no maintainer script runs, so what those would have done and the lab
# needs is done by hand below.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
# shellcheck source=vm/image.sh
. "$here/image.sh"
PATH=$PATH:/usr/sbin:/sbin

packages=linux-image-cloud-amd64,busybox-static,dash,bash,coreutils,util-linux,bsdutils,mount,grep,sed,mawk,findutils,tar,procps,psmisc,iproute2,iputils-ping,nftables,iptables,conntrack,socat,iperf3,crun,runc,kmod,strace,less,vim-tiny,tmux,ncurses-base,python3-minimal,ca-certificates,libgcc-s1,docker-registry,skopeo,umoci,podman,systemd,uidmap,slirp4netns
container_packages=base-files,base-passwd,dash,bash,coreutils,grep,sed,mawk,findutils,util-linux,procps,iproute2,python3,apt,diffutils,libc-bin
# Three servers that people know, as a layer for on top of that root. By name, and not with all
# that they depend on: LLVM alone, which PostgreSQL compiles queries with, is larger than all these.
server_packages="nginx redis-server redis-tools postgresql-15 postgresql-client-15 apache2-utils
                 libpq5 libicu72 libxml2 libxslt1.1 libldap-2.5-0 libsasl2-2 libgssapi-krb5-2 libkrb5-3 libkrb5support0
                 libk5crypto3 libkeyutils1 libcom-err2 libgnutls30 libnettle8 libhogweed6 libgmp10 libp11-kit0 libidn2-0
                 libunistring2 libtasn1-6 libffi8 libjemalloc2 liblzf1 libatomic1 libstdc++6 libgcc-s1 libgcrypt20
                 libgpg-error0 libsystemd0 libcap2 liblz4-1 libpcre2-8-0 libcrypt1 libapr1 libaprutil1 libexpat1 libreadline8"
modules="virtio_pci virtio_blk overlay bridge veth dummy tun loop nf_tables nft_chain_nat nft_masq nft_nat nft_redir nft_ct nft_reject_inet nft_fib_inet
         nft_compat nf_conntrack_netlink iptable_filter iptable_nat xt_MASQUERADE xt_nat xt_conntrack xt_addrtype xt_comment xt_tcpudp
         nft_log nf_log_syslog"

begin_image "$here/image" 2 "$here"/{build-image.sh,classroom.bashrc}
step "fetching and extracting Debian packages: kernel, tools, a rootfs with python3, servers (150 MB; half a minute where they come fast)"
export work server_packages
# shellcheck disable=SC2016  # mmdebstrap has a shell run it
servers='set -e; export APT_CONFIG=$MMDEBSTRAP_APT_CONFIG; mkdir "$work/packages" "$work/extracted"; cd "$work/packages"
         apt-get -qq download $server_packages; for package in *.deb; do dpkg-deb -x "$package" "$work/extracted"; done
         tar -C "$work/extracted" -cf "$work/servers.tar" .'
extract "$container_packages" "$work/debian.tar" --extract-hook="$servers" &
debian=$!
extract "$packages" "$work/root.tar"
wait "$debian"
"$here/rootfs.sh" "$work/busybox"

export modules
cat >"$work/assemble" <<'ASSEMBLE'
unpack root.tar root
unpack debian.tar debian
unpack servers.tar servers
# On top of debian: what is not the same there. Nor what needs LLVM.
rm -rf servers/usr/lib/postgresql/15/lib/{bitcode,llvmjit*,pgxs} servers/usr/share/postgresql/15/man
(cd servers && find . -type f -o -type l) | while read -r file; do
    if [ -L "servers/$file" ]; then
        [ "$(readlink "servers/$file")" != "$(readlink "debian/$file")" ] || rm "servers/$file"
    elif cmp -s "servers/$file" "debian/$file"; then
        rm "servers/$file"
    fi
done
cat debian/etc/passwd - >servers/etc/passwd <<'EOF'
www-data:x:33:33:nginx:/var/www:/usr/sbin/nologin
redis:x:101:101:redis:/var/lib/redis:/usr/sbin/nologin
postgres:x:102:102:PostgreSQL:/var/lib/postgresql:/bin/bash
EOF
cat debian/etc/group - >servers/etc/group <<'EOF'
www-data:x:33:
redis:x:101:
postgres:x:102:
EOF
find servers -depth -type d -empty -delete
# What their packages' scripts would have made: where they keep their data.
install -d -m 750 -o 101 -g 101 servers/var/lib/redis
install -d -m 750 -o 102 -g 102 servers/var/lib/postgresql
choose_iptables
# shellcheck disable=SC2086  # words
take_kernel $modules
# (A test boots systemd in a container of its own, day 14.)
make_bootable
install -m 644 "$vm/classroom.bashrc" root/etc/classroom.bashrc
put_rootfs_busybox
mv debian servers root/rootfs/
ln -s /rootfs root/root/rootfs
make_disks
ASSEMBLE
step "assembling the guest's disk"
assemble "$work/assemble"
end_image
