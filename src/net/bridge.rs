//! Day 9: what containers share: the bridge with its address, forwarding, NAT.
//!
//! All of it outlives the container that made it, and others may change it meanwhile. So
//! each start looks at everything, and makes what is missing.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, bail};
use nix::net::if_::if_indextoname;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{
    InfoKind, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope};
use rtnetlink::{LinkBridge, LinkUnspec, RouteMessageBuilder};

use crate::error::Result;
use crate::explain::step;
use crate::files;
use crate::net::address;
use crate::net::lock::NetworkLock;
use crate::net::nat;
use crate::net::subnet::{Lan, colons, hardware_address};
use crate::netns::netlink::Netlink;

const DAY: u8 = 9;

// ANCHOR: ensure
/// Makes sure that all that containers share is there, and hands the bridge's index to
/// `then`. All of it under the lock, for each start looks first and then makes. If
/// something fails, a bridge that was not there before is removed.
pub fn ensure<T>(
    lock: &NetworkLock,
    lan: &Lan,
    netlink: &Netlink,
    then: impl FnOnce(u32) -> Result<T>,
) -> Result<T> {
    let found = find_link(netlink, &lan.bridge)?;
    let (bridge, state) = match &found {
        Some(link) => (check_ours(lan, link)?, link.header.flags),
        None => {
            check_subnet_is_free(lan, netlink)?;
            // What is remembered is of a bridge that is gone, or of a namespace that had
            // this one's number.
            address::begin_anew(lock, lan);
            (make_bridge(lan, netlink)?, LinkFlags::empty())
        }
    };
    let outcome = complete(lan, netlink, bridge, state).and_then(|()| then(bridge));
    if outcome.is_err() && found.is_none() {
        let _ = netlink.wait(netlink.handle.link().del(bridge).execute());
        let _ = nat::remove(&lan.bridge);
    }
    outcome
}

/// The order matters: a bridge that is up has ears, and its address brings the route.
fn complete(lan: &Lan, netlink: &Netlink, bridge: u32, state: LinkFlags) -> Result<()> {
    refuse_router_advertisements(lan)?;
    if !state.contains(LinkFlags::Up) {
        bring_up(lan, netlink, bridge)?;
    }
    address_bridge(lan, netlink, bridge)?;
    if state.contains(LinkFlags::Up) {
        restore_route(lan, netlink, bridge, state.contains(LinkFlags::LowerUp))?;
    }
    if lan.internal {
        return nat::ensure_internal(&lan.bridge, lan.network, lan.bits);
    }
    enable_forwarding(lan)?;
    nat::ensure(&lan.bridge, lan.network, lan.bits)
}
// ANCHOR_END: ensure

/// The interface `name`; `None` if there is none.
pub fn find_link(netlink: &Netlink, name: &str) -> Result<Option<LinkMessage>> {
    // Not by if_nametoindex(3): for a name that no interface has, it makes the kernel look
    // for a module of that name, by starting modprobe.
    // And without its counters: for those of an IPv6 interface the kernel adds up what each
    // processor has counted.
    let without_counters = vec![LinkExtentMask::SkipStats];
    let look = netlink.handle.link().get().match_name(name);
    match netlink.list(look.set_filter_mask(AddressFamily::Unspec, without_counters).execute()) {
        Ok(links) => Ok(links.into_iter().next()),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("look for the interface {name}")),
    }
}

// ANCHOR: ours
/// The mark of a bridge of ours: a hardware address that begins as ours do. What follows
/// is the host's address on it. `None`: it is no bridge of ours.
///
/// Mark and bridge come into being at once, so that there is no moment at which one of ours
/// could be taken for somebody else's.
pub fn mark(link: &LinkMessage) -> Option<Ipv4Addr> {
    let bridge = LinkInfo::Kind(InfoKind::Bridge);
    let is_bridge = link
        .attributes
        .iter()
        .any(|attribute| matches!(attribute, LinkAttribute::LinkInfo(infos) if infos.contains(&bridge)));
    let hardware = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(address) => Some(address.as_slice()),
        _ => None,
    });
    match hardware? {
        &[0x02, 0x74, a, b, c, d] if is_bridge => Some(Ipv4Addr::new(a, b, c, d)),
        _ => None,
    }
}

/// The index of our bridge, if `link`, which has its name, is ours and for this subnet.
pub fn check_ours(lan: &Lan, link: &LinkMessage) -> Result<u32> {
    let (name, gateway) = (&lan.bridge, lan.gateway());
    match mark(link) {
        Some(theirs) if theirs == gateway => Ok(link.header.index),
        Some(theirs) => bail!(
            "{name} is ours, but for the subnet of {theirs}, and {gateway} was asked for; \
             remove it (tiny-docker network rm --bridge {name}), or choose another: --bridge td1"
        ),
        None => bail!(
            "there is an interface {name}, and it is not ours: expected a bridge with the hardware \
             address {}; choose another name: --bridge td1, or TINY_DOCKER_BRIDGE=td1",
            colons(&hardware_address(gateway))
        ),
    }
}
// ANCHOR_END: ours

