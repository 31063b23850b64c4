//! Day 12: pull: an image comes from a registry into the store.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, bail, ensure};

use crate::error::{self, Result};
use crate::images::digest::Digest;
use crate::images::download::{Download, pair};
use crate::images::fetch::{self, Fetched};
use crate::images::http::Connection;
use crate::images::platform::choose;
use crate::images::progress::Progress;
use crate::images::reference::{DOCKER_HUB, Reference};
use crate::images::registry::Registry;
use crate::images::spec::{
    CONFIGS, Config, Descriptor, FROM_INDEX, Index, LONGEST, Manifest, Platform, parse,
};
use crate::images::store::Store;
use crate::metadata::output::print;
use crate::metadata::state::State;

/// Download an image from a registry
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Pull {
    #[command(flatten)]
    state: State,

    #[command(flatten)]
    wanted: Wanted,

    /// Print nothing but the image's name
    #[arg(short, long)]
    quiet: bool,

    /// NAME[:TAG], or NAME@DIGEST
    image: String,
}

/// Which image of a name, and how to reach its registry.
#[derive(Debug, Clone, clap::Args)]
pub struct Wanted {
    /// For which kind of machine, such as linux/arm64 [default: this one]
    #[arg(long, value_name = "OS/ARCHITECTURE")]
    pub platform: Option<Platform>,

    /// How to reach the registry.
    #[command(flatten)]
    pub connection: Connection,
}

/// How often an index may lead to another one.
const DEEPEST: usize = 4;

const EXAMPLES: &str = "\
Examples:
  tiny-docker pull alpine
  tiny-docker pull --platform linux/arm64 box.example:5000/tom/web:1.2";

impl Pull {
    /// Returns the exit code.
    pub fn execute(self) -> Result<u8> {
        Ok(error::for_each(&[self.image], |image| {
            let name: Reference = image.parse()?;
            let store = Store::open(&self.state)?;
            let progress = Arc::new(Progress::new(self.quiet));
            pull(&store, &name, &self.wanted, progress)?;
            print(&format!("{name}\n")).map(drop)
        }))
    }
}

// ANCHOR: pull
/// Brings the image `name` into the store, and up to date. Returns what it is there.
pub fn pull(store: &Store, name: &Reference, wanted: &Wanted, progress: Arc<Progress>) -> Result<Descriptor> {
    let _hold = store.hold()?;
    let registry = Registry::open(&name.registry, &wanted.connection, progress.clone())?;
    let platform = wanted.platform.clone().unwrap_or_default();
    let here = store.find(name)?.filter(|here| is_whole(store, here, &platform));
    if let Some(here) = here
        && is_up_to_date(&registry, name, &here)?
    {
        progress.say(&format!("Digest: {}", from_index(&here).unwrap_or(&here.digest.to_string())));
        progress.say(&format!("Status: Image is up to date for {}", name.familiar()));
        return Ok(here);
    }
    let short = name.repository.as_str();
    let long = format!("{}/{short}", name.registry);
    let from = if name.registry == DOCKER_HUB { short } else { &long };
    progress.say(&format!("{}: Pulling from {from}", name.wanted()));
    let fetched =
        fetch::manifest(&registry, &name.repository, &name.wanted()).with_context(|| name.to_string())?;
    let digest = fetched.descriptor.digest.clone();
    let manifest =
        for_platform(&registry, &name.repository, fetched, &platform).with_context(|| name.to_string())?;
    let image =
        load(store, &registry, name, manifest, wanted.platform.as_ref()).with_context(|| name.to_string())?;
    store.tag(name, &image)?;
    progress.say(&format!("Digest: {digest}"));
    progress.say(&format!("Status: Downloaded newer image for {}", name.familiar()));
    Ok(image)
}
// ANCHOR_END: pull

/// The index that an image was chosen from.
fn from_index(image: &Descriptor) -> Option<&String> {
    image.annotations.get(FROM_INDEX)
}

/// Is all of the image there, and for this platform?
fn is_whole(store: &Store, image: &Descriptor, platform: &Platform) -> bool {
    let Ok(found) = store.image(image) else { return false };
    platform.suits(&found.config.platform).is_some()
        && store.is_whole(image)
        && found.config.rootfs.diff_ids.iter().all(|id| matches!(store.layer(id), Ok(Some(_))))
}

/// Is it what the registry has at this moment? What a digest means never changes.
fn is_up_to_date(registry: &Registry, name: &Reference, here: &Descriptor) -> Result<bool> {
    if name.digest.is_some() {
        return Ok(true);
    }
    let there = fetch::look(registry, &name.repository, &name.wanted())?;
    let is = |there: Digest| there == here.digest || from_index(here) == Some(&there.to_string());
    Ok(there.is_some_and(is))
}

/// `fetched`, or what of it is for `platform`, if it is an index: that may name another one.
fn for_platform(
    registry: &Registry,
    repository: &str,
    fetched: Fetched,
    platform: &Platform,
) -> Result<Fetched> {
    let first = fetched.descriptor.digest.to_string();
    let mut found = fetched;
    for level in 0..=DEEPEST {
        if !found.descriptor.is_index() {
            if level > 0 {
                found.descriptor.annotations.insert(FROM_INDEX.into(), first);
            }
            return Ok(found);
        }
        let index: Index = parse(&found.bytes, "the image's index")?;
        // One of which nobody says what it is for may have something for us.
        let chosen = choose(&index, platform).or_else(|error| {
            let unsaid = |entry: &&Descriptor| entry.platform.is_none() && entry.is_index();
            index.manifests.iter().find(unsaid).ok_or(error)
        })?;
        found = fetch::manifest(registry, repository, &chosen.digest.to_string())?;
    }
    bail!("its index leads to another, and so on for more than {DEEPEST} times: expected a manifest")
}

/// Brings all that `manifest` names into the store, and it as the last.
fn load(
    store: &Store,
    registry: &Registry,
    name: &Reference,
    manifest: Fetched,
    asked_for: Option<&Platform>,
) -> Result<Descriptor> {
    let Fetched { mut descriptor, bytes } = manifest;
    let manifest: Manifest = parse(&bytes, "the image's manifest")?;
    let kind = &manifest.config.media_type;
    ensure!(CONFIGS.contains(&kind.as_str()), "it is no image of a container, but has {kind:?}");
    ensure!(manifest.config.size <= LONGEST, "the image's configuration is longer than {LONGEST} bytes");
    let download = Download { registry, repository: &name.repository, store };
    let progress = &registry.progress;
    download.blob(&manifest.config, &AtomicBool::new(false), &|_| ())?;
    let config: Config = parse(&store.read(&manifest.config.digest)?, "the image's configuration")?;
    check_platform(name, &config.platform, asked_for, progress)?;
    download.layers(&pair(&manifest.layers, &config.rootfs.diff_ids)?)?;
    store.put(&bytes)?;
    descriptor.platform = Some(config.platform);
    Ok(descriptor)
}

/// An image may be for another kind of machine than its index says, or than this is.
fn check_platform(
    name: &Reference,
    made_for: &Platform,
    asked_for: Option<&Platform>,
    progress: &Progress,
) -> Result<()> {
    let here = Platform::default();
    let wanted = asked_for.unwrap_or(&here);
    match wanted.suits(made_for) {
        Some(_) => {}
        None if asked_for.is_some() => bail!("it is for {made_for}, and not for {wanted}"),
        None => {
            progress.note(&format!("{name} is for {made_for}, and this machine is {here}: it will not run"))
        }
    }
    Ok(())
}
