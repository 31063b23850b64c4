//! Day 11: layers. *Can containers share what they do not change?*
//!
//! Several directories of the host become one `/`, and what a container writes goes into a
//! layer of its own: the directories stay as they are, and a hundred containers share them.

pub mod overlay;

use std::path::PathBuf;

use crate::container::{Container, Mechanism};
use crate::error::Result;
use crate::rootfs::devices;

use self::overlay::find_layers;

/// The flags of day 11.
#[derive(Debug, clap::Args)]
pub struct Layers {
    /// A directory that is a layer of the container's /, the lowest last; the container
    /// writes into a layer of its own
    #[arg(long = "layer", value_name = "DIR", group = "own_root")]
    layers: Vec<PathBuf>,
}

impl Mechanism for Layers {
    fn prepare(&mut self, container: &mut Container) -> Result<()> {
        if !self.layers.is_empty() {
            container.plan.layers = find_layers(&self.layers)?;
            container.parts.console = devices::open_console()?;
        }
        Ok(())
    }

    fn enter(&mut self, container: &mut Container) -> Result<()> {
        let Some(dir) = container.parts.dir.as_deref().filter(|_| !container.plan.layers.is_empty()) else {
            return Ok(());
        };
        container.parts.root = Some(overlay::build(&container.plan.layers, dir)?);
        Ok(())
    }
}
