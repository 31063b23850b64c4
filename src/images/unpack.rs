//! Day 12: layers become directories.

use std::path::PathBuf;

use anyhow::bail;

use crate::error::Result;
use crate::images::digest::Digest;
use crate::images::spec::Descriptor;
use crate::images::store::Store;

/// Unpacks a layer whose file is in the store, if it is not there yet. Returns its directory.
///
/// It is called by several threads at once, so it starts this program anew
/// ([`UnpackLayer`]): a process with threads must not clone itself.
pub fn layer(_store: &Store, layer: &Descriptor, diff_id: &Digest) -> Result<PathBuf> {
    bail!("{}, {diff_id}: unpacking comes next", layer.digest)
}

/// Unpack a layer: a process of `pull`'s own
#[derive(Debug, clap::Args)]
pub struct UnpackLayer {}

impl UnpackLayer {
    /// Returns the exit code.
    pub fn execute(self) -> Result<u8> {
        bail!("unpacking comes next")
    }
}
