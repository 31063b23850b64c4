//! Day 12: what is in the store: `images`, `tag`, `history`, `image inspect`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::bail;
use jiff::Timestamp;
use serde::Serialize;

use crate::error::{self, Result, failed};
use crate::images::digest::Digest;
use crate::images::index::name_of;
use crate::images::reference::Reference;
use crate::images::spec::{Descriptor, Settings};
use crate::images::store::{Image, Store};
use crate::metadata::output::{Format, columns, human, print};
use crate::metadata::ps::since;
use crate::metadata::state::State;

/// An image of the store, and all that it is called.
#[derive(Debug, Clone)]
pub struct Found {
    /// The image.
    pub image: Image,
    /// Its names in index.json, whole: `docker.io/library/alpine:latest`.
    pub names: Vec<String>,
    /// Was it asked for by its id, and not by a name?
    pub by_id: bool,
}

/// All images, the newest first; those that cannot be read are named, and skipped.
pub fn all(store: &Store) -> Result<Vec<Found>> {
    let mut names: BTreeMap<Digest, (Descriptor, Vec<String>)> = BTreeMap::new();
    for entry in store.index()?.manifests {
        let found = names.entry(entry.digest.clone()).or_insert_with(|| (entry.clone(), vec![]));
        found.1.extend(name_of(&entry).cloned());
    }
    let mut images = vec![];
    for (descriptor, names) in names.into_values() {
        match store.image(&descriptor) {
            Ok(image) => images.push(Found { image, names, by_id: false }),
            Err(error) => error::print(&error.context(format!("{} is skipped", names.join(", ")))),
        }
    }
    images.sort_by_key(|found| std::cmp::Reverse(created(&found.image)));
    Ok(images)
}

// ANCHOR: find
/// The image that `word` means: a name, an id, or the beginning of one id and no other.
pub fn find(store: &Store, word: &str) -> Result<Found> {
    let images = all(store)?;
    let name = word.parse::<Reference>().ok();
    if let Some(descriptor) = name.as_ref().map(|name| store.find(name)).transpose()?.flatten()
        && let Some(found) = images.iter().find(|found| found.image.descriptor.digest == descriptor.digest)
    {
        return Ok(found.clone());
    }
    let hex = word.strip_prefix("sha256:").unwrap_or(word);
    let begins = |digest: &Digest| !hex.is_empty() && digest.hex().starts_with(hex);
    let meant = |found: &Found| begins(found.image.id()) || begins(&found.image.descriptor.digest);
    let mut matching = images.into_iter().filter(meant);
    match (matching.next(), matching.next()) {
        (Some(found), None) => Ok(Found { by_id: true, ..found }),
        (Some(_), Some(_)) => bail!("{word:?} begins the ids of several images; give more digits"),
        (None, _) => bail!("no such image: {word}; tiny-docker images lists those there are"),
    }
}
// ANCHOR_END: find

/// When an image was made, if it says so.
fn created(image: &Image) -> Option<Timestamp> {
    image.config.created.as_ref()?.parse().ok()
}

fn ago(created: Option<Timestamp>) -> String {
    created.map_or("N/A".into(), |created| format!("{} ago", since(created, Timestamp::now())))
}

/// How many bytes its files have, unpacked; of a layer that is not unpacked, its archive.
fn size(store: &Store, image: &Image) -> u64 {
    let layers = image.manifest.layers.iter().zip(&image.config.rootfs.diff_ids);
    layers.map(|(file, diff_id)| store.size_of_layer(diff_id).unwrap_or(file.size)).sum()
}

fn id(digest: &Digest, whole: bool) -> String {
    if whole { digest.to_string() } else { digest.hex()[..12].into() }
}

/// List images
#[derive(Debug, clap::Args)]
pub struct Images {
    #[command(flatten)]
    state: State,

    /// Print the ids, and nothing else
    #[arg(short, long)]
    quiet: bool,

    /// Print ids in full
    #[arg(long)]
    no_trunc: bool,

    /// Show digests
    #[arg(long)]
    digests: bool,

    /// How to print them; json: one object a line
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,

