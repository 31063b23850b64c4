//! Day 12: push: an image goes from the store to a registry.

use std::sync::Arc;

use anyhow::{Context, bail};

use crate::error::{self, Result};
use crate::images::digest::Digest;
use crate::images::http::Connection;
use crate::images::index::name_of;
use crate::images::parallel;
use crate::images::progress::Progress;
use crate::images::reference::Reference;
use crate::images::registry::Registry;
use crate::images::spec::Descriptor;
use crate::images::store::Store;
use crate::images::upload::{Sent, Upload};
use crate::metadata::output::print;
use crate::metadata::state::State;

/// Upload an image to a registry
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Push {
    #[command(flatten)]
    state: State,

    #[command(flatten)]
    connection: Connection,

    /// Print nothing but the image's name
    #[arg(short, long)]
    quiet: bool,

    /// NAME[:TAG]: the registry is part of the name
    image: String,
}

const EXAMPLES: &str = "\
Examples:
  tiny-docker tag web box.example:5000/tom/web:1.2
  tiny-docker push box.example:5000/tom/web:1.2";

impl Push {
    /// Returns the exit code.
    pub fn execute(self) -> Result<u8> {
        Ok(error::for_each(&[self.image], |image| {
            let name: Reference = image.parse()?;
            let store = Store::open(&self.state)?;
            let progress = Arc::new(Progress::new(self.quiet));
            push(&store, &name, &self.connection, progress)?;
            if self.quiet { print(&format!("{name}\n")).map(drop) } else { Ok(()) }
        }))
    }
}

// ANCHOR: push
/// Sends the image `name` to the registry that it is named after: first all that its manifest
/// names, and the manifest last. A registry refuses one that names what it does not have.
fn push(store: &Store, name: &Reference, connection: &Connection, progress: Arc<Progress>) -> Result<()> {
    let (Some(tag), None) = (&name.tag, &name.digest) else {
        bail!("{name}: a digest follows from what is in an image, so push it by a tag: NAME:TAG");
    };
    // Nobody removes it meanwhile.
    let _hold = store.hold()?;
    let here = store.find(name)?.with_context(|| {
        format!("there is no image {} here; tiny-docker images lists those there are", name.familiar())
    })?;
    let image = store.image(&here)?;
    let registry = Registry::open(&name.registry, connection, progress.clone())?;
    let elsewhere = elsewhere(store, name)?;
    let upload = Upload { registry: &registry, repository: &name.repository, store, elsewhere: &elsewhere };
    progress.say(&format!("The push refers to repository [{}/{}]", name.registry, name.repository));
    let mut blobs: Vec<&Descriptor> = Vec::new();
    for blob in image.manifest.layers.iter().chain([&image.manifest.config]) {
        if !blobs.iter().any(|known| known.digest == blob.digest) {
            blobs.push(blob);
        }
    }
    parallel::each(&blobs, |blob, stop| {
        let id = &blob.digest.hex()[..12];
        progress.now(id, "Pushing", blob.size);
        match upload.blob(blob, stop, &|sent| progress.is_at(id, sent))? {
            Sent::Already => progress.done(id, "Layer already exists"),
            Sent::Mounted(other) => progress.done(id, &format!("Mounted from {other}")),
            Sent::Pushed => progress.done(id, "Pushed"),
        }
        Ok(())
    })
    .with_context(|| name.to_string())?;
    upload.manifest(&here, &store.read(&here.digest)?, tag).with_context(|| name.to_string())?;
    progress.say(&format!("{tag}: digest: {} size: {}", here.digest, here.size));
    Ok(())
}
// ANCHOR_END: push

/// What other repositories of the same registry have, as far as the names of images here tell: a
/// base image mostly, which was pulled from there.
fn elsewhere(store: &Store, name: &Reference) -> Result<Vec<(Digest, String)>> {
    let mut found = vec![];
    for entry in store.index()?.manifests {
        let Some(Ok(other)) = name_of(&entry).map(|other| other.parse::<Reference>()) else { continue };
        if other.registry != name.registry || other.repository == name.repository {
            continue;
        }
        // One that cannot be read is no reason not to push another.
        let Ok(image) = store.image(&entry) else { continue };
        found.extend(image.manifest.layers.into_iter().map(|layer| (layer.digest, other.repository.clone())));
    }
    Ok(found)
}
