//! Day 11: the volumes on the disk.
//!
//! ```text
//! /var/lib/tiny-docker/volumes/<name>/_data      what containers see
//!                                     lock       held, together, by the `run`s that use it
//!                                     anonymous  if nobody gave it its name
//!                                     copying    see `first_use`
//!                                     copied     see `first_use`
//! ```
//!
//! As a container is, a volume is made aside and renamed, and renamed before it is removed:
//! there is a volume, or there is none. Who uses it is not written here. It is in the record
//! of each container, and a container that has no such record yet holds the lock.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use jiff::Timestamp;

use crate::error::Result;
use crate::explain::{shell, step};
use crate::layers::mount_flag::volume_name;
use crate::metadata::aside::Aside;
use crate::metadata::layout::{LOCK, make_private};
use crate::metadata::record::Record;
use crate::metadata::state::{State, is_still, new_id};
use crate::metadata::tree::remove_tree;
use crate::wait::{PATIENCE, lock};

const DAY: u8 = 11;

/// What containers see of a volume.
pub const DATA: &str = "_data";

/// Marks a volume that was made without a name.
const ANONYMOUS: &str = "anonymous";

/// All volumes of a state directory.
#[derive(Debug)]
pub struct Store {
    state: State,
    /// Absolute, without links.
    dir: PathBuf,
}

/// A volume.
#[derive(Debug)]
pub struct Volume {
    /// Its name: the one that somebody gave it, or 64 hexadecimal digits.
    pub name: String,
    /// Whether nobody gave it its name.
    pub anonymous: bool,
    /// Its directory, in which `_data` is.
    pub dir: PathBuf,
}

/// Why a volume is not removed.
#[derive(Debug, thiserror::Error)]
#[error("volume {name} is in use by {by}; remove that first (tiny-docker rm)")]
pub struct InUse {
    name: String,
    by: String,
}

/// A volume, and the lock that keeps others from removing it.
#[derive(Debug)]
pub struct Held {
    /// Which one.
    pub volume: Volume,
    lock: File,
}

impl Volume {
    /// When it was made: its lock is never written.
    pub fn created_at(&self) -> Result<Timestamp> {
        let path = self.dir.join(LOCK);
        let made = fs::metadata(&path).and_then(|found| found.modified());
        Ok(Timestamp::try_from(made.with_context(|| format!("look at {path:?}"))?)?)
    }
}

impl Store {
    /// The volumes of the state directory `state`. The first one makes the place for them.
    pub fn open(state: State) -> Result<Store> {
        let root = state.path();
        let absolute = fs::canonicalize(root).or_else(|_| std::path::absolute(root));
        let dir = absolute.with_context(|| format!("look at {root:?}"))?.join("volumes");
        let _ = Aside::sweep(&dir);
        Ok(Store { state, dir })
    }

    /// Where a volume of this name is, or would be.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    // ANCHOR: hold
    /// The volume `name`, which is made if there is none, and which stays as long as what this
    /// returns. (flock(2))
    pub fn hold(&self, name: &str) -> Result<Held> {
        loop {
            if let Some(volume) = self.find(name)? {
                let path = volume.dir.join(LOCK);
                let opened = match File::open(&path) {
                    // Removed since.
                    Err(error) if error.kind() == ErrorKind::NotFound => continue,
                    opened => opened.with_context(|| format!("open {path:?}"))?,
                };
                lock(&opened, true, Some(PATIENCE), &format!("volume {name}"))?;
                if is_still(&opened, &path)? {
                    return Ok(Held { volume, lock: opened });
                }
            } else if let Some(held) = self.make_aside(name, false)?.publish(self)? {
                return Ok(held);
            }
        }
    }
    // ANCHOR_END: hold

    /// A new volume without a name, which nobody knows yet: it is aside until it is published.
    pub fn make_anonymous(&self) -> Result<Held> {
        let name = (0..6).map(|_| new_id()).collect::<Result<String>>()?;
        self.make_aside(&name[..64], true)
    }

    // ANCHOR: make_aside
    /// Makes a volume where no command looks for one, and locks it. What is left of it when
    /// this process is killed goes with the next command.
    fn make_aside(&self, name: &str, anonymous: bool) -> Result<Held> {
        // ANCHOR: day11_task4_make_aside_solution
        let (dir, lock) = Aside::open(&self.dir)?.make(&new_id()?)?;
        let data = dir.join(DATA);
        let describe = || (format!("mkdir({data:?}, 0o755)"), format!("mkdir -m 755 {}", shell(&data)));
        step(DAY, describe, || {
            if anonymous {
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(dir.join(ANONYMOUS))?;
            }
            DirBuilder::new().mode(0o755).create(&data)
        })?;
        Ok(Held { volume: Volume { name: name.into(), anonymous, dir }, lock })
        // ANCHOR_END: day11_task4_make_aside_solution
    }
    // ANCHOR_END: make_aside

    /// The volume `name`; `None`: there is none.
    pub fn find(&self, name: &str) -> Result<Option<Volume>> {
        // What is no name could be a path to something else.
        if volume_name(OsStr::new(name)).is_err() {
            return Ok(None);
        }
        let dir = self.path(name);
        match fs::symlink_metadata(dir.join(DATA)) {
            Ok(found) if found.is_dir() => {
                let anonymous = dir.join(ANONYMOUS).exists();
                Ok(Some(Volume { name: name.into(), anonymous, dir }))
            }
            Ok(_) => bail!("{:?} is not a directory; this is no volume: remove it", dir.join(DATA)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("look at volume {name}")),
        }
    }

