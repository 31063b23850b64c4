//! Day 12: images as files: for a room without a network.
//!
//! An archive is an OCI layout in a tar, as the store is one in a directory. Beside it stands
//! `manifest.json`, which is what Docker reads that knows no layouts: before version 25.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write, stdout};
use std::path::PathBuf;

use anyhow::{Context, bail};
use tar::{Builder, EntryType, Header};

use crate::error::{Result, failed};
use crate::images::list::{Found, find};
use crate::images::load::{CONTAINERD_NAME, DockerImage};
use crate::images::reference::Reference;
use crate::images::spec::{Descriptor, INDEXES, Index, REF_NAME};
use crate::images::store::{Image, Store};
use crate::metadata::state::State;

/// Write images to a tar archive (by default to stdout)
#[derive(Debug, clap::Args)]
pub struct Save {
    #[command(flatten)]
    state: State,

    /// The file to write, instead of stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Their names or ids
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

impl Save {
    /// Returns the exit code.
    pub fn execute(self) -> Result<u8> {
        self.save().map_err(failed)
    }

    fn save(&self) -> Result<u8> {
        if self.output.is_none() && stdout().is_terminal() {
            bail!("an archive is nothing for a terminal; say -o FILE, or redirect stdout");
        }
        let store = Store::open(&self.state)?;
        let _hold = store.hold()?;
        let found = self.images.iter().map(|word| find(&store, word)).collect::<Result<Vec<_>>>()?;
        let Some(path) = &self.output else {
            return write(&store, &found, io::BufWriter::with_capacity(1 << 20, stdout())).map(|()| 0);
        };
        // Aside, and renamed: whoever finds the file finds all of it.
        let aside = path.with_extension(format!("new.{}", std::process::id()));
        let file = File::create(&aside).with_context(|| format!("create {aside:?}"))?;
        let written = write(&store, &found, file)
            .and_then(|()| std::fs::rename(&aside, path).with_context(|| format!("rename to {path:?}")));
        if written.is_err() {
            let _ = std::fs::remove_file(&aside);
        }
        written.map(|()| 0)
    }
}

fn write(store: &Store, images: &[Found], to: impl Write) -> Result<()> {
    let mut archive = Builder::new(to);
    let mut index = Index { schema_version: 2, media_type: Some(INDEXES[0].into()), ..Index::default() };
    let mut written = BTreeSet::new();
    let mut docker = vec![];
    for Found { image, names, .. } in images {
        index.manifests.extend(entries_of(image, names));
        docker.push(docker_image(image, names));
        let files = [&image.descriptor, &image.manifest.config].into_iter().chain(&image.manifest.layers);
        for file in files.filter(|file| written.insert(file.digest.clone())) {
            let blob = store.open_blob(&file.digest)?;
            append(&mut archive, &format!("blobs/sha256/{}", file.digest.hex()), file.size, blob)?;
        }
    }
    for (name, text) in [
        ("oci-layout", br#"{"imageLayoutVersion": "1.0.0"}"#.to_vec()),
        ("index.json", serde_json::to_vec(&index)?),
        ("manifest.json", serde_json::to_vec(&docker)?),
    ] {
        append(&mut archive, name, text.len() as u64, &text[..])?;
    }
    archive.into_inner().and_then(|mut to| to.flush()).context("write the archive")
}

/// The entries of index.json for `image`: one for each of its names.
fn entries_of(image: &Image, names: &[String]) -> Vec<Descriptor> {
    let mut nameless = image.descriptor.clone();
    nameless.annotations.retain(|name, _| name != REF_NAME && name != CONTAINERD_NAME);
    let named = names.iter().map(|name| {
        let mut entry = nameless.clone();
        for annotation in [REF_NAME, CONTAINERD_NAME] {
            entry.annotations.insert(annotation.into(), name.clone());
        }
        entry
    });
    if names.is_empty() { vec![nameless] } else { named.collect() }
}

fn docker_image(image: &Image, names: &[String]) -> DockerImage {
    let member = |file: &Descriptor| format!("blobs/sha256/{}", file.digest.hex());
    let tags = names.iter().filter(|name| !name.contains('@'));
    let tags = tags.filter_map(|name| Some(name.parse::<Reference>().ok()?.familiar()));
    DockerImage {
        config: member(&image.manifest.config),
        repo_tags: Some(tags.collect()),
        layers: image.manifest.layers.iter().map(member).collect(),
    }
}

/// The same for the same images, whenever and by whomever: an owner and a time say nothing here.
fn append(archive: &mut Builder<impl Write>, name: &str, size: u64, data: impl Read) -> Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_size(size);
    header.set_mtime(0);
    let mut data = io::BufReader::with_capacity(1 << 20, data.take(size));
    archive.append_data(&mut header, name, &mut data).with_context(|| format!("write {name} of the archive"))
}
