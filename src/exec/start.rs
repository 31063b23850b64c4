//! Day 14: `start` and `restart`: a container that was made, or has ended, runs (again).

use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Instant;

use anyhow::{Context, bail};

use crate::error::{self, COMMAND_FAILED, Result, failed};
use crate::metadata::by_person;
use crate::metadata::record::{Record, Status};
use crate::metadata::state::State;
use crate::stop::StopContainers;
use crate::wait::{A_MOMENT, PATIENCE};

/// Start containers that were created, or that have ended
#[derive(Debug, clap::Args)]
pub struct Start {
    #[command(flatten)]
    state: State,

    /// Stay in the foreground, with its output, and exit as it does
    #[arg(short, long)]
    attach: bool,

    /// As Docker's: with -a, stdin is the container's as with run, so this changes nothing
    #[arg(short, long = "interactive", requires = "attach")]
    _interactive: bool,

    /// By a unit of systemd, which starts it again (see tiny-docker systemd)
    #[arg(long, requires = "attach", hide = true)]
    by_systemd: bool,

    /// Their ids or names
    #[arg(required = true)]
    containers: Vec<String>,
}

/// How a container is started once more.
#[derive(Debug, Clone, Copy)]
pub enum Way<'a> {
    /// By a process that stays with it, and prints this when it runs.
    InBackground(&'a str),
    /// By this process.
    InForeground,
    /// The same, and if it is to be started again after its end, systemd does that.
    BySystemd,
}

/// Stop containers if they run, and start them
#[derive(Debug, clap::Args)]
pub struct Restart {
    #[command(flatten)]
    stop: StopContainers,
}

impl Start {
    /// What a unit of systemd starts, and where it is kept; `None`: somebody else calls.
    pub fn for_systemd(&self) -> Option<(&State, &str)> {
        let only = self.containers.first().filter(|_| self.by_systemd && self.containers.len() == 1);
        only.map(|word| (&self.state, &word[..]))
    }

    /// Starts them, each by `begin`; one that runs already is attached to by `attach`, with -a.
    /// Returns the exit code: with -a the command's, else 1 if one of them could not be started.
    pub fn execute(
        self,
        begin: impl Fn(&State, Record, Way) -> Result<u8>,
        attach: impl FnOnce(State, &str) -> Result<u8>,
    ) -> Result<u8> {
        if self.attach && self.containers.len() > 1 {
            return Err(failed(anyhow::anyhow!("start -a is for one container; omit -a, or name one")));
        }
        if let Some(word) = self.containers.first().filter(|_| self.attach) {
            return match to_be_started(&self.state, word).map_err(failed)? {
                Some(record) => begin(&self.state, record, Way::InForeground),
                None => attach(self.state.clone(), word),
            };
        }
        start_all(&self.state, &self.containers, |record, word| {
            begin(&self.state, record, Way::InBackground(word))
        })
    }
}

impl Restart {
    /// The same, once they are stopped.
    pub fn execute(self, begin: impl Fn(&State, Record, Way) -> Result<u8>) -> Result<u8> {
        let (mut stopped, mut code) = (Vec::new(), 0);
        for word in &self.stop.containers {
            match self.stop.stop_to_restart(word) {
                Ok(()) => stopped.push(word.clone()),
                Err(error) => {
                    error::print(&error);
                    code = COMMAND_FAILED;
                }
            }
        }
        let started = start_all(&self.stop.state, &stopped, |record, word| {
            begin(&self.stop.state, record, Way::InBackground(word))
        })?;
        Ok(if code == 0 { started } else { code })
    }
}

/// Whoever starts a container in the background becomes another process by it, and does not
/// return. So each of several is started by a process of its own.
fn start_all(state: &State, words: &[String], begin: impl FnOnce(Record, &str) -> Result<u8>) -> Result<u8> {
    if let [word] = words {
        return match to_be_started(state, word).map_err(failed)? {
            Some(record) => begin(record, word),
            None => crate::metadata::output::print(&format!("{word}\n")),
        };
    }
    Ok(error::for_each(words, |word| {
        let mut one = Command::new("/proc/self/exe");
        one.arg("--root").arg(state.path()).args(["start", word]).stdin(Stdio::null());
        let status = one.status().context("start a process")?;
        if status.success() { Ok(()) } else { bail!("container {word} was not started") }
    }))
}

/// The container that `word` means, to be started; `None`: it runs.
fn to_be_started(state: &State, word: &str) -> Result<Option<Record>> {
    match startable(state, word)? {
        None => start_now(state, word),
        found => Ok(found),
    }
}

/// The container that `word` means; `None`: it runs already, or its `run` is about to start it again.
pub fn startable(state: &State, word: &str) -> Result<Option<Record>> {
    let record = state.settle(state.find(word)?)?;
    if let Some(why) = &record.unreadable {
        bail!("container {word} cannot be read, so nobody can start it: {why}");
    }
    let is_in_hand = record.status == Status::Restarting || record.process()?.is_some();
    Ok(if is_in_hand { None } else { Some(record) })
}

/// Has the `run` of the container that `word` means, which waits with starting it again, do that
/// now. `None`: it runs, or did. Otherwise its `run` has given it up, and it is startable.
fn start_now(state: &State, word: &str) -> Result<Option<Record>> {
    let before = state.find(word)?;
    let (mut now, since) = (before.clone(), Instant::now());
    while now.status == Status::Restarting && now.restarts == before.restarts {
        now.is_visible()?;
        if since.elapsed() > PATIENCE {
            bail!(
                "container {word} is about to be started again by its `run`, which was not to be woken within {} s",
                PATIENCE.as_secs()
            );
        }
        // Again and again: it may not have begun to wait.
        by_person::wake(&now)?;
        sleep(A_MOMENT);
        now = state.settle(state.read(&before.id)?)?;
    }
    match now.status {
        Status::Exited => Ok(Some(now)),
        Status::Restarting if now.started_at == before.started_at => {
            let why = now.reason.unwrap_or("inspect and logs may tell why".into());
            bail!("container {word} could not be started, and is tried again later: {why}")
        }
        _ => Ok(None),
    }
}
