/* The kernel's floor: the least program that asks the kernel for the same work
 * as tiny-docker. No options, no errors worth reading, no narration: what is
 * left is the price of the kernel's own work.
 *
 * usage: floor ROOTFS COMMAND [ARG...]                     day 3's world
 *        floor --all STATE_DIR ROOTFS COMMAND [ARG...]     all of it, to day 16
 *
 * cc -O2 -static, in the repository, for the filter of day 16 is taken from there. For
 * --all, the bridge floor0 and the cgroup tiny-docker-floor must be there (vm/bench.sh
 * makes them). -DCGROUP=0 leaves the cgroup out, for a machine without version 2. The
 * cable is left to the kernel, as by tiny-docker.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/if_link.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/openat2.h>
#include <linux/rtnetlink.h>
#include <linux/magic.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <linux/veth.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef CGROUP
#define CGROUP 1
#endif
#ifndef OPEN_TREE_CLONE /* a C library before 2.36 */
#include <linux/mount.h>
#endif

#define MUST(call) do { if ((call) == -1) { perror(#call); _exit(125); } } while (0)
#define NAMESPACES (CLONE_NEWUTS | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC)
#define HARMLESS (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)
#define EMPTY_PATHS (MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)

/* A copy of what is at a path, as a mount that is attached nowhere yet. */
static int copy(int dir, const char *path)
{
    int mount = syscall(SYS_open_tree, dir, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE | AT_EMPTY_PATH);
    MUST(mount);
    return mount;
}

static void set_mount(int mount, int flags, uint64_t set, uint64_t propagation)
{
    struct mount_attr attr = { .attr_set = set, .propagation = propagation };
    MUST(syscall(SYS_mount_setattr, mount, "", AT_EMPTY_PATH | flags, &attr, sizeof attr));
}

static void attach(int mount, int dir, const char *path)
{
    MUST(syscall(SYS_move_mount, mount, "", dir, path, EMPTY_PATHS));
}

/* A directory to mount on: no link leads to it, and nobody can exchange it any more. */
static int place(const char *path)
{
    struct open_how how = { .flags = O_PATH | O_DIRECTORY | O_CLOEXEC, .resolve = RESOLVE_NO_SYMLINKS };
    int fd = syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
    MUST(fd);
    return fd;
}

/* A new file system, mounted at path in dir. options: names and values, in turn. */
static int new_mount(const char *kind, const char **options, int flags, int dir, const char *path)
{
    int context = syscall(SYS_fsopen, kind, FSOPEN_CLOEXEC);
    MUST(context);
    MUST(syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "source", kind, 0));
    for (; options && *options; options += 2)
        MUST(syscall(SYS_fsconfig, context, options[1] ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG,
                     options[0], options[1], 0));
    MUST(syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
    int mount = syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, flags);
    MUST(mount);
    close(context);
    attach(mount, dir, path);
    return mount;
}

static void make_dev(int dev)
{
    MUST(mknodat(dev, "null", S_IFCHR | 0666, makedev(1, 3)));
    MUST(mknodat(dev, "zero", S_IFCHR | 0666, makedev(1, 5)));
    MUST(mknodat(dev, "full", S_IFCHR | 0666, makedev(1, 7)));
    MUST(mknodat(dev, "random", S_IFCHR | 0666, makedev(1, 8)));
    MUST(mknodat(dev, "urandom", S_IFCHR | 0666, makedev(1, 9)));
    MUST(mknodat(dev, "tty", S_IFCHR | 0666, makedev(5, 0)));
    MUST(symlinkat("/proc/self/fd", dev, "fd"));
    MUST(symlinkat("/proc/self/fd/0", dev, "stdin"));
    MUST(symlinkat("/proc/self/fd/1", dev, "stdout"));
    MUST(symlinkat("/proc/self/fd/2", dev, "stderr"));
    MUST(symlinkat("pts/ptmx", dev, "ptmx"));

    const char *pts[] = { "newinstance", NULL, "ptmxmode", "0666", "mode", "0620", "gid", "5", NULL };
    const char *shm[] = { "mode", "1777", "size", "65536k", NULL };
    MUST(mkdirat(dev, "pts", 0755));
    close(new_mount("devpts", pts, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, dev, "pts"));
    MUST(mkdirat(dev, "shm", 01777));
    close(new_mount("tmpfs", shm, HARMLESS, dev, "shm"));
    MUST(mkdirat(dev, "mqueue", 0755));
    close(new_mount("mqueue", NULL, HARMLESS, dev, "mqueue"));
}

