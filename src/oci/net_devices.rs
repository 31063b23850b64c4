//! Day 18: interfaces of the runtime's network namespace that become the container's: `linux.netDevices`.
//! (config-linux.md, "Network Devices")
//!
//! An interface is in one namespace at a time, so it is gone from here. The kernel takes its addresses and
//! the routes over it; the addresses it gets again. One that only exists in the kernel (veth, dummy, macvlan)
//! ends with the container's namespace; one of hardware goes to the host's first namespace then, with the
//! name that it has by then. Neither is brought back by us. (network_namespaces(7))

use std::collections::BTreeSet;
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

use anyhow::{Context, anyhow, bail};
use nix::sched::{CloneFlags, setns};
use nix::unistd::Pid;
use rtnetlink::LinkUnspec;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags};

use crate::error::Result;
use crate::explain::step;
use crate::net::bridge::find_link;
use crate::netns::netlink::Netlink;

use super::DAY;
use super::namespaces::Its;
use super::spec::linux::Linux;

/// The longest name of an interface, in bytes. (Linux, `IFNAMSIZ`)
const LONGEST: usize = 15;

/// One that moves: how it is here.
#[derive(Debug)]
pub struct Moving {
    name: String,
    /// What it is called inside, or a template: in `eth%d` the first number that is free.
    wish: String,
    index: u32,
    is_up: bool,
    addresses: Vec<(IpAddr, u8)>,
}

/// The network namespace of the process `pid`, and a line to the kernel that speaks to it.
struct Place {
    pid: Pid,
    netlink: Netlink,
    namespace: File,
}

impl Place {
    /// What a shell would say for `call`.
    fn by_hand(&self, call: &str) -> String {
        format!("nsenter --net=/proc/{}/ns/net ip {call}", self.pid)
    }
}

/// Parent, before anything is made: which interfaces move. Errors: the container has no network namespace
/// of its own, one is not there, or a name cannot be one.
pub fn plan(linux: &Linux, its: Its) -> Result<Vec<Moving>> {
    let devices: Vec<_> = linux.net_devices.iter().flatten().collect();
    if devices.is_empty() {
        return Ok(vec![]);
    }
    if !its.own.contains(CloneFlags::CLONE_NEWNET) {
        bail!("linux.netDevices needs a namespace of the type network; add one to linux.namespaces");
    }
    let (netlink, mut taken) = (Netlink::open()?, BTreeSet::new());
    let one = |(name, device): (&String, &super::spec::linux::NetDevice)| {
        let wish = device.name.as_ref().filter(|name| !name.is_empty()).unwrap_or(name).clone();
        check_name(name)?;
        check_name(&wish)?;
        if !wish.contains('%') && !taken.insert(wish.clone()) {
            bail!("linux.netDevices: two would be called {wish:?} inside; expected another name for each");
        }
        Moving::find(&netlink, name, wish)
    };
    devices.into_iter().map(one).collect()
}

/// As the kernel has it (`dev_valid_name`), and at most one `%d`.
fn check_name(name: &str) -> Result<()> {
    let is_word = !name.contains(|letter: char| letter == '/' || letter == ':' || letter.is_whitespace());
    let is_template = !name.replacen("%d", "", 1).contains('%');
    if !is_word || !is_template || name.is_empty() || name.len() > LONGEST || name == "." || name == ".." {
        bail!(
            "linux.netDevices: no interface can be called {name:?}; expected 1 to {LONGEST} bytes without /, : and blanks, such as eth0 or eth%d"
        );
    }
    Ok(())
}

impl Moving {
    fn find(netlink: &Netlink, name: &str, wish: String) -> Result<Moving> {
        let link = find_link(netlink, name)?.with_context(|| {
            format!("linux.netDevices: there is no interface {name:?}; expected one of the runtime's network namespace")
        })?;
        let index = link.header.index;
        let all = netlink.list(netlink.handle.address().get().set_link_index_filter(index).execute());
        let all = all.with_context(|| format!("list the addresses of {name}"))?;
        let addresses = all.iter().filter(|one| is_kept(one)).filter_map(address).collect();
        Ok(Moving {
            name: name.into(),
            wish,
            index,
            is_up: link.header.flags.contains(LinkFlags::Up),
            addresses,
        })
    }

    /// Parent: puts it into `to`, as `name` and up.
    fn go(&self, from: &Place, to: &Place, name: &str) -> Result<()> {
        self.carry(self.index, from, to, name)?;
        self.configure(to, name, true)
    }

    /// Parent: undoes as much of [`Moving::go`] as was done.
    fn come_back(&self, from: &Place, to: &Place, name: &str) -> Result<()> {
        if find_link(&from.netlink, &self.name)?.is_some_and(|link| link.header.index == self.index) {
            return Ok(());
        }
        // It is renamed once it is there, so it may have its old name still.
        let mut there = find_link(&to.netlink, name)?;
        if there.is_none() {
            there = find_link(&to.netlink, &self.name)?;
        }
        let Some(link) = there else { bail!("the interface {} is nowhere", self.name) };
        self.carry(link.header.index, to, from, &self.name)?;
        self.configure(from, &self.name, self.is_up)
    }

