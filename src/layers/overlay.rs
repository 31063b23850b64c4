//! Day 11: the overlay, in which several directories are one. (kernel: filesystems/overlayfs)

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::error::Result;

/// The directories `dirs` as absolute paths without links.
pub fn find_layers(dirs: &[PathBuf]) -> Result<Vec<PathBuf>> {
    dirs.iter().map(|dir| std::fs::canonicalize(dir).with_context(|| format!("--layer {dir:?}"))).collect()
}

/// Child: an overlay of `layers`, the uppermost first, with a writable layer in `dir`, the
/// container's directory, on top. It is a mount that is attached nowhere yet.
pub fn build(layers: &[PathBuf], dir: &Path) -> Result<OwnedFd> {
    bail!("{} layers, and one in {dir:?}: the overlay is being written", layers.len())
}