    /// All of them, by name; and a line for each thing there that is none.
    pub fn list(&self) -> Result<(Vec<Volume>, Vec<String>)> {
        let (mut volumes, mut complaints) = (Vec::new(), Vec::new());
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok((volumes, complaints)),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                return Err(error).with_context(|| {
                    format!("read {:?}; it belongs to whoever runs containers: try sudo", self.dir)
                });
            }
            entries => entries.with_context(|| format!("read {:?}", self.dir))?,
        };
        for entry in entries {
            let name = entry.with_context(|| format!("read {:?}", self.dir))?.file_name();
            match name.to_str().map(|name| self.find(name)) {
                Some(Ok(Some(volume))) => volumes.push(volume),
                Some(Err(error)) => complaints.push(format!("{error:#}")),
                _ => complaints.push(format!(
                    "{:?}: not a volume, for it has no {DATA}; skipped",
                    self.path(&name.to_string_lossy())
                )),
            }
        }
        volumes.sort_by(|one, other| one.name.cmp(&other.name));
        Ok((volumes, complaints))
    }

    // ANCHOR: remove
    /// Removes the volume `name`, if no container has it: `but` does not count. Returns whether
    /// there was one.
    pub fn remove(&self, name: &str, but: Option<&str>) -> Result<bool> {
        let Some(volume) = self.find(name)? else { return Ok(false) };
        let path = volume.dir.join(LOCK);
        let opened = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            opened => opened.with_context(|| format!("open {path:?}"))?,
        };
        self.remove_unused(Held { volume, lock: opened }, but)
    }

    /// The same of one that this process holds.
    pub fn remove_unused(&self, held: Held, but: Option<&str>) -> Result<bool> {
        // ANCHOR: day11_task4_remove_unused_solution
        let name = &held.volume.name;
        // In this order: a container that begins to use it now waits for the lock, and one that
        // began before is in its record, or holds the lock.
        let locked = held.lock.try_lock();
        let users = self.users(name, but)?;
        if !users.is_empty() {
            return Err(InUse { name: name.clone(), by: users.join(", ") }.into());
        }
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let by = "a container that starts at this moment".into();
                return Err(InUse { name: name.clone(), by }.into());
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("lock volume {name}"));
            }
        }
        if !is_still(&held.lock, &held.volume.dir.join(LOCK))? {
            return Ok(false);
        }
        self.take_apart(&held.volume.dir)?;
        Ok(true)
        // ANCHOR_END: day11_task4_remove_unused_solution
    }
    // ANCHOR_END: remove

    /// First its name, in one step; then what is in it. It is locked, so that nobody else takes
    /// it apart meanwhile.
    fn take_apart(&self, dir: &Path) -> Result<()> {
        Aside::open(&self.dir)?;
        let gone = self.dir.with_file_name("aside").join(new_id()?);
        let describe = || (format!("remove {dir:?}"), format!("rm -r {}", shell(dir)));
        step(DAY, describe, || fs::rename(dir, &gone).and_then(|()| remove_tree(&gone)))
    }

    /// The containers that have the volume `name`, in words. One whose record cannot be read
    /// may have it: what cannot be told is not taken for no.
    fn users(&self, name: &str, but: Option<&str>) -> Result<Vec<String>> {
        let has = |record: &Record| {
            let volumes = record.plan.mounts.iter().filter_map(|mount| mount.name.as_deref());
            record.unreadable.is_some() || volumes.into_iter().any(|one| one == name)
        };
        let records = self.state.list()?.records;
        let users = records.iter().filter(|record| Some(record.id.as_str()) != but && has(record));
        Ok(users
            .map(|record| match record.unreadable {
                Some(_) => format!("container {}, perhaps, whose record cannot be read", record.id),
                None => format!("container {}", record.title()),
            })
            .collect())
    }
}

impl Held {
    /// Whether no command can find it yet.
    pub fn is_aside(&self) -> bool {
        self.volume.dir.file_name() != Some(OsStr::new(&self.volume.name))
    }

    // ANCHOR: publish
    /// Gives a volume that is aside its name. `None`: another process has made one of that name,
    /// or removed this one.
    pub fn publish(mut self, store: &Store) -> Result<Option<Held>> {
        make_private(&store.dir)?;
        let dir = store.path(&self.volume.name);
        let from = &self.volume.dir;
        let describe =
            || (format!("rename({from:?}, {dir:?})"), format!("mv -T {} {}", shell(from), shell(&dir)));
        let renamed = step(DAY, describe, || match fs::rename(from, &dir) {
            Err(error) if matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists) => {
                remove_tree(from).map(|()| false)
            }
            outcome => outcome.map(|()| true),
        })?;
        self.volume.dir = dir;
        // From here on together with others. In between it has no lock, and may be removed.
        match self.lock.try_lock_shared() {
            Ok(()) => Ok(renamed.then_some(self)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("lock volume {}", self.volume.name))
            }
        }
    }
    // ANCHOR_END: publish

    /// Removes a volume that is aside still.
    pub fn discard(self) -> Result<()> {
        remove_tree(&self.volume.dir).with_context(|| format!("remove {:?}", self.volume.dir))
    }
}
