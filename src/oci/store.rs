//! Day 18: what is remembered of a container between one command and the next, and how it fares.
//!
//! ```text
//! ROOT/ID/config.json   what it is to be
//!        /state.json    its first process, its cgroup, its bundle
//!        /start         the gate: a byte in it starts the command
//!        /report        what its first process has to say
//! ```
//!
//! How it fares is not written down: the kernel knows, and is asked.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use jiff::Timestamp;
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{Result, io_kind};
use crate::ids;
use crate::metadata::freezer::is_frozen;
use crate::metadata::pidfd::Process;
use crate::metadata::record::{Identity, boot_id};
use crate::metadata::state::is_still;
use crate::wait;

use super::spec::{CONFIG, Spec, VERSION, read_json};

const STATE: &str = "state.json";

/// Where containers are remembered.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// One of them.
#[derive(Debug)]
pub struct Stored {
    /// Its directory.
    pub dir: PathBuf,
    /// What is remembered.
    pub kept: Kept,
    /// While this is open, nobody else changes it.
    lock: Option<File>,
}

// ANCHOR: kept
/// What is remembered of a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Kept {
    /// How its engine calls it.
    pub id: String,
    /// Its bundle, absolute.
    pub bundle: PathBuf,
    /// What became its `/`, absolute.
    pub rootfs: PathBuf,
    /// Its first process; `None`: it is about to be made.
    pub process: Option<Identity>,
    /// Since which boot.
    pub boot_id: String,
    /// Since when.
    pub created: Timestamp,
    /// Its cgroup; `None`: whoever called's.
    pub cgroup: Option<PathBuf>,
    /// The unit that systemd calls it; `None`: systemd did not make it.
    #[serde(default)]
    pub scope: Option<String>,
    /// What its engine has said about it.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}
// ANCHOR_END: kept

/// How a container fares. (OCI runtime-spec, runtime.md, "State")
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    /// In the specification's words.
    pub fn word(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

impl Store {
    /// That of `root`; of this user, if it is `None`.
    pub fn at(root: Option<PathBuf>) -> Store {
        // Root of a user namespace is somebody else outside, and so is /run.
        let is_root = geteuid().is_root() && !ids::are_not_the_hosts();
        let own = || match std::env::var_os("XDG_RUNTIME_DIR").filter(|_| !is_root) {
            Some(dir) => PathBuf::from(dir).join("tiny-runc"),
            None => "/run/tiny-runc".into(),
        };
        Store { root: root.unwrap_or_else(own) }
    }

    /// Makes the directory of a new container, and locks it.
    pub fn create(&self, kept: Kept, config: &[u8]) -> Result<Stored> {
        let dir = self.dir(&kept.id)?;
        let make = |dir: &Path, deep| DirBuilder::new().mode(0o700).recursive(deep).create(dir);
        make(&self.root, true).with_context(|| format!("make {:?}", self.root))?;
        match make(&dir, false) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                bail!("container {} exists already; expected another id, or delete it first", kept.id)
            }
            made => made.with_context(|| format!("make {dir:?}"))?,
        }
        let lock = lock(&dir)?;
        fs::write(dir.join(CONFIG), config).with_context(|| format!("write {dir:?}/{CONFIG}"))?;
        let stored = Stored { dir, kept, lock: Some(lock) };
        stored.write()?;
        Ok(stored)
    }

    /// The container `id`, locked.
    pub fn open(&self, id: &str) -> Result<Stored> {
        let (dir, lock) = self.lock(id)?;
        let kept = read(&dir)?;
        Ok(Stored { dir, kept, lock: Some(lock) })
    }

    fn lock(&self, id: &str) -> Result<(PathBuf, File)> {
        let dir = self.dir(id)?;
        loop {
            if !dir.exists() {
                bail!("container {id} does not exist");
            }
            let locked = lock(&dir)?;
            // Meanwhile it may have been removed, and another one made of this name.
            if is_still(&locked, &dir)? {
                return Ok((dir, locked));
            }
        }
    }

    /// What is known of the container `id`, without waiting for anybody.
    pub fn look(&self, id: &str) -> Result<(PathBuf, Kept)> {
        let dir = self.dir(id)?;
        if !dir.exists() {
            bail!("container {id} does not exist");
        }
        let kept = read(&dir)?;
        Ok((dir, kept))
    }

    /// Whether there is a directory of this name.
    pub fn has(&self, id: &str) -> bool {
        self.dir(id).is_ok_and(|dir| dir.exists())
    }

    /// Removes what is left of one whose maker was killed before it had made anything else: there is no state,
    /// or none that can be read.
    pub fn forget_what_is_half_made(&self, id: &str) -> Result<()> {
        let dir = self.dir(id)?;
        if !dir.exists() || read(&dir).is_ok() {
            return Ok(());
        }
        // It may be about to be written.
        let (dir, _lock) = self.lock(id)?;
        if read(&dir).is_ok() { Ok(()) } else { remove(&dir) }
    }

    /// All that can be read.
    pub fn list(&self) -> Vec<Kept> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        let mut all: Vec<Kept> = entries.filter_map(|entry| read(&entry.path()).ok()).collect();
        all.sort_by(|one, other| one.id.cmp(&other.id));
        all
    }

    /// An id is the name of a directory: it has no slash, and is neither `.` nor `..`.
    fn dir(&self, id: &str) -> Result<PathBuf> {
        let fine = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
        if id.is_empty() || id.len() > 1024 || id == "." || id == ".." || !id.chars().all(fine) {
            bail!("container id {id:?}: expected letters, digits, '_', '+', '-' and '.'");
        }
        Ok(self.root.join(id))
    }
}

