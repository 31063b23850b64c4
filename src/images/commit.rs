//! Day 12: a container becomes an image: what it wrote is one more layer.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::{Context, bail};
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::error::{Result, failed};
use crate::images::aside::Aside;
use crate::images::change::Change;
use crate::images::digest::{Digest, Hasher};
use crate::images::pack;
use crate::images::place;
use crate::images::reference::Reference;
use crate::images::spec::{self, Descriptor, LAYER_GZIP, MANIFESTS, Manifest};
use crate::images::store::{Image, Store};
use crate::images::unpack;
use crate::layers::overlay::{self, upper};
use crate::metadata::output::print;
use crate::metadata::record::Record;
use crate::metadata::state::State;

const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// Make an image of what a container wrote
///
/// A container that runs is not held up meanwhile: of a file that it is just writing, the image
/// may have a part.
#[derive(Debug, clap::Args)]
pub struct Commit {
    #[command(flatten)]
    state: State,

    /// Who made it
    #[arg(short, long, value_name = "NAME")]
    author: Option<String>,

    /// What it is for
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,

    /// Changes its configuration: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME
    /// or WORKDIR, as in a Dockerfile
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    changes: Vec<Change>,

    /// The container's id or name
    container: String,

    /// What the image is called
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<String>,
}

/// The layer that a container has written, as a file.
struct Layer {
    diff_id: Digest,
    digest: Digest,
    size: u64,
}

impl Commit {
    /// The state directory.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The container's id or name.
    pub fn container(&self) -> &str {
        &self.container
    }

    /// Prints the image's id. Returns the exit code.
    pub fn execute(self) -> Result<u8> {
        print(&format!("{}\n", self.commit().map_err(failed)?))
    }

    // ANCHOR: commit
    fn commit(&self) -> Result<Digest> {
        let name = self.name.as_deref().map(str::parse::<Reference>).transpose()?;
        if name.as_ref().is_some_and(|name| name.digest.is_some()) {
            bail!("{:?}: a digest cannot be chosen; expected NAME[:TAG]", self.name);
        }
        let record = self.state.find(&self.container)?;
        let store = Store::open(&self.state)?;
        let _hold = store.hold()?;
        overlay::refuse_shifted(&self.state.dir(&record.id))?;
        let base = base(&store, &record)?;
        let aside = Aside::make(&place::aside(store.dir()), &format!("commit-{}", std::process::id()))?;
        let layer = pack_layer(&upper(&self.state.dir(&record.id)), &aside.dir().join("layer"))
            .with_context(|| format!("pack what container {} wrote", record.title()))?;
        if let Some(layer) = &layer {
            store.keep_blob(&aside.dir().join("layer"), &layer.digest)?;
        }
        let config = self.config(&store, &base, &record, layer.as_ref())?;
        let entry = put_manifest(&store, &base, config, layer)?;
        let image = store.image(&entry)?;
        unpack::image(&store, &image)?;
        match &name {
            Some(name) => store.tag(name, &entry)?,
            None => store.change_index(|index| index.manifests.push(entry.clone()))?,
        }
        Ok(image.id().clone())
    }
    // ANCHOR_END: commit

    // ANCHOR: config
    /// The new configuration: the old one, also what of it we do not know, one layer more, and a
    /// line of history.
    fn config(&self, store: &Store, base: &Image, record: &Record, layer: Option<&Layer>) -> Result<Vec<u8>> {
        // ANCHOR: day12_task5_config_solution
        let old = store.read(base.id())?;
        let mut config: Map<String, Value> = spec::parse(&old, "an image's configuration")?;
        let now = Timestamp::now().to_string();
        let mut step = json!({ "created": now, "created_by": record.command().join(" ") });
        for (key, value) in [("author", &self.author), ("comment", &self.message)] {
            if let Some(value) = value {
                step[key] = json!(value);
            }
        }
        match layer {
            Some(layer) => list(&mut config["rootfs"]["diff_ids"]).push(json!(layer.diff_id)),
            None => step["empty_layer"] = json!(true),
        }
        list(config.entry("history").or_insert(json!([]))).push(step);
        config.insert("created".into(), json!(now));
        if let Some(author) = &self.author {
            config.insert("author".into(), json!(author));
        }
        let mut settings = base.config.config.clone();
        self.changes.iter().for_each(|change| change.apply(&mut settings));
        let kept = config.entry("config").or_insert(json!({}));
        if let (false, Some(_)) = (self.changes.is_empty(), kept.as_object()) {
            merge(kept, serde_json::to_value(settings)?);
        }
        Ok(serde_json::to_vec(&config)?)
        // ANCHOR_END: day12_task5_config_solution
    }
    // ANCHOR_END: config
}

