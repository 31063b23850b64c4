//! Day 4: the state directory: what is remembered of each container.
//!
//! ```text
//! /var/lib/tiny-docker/containers/<id>/config.json        the record
//!                                      config.json.before the one before, from the end on
//!                                      config.json.room   room for the last one, until then
//!                                      container.log      from day 5 on
//!                                      container.log.1    from day 14 on: where it goes on
//!                                      cgroup             from day 7 on: where it is
//!                                      layer/upper        from day 11 on: what it writes
//!                                      ended              from day 14 on: a person ended it
//!                                      changed            the same: another has changed the record
//!                                      lock               held by its owner
//!                      aside/<id>                         one that is being made or removed
//!                      flush                              held by whoever is about to flush
//! ```
//!
//! Three rules keep it true. A record is never half written: it is written beside the old
//! one, and renamed. A container is never half there: it is made aside, and renamed. And
//! one process at a time writes a record, the one that holds the container's lock: its
//! **owner**, which is the `run` that waits for the command. The kernel drops a lock when
//! its holder dies, even by SIGKILL, so an owner that is gone can be told from a slow one.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::error::{self, Result};
use crate::explain::step;
use crate::metadata::aside::Aside;
use crate::metadata::freezer::is_paused;
use crate::metadata::health::Health;
use crate::metadata::holder::holder;
use crate::metadata::layout::{DAY, LOCK, make_private};
use crate::metadata::owner::Owner;
use crate::metadata::read::known;
use crate::metadata::record::{Record, Status};
use crate::metadata::tree::remove_tree;
use crate::wait::{A_MOMENT, PATIENCE, lock};

pub use crate::metadata::layout::{is_id, open_to_lock};

/// Whoever waits for so long is told for whom.
const A_WHILE: Duration = Duration::from_secs(1);

const NO_CONTAINER: &str = "not a container: expected a directory named by 12 hexadecimal digits";

/// The flag that says where the state directory is: one for all commands.
#[derive(Debug, clap::Args)]
pub struct Root {
    /// Where containers are remembered
    #[arg(
        long,
        value_name = "DIR",
        env = "TINY_DOCKER_ROOT",
        default_value = "/var/lib/tiny-docker",
        global = true,
        display_order = 901
    )]
    root: PathBuf,
}

/// The state directory: what [`Root`] says, for the commands that need it.
#[derive(Debug, Clone, clap::Args)]
pub struct State {
    #[arg(from_global)]
    root: PathBuf,
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
    /// The state directory `root`.
    pub fn at(root: PathBuf) -> State {
        State { root }
    }

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
    /// Makes a container, with an id that no other one has, and its first record. Whoever
    /// calls this owns it.
    ///
    /// Between the look whether a name is free and the moment it is taken nobody else may take
    /// one: whoever wants a name holds the lock on all containers. (flock(2))
    pub fn create(&self, record: &mut Record) -> Result<Owner> {
        let containers = self.containers();
        make_private(&self.root)?;
        make_private(&containers)?;
        let containers = fs::canonicalize(&containers).with_context(|| format!("look at {containers:?}"))?;
        let _ = Aside::sweep(&containers);
        let _nobody_else = record.name.as_ref().map(|name| self.reserve(name)).transpose()?;
        let aside = Aside::open(&containers)?;
        loop {
            record.id = new_id()?;
            let (dir, lock) = aside.make(&record.id)?;
            let owner = Owner::new(dir, lock);
            let made = owner.write(record).and_then(|()| owner.move_to(&containers.join(&record.id)));
            match made {
                Ok(true) => return Ok(owner.at(containers.join(&record.id))),
                // There is one with this id.
                Ok(false) => remove_tree(&owner.dir).with_context(|| format!("remove {:?}", owner.dir))?,
                Err(error) => {
                    let _ = remove_tree(&owner.dir);
                    return Err(error);
                }
            }
        }
    }
    // ANCHOR_END: create

    /// The right to call a container `name`: it is free, and as long as this value lives nobody
    /// else takes any.
    pub fn reserve(&self, name: &str) -> Result<File> {
        let containers = self.containers();
        let names = File::open(&containers).with_context(|| format!("open {containers:?}"))?;
        lock(&names, false, Some(PATIENCE), "the list of names")?;
        self.check_free(name).map(|()| names)
    }

