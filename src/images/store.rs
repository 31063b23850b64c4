//! Day 12: the store: an OCI image layout on this machine's disk, which other tools read too.
//!
//! ```text
//! <root>/images/oci-layout             {"imageLayoutVersion": "1.0.0"}
//!              /index.json             what each name means; written beside, and renamed
//!              /blobs/sha256/<hex>     whole and verified: nothing else has such a name
//!              /layers/<diff_id hex>/  layers, unpacked: whole, or not there
//!                      <hex>.size      how much that is, in bytes
//!              /partial/<hex>          what is still coming; locked by whoever loads it
//!              /aside/<hex>            what is being unpacked, or removed
//!              /unflushed/             what may not be on the disk yet: see `unflushed`
//!              /lock                   shared by all who add, alone for whoever removes
//!              /index.lock             held by whoever changes index.json
//! ```
//!
//! Three rules keep it true. A file gets its name only once its digest has been verified, and a
//! layer only once it is whole: by rename(2), which happens or does not. Whoever adds something
//! holds the store until a name leads to it, and nobody removes meanwhile. And after a power cut
//! what had not reached the disk is verified again, or removed.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::error::Result;
use crate::images::aside::Aside;
use crate::images::digest::Digest;
use crate::images::partial::{self, Partial};
use crate::images::place::{self, replace};
use crate::images::reference::Reference;
use crate::images::spec::{self, Config, Descriptor, LONGEST, Manifest};
use crate::images::unflushed;
use crate::metadata::layout::{make_private, open_to_lock};
use crate::metadata::state::State;
use crate::wait::{PATIENCE, lock};

/// What says that this is an OCI image layout. (OCI image-spec, image-layout.md)
const LAYOUT: &[u8] = br#"{"imageLayoutVersion": "1.0.0"}"#;

/// The store.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
}

/// While this lives, nobody removes from the store. At its end, what was added is on its way to
/// the disk.
#[derive(Debug)]
pub struct Hold {
    _lock: File,
    store: PathBuf,
}

impl Drop for Hold {
    fn drop(&mut self) {
        unflushed::flush_soon(&self.store);
    }
}

/// An image of the store.
#[derive(Debug, Clone)]
pub struct Image {
    /// What its manifest is called.
    pub descriptor: Descriptor,
    /// Its manifest.
    pub manifest: Manifest,
    /// Its configuration.
    pub config: Config,
}

impl Image {
    /// By what people know it: the digest of its configuration, as Docker has it.
    pub fn id(&self) -> &Digest {
        &self.manifest.config.digest
    }
}

impl Store {
    // ANCHOR: open
    /// The store in the state directory, made if need be.
    pub fn open(state: &State) -> Result<Store> {
        make_private(state.path())?;
        let dir = fs::canonicalize(state.path()).with_context(|| format!("look at {:?}", state.path()))?;
        let store = Store { dir: dir.join("images") };
        for part in ["", "blobs/sha256", "layers", "partial", "aside", "unflushed"] {
            make_private(&store.dir.join(part))?;
        }
        store.call_it_a_layout()?;
        unflushed::verify_after_a_power_cut(&store.dir, || store.forget_what_is_not_whole())?;
        Ok(store)
    }
    // ANCHOR_END: open

    /// Other tools look for this. Of a file that nothing has flushed, a power cut may leave the name
    /// alone.
    fn call_it_a_layout(&self) -> Result<()> {
        let layout = self.dir.join("oci-layout");
        let is_one = || fs::metadata(&layout).is_ok_and(|found| found.len() > 0);
        if is_one() {
            return Ok(());
        }
        let held = File::open(&self.dir).with_context(|| format!("open {:?}", self.dir))?;
        lock(&held, false, Some(PATIENCE), "the image store, which another process makes,")?;
        if is_one() { Ok(()) } else { replace(&layout, LAYOUT) }
    }

    /// Where it is: an absolute path.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Keeps everybody from removing anything: whoever adds an image has this from its first
    /// look at what is there to its tag, and a run from its look at an image to its record.
    pub fn hold(&self) -> Result<Hold> {
        let path = self.dir.join("lock");
        let opened = open_to_lock(&path).with_context(|| format!("open {path:?}"))?;
        lock(&opened, true, None, "the image store, from which another process removes images")?;
        Ok(Hold { _lock: opened, store: self.dir.clone() })
    }

    /// The path of the file `digest`, whether it is there or not.
    pub fn dir_of_blob(&self, digest: &Digest) -> PathBuf {
        place::blob(&self.dir, digest)
    }

    /// Is the file there, whole? One look at its length; its digest was verified when it came.
    pub fn has(&self, file: &Descriptor) -> Result<bool> {
        let path = self.dir_of_blob(&file.digest);
        match fs::metadata(&path) {
            Ok(found) if found.len() == file.size => Ok(true),
            Ok(found) => {
                // Either somebody has spoiled it, or whoever says how long it is lies.
                unflushed::verify_blob(&self.dir, &file.digest)?;
                if path.exists() {
                    bail!("{} has {} bytes, and a manifest says {}", file.digest, found.len(), file.size);
                }
                Ok(false)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).with_context(|| format!("look at {path:?}")),
        }
    }

    /// Are all files of this image there, whole?
    pub fn is_whole(&self, entry: &Descriptor) -> bool {
        let files = |image: Image| image.manifest.layers.iter().all(|file| self.has(file).unwrap_or(false));
        self.image(entry).is_ok_and(files)
    }

