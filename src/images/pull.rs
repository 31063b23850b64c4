//! Day 12: from a registry.

use anyhow::bail;

use crate::error::Result;
use crate::metadata::state::State;

/// Download an image from a registry
#[derive(Debug, clap::Args)]
pub struct Pull {
    #[command(flatten)]
    state: State,
}

impl Pull {
    /// Returns the exit code.
    pub fn execute(self) -> Result<u8> {
        bail!("{:?}: this comes next", self.state.path())
    }
}
