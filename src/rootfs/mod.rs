//! Day 3: the root file system. *Can I give it a different root filesystem?*
//!
//! The order is the safety. First the directory becomes `/` and the host's tree is
//! unmounted; only then is anything attached inside. From that moment on no path leads
//! to the host, so a rootfs in which `proc` is a link to `/host/etc` can redirect a
//! mount only to itself. And what lies inside is held by descriptors ([`mount::Dir`]):
//! a second container on the same rootfs can exchange a directory, but not an open one.

pub mod devices;
pub mod mount;
pub mod own_file;
pub mod planned;
pub mod process;

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, fchdir, pivot_root};
use rustix::fs::{AtFlags, FileType, statat};
use rustix::io::Errno;

use crate::container::{Container, Mechanism};
use crate::error::Result;
use crate::explain::step;
use crate::inherited::UMASK;
use crate::kernel;
use crate::privileges::Privileges;

use self::mount::{Dir, Flags, HARMLESS, READ_ONLY, attach, attach_new, bind, mount, new, take};

const DAY: u8 = 3;

/// The flags of day 3 that say what the file system is.
#[derive(Debug, Default, clap::Args)]
pub struct Rootfs {
    /// The directory that becomes the container's / (without it: the host's)
    #[arg(long, value_name = "DIR", group = "own_root")]
    rootfs: Option<PathBuf>,

    /// Make the container's / read-only
    #[arg(long, requires = "own_root")]
    read_only: bool,
}

// ANCHOR: mechanism
impl Mechanism for Rootfs {
    fn prepare(&mut self, container: &mut Container) -> Result<()> {
        container.plan.read_only = self.read_only;
        if let Some(dir) = &self.rootfs {
            let (path, root) = open_rootfs(dir)?;
            container.plan.rootfs = Some(path);
            container.parts.root = Some(root);
            container.parts.console = devices::open_console()?;
        }
        Ok(())
    }

    fn enter(&mut self, container: &mut Container) -> Result<()> {
        let Some(root) = container.parts.root.take() else {
            return planned::attach_what_has_a_place(container);
        };
        let root = Dir::new(root, "/");
        // Made while the host's are to be seen. In a user namespace (day 17) the kernel makes no
        // others: they could show what somebody has hidden. (fs/namespace.c, mount_too_revealing)
        let (proc, sys) = (new(DAY, "proc", HARMLESS)?, new(DAY, "sysfs", HARMLESS)?);
        change_root(&root)?;

        // Modes are meant as they are written, until the command runs.
        umask(Mode::empty());
        let proc = attach_new(DAY, proc, &mount_point("/proc")?, "/proc")?;
        // From day 15 on there are containers from which nothing is kept.
        let Privileges { privileged, shm_size, .. } = container.plan.privileges;
        let at = mount_point("/sys")?;
        let sys = if privileged { attach_new(DAY, sys, &at, "/sys")? } else { mount_sys(sys, &at)? };
        let (console, hosts) = (container.parts.console.take(), std::mem::take(&mut container.parts.devices));
        let dev = devices::make_dev(&mount_point("/dev")?, console, hosts)?;
        shm_size.map_or(Ok(()), |bytes| devices::resize_shm(&dev, bytes))?;
        if !privileged {
            hide_the_host(&proc, &sys, &dev)?;
        }
        // None on day 3. Later days have some.
        planned::attach_all(container, &root, &dev)?;
        if container.plan.read_only {
            make_root_read_only(&root)?;
        }
        umask(UMASK);
        // Later days mount in these: by descriptor too.
        container.parts.sys = Some(sys.into());
        container.parts.dev = Some(dev.into());
        Ok(())
    }
}
// ANCHOR_END: mechanism

// ANCHOR: open
/// `dir` as an absolute path without links, and opened, if it can be a root file
/// system. The container is made from what was opened: the path is for people.
fn open_rootfs(dir: &Path) -> Result<(PathBuf, OwnedFd)> {
    // ANCHOR: day3_task1_open_rootfs_solution
    let hint = "expected a directory that holds a root file system, such as rootfs/busybox (make rootfs)";
    let path = fs::canonicalize(dir).with_context(|| format!("--rootfs {dir:?}: {hint}"))?;
    let root = take(DAY, &path).with_context(|| format!("--rootfs {dir:?}"))?;
    // What was opened is what is looked at.
    let found = statat(&root, "", AtFlags::EMPTY_PATH).with_context(|| format!("--rootfs {dir:?}"))?;
    if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
        bail!("--rootfs {dir:?} is not a directory; {hint}");
    }
    // By device and inode, for a bind mount gives / another path.
    let host = fs::metadata("/").context("look at /")?;
    if (found.st_dev, found.st_ino) == (host.dev(), host.ino()) {
        bail!("--rootfs {dir:?} is the host's own /; omit --rootfs to run on it, or name another directory");
    }
    Ok((path, root))
    // ANCHOR_END: day3_task1_open_rootfs_solution
}
// ANCHOR_END: open

