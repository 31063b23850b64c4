//! Day 4: the state directory: what is remembered of each container, and who
//! may change it.
//!
//! ```text
//! /var/lib/tiny-docker/containers/<id>/config.json     the record
//!                                      container.log   from day 5 on
//!                                      cgroup          from day 7 on: where it is
//!                                      lock            held by its owner
//! ```
//!
//! Two rules keep it true. A record is never half written: it is written beside
//! the old one, and renamed. And one process at a time writes it, the one that
//! holds the container's lock: its **owner**, which is the `run` that waits for
//! the command. The kernel drops a lock when its holder
//! dies, even by SIGKILL, so an owner that is gone can be told from a slow one.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, anyhow, bail};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::error::{self, Result};
use crate::explain::step;
use crate::metadata::record::{Record, Status, VERSION};
use crate::metadata::traces;
use crate::wait::{A_MOMENT, PATIENCE};

const DAY: u8 = 4;

/// Where a record is, in its container's directory.
const RECORD: &str = "config.json";

/// What its owner has locked. A file, and not the directory: the child has what
/// is open here open as well, up to its exec, and an open directory of the host
/// would be a way out of the container. (CVE-2024-21626)
const LOCK: &str = "lock";

/// The state directory.
#[derive(Debug, Clone, clap::Args)]
pub struct State {
    /// Where containers are remembered
    #[arg(
        long = "root",
        value_name = "DIR",
        env = "TINY_DOCKER_ROOT",
        default_value = "/var/lib/tiny-docker",
        global = true
    )]
    root: PathBuf,
}

/// The right to change one container's record, or to remove it. It ends with
/// this value, or with this process.
#[derive(Debug)]
pub struct Owner {
    /// The container's directory, absolute.
    pub dir: PathBuf,
    _lock: File,
}

/// What the state directory holds.
#[derive(Debug, Default)]
pub struct Listing {
    /// Every container, the newest first.
    pub records: Vec<Record>,
    /// What else is there, and why it is no container: a line for each.
    pub complaints: Vec<String>,
}

impl State {
    /// The state directory.
    pub fn path(&self) -> &Path {
        &self.root
    }

    fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    /// The directory of the container `id`.
    pub fn dir(&self, id: &str) -> PathBuf {
        self.containers().join(id)
    }

    // ANCHOR: create
    /// Makes the container's directory, with an id that no other one has, and
    /// its first record. Whoever calls this owns the container.
    ///
    /// The lock on all of them makes two things one: that a name is free, and
    /// that it is taken. Without a name it is shared, for ids need no look
    /// around: mkdir(2) fails when there is one already. (flock(2))
    pub fn create(&self, record: &mut Record) -> Result<Owner> {
        let containers = self.containers();
        make_private(&self.root)?;
        make_private(&containers)?;
        let containers = fs::canonicalize(&containers).with_context(|| format!("look at {containers:?}"))?;
        let all = File::open(&containers).with_context(|| format!("open {containers:?}"))?;
        if let Some(name) = &record.name {
            all.lock().with_context(|| format!("lock {containers:?}"))?;
            if let Some(holder) = self.list()?.records.iter().find(|one| one.name.as_ref() == Some(name)) {
                bail!(
                    "the name {name:?} is taken by container {}; choose another, or remove that one: tiny-docker rm {name}",
                    holder.id
                );
            }
        } else {
            all.lock_shared().with_context(|| format!("lock {containers:?}"))?;
        }
        let dir = loop {
            record.id = new_id()?;
            let dir = containers.join(&record.id);
            let describe = || (format!("mkdir({dir:?}, 0o700)"), format!("mkdir -m 700 {}", dir.display()));
            match step(DAY, describe, || DirBuilder::new().mode(0o700).create(&dir)) {
                Ok(()) => break dir,
                Err(_) if dir.exists() => continue,
                Err(error) => return Err(error),
            }
        };
        let made = open_lock(&dir).and_then(|lock| {
            lock.lock().with_context(|| format!("lock {dir:?}"))?;
            let owner = Owner { dir: dir.clone(), _lock: lock };
            owner.write(record).map(|()| owner)
        });
        if made.is_err() {
            let _ = fs::remove_dir_all(&dir);
        }
        made
    }
    // ANCHOR_END: create

