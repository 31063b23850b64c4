//! Day 14: supervision. *Can it look after itself?*
//!
//! What is done with a container while it runs: it is held up and goes on ([`pause`]), its
//! processes are shown ([`top`]), its limits and its name are changed ([`update`], [`rename`]),
//! and whoever wants to know what happens to it is told ([`events`]). And what becomes of it when
//! it has ended: it is started again ([`restart`]), by systemd if somebody prefers that
//! ([`systemd`]). Its log is kept within bounds meanwhile ([`rotate`], [`log_files`]).

pub mod attach;
pub mod commit;
pub mod events;
pub mod filter;
pub mod health;
pub mod hold;
pub mod log_files;
pub mod pause;
pub mod policy;
pub mod probe;
pub mod process;
pub mod rename;
pub mod restart;
pub mod rotate;
pub mod seen;
pub mod systemd;
pub mod top;
pub mod update;

use std::time::{Duration, Instant};

use anyhow::bail;
use nix::unistd::Pid;

use crate::container::{Container, Mechanism};
use crate::error::{RUNTIME_ERROR, Result};
use crate::kernel::{self, ENDING};
use crate::metadata::by_person;
use crate::metadata::read::known;
use crate::metadata::turn::changed;
use crate::plan::Restart;
use crate::wait::Arrived;

use self::policy::is_started_again;
use self::restart::Streams;

const DAY: u8 = 14;

/// The flags of day 14 that say what becomes of a container which has ended.
#[derive(Debug, clap::Args)]
pub struct Supervision {
    /// When to start it again once it has ended: no, on-failure[:N], always, unless-stopped
    #[arg(long, value_name = "POLICY", value_parser = policy::parse)]
    restart: Option<Restart>,

    /// What the next life needs of this process, if it is in the foreground.
    #[arg(skip)]
    streams: Option<Streams>,

    /// Whether it has run before, and this process starts it again.
    #[arg(skip)]
    again: bool,

    /// When it began to run.
    #[arg(skip)]
    since: Option<Instant>,

    /// Whether systemd starts it again, and this process never does.
    #[arg(skip)]
    left_to_systemd: bool,

    /// Whether this process has got a signal that tells it to end.
    #[arg(skip)]
    told_to_end: bool,
}

impl Supervision {
    /// Keeps this process's streams in `streams`, if there may be another life that needs them.
    pub fn keep_streams(&mut self, streams: Streams) {
        self.streams = Some(streams);
    }

    /// This process starts the container again: one that cannot start now has failed, and is
    /// tried again.
    pub fn starts_again(&mut self) {
        self.again = true;
    }

    /// The container is systemd's to start again, whatever its policy.
    pub fn leave_to_systemd(&mut self) {
        self.left_to_systemd = true;
    }

    // ANCHOR: again
    /// Whether the container, which has ended, is to be started again, and then for how long it
    /// has run.
    fn again(&self, container: &Container) -> Result<Option<Duration>> {
        if self.left_to_systemd {
            return Ok(None);
        }
        let exit_code = match container.end.exit {
            Some((_, code)) => code,
            None if self.again => RUNTIME_ERROR,
            // It never ran: what was wrong was said.
            None => return Ok(None),
        };
        let Some(dir) = &container.parts.dir else { return Ok(None) };
        // Most have no policy, and nobody gave them one meanwhile: there is nothing to read.
        if container.plan.restart.is_no() && changed(dir)?.is_none() {
            return Ok(None);
        }
        let Some(record) = known(dir)?.filter(|record| !record.plan.restart.is_no()) else { return Ok(None) };
        let by_person = self.told_to_end || kernel::was_told_to_end() || by_person::is_noted(dir);
        let again = is_started_again(record.plan.restart, exit_code, record.restarts, by_person);
        Ok(again.then(|| self.since.map_or(Duration::ZERO, |since| since.elapsed())))
    }
    // ANCHOR_END: again
}

// ANCHOR: mechanism
impl Mechanism for Supervision {
    fn prepare(&mut self, container: &mut Container) -> Result<()> {
        let plan = &mut container.plan;
        plan.restart = self.restart.unwrap_or(plan.restart);
        if plan.restart.is_no() {
            return Ok(());
        }
        if plan.auto_remove {
            bail!(
                "conflicting options: cannot specify both --restart and --rm, which forgets the container at \
                 its end; omit one"
            );
        }
        self.streams.as_ref().filter(|_| !container.parts.only_made).map_or(Ok(()), Streams::keep)
    }

    fn started(&mut self, _container: &mut Container, _child: Pid) -> Result<()> {
        self.since = Some(Instant::now());
        Ok(())
    }

    fn signalled(&mut self, _child: Pid, arrived: Arrived) -> Result<bool> {
        self.told_to_end |= ENDING.iter().any(|signal| *signal as i32 == arrived.signal);
        Ok(false)
    }

    fn cleanup(&mut self, container: &mut Container) -> Result<()> {
        container.end.again = self.again(container)?;
        Ok(())
    }
}
// ANCHOR_END: mechanism
