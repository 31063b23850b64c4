//! Day 14: networks that somebody has made. *Can containers find each other by name?*
//!
//! ```text
//!  front ══ td-3f2a91 (front) ══ server ══ td-77c0de (back) ══ db        eth0, eth1 of server
//!                                  │
//!                       "db?" to 127.0.0.11:53, answered by server's own `run`
//! ```
//!
//! A network is a bridge of its own, with its own subnet and its own rules: what a rule lets in
//! is only what its own bridge asked for, so two networks are as far apart as two machines.
//!
//! **Names.** Each container on such a network has a small name server: a thread of the process
//! that looks after it, which listens *inside* the container's network namespace. For each
//! question it reads who is on the network at that moment (`members`), and looks whether they
//! run. The other way would be to write everybody's names into everybody's /etc/hosts. It was
//! not taken, for three reasons. A file is right only as long as somebody is there to correct
//! it, and after SIGKILL nobody is: a dead container's name would stay in all of them. To start
//! the hundredth container would be to write a hundred files. And the file is the container's
//! own: it may be changing it at that moment. A question, in contrast, is answered from what is
//! true when it is asked; and with the process that answers, its socket goes too.

pub mod answers;
pub mod cable;
pub mod command;
pub mod connect;
pub mod flag;
pub mod inside;
pub mod members;
pub mod message;
pub mod names;
pub mod pool;
pub mod server;
pub mod show;
pub mod store;
pub mod tcp;

use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;

use anyhow::{Context, bail};
use nix::unistd::Pid;

use crate::container::{Container, Mechanism, Wire};
use crate::error::Result;
use crate::metadata::layout::root_of;
use crate::metadata::record::{Identity, boot_id};
use crate::metadata::state::State;
use crate::net::address::{self, Lease};
use crate::net::bridge;
use crate::net::lock::NetworkLock;
use crate::netns::etc;
use crate::netns::netlink::Netlink;
use crate::plan::{Attachment, Network};

use self::answers::Answers;
use self::cable::{Cable, ensure_default_route};
use self::inside::Sockets;
use self::members::{Member, Members, networks_of};
use self::names::Names;
use self::server::Server;
use self::store::{Definition, Store};

const DAY: u8 = 14;

/// The mechanism of a container that is on networks which somebody has made. The flags are
/// day 8's and day 9's.
#[derive(Debug, Default)]
pub struct UserNetworks {
    /// What is to be connected. In the parent, until that is done; in the child its copy.
    plugs: Vec<Plug>,
    /// To the kernel, for this process's namespace.
    netlink: Option<Netlink>,
    /// By which the child hands over the sockets of its name server: our end, and the child's.
    line: Option<(UnixStream, UnixStream)>,
    /// Parent: answers the container's questions for names.
    server: Option<Server>,
    /// Parent, once it is connected: whether it is on the list of any network.
    joined: bool,
}

/// One network of a container that is about to start.
#[derive(Debug)]
struct Plug {
    network: Definition,
    aliases: Vec<String>,
    cable: Cable,
    lease: Lease,
}

// ANCHOR: mechanism
impl Mechanism for UserNetworks {
    fn prepare(&mut self, container: &mut Container) -> Result<()> {
        if container.plan.network != Some(Network::User) || container.plan.networks.is_empty() {
            return Ok(());
        }
        // --ip is for the first one.
        let ip = container.plan.ip;
        if let Some(first) = container.plan.networks.first_mut() {
            if first.ip.is_some() && ip.is_some() && first.ip != ip {
                bail!("--ip, and another ip in --net {}: it has one address there; omit one", first.network);
            }
            first.ip = first.ip.or(ip);
        }
        if container.parts.only_made {
            return Ok(());
        }
        let store = Store::of(&state_of(container)?);
        let netlink = Netlink::open()?;
        // One lock from the first look to the last lease, as on day 9.
        let lock = NetworkLock::take()?;
        for (number, attachment) in container.plan.networks.iter().enumerate() {
            let network = store.get(&attachment.network)?;
            let plug = plug(&lock, &netlink, network, attachment, format!("eth{number}"));
            self.plugs.push(plug.with_context(|| format!("network {}", attachment.network))?);
        }
        drop(lock);
        // What is published leads to where the world is reached from.
        let main = self.plugs.iter().find(|plug| !plug.network.internal).or(self.plugs.first());
        container.parts.address = main.map(|plug| plug.lease.address);
        container.parts.wire = main.filter(|plug| !plug.network.internal).map(|plug| {
            let Cable { lan, address, .. } = &plug.cable;
            Wire { cable: lan.veth(*address), subnet: (lan.network, lan.bits) }
        });
        self.netlink = Some(netlink);
        self.line = Some(UnixStream::pair().context("make a socket pair")?);
        let hosts = self.hosts(etc::hostname(container));
        etc::write(container, vec![("hosts", hosts), ("resolv.conf", resolv_conf()?)])
    }

