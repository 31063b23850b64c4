//! Day 4, for day 14: a record is changed by another process than the container's owner, while it
//! runs: it gets another name, say. (`rename`, `update`)

use std::fs::File;

use anyhow::{Context, bail};
use rustix::fs::{Mode, OFlags, open};

use crate::error::Result;
use crate::metadata::layout::LOCK;
use crate::metadata::owner::Owner;
use crate::metadata::record::{Record, Status};
use crate::metadata::state::State;
use crate::metadata::turn::{CHANGED, Turn};

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
