//! Day 9: the bridge. *Can I connect the container back to the outside world?*
//!
//! ```text
//!            host                                    container
//!  eth0 ── NAT, forwarding ── td0 ── td0-2 ═════════ eth0
//!                          10.10.0.1      (a cable)  10.10.0.2, default via 10.10.0.1
//! ```
//!
//! A bridge is a switch made of software, a veth pair a cable with two ends, and
//! the host is the router between that switch and the world. (veth(4), ip-link(8))

pub mod address;
pub mod etc;
pub mod nat;
pub mod network;
pub mod nfnetlink;
pub mod nftables;
pub mod subnet;

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use anyhow::{Context, bail};
use nix::net::if_::{if_indextoname, if_nametoindex};
use nix::unistd::Pid;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo, LinkMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute};
use rtnetlink::{LinkBridge, LinkUnspec, LinkVeth, RouteMessageBuilder};

use crate::container::{Container, Mechanism};
use crate::error::Result;
use crate::explain::step;
use crate::metadata::state::open_to_lock;
use crate::netns::netlink::Netlink;
use crate::plan::Network;

use self::address::Lease;
use self::etc::EtcFile;
use self::subnet::{Plan, Subnet, colons, hardware_address};

const DAY: u8 = 9;

/// The container's end of the cable, as it is known inside.
const ETH0: &str = "eth0";

/// The flags of day 9.
#[derive(Debug, clap::Args)]
pub struct Bridge {
    #[command(flatten)]
    subnet: Subnet,

    /// The container's address (without it: the next that is free)
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<Ipv4Addr>,

    /// A name server (without it: the host's)
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<IpAddr>,

    #[arg(skip)]
    connection: Option<Connection>,
}

/// What this container has of the network.
#[derive(Debug)]
struct Connection {
    plan: Plan,
    /// The bridge's index.
    bridge: u32,
    lease: Lease,
    etc: Vec<EtcFile>,
}

// ANCHOR: mechanism
impl Mechanism for Bridge {
    fn prepare(&mut self, container: &mut Container) -> Result<()> {
        if container.plan.network != Some(Network::Bridge) {
            if self.ip.is_some() {
                bail!("--ip is an address on the bridge; it goes with --net bridge alone");
            }
            return Ok(());
        }
        // <root>/containers/<id>
        let Some(root) = container.parts.dir.as_ref().and_then(|dir| dir.ancestors().nth(2)) else {
            return Ok(());
        };
        container.plan.ip = self.ip;
        container.plan.dns = self.dns.clone();
        let plan = self.subnet.plan()?;
        let netlink = Netlink::open()?;
        let bridge = ensure_network(root, &plan, &netlink)?;
        // Not by if_nametoindex(3): for a name that no interface has, it makes the
        // kernel look for a module of that name, by starting modprobe.
        let in_use = |address| find_link(&netlink, &plan.veth(address)).is_ok_and(|link| link.is_some());
        let lease = address::lease(root, &plan, self.ip, in_use)?;
        container.parts.address = Some(lease.address);
        let etc = etc::write(container, lease.address, &self.dns)?;
        self.connection = Some(Connection { plan, bridge, lease, etc });
        Ok(())
    }

    fn attach(&mut self, _container: &mut Container, child: Pid) -> Result<()> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        // The child has its own copies.
        connection.etc.clear();
        plug_in(&connection.plan, connection.bridge, connection.lease.address, child)
    }

    fn enter(&mut self, container: &mut Container) -> Result<()> {
        let Some(connection) = self.connection.take() else { return Ok(()) };
        configure(&connection.plan, connection.lease.address)?;
        etc::mount_all(container, connection.etc)
    }

    fn cleanup(&mut self, _container: &mut Container) -> Result<()> {
        // This gives the address back. The cable goes with the container's namespace,
        // a moment later and by itself: to delete it here would take the kernel ten
        // times as long as to make it, and `run` would have to wait.
        self.connection = None;
        Ok(())
    }
}
// ANCHOR_END: mechanism

// ANCHOR: ensure
/// Makes sure that all that containers share is there: the bridge with its address,
/// forwarding, NAT. One start at a time, since each looks first and then makes.
/// Returns the bridge's index.
fn ensure_network(root: &Path, plan: &Plan, netlink: &Netlink) -> Result<u32> {
    let _lock = lock(root)?;
    let bridge = match find_link(netlink, &plan.bridge)? {
        Some(link) => check_ours(plan, &link)?,
        None => {
            check_subnet_is_free(plan, netlink)?;
            make_bridge(plan, netlink)?
        }
    };
    address_bridge(plan, netlink, bridge)?;
    enable_forwarding()?;
    nat::ensure(&plan.bridge, plan.network, plan.bits)?;
    Ok(bridge)
}
// ANCHOR_END: ensure

