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
pub mod bridge;
pub mod etc;
pub mod lock;
pub mod nat;
pub mod network;
pub mod nfnetlink;
pub mod nftables;
pub mod subnet;

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::thread::sleep;
use std::time::Instant;

use anyhow::{Context, bail};
use nix::net::if_::if_nametoindex;
use nix::unistd::Pid;
use rtnetlink::packet_route::link::{InfoData, InfoVeth};
use rtnetlink::{LinkUnspec, LinkVeth, RouteMessageBuilder};

use crate::container::{Container, Mechanism, Wire};
use crate::error::{Result, io_kind};
use crate::explain::step;
use crate::files;
use crate::netns::netlink::Netlink;
use crate::plan::Network;
use crate::wait::{A_MOMENT, PATIENCE, told_to_end};

use self::address::Lease;
use self::lock::NetworkLock;
use self::subnet::{Lan, Subnet, colons, hardware_address};

const DAY: u8 = 9;

/// The container's end of the cable, as it is known inside.
const ETH0: &str = "eth0";

/// The flags of day 9.
#[derive(Debug, clap::Args)]
pub struct Bridge {
    #[command(flatten)]
    subnet: Subnet,

    /// The container's address (without it: the next free one)
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<Ipv4Addr>,

    /// A name server (without it: the host's)
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<IpAddr>,

    #[arg(skip)]
    connection: Option<Connection>,

    /// Parent, once the container is connected: what is left to do is to hold this.
    #[arg(skip)]
    lease: Option<Lease>,
}

/// What this container has of the network.
#[derive(Debug)]
struct Connection {
    lan: Lan,
    /// To the kernel, for this process's namespace.
    netlink: Netlink,
    /// The bridge's index.
    bridge: u32,
    lease: Lease,
}

// ANCHOR: mechanism
impl Mechanism for Bridge {
    fn prepare(&mut self, container: &mut Container) -> Result<()> {
        let network = container.plan.network;
        if !matches!(network, Some(Network::Bridge | Network::User)) {
            if self.ip.is_some() {
                bail!("--ip is an address on the bridge; it goes with --net bridge alone");
            }
            return Ok(());
        }
        container.plan.ip = self.ip;
        container.plan.dns = self.dns.clone();
        // Those are day 14's to connect.
        if network == Some(Network::User) {
            return Ok(());
        }
        let lan = self.subnet.lan()?;
        if let Some(address) = self.ip {
            lan.check(address)?;
        }
        if container.parts.only_made {
            return Ok(());
        }
        let netlink = Netlink::open()?;
        let in_use = |address| Ok(bridge::find_link(&netlink, &lan.veth(address))?.is_some());
        // One lock from the first look to the lease: `network rm` sees neither a bridge that
        // nobody has yet an address on, nor ours half made.
        let lock = NetworkLock::take()?;
        let (bridge, lease) = bridge::ensure(&lock, &lan, &netlink, |bridge| {
            Ok((bridge, address::lease(&lock, &lan, self.ip, in_use)?))
        })?;
        drop(lock);
        container.parts.address = Some(lease.address);
        container.parts.wire = Some(Wire { cable: lan.veth(lease.address), subnet: (lan.network, lan.bits) });
        etc::write(container, lease.address, &self.dns)?;
        self.connection = Some(Connection { lan, netlink, bridge, lease });
        Ok(())
    }

    fn attach(&mut self, _container: &mut Container, child: Pid) -> Result<()> {
        // The child has its own copy of all this.
        let Some(connection) = self.connection.take() else { return Ok(()) };
        let (lan, netlink, address) = (&connection.lan, &connection.netlink, connection.lease.address);
        match plug_in(lan, netlink, connection.bridge, address, child) {
            Err(error) if is_there_already(&error) => {
                wait_for_old_cable(lan, netlink, address)?;
                plug_in(lan, netlink, connection.bridge, address, child)?;
            }
            outcome => outcome?,
        }
        ignore_router_advertisements(&lan.veth(address))?;
        self.lease = Some(connection.lease);
        Ok(())
    }

    fn enter(&mut self, container: &mut Container) -> Result<()> {
        let Some(connection) = self.connection.take() else { return Ok(()) };
        // Its end of the cable is there then.
        container.parts.pass_the_gate()?;
        configure(&connection.lan, connection.lease.address)
    }

    fn cleanup(&mut self, _container: &mut Container) -> Result<()> {
        // This gives the address back. The cable goes with the container's namespace,
        // a moment later and by itself: to delete it here would take the kernel ten
        // times as long as to make it, and `run` would have to wait.
        (self.connection, self.lease) = (None, None);
        Ok(())
    }
}
// ANCHOR_END: mechanism

/// Whether there is an interface of that name already.
pub fn is_there_already(error: &anyhow::Error) -> bool {
    io_kind(error) == Some(ErrorKind::AlreadyExists)
}

/// Waits until the cable of the container that had this address before us is gone. The
/// kernel removes it a moment after that container's end.
pub fn wait_for_old_cable(lan: &Lan, netlink: &Netlink, address: Ipv4Addr) -> Result<()> {
    let (cable, start) = (lan.veth(address), Instant::now());
    while bridge::find_link(netlink, &cable)?.is_some() {
        if start.elapsed() > PATIENCE {
            bail!(
                "nobody has the address {address}, but there is an interface {cable}, of no container of ours; \
                 remove it (ip link delete {cable}), or ask for another address: --ip"
            );
        }
        told_to_end(&format!("the end of {cable}"))?;
        sleep(A_MOMENT);
    }
    Ok(())
}

// ANCHOR: plug_in
/// Makes the cable: one end on the bridge and up, the other, as eth0, in the
/// namespace of `child`. In one request, so that no half of it can be left over.
/// (The other end cannot be up yet: while it is made, it is not connected.)
fn plug_in(lan: &Lan, netlink: &Netlink, bridge: u32, address: Ipv4Addr, child: Pid) -> Result<()> {
    // ANCHOR: day9_task3_plug_in_solution
    let (name, hardware) = (lan.veth(address), hardware_address(address));
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
        let bridge = &lan.bridge;
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

/// The host's end of a cable is deaf to them too, though what arrives there goes to the
/// bridge: until somebody takes the cable out of it.
pub fn ignore_router_advertisements(cable: &str) -> Result<()> {
    let file = format!("/proc/sys/net/ipv6/conf/{cable}/accept_ra");
    match files::write(&file, "0") {
        // There is no IPv6; or /proc/sys is not for us to write; or the container has
        // ended already, and its cable with it.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ReadOnlyFilesystem) => Ok(()),
        outcome => outcome.with_context(|| format!("write 0 > {file}")),
    }
}

// ANCHOR: configure
/// Child: brings its end up, gives it an address, and says where all that is not in
/// this subnet is to be sent. In this order: there is no route through an interface
/// that is down, and none to a gateway that is not in reach.
fn configure(lan: &Lan, address: Ipv4Addr) -> Result<()> {
    // ANCHOR: day9_task3_configure_solution
    let netlink = Netlink::inside()?;
    let eth0 = if_nametoindex(ETH0).context("look for eth0, the cable's end")?;
    let (bits, gateway) = (lan.bits, lan.gateway());
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