static void mask(int dir, const char *path, int dev)
{
    struct stat st;
    if (fstatat(dir, path, &st, AT_SYMLINK_NOFOLLOW) == -1)
        return;
    if (S_ISDIR(st.st_mode)) {
        close(new_mount("tmpfs", NULL, HARMLESS | MOUNT_ATTR_RDONLY, dir, path));
    } else {
        int null = copy(dev, "null");
        attach(null, dir, path);
        close(null);
    }
}

static void hide_the_host(int proc, int sys, int dev)
{
    static const char *masked[] = { "acpi", "asound", "interrupts", "kcore", "keys", "latency_stats",
                                    "sched_debug", "scsi", "timer_list", "timer_stats" };
    static const char *read_only[] = { "bus", "fs", "irq", "sys", "sysrq-trigger" };
    struct stat st;
    for (size_t i = 0; i < sizeof masked / sizeof *masked; i++)
        mask(proc, masked[i], dev);
    mask(sys, "devices/virtual/powercap", dev);
    mask(sys, "firmware", dev);
    for (size_t i = 0; i < sizeof read_only / sizeof *read_only; i++) {
        if (fstatat(proc, read_only[i], &st, AT_SYMLINK_NOFOLLOW) == -1)
            continue;
        int itself = copy(proc, read_only[i]);
        set_mount(itself, 0, MOUNT_ATTR_RDONLY, 0);
        attach(itself, proc, read_only[i]);
        close(itself);
    }
}

/* Day 3, before the clone: the root file system, as a mount that is nowhere. */
static int root;

static void open_root(const char *rootfs)
{
    root = copy(AT_FDCWD, rootfs);
    set_mount(root, AT_RECURSIVE, 0, MS_PRIVATE);
}

static int sys;

static void write_file(const char *path, const char *text, int flags)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC | flags, 0644);
    MUST(fd);
    MUST(write(fd, text, strlen(text)));
    close(fd);
}

/* Day 1: what a process inherits from its caller, and a container does not. */
static void start_afresh(void)
{
    static const unsigned long by_default[4];
    for (int signal = 1; signal <= 64; signal++)
        if (signal != SIGKILL && signal != SIGSTOP)
            MUST(syscall(SYS_rt_sigaction, signal, by_default, NULL, 8));
    MUST(personality(0));
    MUST(syscall(SYS_keyctl, 1 /* JOIN_SESSION_KEYRING */, NULL, 0, 0, 0));
    write_file("/proc/self/oom_score_adj", "0", 0);
}