/// `null` counts as an empty list, as Go writes it.
fn list(value: &mut Value) -> &mut Vec<Value> {
    if !value.is_array() {
        *value = json!([]);
    }
    match value {
        Value::Array(list) => list,
        _ => unreachable!("it was made an array"),
    }
}

/// Sets in `old` what `new` says.
fn merge(old: &mut Value, new: Value) {
    if let (Value::Object(old), Value::Object(new)) = (old, new) {
        old.extend(new);
    }
}

/// The image that a container is of.
fn base(store: &Store, record: &Record) -> Result<Image> {
    let Some(used) = &record.plan.image else {
        bail!(
            "container {} is not of an image, so nobody knows what is below its layer; expected one that was \
             started with run --image",
            record.title()
        );
    };
    let digest: Digest = used.manifest.parse()?;
    let size = fs::metadata(store.dir_of_blob(&digest)).map_or(0, |found| found.len());
    let entry = Descriptor {
        media_type: MANIFESTS[0].into(),
        digest,
        size,
        platform: None,
        annotations: Default::default(),
    };
    store.image(&entry).with_context(|| format!("{}, the image of container {}", used.name, record.title()))
}

// ANCHOR: pack_layer
/// Packs the tree `upper` into the file `to`. One archive, two digests: of the archive, which the
/// configuration names, and of what became of it compressed, which the manifest names. `None`:
/// there is nothing in it.
fn pack_layer(upper: &Path, to: &Path) -> Result<Option<Layer>> {
    // ANCHOR: day12_task5_pack_layer_solution
    let file = File::create(to).with_context(|| format!("create {to:?}"))?;
    let compressed = Hashing { to: BufWriter::with_capacity(1 << 20, file), hasher: Hasher::new(), count: 0 };
    // Without a name and a time in its header: the same layer is the same file.
    let encoder = GzEncoder::new(compressed, Compression::default());
    let archive = Hashing { to: encoder, hasher: Hasher::new(), count: 0 };
    let (archive, entries) = pack::pack(upper, archive)?;
    let diff_id = archive.hasher.finish();
    let mut compressed = archive.to.finish().context("compress the layer")?;
    compressed.to.flush().with_context(|| format!("write {to:?}"))?;
    let layer = Layer { diff_id, digest: compressed.hasher.finish(), size: compressed.count };
    Ok((entries > 0).then_some(layer))
    // ANCHOR_END: day12_task5_pack_layer_solution
}
// ANCHOR_END: pack_layer

/// Takes the digest, and the length, of all that is written through it.
struct Hashing<W> {
    to: W,
    hasher: Hasher,
    count: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.count += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// The manifest of the new image: that of `base`, with the new configuration and the new layer.
/// Docker's media types stay Docker's.
fn put_manifest(store: &Store, base: &Image, config: Vec<u8>, layer: Option<Layer>) -> Result<Descriptor> {
    let is_dockers = base.manifest.media_type.as_deref() == Some(MANIFESTS[1]);
    let mut manifest: Manifest = base.manifest.clone();
    manifest.annotations.clear();
    let media_type = manifest.media_type.get_or_insert(MANIFESTS[0].into()).clone();
    (manifest.config.digest, manifest.config.size) = (store.put(&config)?, config.len() as u64);
    manifest.layers.extend(layer.map(|layer| Descriptor {
        media_type: if is_dockers { DOCKER_LAYER } else { LAYER_GZIP }.into(),
        digest: layer.digest,
        size: layer.size,
        platform: None,
        annotations: Default::default(),
    }));
    let bytes = serde_json::to_vec(&manifest)?;
    Ok(Descriptor {
        media_type,
        digest: store.put(&bytes)?,
        size: bytes.len() as u64,
        platform: None,
        annotations: Default::default(),
    })
}
