//! Day 14: a container runs more than once: somebody starts it, or the process that looks after
//! it starts it again.

use std::ffi::{OsStr, OsString};

use anyhow::bail;
use clap::{CommandFactory, FromArgMatches};

use crate::container::{self, Container};
use crate::error::{Result, failed};
use crate::exec::again::words;
use crate::exec::start::{Start, Way};
use crate::metadata::Keeper;
use crate::metadata::record::Record;
use crate::metadata::state::State;
use crate::plan::Plan;
use crate::supervise::attach::Attach;
use crate::supervise::restart::{self, Streams};
use crate::supervise::{rotate, systemd};

use super::{Cli, Command, Run};

impl Run {
    /// Runs the container, and then again as often as it is to be. Returns what its command
    /// exited with the last time.
    pub fn execute_and_look_after(mut self) -> Result<u8> {
        let lives = self.lives();
        let outcome = self.execute();
        lives.look_after(outcome)
    }

    /// Makes the container, and prints its id.
    pub fn create(self) -> Result<u8> {
        let mut container = Container::new(Plan::new(self.command.clone()));
        container.parts.only_made = true;
        container::run(container, &mut self.mechanisms())
    }

    /// Starts what somebody, or systemd, wants to have started. Returns the exit code.
    pub fn start(start: Start) -> Result<u8> {
        match start.for_systemd() {
            Some((state, word)) => {
                systemd::start(state, word, |record| Run::again(state, record, Way::BySystemd))
            }
            None => start.execute(Run::again, |state, word| Attach::to(state, word).execute()),
        }
    }

    /// Runs the container of `record` once more, as somebody has asked for.
    pub fn again(state: &State, record: Record, way: Way) -> Result<u8> {
        let mut run = Run::of(state, &record.plan, matches!(way, Way::InBackground(_)))?;
        let container = Container::new(record.plan.clone());
        run.metadata.again(record);
        match way {
            Way::InBackground(says) => run.logs.says(says),
            Way::InForeground => {}
            Way::BySystemd => run.supervision.leave_to_systemd(),
        }
        let lives = run.lives();
        let outcome = container::run(container, &mut run.mechanisms());
        lives.look_after(outcome).map_err(failed)
    }

    /// The run that makes a container of `plan`.
    fn of(state: &State, plan: &Plan, in_background: bool) -> Result<Box<Run>> {
        let before = [OsStr::new("tiny-docker"), "--root".as_ref(), state.path().as_os_str(), "run".as_ref()];
        let words = before.into_iter().map(OsString::from).chain(words(plan, in_background));
        let matches = Cli::command().try_get_matches_from(words)?;
        match Cli::from_arg_matches(&matches)?.command {
            Command::Run(run) => Ok(run),
            _ => bail!("the words of a run are another command's"),
        }
    }

    fn lives(&mut self) -> Lives {
        let in_background = self.logs.in_background();
        let lives = Lives { in_background, keeper: Keeper::default(), streams: Streams::default() };
        self.share(&lives);
        lives
    }

    fn share(&mut self, lives: &Lives) {
        *self.metadata.keeper() = lives.keeper.clone();
        self.logs.kept_by(rotate::open);
        if !lives.in_background {
            self.supervision.keep_streams(lives.streams.clone());
        }
    }
}

/// The lives of one container, and what passes from one to the next.
struct Lives {
    in_background: bool,
    keeper: Keeper,
    streams: Streams,
}

impl Lives {
    /// `outcome` is the first one's. Returns the last one's.
    fn look_after(&self, outcome: Result<u8>) -> Result<u8> {
        restart::look_after(outcome, &self.keeper, |state, record| self.one_more(state, record))
    }

    fn one_more(&self, state: &State, record: Record) -> Result<u8> {
        let mut run = Run::of(state, &record.plan, self.in_background)?;
        self.streams.put_back()?;
        self.share_with(&mut run);
        let container = Container::new(record.plan.clone());
        run.metadata.again(record);
        container::run_once_more(container, &mut run.mechanisms())
    }

    fn share_with(&self, run: &mut Run) {
        run.share(self);
        run.logs.stay();
        run.supervision.starts_again();
    }
}
