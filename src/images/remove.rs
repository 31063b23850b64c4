//! Day 12: removing a tree of which nothing is known but that it is to go.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, openat, unlinkat};
use rustix::io::{Errno, Result};
use rustix::path::Arg;

const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

// ANCHOR: remove_tree
/// Removes `name` in `dir` and all that is in it. It may be deeper than a path can be long, or
/// a process may have open files: so it goes down and up again by one descriptor at a time. A
/// link is removed, and never followed.
pub fn remove_tree(dir: impl AsFd, name: impl Arg) -> Result<()> {
    name.into_with_c_str(|name| remove(dir, name))
}
// ANCHOR_END: remove_tree

fn remove(dir: impl AsFd, name: &CStr) -> Result<()> {
    match unlinkat(&dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        Err(Errno::NOENT) => return Ok(()),
        other => return other,
    }
    let mut here = openat(&dir, name, FLAGS, Mode::empty())?;
    let mut names: Vec<CString> = vec![];
    loop {
        match remove_what_is_no_full_directory(&here)? {
            Some(child) => {
                here = openat(&here, &child, FLAGS, Mode::empty())?;
                names.push(child);
            }
            None => {
                let Some(empty) = names.pop() else { break };
                here = openat(&here, c"..", FLAGS, Mode::empty())?;
                unlinkat(&here, &empty, AtFlags::REMOVEDIR)?;
            }
        }
    }
    unlinkat(&dir, name, AtFlags::REMOVEDIR)
}

/// Removes all in `dir` but directories that are not empty. Returns one of those, if there is
/// any.
fn remove_what_is_no_full_directory(dir: &OwnedFd) -> Result<Option<CString>> {
    let mut full = None;
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let removed = match unlinkat(dir, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => unlinkat(dir, name, AtFlags::REMOVEDIR),
            other => other,
        };
        match removed {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::NOTEMPTY) => full = Some(name.to_owned()),
            Err(errno) => return Err(errno),
        }
    }
    Ok(full)
}
