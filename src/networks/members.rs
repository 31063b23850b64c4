//! Day 14: who is on a network, at this moment.
//!
//! A list for each bridge, beside the locks on its addresses: it lives as long as the boot, as
//! the bridge does. Whoever changes it holds the network's lock, and replaces it as a whole;
//! whoever reads it needs no lock. Nothing has to be undone after a SIGKILL: a member is one
//! only as long as its process runs, and whoever reads the list looks.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::explain::step;
use crate::metadata::record::{Identity, boot_id};
use crate::net::lock::{NetworkLock, make_private};

use super::DAY;
use super::store::Definition;

const FILE: &str = "members.json";

/// The containers on one network.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Members {
    /// The network's name.
    pub network: String,
    /// Whether nothing leaves it.
    pub internal: bool,
    /// The host's address on it.
    pub gateway: Option<Ipv4Addr>,
    /// Each by its id.
    pub members: BTreeMap<String, Member>,
}

/// A container on a network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Member {
    /// From `--name`.
    pub name: Option<String>,
    /// What else it is called on this network.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its end of the cable, as it is known inside.
    pub interface: String,
    /// Its first process.
    pub process: Identity,
    /// Of which boot that is.
    pub boot_id: String,
}

impl Member {
    /// Whether its container runs. "Cannot tell" is an error.
    pub fn runs(&self) -> Result<bool> {
        Ok(self.boot_id == boot_id()? && self.process.process()?.is_some())
    }

    /// Whether it is called `name`, in any case. (RFC 4343)
    pub fn is_called(&self, id: &str, name: &str) -> bool {
        let names = self.name.iter().chain(&self.aliases).map(String::as_str);
        names.chain([id]).any(|one| one.eq_ignore_ascii_case(name))
    }

    /// For people: its name, or else its id.
    pub fn title<'a>(&'a self, id: &'a str) -> &'a str {
        self.name.as_deref().unwrap_or(id)
    }
}

impl Members {
    /// Those of the network `network`, without those that have ended.
    pub fn of(lock: &NetworkLock, network: &Definition) -> Result<Members> {
        Members::in_dir(&lock.addresses(&network.bridge), network)
    }

    /// The same, for somebody who changes nothing.
    pub fn now(network: &Definition) -> Result<Members> {
        Members::in_dir(&NetworkLock::place()?.join(&network.bridge), network)
    }

    fn in_dir(dir: &Path, network: &Definition) -> Result<Members> {
        let found = read(dir)?.unwrap_or_default();
        let mut members = Members {
            network: network.name.clone(),
            internal: network.internal,
            gateway: Some(network.gateway),
            members: BTreeMap::new(),
        };
        for (id, member) in found.members {
            if member.runs()? {
                members.members.insert(id, member);
            }
        }
        Ok(members)
    }

    /// Replaces the list of the bridge `bridge`.
    pub fn write(&self, lock: &NetworkLock, bridge: &str) -> Result<()> {
        let dir = lock.addresses(bridge);
        make_private(&dir)?;
        let (file, new) = (dir.join(FILE), dir.join("members.json.new"));
        let text = serde_json::to_vec_pretty(self)?;
        let names: Vec<&str> = self.members.iter().map(|(id, member)| member.title(id)).collect();
        let describe = || {
            let call = format!("write {file:?}: {}", names.join(", "));
            (call, format!("mv {FILE}.new {FILE}"))
        };
        step(DAY, describe, || {
            fs::write(&new, &text)?;
            fs::rename(&new, &file)
        })
    }
}

/// The list in the directory `dir` of a bridge; `None`: it has none.
fn read(dir: &Path) -> Result<Option<Members>> {
    let file = dir.join(FILE);
    let text = match fs::read(&file) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        text => text.with_context(|| format!("read {file:?}"))?,
    };
    let list = serde_json::from_slice(&text);
    list.map(Some).with_context(|| format!("{file:?}: expected the members of a network; remove it"))
}

/// The lists of all networks that the container `id` is on, by the name of its interface there:
/// eth0 first. `place` is the directory of this host's networks.
pub fn networks_of(place: &Path, id: &str) -> Result<Vec<(PathBuf, Members)>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(place) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(found),
        entries => entries.with_context(|| format!("read {place:?}"))?,
    };
    for entry in entries {
        let dir = entry.with_context(|| format!("read {place:?}"))?.path();
        if let Some(list) = read(&dir)?.filter(|list| list.members.contains_key(id)) {
            found.push((dir, list));
        }
    }
    let number = |list: &Members| {
        let interface = &list.members[id].interface;
        interface.trim_start_matches("eth").parse::<u32>().unwrap_or(u32::MAX)
    };
    found.sort_by_key(|(_, list)| number(list));
    Ok(found)
}
