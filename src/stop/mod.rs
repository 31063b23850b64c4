//! Day 6: stop. *Can I stop a running container?*
//!
//! The mechanism of a run passes signals on to the command. `stop`, `kill` and
//! `wait` reach a container from outside.

pub mod init;
pub mod signals;

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::bail;
use nix::unistd::Pid;

use crate::container::{Container, Mechanism};
use crate::error::Result;
use crate::metadata::at_once::for_each_at_once;
use crate::metadata::by_person;
use crate::metadata::ending::must_end;
use crate::metadata::freezer;
use crate::metadata::pidfd::Process;
use crate::metadata::record::{Record, Status};
use crate::metadata::state::State;
use crate::metadata::traces::kill_all;
use crate::wait::{A_MOMENT, Arrived, PATIENCE};

use self::signals::{pass_on, signal_named};

const DAY: u8 = 6;

/// The flags of day 6.
#[derive(Debug, clap::Args)]
pub struct Stop {
    /// Run a small init as PID 1, which passes signals on and reaps zombies
    #[arg(long)]
    init: bool,
}

// ANCHOR: mechanism
impl Mechanism for Stop {
    fn prepare(&mut self, container: &mut Container) -> Result<()> {
        container.plan.init = self.init;
        if container.plan.init {
            container.parts.init = Some(init::sealed_program()?);
            container.parts.last_steps.init = Some(init::stay_behind);
        }
        Ok(())
    }

    fn signalled(&mut self, child: Pid, arrived: Arrived) -> Result<bool> {
        pass_on(child, arrived)?;
        // A runtime that is told to stop, as by Ctrl-Z, still does that itself.
        Ok(arrived.signal != libc::SIGTSTP)
    }
}
// ANCHOR_END: mechanism

/// Stop containers: SIGTERM, and after a while SIGKILL
#[derive(Debug, clap::Args)]
pub struct StopContainers {
    /// Where they are kept.
    #[command(flatten)]
    pub state: State,

    /// Seconds to wait before SIGKILL; negative: as long as it takes
    #[arg(
        short,
        long,
        visible_alias = "time",
        value_name = "SECS",
        default_value_t = 10,
        allow_negative_numbers = true
    )]
    timeout: i64,

    /// Their ids or names
    #[arg(required = true)]
    pub containers: Vec<String>,
}

/// Send a signal to containers
#[derive(Debug, clap::Args)]
pub struct Kill {
    #[command(flatten)]
    state: State,

    /// Its name or number
    #[arg(short, long, default_value = "KILL", value_parser = signal_named)]
    signal: i32,

    /// Their ids or names
    #[arg(required = true)]
    containers: Vec<String>,
}

/// Wait until containers end, and print their exit codes
#[derive(Debug, clap::Args)]
pub struct Wait {
    #[command(flatten)]
    state: State,

    /// Their ids or names
    #[arg(required = true)]
    containers: Vec<String>,
}

impl StopContainers {
    /// Prints those that do not run any more. Returns the exit code: 1 if one of
    /// them could not be stopped.
    pub fn execute(self) -> Result<u8> {
        Ok(for_each_at_once(&self.containers, |word| self.stop_for_good(word).map(|()| format!("{word}\n"))))
    }

    /// The same, so that nobody starts it again but a person.
    fn stop_for_good(&self, word: &str) -> Result<()> {
        let record = self.state.find(word)?;
        let signal = record.plan.stop_signal.unwrap_or(libc::SIGTERM);
        by_person::note(&self.state, &record, "stop", signal)?;
        self.stop(word)
    }

    /// The same, and then the caller starts it again.
    pub fn stop_to_restart(&self, word: &str) -> Result<()> {
        let record = self.state.find(word)?;
        let signal = record.plan.stop_signal.unwrap_or(libc::SIGTERM);
        by_person::note_restart(&self.state, &record, signal)?;
        self.stop(word)
    }

    // ANCHOR: stop
    /// One that has ended already is stopped already.
    fn stop(&self, word: &str) -> Result<()> {
        // ANCHOR: day6_task2_stop_solution
        let Some((record, process)) = running(&self.state, word, Some(PATIENCE))? else { return Ok(()) };
        let patience = u64::try_from(self.timeout).ok().map(Duration::from_secs);
        process.signal(DAY, record.plan.stop_signal.unwrap_or(libc::SIGTERM))?;
        // From day 14 on it may be paused, and would take it only when it goes on.
        freezer::let_act(DAY, &self.state.dir(&record.id))?;
        if !process.has_ended(patience)? {
            kill_all(DAY, &self.state.dir(&record.id), &process)?;
        }
        recorded(&self.state, &record, &process)
        // ANCHOR_END: day6_task2_stop_solution
    }
    // ANCHOR_END: stop
}

impl Kill {
    /// Prints those that got the signal. Returns the exit code: 1 if one did not.
    pub fn execute(self) -> Result<u8> {
        Ok(for_each_at_once(&self.containers, |word| self.kill(word).map(|()| format!("{word}\n"))))
    }

