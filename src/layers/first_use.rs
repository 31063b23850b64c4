//! Day 11: the first use of a volume. One that is empty gets what the container's root has at
//! its place, as Docker does it.
//!
//! The process that copies may be killed at any moment, and others may already see the volume.
//! So the copy is made beside it, in `copying`. When it is whole it is renamed to `copied`, and
//! from there each thing in it is renamed into the volume. Whoever finds a `copying` that
//! nobody works at begins anew; whoever finds a `copied` goes on with it.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use anyhow::Context;
use rustix::fs::{
    AtFlags, CWD, Dir, FlockOperation, Mode, OFlags, RenameFlags, ResolveFlags, flock, fstat, mkdirat,
    openat, openat2, renameat, renameat_with, stat, statat,
};
use rustix::io::Errno;

use crate::error::Result;
use crate::explain::step;
use crate::layers::copy::{copy_tree, finish, is_dots};
use crate::layers::volume_store::DATA;
use crate::metadata::tree::remove_tree;
use crate::rootfs::mount::until_sure;

const DAY: u8 = 11;

const COPYING: &str = "copying";
const COPIED: &str = "copied";
/// In both: the copy. The directory around it keeps the times, which change in the copy as
/// things leave it.
const TREE: &str = "tree";

// ANCHOR: fill
/// Child, on its own root, with nothing mounted at `target` yet: gives the volume in the
/// directory `volume` what is at `target`, if it has nothing. Two containers that use a new
/// volume at once copy once: the second one waits for the first. (flock(2))
pub fn fill(volume: &OwnedFd, target: &Path) -> Result<()> {
    // ANCHOR: day11_task4_fill_solution
    let lock = open_dir(volume, ".")?;
    flock(&lock, FlockOperation::LockExclusive).context("lock the volume")?;
    // Its copier was killed.
    remove(volume, COPYING)?;
    if !is_there(volume, COPIED)? {
        let Some(from) = source(target)? else { return Ok(()) };
        if !names_in(&open_dir(volume, DATA)?).context("read the volume")?.is_empty() {
            return Ok(());
        }
        let copied = copy_aside(volume, &from).with_context(|| format!("copy {target:?} into the volume"));
        if copied.is_err() {
            let _ = remove(volume, COPYING);
        }
        copied?;
    }
    move_in(volume)
    // ANCHOR_END: day11_task4_fill_solution
}
// ANCHOR_END: fill

// ANCHOR: source
/// What the root has at `target`; `None`: no directory. The path may have links, of whoever
/// made the root: none leads out of it, for there is nothing else any more. But /proc has some
/// that lead to whatever this process has open. (CVE-2022-23648; openat2(2))
fn source(target: &Path) -> Result<Option<OwnedFd>> {
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = match until_sure(|| openat2(CWD, target, flags, Mode::empty(), inside)) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
        dir => dir.with_context(|| format!("open {target:?}"))?,
    };
    // What the kernel shows in /proc, /sys and /dev is not the root's.
    let (its, roots) = (fstat(&dir).context("look at it")?, stat("/").context("look at /")?);
    Ok((its.st_dev == roots.st_dev).then_some(dir))
}
// ANCHOR_END: source

/// The whole copy, or none.
fn copy_aside(volume: &OwnedFd, from: &OwnedFd) -> Result<()> {
    let describe = || (format!("mkdir({COPYING:?})"), format!("mkdir -p {COPYING}/{TREE}"));
    step(DAY, describe, || {
        mkdirat(volume, COPYING, Mode::RWXU)?;
        mkdirat(openat(volume, COPYING, OFlags::PATH, Mode::empty())?, TREE, Mode::RWXU)
    })?;
    let copying = open_dir(volume, COPYING)?;
    copy_tree(from, &open_dir(&copying, TREE)?)?;
    finish(from, &copying, &fstat(from).context("look at it")?)?;
    let describe = || (format!("rename({COPYING:?}, {COPIED:?})"), format!("mv {COPYING} {COPIED}"));
    step(DAY, describe, || renameat(volume, COPYING, volume, COPIED))
}

/// Moves what was copied into the volume. What somebody has put there meanwhile stays.
fn move_in(volume: &OwnedFd) -> Result<()> {
    let (copied, data) = (open_dir(volume, COPIED)?, open_dir(volume, DATA)?);
    let tree = open_dir(&copied, TREE)?;
    // First the list: it changes while things leave.
    for name in names_in(&tree).context("read the copy")? {
        let describe = || {
            let call = format!("rename(\"{COPIED}/{TREE}/\" {name:?}, \"{DATA}/\" {name:?})");
            (call, format!("mv -n {COPIED}/{TREE}/{} {DATA}", name.to_string_lossy()))
        };
        step(DAY, describe, || match renameat_with(&tree, &name, &data, &name, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => Ok(()),
            moved => moved,
        })?;
    }
    finish(&copied, &data, &fstat(&copied).context("look at the copy")?).context("the volume's directory")?;
    remove(volume, COPIED)
}

fn open_dir(at: &OwnedFd, name: &str) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, name, flags, Mode::empty()).with_context(|| format!("open {name} of the volume"))
}

fn is_there(volume: &OwnedFd, name: &str) -> Result<bool> {
    match statat(volume, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno).with_context(|| format!("look at {name} of the volume")),
    }
}

fn names_in(dir: &OwnedFd) -> rustix::io::Result<Vec<CString>> {
    let names = Dir::read_from(dir)?.map(|entry| Ok(entry?.file_name().to_owned()));
    names.filter(|name| !matches!(name, Ok(name) if is_dots(name))).collect()
}

/// Removes the directory `name` of the volume, with all that is in it. The volume has no path
/// here; but /proc has one to what is open.
fn remove(volume: &OwnedFd, name: &str) -> Result<()> {
    if !is_there(volume, name)? {
        return Ok(());
    }
    let path = format!("/proc/self/fd/{}/{name}", volume.as_raw_fd());
    let describe = || (format!("remove {name:?} of the volume"), format!("rm -r {name}"));
    step(DAY, describe, || remove_tree(Path::new(&path)))
}