static void enter(void)
{
    start_afresh();
    const char *dev_options[] = { "mode", "755", "size", "65536k", NULL };
    int at;

    MUST(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    MUST(sethostname("tiny-container", 14));

    at = place("/proc");
    attach(root, at, "");
    close(at);
    MUST(fchdir(root));
    MUST(syscall(SYS_pivot_root, ".", "."));
    MUST(umount2(".", MNT_DETACH));
    MUST(chdir("/"));

    umask(0);
    at = place("/proc");
    int proc = new_mount("proc", NULL, HARMLESS, at, "");
    close(at);
    at = place("/sys");
    sys = new_mount("sysfs", NULL, HARMLESS | MOUNT_ATTR_RDONLY, at, "");
    close(at);
    at = place("/dev");
    int dev = new_mount("tmpfs", dev_options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_STRICTATIME, at, "");
    close(at);
    make_dev(dev);
    hide_the_host(proc, sys, dev);
    umask(022);

    MUST(setgroups(0, NULL));
    MUST(setgid(0));
    MUST(setuid(0));
    MUST(prctl(PR_SET_PDEATHSIG, SIGKILL));
}

static void become(char **command)
{
    char *environment[] = { "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root",
                            "HOSTNAME=tiny-container", "TERM=xterm", NULL };
    execve(command[0], command, environment);
    _exit(127);
}

static int day3(const char *rootfs, char **command)
{
    int pidfd = -1, status = 0;
    open_root(rootfs);
    struct clone_args args = {
        .flags = NAMESPACES | CLONE_PIDFD,
        .pidfd = (uintptr_t)&pidfd,
        .exit_signal = SIGCHLD,
    };
    long pid = syscall(SYS_clone3, &args, sizeof args);
    MUST(pid);
    if (pid == 0) {
        enter();
        become(command);
    }
    close(root);
    MUST(waitpid(pid, &status, 0));
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* ---- day 4: the record, which is replaced as a whole ---- */

static char dir[200], id[13];

static const char *in_dir(const char *name)
{
    static char path[300];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

/* Not emptied first, for the last one goes into a file that has room. */
static void write_record(const char *status)
{
    char text[300], new[300];
    snprintf(text, sizeof text, "{ \"id\": \"%s\", \"status\": \"%s\" }\n", id, status);
    snprintf(new, sizeof new, "%s/config.json.new", dir);
    write_file(new, text, O_CREAT);
    MUST(rename(new, in_dir("config.json")));
}

static int lock;

/* Made aside, with its lock and its record in it, and renamed. */
static void make_dir(const char *state)
{
    uint64_t random;
    char there[200];
    MUST(getrandom(&random, sizeof random, 0));
    snprintf(id, sizeof id, "%012llx", (unsigned long long)random >> 16);
    snprintf(dir, sizeof dir, "%s/aside", state);
    if (mkdir(dir, 0700) == -1 && errno != EEXIST)
        MUST(-1);
    snprintf(dir, sizeof dir, "%s/aside/%s", state, id);
    MUST(mkdir(dir, 0700));
    MUST(lock = open(in_dir("lock"), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    MUST(flock(lock, LOCK_EX));
    write_record("created");
    snprintf(there, sizeof there, "%s/%s", state, id);
    MUST(rename(dir, there));
    memcpy(dir, there, sizeof dir);
}

/* The record of a running container; and room on the disk for the one of its end. */
static void write_running(void)
{
    char room[300];
    int fd;
    MUST(pwrite(lock, id, sizeof id, 0));
    write_record("running");
    snprintf(room, sizeof room, "%s/config.json.room", dir);
    MUST(fd = open(room, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    MUST(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 4096));
    close(fd);
}

struct flush { int turn, null; };

static int flush(void *of)
{
    const struct flush *files = of;
    setsid();
    dup2(files->turn, 0);
    dup2(files->null, 1);
    dup2(files->null, 2);
    close_range(3, ~0U, 0);
    usleep(300000);
    flock(0, LOCK_UN);
    syncfs(0);
    _exit(0);
}

/* A process that brings it to the disk, and that nobody waits for: one for all that end
 * within 0.3 s. It is in this one's memory, and not a copy of it. */
static void flush_soon(void)
{
    static struct flush files;
    static char stack[64 << 10] __attribute__((aligned(16)));
    struct statfs fs;
    MUST(files.turn = open(in_dir("../flush"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    MUST(fstatfs(files.turn, &fs));
    if (fs.f_type == TMPFS_MAGIC || flock(files.turn, LOCK_EX | LOCK_NB) == -1)
        return;
    MUST(files.null = open("/dev/null", O_RDWR | O_CLOEXEC));
    MUST(clone(flush, stack + sizeof stack, CLONE_VM | SIGCHLD, &files));
}

static void write_end(void)
{
    char room[300], before[300];
    snprintf(room, sizeof room, "%s/config.json.room", dir);
    snprintf(before, sizeof before, "%s/config.json.before", dir);
    MUST(link(in_dir("config.json"), before));
    MUST(rename(room, in_dir("config.json.new")));
    write_record("exited");
    flush_soon();
}

/* ---- day 7: the cgroup ---- */

static char cgroup[100];

static const char *in_cgroup(const char *name)
{
    static char path[200];
    snprintf(path, sizeof path, "%s/%s", cgroup, name);
    return path;
}

static int make_cgroup(void)
{
    snprintf(cgroup, sizeof cgroup, "/sys/fs/cgroup/tiny-docker-floor/%s", id);
    MUST(mkdir(cgroup, 0755));
    write_file(in_cgroup("memory.max"), "134217728", 0);
    write_file(in_cgroup("memory.swap.max"), "0", 0);
    int fd = open(cgroup, O_PATH | O_DIRECTORY | O_CLOEXEC);
    MUST(fd);
    return fd;
}

static void remove_cgroup(void)
{
    char events[500];
    int fd = open(in_cgroup("memory.events"), O_RDONLY | O_CLOEXEC);
    MUST(fd);
    MUST(read(fd, events, sizeof events));
    close(fd);
    MUST(rmdir(cgroup));
}

/* ---- days 8 and 9: requests to rtnetlink(7), by hand ---- */

static struct {
    struct nlmsghdr header;
    char room[500];
} request;
static int netlink;

static void *append(const void *data, size_t size)
{
    char *place = (char *)&request + NLMSG_ALIGN(request.header.nlmsg_len);
    memcpy(place, data, size);
    request.header.nlmsg_len = place + size - (char *)&request;
    return place;
}

static void begin(int type, int flags, const void *data, size_t size)
{
    request.header = (struct nlmsghdr){ NLMSG_LENGTH(0), type, NLM_F_REQUEST | NLM_F_ACK | flags, 0, 0 };
    append(data, size);
}

static struct rtattr *attribute(int type, const void *data, size_t size)
{
    struct rtattr header = { RTA_LENGTH(size), type };
    struct rtattr *attribute = append(&header, sizeof header);
    append(data, size);
    return attribute;
}

/* The attributes since `nest` are inside of it. */
static void end(struct rtattr *nest)
{
    nest->rta_len = (char *)&request + request.header.nlmsg_len - (char *)nest;
}

static void open_netlink(int protocol)
{
    MUST(netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol));
}

/* Sends the request, and waits for the answer: 0, or -1 and errno. */
static int ask(void)
{
    struct { struct nlmsghdr header; struct nlmsgerr error; char room[600]; } answer;
    MUST(send(netlink, &request, request.header.nlmsg_len, 0));
    MUST(recv(netlink, &answer, sizeof answer, 0));
    errno = -answer.error.error;
    return errno ? -1 : 0;
}

/* Sends a question, and reads the answer: one message, or all of a list. */
static void look(int type, int flags, const void *data, size_t size)
{
    static char answer[65536];
    struct nlmsghdr *first = (struct nlmsghdr *)answer;
    begin(type, flags, data, size);
    request.header.nlmsg_flags &= ~NLM_F_ACK;
    MUST(send(netlink, &request, request.header.nlmsg_len, 0));
    do
        MUST(recv(netlink, answer, sizeof answer, 0));
    while (first->nlmsg_flags & NLM_F_MULTI && first->nlmsg_type != NLMSG_DONE);
}

static void read_switch(const char *path)
{
    char is_on[2];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd == -1)
        return;
    MUST(read(fd, is_on, sizeof is_on));
    close(fd);
}

/* What others may have changed since the last start: the bridge, its address and its route,
 * the switches of a router, the tables of the firewall. Here it is looked at, and no more. */
static int look_at_the_network(void)
{
    /* Without its counters, which the kernel would add up. */
    struct {
        struct ifinfomsg link;
        struct rtattr attribute;
        uint32_t mask;
    } link = { .attribute = { RTA_LENGTH(sizeof link.mask), IFLA_EXT_MASK }, .mask = RTEXT_FILTER_SKIP_STATS };
    struct ifaddrmsg ours = { .ifa_family = AF_INET };
    struct rtmsg route = { .rtm_family = AF_INET, .rtm_dst_len = 32 };
    struct nfgenmsg tables = { .nfgen_family = AF_UNSPEC, .version = NFNETLINK_V0 };
    int bridge = if_nametoindex("floor0");
    MUST(bridge ? 0 : -1);

    open_netlink(NETLINK_ROUTE);
    link.link.ifi_index = ours.ifa_index = bridge;
    look(RTM_GETLINK, 0, &link, sizeof link);
    look(RTM_GETADDR, NLM_F_DUMP, &ours, sizeof ours);
    look(RTM_GETROUTE, 0, &route, sizeof route);
    close(netlink);
    read_switch("/proc/sys/net/ipv6/conf/floor0/disable_ipv6");
    read_switch("/proc/sys/net/ipv4/conf/floor0/forwarding");
    read_switch("/proc/sys/net/ipv4/ip_forward");
    open_netlink(NETLINK_NETFILTER);
    look(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN, 0, &tables, sizeof tables);
    look(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN, NLM_F_DUMP, &tables, sizeof tables);
    close(netlink);
    return bridge;
}

static const char *veth(void)
{
    static char name[IFNAMSIZ];
    snprintf(name, sizeof name, "fl%s", id);
    return name;
}

static int locked_file(const char *name)
{
    int fd = open(in_dir(name), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    MUST(fd);
    MUST(flock(fd, LOCK_EX));
    return fd;
}

/* An address: a lock while it is looked for, one on the address itself, and a note which
 * was the last. */
static void lease(void)
{
    int network = locked_file("../network");
    locked_file("10.11.0.2");
    write_file(in_dir("../last"), "10.11.0.2", O_CREAT);
    close(network);
}

/* One request: the cable, its one end on the bridge, its other in the child. That
 * one is down: in here it has no other end yet, and veth refuses to be up alone. */
static void plug_in(int child, int bridge)
{
    static const unsigned char hardware[6] = { 0x02, 0x74, 10, 11, 0, 2 };
    struct ifinfomsg up = { .ifi_flags = IFF_UP, .ifi_change = IFF_UP }, down = { 0 };

    open_netlink(NETLINK_ROUTE);
    begin(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &up, sizeof up);
    attribute(IFLA_IFNAME, veth(), strlen(veth()) + 1);
    attribute(IFLA_MASTER, &bridge, sizeof bridge);
    struct rtattr *info = attribute(IFLA_LINKINFO, "", 0);
    attribute(IFLA_INFO_KIND, "veth", 4);
    struct rtattr *data = attribute(IFLA_INFO_DATA, "", 0);
    struct rtattr *peer = attribute(VETH_INFO_PEER, &down, sizeof down);
    attribute(IFLA_IFNAME, "eth0", 5);
    attribute(IFLA_ADDRESS, hardware, sizeof hardware);
    attribute(IFLA_NET_NS_PID, &child, sizeof child);
    end(peer);
    end(data);
    end(info);
    MUST(ask());
    /* No container may be the host's router. */
    char accept_ra[100];
    snprintf(accept_ra, sizeof accept_ra, "/proc/sys/net/ipv6/conf/%s/accept_ra", veth());
    if (access(accept_ra, F_OK) == 0)
        write_file(accept_ra, "0", 0);
}

static void bring_up(int index)
{
    struct ifinfomsg up = { .ifi_index = index, .ifi_flags = IFF_UP, .ifi_change = IFF_UP };
    begin(RTM_NEWLINK, 0, &up, sizeof up);
    MUST(ask());
}

/* The child's side: lo and eth0 up, an address, a default route. */
static void configure_network(void)
{
    uint32_t address = inet_addr("10.11.0.2"), gateway = inet_addr("10.11.0.1");
    int eth0 = if_nametoindex("eth0");
    MUST(eth0 ? 0 : -1);
    struct ifaddrmsg on_eth0 = { .ifa_family = AF_INET, .ifa_prefixlen = 24, .ifa_index = eth0 };
    struct rtmsg by_default = { .rtm_family = AF_INET, .rtm_table = RT_TABLE_MAIN,
                                .rtm_protocol = RTPROT_STATIC, .rtm_type = RTN_UNICAST };

    open_netlink(NETLINK_ROUTE);
    bring_up(1);
    bring_up(eth0);
    begin(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &on_eth0, sizeof on_eth0);
    attribute(IFA_LOCAL, &address, sizeof address);
    attribute(IFA_ADDRESS, &address, sizeof address);
    MUST(ask());
    begin(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &by_default, sizeof by_default);
    attribute(RTA_GATEWAY, &gateway, sizeof gateway);
    MUST(ask());
}

/* ---- day 9: the files of /etc, as mounts that are not anywhere yet ---- */

static const char *etc[][2] = {
    { "hostname", "tiny-container\n" },
    { "hosts", "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n10.11.0.2\ttiny-container\n" },
    { "resolv.conf", "nameserver 10.11.0.1\n" },
};
static int etc_mounts[3];

static void write_etc(void)
{
    for (int i = 0; i < 3; i++) {
        write_file(in_dir(etc[i][0]), etc[i][1], O_CREAT | O_EXCL);
        MUST(etc_mounts[i] = syscall(SYS_open_tree, AT_FDCWD, in_dir(etc[i][0]), OPEN_TREE_CLONE | O_CLOEXEC));
    }
}

static void mount_etc(void)
{
    for (int i = 0; i < 3; i++) {
        char path[50];
        snprintf(path, sizeof path, "/etc/%s", etc[i][0]);
        if (access(path, F_OK) == 0)
            MUST(syscall(SYS_move_mount, etc_mounts[i], "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH));
    }
}

/* ---- day 15: what of root's power is left ---- */

static long bpf(int command, union bpf_attr *attr)
{
    return syscall(SYS_bpf, command, attr, sizeof *attr);
}

/* Of a device the kind, the numbers, and what nobody may do with it; -1: any. */
static const struct { int kind, major, minor, refused; } allowed[] = {
    { 2, -1, -1, 6 }, { 1, -1, -1, 6 }, { 2, 1, 3, 0 }, { 2, 1, 5, 0 },  { 2, 1, 7, 0 },   { 2, 1, 8, 0 },
    { 2, 1, 9, 0 },   { 2, 5, 0, 0 },   { 2, 5, 1, 0 }, { 2, 5, 2, 0 }, { 2, 136, -1, 0 },
};

/* The same program that tiny-docker writes: each test that fails leads to the next rule. */
static void filter_devices(int cgroup)
{
    static struct bpf_insn code[100] = {
        { .code = 0x61, .dst_reg = 2, .src_reg = 1, .off = 0 }, { .code = 0x57, .dst_reg = 2, .imm = 0xffff },
        { .code = 0x61, .dst_reg = 3, .src_reg = 1, .off = 0 }, { .code = 0x77, .dst_reg = 3, .imm = 16 },
        { .code = 0x61, .dst_reg = 4, .src_reg = 1, .off = 4 }, { .code = 0x61, .dst_reg = 5, .src_reg = 1, .off = 8 },
    };
    int count = 6;
    for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++) {
        int first = count;
        code[count++] = (struct bpf_insn){ .code = 0x55, .dst_reg = 2, .imm = allowed[i].kind };
        if (allowed[i].major != -1)
            code[count++] = (struct bpf_insn){ .code = 0x55, .dst_reg = 4, .imm = allowed[i].major };
        if (allowed[i].minor != -1)
            code[count++] = (struct bpf_insn){ .code = 0x55, .dst_reg = 5, .imm = allowed[i].minor };
        if (allowed[i].refused)
            code[count++] = (struct bpf_insn){ .code = 0x45, .dst_reg = 3, .imm = allowed[i].refused };
        for (int test = first; test < count; test++)
            code[test].off = count - test + 1;
        code[count++] = (struct bpf_insn){ .code = 0xb7, .dst_reg = 0, .imm = 1 };
        code[count++] = (struct bpf_insn){ .code = 0x95 };
    }
    code[count++] = (struct bpf_insn){ .code = 0xb7, .dst_reg = 0, .imm = 0 };
    code[count++] = (struct bpf_insn){ .code = 0x95 };

    union bpf_attr load = { .prog_type = BPF_PROG_TYPE_CGROUP_DEVICE, .insn_cnt = count,
                            .insns = (uintptr_t)code, .license = (uintptr_t)"MIT" };
    long program = bpf(BPF_PROG_LOAD, &load);
    MUST(program);
    union bpf_attr attach = { .target_fd = cgroup, .attach_bpf_fd = program, .attach_type = BPF_CGROUP_DEVICE,
                              .attach_flags = BPF_F_ALLOW_MULTI };
    MUST(bpf(BPF_PROG_ATTACH, &attach));
    close(program);
}

static void give_up(void)
{
    static const uint32_t usual = 0xa80425fb;
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct sets[2] = { 0 };
    for (int number = 0; number < 64; number++) {
        if (prctl(PR_CAPBSET_READ, number) == -1)
            break;
        if (number > 31 || !(usual >> number & 1))
            MUST(prctl(PR_CAPBSET_DROP, number));
    }
    MUST(syscall(SYS_capget, &header, sets));
    /* To attach the filter takes one more, which goes with the exec. */
    sets[0].effective = sets[0].permitted = sets[0].permitted & (usual | 1 << CAP_SYS_ADMIN);
    sets[1].effective = sets[1].permitted = sets[0].inheritable = sets[1].inheritable = 0;
    MUST(syscall(SYS_capset, &header, sets));
}

/* ---- day 16: which system calls it may make: the program that tiny-docker attaches ---- */

#ifdef __x86_64__
#define FILTER "src/seccomp/usual-x86-64.bpf"
#else
#define FILTER "src/seccomp/usual-arm64.bpf"
#endif
__asm__(".pushsection .rodata\n.balign 8\n"
        ".globl filter_begin, filter_end\nfilter_begin: .incbin \"" FILTER "\"\nfilter_end:\n.popsection");
extern struct sock_filter filter_begin[], filter_end[];

static void filter_calls(void)
{
    struct sock_fprog program = { .len = filter_end - filter_begin, .filter = filter_begin };
    MUST(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &program));
}

/* ---- day 5: what the command writes is written down and passed on ---- */

static void pump(int from[2], int log)
{
    struct pollfd fds[2] = { { from[0], POLLIN, 0 }, { from[1], POLLIN, 0 } };
    char buffer[65536];
    for (int left = 2; left > 0;) {
        MUST(poll(fds, 2, -1));
        for (int i = 0; i < 2; i++) {
            if (!fds[i].revents)
                continue;
            ssize_t count = read(fds[i].fd, buffer, sizeof buffer);
            MUST(count);
            if (count == 0) {
                fds[i].fd = -1;
                left--;
            } else {
                MUST(write(log, buffer, count));
                MUST(write(i + 1, buffer, count));
            }
        }
    }
}

static int everything(const char *state, const char *rootfs, char **command)
{
    int gate[2], out[2], err[2], pidfd = -1, log;
    char released;
    siginfo_t ended;

    open_root(rootfs);
    make_dir(state);
    MUST(log = open(in_dir("container.log"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600));
    MUST(pipe2(out, O_CLOEXEC));
    MUST(pipe2(err, O_CLOEXEC));
    int into = CGROUP ? make_cgroup() : -1;
    if (CGROUP)
        filter_devices(into);
    int bridge = look_at_the_network();
    lease();
    write_etc();
    MUST(pipe2(gate, O_CLOEXEC));
    struct clone_args args = {
        .flags = NAMESPACES | CLONE_NEWNET | CLONE_PIDFD | (CGROUP ? CLONE_INTO_CGROUP : 0),
        .pidfd = (uintptr_t)&pidfd,
        .exit_signal = SIGCHLD,
        .cgroup = into,
    };
    long pid = syscall(SYS_clone3, &args, sizeof args);
    MUST(pid);
    if (pid == 0) {
        close(gate[1]);
        if (read(gate[0], &released, 1) != 1)
            _exit(125);
        if (CGROUP)
            MUST(unshare(CLONE_NEWCGROUP));
        enter();
        if (CGROUP)
            close(new_mount("cgroup2", NULL, HARMLESS | MOUNT_ATTR_RDONLY, sys, "fs/cgroup"));
        configure_network();
        mount_etc();
        MUST(dup2(out[1], 1));
        MUST(dup2(err[1], 2));
        give_up();
        filter_calls();
        become(command);
    }
    close(out[1]);
    close(err[1]);
    close(gate[0]);
    close(root);
    write_running();
    plug_in(pid, bridge);
    MUST(write(gate[1], "!", 1));
    pump((int[2]){ out[0], err[0] }, log);
    MUST(waitid(P_PIDFD, pidfd, &ended, WEXITED));
    if (CGROUP)
        remove_cgroup();
    write_end();
    return ended.si_code == CLD_EXITED ? ended.si_status : 128 + ended.si_status;
}

int main(int argc, char **argv)
{
    MUST(syscall(SYS_close_range, 3, ~0U, 0));
    if (argc > 4 && strcmp(argv[1], "--all") == 0)
        return everything(argv[2], argv[3], argv + 4);
    if (argc > 2)
        return day3(argv[1], argv + 2);
    fprintf(stderr, "usage: floor [--all STATE_DIR] ROOTFS COMMAND [ARG...]\n");
    return 2;
}