    /// Only those of this repository, or with this name
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

/// One line of the list.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Line {
    repository: String,
    tag: String,
    digest: String,
    #[serde(rename = "ID")]
    id: String,
    created_at: Option<String>,
    created_since: String,
    size: String,
}

impl Images {
    /// Returns the exit code.
    pub fn execute(self) -> Result<u8> {
        let store = Store::open(&self.state).map_err(failed)?;
        let wanted = self.name.as_deref().map(str::parse::<Reference>).transpose().map_err(failed)?;
        let mut lines = vec![];
        for found in all(&store).map_err(failed)? {
            lines.extend(self.lines(&store, &found, wanted.as_ref()));
        }
        let mut text = String::new();
        match self.format {
            _ if self.quiet => {
                lines.dedup_by(|one, other| one.id == other.id);
                lines.iter().for_each(|line| text += &format!("{}\n", line.id));
            }
            Format::Table => text = self.table(lines),
            Format::Json => {
                for line in lines {
                    writeln!(text, "{}", serde_json::to_string(&line)?)?;
                }
            }
        }
        print(&text)
    }

    /// The lines of one image: one for each of its names.
    fn lines(&self, store: &Store, found: &Found, wanted: Option<&Reference>) -> Vec<Line> {
        let has_tag = self
            .name
            .as_ref()
            .is_some_and(|name| name.rsplit('/').next().is_some_and(|last| last.contains(':')));
        let is_wanted = |name: &Reference| {
            wanted.is_none_or(|wanted| {
                (&name.registry, &name.repository) == (&wanted.registry, &wanted.repository)
                    && (!has_tag || name.tag == wanted.tag)
            })
        };
        let names = found.names.iter().filter_map(|name| name.parse::<Reference>().ok());
        let mut names: Vec<Option<Reference>> = names.filter(is_wanted).map(Some).collect();
        if found.names.is_empty() && wanted.is_none() {
            names.push(None);
        }
        let image = &found.image;
        let none = || "<none>".to_string();
        let line = |name: Option<Reference>| Line {
            repository: name.as_ref().map_or_else(none, repository),
            tag: name.and_then(|name| name.tag).unwrap_or_else(none),
            digest: image.descriptor.digest.to_string(),
            id: id(image.id(), self.no_trunc),
            created_at: image.config.created.clone(),
            created_since: ago(created(image)),
            size: human(size(store, image), 3),
        };
        names.into_iter().map(line).collect()
    }

    fn table(&self, lines: Vec<Line>) -> String {
        let mut head = vec!["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"];
        if self.digests {
            head.insert(2, "DIGEST");
        }
        let row = |line: Line| {
            let mut row = vec![line.repository, line.tag, line.id, line.created_since, line.size];
            if self.digests {
                row.insert(2, line.digest);
            }
            row
        };
        columns(&head, &lines.into_iter().map(row).collect::<Vec<_>>())
    }
}

/// What people call its repository: `alpine`, `quay.io/x/y`.
fn repository(name: &Reference) -> String {
    let bare = Reference { tag: None, digest: None, ..name.clone() };
    bare.familiar()
}

/// Give an image another name
#[derive(Debug, clap::Args)]
pub struct Tag {
    #[command(flatten)]
    state: State,

    /// Its name or id
    image: String,

    /// The other name
    #[arg(value_name = "NAME[:TAG]")]
    name: String,
}

impl Tag {
    /// Returns the exit code.
    pub fn execute(self) -> Result<u8> {
        self.tag().map_err(failed).map(|()| 0)
    }

    fn tag(&self) -> Result<()> {
        let store = Store::open(&self.state)?;
        let _hold = store.hold()?;
        let name: Reference = self.name.parse()?;
        if name.digest.is_some() {
            bail!("{}: a digest cannot be chosen; expected NAME[:TAG]", self.name);
        }
        store.tag(&name, &find(&store, &self.image)?.image.descriptor)
    }
}

/// Show how an image was made
#[derive(Debug, clap::Args)]
pub struct History {
    #[command(flatten)]
    state: State,

    /// Print everything in full
    #[arg(long)]
    no_trunc: bool,

