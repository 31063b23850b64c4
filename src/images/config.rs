//! Day 12: `run --image`: the image's layers become the container's `/`, and its configuration
//! says what the flags do not. (OCI image-spec, config.md and conversion.md)

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::ValueEnum;
use nix::unistd::Pid;

use crate::container::{Container, Defaults, Mechanism};
use crate::error::Result;
use crate::images::progress::Progress;
use crate::images::pull::Wanted;
use crate::images::reference::Reference;
use crate::images::spec::{Descriptor, Settings};
use crate::images::store::{Hold, Image, Store};
use crate::images::{list, pull, unpack};
use crate::layers::mount_flag::nothing;
use crate::metadata::state::State;
use crate::plan::{ImageUsed, MountKind, MountPoint, Plan};
use crate::stop::signals::signal_named;

/// The flags of `run` that day 12 brings.
#[derive(Debug, clap::Args)]
pub struct RunImage {
    /// The image that the container is of: its layers, its command, its environment
    #[arg(long, value_name = "NAME", group = "own_root")]
    image: Option<String>,

    /// When to ask the registry for the image (without it: missing)
    #[arg(long, value_enum, value_name = "WHEN")]
    pull: Option<When>,

    /// What is executed instead of the image's entrypoint; an empty word: nothing before COMMAND
    #[arg(long, value_name = "WORD")]
    entrypoint: Option<OsString>,

    /// A label: it means something to people and to other programs
    #[arg(short, long = "label", value_name = "NAME[=VALUE]")]
    labels: Vec<String>,

    /// The signal that asks the container to end (without it: the image's, or SIGTERM)
    #[arg(long, value_name = "SIGNAL", value_parser = signal_named)]
    stop_signal: Option<i32>,

    /// For which machine it is, and how to reach its registry.
    #[command(flatten)]
    wanted: Wanted,

    /// The image, once it has been fetched; where it is, and by what people know it.
    #[arg(skip)]
    fetched: Option<(Store, Image, String)>,

    /// Until the container's record says that it uses the image, nobody removes it.
    #[arg(skip)]
    hold: Option<Hold>,
}

/// When `run` asks the registry for the image.
#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum When {
    /// Each time: what the name means now
    Always,
    /// If there is none of this name here
    Missing,
    /// At no time: it is an error if there is none
    Never,
}

impl RunImage {
    /// Sees to it that the image is here, with all its layers unpacked. This comes before
    /// anything of the container is made: so Ctrl-C ends a download as it ends any program,
    /// and the threads that download are gone when the runtime clones itself.
    pub fn fetch(&mut self, state: &State) -> Result<()> {
        let Some(word) = &self.image else { return self.nothing_is_said_of_an_image() };
        let name: Reference = word.parse().with_context(|| format!("--image {word:?}"))?;
        let store = Store::open(state)?;
        let (found, familiar) = match self.find(&store, &name)? {
            None if is_id(word) => {
                (list::find(&store, word).ok().map(|found| found.image.descriptor), word.clone())
            }
            found => (found, name.familiar()),
        };
        if self.pull == Some(When::Never) && found.is_none() {
            bail!(
                "--image {word}: there is no such image here, and --pull never keeps it from being pulled; \
                 tiny-docker images lists those that are here"
            );
        }
        let manifest = match found.filter(|_| self.pull != Some(When::Always)) {
            Some(manifest) => manifest,
            None => self.pull(&store, &name).with_context(|| format!("--image {word}"))?,
        };
        let image = store.image(&manifest)?;
        unpack::image(&store, &image)?;
        self.fetched = Some((store, image, familiar));
        Ok(())
    }

    /// What `name` means here. One for another platform than the one that is asked for is none.
    fn find(&self, store: &Store, name: &Reference) -> Result<Option<Descriptor>> {
        let (found, wanted) = (store.find(name)?, &self.wanted.platform);
        let (Some(manifest), Some(wanted)) = (&found, wanted) else { return Ok(found) };
        let suits = wanted.suits(&store.image(manifest)?.config.platform).is_some();
        Ok(found.filter(|_| suits))
    }

