//! Day 12: the place where a layer is made before it is there, and taken apart when it is not
//! there any more.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::error::Result;
use crate::explain::{shell, step};
use crate::images::DAY;
use crate::images::remove::remove_tree;
use crate::metadata::layout::open_to_lock;
use crate::metadata::state::is_still;
use crate::wait::lock;

/// What the name of a lock ends with.
const LOCK: &str = "lock";

/// A directory that is being made. Dropped, it is removed.
#[derive(Debug)]
pub struct Aside {
    dir: PathBuf,
    lock: File,
}

impl Aside {
    /// Makes the directory `name` in `place`, empty. It waits while another process has it. The
    /// lock is a file beside it: whoever writes into the directory has that open, too.
    pub fn make(place: &Path, name: &str) -> Result<Aside> {
        let dir = place.join(name);
        let path = dir.with_extension(LOCK);
        let lock = loop {
            let opened = open_to_lock(&path).with_context(|| format!("open {path:?}"))?;
            lock(&opened, false, None, "the same layer, which another process unpacks,")?;
            if is_still(&opened, &path)? {
                break opened;
            }
        };
        let aside = Aside { dir, lock };
        // What a killed one has left.
        remove(&aside.dir)?;
        let dir = &aside.dir;
        let describe = || (format!("mkdir({dir:?}, 0o755)"), format!("mkdir -m 755 {}", shell(dir)));
        // As others may have its `/`, unless the layer says something else.
        step(DAY, describe, || fs::DirBuilder::new().mode(0o755).create(dir))?;
        Ok(aside)
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What is locked.
    pub fn lock(&self) -> &File {
        &self.lock
    }

    /// It is whole: from here on it is called `to`.
    pub fn move_to(self, to: &Path) -> Result<()> {
        let describe = || {
            let (call, by_hand) = (format!("rename({:?}, {to:?})", self.dir), shell(&self.dir));
            (call, format!("mv -T {by_hand} {}", shell(to)))
        };
        step(DAY, describe, || fs::rename(&self.dir, to))
    }

    /// Removes what processes that were killed have left in `place`.
    pub fn sweep(place: &Path) -> Result<()> {
        for entry in fs::read_dir(place).with_context(|| format!("read {place:?}"))? {
            let path = entry.with_context(|| format!("read {place:?}"))?.path();
            let lock_path = path.with_extension(LOCK);
            if File::open(&lock_path).is_ok_and(|lock| lock.try_lock().is_err()) {
                continue;
            }
            remove(&path)?;
        }
        Ok(())
    }

    /// Removes the directory `dir`, by way of `place`: it is there, or it is not.
    pub fn remove(place: &Path, dir: &Path) -> Result<()> {
        let gone = place.join(dir.file_name().unwrap_or(OsStr::new("nameless")));
        remove(&gone)?;
        match fs::rename(dir, &gone) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error).with_context(|| format!("rename {dir:?}")),
            Ok(()) => remove(&gone),
        }
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        let _ = remove(&self.dir);
        let _ = fs::remove_file(self.dir.with_extension(LOCK));
    }
}

fn remove(path: &Path) -> Result<()> {
    remove_tree(rustix::fs::CWD, path).with_context(|| format!("remove {path:?}"))
}
