//! Day 12: reading an archive of images.
//!
//! It may come from a pipe, and what is needed first may stand last. So its members are first
//! laid aside, each with its digest; then index.json, or else Docker's manifest.json, says what
//! they are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufReader, IsTerminal, Read, Write};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::error::{Result, failed};
use crate::images::aside::Aside;
use crate::images::decompress::{BUFFER, decompress};
use crate::images::digest::{Digest, Hasher};
use crate::images::entries::{Entries, kind};
use crate::images::index::name_of;
use crate::images::platform::choose;
use crate::images::reference::Reference;
use crate::images::spec::{
    self, Descriptor, Index, LAYER_GZIP, LONGEST, MANIFESTS, Manifest, Platform, REF_NAME,
};
use crate::images::store::{Image, Store, key};
use crate::images::unpack;
use crate::metadata::output::print;
use crate::metadata::state::State;

/// More members are no archive of images.
const MOST_MEMBERS: u64 = 100_000;
const LAYER_TAR: &str = "application/vnd.oci.image.layer.v1.tar";

/// A file of the archive, laid aside.
#[derive(Debug, Clone)]
struct Member {
    path: PathBuf,
    digest: Digest,
    size: u64,
}

/// All of them, by their names.
struct Members {
    files: BTreeMap<String, Member>,
    /// Docker before version 25 has links for layers that are there twice.
    links: BTreeMap<String, String>,
    /// They go with it.
    _aside: Aside,
}

/// What containerd calls an image, and so Docker.
pub const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// What Docker wants to know of one image of an archive.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DockerImage {
    /// The member of the archive that is its configuration.
    pub config: String,
    /// Its names, as people write them.
    #[serde(default)]
    pub repo_tags: Option<Vec<String>>,
    /// The members that are its layers, the lowest first.
    pub layers: Vec<String>,
}

/// Read images from a tar archive (by default from stdin): one of `save`, of docker save, or an
/// OCI layout; also compressed
#[derive(Debug, clap::Args)]
pub struct Load {
    #[command(flatten)]
    state: State,

    /// The file to read, instead of stdin
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,

    /// Print nothing
    #[arg(short, long)]
    quiet: bool,
}

impl Load {
    /// Returns the exit code.
    pub fn execute(self) -> Result<u8> {
        let loaded = self.load().map_err(failed)?;
        if self.quiet { Ok(0) } else { print(&loaded) }
    }

    /// Returns a line for each name that means something now, and for each image without one.
    fn load(&self) -> Result<String> {
        let store = Store::open(&self.state)?;
        let _hold = store.hold()?;
        let images = match &self.input {
            Some(path) => {
                let file = File::open(path).with_context(|| format!("open {path:?}"))?;
                load(&store, file).with_context(|| format!("load {path:?}"))
            }
            None if io::stdin().is_terminal() => {
                bail!("a terminal is no archive; say -i FILE, or redirect stdin")
            }
            None => load(&store, io::stdin()).context("load from stdin"),
        }?;
        let mut lines = String::new();
        for (entry, image) in images {
            lines += &match name_of(&entry).and_then(|name| name.parse::<Reference>().ok()) {
                Some(name) => format!("Loaded image: {}\n", name.familiar()),
                None => format!("Loaded image ID: {}\n", image.id()),
            };
        }
        Ok(lines)
    }
}

