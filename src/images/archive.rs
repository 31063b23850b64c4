//! Day 12: images as files: for a room without a network.

use anyhow::bail;

use crate::error::Result;
use crate::metadata::state::State;

/// Write images to a tar archive
#[derive(Debug, clap::Args)]
pub struct Save {
    #[command(flatten)]
    state: State,
}

impl Save {
    /// Returns the exit code.
    pub fn execute(self) -> Result<u8> {
        bail!("{:?}: this comes next", self.state.path())
    }
}

/// Read images from a tar archive
#[derive(Debug, clap::Args)]
pub struct Load {
    #[command(flatten)]
    state: State,
}

impl Load {
    /// Returns the exit code.
    pub fn execute(self) -> Result<u8> {
        bail!("{:?}: this comes next", self.state.path())
    }
}