    // ANCHOR: list
    /// All that is there. What is no record is named and skipped: it may be
    /// somebody else's, and nothing is deleted but by `rm`.
    pub fn list(&self) -> Result<Listing> {
        let containers = self.containers();
        let mut listing = Listing::default();
        let entries = match fs::read_dir(&containers) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(listing),
            Err(error) => {
                return Err(error).with_context(|| {
                    format!("read {containers:?}; it belongs to whoever runs containers, so: sudo")
                });
            }
        };
        for entry in entries {
            let dir = entry.with_context(|| format!("read {containers:?}"))?.path();
            match read(&dir) {
                Ok(record) => listing.records.push(record),
                // Being made, or being removed, at this moment.
                Err(_) if self.in_the_works(&dir) => {}
                Err(error) => listing.complaints.push(format!("{}: {error:#}; skipped", dir.display())),
            }
        }
        listing.complaints.sort();
        listing.records.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
        Ok(listing)
    }
    // ANCHOR_END: list

    /// Is there no record in `dir` because somebody is about to write it, or has
    /// just removed it? Whoever does either holds the lock on all of them.
    fn in_the_works(&self, dir: &Path) -> bool {
        let nobody_is_at_it = File::open(self.containers()).is_ok_and(|all| all.try_lock().is_ok());
        let is_bare = is_id(dir.file_name()) && !dir.join(RECORD).is_symlink() && !dir.join(RECORD).exists();
        if is_bare && !nobody_is_at_it {
            return true;
        }
        // By now it may be there, or gone altogether.
        read(dir).is_ok() || fs::symlink_metadata(dir).is_err()
    }

    // ANCHOR: find
    /// The container that `word` means: its id, its name, or the beginning of
    /// one id and no other.
    pub fn find(&self, word: &str) -> Result<Record> {
        // ANCHOR: day4_task2_find_solution
        if is_id(Some(OsStr::new(word)))
            && let Ok(record) = read(&self.dir(word))
        {
            return Ok(record);
        }
        let records = self.list()?.records;
        if let Some(named) = records.iter().find(|record| record.name.as_deref() == Some(word)) {
            return Ok(named.clone());
        }
        let mut matching =
            records.into_iter().filter(|record| !word.is_empty() && record.id.starts_with(word));
        match (matching.next(), matching.next()) {
            (Some(record), None) => Ok(record),
            (Some(one), Some(other)) => bail!(
                "{word:?} begins the ids of several containers, {} and {} among them; give more digits",
                one.id,
                other.id
            ),
            (None, _) => bail!("no such container: {word:?}; tiny-docker ps -a lists those there are"),
        }
        // ANCHOR_END: day4_task2_find_solution
    }
    // ANCHOR_END: find

    /// The record of the container `id`, read anew.
    pub fn read(&self, id: &str) -> Result<Record> {
        let dir = self.dir(id);
        match read(&dir) {
            Err(_) if self.in_the_works(&dir) => read(&dir).map_err(|_| anyhow!("no such container: {id}")),
            read => read,
        }
    }

    /// Becomes the owner of the container `id`, if it has none.
    pub fn try_own(&self, id: &str) -> Result<Option<Owner>> {
        let dir = self.dir(id);
        let lock = match OpenOptions::new().write(true).open(dir.join(LOCK)) {
            Ok(lock) => lock,
            Err(_) => {
                // Not one that is being removed at this moment: that takes the
                // lock on all of them.
                let all = File::open(self.containers()).context("no container is there")?;
                all.lock().context("lock the state directory")?;
                open_lock(&dir)?
            }
        };
        match lock.try_lock() {
            // The directory may have been removed while we opened it.
            Ok(()) if dir.exists() => Ok(Some(Owner { dir, _lock: lock })),
            Ok(()) => bail!("no such container: {id}"),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("lock {dir:?}")),
        }
    }

    /// Waits until the owner of the container `id`, whose command has ended, has
    /// written that down and gone; and becomes its owner.
    pub fn own(&self, id: &str) -> Result<Owner> {
        let start = Instant::now();
        loop {
            if let Some(owner) = self.try_own(id)? {
                return Ok(owner);
            }
            if start.elapsed() > PATIENCE {
                bail!(
                    "container {id} has ended, but its `run` has not: nobody reads what it wrote; \
                     let it be read, or end that process"
                );
            }
            std::thread::sleep(A_MOMENT);
        }
    }

    // ANCHOR: settle
    /// `record` as it is in truth. One that says running while its process is
    /// gone, and that nobody owns who could still say more, is repaired.
    pub fn settle(&self, record: Record) -> Result<Record> {
        // ANCHOR: day4_task3_settle_solution
        if record.status == Status::Exited || record.process()?.is_some() {
            return Ok(record);
        }
        let Some(owner) = self.try_own(&record.id)? else { return Ok(record) };
        // What the owner wrote last, before it went.
        let mut record = read(&owner.dir)?;
        // What cannot be removed is a complaint, and no reason to lose a container.
        if let Err(error) = traces::remove_cgroup_of(&owner.dir) {
            error::print(&error);
        }
        if record.status == Status::Running {
            record.ended_unseen();
            owner.write(&record)?;
        }
        Ok(record)
        // ANCHOR_END: day4_task3_settle_solution
    }
    // ANCHOR_END: settle
}