    /// Print the ids, and nothing else
    #[arg(short, long)]
    quiet: bool,

    /// Its name or id
    image: String,
}

impl History {
    /// Returns the exit code.
    pub fn execute(self) -> Result<u8> {
        print(&self.text().map_err(failed)?)
    }

    fn text(&self) -> Result<String> {
        let store = Store::open(&self.state)?;
        let image = find(&store, &self.image)?.image;
        let mut layers = image.manifest.layers.iter().zip(&image.config.rootfs.diff_ids);
        let mut rows = vec![];
        for step in &image.config.history {
            let layer = if step.empty_layer { None } else { layers.next() };
            let size = layer.map_or(0, |(file, diff_id)| store.size_of_layer(diff_id).unwrap_or(file.size));
            let by = step.created_by.clone().unwrap_or_default().replace(['\n', '\t'], " ");
            rows.push(vec![
                "<missing>".to_string(),
                ago(step.created.as_ref().and_then(|created| created.parse().ok())),
                if self.no_trunc { by } else { shortened(&by, 45) },
                human(size, 3),
                step.comment.clone().unwrap_or_default(),
            ]);
        }
        // The newest first; the image is what the last step made.
        rows.reverse();
        if let Some(first) = rows.first_mut() {
            first[0] = id(image.id(), self.no_trunc);
        }
        if self.quiet {
            return Ok(rows.iter().map(|row| format!("{}\n", row[0])).collect());
        }
        Ok(columns(&["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"], &rows))
    }
}

/// The first `most` characters of `text`, the last of them … if there are more.
fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.into();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

/// An image as `image inspect` shows it: in Docker's words.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shown<'a> {
    id: &'a Digest,
    repo_tags: Vec<String>,
    repo_digests: Vec<String>,
    created: Option<&'a String>,
    author: &'a str,
    architecture: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: Option<&'a String>,
    os: &'a str,
    size: u64,
    config: &'a Settings,
    #[serde(rename = "RootFS")]
    rootfs: Layers<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Layers<'a> {
    #[serde(rename = "Type")]
    kind: &'a str,
    layers: &'a [Digest],
}

/// Prints what is known of `images`, as a JSON array. Returns the exit code: 1 if one of them is
/// unknown.
pub fn inspect(state: &State, images: &[String]) -> Result<u8> {
    let store = Store::open(state).map_err(failed)?;
    let mut found = vec![];
    let code = error::for_each(images, |word| {
        found.push(find(&store, word)?);
        Ok(())
    });
    let shown: Vec<Shown> = found.iter().map(|found| shown(&store, found)).collect();
    print(&(serde_json::to_string_pretty(&shown)? + "\n"))?;
    Ok(code)
}

fn shown<'a>(store: &Store, found: &'a Found) -> Shown<'a> {
    let Image { descriptor, config, .. } = &found.image;
    let names: Vec<Reference> = found.names.iter().filter_map(|name| name.parse().ok()).collect();
    let mut repo_digests: Vec<String> =
        names.iter().map(|name| format!("{}@{}", repository(name), descriptor.digest)).collect();
    repo_digests.sort();
    repo_digests.dedup();
    Shown {
        id: found.image.id(),
        repo_tags: names.iter().filter(|name| name.digest.is_none()).map(Reference::familiar).collect(),
        repo_digests,
        created: config.created.as_ref(),
        author: config.author.as_deref().unwrap_or_default(),
        architecture: &config.platform.architecture,
        variant: config.platform.variant.as_ref(),
        os: &config.platform.os,
        size: size(store, &found.image),
        config: &config.config,
        rootfs: Layers { kind: "layers", layers: &config.rootfs.diff_ids },
    }
}

#[cfg(test)]
mod tests {
    use super::human;

    #[test]
    fn sizes_are_said_as_docker_says_them() {
        for (bytes, expected) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (7_834_567, "7.83MB"),
            (77_800_000, "77.8MB"),
            (147_300_000, "147MB"),
            (1_240_000_000, "1.24GB"),
        ] {
            assert_eq!(human(bytes, 3), expected);
        }
    }
}
