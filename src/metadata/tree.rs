//! Day 4: the removal of a directory with all that is in it. A container may have written
//! there (day 11), and so it may hold anything: more levels than a path can be long, or a
//! process may have files open; directories without any permission; and files that must not
//! be changed, as chattr(1) says.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, IFlags, Mode, OFlags, fstat, ioctl_getflags, ioctl_setflags, openat, statat,
    unlinkat,
};
use rustix::io::Errno;
use rustix::path::Arg;

/// A directory is opened to be read; a link is none.
const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

// ANCHOR: remove_tree
/// Removes the directory `path`, from the leaves up. It goes from each level to the next by
/// descriptor, with one open at a time, and remembers the names.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    remove_tree_in(CWD, path)
}

/// The same of the directory that is called `path` in `dir`.
pub fn remove_tree_in(dir: impl AsFd, path: impl Arg + Copy) -> io::Result<()> {
    let mut here = openat(&dir, path, DIRECTORY, Mode::empty())?;
    let mut above: Vec<(CString, Identity)> = Vec::new();
    loop {
        if let Some(child) = remove_leaves_of(&here)? {
            let inner = openat(&here, &child, DIRECTORY, Mode::empty())?;
            above.push((child, identity(&here)?));
            here = inner;
        } else if let Some((name, parent)) = above.pop() {
            here = openat(&here, c"..", DIRECTORY, Mode::empty())?;
            // If somebody has moved it, this is not where we came from.
            if identity(&here)? != parent {
                return Err(io::Error::other("somebody moves directories in it; let that end first"));
            }
            unlink(&here, &name, AtFlags::REMOVEDIR)?;
        } else {
            return Ok(unlinkat(&dir, path, AtFlags::REMOVEDIR)?);
        }
    }
}
// ANCHOR_END: remove_tree

/// By which a directory is told from any other: device and inode.
type Identity = (u64, u64);

fn identity(dir: &OwnedFd) -> io::Result<Identity> {
    let found = fstat(dir)?;
    Ok((found.st_dev, found.st_ino))
}

/// Removes all that is in `dir`, up to the first directory that is not empty: that is returned.
fn remove_leaves_of(dir: &OwnedFd) -> io::Result<Option<CString>> {
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let removed = match is_dir(dir, name, entry.file_type())? {
            true => unlink(dir, name, AtFlags::REMOVEDIR),
            false => unlink(dir, name, AtFlags::empty()),
        };
        match removed {
            Err(Errno::NOTEMPTY | Errno::EXIST) => return Ok(Some(name.to_owned())),
            Err(Errno::NOENT) => {}
            removed => removed?,
        }
    }
    Ok(None)
}

/// Not every file system says it when it lists a directory. (readdir(3), `d_type`)
fn is_dir(dir: &OwnedFd, name: &CStr, said: FileType) -> io::Result<bool> {
    if said != FileType::Unknown {
        return Ok(said == FileType::Directory);
    }
    let found = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(found.st_mode) == FileType::Directory)
}

fn unlink(dir: &OwnedFd, name: &CStr, flags: AtFlags) -> rustix::io::Result<()> {
    match unlinkat(dir, name, flags) {
        Err(Errno::PERM) => {
            allow_changes(dir)?;
            if let Some(file) = open_what_can_be_locked(dir, name)? {
                allow_changes(&file)?;
            }
            unlinkat(dir, name, flags)
        }
        removed => removed,
    }
}

/// Only a directory or an ordinary file can be one that must not be changed. A device is not
/// opened: that might do something.
fn open_what_can_be_locked(dir: &OwnedFd, name: &CStr) -> rustix::io::Result<Option<OwnedFd>> {
    let found = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    match FileType::from_raw_mode(found.st_mode) {
        FileType::Directory | FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            openat(dir, name, flags, Mode::empty()).map(Some)
        }
        _ => Ok(None),
    }
}

/// Takes from `file` what chattr(1) calls `i` and `a`. (ioctl_iflags(2))
fn allow_changes(file: &OwnedFd) -> rustix::io::Result<()> {
    // A file system without such flags has another reason.
    let Ok(flags) = ioctl_getflags(file) else { return Ok(()) };
    ioctl_setflags(file, flags.difference(IFlags::IMMUTABLE | IFlags::APPEND))
}
