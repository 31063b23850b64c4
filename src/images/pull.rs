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

/// Downloads `name` into the store, for this machine, and unpacks its layers. Returns what its
/// manifest is called; all that was started for it has ended. (`run --image` calls this.)
pub fn pull(
    store: &crate::images::store::Store,
    name: &crate::images::reference::Reference,
) -> Result<crate::images::spec::Descriptor> {
    bail!("{name}, into {:?}: this comes next", store.dir())
}
