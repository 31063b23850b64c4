//! Day 12: to a registry.

use anyhow::bail;

use crate::error::Result;
use crate::metadata::state::State;

/// Upload an image to a registry
#[derive(Debug, clap::Args)]
pub struct Push {
    #[command(flatten)]
    state: State,
}

impl Push {
    /// Returns the exit code.
    pub fn execute(self) -> Result<u8> {
        bail!("{:?}: this comes next", self.state.path())
    }
}
