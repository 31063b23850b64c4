//! Day 3: a /dev made for the container. (null(4), random(4), pts(4), shm_overview(7))

use std::fs::File;
use std::io::{IsTerminal, stderr, stdin, stdout};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;

use anyhow::Context;
use nix::mount::MsFlags;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::mkdir;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use crate::error::Result;
use crate::explain::step;
use crate::namespaces::mount::{HARMLESS, mount};

const DAY: u8 = 3;

// ANCHOR: dev
/// Every program expects these, and all of them are harmless: name, major and
/// minor number. (kernel: admin-guide/devices.txt)
const DEVICES: [(&str, u64, u64); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    // To this container's own pseudo-terminals.
    ("pts/ptmx", "/dev/ptmx"),
];

/// Makes the container's /dev, with `console` as /dev/console. The umask must
/// be 0.
///
/// A tmpfs, so that nothing is written into the rootfs, and with nosuid but
/// not nodev: here, devices are the point.
pub fn make_dev(console: Option<OwnedFd>) -> Result<()> {
    // ANCHOR: day3_task4_make_dev_solution
    mount(DAY, "tmpfs", "/dev", MsFlags::MS_NOSUID | MsFlags::MS_STRICTATIME, "mode=755,size=65536k")?;
    for (path, major, minor) in DEVICES {
        let describe = || {
            (
                format!("mknod({path:?}, S_IFCHR|0666, makedev({major}, {minor}))"),
                format!("mknod -m 666 {path} c {major} {minor}"),
            )
        };
        step(DAY, describe, || {
            mknod(path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(major, minor))
        })?;
    }
    for (target, link) in LINKS {
        step(
            DAY,
            || (format!("symlink({target:?}, {link:?})"), format!("ln -s {target} {link}")),
            || symlink(target, link),
        )?;
    }
    // newinstance is the default of today's kernels: these pseudo-terminals are
    // not the host's.
    let nosuid_noexec = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    make_dir("/dev/pts", 0o755)?;
    mount(DAY, "devpts", "/dev/pts", nosuid_noexec, "newinstance,ptmxmode=0666,mode=0620,gid=5")?;
    make_dir("/dev/shm", 0o1777)?;
    mount(DAY, "tmpfs", "/dev/shm", HARMLESS, "mode=1777,size=65536k")?;
    // The message queues of this ipc namespace. (mq_overview(7))
    make_dir("/dev/mqueue", 0o755)?;
    mount(DAY, "mqueue", "/dev/mqueue", HARMLESS, "")?;
    console.map_or(Ok(()), make_console)
    // ANCHOR_END: day3_task4_make_dev_solution
}
// ANCHOR_END: dev

fn make_dir(path: &str, mode: u32) -> Result<()> {
    let describe = || (format!("mkdir({path:?}, {mode:#o})"), format!("mkdir -m {mode:o} {path}"));
    step(DAY, describe, || mkdir(path, Mode::from_bits_truncate(mode)))
}

// ANCHOR: console
/// The terminal that the runtime was started on, as a mount that is not
/// anywhere yet; `None` where there is no terminal. It is taken here, on the
/// host, because later no path leads to it. (open_tree(2))
pub fn open_console() -> Result<Option<OwnedFd>> {
    // ANCHOR: day3_task4_open_console_solution
    let streams =
        [stdin().as_fd().is_terminal(), stdout().as_fd().is_terminal(), stderr().as_fd().is_terminal()];
    let Some(fd) = streams.iter().position(|is_terminal| *is_terminal) else { return Ok(None) };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let path = format!("/proc/self/fd/{fd}");
    let describe = || (format!("open_tree({path:?}, OPEN_TREE_CLONE)"), "see /dev/console below".into());
    step(DAY, describe, || open_tree(rustix::fs::CWD, &path, flags)).map(Some)
    // ANCHOR_END: day3_task4_open_console_solution
}

/// Mounts the terminal at /dev/console: with it ttyname(3) finds a name for the
/// terminal, whose own name lies on the host.
fn make_console(console: OwnedFd) -> Result<()> {
    File::create("/dev/console").context("make /dev/console")?;
    let describe = || {
        (
            r#"move_mount(terminal, "/dev/console")"#.into(),
            "mount --bind $(tty) dev/console, before pivot_root".into(),
        )
    };
    step(DAY, describe, || {
        move_mount(&console, "", rustix::fs::CWD, "/dev/console", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
    })
}
// ANCHOR_END: console
