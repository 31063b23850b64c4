//! Day 3: a /dev made for the container. (null(4), random(4), pts(4), shm_overview(7))

use std::io::{IsTerminal, stderr, stdin, stdout};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::Context;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, SFlag, makedev, mkdirat, mknodat};
use nix::unistd::symlinkat;
use rustix::mount::{FsPickFlags, fsconfig_reconfigure, fsconfig_set_string, fspick};

use crate::error::Result;
use crate::explain::step;
use crate::ids;

use super::mount::{Dir, Flags, HARMLESS, attach, mount, take, take_open};

const DAY: u8 = 3;

// ANCHOR: dev
/// Every program expects these, and all of them are harmless: name, major and
/// minor number. (kernel: admin-guide/devices.txt)
pub const DEVICES: [(&str, u64, u64); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// And these: where each leads, and its place.
pub const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    // To this container's own pseudo-terminals.
    ("pts/ptmx", "/dev/ptmx"),
];

/// Makes the container's /dev on `at`, with `console` as /dev/console, and with the host's devices
/// `hosts` if it may make none. The umask must be 0.
///
/// A tmpfs, so that nothing is written into the rootfs, and with nosuid but
/// not nodev: here, devices are the point.
pub fn make_dev(at: &Dir, console: Option<OwnedFd>, hosts: Vec<OwnedFd>) -> Result<Dir> {
    // ANCHOR: day3_task4_make_dev_solution
    let flags = Flags::MOUNT_ATTR_NOSUID | Flags::MOUNT_ATTR_STRICTATIME;
    let dev = mount(DAY, "tmpfs", at, "/dev", flags, "mode=755,size=65536k")?;
    for (path, major, minor) in to_be_made(&dev, hosts)? {
        let describe = || {
            (
                format!("mknod({path:?}, S_IFCHR|0666, makedev({major}, {minor}))"),
                format!("mknod -m 666 {path} c {major} {minor}"),
            )
        };
        step(DAY, describe, || {
            let mode = Mode::from_bits_truncate(0o666);
            mknodat(&dev, dev.name_of(path), SFlag::S_IFCHR, mode, makedev(major, minor))
        })?;
    }
    for (target, link) in LINKS {
        step(
            DAY,
            || (format!("symlink({target:?}, {link:?})"), format!("ln -s {target} {link}")),
            || symlinkat(target, &dev, dev.name_of(link)),
        )?;
    }
    // newinstance is the default of today's kernels: these pseudo-terminals are
    // not the host's.
    let nosuid_noexec = Flags::MOUNT_ATTR_NOSUID | Flags::MOUNT_ATTR_NOEXEC;
    make_dir(&dev, "/dev/pts", 0o755)?;
    // Terminals are group 5's, tty. (Where there is no group but root's, they are root's. Day 17.)
    let options = "newinstance,ptmxmode=0666,mode=0620,gid=5";
    let options = if ids::are_one() { options.trim_end_matches(",gid=5") } else { options };
    mount(DAY, "devpts", &dev, "/dev/pts", nosuid_noexec, options)?;
    make_dir(&dev, "/dev/shm", 0o1777)?;
    mount(DAY, "tmpfs", &dev, "/dev/shm", HARMLESS, "mode=1777,size=65536k")?;
    // The message queues of this ipc namespace. (mq_overview(7))
    make_dir(&dev, "/dev/mqueue", 0o755)?;
    mount(DAY, "mqueue", &dev, "/dev/mqueue", HARMLESS, "")?;
    if let Some(console) = console {
        make_console(&dev, console)?;
    }
    Ok(dev)
    // ANCHOR_END: day3_task4_make_dev_solution
}
// ANCHOR_END: dev

/// Which devices are to be made: [`DEVICES`]. Or none, if in their place there are `hosts`, which are
/// then mounted in `dev`: in a user namespace nobody makes a device. (day 17; mknod(2), EPERM)
fn to_be_made(dev: &Dir, hosts: Vec<OwnedFd>) -> Result<Vec<(&'static str, u64, u64)>> {
    if hosts.is_empty() {
        return Ok(DEVICES.to_vec());
    }
    for ((path, ..), device) in DEVICES.into_iter().zip(hosts) {
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        openat(dev, dev.name_of(path), flags, Mode::S_IRUSR).with_context(|| format!("make {path}"))?;
        attach(DAY, &device, dev, path)?;
    }
    Ok(vec![])
}

/// The host's, as mounts that are attached nowhere yet.
pub fn take_the_hosts() -> Result<Vec<OwnedFd>> {
    DEVICES.iter().map(|(path, ..)| take(DAY, Path::new(path))).collect()
}

fn make_dir(dev: &Dir, path: &str, mode: u32) -> Result<()> {
    let describe = || (format!("mkdir({path:?}, {mode:#o})"), format!("mkdir -m {mode:o} {path}"));
    step(DAY, describe, || mkdirat(dev, dev.name_of(path), Mode::from_bits_truncate(mode)))
}

/// Lets what is in /dev/shm take so many bytes of memory. (`--shm-size`, day 15; fspick(2))
pub fn resize_shm(dev: &Dir, bytes: u64) -> Result<()> {
    let describe = || {
        let call = format!("fspick(\"/dev/shm\"), fsconfig(\"size={bytes}\")");
        (call, format!("mount -o remount,size={bytes} /dev/shm"))
    };
    step(15, describe, || {
        let context = fspick(dev, "shm", FsPickFlags::FSPICK_CLOEXEC)?;
        fsconfig_set_string(&context, "size", bytes.to_string())?;
        fsconfig_reconfigure(&context)
    })
}

// ANCHOR: console
/// The terminal that the runtime was started on, as a mount that is not
/// anywhere yet; `None` where there is no terminal. It is taken here, on the
/// host, because later no path leads to it. (open_tree(2))
///
/// `None` too where it cannot be taken. A terminal that was opened in another mount
/// namespace cannot, by somebody who then called `unshare --mount`: its mount is not
/// ours to copy, and the kernel says EINVAL. The container runs without its name.
pub fn open_console() -> Result<Option<OwnedFd>> {
    // ANCHOR: day3_task4_open_console_solution
    let (stdin, stdout, stderr) = (stdin(), stdout(), stderr());
    let streams: [(BorrowedFd, &str); 3] =
        [(stdin.as_fd(), "stdin"), (stdout.as_fd(), "stdout"), (stderr.as_fd(), "stderr")];
    let Some((terminal, name)) = streams.into_iter().find(|(stream, _)| stream.is_terminal()) else {
        return Ok(None);
    };
    Ok(take_open(DAY, terminal, name).ok())
    // ANCHOR_END: day3_task4_open_console_solution
}

/// Mounts the terminal at /dev/console: with it ttyname(3) finds a name for the
/// terminal, whose own name lies on the host.
pub fn make_console(dev: &Dir, console: OwnedFd) -> Result<()> {
    // Something to mount on; its mode does not matter.
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    match openat(dev, "console", flags, Mode::S_IRUSR) {
        // It is somebody's who has mounted a /dev of his own. (day 18)
        Err(Errno::EEXIST) => {}
        made => made.map(drop).context("make /dev/console")?,
    }
    attach(DAY, &console, dev, "/dev/console")
}
// ANCHOR_END: console
