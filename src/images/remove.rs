//! Day 12: removing something of which nothing is known but that it is to go.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;
use rustix::path::Arg;

use crate::metadata::tree::remove_tree_in;

// ANCHOR: remove_tree
/// Removes `name` in `dir`, whatever it is, and all that is in it. A link is removed, and never
/// followed. That there is nothing of this name is no error.
pub fn remove_tree(dir: impl AsFd, name: impl Arg + Copy) -> io::Result<()> {
    match unlinkat(&dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => remove_tree_in(dir, name),
        Err(Errno::NOENT) => Ok(()),
        other => Ok(other?),
    }
}
// ANCHOR_END: remove_tree
