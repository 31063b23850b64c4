//! Day 14: `commit`, as day 12 has it, of a container that is held up meanwhile.

use std::time::Duration;

use clap::ArgAction;

use crate::error::{self, Result, failed};
use crate::images::commit::Commit;
use crate::metadata::freezer::is_frozen;

use super::hold::Held;
use super::pause;

/// Make an image of what a container wrote
///
/// A container that runs is paused meanwhile, or the image may have a part of a file that it is
/// just writing.
#[derive(Debug, clap::Args)]
pub struct CommitPaused {
    #[command(flatten)]
    commit: Commit,

    /// Pause it meanwhile; --pause=false: do not
    #[arg(short, long, value_name = "BOOL", action = ArgAction::Set, default_value_t = true)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pause: bool,
}

impl CommitPaused {
    /// Prints the image's id. Returns the exit code.
    pub fn execute(self) -> Result<u8> {
        let held = if self.pause { self.hold().map_err(failed)? } else { None };
        let outcome = self.commit.execute();
        drop(held);
        outcome
    }

    /// Holds it up; `None`: it does not run, or somebody has paused it before and it stays so, or
    /// it cannot be held up, which is said.
    fn hold(&self) -> Result<Option<Held>> {
        let (state, word) = (self.commit.state(), self.commit.container());
        let record = state.find(word)?;
        let Some(process) = record.process()? else { return Ok(None) };
        match pause::find(state, &record.id) {
            Ok((_, cgroup)) if is_frozen(&cgroup) => Ok(None),
            Ok((_, cgroup)) => Held::new(&cgroup).map(Some),
            Err(_) if process.has_ended(Some(Duration::ZERO))? => Ok(None),
            Err(error) => {
                error::say(format_args!("it goes on while the image is made: {error:#}"));
                Ok(None)
            }
        }
    }
}
