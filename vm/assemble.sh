# Sourced under fakeroot (image.sh): what turns extracted packages into a guest. The working
# directory has the tars, and busybox/; $new is where the image goes.
# shellcheck shell=bash disable=SC2154  # work, new and vm come from there

unpack() { # TAR DIR: what dpkg would have left there
    mkdir "$2"
    # (perl and gpg: scripts of packages need them, and none of those runs here.)
    tar -C "$2" -xpf "$1" --no-same-owner --exclude='./dev/*' --exclude='./usr/share/doc/*' \
        --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*' --exclude='./usr/share/info/*' \
        --exclude='./var/cache/*' --exclude='./var/lib/apt/*' \
        --exclude='*/perl*' --exclude='./usr/bin/gpg*' --exclude='./usr/bin/dirmngr*' --exclude='./usr/lib/gnupg*'
    # /bin is /usr/bin, and so on.
    for dir in bin sbin lib lib32 lib64 libx32; do
        if [ ! -d "$2/$dir" ] || [ -L "$2/$dir" ]; then continue; fi
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

# The kernel out of root/; of its modules, those that are named, and what they need.
take_kernel() { # MODULE...
    version=$(basename root/usr/lib/modules/*)
    mv "root/boot/vmlinuz-$version" "$new/vmlinuz"
    rm -rf root/boot
    mv "root/usr/lib/modules/$version" all-modules
    mkdir -p "depmod/lib/modules" && ln -s "$work/all-modules" "depmod/lib/modules/$version"
    depmod -b depmod "$version"
    take_modules root/usr "$@"
    depmod -b root "$version"
}

take_modules() { # DIR MODULE...
    local file
    for file in $(closure "${@:2}"); do
        install -D -m 644 "all-modules/$file" "$1/lib/modules/$version/$file"
    done
    cp all-modules/modules.builtin all-modules/modules.builtin.modinfo all-modules/modules.order "$1/lib/modules/$version/"
}

closure() { # MODULE...: their files, dependencies included
    for module in "$@"; do
        pattern="/${module//_/[-_]}\.ko:"
        grep -qE "$pattern" all-modules/modules.dep || { echo "vm: kernel $version has no module $module" >&2; exit 1; }
        grep -E "$pattern" all-modules/modules.dep | tr -d ':' | tr ' ' '\n'
    done | sort -u
}

# What Debian's alternatives would have chosen.
choose_iptables() {
    for name in {iptables,ip6tables}{,-save,-restore}; do ln -s xtables-nft-multi "root/usr/sbin/$name"; done
}

# PID 1 and a name. Whatever a tool is missing for: busybox has it, and the real one goes first.
make_bootable() {
    # systemd starts what it is told to, as a unit or as PID 1: the units that a machine boots
    # with would take a minute where QEMU emulates.
    rm -rf root/usr/lib/systemd/{system,user}-generators root/usr/lib/systemd/system/*.wants
    install -m 755 "$vm/init" root/usr/sbin/init
    echo vm >root/etc/hostname
    root/usr/bin/busybox --list | while read -r applet; do
        [ -e "root/usr/bin/$applet" ] || [ -e "root/usr/sbin/$applet" ] || ln -s busybox "root/usr/bin/$applet"
    done
}

put_rootfs_busybox() {
    mkdir -p root/rootfs
    cp -a busybox root/rootfs/busybox
    chown -R 0:0 root/rootfs/busybox
    chown 1000:1000 root/rootfs/busybox/home/app
}

make_disks() {
    mkdir -p initrd/{bin,dev,proc,new}
    cp root/usr/bin/busybox initrd/bin/
    take_modules initrd virtio_pci virtio_blk
    depmod -b initrd "$version"
    install -m 755 "$vm/initrd-init" initrd/init
    (cd initrd && find . | cpio -o -H newc --quiet | zstd -q -10 >"$new/initrd.img")
    mke2fs -q -t ext4 -d root -L root -m 0 -O ^has_journal -E lazy_itable_init=1,nodiscard "$new/root.ext4" 4G >/dev/null
}
