//! Day 12: blobs come into the store, several at once.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use anyhow::{anyhow, ensure};

use crate::error::Result;
use crate::explain::step;
use crate::images::DAY;
use crate::images::digest::Digest;
use crate::images::fetch;
use crate::images::parallel;
use crate::images::partial::Partial;
use crate::images::registry::Registry;
use crate::images::retry::{Tries, Trouble};
use crate::images::spec::Descriptor;
use crate::images::store::Store;
use crate::images::unpack;

/// How much is read and written at once, in bytes.
const PIECE: usize = 256 << 10;

/// Less than this, in bytes, is no progress: who sends a byte and hangs up could go on forever.
const PROGRESS: u64 = 64 << 10;

/// From where to where blobs are loaded.
#[derive(Clone, Copy)]
pub struct Download<'a> {
    /// From here,
    pub registry: &'a Registry,
    /// and there from this repository,
    pub repository: &'a str,
    /// to here.
    pub store: &'a Store,
}

/// A layer that is to be loaded and unpacked.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Its blob.
    pub blob: Descriptor,
    /// The digest of its archive.
    pub diff_id: Digest,
}

impl Layer {
    /// Its name for people.
    fn short(&self) -> &str {
        &self.blob.digest.hex()[..12]
    }
}

impl Download<'_> {
    /// Loads and unpacks `layers`, those that are not there. While one is unpacked, others
    /// come. What has come by the time that one fails stays for the next pull.
    pub fn layers(&self, layers: &[Layer]) -> Result<()> {
        parallel::each(layers, |layer, stop| self.layer(layer, stop))
    }

    fn layer(&self, layer: &Layer, stop: &AtomicBool) -> Result<()> {
        let (id, progress) = (layer.short(), &self.registry.progress);
        let there = self.store.has(&layer.blob)?;
        if there && self.store.layer(&layer.diff_id)?.is_some() {
            progress.say(&format!("{id}: Already exists"));
            return Ok(());
        }
        if !there {
            progress.part(id, "Pulling fs layer");
            progress.now(id, "Downloading", layer.blob.size);
            self.blob(&layer.blob, stop, &|length| progress.is_at(id, length))?;
            progress.part(id, "Download complete");
        }
        progress.now(id, "Extracting", 0);
        unpack::layer(self.store, &layer.blob, &layer.diff_id)?;
        progress.done(id, "Pull complete");
        Ok(())
    }

    // ANCHOR: blob
    /// Loads a blob, unless it is there. `tell` is told how much of it has come, in bytes.
    pub fn blob(&self, blob: &Descriptor, stop: &AtomicBool, tell: &dyn Fn(u64)) -> Result<()> {
        let Some(mut partial) = self.store.blob_writer(blob)? else { return Ok(()) };
        let resumed = partial.length() > 0;
        self.registry.again(|tries| self.go_on(&mut partial, blob, stop, tell, tries))?;
        match partial.finish() {
            // What was there from another time may be what is wrong.
            Err(_) if resumed => {
                let Some(mut partial) = self.store.blob_writer(blob)? else { return Ok(()) };
                partial.restart()?;
                self.registry.again(|tries| self.go_on(&mut partial, blob, stop, tell, tries))?;
                partial.finish()
            }
            finished => finished,
        }
    }

    /// Loads what is missing of a blob.
    fn go_on(
        &self,
        partial: &mut Partial,
        blob: &Descriptor,
        stop: &AtomicBool,
        tell: &dyn Fn(u64),
        tries: &mut Tries,
    ) -> std::result::Result<(), Trouble> {
        let begin = partial.length();
        if begin == blob.size {
            return Ok(());
        }
        let Download { registry, repository, .. } = *self;
        let url = registry.url(&format!("/v2/{repository}/blobs/{}", blob.digest))?;
        let describe = || (format!("GET {url}, from byte {begin}"), format!("curl -L -C {begin} -O {url}"));
        let mut opened = None;
        let _ = step(DAY, describe, || {
            opened = Some(fetch::blob(registry, repository, &blob.digest, begin));
            Ok::<_, anyhow::Error>(())
        });
        let (from, body) = opened.ok_or_else(|| anyhow!("nothing was sent"))??;
        if from != begin {
            partial.restart()?;
        }
        let outcome = self.receive(body, partial, blob, stop, tell);
        if partial.length().saturating_sub(begin) >= PROGRESS {
            tries.progress();
        }
        outcome
    }
    // ANCHOR_END: blob

    fn receive(
        &self,
        mut body: impl Read,
        partial: &mut Partial,
        blob: &Descriptor,
        stop: &AtomicBool,
        tell: &dyn Fn(u64),
    ) -> std::result::Result<(), Trouble> {
        let host = &self.registry.host;
        let mut piece = vec![0; PIECE];
        loop {
            tell(partial.length());
            if stop.load(Relaxed) {
                return Err(anyhow!("another layer failed").into());
            }
            let count = body.read(&mut piece).map_err(|error| Trouble::of(error.into(), host))?;
            if count == 0 {
                break;
            }
            let room = blob.size.saturating_sub(partial.length());
            if count as u64 > room {
                return Err(anyhow!(
                    "{host} sends more than the {} bytes that {} has; nothing of it was kept",
                    blob.size,
                    blob.digest
                )
                .into());
            }
            partial.write_all(&piece[..count])?;
        }
        let (there, size) = (partial.length(), blob.size);
        match there < size {
            true => Err(Trouble::broken(anyhow!("{host} hung up after {there} of {size} bytes"))),
            false => Ok(()),
        }
    }
}

/// What is to be loaded for these layers, each once: an image may have the same one twice.
pub fn pair(blobs: &[Descriptor], diff_ids: &[Digest]) -> Result<Vec<Layer>> {
    ensure!(
        blobs.len() == diff_ids.len(),
        "the image's manifest has {} layers and its configuration {}: it is broken; nothing of it was kept",
        blobs.len(),
        diff_ids.len()
    );
    let mut layers: Vec<Layer> = Vec::new();
    for (blob, diff_id) in blobs.iter().zip(diff_ids) {
        if !layers.iter().any(|layer| layer.blob.digest == blob.digest && layer.diff_id == *diff_id) {
            layers.push(Layer { blob: blob.clone(), diff_id: diff_id.clone() });
        }
    }
    Ok(layers)
}
