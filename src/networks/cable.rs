//! Day 14: a container's cables, of which it may have several. Each is as day 9's, but that it
//! has another name inside, and is also plugged in and pulled while the container runs.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Context;
use nix::net::if_::if_nametoindex;
use nix::unistd::Pid;
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute};
use rtnetlink::packet_route::route::RouteAttribute;
use rtnetlink::{LinkUnspec, LinkVeth, RouteMessageBuilder};

use crate::error::Result;
use crate::explain::step;
use crate::net::bridge::find_link;
use crate::net::subnet::{Lan, colons, hardware_address};
use crate::net::{ignore_router_advertisements, is_there_already, wait_for_old_cable};
use crate::netns::netlink::Netlink;

use super::DAY;

/// One cable: from a bridge to a container.
#[derive(Debug)]
pub struct Cable {
    /// The network.
    pub lan: Lan,
    /// The bridge's index.
    pub bridge: u32,
    /// The container's address there.
    pub address: Ipv4Addr,
    /// Its end, as it is known inside.
    pub inside: String,
}

// ANCHOR: plug_in
impl Cable {
    /// Makes it: one end on the bridge and up, the other in the namespace of the process `pid`.
    /// The kernel may be about to remove the one of a container that had this address before.
    pub fn plug_in(&self, netlink: &Netlink, pid: Pid) -> Result<()> {
        match self.try_plug_in(netlink, pid) {
            Err(error) if is_there_already(&error) => {
                wait_for_old_cable(&self.lan, netlink, self.address)?;
                self.try_plug_in(netlink, pid)?;
            }
            outcome => outcome?,
        }
        ignore_router_advertisements(&self.lan.veth(self.address))
    }

    fn try_plug_in(&self, netlink: &Netlink, pid: Pid) -> Result<()> {
        // ANCHOR: day14_task5_try_plug_in_solution
        let (name, inside, hardware) =
            (self.lan.veth(self.address), &self.inside, hardware_address(self.address));
        let theirs = LinkUnspec::new_with_name(inside)
            .address(hardware.to_vec())
            .setns_by_pid(pid.as_raw() as u32)
            .build();
        let cable = LinkVeth::new(&name, inside)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(theirs)))
            .controller(self.bridge)
            .up()
            .build();
        let describe = || {
            let (bridge, hardware) = (&self.lan.bridge, colons(&hardware));
            let call = format!("link add {name} master {bridge} up type veth peer {inside} netns {pid}");
            let by_hand = format!(
                "ip link add {name} master {bridge} up type veth peer name {inside} address {hardware} netns {pid}"
            );
            (call, by_hand)
        };
        step(DAY, describe, || netlink.wait(netlink.handle.link().add(cable).execute()))
        // ANCHOR_END: day14_task5_try_plug_in_solution
    }

    /// Pulls it, if it is there. The kernel removes both ends together.
    pub fn pull(&self, netlink: &Netlink) -> Result<()> {
        let name = self.lan.veth(self.address);
        let Some(link) = find_link(netlink, &name)? else { return Ok(()) };
        let describe = || (format!("link delete {name}"), format!("ip link delete {name}"));
        step(DAY, describe, || {
            match netlink.wait(netlink.handle.link().del(link.header.index).execute()) {
                // It has gone with its container since.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
                outcome => outcome,
            }
        })
    }

    /// Inside: brings the container's end up, and gives it its address. `netlink` speaks to the
    /// container's namespace, in which this process, or this thread, is.
    pub fn configure(&self, netlink: &Netlink) -> Result<()> {
        let (inside, address, bits) = (&self.inside, self.address, self.lan.bits);
        let index = if_nametoindex(inside.as_str()).with_context(|| format!("look for {inside}"))?;
        let up = LinkUnspec::new_with_index(index).up().build();
        let describe = || (format!("link set {inside} up"), format!("ip link set {inside} up"));
        step(DAY, describe, || netlink.wait(netlink.handle.link().set(up).execute()))?;
        let describe = || {
            let call = format!("address add {address}/{bits} dev {inside}");
            (call.clone(), format!("ip {call}"))
        };
        let add = netlink.handle.address().add(index, IpAddr::V4(address), bits);
        step(DAY, describe, || netlink.wait(add.execute()))
    }
}
// ANCHOR_END: plug_in

// ANCHOR: default_route
/// Inside: what is for no network that the container is on goes to `gateway`, unless there is a
/// default route already.
pub fn ensure_default_route(netlink: &Netlink, gateway: Ipv4Addr) -> Result<()> {
    let all = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let routes = netlink.list(netlink.handle.route().get(all).execute()).context("list the routes")?;
    let is_default = |attributes: &[RouteAttribute]| {
        !attributes.iter().any(|attribute| matches!(attribute, RouteAttribute::Destination(_)))
            && attributes.iter().any(|attribute| matches!(attribute, RouteAttribute::Gateway(_)))
    };
    if routes.iter().any(|route| is_default(&route.attributes)) {
        return Ok(());
    }
    let describe =
        || (format!("route add default via {gateway}"), format!("ip route add default via {gateway}"));
    let default = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).build();
    step(DAY, describe, || netlink.wait(netlink.handle.route().add(default).execute()))
}
// ANCHOR_END: default_route

/// Inside: the first of eth0, eth1, … that no interface is called.
pub fn free_name(netlink: &Netlink) -> Result<String> {
    let links = netlink.list(netlink.handle.link().get().execute()).context("list the interfaces")?;
    let is_taken = |name: &String| {
        let mut attributes = links.iter().flat_map(|link| &link.attributes);
        attributes.any(|attribute| matches!(attribute, LinkAttribute::IfName(taken) if taken == name))
    };
    let mut names = (0..).map(|number| format!("eth{number}"));
    names.find(|name| !is_taken(name)).context("all names of interfaces are taken")
}