/// The lock on what containers share. It ends with the value.
pub(crate) fn lock(root: &Path) -> Result<File> {
    let path = root.join("network.lock");
    open_to_lock(&path).and_then(|lock| lock.lock().map(|()| lock)).with_context(|| format!("lock {path:?}"))
}

/// The interface `name`; `None` if there is none.
pub(crate) fn find_link(netlink: &Netlink, name: &str) -> Result<Option<LinkMessage>> {
    match netlink.list(netlink.handle.link().get().match_name(name).execute()) {
        Ok(links) => Ok(links.into_iter().next()),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("look for the interface {name}")),
    }
}

// ANCHOR: ours
/// The index of our bridge, if `link`, which has its name, is ours: a bridge with the
/// hardware address that we give. Both come into being at once, so that there is no
/// moment at which one of ours could be taken for somebody else's.
pub(crate) fn check_ours(plan: &Plan, link: &LinkMessage) -> Result<u32> {
    let ours = hardware_address(plan.gateway());
    let mut is_bridge = false;
    let mut theirs = Vec::new();
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Address(address) => theirs = address.clone(),
            LinkAttribute::LinkInfo(infos) => is_bridge = infos.contains(&LinkInfo::Kind(InfoKind::Bridge)),
            _ => {}
        }
    }
    let name = &plan.bridge;
    if is_bridge && theirs == ours {
        return Ok(link.header.index);
    }
    if is_bridge && theirs.starts_with(&ours[..2]) {
        bail!(
            "{name} is ours, but for the subnet of {}.{}.{}.{}, and {} was asked for; remove it (tiny-docker network rm), or choose another: --bridge td1",
            theirs[2],
            theirs[3],
            theirs[4],
            theirs[5],
            plan.gateway()
        );
    }
    bail!(
        "there is an interface {name}, and it is not ours: expected a bridge with the hardware address {}; \
         choose another name: --bridge td1, or TINY_DOCKER_BRIDGE=td1",
        colons(&ours)
    )
}
// ANCHOR_END: ours

// ANCHOR: free
/// Errors if the host itself uses addresses of our subnet: it would then look for
/// those machines among our containers.
pub(crate) fn check_subnet_is_free(plan: &Plan, netlink: &Netlink) -> Result<()> {
    let routes = RouteMessageBuilder::<Ipv4Addr>::new().build();
    for route in netlink.list(netlink.handle.route().get(routes).execute()).context("list the routes")? {
        let destination = route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
            _ => None,
        });
        let bits = route.header.destination_prefix_length;
        if let Some(address) = destination.filter(|address| plan.overlaps(*address, bits)) {
            let interface = route.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Oif(index) => if_indextoname(*index).ok(),
                _ => None,
            });
            bail!(
                "the host uses {address}/{bits} itself (by {}), and our containers' subnet is {}/{}; \
                 choose another: --subnet 10.20.0.0/24, or TINY_DOCKER_SUBNET=10.20.0.0/24",
                interface.map_or("a route".into(), |name| name.to_string_lossy().into_owned()),
                plan.network,
                plan.bits
            );
        }
    }
    Ok(())
}
// ANCHOR_END: free

// ANCHOR: bridge
/// Makes the bridge, up. Returns its index.
fn make_bridge(plan: &Plan, netlink: &Netlink) -> Result<u32> {
    // ANCHOR: day9_task1_make_bridge_solution
    let (name, hardware) = (&plan.bridge, hardware_address(plan.gateway()));
    // An address that is set stays. One that is not is the lowest of its ports': it
    // would change as containers come and go, and with it what their ARP caches say.
    let bridge = LinkBridge::new(name).address(hardware.to_vec()).up().build();
    let describe = || {
        let by_hand = format!("ip link add {name} address {} up type bridge", colons(&hardware));
        (format!("link add {name} type bridge, up"), by_hand)
    };
    step(DAY, describe, || match netlink.wait(netlink.handle.link().add(bridge).execute()) {
        // A run with another state directory was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        outcome => outcome,
    })?;
    let link = find_link(netlink, name)?.with_context(|| format!("{name} is gone again"))?;
    check_ours(plan, &link)
    // ANCHOR_END: day9_task1_make_bridge_solution
}
// ANCHOR_END: bridge

