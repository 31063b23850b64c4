//! Day 11: a copy of a tree of files, with all that belongs to them: owner, mode, extended
//! attributes, times, holes, hard links, links and devices.
//!
//! The tree may be anybody's, and somebody may change it at this moment. So each directory is
//! opened from the top, without following any link (openat2(2)); nothing is called again that
//! was looked at by name before. And it is deep as it likes: there is no recursion.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
    chownat, fchmod, fchown, fgetxattr, flistxattr, fsetxattr, fstat, futimens, linkat, mkdirat, mknodat,
    openat2, readlinkat, seek, statat, symlinkat, utimensat,
};
use rustix::io::Errno;

use crate::error::Result;
use crate::explain::step;
use crate::layers::overlay;

const DAY: u8 = 11;

/// Where the first of several names of a file is in the copy: by device and inode.
type Links = HashMap<(u64, u64), PathBuf>;

// ANCHOR: copy_tree
/// Copies all that is in the directory `from` into the directory `to`, which is empty, and
/// what belongs to the directory itself. The umask must be 0. What is mounted below `from` is
/// another file system, and stays out.
pub fn copy_tree(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    let device = fstat(from).context("look at it")?.st_dev;
    let mut links = Links::new();
    // A directory gets its mode and its times when there is nothing left to make in it.
    let (mut todo, mut done) = (vec![PathBuf::from(".")], Vec::new());
    while let Some(dir) = todo.pop() {
        let describe = || (format!("copy {dir:?}"), format!("cp -a {}/* …", dir.display()));
        let below = step(DAY, describe, || copy_directory(from, to, &dir, device, &mut links))?;
        todo.extend(below);
        done.push(dir);
    }
    for dir in done.iter().rev() {
        let (source, copy) = (open_dir(from, dir)?, open_dir(to, dir)?);
        let found = fstat(&source).with_context(|| format!("look at {dir:?}"))?;
        finish(&source, &copy, &found).with_context(|| format!("copy {dir:?}"))?;
    }
    Ok(())
}
// ANCHOR_END: copy_tree

fn open_dir(top: &OwnedFd, path: &Path) -> Result<OwnedFd> {
    open_inside(top, path, OFlags::DIRECTORY | OFlags::RDONLY).with_context(|| format!("open {path:?}"))
}

fn open_inside(top: impl AsFd, path: impl rustix::path::Arg, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    openat2(top, path, flags | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty(), inside)
}

/// Copies what is in the directory `dir` of `from`. Directories are made, and returned.
fn copy_directory(
    from: &OwnedFd,
    to: &OwnedFd,
    dir: &Path,
    device: u64,
    links: &mut Links,
) -> Result<Vec<PathBuf>> {
    let (source, copy) = (open_dir(from, dir)?, open_dir(to, dir)?);
    let mut below = Vec::new();
    for entry in Dir::read_from(&source).with_context(|| format!("read {dir:?}"))? {
        let entry = entry.with_context(|| format!("read {dir:?}"))?;
        let name = entry.file_name();
        if is_dots(name) {
            continue;
        }
        let path = dir.join(OsStr::from_bytes(name.to_bytes()));
        let found = match statat(&source, name, AtFlags::SYMLINK_NOFOLLOW) {
            // Removed since.
            Err(Errno::NOENT) => continue,
            found => found.with_context(|| format!("look at {path:?}"))?,
        };
        let is_dir = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
        match links.get(&(found.st_dev, found.st_ino)).filter(|_| !is_dir) {
            Some(first) => linkat(to, first, &copy, name, AtFlags::empty()).map_err(Into::into),
            None => copy_entry(&source, &copy, name, &found),
        }
        .with_context(|| format!("copy {path:?}"))?;
        if is_dir && found.st_dev == device {
            below.push(path);
        } else if !is_dir && found.st_nlink > 1 {
            links.entry((found.st_dev, found.st_ino)).or_insert(path);
        }
    }
    Ok(below)
}