    fn attach(&mut self, container: &mut Container, child: Pid) -> Result<()> {
        let Some(netlink) = self.netlink.take() else { return Ok(()) };
        for plug in &self.plugs {
            plug.cable.plug_in(&netlink, child)?;
        }
        if self.plugs.len() > 1 {
            connect::be_no_router(container.parts.id.as_deref().unwrap_or_default(), child)?;
        }
        self.join(container, child)
    }

    fn enter(&mut self, container: &mut Container) -> Result<()> {
        if self.plugs.is_empty() {
            return Ok(());
        }
        // Its ends of the cables are there then.
        container.parts.pass_the_gate()?;
        let netlink = Netlink::inside()?;
        for plug in &self.plugs {
            plug.cable.configure(&netlink)?;
        }
        let way_out = self.plugs.iter().find(|plug| !plug.network.internal);
        way_out.map_or(Ok(()), |plug| ensure_default_route(&netlink, plug.network.gateway))?;
        let (_, line) = self.line.as_ref().context("there is no line to the runtime")?;
        Sockets::open()?.send(line)
    }

    fn started(&mut self, container: &mut Container, _child: Pid) -> Result<()> {
        let Some((line, theirs)) = self.line.take() else { return Ok(()) };
        // If the child was killed before it sent anything, this is its end.
        drop(theirs);
        let id = container.parts.id.clone().context("the container has no id")?;
        let names = Names { place: NetworkLock::place()?, container: id };
        let answers = Answers::new(names, container.plan.dns.clone());
        self.server = Some(Server::start(Sockets::receive(&line)?, answers)?);
        Ok(())
    }

    fn cleanup(&mut self, container: &mut Container) -> Result<()> {
        (self.server, self.line) = (None, None);
        self.plugs.clear();
        if std::mem::take(&mut self.joined) { leave(container) } else { Ok(()) }
    }
}
// ANCHOR_END: mechanism

impl UserNetworks {
    /// The text of the file: the container's name, on each of its networks.
    fn hosts(&self, hostname: &str) -> Vec<u8> {
        let mut addresses = self.plugs.iter().map(|plug| plug.lease.address);
        let first = addresses.next().map(|address| address.to_string()).unwrap_or_default();
        let mut text = etc::hosts(&first, hostname);
        text.extend(addresses.flat_map(|address| format!("{address}\t{hostname}\n").into_bytes()));
        text
    }

    /// Writes down that the container is on its networks, before its command runs: whoever it
    /// talks to can find it.
    fn join(&mut self, container: &Container, child: Pid) -> Result<()> {
        let id = container.parts.id.clone().context("the container has no id")?;
        let name = name_of(container)?;
        let process = Identity::of(child.as_raw())?.context("the container ended before it was ready")?;
        let lock = NetworkLock::take()?;
        self.joined = true;
        // With the list the lock on the address has done its work: whoever looks for a free one
        // looks there too.
        for plug in self.plugs.drain(..) {
            let mut members = Members::of(&lock, &plug.network)?;
            members.members.insert(id.clone(), plug.member(name.clone(), process)?);
            members.write(&lock, &plug.network.bridge)?;
        }
        Ok(())
    }
}

impl Plug {
    /// A container, called `name` and with this first process, as the list of its network has it.
    fn member(&self, name: Option<String>, process: Identity) -> Result<Member> {
        Ok(Member {
            name,
            aliases: self.aliases.clone(),
            address: self.lease.address,
            interface: self.cable.inside.clone(),
            process,
            boot_id: boot_id()?.into(),
        })
    }
}

