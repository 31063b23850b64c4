//! Day 14: `pause` and `unpause`: all processes of a container are held up where they are, and go
//! on from there.
//!
//! That is not a signal: SIGSTOP tells the process's parent, and a debugger or any other process
//! can undo it. Frozen processes do not know it, and nobody in the container can change it. They
//! are a cgroup's, and each container has one of its own, limits or not, wherever the host has
//! a place for it (day 7).

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::Result;
use crate::exec::target::Target;
use crate::explain::{shell, step};
use crate::files;
use crate::metadata::at_once::for_each_at_once;
use crate::metadata::freezer::{FREEZE, is_frozen, thaw};
use crate::metadata::state::State;
use crate::metadata::traces;
use crate::wait::PATIENCE;

use super::DAY;

/// Hold up all processes of containers
#[derive(Debug, clap::Args)]
pub struct Pause {
    #[command(flatten)]
    state: State,

    /// Their ids or names
    #[arg(required = true)]
    containers: Vec<String>,
}

/// Let paused containers go on
#[derive(Debug, clap::Args)]
pub struct Unpause {
    #[command(flatten)]
    state: State,

    /// Their ids or names
    #[arg(required = true)]
    containers: Vec<String>,
}

impl Pause {
    /// Prints those that are paused now. Returns the exit code: 1 if one could not be.
    pub fn execute(self) -> Result<u8> {
        Ok(for_each_at_once(&self.containers, |word| {
            let (title, cgroup) = find(&self.state, word)?;
            if is_frozen(&cgroup) {
                bail!("container {title} is paused already");
            }
            freeze(&cgroup).with_context(|| format!("container {title}"))?;
            Ok(format!("{word}\n"))
        }))
    }
}

impl Unpause {
    /// Prints those that go on. Returns the exit code: 1 if one was not paused.
    pub fn execute(self) -> Result<u8> {
        Ok(for_each_at_once(&self.containers, |word| {
            let (title, cgroup) = find(&self.state, word)?;
            if !is_frozen(&cgroup) {
                bail!("container {title} is not paused");
            }
            thaw(DAY, &cgroup)?;
            Ok(format!("{word}\n"))
        }))
    }
}

/// The container that `word` means, which must run: what it is called, and its cgroup.
pub fn find(state: &State, word: &str) -> Result<(String, PathBuf)> {
    let Target { record, process } = Target::find(state, word)?;
    match traces::cgroup_of(&state.dir(&record.id))? {
        Some(cgroup) => Ok((record.title().to_string(), cgroup)),
        None if process.has_ended(Some(Duration::ZERO))? => {
            bail!("container {} has just ended", record.title())
        }
        None => bail!(
            "container {} has no cgroup, by which the kernel would hold it up: there was no place for one when it \
             was started, and run --memory says why",
            record.title()
        ),
    }
}

// ANCHOR: freeze
/// Has the kernel hold up all that is in `cgroup`, and returns once it is held up: what is asked
/// for is written into `cgroup.freeze`, and when it is so the kernel says in `cgroup.events`.
///
/// A process that is in the middle of what cannot be interrupted would keep it waiting. Then
/// nothing is held up, and that is an error.
pub fn freeze(cgroup: &Path) -> Result<()> {
    // ANCHOR: day14_task4_freeze_solution
    let file = cgroup.join(FREEZE);
    // Before anything is asked for: what changes from here on, poll tells.
    let events = File::open(cgroup.join("cgroup.events")).map_err(|error| why_not(&error, cgroup))?;
    let describe = || (format!("write 1 > {}", file.display()), format!("echo 1 > {}", shell(&file)));
    step(DAY, describe, || files::write(&file, "1"))?;
    if !until_frozen(&events)? {
        thaw(DAY, cgroup)?;
        bail!(
            "it could not be held up within {} s, for one of its processes is in the middle of what the kernel does \
             not interrupt; it goes on: try again",
            PATIENCE.as_secs()
        );
    }
    Ok(())
    // ANCHOR_END: day14_task4_freeze_solution
}
// ANCHOR_END: freeze

// ANCHOR: until_frozen
/// Waits until `events`, a `cgroup.events`, says that it is so. Returns whether it is. That it has
/// changed since it was last read, the kernel tells by POLLPRI. (cgroups(7); poll(2))
fn until_frozen(events: &File) -> Result<bool> {
    // ANCHOR: day14_task4_until_frozen_solution
    let until = Instant::now() + PATIENCE;
    let describe = || {
        let by_hand = "until grep -q 'frozen 1' cgroup.events; do sleep 0.01; done";
        ("poll(cgroup.events, POLLPRI): until it says frozen 1".into(), by_hand.into())
    };
    step(DAY, describe, || {
        loop {
            let mut text = [0; 256];
            let count = events.read_at(&mut text, 0)?;
            if text[..count].split(|byte| *byte == b'\n').any(|line| line == b"frozen 1") {
                return Ok(true);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLPRI)], timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(std::io::Error::from(error)),
            }
        }
    })
    // ANCHOR_END: day14_task4_until_frozen_solution
}
// ANCHOR_END: until_frozen

/// Why there is no `cgroup.events` to be read in `cgroup`.
fn why_not(error: &std::io::Error, cgroup: &Path) -> anyhow::Error {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory if !cgroup.is_dir() => {
            anyhow::anyhow!("it has just ended")
        }
        _ => anyhow::anyhow!("read cgroup.events in {cgroup:?}: {error}"),
    }
}
