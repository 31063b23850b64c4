# Sourced by accel.sh, run.sh and shell.sh: how QEMU is started, written once.
# shellcheck shell=bash

image=${VM_IMAGE:-$(dirname "${BASH_SOURCE[0]}")/image}

# qemu kvm|tcg KERNEL-ARGUMENTS [QEMU-ARGUMENTS...]
#
# No network: an outside world for NAT is a second network namespace in the
# guest. No shared folders: what goes in and out are two disks that hold raw tar
# archives, which every kernel can read without a driver of its own.
qemu() {
    local accel=$1 append=$2 accel_arguments
    shift 2
    case $accel in
        kvm) accel_arguments=(-accel kvm -cpu host) ;;
        # The plainest processor is the fastest to emulate. rdrand: without it the
        # guest has no random numbers for its first seconds.
        *) accel_arguments=(-accel "tcg,thread=multi,tb-size=512" -cpu "qemu64,+rdrand") ;;
    esac
    # norandmaps: QEMU 7.2 translates a program anew at each new address, so that a
    # dynamic program starts 3 to 5 times as fast where it always has the same one.
    # no_timer_check: on a busy host about one boot in 20 took a timer that was late for
    # one that does not work, and panicked. (kernel-parameters)
    # The second serial line is for what the kernel says, the first for programs.
    # --foreground: without it Ctrl-C would not reach QEMU, and leave it behind.
    timeout --foreground -k 5 "${VM_TIMEOUT:-900}" qemu-system-x86_64 "${accel_arguments[@]}" \
        -M q35,usb=off,vmport=off -smp "${VM_CPUS:-2}" -m "${VM_MEMORY:-2048}" \
        -nodefaults -no-user-config -display none -nic none -no-reboot \
        -kernel "$image/vmlinuz" -initrd "$image/initrd.img" \
        -append "console=ttyS1 quiet loglevel=3 panic=-1 mitigations=off random.trust_cpu=on norandmaps no_timer_check $append" "$@"
}