    /// (clap's `requires` is satisfied by what excludes --image, such as --rootfs.)
    fn nothing_is_said_of_an_image(&self) -> Result<()> {
        for (flag, is_there) in [("--pull", self.pull.is_some()), ("--entrypoint", self.entrypoint.is_some())]
        {
            if is_there {
                bail!("{flag} says something of an image, and there is none; add --image NAME, or omit it");
            }
        }
        Ok(())
    }

    fn pull(&self, store: &Store, name: &Reference) -> Result<Descriptor> {
        pull::pull(store, name, &self.wanted, Arc::new(Progress::on_stderr()))
    }
}

impl Mechanism for RunImage {
    fn prepare(&mut self, container: &mut Container) -> Result<()> {
        if let Some((store, image, familiar)) = &self.fetched {
            self.hold = Some(store.hold()?);
            let of_image = || format!("image {familiar}");
            container.plan.layers = unpack::visible(layers(store, image).with_context(of_image)?);
            container.plan.image = Some(ImageUsed {
                name: familiar.clone(),
                id: image.id().to_string(),
                manifest: image.descriptor.digest.to_string(),
            });
            let settings = &image.config.config;
            apply(settings, container).with_context(of_image)?;
            container.plan.command = command(&container.plan.command, self.entrypoint.as_deref(), settings)
                .with_context(of_image)?;
        }
        add_labels(&mut container.plan, &self.labels)?;
        container.plan.stop_signal = self.stop_signal.or(container.plan.stop_signal);
        Ok(())
    }

    // By now the record is there, and says which image it needs.
    fn attach(&mut self, _container: &mut Container, _child: Pid) -> Result<()> {
        self.hold = None;
        Ok(())
    }
}

// ANCHOR: layers
/// The directories of the image's layers, the uppermost first, as the overlay wants them. (A
/// manifest names the lowest first.)
fn layers(store: &Store, image: &Image) -> Result<Vec<PathBuf>> {
    // ANCHOR: day12_task4_layers_solution
    let diff_ids = &image.config.rootfs.diff_ids;
    if diff_ids.is_empty() {
        bail!("it has no layers, so there is no file in it that could be executed");
    }
    // The kernel refuses to have a directory twice in an overlay. A layer that comes twice
    // shows nothing, at its lower place, that the upper one does not show.
    let mut seen = BTreeSet::new();
    let uppermost = diff_ids.iter().rev().filter(|diff_id| seen.insert(*diff_id));
    uppermost
        .map(|diff_id| {
            store
                .layer(diff_id)?
                .with_context(|| format!("somebody removed its layer {diff_id} a moment ago; run it again"))
        })
        .collect()
    // ANCHOR_END: day12_task4_layers_solution
}
// ANCHOR_END: layers

// ANCHOR: command
/// What is executed: the entrypoint, and after it what the user typed, or else the image's
/// own Cmd. Whoever replaces the entrypoint does not want the Cmd that belongs to the old one.
/// (docker-run(1), "--entrypoint")
fn command(typed: &[OsString], entrypoint: Option<&OsStr>, image: &Settings) -> Result<Vec<OsString>> {
    // ANCHOR: day12_task4_command_solution
    let words = |words: &[String]| words.iter().map(OsString::from).collect::<Vec<_>>();
    let mut command = match entrypoint {
        Some(word) if word.is_empty() => vec![],
        Some(word) => vec![word.into()],
        None => words(&image.entrypoint),
    };
    if !typed.is_empty() {
        command.extend(typed.iter().cloned());
    } else if entrypoint.is_none() {
        command.extend(words(&image.cmd));
    }
    if command.is_empty() {
        bail!("it does not say what to execute; name a command: tiny-docker run --image NAME COMMAND");
    }
    Ok(command)
    // ANCHOR_END: day12_task4_command_solution
}
// ANCHOR_END: command