// ANCHOR: load
/// Puts the images of the archive `from` into the store, and unpacks them. Returns them, each
/// with its entry in index.json.
pub fn load(store: &Store, from: impl Read + 'static) -> Result<Vec<(Descriptor, Image)>> {
    let members = lay_aside(store, from)?;
    let entries = if members.files.contains_key("index.json") {
        of_layout(&members)?
    } else if members.files.contains_key("manifest.json") {
        of_docker(store, &members)?
    } else {
        bail!(
            "it has neither index.json nor manifest.json; expected an archive of docker save, or of an OCI layout"
        )
    };
    let mut images = vec![];
    for entry in entries {
        take(store, &members, &entry)?;
        let image = store.image(&entry)?;
        unpack::image(store, &image)?;
        images.push((entry, image));
    }
    // Only now, when all of them are there.
    for (entry, _) in &images {
        match entry.annotations.get(REF_NAME) {
            Some(name) => store.tag(&name.parse()?, entry)?,
            None => store.change_index(|index| {
                if !index.manifests.iter().any(|found| found.digest == entry.digest) {
                    index.manifests.push(entry.clone());
                }
            })?,
        }
    }
    Ok(images)
}
// ANCHOR_END: load

/// Nothing of the archive's names becomes a path: the members are numbered.
fn lay_aside(store: &Store, from: impl Read + 'static) -> Result<Members> {
    let aside = Aside::make(&store.dir().join("aside"), &format!("load-{}", std::process::id()))?;
    let (mut files, mut links) = (BTreeMap::new(), BTreeMap::new());
    let mut entries = Entries::new(BufReader::with_capacity(BUFFER, decompress(from)?), MOST_MEMBERS);
    while let Some(entry) = entries.next_entry()? {
        let name = plain(Path::new(""), &String::from_utf8_lossy(&entry.name));
        match entry.kind {
            kind::FILE => {
                let path = aside.dir().join(files.len().to_string());
                let mut file = File::create(&path).with_context(|| format!("create {path:?}"))?;
                let mut hasher = Hasher::new();
                let mut write = |bytes: &[u8]| {
                    hasher.update(bytes);
                    file.write_all(bytes).with_context(|| format!("write {path:?}"))
                };
                while entries.data(u64::MAX, &mut write)? > 0 {}
                files.insert(name, Member { path, digest: hasher.finish(), size: entry.size });
            }
            kind::LINK => {
                let dir = Path::new(&name).parent().unwrap_or(Path::new("")).to_owned();
                links.insert(name, plain(&dir, &String::from_utf8_lossy(&entry.link)));
            }
            _ => {}
        }
    }
    Ok(Members { files, links, _aside: aside })
}

/// `name`, seen from `dir`, without `.` and `..`. It is looked up, and never opened.
fn plain(dir: &Path, name: &str) -> String {
    let mut path = dir.to_owned();
    for part in Path::new(name).components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::ParentDir => drop(path.pop()),
            _ => {}
        }
    }
    path.to_string_lossy().into_owned()
}

impl Members {
    fn get(&self, name: &str) -> Result<&Member> {
        let name = self.links.get(name).map_or(name, String::as_str);
        self.files.get(name).with_context(|| format!("it lacks {name}"))
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        let member = self.get(name)?;
        if member.size > LONGEST {
            bail!("{name} has {} bytes; expected at most {LONGEST}", member.size);
        }
        fs::read(&member.path).with_context(|| format!("read {:?}", member.path))
    }

    fn blob(&self, digest: &Digest) -> Result<&Member> {
        let name = format!("blobs/sha256/{}", digest.hex());
        let member = self.get(&name)?;
        if member.digest != *digest {
            bail!("its {name} is {}: the archive is damaged, or somebody has changed it", member.digest);
        }
        Ok(member)
    }
}

/// The images that an OCI layout has, each an entry as index.json of the store is to have it.
fn of_layout(members: &Members) -> Result<Vec<Descriptor>> {
    let index: Index = spec::parse(&members.read("index.json")?, "index.json of the archive")?;
    let mut entries = vec![];
    for mut entry in index.manifests {
        let name = name_in(&entry);
        if entry.is_index() {
            members.blob(&entry.digest)?;
            let bytes = members.read(&format!("blobs/sha256/{}", entry.digest.hex()))?;
            entry = of_this_platform(members, spec::parse(&bytes, "an index")?)?;
        }
        entry.annotations.remove(REF_NAME);
        entry.annotations.extend(name.map(|name| (REF_NAME.to_string(), name)));
        entries.push(entry);
    }
    Ok(entries)
}

