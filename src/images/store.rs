//! Day 12: the store: an OCI image layout on this machine's disk, which other tools read too.
//!
//! ```text
//! <root>/images/oci-layout             {"imageLayoutVersion": "1.0.0"}
//!              /index.json             what each name means; written beside, and renamed
//!              /blobs/sha256/<hex>     whole and verified: nothing else has such a name
//!              /partial/<hex>          what is still coming; locked by whoever loads it
//!              /layers/<diff_id hex>/  layers, unpacked: whole, or not there
//!              /lock                   shared by all who add, alone for whoever removes
//! ```

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::bail;

use crate::error::Result;
use crate::images::digest::Digest;
use crate::images::reference::Reference;
use crate::images::spec::{Config, Descriptor, Manifest};
use crate::metadata::state::State;

/// The store.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
}

/// While this lives, nobody removes from the store.
#[derive(Debug)]
pub struct Hold {
    _lock: File,
}

/// A file that is still coming. Dropped, it stays for the next who wants it.
#[derive(Debug)]
pub struct Partial {}

/// An image of the store.
#[derive(Debug)]
pub struct Image {
    /// What its manifest is called.
    pub descriptor: Descriptor,
    /// Its manifest.
    pub manifest: Manifest,
    /// Its configuration.
    pub config: Config,
}

impl Store {
    /// The store in the state directory, made if need be.
    pub fn open(state: &State) -> Result<Store> {
        let dir = state.path().join("images");
        bail!("{dir:?}: the store comes next")
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Keeps everybody from removing anything: whoever adds an image has this from its first
    /// look at what is there to its tag.
    pub fn hold(&self) -> Result<Hold> {
        bail!("the store comes next")
    }

    /// Is the file there, whole? One look at its length; its digest was verified when it came.
    pub fn has(&self, file: &Descriptor) -> Result<bool> {
        bail!("{}: the store comes next", file.digest)
    }

    /// The place for a file that is to come; it waits while another process loads the same
    /// one. `None`: it is there (meanwhile).
    pub fn blob_writer(&self, file: &Descriptor) -> Result<Option<Partial>> {
        bail!("{}: the store comes next", file.digest)
    }

    /// Puts a small file into the store: a manifest, a configuration.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest> {
        bail!("{}: the store comes next", bytes.len())
    }

    /// Opens the file `digest`.
    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        bail!("{digest}: the store comes next")
    }

    /// The file `digest`, which is a manifest, an index or a configuration: at most
    /// [`crate::images::spec::LONGEST`] bytes.
    pub fn read(&self, digest: &Digest) -> Result<Vec<u8>> {
        bail!("{digest}: the store comes next")
    }

    /// From here on, `name` means this manifest.
    pub fn tag(&self, name: &Reference, manifest: &Descriptor) -> Result<()> {
        bail!("{name}, {}: the store comes next", manifest.digest)
    }

    /// What `name` means: by its digest if it has one, else by its tag. `None`: nothing here.
    pub fn find(&self, name: &Reference) -> Result<Option<Descriptor>> {
        bail!("{name}: the store comes next")
    }

    /// The image with this manifest.
    pub fn image(&self, manifest: &Descriptor) -> Result<Image> {
        bail!("{}: the store comes next", manifest.digest)
    }

    /// The directory of an unpacked layer, if it is there; whole, then.
    pub fn layer(&self, diff_id: &Digest) -> Result<Option<PathBuf>> {
        bail!("{diff_id}: the store comes next")
    }
}

impl Partial {
    /// How much of it is there, in bytes.
    pub fn length(&self) -> u64 {
        0
    }

    /// What comes next. An error if that is more than the descriptor says.
    pub fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        bail!("{}: the store comes next", bytes.len())
    }

    /// From the beginning: nothing of what is there counts.
    pub fn restart(&mut self) -> Result<()> {
        bail!("the store comes next")
    }

    /// Verifies length and digest, and gives it its name. If they do not match, it is removed.
    pub fn finish(self) -> Result<()> {
        bail!("the store comes next")
    }
}
