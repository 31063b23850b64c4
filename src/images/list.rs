//! Day 12: what is in the store.

use anyhow::bail;

use crate::error::Result;
use crate::metadata::state::State;

/// List images
#[derive(Debug, clap::Args)]
pub struct Images {
    #[command(flatten)]
    state: State,
}

impl Images {
    /// Returns the exit code.
    pub fn execute(self) -> Result<u8> {
        bail!("{:?}: this comes next", self.state.path())
    }
}

/// Remove images
#[derive(Debug, clap::Args)]
pub struct Rmi {
    #[command(flatten)]
    state: State,
}

impl Rmi {
    /// Returns the exit code.
    pub fn execute(self) -> Result<u8> {
        bail!("{:?}: this comes next", self.state.path())
    }
}

/// Give an image another name
#[derive(Debug, clap::Args)]
pub struct Tag {
    #[command(flatten)]
    state: State,
}

impl Tag {
    /// Returns the exit code.
    pub fn execute(self) -> Result<u8> {
        bail!("{:?}: this comes next", self.state.path())
    }
}

/// Show how an image was made
#[derive(Debug, clap::Args)]
pub struct History {
    #[command(flatten)]
    state: State,
}

impl History {
    /// Returns the exit code.
    pub fn execute(self) -> Result<u8> {
        bail!("{:?}: this comes next", self.state.path())
    }
}

/// Manage images
#[derive(Debug, clap::Args)]
pub struct ImageCommand {
    #[command(flatten)]
    state: State,
}

impl ImageCommand {
    /// Returns the exit code.
    pub fn execute(self) -> Result<u8> {
        bail!("{:?}: this comes next", self.state.path())
    }
}