/// What an entry of an archive calls its image, if that is a whole name. Some have no more
/// than a tag there, such as `latest`.
fn name_in(entry: &Descriptor) -> Option<String> {
    let said = entry
        .annotations
        .get(CONTAINERD_NAME)
        .or_else(|| entry.annotations.get(REF_NAME).filter(|name| name.contains([':', '/'])))?;
    Some(key(&said.parse::<Reference>().ok()?))
}

/// Of what an index lists, the archive may have a part only.
fn of_this_platform(members: &Members, mut index: Index) -> Result<Descriptor> {
    index.manifests.retain(|entry| members.blob(&entry.digest).is_ok());
    choose(&index, &Platform::default()).cloned()
}

/// Puts the files of one image into the store. What is there already is not looked at again.
fn take(store: &Store, members: &Members, entry: &Descriptor) -> Result<()> {
    if !store.has(entry)? {
        keep(store, members.blob(&entry.digest)?, entry)?;
    }
    let manifest: Manifest = spec::parse(&store.read(&entry.digest)?, "a manifest")?;
    let mut taken = BTreeSet::new();
    for file in [&manifest.config].into_iter().chain(&manifest.layers) {
        if taken.insert(&file.digest) && !store.has(file)? {
            keep(store, members.blob(&file.digest)?, file)?;
        }
    }
    Ok(())
}

fn keep(store: &Store, member: &Member, file: &Descriptor) -> Result<()> {
    if member.size != file.size {
        bail!("its {} has {} bytes, and its manifest says {}", file.digest, member.size, file.size);
    }
    store.keep_blob(&member.path, &member.digest)
}

/// The images of an archive of Docker's, which has no manifests: they are made here.
fn of_docker(store: &Store, members: &Members) -> Result<Vec<Descriptor>> {
    let images: Vec<DockerImage> =
        spec::parse(&members.read("manifest.json")?, "manifest.json of the archive")?;
    let mut entries = vec![];
    for image in images {
        let config = members.get(&image.config)?;
        let mut files = vec![descriptor(config, spec::CONFIG)];
        for name in &image.layers {
            let layer = members.get(name)?;
            let mut begin = [0; 2];
            let read = File::open(&layer.path).and_then(|mut file| file.read(&mut begin));
            read.with_context(|| format!("read {:?}", layer.path))?;
            files.push(descriptor(layer, if begin == [0x1f, 0x8b] { LAYER_GZIP } else { LAYER_TAR }));
        }
        for (file, member) in files.iter().zip([&image.config].into_iter().chain(&image.layers)) {
            if !store.has(file)? {
                store.keep_blob(&members.get(member)?.path, &file.digest)?;
            }
        }
        entries.extend(entries_of(store, files, image.repo_tags.unwrap_or_default())?);
    }
    Ok(entries)
}

fn entries_of(store: &Store, mut files: Vec<Descriptor>, names: Vec<String>) -> Result<Vec<Descriptor>> {
    let config = files.remove(0);
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(MANIFESTS[0].into()),
        config,
        layers: files,
        annotations: BTreeMap::new(),
    };
    let bytes = serde_json::to_vec(&manifest)?;
    let entry = Descriptor {
        media_type: MANIFESTS[0].into(),
        digest: store.put(&bytes)?,
        size: bytes.len() as u64,
        platform: None,
        annotations: BTreeMap::new(),
    };
    let named = names.iter().map(|name| {
        let mut named = entry.clone();
        named.annotations.insert(REF_NAME.into(), key(&name.parse()?));
        Ok(named)
    });
    if names.is_empty() { Ok(vec![entry]) } else { named.collect() }
}

fn descriptor(member: &Member, media_type: &str) -> Descriptor {
    Descriptor {
        media_type: media_type.into(),
        digest: member.digest.clone(),
        size: member.size,
        platform: None,
        annotations: BTreeMap::new(),
    }
}