// ANCHOR: change_root
/// Makes `root` this mount namespace's `/`, and unmounts all that was there before.
/// (pivot_root(2), "pivot_root(".", ".")")
pub fn change_root(root: &Dir) -> Result<()> {
    // ANCHOR: day3_task1_change_root_solution
    // pivot_root wants a mount of this namespace. Where it is attached does not matter,
    // so it need not be the path that it came from: over /proc, which every host has.
    let anywhere = Dir::open("/proc").context("open /proc of the host")?;
    attach(DAY, root, &anywhere, "/proc")?;
    step(DAY, || ("fchdir(root)".into(), "cd /proc".into()), || fchdir(root))?;
    // The old root ends up mounted on top of the new one, at the same place. No
    // directory is needed for it, so a read-only rootfs will do.
    step(DAY, || (r#"pivot_root(".", ".")"#.into(), "pivot_root . .".into()), || pivot_root(".", "."))?;
    // What is on top is unmounted first. MNT_DETACH: with everything below it,
    // though this very process still has files open there.
    step(
        DAY,
        || (r#"umount2(".", MNT_DETACH)"#.into(), "umount -l .".into()),
        || umount2(".", MntFlags::MNT_DETACH),
    )?;
    step(DAY, || (r#"chdir("/")"#.into(), "cd /".into()), || chdir("/"))
    // ANCHOR_END: day3_task1_change_root_solution
}
// ANCHOR_END: change_root

// ANCHOR: mount_point
/// Opens the directory `path`, to mount on it. A rootfs may lack it; but if it is a
/// link, what we then mask would be elsewhere.
fn mount_point(path: &'static str) -> Result<Dir> {
    // ANCHOR: day3_task3_mount_point_solution
    let mut opened = Dir::open(path);
    if let Err(Errno::NOENT) = opened {
        let describe = || (format!("mkdir({path:?})"), format!("mkdir {path}"));
        step(DAY, describe, || nix::unistd::mkdir(path, Mode::from_bits_truncate(0o755))).with_context(
            || format!("the rootfs has no {path}; make an empty directory of that name in it"),
        )?;
        opened = Dir::open(path);
    }
    match opened {
        // A link, or anything else.
        Err(Errno::LOOP | Errno::NOTDIR) => bail!(
            "{path} of the rootfs is not a directory; expected an empty one to mount on: replace it by one"
        ),
        opened => opened.with_context(|| format!("open {path} of the rootfs")),
    }
    // ANCHOR_END: day3_task3_mount_point_solution
}
// ANCHOR_END: mount_point

// ANCHOR: sys
/// Attaches `sys`, the new sysfs, at /sys, which is `at`. Read-only: what can be set there is set
/// for the whole machine. (sysfs(5))
fn mount_sys(sys: OwnedFd, at: &Dir) -> Result<Dir> {
    // ANCHOR: day3_task3_mount_sys_solution
    let describe =
        || (r#"mount_setattr("/sys", MOUNT_ATTR_RDONLY)"#.into(), "mount -o remount,bind,ro /sys".into());
    step(DAY, describe, || kernel::add_mount_flags(sys.as_fd(), c"", READ_ONLY.bits()))?;
    attach_new(DAY, sys, at, "/sys")
    // ANCHOR_END: day3_task3_mount_sys_solution
}
// ANCHOR_END: sys

// ANCHOR: hide
/// What runc and Docker hide: nothing that a container needs, and all of it
/// tells about, or reaches, the one kernel that all share. Not every kernel has
/// every one of them. (Docker: `MaskedPaths` and `ReadonlyPaths` of `docker inspect`)
const MASKED_IN_PROC: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
];
const MASKED_IN_SYS: [&str; 2] = ["/sys/devices/virtual/powercap", "/sys/firmware"];
const READ_ONLY_IN_PROC: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Covers the parts of /proc and /sys that belong to the host: a file by
/// /dev/null, a directory by an empty read-only one, or itself read-only.
///
/// `proc`, `sys` and `dev` are our own mounts. By the path /proc/kcore one could be led
/// to another directory, if somebody has put one there in the meantime.
fn hide_the_host(proc: &Dir, sys: &Dir, dev: &Dir) -> Result<()> {
    // ANCHOR: day3_task4_hide_the_host_solution
    for (dir, paths) in [(proc, &MASKED_IN_PROC[..]), (sys, &MASKED_IN_SYS)] {
        for path in paths {
            match kind_of(dir, path)? {
                None => {}
                Some(FileType::Directory) => {
                    mount(DAY, "tmpfs", dir, path, HARMLESS | READ_ONLY, "").map(drop)?
                }
                Some(_) => bind(DAY, dev, "/dev/null", dir, path, Flags::empty())?,
            }
        }
    }
    for path in READ_ONLY_IN_PROC {
        // A flag belongs to a mount: it is made one, by mounting it on itself.
        if kind_of(proc, path)?.is_some() {
            bind(DAY, proc, path, proc, path, READ_ONLY)?;
        }
    }
    Ok(())
    // ANCHOR_END: day3_task4_hide_the_host_solution
}
// ANCHOR_END: hide

/// What `path`, which is in `dir`, is; `None`: nothing. All that keeps us from knowing is
/// an error: what cannot be seen cannot be hidden.
fn kind_of(dir: &Dir, path: &str) -> Result<Option<FileType>> {
    match statat(dir, dir.name_of(path), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(Some(FileType::from_raw_mode(found.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno).with_context(|| format!("look at {path}")),
    }
}

// ANCHOR: read_only
/// Makes `root` read-only, and nothing below it: /dev and /dev/shm stay writable.
fn make_root_read_only(root: &Dir) -> Result<()> {
    // ANCHOR: day3_task5_make_root_read_only_solution
    let describe =
        || (r#"mount_setattr("/", MOUNT_ATTR_RDONLY)"#.into(), "mount -o remount,bind,ro /".into());
    step(DAY, describe, || kernel::add_mount_flags(root.as_fd(), c"", READ_ONLY.bits()))
    // ANCHOR_END: day3_task5_make_root_read_only_solution
}
// ANCHOR_END: read_only
