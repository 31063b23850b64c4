//! Day 4, for day 14: how a container that is checked is: a file of its own in the container's
//! directory, which whoever looks after it replaces after each check. The record stays as it is.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// In the container's directory.
pub const FILE: &str = "health.json";

/// It is never longer, in bytes.
const LONGEST: u64 = 1 << 20;

/// How a container is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// In a word.
    pub status: HealthStatus,
    /// How many checks have failed, one after the other, up to now.
    pub failing_streak: u32,
    /// The last checks, the oldest first.
    pub log: Vec<Check>,
}

/// How a container is, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// Nobody knows yet.
    Starting,
    /// It is well.
    Healthy,
    /// It is not.
    Unhealthy,
}

/// What came of one check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// What it exited with; -1: it took too long.
    pub exit_code: i32,
    /// The beginning of what it wrote.
    pub output: String,
}

impl HealthStatus {
    /// As `ps` says it.
    pub fn in_words(self) -> &'static str {
        match self {
            HealthStatus::Starting => " (health: starting)",
            HealthStatus::Healthy => " (healthy)",
            HealthStatus::Unhealthy => " (unhealthy)",
        }
    }
}

impl Health {
    /// Of one that has just begun to run.
    pub fn unknown() -> Health {
        Health { status: HealthStatus::Starting, failing_streak: 0, log: vec![] }
    }

    /// Of the container in `dir`; `None`: nobody has written it down, or it cannot be read.
    pub fn of(dir: &Path) -> Option<Health> {
        let mut text = Vec::new();
        File::open(dir.join(FILE)).ok()?.take(LONGEST).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Writes it down, as a whole or not at all.
    pub fn write(&self, dir: &Path) -> std::io::Result<()> {
        let new = dir.join("health.json.new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        fs::rename(&new, dir.join(FILE))
    }
}
