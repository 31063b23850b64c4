//! Day 4: the place beside `containers/` where a container is made before it is there, and
//! taken apart when it is not there any more. `rename(2)` brings it from one place to the
//! other in one step: there is a container, or there is none.
//!
//! Whoever is killed meanwhile leaves something here. It has no owner any more: the kernel
//! has released its lock. The next command that comes by removes it.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::error::Result;
use crate::explain::step;
use crate::metadata::layout::{DAY, LOCK, is_id, make_private};
use crate::metadata::tree::remove_tree;
use crate::wait::{PATIENCE, lock};

/// The place, and an open handle on it: to lock it.
#[derive(Debug)]
pub struct Aside {
    dir: PathBuf,
    opened: File,
}

impl Aside {
    /// The place beside `containers`, made if need be.
    pub fn open(containers: &Path) -> Result<Aside> {
        let dir = beside(containers);
        make_private(&dir)?;
        let opened = File::open(&dir).with_context(|| format!("open {dir:?}"))?;
        Ok(Aside { dir, opened })
    }

    /// Where a container's directory is while it is here.
    pub fn path(&self, id: &OsStr) -> PathBuf {
        self.dir.join(id)
    }

    // ANCHOR: make
    /// Makes the directory of the container `id`, and locks it. Fails if there is one.
    ///
    /// The shared lock on the place lasts until the one on the container is there: in between
    /// nothing tells it from what a killed `run` has left. (flock(2))
    pub fn make(&self, id: &str) -> Result<(PathBuf, File)> {
        lock(&self.opened, true, Some(PATIENCE), "the state directory")?;
        let dir = self.dir.join(id);
        let describe = || (format!("mkdir({dir:?}, 0o700)"), format!("mkdir -m 700 {}", dir.display()));
        step(DAY, describe, || DirBuilder::new().mode(0o700).create(&dir))?;
        let made =
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(dir.join(LOCK));
        let made = made.and_then(|lock| lock.lock().map(|()| lock)).with_context(|| format!("lock {dir:?}"));
        self.opened.unlock().context("unlock the state directory")?;
        Ok((dir, made?))
    }
    // ANCHOR_END: make

    // ANCHOR: sweep
    /// Removes what was left here by processes that were killed. Not if somebody is at work
    /// here at this moment: then another command will.
    pub fn sweep(containers: &Path) -> io::Result<()> {
        let place = beside(containers);
        let opened = match File::open(&place) {
            // Most of the time there is nothing.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        let mut left = fs::read_dir(&place)?.peekable();
        if left.peek().is_none() || opened.try_lock().is_err() {
            return Ok(());
        }
        for entry in left {
            let dir = entry?.path();
            if is_id(dir.file_name()) && !is_held(&dir.join(LOCK))? {
                remove_tree(&dir)?;
            }
        }
        Ok(())
    }
    // ANCHOR_END: sweep
}

fn beside(containers: &Path) -> PathBuf {
    containers.with_file_name("aside")
}

/// Does anybody hold this lock? One that is not there, nobody does.
fn is_held(lock: &Path) -> io::Result<bool> {
    match File::open(lock) {
        Ok(lock) => Ok(lock.try_lock().is_err()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
