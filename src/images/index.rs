//! Day 12: index.json, the one file of the store that changes: what each name means.
//!
//! Each of its entries names a manifest, and carries a name in its annotations. A manifest whose
//! name has gone to another one stays without any, until somebody prunes. (OCI image-spec,
//! image-layout.md)

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::error::{Result, io_kind};
use crate::images::digest::Digest;
use crate::images::place::replace;
use crate::images::reference::Reference;
use crate::images::spec::{self, Descriptor, INDEXES, Index, REF_NAME};
use crate::images::store::{Store, key};
use crate::metadata::layout::open_to_lock;
use crate::wait::{PATIENCE, lock};

impl Store {
    fn index_file(&self) -> PathBuf {
        self.dir().join("index.json")
    }

    /// What is in index.json; nothing, if there is none yet. A power cut may take the newest;
    /// then the one before counts.
    pub fn index(&self) -> Result<Index> {
        let path = self.index_file();
        let read = |path: &PathBuf| -> Result<Index> {
            let bytes = fs::read(path).with_context(|| format!("read {path:?}"))?;
            spec::parse(&bytes, &format!("{path:?}"))
        };
        match read(&path) {
            Err(error) if is_missing(&error) => Ok(Index::default()),
            Err(error) => match read(&path.with_extension("json.before")) {
                Ok(index) => Ok(index),
                // The first one that there was, of which a power cut has left no more than the name.
                Err(before) if is_missing(&before) && is_empty(&path) => Ok(Index::default()),
                Err(_) => Err(error),
            },
            index => index,
        }
    }

    /// Takes their names away from images of which a power cut has taken a file: what is in the
    /// index is there. (An entry that another tool has made may be an index itself.)
    pub fn forget_what_is_not_whole(&self) -> Result<()> {
        let stays = |entry: &Descriptor| entry.is_index() || self.is_whole(entry);
        // Whoever wants to know what is in an index that cannot be read is told why.
        match self.index() {
            Ok(index) if !index.manifests.iter().all(stays) => {
                self.change_index(|index| index.manifests.retain(stays))
            }
            _ => Ok(()),
        }
    }

    // ANCHOR: change
    /// Changes index.json by `change`, as a whole or not at all. Others who want to wait.
    pub fn change_index(&self, change: impl FnOnce(&mut Index)) -> Result<()> {
        // ANCHOR: day12_task2_change_index_solution
        let path = self.dir().join("index.lock");
        let held = open_to_lock(&path).with_context(|| format!("open {path:?}"))?;
        lock(&held, false, Some(PATIENCE), "index.json of the image store")?;
        let mut index = self.index()?;
        (index.schema_version, index.media_type) = (2, Some(INDEXES[0].into()));
        change(&mut index);
        let file = self.index_file();
        let before = file.with_extension("json.before");
        let _ = fs::remove_file(&before);
        match fs::hard_link(&file, &before) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("link {before:?}"))
            }
            _ => replace(&file, &serde_json::to_vec_pretty(&index)?),
        }
        // ANCHOR_END: day12_task2_change_index_solution
    }
    // ANCHOR_END: change

    /// From here on, `name` means this manifest. One that it meant before, and that has no other
    /// name, stays without any.
    pub fn tag(&self, name: &Reference, manifest: &Descriptor) -> Result<()> {
        let key = key(name);
        let mut named = manifest.clone();
        named.annotations.insert(REF_NAME.into(), key.clone());
        self.change_index(|index| {
            if let Some(before) = index.manifests.iter().position(|found| name_of(found) == Some(&key)) {
                let before = index.manifests.remove(before);
                keep_nameless(index, before, &manifest.digest);
            }
            // It has a name now.
            index.manifests.retain(|found| found.digest != manifest.digest || name_of(found).is_some());
            index.manifests.push(named);
        })
    }
}

/// Keeps the entry `before` without its name, if its manifest is in no other, and is not `new`.
fn keep_nameless(index: &mut Index, mut before: Descriptor, new: &Digest) {
    let has_another = index.manifests.iter().any(|found| found.digest == before.digest);
    if !has_another && before.digest != *new {
        before.annotations.remove(REF_NAME);
        index.manifests.push(before);
    }
}

/// The name that an entry gives its manifest.
pub fn name_of(entry: &Descriptor) -> Option<&String> {
    entry.annotations.get(REF_NAME)
}

fn is_empty(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.len() == 0)
}

fn is_missing(error: &anyhow::Error) -> bool {
    io_kind(error) == Some(ErrorKind::NotFound)
}