/// Copies what is called `name` in `source`; of a directory, only itself.
fn copy_entry(source: &OwnedFd, copy: &OwnedFd, name: &CStr, found: &Stat) -> Result<()> {
    match FileType::from_raw_mode(found.st_mode) {
        FileType::Directory => {
            mkdirat(copy, name, Mode::RWXU)?;
            return Ok(());
        }
        FileType::RegularFile => return copy_file(source, copy, name),
        FileType::Symlink => symlinkat(readlinkat(source, name, Vec::new())?, copy, name)?,
        kind => mknodat(copy, name, kind, Mode::from_raw_mode(found.st_mode), found.st_rdev)?,
    }
    // None of these can be opened; and they have no attributes that a container could set.
    let (uid, gid) = owner(found);
    chownat(copy, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    utimensat(copy, name, &times(found), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

fn copy_file(source: &OwnedFd, copy: &OwnedFd, name: &CStr) -> Result<()> {
    // (O_NONBLOCK: by now it may be a FIFO to which nobody writes.)
    let original = open_inside(source, name, OFlags::RDONLY | OFlags::NONBLOCK)?;
    let found = fstat(&original)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
        bail!("it was a file, and is none any more");
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::RDWR | OFlags::CLOEXEC;
    let copy = File::from(rustix::fs::openat(copy, name, flags, Mode::RUSR | Mode::WUSR)?);
    let original = File::from(original);
    copy_bytes(&original, &copy, found.st_size as u64)?;
    finish(&original, &copy, &found)
}

// ANCHOR: copy_bytes
/// Copies the bytes of a file, and leaves holes where it has some: in an image a file may be
/// larger than the disk. (lseek(2), SEEK_DATA; copy_file_range(2))
fn copy_bytes(mut from: &File, mut to: &File, size: u64) -> io::Result<()> {
    to.set_len(size)?;
    let mut at = 0;
    while at < size {
        let data = match seek(from, rustix::fs::SeekFrom::Data(at)) {
            Ok(data) => data,
            // Nothing but a hole up to the end.
            Err(Errno::NXIO) => break,
            // This file system does not tell.
            Err(Errno::INVAL) => at,
            Err(errno) => return Err(errno.into()),
        };
        let end = seek(from, rustix::fs::SeekFrom::Hole(data)).unwrap_or(size).min(size);
        from.seek(SeekFrom::Start(data))?;
        to.seek(SeekFrom::Start(data))?;
        if io::copy(&mut io::Read::take(from, end - data), &mut to)? == 0 {
            // Somebody has cut it off meanwhile.
            break;
        }
        at = end;
    }
    Ok(())
}
// ANCHOR_END: copy_bytes

// ANCHOR: finish
/// Gives the copy what belongs to the original: in this order, for a change of the owner takes
/// set-user-ID bits and capabilities away, and any change of it the time. (chown(2),
/// capabilities(7))
pub fn finish(original: impl AsFd, copy: impl AsFd, found: &Stat) -> Result<()> {
    let (original, copy) = (original.as_fd(), copy.as_fd());
    let (uid, gid) = owner(found);
    fchown(copy, Some(uid), Some(gid)).context("chown")?;
    fchmod(copy, Mode::from_raw_mode(found.st_mode)).context("chmod")?;
    copy_attributes(original, copy)?;
    futimens(copy, &times(found)).context("set its times")
}
// ANCHOR_END: finish

/// Extended attributes, but for those by which an overlay marks its own files. (xattr(7))
fn copy_attributes(original: BorrowedFd, copy: BorrowedFd) -> Result<()> {
    // No list is longer, and no value. (xattr(7), "Filesystem differences")
    let mut names = vec![0; 64 << 10];
    let length = match flistxattr(original, &mut names[..]) {
        Err(Errno::OPNOTSUPP) => return Ok(()),
        length => length.context("list its attributes")?,
    };
    let mut value = vec![0; if length == 0 { 0 } else { 64 << 10 }];
    for name in names[..length].split_inclusive(|byte| *byte == 0) {
        let name = CString::from(CStr::from_bytes_with_nul(name)?);
        if overlay::is_an_overlays(name.to_bytes()) {
            continue;
        }
        let length = match fgetxattr(original, &name, &mut value[..]) {
            Err(Errno::NODATA) => continue,
            length => length.with_context(|| format!("read its attribute {name:?}"))?,
        };
        match fsetxattr(copy, &name, &value[..length], XattrFlags::empty()) {
            // The volume lies on a file system that has none of this kind.
            Err(Errno::OPNOTSUPP) => {}
            set => set.with_context(|| format!("set its attribute {name:?}"))?,
        }
    }
    Ok(())
}

/// Whether this is a directory's name for itself, or for the one above.
pub fn is_dots(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

fn owner(found: &Stat) -> (Uid, Gid) {
    (Uid::from_raw(found.st_uid), Gid::from_raw(found.st_gid))
}

fn times(found: &Stat) -> Timestamps {
    let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds as _ };
    Timestamps {
        last_access: time(found.st_atime, found.st_atime_nsec),
        last_modification: time(found.st_mtime, found.st_mtime_nsec),
    }
}