    fn check_free(&self, name: &str) -> Result<()> {
        for holder in self.list()?.records {
            // A run that was killed before its command started has no use for a name.
            if holder.name.as_deref() != Some(name) {
                continue;
            }
            if holder.status == Status::Created
                && self.settle(holder.clone()).is_err()
                && !self.is_there(&holder.id)
            {
                continue;
            }
            bail!(
                "the name {name:?} is taken by container {}; choose another, or remove that one: tiny-docker rm {name}",
                holder.id
            );
        }
        Ok(())
    }

    /// Removes what processes that were killed have left half made or half removed. If that
    /// cannot be, it is nobody's concern now: it is no container.
    pub fn sweep(&self) {
        let swept = fs::canonicalize(self.containers()).and_then(|containers| Aside::sweep(&containers));
        let _ = swept;
    }

    // ANCHOR: list
    /// All that is there. What is no container is named and skipped: it may be somebody
    /// else's, and is left alone.
    pub fn list(&self) -> Result<Listing> {
        let containers = self.containers();
        let mut listing = Listing::default();
        let entries = match fs::read_dir(&containers) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(listing),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                return Err(error).with_context(|| {
                    format!("read {containers:?}; it belongs to whoever runs containers: try sudo")
                });
            }
            entries => entries.with_context(|| format!("read {containers:?}"))?,
        };
        for entry in entries {
            let entry = entry.with_context(|| format!("read {containers:?}"))?;
            let dir = entry.path();
            let is_dir = match entry.file_type() {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                kind => kind.with_context(|| format!("look at {dir:?}"))?.is_dir(),
            };
            if !is_dir || !is_id(dir.file_name()) {
                listing.complaints.push(format!("{}: {NO_CONTAINER}; skipped", dir.display()));
                continue;
            }
            // None: removed since.
            listing.records.extend(known(&dir)?);
        }
        listing.complaints.sort();
        listing.records.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
        Ok(listing)
    }
    // ANCHOR_END: list

    // ANCHOR: find
    /// The container that `word` means: its id, its name, or the beginning of
    /// one id and no other.
    pub fn find(&self, word: &str) -> Result<Record> {
        // ANCHOR: day4_task2_find_solution
        if is_id(Some(OsStr::new(word)))
            && let Some(record) = known(&self.dir(word))?
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
        known(&self.dir(id))?.with_context(|| format!("no such container: {id}"))
    }

    /// Is there a container `id`?
    pub fn is_there(&self, id: &str) -> bool {
        let gone = |error: std::io::Error| error.kind() == ErrorKind::NotFound;
        !fs::symlink_metadata(self.dir(id)).is_err_and(gone)
    }

    /// Becomes the owner of the container `id`, if it has none.
    pub fn try_own(&self, id: &str) -> Result<Option<Owner>> {
        let dir = self.dir(id);
        let path = dir.join(LOCK);
        let open = |write| OpenOptions::new().read(true).write(write).open(&path);
        let lock = match open(true) {
            // A disk that is read-only can be read.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EROFS | libc::EACCES)) => open(false),
            opened => opened,
        };
        let lock = match lock {
            // Nobody can hold one that is not there.
            Err(error) if error.kind() == ErrorKind::NotFound && self.is_there(id) => open_to_lock(&path),
            opened => opened,
        };
        let lock = match lock {
            Err(error) if error.kind() == ErrorKind::NotFound => bail!("no such container: {id}"),
            lock => lock.with_context(|| format!("open {path:?}"))?,
        };
        match lock.try_lock() {
            // It may have been removed while we opened it.
            Ok(()) if is_still(&lock, &path)? => Ok(Some(Owner::new(dir, lock))),
            Ok(()) => bail!("no such container: {id}"),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("lock {path:?}")),
        }
    }

    /// Waits until the owner of the container `id`, whose command has ended, has
    /// written that down and gone; and becomes its owner. For another command, such as a `cp`, it
    /// waits however long that takes, and says so.
    pub fn own(&self, id: &str) -> Result<Owner> {
        let (mut start, mut known) = (Instant::now(), None);
        loop {
            if let Some(owner) = self.try_own(id)? {
                return Ok(owner);
            }
            let record = self.read(id)?;
            record.is_visible()?;
            if start.elapsed() > A_WHILE
                && let Some(user) = holder(&self.dir(id).join(LOCK))
                && record.owner.is_none_or(|owner| owner.pid != user.pid)
            {
                if known.as_ref() != Some(&user) {
                    error::say(format_args!(
                        "waiting for process {} ({}), which uses the files of container {}; Ctrl-C ends the wait",
                        user.pid,
                        user.words,
                        record.title()
                    ));
                }
                (start, known) = (Instant::now(), Some(user));
            }
            if start.elapsed() > PATIENCE {
                let seconds = PATIENCE.as_secs();
                bail!(
                    "waited {seconds} s for {}, which looks after container {id}: it has not let go; \
                     it may still have output that nobody reads. Have that read, or end it",
                    record
                        .owner
                        .map_or("its `run`".into(), |owner| format!("its `run`, process {}", owner.pid))
                );
            }
            std::thread::sleep(A_MOMENT);
        }
    }

    /// Ends the `run` that looks after a container and does not let go of it, and becomes
    /// its owner. The `run`'s own children end with it.
    pub fn take_over(&self, record: &Record) -> Result<Owner> {
        if let Some(run) = record.owner.map(|owner| owner.process()).transpose()?.flatten() {
            run.signal(DAY, libc::SIGKILL)?;
            run.has_ended(Some(PATIENCE))?;
        }
        self.own(&record.id)
    }

    /// Looks at what the record of a container that runs does not say: the kernel knows whether it
    /// is held up, and whoever checks it how it is.
    pub fn look_closer(&self, record: &mut Record) {
        if record.status != Status::Running {
            return;
        }
        let dir = self.dir(&record.id);
        record.paused = is_paused(&dir);
        record.health = record.plan.health.as_ref().and_then(|_| Health::of(&dir));
    }

    // ANCHOR: settle
    /// `record` as it is in truth. One that says running while its process is gone, and that
    /// nobody owns who could still say more, is repaired. One whose `run` was killed before
    /// the command started is forgotten: nobody can start it any more.
    pub fn settle(&self, record: Record) -> Result<Record> {
        // ANCHOR: day4_task3_settle_solution
        if record.status == Status::Exited || record.is_only_made() || record.process()?.is_some() {
            return Ok(record);
        }
        let Some(owner) = self.try_own(&record.id)? else { return Ok(record) };
        // What the owner wrote last, before it went.
        let mut record = self.read(&record.id)?;
        match record.status {
            Status::Created => match owner.remove() {
                Ok(()) => bail!("no such container: {}; its `run` was killed before its start", record.id),
                // On a disk that is read-only it stays.
                Err(_) => Ok(record),
            },
            Status::Running => {
                record.ended_unseen();
                owner.repair(&record);
                Ok(record)
            }
            // Nobody is left who would start it again.
            Status::Restarting => {
                record.gave_up();
                owner.repair(&record);
                Ok(record)
            }
            Status::Exited => Ok(record),
        }
        // ANCHOR_END: day4_task3_settle_solution
    }
    // ANCHOR_END: settle
}

// ANCHOR: id
/// 12 hexadecimal digits from the kernel's random source. (getrandom(2))
pub fn new_id() -> Result<String> {
    // ANCHOR: day4_task1_new_id_solution
    let mut bytes = [0; 6];
    let describe = || ("getrandom(6 bytes)".into(), "head -c 6 /dev/urandom | xxd -p".into());
    // Up to 256 bytes come at once, or not at all.
    step(DAY, describe, || getrandom(&mut bytes, GetRandomFlags::empty()))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    // ANCHOR_END: day4_task1_new_id_solution
}
// ANCHOR_END: id

/// Is what `path` means still the file that we have opened?
pub fn is_still(opened: &File, path: &Path) -> Result<bool> {
    let opened = opened.metadata().with_context(|| format!("look at {path:?}"))?;
    match fs::symlink_metadata(path) {
        Ok(found) => Ok((found.dev(), found.ino()) == (opened.dev(), opened.ino())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("look at {path:?}")),
    }
}
