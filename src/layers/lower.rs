//! Day 11: the directories that are given as layers. They are only read.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::error::Result;

/// The kernel takes no more in one overlay. (fs/overlayfs, `OVL_MAX_STACK`)
const MOST: usize = 500;

// ANCHOR: find_layers
/// The directories `dirs`, the uppermost first, as absolute paths without links, if they can
/// be the layers of one root file system.
pub fn find_layers(dirs: &[PathBuf]) -> Result<Vec<PathBuf>> {
    // ANCHOR: day11_task1_find_layers_solution
    if dirs.len() > MOST {
        bail!("--layer: {} layers; expected at most {MOST}, for the kernel takes no more", dirs.len());
    }
    let layers = dirs.iter().map(|dir| find_layer(dir)).collect::<Result<Vec<_>>>()?;
    // The kernel refuses what follows too, and says only ELOOP. In this order, a directory
    // comes right before what lies in it.
    let mut sorted: Vec<&PathBuf> = layers.iter().collect();
    sorted.sort();
    for pair in sorted.windows(2) {
        match pair {
            [one, other] if one == other => bail!("--layer {one:?} is given twice; expected each layer once"),
            [outer, inner] if inner.starts_with(outer) => {
                bail!("--layer: {inner:?} lies in {outer:?}; expected layers of which none lies in another")
            }
            _ => {}
        }
    }
    Ok(layers)
    // ANCHOR_END: day11_task1_find_layers_solution
}
// ANCHOR_END: find_layers

fn find_layer(dir: &Path) -> Result<PathBuf> {
    let hint = "expected a directory that holds (a layer of) a root file system, such as rootfs/busybox";
    let layer = fs::canonicalize(dir).with_context(|| format!("--layer {dir:?}: {hint}"))?;
    let found = fs::metadata(&layer).with_context(|| format!("--layer {dir:?}"))?;
    if !found.is_dir() {
        bail!("--layer {dir:?} is not a directory; {hint}");
    }
    // By device and inode, for a bind mount gives / another path.
    let host = fs::metadata("/").context("look at /")?;
    if (found.dev(), found.ino()) == (host.dev(), host.ino()) {
        bail!("--layer {dir:?} is the host's own /; expected another directory");
    }
    Ok(layer)
}
