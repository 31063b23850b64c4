//! Day 14: what networks there are, on the disk.
//!
//! ```text
//! /var/lib/tiny-docker/networks/<name>.json                       what it is: it never changes
//! /run/tiny-docker/net/<namespace>/<bridge>/members.json          who is on it: see `members`
//! ```
//!
//! A network is a file, which survives a boot. Its bridge does not: it is made again for the
//! first container that starts. So a process that is killed between the two leaves nothing
//! that is half there: the file is written before the bridge is made, and removed after it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::explain::{shell, step};
use crate::metadata::layout::make_private;
use crate::metadata::state::State;
use crate::net::lock::NetworkLock;
use crate::net::subnet::{self, Lan};

use super::DAY;

/// Of the files that this program writes, and the newest that it reads.
const VERSION: u32 = 1;

/// No file of a network is longer, in bytes.
const LONGEST: u64 = 1 << 20;

/// Networks that nobody can make, for their names mean something else.
pub const RESERVED: [&str; 5] = ["bridge", "host", "none", "isolated", "default"];

/// What a network is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Definition {
    /// [`VERSION`].
    pub version: u32,
    /// 12 hexadecimal digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// As `--subnet` has it.
    pub subnet: String,
    /// The host's address on its bridge.
    pub gateway: Ipv4Addr,
    /// Whether nothing leaves it.
    pub internal: bool,
    /// Its bridge's name.
    pub bridge: String,
    /// From `--label`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

impl Definition {
    /// What is to be made.
    pub fn new(id: String, name: &str, lan: &Lan, labels: BTreeMap<String, String>) -> Definition {
        Definition {
            version: VERSION,
            id,
            name: name.into(),
            created_at: Timestamp::now(),
            subnet: format!("{}/{}", lan.network, lan.bits),
            gateway: lan.gateway,
            internal: lan.internal,
            bridge: lan.bridge.clone(),
            labels,
        }
    }

    /// The same, as day 9 knows a network.
    pub fn lan(&self) -> Result<Lan> {
        let (network, bits) = subnet::parse(&self.subnet)?;
        Ok(Lan {
            gateway: self.gateway,
            name: Some(self.name.clone()),
            internal: self.internal,
            ..Lan::new(&self.bridge, network, bits)
        })
    }
}

/// The networks of a state directory.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// Those of `state`.
    pub fn of(state: &State) -> Store {
        Store { dir: state.path().join("networks") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.json"))
    }

    /// The network `name`.
    pub fn get(&self, name: &str) -> Result<Definition> {
        self.find(name)?.with_context(|| {
            format!(
                "no such network: {name:?}; tiny-docker network ls lists those there are, and \
                 tiny-docker network create {name} makes it"
            )
        })
    }

    /// The network whose name or id is `word`; `None`: there is none.
    pub fn find(&self, word: &str) -> Result<Option<Definition>> {
        // What is no name could be a path to something else.
        if check_name(word).is_ok()
            && let Some(found) = read(&self.path(word))?
        {
            return Ok(Some(found));
        }
        let by_id = |network: &Definition| word.len() >= 2 && network.id.starts_with(word);
        let mut found = self.list()?.0.into_iter().filter(by_id);
        match (found.next(), found.next()) {
            (Some(one), Some(other)) => bail!(
                "{word:?} begins the ids of several networks, {} and {} among them; give more digits",
                one.name,
                other.name
            ),
            (found, _) => Ok(found),
        }
    }

    /// All of them, by name; and a line for each thing there that is none.
    pub fn list(&self) -> Result<(Vec<Definition>, Vec<String>)> {
        let (mut networks, mut complaints) = (Vec::new(), Vec::new());
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok((networks, complaints)),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                return Err(error).with_context(|| {
                    format!("read {:?}; it belongs to whoever runs containers: try sudo", self.dir)
                });
            }
            entries => entries.with_context(|| format!("read {:?}", self.dir))?,
        };
        for entry in entries {
            let path = entry.with_context(|| format!("read {:?}", self.dir))?.path();
            // One that ends otherwise is being written, or was when its writer was killed.
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match read(&path) {
                Ok(found) => networks.extend(found),
                Err(error) => complaints.push(format!("{error:#}; skipped")),
            }
        }
        networks.sort_by(|one, other| one.name.cmp(&other.name));
        Ok((networks, complaints))
    }

    /// Writes down that there is a network, as a whole or not at all, and waits for the disk: a
    /// network that somebody has made is there after a power cut. (rename(2), fsync(2))
    pub fn write(&self, _lock: &NetworkLock, network: &Definition) -> Result<()> {
        make_private(&self.dir)?;
        self.sweep();
        let (file, new) = (self.path(&network.name), self.dir.join(format!("{}.new", network.name)));
        let mut text = serde_json::to_vec_pretty(network)?;
        text.push(b'\n');
        if text.len() as u64 > LONGEST {
            bail!("network {} has labels of more than {LONGEST} bytes; give it fewer", network.name);
        }
        let describe =
            || (format!("rename({new:?}, {file:?})"), format!("mv {} {}", shell(&new), shell(&file)));
        let written = step(DAY, describe, || {
            let mut opened =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            opened.write_all(&text)?;
            opened.sync_all()?;
            fs::rename(&new, &file)?;
            File::open(&self.dir)?.sync_all()
        });
        if written.is_err() {
            let _ = fs::remove_file(&new);
        }
        written
    }

    /// Forgets the network `name`. Its bridge is gone already.
    pub fn forget(&self, _lock: &NetworkLock, name: &str) -> Result<()> {
        let file = self.path(name);
        let describe = || (format!("unlink({file:?})"), format!("rm {}", shell(&file)));
        step(DAY, describe, || match fs::remove_file(&file) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        })
    }

    /// Removes what writers that were killed have left. (They hold the network's lock.)
    fn sweep(&self) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "new") {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// The network in the file `path`; `None`: there is no such file.
fn read(path: &Path) -> Result<Option<Definition>> {
    let length = match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        found => found.with_context(|| format!("look at {path:?}"))?.len(),
    };
    if length > LONGEST {
        bail!("{path:?}: expected the file of a network, of at most {LONGEST} bytes, and it has {length}");
    }
    let text = match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        text => text.with_context(|| format!("read {path:?}"))?,
    };
    let what = || format!("{path:?}: expected the file of a network; remove it, and make the network anew");
    let network: Definition = serde_json::from_slice(&text).with_context(what)?;
    if network.version > VERSION {
        bail!(
            "{path:?} is of version {}, and this program reads up to {VERSION}; use a newer one",
            network.version
        );
    }
    let named = path.file_stem().is_some_and(|stem| stem == network.name.as_str());
    if !named || check_name(&network.name).is_err() {
        bail!("{path:?} is about a network {:?}; rename it, or remove it", network.name);
    }
    network.lan().with_context(what)?;
    Ok(Some(network))
}

/// Docker's rule for names.
pub fn check_name(name: &str) -> Result<()> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !(1..=64).contains(&name.len()) || !begins || !name.chars().all(fine) {
        bail!(
            "network {name:?}: expected 1 to 64 letters, digits, '_', '.' and '-', the first a letter \
             or digit, such as backend"
        );
    }
    Ok(())
}