    fn kill(&self, word: &str) -> Result<()> {
        let found = self.state.find(word)?;
        // What ends it by force, or asks it to end, is for good.
        let stop_signal = found.plan.stop_signal.unwrap_or(libc::SIGTERM);
        let for_good = self.signal == libc::SIGKILL || self.signal == stop_signal;
        // By its `run`: then it runs, has just ended, or is about to be started again.
        let is_looked_after = matches!(found.status, Status::Running | Status::Restarting)
            && found.owner.map(|run| run.process()).transpose()?.flatten().is_some();
        if for_good {
            by_person::note(&self.state, &found, "kill", self.signal)?;
        }
        let Some((record, process)) = running(&self.state, word, Some(PATIENCE))? else {
            // It has ended by itself meanwhile, and is not started again.
            if for_good && is_looked_after {
                return Ok(());
            }
            bail!("container {word} is not running; tiny-docker ps lists those that are");
        };
        if self.signal != libc::SIGKILL {
            process.signal(DAY, self.signal)?;
            return freezer::let_act(DAY, &self.state.dir(&record.id));
        }
        kill_all(DAY, &self.state.dir(&record.id), &process)?;
        recorded(&self.state, &record, &process)
    }
}

impl Wait {
    /// Prints a line for each, in the order given. Returns the exit code: 1 if
    /// one is unknown.
    pub fn execute(self) -> Result<u8> {
        Ok(for_each_at_once(&self.containers, |word| self.wait(word).map(|code| format!("{code}\n"))))
    }

    // ANCHOR: wait
    fn wait(&self, word: &str) -> Result<u8> {
        // ANCHOR: day6_task3_wait_solution
        let id = self.state.find(word)?.id;
        if let Some((record, process)) = running(&self.state, &id, None)? {
            process.has_ended(None)?;
            if let Some(code) = before_the_next_life(&self.state, &record)? {
                return Ok(code);
            }
        }
        // Whoever saw it end writes that down before it lets go of the container.
        match self.state.own(&id) {
            Ok(owner) => drop(owner),
            Err(error) if self.state.is_there(&id) => return Err(error),
            Err(_) => bail!("container {word} was removed when it ended, and its exit code with it"),
        }
        match self.state.read(&id)?.exit_code {
            Some(code) => Ok(code),
            None => bail!("nobody saw how container {word} ended: its run was killed"),
        }
        // ANCHOR_END: day6_task3_wait_solution
    }
    // ANCHOR_END: wait
}

// ANCHOR: running
/// The container that `word` means, and a handle on its process; `None` if it
/// does not run. One that is about to start is waited for, at most for `patience`
/// (`None`: however long it takes).
fn running(state: &State, word: &str, patience: Option<Duration>) -> Result<Option<(Record, Process)>> {
    let id = state.find(word)?.id;
    let start = Instant::now();
    let mut pause = A_MOMENT;
    loop {
        let record = state.read(&id)?;
        if let Some(process) = record.process()? {
            return Ok(Some((record, process)));
        }
        // Not to be seen is not to be gone: it is gone once its owner has let go of it.
        let gone = match record.status {
            Status::Created => state.try_own(&id)?.is_some(),
            Status::Running => match state.own(&id) {
                Err(error) if state.is_there(&id) => return Err(error),
                _ => true,
            },
            // Its `run` waits with starting it again, and has been told that it need not.
            Status::Restarting => patience.is_some() && state.try_own(&id)?.is_some(),
            Status::Exited => true,
        };
        if gone {
            return Ok(None);
        }
        if patience.is_some_and(|patience| start.elapsed() > patience) {
            bail!(
                "container {word} is about to start, and was so for {} s: something holds up {}; end that, or remove the container: tiny-docker rm -f {word}",
                start.elapsed().as_secs(),
                record.owner.map_or("its `run`".into(), |run| format!("its `run`, process {}", run.pid))
            );
        }
        sleep(pause);
        pause = (pause * 2).min(A_MOMENT * 10);
    }
}
// ANCHOR_END: running

/// What the life of a container exited with that `record` is of, and that has ended, if the
/// container is started again: then nobody lets go of it. `None`: it is not.
fn before_the_next_life(state: &State, record: &Record) -> Result<Option<u8>> {
    let since = Instant::now();
    while since.elapsed() < PATIENCE {
        let Ok(now) = state.read(&record.id) else { break };
        match now.status {
            Status::Restarting => return Ok(now.exit_code),
            // That is the next one already.
            Status::Running if (now.pid, now.start_time) != (record.pid, record.start_time) => {
                return Ok(now.last_exit_code);
            }
            // Its end is about to be written down, or nobody is left who could.
            Status::Running if state.try_own(&record.id)?.is_none() => sleep(A_MOMENT),
            _ => break,
        }
    }
    Ok(None)
}

/// Waits until a container that got its last signal has ended, and whoever runs
/// it has written that down.
fn recorded(state: &State, record: &Record, process: &Process) -> Result<()> {
    must_end(record.title(), process)?;
    match state.own(&record.id) {
        Ok(_owner) => {}
        // `run --rm` does not write it down.
        Err(_) if !state.is_there(&record.id) => return Ok(()),
        Err(error) => return Err(error),
    }
    state.settle(record.clone()).map(drop)
}