impl Owner {
    // ANCHOR: write
    /// Replaces the record, as a whole or not at all. Whoever reads meanwhile
    /// gets the old one or the new one. (rename(2); fsync(2), "NOTES")
    pub fn write(&self, record: &Record) -> Result<()> {
        // ANCHOR: day4_task1_write_solution
        let (file, new) = (self.dir.join(RECORD), self.dir.join("config.json.new"));
        let mut text = serde_json::to_string_pretty(record)?;
        text.push('\n');
        let describe = || {
            let call = format!("rename(\"config.json.new\", \"config.json\"): {:?}", record.status);
            (call, "sync config.json.new && mv config.json.new config.json".into())
        };
        let replaced = step(DAY, describe, || {
            let mut opened =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            opened.write_all(text.as_bytes())?;
            // The name must not reach the disk before the content does.
            opened.sync_data()?;
            fs::rename(&new, &file)
        });
        if replaced.is_err() {
            let _ = fs::remove_file(&new);
        }
        replaced
        // ANCHOR_END: day4_task1_write_solution
    }
    // ANCHOR_END: write

    /// Removes every trace of the container.
    pub fn remove(self) -> Result<()> {
        let dir = &self.dir;
        traces::remove_cgroup_of(dir)?;
        let all = dir.parent().unwrap_or(dir);
        let lock = File::open(all).and_then(|all| all.lock_shared().map(|()| all));
        let _lock = lock.with_context(|| format!("lock {all:?}"))?;
        let describe = || (format!("remove {dir:?}"), format!("rm -r {}", dir.display()));
        // First the record: from then on nobody takes the rest for a container.
        let _ = fs::remove_file(dir.join(RECORD));
        step(DAY, describe, || fs::remove_dir_all(dir))
    }
}

// ANCHOR: read
/// The record in `dir`. A file that is not ours, or no file at all, is not
/// read: opening a FIFO would wait for ever.
fn read(dir: &Path) -> Result<Record> {
    // ANCHOR: day4_task2_read_solution
    const LONGEST: u64 = 1 << 20;
    if !is_id(dir.file_name()) {
        bail!("not a container: expected a directory named by 12 hexadecimal digits");
    }
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(dir.join(RECORD))
        .with_context(|| {
            format!(
                "no {RECORD} that can be read; if a killed run left this, tiny-docker rm -f {} removes it",
                dir.file_name().unwrap_or_default().display()
            )
        })?;
    let metadata = file.metadata().context("look at it")?;
    if !metadata.is_file() || metadata.len() > LONGEST {
        bail!("{RECORD} is not a file of at most 1 MiB");
    }
    let us = rustix::process::geteuid().as_raw();
    if metadata.uid() != us {
        bail!("{RECORD} belongs to user {}, and would be believed only from user {us}", metadata.uid());
    }
    let mut text = Vec::with_capacity(metadata.len() as usize + 1);
    file.take(LONGEST).read_to_end(&mut text).with_context(|| format!("read {RECORD}"))?;
    let record: Record = match serde_json::from_slice(&text) {
        Ok(record) => record,
        Err(error) => match serde_json::from_slice(&text) {
            Ok(Version { version }) if version > VERSION => bail!(
                "{RECORD} has version {version}, and this tiny-docker knows up to {VERSION}; use the newer one"
            ),
            _ => return Err(error).with_context(|| format!("{RECORD} is no record")),
        },
    };
    if record.version > VERSION {
        bail!(
            "{RECORD} has version {}, and this tiny-docker knows up to {VERSION}; use the newer one",
            record.version
        );
    }
    if dir.file_name() != Some(OsStr::new(&record.id)) {
        bail!("{RECORD} is the record of container {}", record.id);
    }
    Ok(record)
    // ANCHOR_END: day4_task2_read_solution
}
// ANCHOR_END: read

/// The one field that a record of any version has.
#[derive(serde::Deserialize)]
struct Version {
    version: u32,
}

// ANCHOR: id
/// 12 hexadecimal digits from the kernel's random source. (getrandom(2))
fn new_id() -> Result<String> {
    // ANCHOR: day4_task1_new_id_solution
    let mut bytes = [0; 6];
    let describe = || ("getrandom(6 bytes)".into(), "head -c 6 /dev/urandom | xxd -p".into());
    // Up to 256 bytes come at once, or not at all.
    step(DAY, describe, || getrandom(&mut bytes, GetRandomFlags::empty()))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    // ANCHOR_END: day4_task1_new_id_solution
}
// ANCHOR_END: id

/// Is this the name of a container's directory?
pub fn is_id(name: Option<&OsStr>) -> bool {
    let digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    name.is_some_and(|name| name.len() == 12 && name.as_encoded_bytes().iter().all(digit))
}

/// Opens the file `path` to be locked, and makes it if need be. What is in it does not
/// matter. (flock(2))
pub fn open_to_lock(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn open_lock(dir: &Path) -> Result<File> {
    open_to_lock(&dir.join(LOCK))
        .with_context(|| format!("no such container: {}", dir.file_name().unwrap_or_default().display()))
}

fn make_private(dir: &Path) -> Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let describe = || (format!("mkdir({dir:?}, 0o700)"), format!("mkdir -p -m 700 {}", dir.display()));
    step(DAY, describe, || DirBuilder::new().recursive(true).mode(0o700).create(dir))
}
