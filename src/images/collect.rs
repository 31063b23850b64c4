//! Day 12: what nobody needs any more is removed.
//!
//! Needed is what a name leads to: manifests, and what they name. And needed is what a container
//! has its root from, whether its image still has a name or not.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::fs::CWD;

use crate::error::Result;
use crate::images::aside::Aside;
use crate::images::digest::Digest;
use crate::images::place;
use crate::images::remove::remove_tree;
use crate::images::spec::{self, Config, Descriptor, Index, Manifest};
use crate::images::store::Store;
use crate::metadata::layout::open_to_lock;
use crate::metadata::state::State;

/// What was removed.
#[derive(Debug, Default)]
pub struct Collected {
    /// Layers, by what they are unpacked.
    pub layers: Vec<Digest>,
    /// How many bytes are free again.
    pub bytes: u64,
}

/// What is needed.
#[derive(Debug, Default)]
struct Needed {
    blobs: BTreeSet<String>,
    layers: BTreeSet<String>,
}

// ANCHOR: collect
/// Removes the files and the layers that nobody needs; with `partial`, also files that have not
/// come to their end. `None`: somebody adds something at this moment, and may need what nothing
/// leads to yet; then the next one who collects removes it.
pub fn collect(store: &Store, state: &State, partial: bool) -> Result<Option<Collected>> {
    // ANCHOR: day12_task2_collect_solution
    let path = store.dir().join("lock");
    let alone = open_to_lock(&path).with_context(|| format!("open {path:?}"))?;
    if alone.try_lock().is_err() {
        return Ok(None);
    }
    let needed = needed(store, state)?;
    let (mut collected, aside) = (Collected::default(), place::aside(store.dir()));
    for blob in unneeded(&store.dir().join("blobs/sha256"), &needed.blobs)? {
        collected.bytes += fs::metadata(&blob).map_or(0, |found| found.len());
        fs::remove_file(&blob).with_context(|| format!("remove {blob:?}"))?;
    }
    for layer in unneeded(&store.dir().join("layers"), &needed.layers)? {
        if let Some(diff_id) = digest_of(&layer) {
            collected.bytes += store.size_of_layer(&diff_id).unwrap_or(0);
            collected.layers.push(diff_id);
        }
        Aside::remove(&aside, &layer)?;
    }
    Aside::sweep(&aside)?;
    if partial {
        for path in unneeded(&store.dir().join("partial"), &BTreeSet::new())? {
            if File::open(&path).is_ok_and(|file| file.try_lock().is_ok()) {
                collected.bytes += fs::metadata(&path).map_or(0, |found| found.len());
                fs::remove_file(&path).with_context(|| format!("remove {path:?}"))?;
            }
        }
    }
    Ok(Some(collected))
    // ANCHOR_END: day12_task2_collect_solution
}
// ANCHOR_END: collect

/// Whatever cannot be read may need anything: then nothing is removed.
fn needed(store: &Store, state: &State) -> Result<Needed> {
    let mut needed = Needed::default();
    for entry in store.index()?.manifests {
        need(store, &entry, &mut needed)?;
    }
    let listing = state.list()?;
    for layer in listing.records.iter().flat_map(|record| &record.plan.layers) {
        if let Some(name) = layer.file_name() {
            needed.layers.insert(name.to_string_lossy().into_owned());
        }
    }
    Ok(needed)
}

fn need(store: &Store, entry: &Descriptor, needed: &mut Needed) -> Result<()> {
    if !needed.blobs.insert(entry.digest.hex().into()) {
        return Ok(());
    }
    let bytes = store.read(&entry.digest)?;
    if entry.is_index() {
        // Of other platforms nothing may have come.
        for entry in spec::parse::<Index>(&bytes, "an index")?.manifests {
            if store.dir_of_blob(&entry.digest).exists() {
                need(store, &entry, needed)?;
            }
        }
        return Ok(());
    }
    let manifest: Manifest = spec::parse(&bytes, "a manifest")?;
    let files = [&manifest.config].into_iter().chain(&manifest.layers);
    needed.blobs.extend(files.map(|file| file.digest.hex().to_string()));
    let config: Config = spec::parse(&store.read(&manifest.config.digest)?, "an image's configuration")?;
    needed.layers.extend(config.rootfs.diff_ids.iter().map(|diff_id| diff_id.hex().to_string()));
    Ok(())
}

/// What is in `dir` under a name that is not in `needed`; the size of a layer goes with it.
fn unneeded(dir: &Path, needed: &BTreeSet<String>) -> Result<Vec<PathBuf>> {
    let mut found = vec![];
    for entry in fs::read_dir(dir).with_context(|| format!("read {dir:?}"))? {
        let path = entry.with_context(|| format!("read {dir:?}"))?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if needed.contains(&name) {
            continue;
        }
        if path.extension().is_some() {
            let _ = remove_tree(CWD, &path);
            continue;
        }
        found.push(path);
    }
    Ok(found)
}

fn digest_of(path: &Path) -> Option<Digest> {
    format!("sha256:{}", path.file_name()?.to_str()?).parse().ok()
}
