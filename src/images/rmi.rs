//! Day 12: `rmi`, `image prune`, and the command `image`, which has a word for all of them.

use anyhow::bail;
use clap::Subcommand;

use crate::error::{self, COMMAND_FAILED, Result, failed};
use crate::images::collect::{Collected, collect};
use crate::images::digest::Digest;
use crate::images::index::name_of;
use crate::images::list::{Found, History, Images, Tag, all, find, inspect};
use crate::images::reference::Reference;
use crate::images::store::{Store, key};
use crate::metadata::output::{agrees, human, print};
use crate::metadata::record::{Record, Status};
use crate::metadata::state::State;

/// Remove images
#[derive(Debug, clap::Args)]
pub struct Rmi {
    #[command(flatten)]
    state: State,

    /// Also those that containers have, and those that have several names
    #[arg(short, long)]
    force: bool,

    /// Their names or ids
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

impl Rmi {
    /// Returns the exit code: 1 if one could not be removed. With -f, one that is not there is
    /// no failure, as with Docker.
    pub fn execute(self) -> Result<u8> {
        let store = Store::open(&self.state).map_err(failed)?;
        let mut code = 0;
        for word in &self.images {
            let found = match find(&store, word) {
                Ok(found) => found,
                Err(_) if self.forget(&store, word).unwrap_or(false) => continue,
                Err(error) => {
                    error::print(&error);
                    code = if self.force { code } else { COMMAND_FAILED };
                    continue;
                }
            };
            if let Err(error) = self.remove(&store, word, &found) {
                error::print(&error);
                code = COMMAND_FAILED;
            }
        }
        Ok(code)
    }

    /// Takes away a name whose image cannot be read any more. Returns whether there is such a one.
    fn forget(&self, store: &Store, word: &str) -> Result<bool> {
        let name = word.parse::<Reference>()?;
        if store.find(&name)?.is_none() {
            return Ok(false);
        }
        let name = key(&name);
        store.change_index(|index| index.manifests.retain(|entry| name_of(entry) != Some(&name)))?;
        let (lines, _) = freed(store, &self.state, None)?;
        print(&format!("Untagged: {}\n{lines}", familiar(&name))).map(|_| true)
    }

    // ANCHOR: remove
    /// Takes the name away that was given; with the last one, the image goes.
    fn remove(&self, store: &Store, word: &str, found: &Found) -> Result<()> {
        let id = &found.image.id().hex()[..12];
        let names = if found.by_id { found.names.clone() } else { vec![name_given(found, word)?] };
        if found.by_id && names.len() > 1 && !self.force {
            bail!(
                "image {id} has several names, {}; remove one of them, or all: rmi -f {word}",
                names.join(", ")
            );
        }
        let is_last = names.len() == found.names.len();
        let users = if is_last { users(&self.state, found)? } else { vec![] };
        if let Some(user) = users.first().filter(|_| !self.force) {
            let does = if user.status == Status::Running { "runs on" } else { "was made of" };
            bail!(
                "container {} {does} the image {word}; remove it first: tiny-docker rm {}; or take the \
                 image its name away: tiny-docker rmi -f {word}",
                user.title(),
                user.title()
            );
        }
        let digest = found.image.descriptor.digest.clone();
        store.change_index(|index| {
            index.manifests.retain(|entry| {
                !(entry.digest == digest && name_of(entry).is_none_or(|name| names.contains(name)))
            });
        })?;
        let mut text: String = names.iter().map(|name| format!("Untagged: {}\n", familiar(name))).collect();
        if is_last {
            text += &freed(store, &self.state, Some(found.image.id()))?.0;
        }
        print(&text).map(drop)
    }
    // ANCHOR_END: remove
}

/// The name in index.json by which `word` means it.
fn name_given(found: &Found, word: &str) -> Result<String> {
    let name = key(&word.parse::<Reference>()?);
    if found.names.contains(&name) || found.names.is_empty() {
        return Ok(name);
    }
    bail!("{word} has the name {}; remove that", found.names.join(", "))
}

fn familiar(name: &str) -> String {
    name.parse::<Reference>().map_or(name.into(), |name| name.familiar())
}

/// The containers of the image, those that run first.
fn users(state: &State, found: &Found) -> Result<Vec<Record>> {
    let id = found.image.id().to_string();
    let mut records = state.list()?.records;
    records.retain(|record| record.plan.image.as_ref().is_some_and(|used| used.id == id));
    records.sort_by_key(|record| record.status != Status::Running);
    Ok(records)
}

/// Removes what nobody needs any more. Returns a line for each, and the bytes; `id` is the image
/// whose last name has gone.
fn freed(store: &Store, state: &State, id: Option<&Digest>) -> Result<(String, u64)> {
    let Some(Collected { layers, bytes }) = collect(store, state, id.is_none())? else {
        error::say("another command adds an image just now; tiny-docker image prune frees the space later");
        return Ok((String::new(), 0));
    };
    let gone = id.filter(|id| !store.dir_of_blob(id).exists());
    let lines = gone.into_iter().chain(&layers).map(|digest| format!("Deleted: {digest}\n"));
    Ok((lines.collect(), bytes))
}

/// Manage images
#[derive(Debug, clap::Args)]
pub struct ImageCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(alias = "list")]
    Ls(Images),
    #[command(alias = "remove")]
    Rm(Rmi),
    Tag(Tag),
    History(History),
    Inspect(Inspect),
    Prune(Prune),
}

/// Show everything that is known of images, as a JSON array
#[derive(Debug, clap::Args)]
struct Inspect {
    #[command(flatten)]
    state: State,

    /// Their names or ids
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

/// Remove images without a name, and what is left of downloads
#[derive(Debug, clap::Args)]
struct Prune {
    #[command(flatten)]
    state: State,

    /// Also images that have names, if no container was made of them
    #[arg(short, long)]
    all: bool,

    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

impl ImageCommand {
    /// Returns the exit code.
    pub fn execute(self) -> Result<u8> {
        match self.command {
            Command::Ls(images) => images.execute(),
            Command::Rm(rmi) => rmi.execute(),
            Command::Tag(tag) => tag.execute(),
            Command::History(history) => history.execute(),
            Command::Inspect(inspected) => inspect(&inspected.state, &inspected.images),
            Command::Prune(prune) => prune.execute().map_err(failed),
        }
    }
}

impl Prune {
    fn execute(&self) -> Result<u8> {
        let what = if self.all { "all images without a container" } else { "all images without a name" };
        if !self.force && !agrees(what)? {
            return Ok(0);
        }
        let store = Store::open(&self.state)?;
        let mut text = String::new();
        for found in all(&store)? {
            let is_used = !users(&self.state, &found)?.is_empty();
            if is_used || !(self.all || found.names.is_empty()) {
                continue;
            }
            store.change_index(|index| {
                index.manifests.retain(|entry| entry.digest != found.image.descriptor.digest);
            })?;
            text.extend(found.names.iter().map(|name| format!("untagged: {}\n", familiar(name))));
            text += &format!("deleted: {}\n", found.image.id());
        }
        let (lines, bytes) = freed(&store, &self.state, None)?;
        text += &lines.replace("Deleted:", "deleted:");
        if !text.is_empty() {
            text = format!("Deleted Images:\n{text}\n");
        }
        print(&format!("{text}Total reclaimed space: {}\n", human(bytes, 3)))
    }
}