    /// The place for a file that is to come; it waits while another process loads the same
    /// one. `None`: it is there (meanwhile).
    pub fn blob_writer(&self, file: &Descriptor) -> Result<Option<Partial>> {
        if self.has(file)? {
            return Ok(None);
        }
        let partial = Partial::open(&self.dir, file)?;
        // Another process has brought it while we waited: what we have opened is an empty one.
        if self.has(file)? { partial.discard().map(|()| None) } else { Ok(Some(partial)) }
    }

    /// Puts a small file into the store: a manifest, a configuration.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        let file = Descriptor {
            media_type: String::new(),
            digest: digest.clone(),
            size: bytes.len() as u64,
            platform: None,
            annotations: Default::default(),
        };
        if let Some(mut partial) = self.blob_writer(&file)? {
            partial.restart()?;
            partial.write_all(bytes)?;
            partial.finish()?;
        }
        Ok(digest)
    }

    /// Gives the file `from`, which has been verified, its name.
    pub fn keep_blob(&self, from: &Path, digest: &Digest) -> Result<()> {
        partial::keep(&self.dir, from, digest)
    }

    /// Opens the file `digest`.
    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        File::open(self.dir_of_blob(digest)).with_context(|| {
            format!("the file {digest} of an image is not in the store; pull the image again")
        })
    }

    /// The file `digest`, which is a manifest, an index or a configuration: at most
    /// [`LONGEST`] bytes. It is so small that its digest is verified each time.
    pub fn read(&self, digest: &Digest) -> Result<Vec<u8>> {
        let mut bytes = vec![];
        self.open_blob(digest)?.take(LONGEST + 1).read_to_end(&mut bytes).context("read from the store")?;
        if bytes.len() as u64 > LONGEST {
            bail!(
                "the file {digest} of an image has more than {LONGEST} bytes; expected a manifest or a configuration"
            );
        }
        let found = Digest::of(&bytes);
        if found != *digest {
            bail!(
                "{:?} is damaged: its digest is {found}; remove it, and pull the image again",
                self.dir_of_blob(digest)
            );
        }
        Ok(bytes)
    }

    /// What `name` means: by its digest if it has one, else by its tag. `None`: nothing here.
    pub fn find(&self, name: &Reference) -> Result<Option<Descriptor>> {
        let index = self.index()?;
        let by_name =
            || index.manifests.iter().find(|found| found.annotations.get(spec::REF_NAME) == Some(&key(name)));
        let found = by_name()
            .or_else(|| index.manifests.iter().find(|found| Some(&found.digest) == name.digest.as_ref()));
        Ok(found.cloned())
    }

    /// The image with this manifest.
    pub fn image(&self, manifest: &Descriptor) -> Result<Image> {
        let descriptor = manifest.clone();
        let manifest: Manifest = spec::parse(&self.read(&descriptor.digest)?, "a manifest")?;
        let config: Config = spec::parse(&self.read(&manifest.config.digest)?, "an image's configuration")?;
        if manifest.layers.len() != config.rootfs.diff_ids.len() {
            bail!(
                "the image {} has {} layers, and its configuration speaks of {}; it is damaged: do not use it",
                descriptor.digest,
                manifest.layers.len(),
                config.rootfs.diff_ids.len()
            );
        }
        Ok(Image { descriptor, manifest, config })
    }

    /// The path of an unpacked layer, whether it is there or not.
    pub fn dir_of_layer(&self, diff_id: &Digest) -> PathBuf {
        place::layer(&self.dir, diff_id)
    }

    /// The directory of an unpacked layer, if it is there; whole, then.
    pub fn layer(&self, diff_id: &Digest) -> Result<Option<PathBuf>> {
        let dir = self.dir_of_layer(diff_id);
        let is_there = dir.try_exists().with_context(|| format!("look at {dir:?}"))?;
        Ok(is_there.then_some(dir))
    }

    /// A place to unpack a layer, aside; it waits while another process unpacks the same one.
    /// `None`: it is there (meanwhile).
    pub fn layer_aside(&self, diff_id: &Digest) -> Result<Option<Aside>> {
        if self.layer(diff_id)?.is_some() {
            return Ok(None);
        }
        let aside = Aside::make(&place::aside(&self.dir), diff_id.hex())?;
        Ok(if self.layer(diff_id)?.is_some() { None } else { Some(aside) })
    }

    /// Gives a layer that has been unpacked, and verified, its name. It takes `size` bytes.
    pub fn keep_layer(&self, aside: Aside, diff_id: &Digest, size: u64) -> Result<PathBuf> {
        let to = self.dir_of_layer(diff_id);
        replace(&to.with_extension("size"), size.to_string().as_bytes())?;
        // What is written after the note may miss the flush that takes the note away.
        unflushed::note(&self.dir, "layer", diff_id)?;
        aside.move_to(&to)?;
        Ok(to)
    }

    /// How many bytes are in the files of an unpacked layer; `None`: it is not there.
    pub fn size_of_layer(&self, diff_id: &Digest) -> Option<u64> {
        fs::read_to_string(self.dir_of_layer(diff_id).with_extension("size")).ok()?.parse().ok()
    }
}

/// What a name is called in index.json: `docker.io/library/alpine:latest`. A digest alone says
/// which image is meant, so a tag beside it says nothing.
pub fn key(name: &Reference) -> String {
    match &name.digest {
        Some(digest) => format!("{}/{}@{digest}", name.registry, name.repository),
        None => name.to_string(),
    }
}