/// (flock(2), of a directory)
fn lock(dir: &Path) -> Result<File> {
    let file = File::open(dir).with_context(|| format!("open {dir:?}"))?;
    wait::lock(&file, false, Some(wait::PATIENCE), "the container")?;
    Ok(file)
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        // Somebody else was faster.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.with_context(|| format!("remove {dir:?}")),
    }
}

fn read(dir: &Path) -> Result<Kept> {
    let text = read_json(&dir.join(STATE)).map_err(|error| match io_kind(&error) {
        // It is not yet written, or being removed: for engines, which ask again and again, there is none.
        Some(ErrorKind::NotFound) => {
            anyhow!("container {} does not exist", dir.file_name().unwrap_or_default().display())
        }
        _ => error,
    })?;
    serde_json::from_slice(&text).with_context(|| format!("understand {dir:?}/{STATE}"))
}

impl Stored {
    /// Writes down what is remembered: whoever reads gets the old or the new. (rename(2))
    pub fn write(&self) -> Result<()> {
        let (file, new) = (self.dir.join(STATE), self.dir.join("state.json.new"));
        let written = fs::write(&new, serde_json::to_vec(&self.kept)?).and_then(|()| fs::rename(&new, &file));
        written.with_context(|| format!("write {file:?}"))
    }

    /// In the child, which has a copy: it would hold the lock for as long as it waits, and an open directory of
    /// the host is a way out of the container (CVE-2024-21626). In a runtime that waits for the command's end.
    pub fn let_go_of_lock(&mut self) {
        self.lock = None;
    }

    /// What it is to be.
    pub fn spec(&self) -> Result<Spec> {
        Spec::of(&self.dir)
    }

    /// Removes it.
    pub fn remove(self) -> Result<()> {
        remove(&self.dir)
    }
}

impl Kept {
    /// Its first process, if that lives.
    pub fn process(&self) -> Result<Option<Process>> {
        if self.boot_id != boot_id()? {
            return Ok(None);
        }
        self.process.map_or(Ok(None), |identity| identity.process())
    }

    // ANCHOR: status
    /// How it fares, at this moment.
    pub fn status(&self) -> Result<Status> {
        // ANCHOR: day18_task4_status_solution
        let Some(process) = self.process()? else {
            return Ok(if self.process.is_none() { Status::Creating } else { Status::Stopped });
        };
        if !process.has_become_the_command()? {
            return Ok(Status::Created);
        }
        Ok(if self.is_frozen() { Status::Paused } else { Status::Running })
        // ANCHOR_END: day18_task4_status_solution
    }
    // ANCHOR_END: status

    /// Whether it is held up.
    pub fn is_frozen(&self) -> bool {
        self.cgroup.as_deref().is_some_and(is_frozen)
    }

    /// What `state` prints, and hooks get.
    pub fn state(&self, status: Status) -> Value {
        let alive = !matches!(status, Status::Stopped | Status::Creating) || self.process.is_some();
        let pid = self.process.filter(|_| alive && status != Status::Stopped).map_or(0, |one| one.pid);
        json!({
            "ociVersion": VERSION,
            "id": self.id,
            "pid": pid,
            "status": status.word(),
            "bundle": self.bundle,
            "rootfs": self.rootfs,
            "created": self.created.to_string(),
            "annotations": self.annotations,
            "owner": "",
        })
    }
}
