//! Day 11: `volume create`, `ls`, `inspect`, `rm` and `prune`; and `rm -v`.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, bail};
use jiff::Timestamp;
use serde::Serialize;

use crate::error::{self, Result};
use crate::layers::mount_flag::volume_name;
use crate::layers::volume_store::{DATA, InUse, Store, Volume};
use crate::metadata::output::{agrees, columns, human, print};
use crate::metadata::ps;
use crate::metadata::record::Record;
use crate::metadata::state::State;

/// Manage volumes: directories that are kept for containers
#[derive(Debug, clap::Args)]
pub struct VolumeCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make a volume, if there is none of that name
    Create {
        #[command(flatten)]
        state: State,

        /// Its name; without one it gets 64 hexadecimal digits
        name: Option<String>,
    },
    /// List volumes
    #[command(visible_alias = "list")]
    Ls {
        #[command(flatten)]
        state: State,

        /// Print the names, and nothing else
        #[arg(short, long)]
        quiet: bool,
    },
    /// Show what is known of volumes, as a JSON array
    Inspect {
        #[command(flatten)]
        state: State,

        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Remove volumes that no container has, and all that is in them
    #[command(visible_alias = "remove")]
    Rm {
        #[command(flatten)]
        state: State,

        /// That there is no such volume is no error
        #[arg(short, long)]
        force: bool,

        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Remove the volumes without a name that no container has
    Prune {
        #[command(flatten)]
        state: State,

        /// Those with a name as well
        #[arg(short, long)]
        all: bool,

        /// Do not ask
        #[arg(short, long)]
        force: bool,
    },
}

impl VolumeCommand {
    /// Does it, and prints what Docker prints. Returns the exit code.
    pub fn execute(self) -> Result<u8> {
        match self.action {
            Action::Create { state, name } => create(state, name.as_deref()),
            Action::Ls { state, quiet } => list(state, quiet),
            Action::Inspect { state, names } => inspect(state, &names),
            Action::Rm { state, force, names } => {
                let store = Store::open(state)?;
                Ok(error::for_each(&names, |name| {
                    if !store.remove(name, None)? && !force {
                        bail!("no such volume: {name:?}; tiny-docker volume ls lists those there are");
                    }
                    print(&format!("{name}\n")).map(drop)
                }))
            }
            Action::Prune { state, all, force } => prune(state, all, force),
        }
        .map_err(error::failed)
    }
}

fn create(state: State, name: Option<&str>) -> Result<u8> {
    let name = name.map(|name| volume_name(name.as_ref())).transpose()?;
    let store = Store::open(state)?;
    let held = match name {
        Some(name) => store.hold(&name)?,
        None => store.make_anonymous()?.publish(&store)?.context("another process has removed it")?,
    };
    print(&format!("{}\n", held.volume.name))
}

fn list(state: State, quiet: bool) -> Result<u8> {
    let (volumes, complaints) = Store::open(state)?.list()?;
    complaints.iter().for_each(error::say);
    if quiet {
        return print(&volumes.iter().map(|volume| format!("{}\n", volume.name)).collect::<String>());
    }
    let rows: Vec<Vec<String>> =
        volumes.into_iter().map(|volume| vec!["local".into(), volume.name]).collect();
    print(&columns(&["DRIVER", "VOLUME NAME"], &rows))
}

/// A volume as Docker's `volume inspect` shows it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shown {
    created_at: Timestamp,
    driver: &'static str,
    labels: Option<BTreeMap<&'static str, &'static str>>,
    mountpoint: String,
    name: String,
    options: Option<()>,
    scope: &'static str,
}

impl Shown {
    fn new(volume: Volume) -> Result<Shown> {
        Ok(Shown {
            created_at: volume.created_at()?,
            driver: "local",
            mountpoint: volume.dir.join(DATA).to_string_lossy().into_owned(),
            labels: volume.anonymous.then(|| BTreeMap::from([("com.docker.volume.anonymous", "")])),
            name: volume.name,
            options: None,
            scope: "local",
        })
    }
}

fn inspect(state: State, names: &[String]) -> Result<u8> {
    let store = Store::open(state)?;
    let mut shown = Vec::new();
    let code = error::for_each(names, |name| {
        let found = store.find(name)?;
        let volume = found.with_context(|| {
            format!("no such volume: {name:?}; tiny-docker volume ls lists those there are")
        })?;
        shown.push(Shown::new(volume)?);
        Ok(())
    });
    print(&(serde_json::to_string_pretty(&shown)? + "\n"))?;
    Ok(code)
}

fn prune(state: State, all: bool, force: bool) -> Result<u8> {
    let which = if all { "all local volumes" } else { "anonymous local volumes" };
    if !force && !agrees(&format!("{which} not used by at least one container"))? {
        bail!("volume prune has been cancelled");
    }
    let store = Store::open(state)?;
    let (mut removed, mut bytes) = (String::new(), 0);
    for volume in store.list()?.0.into_iter().filter(|volume| all || volume.anonymous) {
        let size = size_of(&volume.dir.join(DATA), &mut HashSet::new());
        match store.remove(&volume.name, None) {
            Ok(true) => {
                removed += &format!("{}\n", volume.name);
                bytes += size;
            }
            Ok(false) => {}
            Err(error) if error.downcast_ref::<InUse>().is_some() => {}
            Err(error) => error::print(&error),
        }
    }
    if !removed.is_empty() {
        removed = format!("Deleted Volumes:\n{removed}\n");
    }
    print(&format!("{removed}Total reclaimed space: {}\n", human(bytes, 4)))
}

/// The bytes of all files below `dir`, each counted once however many names it has.
fn size_of(dir: &Path, seen: &mut HashSet<(u64, u64)>) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let found = entries.filter_map(|entry| Some((entry.metadata().ok()?, entry.path())));
    found
        .map(|(found, path)| match found.is_dir() {
            true => size_of(&path, seen),
            false if seen.insert((found.dev(), found.ino())) => found.len(),
            false => 0,
        })
        .sum()
}

/// Remove containers, and everything that is remembered about them
#[derive(Debug, clap::Args)]
pub struct RemoveWithVolumes {
    #[command(flatten)]
    rm: ps::Rm,

    /// Remove their volumes that have no name too
    #[arg(short, long)]
    volumes: bool,
}

impl RemoveWithVolumes {
    /// Prints what it removed. Returns the exit code: 1 if one could not be.
    pub fn execute(self) -> Result<u8> {
        // Before they are gone; and their volumes after, for until then they are in use.
        let records = if self.volumes { self.rm.records() } else { vec![] };
        let state = self.rm.state().clone();
        let code = self.rm.execute()?;
        let gone = records.iter().filter(|record| !state.is_there(&record.id));
        Ok(gone.fold(code, |code, record| code.max(remove_volumes_of(&state, record))))
    }
}

/// Removes the volumes that were made for this container. That another one has begun to use
/// such a volume, by its name, is no error: it stays.
fn remove_volumes_of(state: &State, record: &Record) -> u8 {
    let its_own = record.plan.mounts.iter().filter(|point| point.anonymous);
    let names: Vec<String> = its_own.filter_map(|point| point.name.clone()).collect();
    error::for_each(&names, |name| match Store::open(state.clone())?.remove(name, None) {
        Err(error) if error.downcast_ref::<InUse>().is_none() => Err(error),
        _ => Ok(()),
    })
}
