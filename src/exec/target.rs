//! Day 14: the container that something is to be executed in.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread::sleep;
use std::time::Instant;

use anyhow::{Context, bail};

use crate::error::Result;
use crate::metadata::freezer::is_frozen;
use crate::metadata::pidfd::Process;
use crate::metadata::record::Record;
use crate::metadata::state::State;
use crate::metadata::traces;
use crate::wait::{A_MOMENT, PATIENCE};

/// A container that runs.
#[derive(Debug)]
pub struct Target {
    /// What is remembered of it.
    pub record: Record,
    /// Its first process, which is in its namespaces.
    pub process: Process,
}

impl Target {
    // ANCHOR: find
    /// The container that `word` means. It is an error if it does not run.
    pub fn find(state: &State, word: &str) -> Result<Target> {
        // ANCHOR: day14_task1_find_solution
        let mut record = state.find(word)?;
        let since = Instant::now();
        loop {
            match record.process()? {
                Some(process) if process.has_become_the_command()? => return Ok(Target { record, process }),
                // Its `run` has not come so far, and is about to.
                Some(_) if since.elapsed() < PATIENCE => sleep(A_MOMENT),
                Some(_) => bail!(
                    "container {word} has been about to start for {} s; end what holds up its `run`",
                    PATIENCE.as_secs()
                ),
                None => return Err(not_running(state, record)),
            }
            record = state.read(&record.id)?;
        }
        // ANCHOR_END: day14_task1_find_solution
    }
    // ANCHOR_END: find
}

/// Why a container has no process that could be joined.
fn not_running(state: &State, record: Record) -> anyhow::Error {
    let title = record.title().to_string();
    if let Err(error) = record.is_visible() {
        return error;
    }
    match state.settle(record) {
        Err(error) => error,
        Ok(record) => match &record.unreadable {
            Some(why) => anyhow::anyhow!("container {title} cannot be read: {why}"),
            None => anyhow::anyhow!("container {title} is not running; tiny-docker ps lists those that are"),
        },
    }
}

// ANCHOR: cgroup
/// The cgroup of the container in `dir`, opened: there is to be no moment at which the command
/// is in no limit. `None`: it has none.
pub fn open_cgroup(dir: &Path, title: &str) -> Result<Option<OwnedFd>> {
    // ANCHOR: day14_task1_open_cgroup_solution
    let Some(cgroup) = traces::cgroup_of(dir)? else { return Ok(None) };
    // Born in a cgroup that is frozen, it would not come to its exec.
    if is_frozen(&cgroup) {
        bail!("container {title} is paused; unpause the container before exec: tiny-docker unpause {title}");
    }
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(&cgroup);
    match opened {
        Ok(opened) => Ok(Some(opened.into())),
        Err(error) if error.kind() == ErrorKind::NotFound => bail!("container {title} has just ended"),
        Err(error) => Err(error).with_context(|| format!("open {cgroup:?}")),
    }
    // ANCHOR_END: day14_task1_open_cgroup_solution
}
// ANCHOR_END: cgroup
