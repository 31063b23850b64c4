//! Day 14: the commands that are about a container which runs.

use clap::Subcommand;

use crate::error::Result;
use crate::supervise::attach::Attach;
use crate::supervise::events::Events;
use crate::supervise::pause::{Pause, Unpause};
use crate::supervise::rename::Rename;
use crate::supervise::top::Top;
use crate::supervise::update::Update;

use super::ExecCommand;

// Deferred as all others are: see `Command`.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub enum RunningCommand {
    Attach(Attach),
    Exec(Box<ExecCommand>),
    Pause(Pause),
    Unpause(Unpause),
    Top(Top),
    Update(Update),
    Rename(Rename),
    Systemd(crate::supervise::systemd::Systemd),
    Events(Events),
}

impl RunningCommand {
    /// Does what was typed. Returns the exit code.
    pub fn execute(self) -> Result<u8> {
        match self {
            RunningCommand::Attach(attach) => attach.execute(),
            RunningCommand::Exec(exec) => exec.execute(),
            RunningCommand::Pause(pause) => pause.execute(),
            RunningCommand::Unpause(unpause) => unpause.execute(),
            RunningCommand::Top(top) => top.execute(),
            RunningCommand::Update(update) => update.execute(),
            RunningCommand::Rename(rename) => rename.execute(),
            RunningCommand::Systemd(systemd) => systemd.execute(),
            RunningCommand::Events(events) => events.execute(),
        }
    }
}