/// The text of the file: the name server of the container's own, and what else the host says of
/// names. A name without a dot is asked for as it is, first of all: it is a container's, most
/// likely. (resolv.conf(5), "ndots")
fn resolv_conf() -> Result<Vec<u8>> {
    let mut text = format!("nameserver {}\n", inside::ADDRESS).into_bytes();
    for line in etc::host_file("/etc/resolv.conf")?.split(|byte| *byte == b'\n') {
        if ["search", "domain", "options"].iter().any(|word| line.starts_with(word.as_bytes())) {
            text.extend_from_slice(line);
            text.push(b'\n');
        }
    }
    text.extend(b"options ndots:0\n");
    Ok(text)
}

/// Sees to the bridge of `network`, and takes an address on it.
fn plug(
    lock: &NetworkLock,
    netlink: &Netlink,
    network: Definition,
    attachment: &Attachment,
    inside: String,
) -> Result<Plug> {
    let (lan, members) = (network.lan()?, Members::of(lock, &network)?);
    if let Some(address) = attachment.ip {
        lan.check(address)?;
    }
    let (bridge, lease) = bridge::ensure(lock, &lan, netlink, |bridge| {
        Ok((bridge, lease(lock, &lan, netlink, &members, attachment.ip)?))
    })?;
    let cable = Cable { lan, bridge, address: lease.address, inside };
    Ok(Plug { network, aliases: attachment.aliases.clone(), cable, lease })
}

/// Takes an address that nobody has. The one of a container that has joined while it ran is
/// locked by nobody: it is in the list of the members.
fn lease(
    lock: &NetworkLock,
    lan: &crate::net::subnet::Lan,
    netlink: &Netlink,
    members: &Members,
    wanted: Option<Ipv4Addr>,
) -> Result<Lease> {
    let holder = |address| members.members.iter().find(|(_, member)| member.address == address);
    let in_use =
        |address| Ok(holder(address).is_some() || bridge::find_link(netlink, &lan.veth(address))?.is_some());
    let taken_by =
        |address| holder(address).map(|(id, member)| format!("the container {}", member.title(id)));
    if let Some((address, who)) = wanted.and_then(|address| Some((address, taken_by(address)?))) {
        bail!("--ip {address}: {who} has it; stop that one, or omit --ip");
    }
    let lease = address::lease(lock, lan, wanted, in_use)?;
    // Where all others are in use, that one is given which its holder is about to lose.
    if holder(lease.address).is_some() {
        bail!(
            "all addresses of {}/{} are in use; stop a container, or make a larger network",
            lan.network,
            lan.bits
        );
    }
    Ok(lease)
}

/// Writes down that the container is on no network any more. What it was on is what it shall be on
/// when it is started again: it may have been connected to others while it ran.
fn leave(container: &mut Container) -> Result<()> {
    let Some(id) = container.parts.id.clone() else { return Ok(()) };
    let lock = NetworkLock::take()?;
    let networks = networks_of(&NetworkLock::place()?, &id)?;
    let plan = &mut container.plan.networks;
    let asked_for = |network: &str| plan.iter().find(|one| one.network == network).and_then(|one| one.ip);
    *plan = networks
        .iter()
        .map(|(_, list)| Attachment {
            network: list.network.clone(),
            aliases: list.members[&id].aliases.clone(),
            ip: asked_for(&list.network),
        })
        .collect();
    for (dir, mut list) in networks {
        list.members.remove(&id);
        let bridge = dir.file_name().unwrap_or_default().to_string_lossy();
        list.write(&lock, &bridge)?;
    }
    Ok(())
}

/// A container that runs is called `name` from now on, on all of its networks. (`rename`)
pub fn renamed(id: &str, name: &str) -> Result<()> {
    let place = NetworkLock::place()?;
    if networks_of(&place, id)?.is_empty() {
        return Ok(());
    }
    let lock = NetworkLock::take()?;
    for (dir, mut list) in networks_of(&place, id)? {
        if let Some(member) = list.members.get_mut(id) {
            member.name = Some(name.into());
        }
        let bridge = dir.file_name().unwrap_or_default().to_string_lossy();
        list.write(&lock, &bridge)?;
    }
    Ok(())
}

/// The state directory that this container is in.
fn state_of(container: &Container) -> Result<State> {
    let dir = container.parts.dir.as_deref();
    let dir = dir.context("a container on a network needs a directory of its own")?;
    Ok(State::at(root_of(dir)?.to_owned()))
}

/// What `--name` has called it.
fn name_of(container: &Container) -> Result<Option<String>> {
    let id = container.parts.id.as_deref().context("the container has no id")?;
    Ok(state_of(container)?.read(id)?.name)
}
