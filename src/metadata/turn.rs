//! Day 4, for day 14: a record may be written by two processes, the container's owner and one that
//! gives the container another name, say; and each begins with reading it. So each has its
//! **turn**: a second lock on the file of the first one, of the other kind that the kernel has.
//! They know nothing of each other. (fcntl_locking(2), "Open file description locks"; flock(2))

use std::fs::File;
use std::path::Path;

use anyhow::Context;
use nix::fcntl::{FcntlArg, fcntl};

use crate::error::Result;
use crate::metadata::read::known;
use crate::metadata::record::Record;

/// In the container's directory: somebody has changed the record. Its owner, which remembers
/// what it has written, needs not read it where this is not there.
pub const CHANGED: &str = "changed";

/// The right to read the record and to write it, with nobody else in between.
#[derive(Debug)]
pub struct Turn<'a>(&'a File);

impl<'a> Turn<'a> {
    /// Waits until it is one's turn. `lock` is the container's, open to read and write.
    pub fn take(lock: &'a File) -> Result<Turn<'a>> {
        fcntl(lock, FcntlArg::F_OFD_SETLKW(&whole_file(libc::F_WRLCK))).context("wait for the record")?;
        Ok(Turn(lock))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let _ = fcntl(self.0, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_UNLCK)));
    }
}

fn whole_file(kind: libc::c_int) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 }
}

/// The record in `dir` as somebody else has changed it; `None`: nobody has.
pub fn changed(dir: &Path) -> Result<Option<Record>> {
    if !dir.join(CHANGED).exists() { Ok(None) } else { known(dir) }
}
