//! Day 3: the root file system. *Can I give it a different root filesystem?*
//!
//! The order is the safety. First the directory becomes `/` and the host's tree
//! is unmounted; only then is anything mounted inside. From that moment on there
//! is no path to the host any more, so that a rootfs in which `proc` is a link
//! to `/host/etc` can redirect a mount only to itself.

pub mod devices;
pub mod process;

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, pivot_root};

use crate::container::{Container, Mechanism};
use crate::error::Result;
use crate::explain::{shell, step};
use crate::kernel;
use crate::namespaces::mount::{HARMLESS, bind, mount, remount};
use crate::namespaces::mount_proc;

const DAY: u8 = 3;

/// The flags of day 3 that say what the file system is.
#[derive(Debug, clap::Args)]
pub struct Rootfs {
    /// The directory that becomes the container's / (without it: the host's)
    #[arg(long, value_name = "DIR")]
    rootfs: Option<PathBuf>,

    /// Make the container's / read-only
    #[arg(long, requires = "rootfs")]
    read_only: bool,
}

// ANCHOR: mechanism
impl Mechanism for Rootfs {
    fn prepare(&mut self, container: &mut Container) -> Result<()> {
        if let Some(dir) = &self.rootfs {
            container.plan.rootfs = Some(check_rootfs(dir)?);
            container.plan.read_only = self.read_only;
            container.parts.console = devices::open_console()?;
        }
        Ok(())
    }

    fn enter(&mut self, container: &mut Container) -> Result<()> {
        let Some(dir) = &container.plan.rootfs else { return Ok(()) };
        change_root(dir)?;

        // Modes are meant as they are written, until the command runs.
        umask(Mode::empty());
        mount_point("/proc")?;
        mount_proc()?;
        mount_point("/sys")?;
        mount_sys()?;
        mount_point("/dev")?;
        devices::make_dev(container.parts.console.take())?;
        hide_the_host()?;
        if container.plan.read_only {
            make_root_read_only()?;
        }
        // Docker's, whatever the host's is.
        umask(Mode::S_IWGRP | Mode::S_IWOTH);
        Ok(())
    }
}
// ANCHOR_END: mechanism

// ANCHOR: check
/// `dir` as an absolute path without links, if it can be a root file system.
fn check_rootfs(dir: &Path) -> Result<PathBuf> {
    // ANCHOR: day3_task1_check_rootfs_solution
    let hint = "expected a directory that holds a root file system, such as rootfs/busybox (make rootfs)";
    let path = fs::canonicalize(dir).with_context(|| format!("--rootfs {dir:?}: {hint}"))?;
    let metadata = fs::metadata(&path).with_context(|| format!("--rootfs {dir:?}"))?;
    if !metadata.is_dir() {
        bail!("--rootfs {dir:?} is not a directory; {hint}");
    }
    // By device and inode, for a bind mount gives / another path.
    let host = fs::metadata("/").context("look at /")?;
    if (metadata.dev(), metadata.ino()) == (host.dev(), host.ino()) {
        bail!(
            "--rootfs {dir:?} is the host's own /; leave --rootfs away to run on it, or name another directory"
        );
    }
    Ok(path)
    // ANCHOR_END: day3_task1_check_rootfs_solution
}
// ANCHOR_END: check

// ANCHOR: change_root
/// Makes `dir` this mount namespace's `/`, and unmounts all that was there
/// before. (pivot_root(2), "pivot_root(".", ".")")
fn change_root(dir: &Path) -> Result<()> {
    // ANCHOR: day3_task1_change_root_solution
    // pivot_root wants a mount point, and a plain directory is none. Bound onto
    // itself it is one.
    bind(DAY, dir, dir)?;
    // Into the new mount, which lies on top of the directory.
    step(DAY, || (format!("chdir({dir:?})"), format!("cd {}", shell(dir))), || chdir(dir))?;
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
/// Makes sure that `path` is a directory, for a mount. A rootfs may lack it; but
/// if it is a link, what we then mask would be elsewhere.
fn mount_point(path: &str) -> Result<()> {
    // ANCHOR: day3_task3_mount_point_solution
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => bail!(
            "{path} of the rootfs is not a directory; expected an empty one to mount on: replace it by one"
        ),
        Err(error) if error.kind() == ErrorKind::NotFound => step(
            DAY,
            || (format!("mkdir({path:?})"), format!("mkdir {path}")),
            || nix::unistd::mkdir(path, Mode::from_bits_truncate(0o755)),
        ),
        Err(error) => Err(error).with_context(|| format!("look at {path} of the rootfs")),
    }
    // ANCHOR_END: day3_task3_mount_point_solution
}
// ANCHOR_END: mount_point

// ANCHOR: sys
/// Mounts /sys. Read-only: what can be set there is set for the whole machine.
/// (sysfs(5))
fn mount_sys() -> Result<()> {
    // ANCHOR: day3_task3_mount_sys_solution
    mount(DAY, "sysfs", "/sys", HARMLESS | MsFlags::MS_RDONLY, "")
    // ANCHOR_END: day3_task3_mount_sys_solution
}
// ANCHOR_END: sys

// ANCHOR: hide
/// What runc and Docker hide: nothing that a container needs, and all of it
/// tells about, or reaches, the one kernel that all share. Not every kernel has
/// every one of them. (Docker: `MaskedPaths` and `ReadonlyPaths` of `docker inspect`)
const MASKED: [&str; 12] = [
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
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Covers the parts of /proc and /sys that belong to the host: a file by
/// /dev/null, a directory by an empty read-only one, or itself read-only.
fn hide_the_host() -> Result<()> {
    // ANCHOR: day3_task4_hide_the_host_solution
    for path in MASKED {
        match fs::symlink_metadata(path) {
            Err(_) => {}
            Ok(metadata) if metadata.is_dir() => {
                mount(DAY, "tmpfs", path, HARMLESS | MsFlags::MS_RDONLY, "")?
            }
            Ok(_) => bind(DAY, Path::new("/dev/null"), Path::new(path))?,
        }
    }
    for path in READ_ONLY.iter().filter(|path| Path::new(path).exists()) {
        // A flag belongs to a mount: first make it one.
        bind(DAY, Path::new(path), Path::new(path))?;
        remount(DAY, path, HARMLESS | MsFlags::MS_RDONLY)?;
    }
    Ok(())
    // ANCHOR_END: day3_task4_hide_the_host_solution
}
// ANCHOR_END: hide

// ANCHOR: read_only
/// Makes / read-only, and nothing below it: /dev and /dev/shm stay writable.
fn make_root_read_only() -> Result<()> {
    // ANCHOR: day3_task5_make_root_read_only_solution
    let describe =
        || (r#"mount_setattr("/", MOUNT_ATTR_RDONLY)"#.into(), "mount -o remount,bind,ro /".into());
    step(DAY, describe, || kernel::make_mount_read_only(c"/"))
    // ANCHOR_END: day3_task5_make_root_read_only_solution
}
// ANCHOR_END: read_only