    fn carry(&self, index: u32, from: &Place, to: &Place, name: &str) -> Result<()> {
        let link = LinkUnspec::new_with_index(index).name(name).setns_by_fd(to.namespace.as_raw_fd()).build();
        let describe = || {
            let call = format!("link set {} netns {} name {name}", self.name, to.pid);
            (call.clone(), from.by_hand(&call))
        };
        step(DAY, describe, || from.netlink.wait(from.netlink.handle.link().set(link).execute()))
    }

    /// The kernel has taken its addresses, and it is down.
    fn configure(&self, to: &Place, name: &str, is_up: bool) -> Result<()> {
        let netlink = &to.netlink;
        let link = find_link(netlink, name)?.with_context(|| format!("the interface {name} has gone"))?;
        for (address, bits) in &self.addresses {
            let describe = || {
                let call = format!("address add {address}/{bits} dev {name}");
                (call.clone(), to.by_hand(&call))
            };
            let add = netlink.handle.address().add(link.header.index, *address, *bits);
            step(DAY, describe, || netlink.wait(add.execute()))?;
        }
        if !is_up {
            return Ok(());
        }
        let up = LinkUnspec::new_with_index(link.header.index).up().build();
        let describe = || {
            let call = format!("link set {name} up");
            (call.clone(), to.by_hand(&call))
        };
        step(DAY, describe, || netlink.wait(netlink.handle.link().set(up).execute()))
    }
}

/// Whether it is somebody's decision, and for all the world: what the kernel or a router gave it counts
/// here alone.
fn is_kept(address: &AddressMessage) -> bool {
    address.header.flags.contains(AddressHeaderFlags::Permanent)
        && address.header.scope == AddressScope::Universe
}

/// With how many bits of it are the network's. Where there is a peer, the other attribute is the peer's.
fn address(message: &AddressMessage) -> Option<(IpAddr, u8)> {
    let own = |one: &AddressAttribute| if let AddressAttribute::Local(own) = one { Some(*own) } else { None };
    let any =
        |one: &AddressAttribute| if let AddressAttribute::Address(any) = one { Some(*any) } else { None };
    let found = message.attributes.iter().find_map(own);
    let found = found.or_else(|| message.attributes.iter().find_map(any))?;
    Some((found, message.header.prefix_len))
}

/// Parent, once `child` has its network namespace: moves them into that. What fails is undone: those that
/// have moved come back, with the same addresses, and without their routes. Errors: a name is taken there; or rtnetlink(7), such as EINVAL for one that cannot
/// leave its namespace, as a bridge cannot.
pub fn move_in(devices: &[Moving], child: Pid) -> Result<()> {
    if devices.is_empty() {
        return Ok(());
    }
    let (here, there) = places(child)?;
    let names = names(&there, devices)?;
    let pairs: Vec<_> = devices.iter().zip(&names).collect();
    for (count, (device, name)) in pairs.iter().enumerate() {
        let Err(error) = device.go(&here, &there, name) else { continue };
        let mut error = error.context(format!("linux.netDevices: {} as {name}", device.name));
        for (device, name) in pairs[..=count].iter().rev() {
            if let Err(more) = device.come_back(&here, &there, name) {
                error = anyhow!("{error:#}; and {} has not come back ({more:#})", device.name);
            }
        }
        return Err(error);
    }
    Ok(())
}

/// This process's, and `child`'s.
fn places(child: Pid) -> Result<(Place, Place)> {
    let open = |path: String| File::open(&path).with_context(|| format!("open {path}"));
    let (ours, path) = (open("/proc/self/ns/net".into())?, format!("/proc/{child}/ns/net"));
    let (theirs, outside) = (open(path.clone())?, Netlink::open()?);
    // A socket speaks to the namespace in which it was made.
    let describe = || (format!("setns({path}, CLONE_NEWNET)"), format!("nsenter --net={path} …"));
    step(DAY, describe, || setns(&theirs, CloneFlags::CLONE_NEWNET))?;
    let inside = Netlink::open();
    let describe = || ("setns(ours, CLONE_NEWNET)".into(), "exit".into());
    step(DAY, describe, || setns(&ours, CloneFlags::CLONE_NEWNET))?;
    let here = Place { pid: Pid::this(), netlink: outside, namespace: ours };
    Ok((here, Place { pid: child, netlink: inside?, namespace: theirs }))
}

/// What each is called in there.
fn names(there: &Place, devices: &[Moving]) -> Result<Vec<String>> {
    let links = there.netlink.list(there.netlink.handle.link().get().execute());
    let links = links.context("list the interfaces of the container")?;
    let name_of =
        |one: &LinkAttribute| if let LinkAttribute::IfName(name) = one { Some(name.clone()) } else { None };
    let mut taken: BTreeSet<String> =
        links.iter().flat_map(|link| &link.attributes).filter_map(name_of).collect();
    let mut name = |device: &Moving| {
        let mut numbers = (0..).map(|number: u32| device.wish.replacen("%d", &number.to_string(), 1));
        let name = match device.wish.contains('%') {
            true => numbers.find(|name| !taken.contains(name)).unwrap_or_default(),
            false => device.wish.clone(),
        };
        if name.len() > LONGEST || !taken.insert(name.clone()) {
            bail!(
                "linux.netDevices: {} cannot be {name:?} in the container, where one has that name already; expected another name, or a template such as eth%d",
                device.name
            );
        }
        Ok(name)
    };
    devices.iter().map(&mut name).collect()
}
