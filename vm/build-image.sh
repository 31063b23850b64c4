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

extract() { # PACKAGES TAR [OPTION...]
    mmdebstrap --aptopt='APT::Sandbox::User "root"' --variant=extract --mode=chrootless --include="$1" "${@:3}" "$suite" "$2" 2>&1 | tee "$2.log" | shown || {
        cat "$2.log" >&2
        echo "vm: Debian's packages cannot be fetched; is there a network, or a mirror in /etc/apt?" >&2
        exit 1
    }
}
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

# A test boots systemd in a container of its own (day 14), with the units that it enables: those
# that a machine boots with would take a minute where QEMU emulates.
rm -rf root/usr/lib/systemd/{system,user}-generators root/usr/lib/systemd/system/*.wants
install -m 755 "$here/init" root/usr/sbin/init
install -m 644 "$here/classroom.bashrc" root/etc/classroom.bashrc
echo vm >root/etc/hostname
# Whatever a tool is missing for: busybox has it, and the real one goes first.
root/usr/bin/busybox --list | while read -r applet; do
    [ -e "root/usr/bin/$applet" ] || [ -e "root/usr/sbin/$applet" ] || ln -s busybox "root/usr/bin/$applet"
done
mkdir root/rootfs
mv debian servers root/rootfs/
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
