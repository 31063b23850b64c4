//! Day 11: a directory tree, walked by descriptors.
//!
//! Somebody may change the tree meanwhile: replace a directory by a link, or move it away. So
//! no path is looked up as a whole, no link is followed, and nothing goes up by `..`: what a
//! descriptor was opened on cannot be exchanged. And the tree may be deeper than a path may be
//! long, than the stack, and than the number of files that may be open. (openat2(2), path_resolution(7))

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat2};
use rustix::io::Errno;

/// How a directory of a tree is opened.
const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Where no look-up leaves the tree.
pub const INSIDE: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// Which file this is: its device and its inode.
pub type Identity = (u64, u64);

/// Which file `found` is about.
pub fn identity(found: &Stat) -> Identity {
    (found.st_dev, found.st_ino)
}

/// What kind of file `found` is about.
pub fn kind(found: &Stat) -> FileType {
    FileType::from_raw_mode(found.st_mode)
}

/// The directory at `path` below `top`, which is `top` itself if it is empty. A path longer
/// than the kernel takes is walked in pieces.
pub fn open_below(top: impl AsFd, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    const LONGEST: usize = 4000;
    let mut here = open_dir(top.as_fd(), c".")?;
    let mut rest = path;
    while !rest.is_empty() {
        let piece = match rest.len() {
            0..=LONGEST => rest,
            // A name has at most 255 bytes, so there is a slash.
            _ => &rest[..rest[..LONGEST].iter().rposition(|byte| *byte == b'/').ok_or(Errno::NAMETOOLONG)?],
        };
        rest = rest[piece.len()..].strip_prefix(b"/").unwrap_or(&rest[piece.len()..]);
        let piece = CString::new(piece).map_err(|_| Errno::INVAL)?;
        here = openat2(&here, &piece, DIRECTORY, Mode::empty(), INSIDE)?;
    }
    Ok(here)
}

/// The directory `name` in `dir`.
pub fn open_dir(dir: BorrowedFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    openat2(dir, name, DIRECTORY, Mode::empty(), INSIDE)
}

/// The names in `dir`, in the order of their bytes.
pub fn names(dir: &OwnedFd) -> rustix::io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// A walk through a tree: where it is, and what is still before it.
#[derive(Debug)]
pub struct Walk {
    top: OwnedFd,
    /// The directory that it is in.
    pub here: OwnedFd,
    /// The path of what it stands on, below the top.
    pub path: Vec<u8>,
    levels: Vec<Level>,
}

#[derive(Debug)]
struct Level {
    /// How much of the path is this directory's.
    length: usize,
    id: Identity,
    names: std::vec::IntoIter<CString>,
}

impl Walk {
    /// A walk through `top`, of which `names` are to be looked at.
    pub fn new(top: OwnedFd, names: Vec<CString>) -> rustix::io::Result<Walk> {
        let here = open_dir(top.as_fd(), c".")?;
        let id = identity(&fstat(&here)?);
        let names = names.into_iter();
        Ok(Walk { top, here, path: vec![], levels: vec![Level { length: 0, id, names }] })
    }

    /// The next name in the directory where the walk is; `None`: there is none left, and the
    /// walk is to [`Walk::leave`] it.
    pub fn next_name(&mut self) -> Option<CString> {
        let level = self.levels.last_mut()?;
        let name = level.names.next()?;
        self.path.truncate(level.length);
        if level.length > 0 {
            self.path.push(b'/');
        }
        self.path.extend(name.to_bytes());
        Some(name)
    }

    /// Goes down into what it stands on, `dir`, of which `names` are to be looked at.
    pub fn enter(&mut self, dir: OwnedFd, names: Vec<CString>) -> rustix::io::Result<()> {
        let id = identity(&fstat(&dir)?);
        self.levels.push(Level { length: self.path.len(), id, names: names.into_iter() });
        self.here = dir;
        Ok(())
    }

    /// Goes up again. Returns whether there is an up. ESTALE: the directory is another one
    /// by now, so somebody has moved it.
    pub fn leave(&mut self) -> rustix::io::Result<bool> {
        self.levels.pop();
        let Some(level) = self.levels.last() else { return Ok(false) };
        self.path.truncate(level.length);
        // Nothing is looked at any more in one whose names are all used.
        if level.names.len() > 0 {
            self.here = open_below(&self.top, &self.path)?;
            if identity(&fstat(&self.here)?) != level.id {
                return Err(Errno::STALE);
            }
        }
        Ok(true)
    }

    /// How deep the walk is: 1 in the top.
    pub fn depth(&self) -> usize {
        self.levels.len()
    }
}
