//! Day 14: `network create`, `ls`, `inspect`, `rm` and `prune`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use anyhow::{Context, bail};

use crate::error::{self, Result};
use crate::metadata::output::{Format, agrees, print};
use crate::metadata::state::{State, new_id};
use crate::net::bridge;
use crate::net::lock::NetworkLock;
use crate::net::network;
use crate::net::subnet::{self, Lan};
use crate::netns::netlink::Netlink;

use super::connect::{Connect, Disconnect};
use super::members::Members;
use super::pool;
use super::show::{inspect, list};
use super::store::{Definition, RESERVED, Store, check_name};

/// Manage the networks that containers share
#[derive(Debug, clap::Args)]
pub struct NetworkCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    Create(Create),
    Connect(Connect),
    Disconnect(Disconnect),
    /// List networks
    #[command(visible_alias = "list")]
    Ls {
        #[command(flatten)]
        state: State,

        /// Print the ids, and nothing else
        #[arg(short, long)]
        quiet: bool,

        /// How to print them; json: one line for each
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
    /// Show what is known of networks, and who is on them, as a JSON array
    Inspect {
        #[command(flatten)]
        state: State,

        /// Their names or ids
        #[arg(required = true)]
        networks: Vec<String>,
    },
    /// Remove networks that no running container is on; without a name, the bridge that is
    /// always there, which the next run makes again
    #[command(visible_alias = "remove")]
    Rm {
        #[command(flatten)]
        bridge: network::Rm,

        /// That there is no such network is no error
        #[arg(short, long)]
        force: bool,

        /// Their names or ids
        networks: Vec<String>,
    },
    /// Remove the networks that no container has
    Prune {
        #[command(flatten)]
        state: State,

        /// Do not ask
        #[arg(short, long)]
        force: bool,
    },
}

/// Make a network
#[derive(Debug, clap::Args)]
struct Create {
    #[command(flatten)]
    state: State,

    /// Its containers' subnet (without it: one that nobody has)
    #[arg(long, value_name = "ADDRESS/BITS")]
    subnet: Option<String>,

    /// The host's address on it (without it: the subnet's first)
    #[arg(long, value_name = "ADDRESS")]
    gateway: Option<Ipv4Addr>,

    /// Nothing leaves it, and nothing comes in: its containers have each other, and the host
    #[arg(long)]
    internal: bool,

    /// Something to remember of it: NAME=VALUE
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<String>,

    /// What it is made of: a bridge, and nothing else
    #[arg(short, long, value_name = "DRIVER", default_value = "bridge")]
    driver: String,

    /// Its name
    name: String,
}

impl NetworkCommand {
    /// Does it, and prints what Docker prints. Returns the exit code.
    pub fn execute(self) -> Result<u8> {
        match self.action {
            Action::Create(create) => create.execute(),
            Action::Connect(connect) => connect.execute(),
            Action::Disconnect(disconnect) => disconnect.execute(),
            Action::Ls { state, quiet, format } => list(&state, quiet, format),
            Action::Inspect { state, networks } => inspect(&state, &networks),
            // Day 9's, with its exit codes.
            Action::Rm { bridge, networks, .. } if networks.is_empty() => return bridge.execute(),
            Action::Rm { bridge, force, networks } => {
                let store = Store::of(bridge.state());
                Ok(error::for_each(&networks, |word| {
                    if !remove(&store, word)? && !force {
                        bail!("no such network: {word:?}; tiny-docker network ls lists those there are");
                    }
                    print(&format!("{word}\n")).map(drop)
                }))
            }
            Action::Prune { state, force } => prune(&state, force),
        }
        .map_err(error::failed)
    }
}

impl Create {
    fn execute(&self) -> Result<u8> {
        let name = &self.name;
        check_name(name)?;
        if RESERVED.contains(&name.as_str()) {
            bail!("network {name:?}: the name means something else already; choose another");
        }
        if self.driver != "bridge" {
            bail!("--driver {:?}: expected bridge, which is all there is here; omit it", self.driver);
        }
        let labels = self.labels()?;
        let store = Store::of(&self.state);
        let netlink = Netlink::open()?;
        let lock = NetworkLock::take()?;
        if let Some(other) = store.find(name)?.filter(|other| other.name == *name) {
            bail!(
                "there is a network {name} already, {} ({}); choose another name, or remove that one: \
                 tiny-docker network rm {name}",
                other.id,
                other.subnet
            );
        }
        let networks = store.list()?.0;
        let (id, bridge) = new_bridge(&networks, &netlink)?;
        let lan = self.lan(bridge, &pool::taken(&networks, &netlink)?)?;
        let network = Definition::new(id, name, &lan, labels);
        store.write(&lock, &network)?;
        if let Err(error) = bridge::ensure(&lock, &lan, &netlink, |_| Ok(())) {
            let _ = store.forget(&lock, name);
            return Err(error);
        }
        print(&format!("{}\n", network.id))
    }