// ANCHOR: apply
/// What the image says becomes what the container is where nobody says anything else. The
/// settings are from outside: what cannot be is an error, or is passed over as Docker does it.
fn apply(image: &Settings, container: &mut Container) -> Result<()> {
    // ANCHOR: day12_task4_apply_solution
    // A name alone would get its value from the host.
    let is_set = |setting: &&String| setting.find('=').is_some_and(|at| at > 0);
    container.parts.defaults = Defaults {
        environment: image.env.iter().filter(is_set).map(OsString::from).collect(),
        user: Some(image.user.clone()).filter(|user| !user.is_empty()),
        working_dir: absolute(&image.working_dir, "working directory")?,
        health: image.healthcheck.clone(),
    };
    let plan = &mut container.plan;
    for path in image.volumes.keys() {
        plan.mounts.extend(absolute(path, "volume")?.map(new_volume));
    }
    plan.labels = image.labels.clone();
    plan.exposed_ports = image.exposed_ports.keys().cloned().collect();
    if !image.stop_signal.is_empty() {
        let signal = signal_named(&image.stop_signal).map_err(anyhow::Error::msg);
        plan.stop_signal = Some(signal.with_context(|| format!("its StopSignal {:?}", image.stop_signal))?);
    }
    Ok(())
    // ANCHOR_END: day12_task4_apply_solution
}
// ANCHOR_END: apply

/// A volume of the container's own, at `target`.
fn new_volume(target: PathBuf) -> MountPoint {
    MountPoint { target, anonymous: true, ..nothing(MountKind::Volume) }
}

/// Can this be an id of an image, or its beginning?
fn is_id(word: &str) -> bool {
    let hex = word.strip_prefix("sha256:").unwrap_or(word);
    hex.len() >= 4 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// `path` if it is absolute; `None` if there is none.
fn absolute(path: &str, what: &str) -> Result<Option<PathBuf>> {
    match Path::new(path) {
        path if path.as_os_str().is_empty() => Ok(None),
        path if path.is_absolute() => Ok(Some(path.into())),
        path => bail!("its {what} is {path:?}; expected an absolute path, such as /srv"),
    }
}

/// The user's labels, on top of the image's.
fn add_labels(plan: &mut Plan, labels: &[String]) -> Result<()> {
    for label in labels {
        let (name, value) = label.split_once('=').unwrap_or((label, ""));
        if name.is_empty() {
            bail!("--label {label:?}: the label has no name; expected NAME or NAME=VALUE, such as team=web");
        }
        plan.labels.insert(name.into(), value.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn executed(typed: &[&str], entrypoint: Option<&str>, image: [&[&str]; 2]) -> Option<String> {
        let [its_entrypoint, cmd] = image.map(|words| words.iter().map(|word| word.to_string()).collect());
        let settings = Settings { entrypoint: its_entrypoint, cmd, ..Settings::default() };
        let typed: Vec<OsString> = typed.iter().map(OsString::from).collect();
        let words = command(&typed, entrypoint.map(OsStr::new), &settings).ok()?;
        Some(words.join(OsStr::new(" ")).into_string().unwrap())
    }

    #[test]
    fn what_is_executed_is_what_docker_executes() {
        // Docker's own table: Dockerfile reference, "Understand how CMD and ENTRYPOINT interact".
        let image: [&[&str]; 2] = [&["entry", "-e"], &["cmd", "-c"]];
        for (typed, entrypoint, image, expected) in [
            (&[][..], None, image, Some("entry -e cmd -c")),
            (&["ls", "/"], None, image, Some("entry -e ls /")),
            (&[], Some("sh"), image, Some("sh")),
            (&["-c", "true"], Some("sh"), image, Some("sh -c true")),
            (&["ls"], Some(""), image, Some("ls")),
            (&[], Some(""), image, None),
            (&[], None, [&[], &["cmd"]], Some("cmd")),
            (&["ls"], None, [&[], &["cmd"]], Some("ls")),
            (&[], None, [&["entry"], &[]], Some("entry")),
            (&[], None, [&[], &[]], None),
        ] {
            let said = executed(typed, entrypoint, image);
            assert_eq!(said.as_deref(), expected, "typed {typed:?}, --entrypoint {entrypoint:?}");
        }
    }
}
