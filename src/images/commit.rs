//! Day 12: a container becomes an image.

use anyhow::bail;

use crate::error::Result;
use crate::metadata::state::State;

/// Make an image of what a container wrote
#[derive(Debug, clap::Args)]
pub struct Commit {
    #[command(flatten)]
    state: State,
}

impl Commit {
    /// Returns the exit code.
    pub fn execute(self) -> Result<u8> {
        bail!("{:?}: this comes next", self.state.path())
    }
}