    fn lan(&self, bridge: String, taken: &[pool::Taken]) -> Result<Lan> {
        let (network, bits) = match &self.subnet {
            Some(text) => subnet::parse(text)?,
            None if self.gateway.is_some() => {
                bail!(
                    "--gateway: it is an address of a subnet, and none was given; add --subnet ADDRESS/BITS"
                )
            }
            None => pool::choose(taken)?,
        };
        let mut lan = Lan {
            name: Some(self.name.clone()),
            internal: self.internal,
            ..Lan::new(&bridge, network, bits)
        };
        pool::check(&lan, taken)?;
        if let Some(gateway) = self.gateway.filter(|gateway| *gateway != lan.gateway) {
            if lan.check(gateway).is_err() {
                bail!(
                    "--gateway {gateway}: expected an address of {network}/{bits}, but not its first, nor its last"
                );
            }
            lan.gateway = gateway;
        }
        Ok(lan)
    }

    fn labels(&self) -> Result<BTreeMap<String, String>> {
        let split = |label: &String| {
            let (name, value) = label.split_once('=').unwrap_or((label, ""));
            if name.is_empty() {
                bail!("--label {label:?}: expected NAME=VALUE, such as stage=test");
            }
            Ok((name.to_string(), value.to_string()))
        };
        self.label.iter().map(split).collect()
    }
}

/// An id, and the name of a bridge that follows from it, which no network and no interface has.
/// The number of a container comes behind it, and the kernel takes 15 bytes. (day 9)
fn new_bridge(networks: &[Definition], netlink: &Netlink) -> Result<(String, String)> {
    loop {
        let id = new_id()?;
        let bridge = format!("td-{}", &id[..6]);
        let is_known = networks.iter().any(|network| network.bridge == bridge || network.id == id);
        if !is_known && bridge::find_link(netlink, &bridge)?.is_none() {
            return Ok((id, bridge));
        }
    }
}

/// Why a network is not removed.
#[derive(Debug, thiserror::Error)]
#[error(
    "network {network} is in use by {by}; stop them, or disconnect them: tiny-docker network disconnect {network} CONTAINER"
)]
struct InUse {
    network: String,
    by: String,
}

// ANCHOR: rm
/// Removes the network `word`, if no container is on it. Returns whether there was one.
fn remove(store: &Store, word: &str) -> Result<bool> {
    if RESERVED.contains(&word) {
        bail!(
            "network {word} is always there, and cannot be removed; its bridge can: tiny-docker network rm"
        );
    }
    let lock = NetworkLock::take()?;
    let Some(network) = store.find(word)? else { return Ok(false) };
    take_away(store, lock, &network)?;
    Ok(true)
}

/// First the bridge, then the file: what is killed in between leaves a network that has no
/// bridge yet.
fn take_away(store: &Store, lock: NetworkLock, network: &Definition) -> Result<()> {
    // ANCHOR: day14_task5_take_away_solution
    let members = Members::of(&lock, network)?.members;
    if !members.is_empty() {
        let names: Vec<&str> = members.iter().map(|(id, member)| member.title(id)).collect();
        return Err(InUse { network: network.name.clone(), by: names.join(", ") }.into());
    }
    network::take_down(&lock, &network.bridge).with_context(|| format!("network {}", network.name))?;
    store.forget(&lock, &network.name)?;
    lock.forget_addresses(&network.bridge);
    Ok(())
    // ANCHOR_END: day14_task5_take_away_solution
}
// ANCHOR_END: rm

fn prune(state: &State, force: bool) -> Result<u8> {
    if !force && !agrees("all custom networks not used by at least one container")? {
        bail!("network prune has been cancelled");
    }
    let store = Store::of(state);
    let (mut removed, mut code) = (String::new(), 0);
    // One that has ended may be started again.
    let records = state.list()?.records;
    let used: BTreeSet<&str> = records
        .iter()
        .flat_map(|record| &record.plan.networks)
        .map(|attachment| attachment.network.as_str())
        .collect();
    for network in store.list()?.0.into_iter().filter(|network| !used.contains(network.name.as_str())) {
        let lock = NetworkLock::take()?;
        // Somebody else may have been faster.
        if store.find(&network.name)?.is_none_or(|found| found.id != network.id) {
            continue;
        }
        match take_away(&store, lock, &network) {
            Ok(()) => removed += &format!("{}\n", network.name),
            Err(error) if error.downcast_ref::<InUse>().is_some() => {}
            Err(error) => {
                error::print(&error);
                code = error::COMMAND_FAILED;
            }
        }
    }
    if !removed.is_empty() {
        print(&format!("Deleted Networks:\n{removed}"))?;
    }
    Ok(code)
}
