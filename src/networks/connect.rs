//! Day 14: `network connect` and `disconnect`: a cable that is plugged in, or pulled, while the
//! container runs.
//!
//! Who is on a network is written down before its cable is plugged in, and removed after it was
//! pulled. So a command that is killed in between has left nothing but a member without a
//! cable, and `disconnect` takes that away.

use std::fs::File;
use std::net::Ipv4Addr;

use anyhow::{Context, bail};
use nix::sched::{CloneFlags, setns};
use nix::unistd::Pid;

use crate::error::{self, Result};
use crate::explain::step;
use crate::files;
use crate::metadata::pidfd::Process;
use crate::metadata::record::{Identity, Record, Status};
use crate::metadata::state::State;
use crate::net::lock::NetworkLock;
use crate::netns::netlink::Netlink;
use crate::plan::{Attachment, Network};

use super::cable::{Cable, ensure_default_route, free_name};
use super::flag::check_alias;
use super::members::{Members, networks_of};
use super::store::{Definition, Store};
use super::{DAY, plug};

/// Connect a container to a network
#[derive(Debug, clap::Args)]
pub struct Connect {
    #[command(flatten)]
    state: State,

    /// What else it is called there
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,

    /// Its address there (without it: the next free one)
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<Ipv4Addr>,

    /// The network's name or id
    network: String,

    /// The container's name or id
    container: String,
}

/// Disconnect a container from a network
#[derive(Debug, clap::Args)]
pub struct Disconnect {
    #[command(flatten)]
    state: State,

    /// The network's name or id
    network: String,

    /// The container's name or id
    container: String,
}

impl Connect {
    /// Returns the exit code.
    pub fn execute(self) -> Result<u8> {
        for alias in &self.alias {
            check_alias(alias).context("--alias")?;
        }
        let record = self.state.settle(self.state.find(&self.container)?)?;
        can_be_connected(&record)?;
        let store = Store::of(&self.state);
        let lock = NetworkLock::take()?;
        let network = store.get(&self.network)?;
        let attachment =
            Attachment { network: network.name.clone(), aliases: self.alias.clone(), ip: self.ip };
        match record.process()? {
            Some(process) => connect(&lock, &record, &process, network, &attachment)?,
            None => change_plan(&self.state, &record, lock, |networks| {
                if networks.iter().any(|other| other.network == attachment.network) {
                    bail!("container {} is on network {} already", record.title(), attachment.network);
                }
                networks.push(attachment.clone());
                Ok(())
            })?,
        }
        Ok(0)
    }
}

/// Changes on which networks a container that does not run shall be, when it is started again.
fn change_plan(
    state: &State,
    record: &Record,
    lock: NetworkLock,
    change: impl Fn(&mut Vec<Attachment>) -> Result<()>,
) -> Result<()> {
    // Whoever looks after a container has its lock, and takes this one: not the other way round.
    drop(lock);
    if record.status == Status::Restarting {
        bail!(
            "container {title} is about to be started again; try again while it runs, or stop it first: \
             tiny-docker stop {title}",
            title = record.title()
        );
    }
    let owner = state.own(&record.id)?;
    let mut record = state.read(&record.id)?;
    let _turn = owner.turn(&mut record)?;
    let can_be_started = record.status == Status::Exited || record.is_only_made();
    if !can_be_started || record.plan.network != Some(Network::User) {
        bail!(
            "container {} does not run, and was on no network that somebody has made; start it again with \
             --net, or connect it while it runs",
            record.title()
        );
    }
    change(&mut record.plan.networks)?;
    owner.write(&record)
}

/// Errors if a container of this kind cannot get a cable.
fn can_be_connected(record: &Record) -> Result<()> {
    let why = match record.plan.network {
        Some(Network::Bridge | Network::User) => return Ok(()),
        Some(Network::None) => "it was started with --net none, to be connected to nothing",
        Some(Network::Host) | None => "it has the host's interfaces, and so the host's networks",
    };
    bail!("container {} cannot be connected to a network: {why}; start it with --net NETWORK", record.title())
}

// ANCHOR: connect
/// Connects a container that runs.
fn connect(
    lock: &NetworkLock,
    record: &Record,
    process: &Process,
    network: Definition,
    attachment: &Attachment,
) -> Result<()> {
    let (id, title, pid) = (&record.id, record.title(), Pid::from_raw(process.pid));
    let mut members = Members::of(lock, &network)?;
    if members.members.contains_key(id) {
        bail!("container {title} is on network {} already", network.name);
    }
    let netlink = Netlink::open()?;
    let inside = inside(process, title, free_name)?;
    let plug = plug(lock, &netlink, network, attachment, inside)?;
    let process_of = Identity::of(process.pid)?.with_context(|| format!("container {title} has ended"))?;
    members.members.insert(id.clone(), plug.member(record.name.clone(), process_of)?);
    members.write(lock, &plug.network.bridge)?;
    let connected = plug.cable.plug_in(&netlink, pid).and_then(|()| configure(process, title, &plug));
    if connected.is_err() {
        let _ = plug.cable.pull(&netlink);
        members.members.remove(id);
        let _ = members.write(lock, &plug.network.bridge);
    }
    connected?;
    if record.plan.network == Some(Network::Bridge) {
        error::say(format_args!(
            "container {title} asks the host's name servers, for it was started on the default network: the \
             others of {} find it by name, and it finds them by address",
            plug.network.name
        ));
    }
    Ok(())
}
// ANCHOR_END: connect