// ANCHOR: address
/// Gives the bridge the host's address, unless it has it. (From then on the kernel
/// knows a route to the whole subnet: through the bridge.)
fn address_bridge(plan: &Plan, netlink: &Netlink, bridge: u32) -> Result<()> {
    // ANCHOR: day9_task1_address_bridge_solution
    let (gateway, bits) = (plan.gateway(), plan.bits);
    let all = netlink.handle.address().get().set_link_index_filter(bridge).execute();
    let has_it = netlink.list(all).context("list the bridge's addresses")?.iter().any(|one| {
        one.header.prefix_len == bits
            && one.attributes.contains(&AddressAttribute::Local(IpAddr::V4(gateway)))
    });
    if has_it {
        return Ok(());
    }
    let describe = || {
        let call = format!("address add {gateway}/{bits} dev {}", plan.bridge);
        (call.clone(), format!("ip {call}"))
    };
    let add = netlink.handle.address().add(bridge, IpAddr::V4(gateway), bits);
    step(DAY, describe, || netlink.wait(add.execute()))
    // ANCHOR_END: day9_task1_address_bridge_solution
}
// ANCHOR_END: address

// ANCHOR: forwarding
/// Lets the host pass packets on from one interface to another: makes it a router.
/// It is off by default, and stays on when we are gone. (kernel: networking/ip-sysctl)
fn enable_forwarding() -> Result<()> {
    // ANCHOR: day9_task1_enable_forwarding_solution
    const FILE: &str = "/proc/sys/net/ipv4/ip_forward";
    if fs::read_to_string(FILE).with_context(|| format!("read {FILE}"))?.trim() == "1" {
        return Ok(());
    }
    let describe = || (format!("write 1 > {FILE}"), "sysctl -w net.ipv4.ip_forward=1".into());
    step(DAY, describe, || fs::write(FILE, "1"))
    // ANCHOR_END: day9_task1_enable_forwarding_solution
}
// ANCHOR_END: forwarding

// ANCHOR: plug_in
/// Makes the cable: one end on the bridge and up, the other, as eth0, in the
/// namespace of `child`. In one request, so that no half of it can be left over.
/// (The other end cannot be up yet: while it is made, it is not connected.)
fn plug_in(plan: &Plan, bridge: u32, address: Ipv4Addr, child: Pid) -> Result<()> {
    // ANCHOR: day9_task3_plug_in_solution
    let netlink = Netlink::open()?;
    let (name, hardware) = (plan.veth(address), hardware_address(address));
    let theirs = LinkUnspec::new_with_name(ETH0)
        .address(hardware.to_vec())
        .setns_by_pid(child.as_raw() as u32)
        .build();
    let cable = LinkVeth::new(&name, ETH0)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(theirs)))
        .controller(bridge)
        .up()
        .build();
    let describe = || {
        let bridge = &plan.bridge;
        let by_hand = format!(
            "ip link add {name} master {bridge} up type veth peer name {ETH0} address {} netns {child}",
            colons(&hardware)
        );
        (format!("link add {name} master {bridge} up type veth peer {ETH0} netns {child}"), by_hand)
    };
    step(DAY, describe, || netlink.wait(netlink.handle.link().add(cable).execute()))
    // ANCHOR_END: day9_task3_plug_in_solution
}
// ANCHOR_END: plug_in

// ANCHOR: configure
/// Child: brings its end up, gives it an address, and says where all that is not in
/// this subnet is to be sent. In this order: there is no route through an interface
/// that is down, and none to a gateway that is not in reach.
fn configure(plan: &Plan, address: Ipv4Addr) -> Result<()> {
    // ANCHOR: day9_task3_configure_solution
    let netlink = Netlink::open()?;
    let eth0 = if_nametoindex(ETH0).context("look for eth0, the cable's end")?;
    let (bits, gateway) = (plan.bits, plan.gateway());
    let up = LinkUnspec::new_with_index(eth0).up().build();
    let describe = || (format!("link set {ETH0} up"), format!("ip link set {ETH0} up"));
    step(DAY, describe, || netlink.wait(netlink.handle.link().set(up).execute()))?;
    let describe = || {
        let call = format!("address add {address}/{bits} dev {ETH0}");
        (call.clone(), format!("ip {call}"))
    };
    let add = netlink.handle.address().add(eth0, IpAddr::V4(address), bits);
    step(DAY, describe, || netlink.wait(add.execute()))?;
    let describe =
        || (format!("route add default via {gateway}"), format!("ip route add default via {gateway}"));
    let default = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).build();
    step(DAY, describe, || netlink.wait(netlink.handle.route().add(default).execute()))
    // ANCHOR_END: day9_task3_configure_solution
}
// ANCHOR_END: configure

/// How many cables are plugged into the bridge `index`.
pub(crate) fn plugged_in(netlink: &Netlink, index: u32) -> Result<usize> {
    let links = netlink.list(netlink.handle.link().get().execute()).context("list the interfaces")?;
    Ok(links.iter().filter(|link| link.attributes.contains(&LinkAttribute::Controller(index))).count())
}
