//! Day 4, for day 14: a record is changed by another process than the container's owner, while it
//! runs: it gets another name, say. (`rename`, `update`)
//!
//! Two processes then write one record, and each begins with reading it. So each has its **turn**:
//! a second lock on the file of the first one, of the other kind that the kernel has. They know
//! nothing of each other. (fcntl_locking(2), "Open file description locks"; flock(2))

use std::fs::File;
use std::path::Path;

use anyhow::{Context, bail};
use nix::fcntl::{FcntlArg, fcntl};
use rustix::fs::{Mode, OFlags, open};

use crate::error::Result;
use crate::metadata::layout::LOCK;
use crate::metadata::owner::Owner;
use crate::metadata::read::known;
use crate::metadata::record::{Record, Status};
use crate::metadata::state::State;

/// In the container's directory: somebody has changed the record. Its owner, which remembers
/// what it has written, needs not read it where this is not there.
const CHANGED: &str = "changed";

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

impl State {
    /// Changes the record of the container `id`, whether it runs or not, and returns it. Of one
    /// that runs only what [`Record::take_changes_of`] names is kept at its end.
    pub fn change(&self, id: &str, change: impl FnOnce(&mut Record) -> Result<()>) -> Result<Record> {
        // Of one that nobody owns: nobody starts it meanwhile.
        let _owner = self.try_own(id)?;
        let dir = self.dir(id);
        let path = dir.join(LOCK);
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lock = File::from(open(&path, flags, Mode::empty()).with_context(|| format!("open {path:?}"))?);
        let turn = Turn::take(&lock)?;
        let mut record = self.read(id)?;
        if let Some(why) = &record.unreadable {
            bail!("container {id} cannot be read, so it cannot be changed: {why}");
        }
        if record.status == Status::Created && !record.is_only_made() {
            bail!("container {} is about to start; try again", record.title());
        }
        change(&mut record)?;
        File::create(dir.join(CHANGED)).with_context(|| format!("write in {dir:?}"))?;
        let by_us = lock.try_clone().context("dup the lock")?;
        Owner::new(dir, by_us).write(&record)?;
        drop(turn);
        Ok(record)
    }
}