fn configure(process: &Process, title: &str, plug: &super::Plug) -> Result<()> {
    inside(process, title, |netlink| {
        forward_nothing()?;
        plug.cable.configure(netlink)?;
        if plug.network.internal { Ok(()) } else { ensure_default_route(netlink, plug.network.gateway) }
    })
}

/// A container on several networks is no router between them: whoever is on one of them could send
/// it packets for another. A new network namespace forwards if the host does, and the host does
/// since day 9. (kernel: networking/ip-sysctl, "ip_forward", "devconf_inherit_init_net")
pub fn be_no_router(id: &str, child: Pid) -> Result<()> {
    let process = Process::open(child.as_raw())?.context("the container ended before it was ready")?;
    inside(&process, id, |_| forward_nothing())
}

/// In the container's network namespace: the kernel shows each process the settings of its own.
fn forward_nothing() -> Result<()> {
    let file = "/proc/sys/net/ipv4/ip_forward";
    let describe = || (format!("write 0 > {file}"), "sysctl net.ipv4.ip_forward=0".into());
    step(DAY, describe, || files::write(file, "0"))
}

// ANCHOR: inside
/// Does `work` in the network namespace of `process`, with a line to the kernel that speaks to it.
fn inside<T>(process: &Process, title: &str, work: impl FnOnce(&Netlink) -> Result<T>) -> Result<T> {
    // ANCHOR: day14_task5_inside_solution
    let open = |path: String| File::open(&path).with_context(|| format!("open {path}"));
    let (ours, path) = (open("/proc/self/ns/net".into())?, format!("/proc/{}/ns/net", process.pid));
    let theirs = open(path.clone());
    // By then the number may be another process's.
    if process.has_ended(Some(std::time::Duration::ZERO))? {
        bail!("container {title} has ended");
    }
    let theirs = theirs?;
    let describe = || (format!("setns({path}, CLONE_NEWNET)"), format!("nsenter --net={path} …"));
    step(DAY, describe, || setns(&theirs, CloneFlags::CLONE_NEWNET))?;
    let outcome = Netlink::open().and_then(|netlink| work(&netlink));
    let describe = || ("setns(ours, CLONE_NEWNET)".into(), "exit".into());
    step(DAY, describe, || setns(&ours, CloneFlags::CLONE_NEWNET))?;
    outcome
    // ANCHOR_END: day14_task5_inside_solution
}
// ANCHOR_END: inside

impl Disconnect {
    /// Returns the exit code.
    pub fn execute(self) -> Result<u8> {
        let record = self.state.settle(self.state.find(&self.container)?)?;
        let lock = NetworkLock::take()?;
        let network = Store::of(&self.state).get(&self.network)?;
        let is_not = || format!("container {} is not on network {}", record.title(), network.name);
        match record.process()? {
            Some(process) => {
                if !disconnect(&lock, &record, &process, &network)? {
                    bail!("{}", is_not());
                }
            }
            None => change_plan(&self.state, &record, lock, |networks| {
                let before = networks.len();
                networks.retain(|other| other.network != network.name);
                if networks.len() == before { bail!("{}", is_not()) } else { Ok(()) }
            })?,
        }
        Ok(0)
    }
}

// ANCHOR: disconnect
/// Disconnects a container that runs. Returns whether it was connected.
fn disconnect(lock: &NetworkLock, record: &Record, process: &Process, network: &Definition) -> Result<bool> {
    let mut members = Members::of(lock, network)?;
    let Some(member) = members.members.remove(&record.id) else { return Ok(false) };
    let netlink = Netlink::open()?;
    let cable = Cable { lan: network.lan()?, bridge: 0, address: member.address, inside: member.interface };
    cable.pull(&netlink)?;
    members.write(lock, &network.bridge)?;
    // With the cable its routes are gone. Another network may lead out.
    let others = networks_of(&NetworkLock::place()?, &record.id)?;
    let gateway = others.into_iter().find_map(|(_, list)| list.gateway.filter(|_| !list.internal));
    if let Some(gateway) = gateway {
        inside(process, record.title(), |netlink| ensure_default_route(netlink, gateway))?;
    }
    Ok(true)
}
// ANCHOR_END: disconnect
