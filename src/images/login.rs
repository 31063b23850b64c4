//! Day 12: who you are to a registry.

use anyhow::bail;

use crate::error::Result;
use crate::metadata::state::State;

/// Log in to a registry
#[derive(Debug, clap::Args)]
pub struct Login {
    #[command(flatten)]
    state: State,
}

impl Login {
    /// Returns the exit code.
    pub fn execute(self) -> Result<u8> {
        bail!("{:?}: this comes next", self.state.path())
    }
}

/// Log out from a registry
#[derive(Debug, clap::Args)]
pub struct Logout {
    #[command(flatten)]
    state: State,
}

impl Logout {
    /// Returns the exit code.
    pub fn execute(self) -> Result<u8> {
        bail!("{:?}: this comes next", self.state.path())
    }
}
