/* The kernel's floor: the least program that asks the kernel for the world of
 * day 3. No options, no errors worth reading, no narration: what is left is
 * the price of the kernel's own work. benches/start_to_exit.rs measures
 * tiny-docker against it.
 *
 * usage: floor ROOTFS COMMAND [ARG...]        (static: cc -O2 -static)
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>
#include <grp.h>

#define MUST(call) do { if ((call) == -1) { perror(#call); _exit(125); } } while (0)
#define HARMLESS (MS_NOSUID | MS_NODEV | MS_NOEXEC)

static void enter(const char *rootfs)
{
    MUST(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    MUST(sethostname("tiny-container", 14));

    MUST(mount(rootfs, rootfs, NULL, MS_BIND | MS_REC, NULL));
    MUST(chdir(rootfs));
    MUST(syscall(SYS_pivot_root, ".", "."));
    MUST(umount2(".", MNT_DETACH));
    MUST(chdir("/"));

    umask(0);
    MUST(mount("proc", "/proc", "proc", HARMLESS, NULL));
    MUST(mount("sysfs", "/sys", "sysfs", HARMLESS | MS_RDONLY, NULL));

    MUST(mount("tmpfs", "/dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k"));
    MUST(mknod("/dev/null", S_IFCHR | 0666, makedev(1, 3)));
    MUST(mknod("/dev/zero", S_IFCHR | 0666, makedev(1, 5)));
    MUST(mknod("/dev/full", S_IFCHR | 0666, makedev(1, 7)));
    MUST(mknod("/dev/random", S_IFCHR | 0666, makedev(1, 8)));
    MUST(mknod("/dev/urandom", S_IFCHR | 0666, makedev(1, 9)));
    MUST(mknod("/dev/tty", S_IFCHR | 0666, makedev(5, 0)));
    MUST(symlink("/proc/self/fd", "/dev/fd"));
    MUST(symlink("/proc/self/fd/0", "/dev/stdin"));
    MUST(symlink("/proc/self/fd/1", "/dev/stdout"));
    MUST(symlink("/proc/self/fd/2", "/dev/stderr"));
    MUST(symlink("pts/ptmx", "/dev/ptmx"));
    MUST(mkdir("/dev/pts", 0755));
    MUST(mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"));
    MUST(mkdir("/dev/shm", 01777));
    MUST(mount("tmpfs", "/dev/shm", "tmpfs", HARMLESS, "mode=1777,size=65536k"));
    MUST(mkdir("/dev/mqueue", 0755));
    MUST(mount("mqueue", "/dev/mqueue", "mqueue", HARMLESS, NULL));

    static const char *masked[] = {
        "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
        "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
        "/sys/devices/virtual/powercap", "/sys/firmware",
    };
    static const char *read_only[] = { "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger" };
    struct stat st;
    for (size_t i = 0; i < sizeof masked / sizeof *masked; i++) {
        if (lstat(masked[i], &st) == -1)
            continue;
        if (S_ISDIR(st.st_mode))
            MUST(mount("tmpfs", masked[i], "tmpfs", HARMLESS | MS_RDONLY, NULL));
        else
            MUST(mount("/dev/null", masked[i], NULL, MS_BIND | MS_REC, NULL));
    }
    for (size_t i = 0; i < sizeof read_only / sizeof *read_only; i++) {
        if (lstat(read_only[i], &st) == -1)
            continue;
        MUST(mount(read_only[i], read_only[i], NULL, MS_BIND | MS_REC, NULL));
        MUST(mount(NULL, read_only[i], NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | HARMLESS, NULL));
    }
    umask(022);

    MUST(setgroups(0, NULL));
    MUST(setgid(0));
    MUST(setuid(0));
    MUST(prctl(PR_SET_PDEATHSIG, SIGKILL));
}

int main(int argc, char **argv)
{
    char *environment[] = { "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root",
                            "HOSTNAME=tiny-container", "TERM=xterm", NULL };
    int pidfd = -1, status = 0;
    struct clone_args args = {
        .flags = CLONE_NEWUTS | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_PIDFD,
        .pidfd = (uintptr_t)&pidfd,
        .exit_signal = SIGCHLD,
    };
    if (argc < 3)
        return 2;
    MUST(syscall(SYS_close_range, 3, ~0U, 0));
    long pid = syscall(SYS_clone3, &args, sizeof args);
    MUST(pid);
    if (pid == 0) {
        enter(argv[1]);
        execve(argv[2], argv + 2, environment);
        _exit(127);
    }
    MUST(waitpid(pid, &status, 0));
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