// ANCHOR: free
/// Errors if the host itself uses addresses of our subnet: it would then look for
/// those machines among our containers.
pub fn check_subnet_is_free(lan: &Lan, netlink: &Netlink) -> Result<()> {
    if let Some(Route { network, bits, by }) = routes(netlink)?.into_iter().find(|route| route.overlaps(lan))
    {
        bail!(
            "the host uses {network}/{bits} itself (by {}), and our containers' subnet is {}/{}; {}",
            by.and_then(name_of).unwrap_or("a route".into()),
            lan.network,
            lan.bits,
            lan.another_subnet()
        );
    }
    Ok(())
}
// ANCHOR_END: free

/// Where the host sends what is for some addresses.
pub struct Route {
    /// The first of them.
    pub network: Ipv4Addr,
    /// How many bits they have in common.
    pub bits: u8,
    /// The interface, by its index; `None`: nowhere.
    pub by: Option<u32>,
}

impl Route {
    /// Whether it is about addresses of `lan`.
    pub fn overlaps(&self, lan: &Lan) -> bool {
        lan.overlaps(self.network, self.bits)
    }
}

/// The host's routes, but for the default route.
pub fn routes(netlink: &Netlink) -> Result<Vec<Route>> {
    let all = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let found = netlink.list(netlink.handle.route().get(all).execute()).context("list the routes")?;
    Ok(found.iter().filter_map(read_route).collect())
}

fn read_route(route: &RouteMessage) -> Option<Route> {
    let network = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
        _ => None,
    })?;
    Some(Route { network, bits: route.header.destination_prefix_length, by: leaves_by(route) })
}

