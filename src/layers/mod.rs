//! Day 11: layers. *Can containers share what they do not change?*
//!
//! Several directories of the host become one `/`, and what a container writes goes into a
//! layer of its own: the directories stay as they are, and a hundred containers share them.
//!
//! ```text
//!   /  in the container     the overlay: of each name, the uppermost is seen
//!   ├── upper               <root>/containers/<id>/layer/upper, which alone is written
//!   ├── --layer             one directory
//!   └── --layer             another, below it
//! ```

pub mod copy;
pub mod cp;
pub mod diff;
pub mod entry;
pub mod first_use;
pub mod inside;
pub mod lower;
pub mod mount_flag;
pub mod new_file;
pub mod overlay;
pub mod pack;
pub mod sparse;
pub mod streams;
pub mod tree;
pub mod unmount;
pub mod unpack;
pub mod volume;
pub mod volume_command;
pub mod volume_store;

use std::fs::File;
use std::path::PathBuf;

use anyhow::Context;
use nix::unistd::Pid;

use crate::container::{Container, Mechanism};
use crate::error::Result;
use crate::rootfs::devices;

const DAY: u8 = 11;

/// The flags of day 11 that say what the file system is.
#[derive(Debug, clap::Args)]
pub struct Layers {
    /// A directory that is a layer of the container's /, the lowest last; the container
    /// writes into a layer of its own, above them
    #[arg(long = "layer", value_name = "DIR", group = "own_root")]
    layers: Vec<PathBuf>,

    /// The container's mounts, which are not to go with its last process.
    #[arg(skip)]
    mounts: Option<File>,
}

// ANCHOR: mechanism
impl Mechanism for Layers {
    fn prepare(&mut self, container: &mut Container) -> Result<()> {
        if !self.layers.is_empty() {
            container.plan.layers = lower::find_layers(&self.layers)?;
        }
        // Of these flags, or of an image. (day 12)
        if !container.plan.layers.is_empty() {
            container.parts.console = devices::open_console()?;
        }
        Ok(())
    }

    fn attach(&mut self, container: &mut Container, child: Pid) -> Result<()> {
        if let (false, Some(dir)) = (container.plan.layers.is_empty(), &container.parts.dir) {
            self.mounts = unmount::keep(child, dir);
        }
        Ok(())
    }

    // Day 3 then changes to it. An overlay can be made only of mounts of the caller's own
    // namespace: so here, and not in `prepare`.
    fn enter(&mut self, container: &mut Container) -> Result<()> {
        let layers = &container.plan.layers;
        // From day 17 on somebody else may have made it.
        if !layers.is_empty() && container.parts.root.is_none() {
            let dir = container.parts.dir.as_deref().context("the container has no directory")?;
            container.parts.root = Some(overlay::build(layers, dir)?);
        }
        Ok(())
    }

    fn cleanup(&mut self, _container: &mut Container) -> Result<()> {
        if let Some(mounts) = self.mounts.take() {
            unmount::let_go(mounts);
        }
        Ok(())
    }
}
// ANCHOR_END: mechanism