/// The interface by which the packets of a route leave.
fn leaves_by(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

/// The name of the interface with this index, if there is one.
pub fn name_of(interface: u32) -> Option<String> {
    if_indextoname(interface).ok().map(|name| name.to_string_lossy().into_owned())
}

// ANCHOR: bridge
/// Makes the bridge, still down. Returns its index.
fn make_bridge(lan: &Lan, netlink: &Netlink) -> Result<u32> {
    // ANCHOR: day9_task1_make_bridge_solution
    let (name, hardware) = (&lan.bridge, hardware_address(lan.gateway()));
    // An address that is set stays. One that is not is the lowest of its ports': it
    // would change as containers come and go, and with it what their ARP caches say.
    let bridge = LinkBridge::new(name).address(hardware.to_vec()).build();
    let describe = || {
        let by_hand = format!("ip link add {name} address {} type bridge", colons(&hardware));
        (format!("link add {name} type bridge"), by_hand)
    };
    step(DAY, describe, || netlink.wait(netlink.handle.link().add(bridge).execute()))?;
    let link = find_link(netlink, name)?.with_context(|| format!("{name} is gone again"))?;
    check_ours(lan, &link)
    // ANCHOR_END: day9_task1_make_bridge_solution
}
// ANCHOR_END: bridge

// ANCHOR: advertisements
/// Makes the host deaf, on this bridge, to IPv6. Otherwise a router advertisement, which
/// any container can send, would be believed: from then on all that the host sends by IPv6
/// would go to that container. (CVE-2020-13401; kernel: networking/ip-sysctl, disable_ipv6)
///
/// To be done before the bridge is up. A kernel without IPv6 has no such file, and where
/// /proc/sys cannot be written nothing can be done.
fn refuse_router_advertisements(lan: &Lan) -> Result<()> {
    // ANCHOR: day9_task1_refuse_router_advertisements_solution
    let file = format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", lan.bridge);
    match is_one(&file) {
        Ok(true) => return Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        outcome => outcome.with_context(|| format!("read {file}"))?,
    };
    let describe = || (format!("write 1 > {file}"), format!("echo 1 > {file}"));
    step(DAY, describe, || match files::write(&file, "1") {
        Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => Ok(()),
        outcome => outcome,
    })
    // ANCHOR_END: day9_task1_refuse_router_advertisements_solution
}
// ANCHOR_END: advertisements

// ANCHOR: up
/// Brings the bridge up.
fn bring_up(lan: &Lan, netlink: &Netlink, bridge: u32) -> Result<()> {
    // ANCHOR: day9_task1_bring_up_solution
    let up = LinkUnspec::new_with_index(bridge).up().build();
    let describe = || (format!("link set {} up", lan.bridge), format!("ip link set {} up", lan.bridge));
    step(DAY, describe, || netlink.wait(netlink.handle.link().set(up).execute()))
    // ANCHOR_END: day9_task1_bring_up_solution
}
// ANCHOR_END: up

// ANCHOR: address
/// Gives the bridge the host's address, unless it has it. (From then on the kernel
/// knows a route to the whole subnet: through the bridge.)
fn address_bridge(lan: &Lan, netlink: &Netlink, bridge: u32) -> Result<()> {
    // ANCHOR: day9_task1_address_bridge_solution
    let (gateway, bits) = (lan.gateway(), lan.bits);
    let mut all = netlink.handle.address().get().set_link_index_filter(bridge);
    // Without this the kernel would list the IPv6 addresses of every cable too.
    all.message_mut().header.family = AddressFamily::Inet;
    let has_it = netlink.list(all.execute()).context("list the bridge's addresses")?.iter().any(|one| {
        one.header.index == bridge
            && one.header.prefix_len == bits
            && one.attributes.contains(&AddressAttribute::Local(IpAddr::V4(gateway)))
    });
    if has_it {
        return Ok(());
    }
    let describe = || {
        let call = format!("address add {gateway}/{bits} dev {}", lan.bridge);
        (call.clone(), format!("ip {call}"))
    };
    let add = netlink.handle.address().add(bridge, IpAddr::V4(gateway), bits);
    step(DAY, describe, || netlink.wait(add.execute()))
    // ANCHOR_END: day9_task1_address_bridge_solution
}
// ANCHOR_END: address

/// The route to the containers comes with the address, but somebody may have removed it,
/// or have sent their packets elsewhere: a VPN that began later. As long as no cable is
/// plugged in (`has_carrier`), some hosts ignore the route, and that is no error.
/// (kernel: networking/ip-sysctl, ignore_routes_with_linkdown)
fn restore_route(lan: &Lan, netlink: &Netlink, bridge: u32, has_carrier: bool) -> Result<()> {
    let anybody = lan.hosts().next().unwrap_or(lan.gateway());
    let by_bridge = || -> Result<Option<u32>> {
        let question = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(anybody, 32).build();
        match netlink.list(netlink.handle.route().get(question).execute()) {
            Ok(routes) => Ok(routes.first().and_then(leaves_by)),
            Err(error) if error.raw_os_error() == Some(libc::ENETUNREACH) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("ask for the route to {anybody}")),
        }
    };
    if by_bridge()? == Some(bridge) {
        return Ok(());
    }
    let (network, bits, name) = (lan.network, lan.bits, &lan.bridge);
    let describe = || {
        let call = format!("route replace {network}/{bits} dev {name}");
        (call.clone(), format!("ip {call}"))
    };
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(network, bits)
        .output_interface(bridge)
        .pref_source(lan.gateway())
        .scope(RouteScope::Link)
        .protocol(RouteProtocol::Kernel)
        .build();
    step(DAY, describe, || netlink.wait(netlink.handle.route().add(route).replace().execute()))?;
    match by_bridge()? {
        Some(index) if index == bridge => Ok(()),
        _ if !has_carrier => Ok(()),
        other => bail!(
            "the host sends what is for {anybody}, a container, to {} instead of to {name}; see \
             ip route get {anybody}, or {}",
            other.and_then(name_of).unwrap_or("nobody".into()),
            match lan.name {
                None =>
                    "choose another subnet: tiny-docker network rm, and then --subnet 10.20.0.0/24".into(),
                Some(_) => lan.another_subnet(),
            }
        ),
    }
}

// ANCHOR: forwarding
/// Lets the host pass packets on from one interface to another: makes it a router.
/// It is off by default, and stays on when we are gone. The bridge's own switch follows the
/// first, but can be turned off by itself. (kernel: networking/ip-sysctl)
fn enable_forwarding(lan: &Lan) -> Result<()> {
    // ANCHOR: day9_task1_enable_forwarding_solution
    let own = format!("/proc/sys/net/ipv4/conf/{}/forwarding", lan.bridge);
    for file in ["/proc/sys/net/ipv4/ip_forward", &own] {
        if !is_one(file).with_context(|| format!("read {file}"))? {
            let describe = || (format!("write 1 > {file}"), format!("echo 1 > {file}"));
            step(DAY, describe, || files::write(file, "1"))?;
        }
    }
    Ok(())
    // ANCHOR_END: day9_task1_enable_forwarding_solution
}
// ANCHOR_END: forwarding

/// Does the switch `file`, one of /proc/sys, say 1?
fn is_one(file: &str) -> io::Result<bool> {
    let mut text = [0; 2];
    let length = File::open(file)?.read(&mut text)?;
    Ok(text[..length].trim_ascii() == b"1")
}

/// How many cables are plugged into the bridge `index`.
pub fn plugged_in(netlink: &Netlink, index: u32) -> Result<usize> {
    let links = netlink.list(netlink.handle.link().get().execute()).context("list the interfaces")?;
    Ok(links.iter().filter(|link| link.attributes.contains(&LinkAttribute::Controller(index))).count())
}
