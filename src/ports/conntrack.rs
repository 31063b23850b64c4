//! Day 13: UDP flows that are older than the rules. The kernel decides where a flow goes once,
//! by its first packet, and remembers that for as long as packets come: half a minute after
//! the last. Rules that are added later are not asked. (conntrack(8))

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, anyhow};
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, ParseableParametrized};
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Protocol as Spoken, Tuple,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner as Inner, NetfilterProtoFamily as Family,
};
use nix::ifaddrs::getifaddrs;

use crate::error::Result;
use crate::explain::step;
use crate::net::nfnetlink::{Netlink, packet};
use crate::plan::{Protocol, PublishedPort};
use crate::ports::dnat::can_be_redirected;

use super::DAY;

/// A flow that the kernel remembers.
struct Flow {
    /// The first packet's addresses and ports, as the kernel wants to have them to find it.
    key: Vec<Tuple>,
    /// Where that packet was sent.
    to: (IpAddr, u16),
    /// Who answers.
    answers: (IpAddr, u16),
}

// ANCHOR: forget_older
/// Has the kernel forget the flows to `ports` that do not go to `container` yet: the next
/// packet of each is the first again, and is asked about.
pub fn forget_older(ports: &[PublishedPort], container: Ipv4Addr) -> Result<()> {
    // ANCHOR: day13_task3_forget_older_solution
    let ports: Vec<&PublishedPort> = redirected_udp(ports).collect();
    if ports.is_empty() {
        return Ok(());
    }
    let own = addresses()?;
    let is_ours = |flow: &Flow| {
        let (address, number) = flow.to;
        let leads_here = |port: &&PublishedPort| {
            let at = port.address.is_none_or(|asked| asked.is_unspecified() || asked == address);
            at && port.host_port == number
        };
        // What the host sends by way of loopback is not redirected.
        let may_be = own.contains(&address) && !address.is_loopback();
        may_be && flow.answers.0 != container && ports.iter().any(leads_here)
    };
    forget(is_ours)
    // ANCHOR_END: day13_task3_forget_older_solution
}
// ANCHOR_END: forget_older

/// Has the kernel forget the flows to `container` that it has redirected: whoever has the port
/// next, or the address, is not to get them. If that cannot be, they end by themselves.
pub fn forget_redirected(ports: &[PublishedPort], container: Ipv4Addr) {
    let ours: Vec<u16> = redirected_udp(ports).map(|port| port.container_port).collect();
    if !ours.is_empty() {
        let _ = forget(|flow| {
            flow.answers.0 == container && flow.to != flow.answers && ours.contains(&flow.answers.1)
        });
    }
}

fn redirected_udp(ports: &[PublishedPort]) -> impl Iterator<Item = &PublishedPort> {
    ports.iter().filter(|port| port.protocol == Protocol::Udp && can_be_redirected(port))
}

/// The host's addresses.
fn addresses() -> Result<Vec<IpAddr>> {
    let all = getifaddrs().context("getifaddrs")?.filter_map(|one| one.address);
    Ok(all.filter_map(|address| Some(IpAddr::V4(address.as_sockaddr_in()?.ip()))).collect())
}

// ANCHOR: forget
/// Has the kernel forget those of its UDP flows that `is_wanted`.
fn forget(is_wanted: impl Fn(&Flow) -> bool) -> Result<()> {
    let netlink = Netlink::open()?;
    let all = packet(0, NLM_F_DUMP, about_ipv4(ConntrackMessage::Get(vec![])));
    let describe = || ("conntrack: list udp".into(), "conntrack -L -p udp".into());
    let messages = step(DAY, describe, || netlink.list(&all))?;
    let flows = messages.iter().filter_map(|(kind, bytes)| read(*kind, bytes));
    for Flow { key, to: (address, port), .. } in flows.filter(is_wanted) {
        let request = packet(
            0,
            NLM_F_ACK,
            about_ipv4(ConntrackMessage::Delete(vec![ConntrackAttribute::CtaTupleOrig(key)])),
        );
        let describe = || {
            let by_hand = format!("conntrack -D -p udp --orig-dst {address} --orig-port-dst {port}");
            (format!("conntrack: delete udp to {address}:{port}"), by_hand)
        };
        step(DAY, describe, || match netlink.ask(&request)?.errno {
            // ENOENT: it has ended meanwhile.
            0 | libc::ENOENT => Ok(()),
            errno => Err(anyhow!(io::Error::from_raw_os_error(errno))),
        })?;
    }
    Ok(())
}
// ANCHOR_END: forget

fn about_ipv4(message: ConntrackMessage) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(Family::IPv4, 0, 0), message)
}

/// A flow of UDP; `None`: it is of something else.
fn read(kind: u16, bytes: &[u8]) -> Option<Flow> {
    let message = NetfilterMessage::parse_with_param(bytes, kind).ok()?;
    let Inner::Conntrack(ConntrackMessage::New(attributes)) = message.inner else { return None };
    let (mut key, mut answers) = (None, None);
    for attribute in attributes {
        match attribute {
            ConntrackAttribute::CtaTupleOrig(tuple) => key = Some(tuple),
            ConntrackAttribute::CtaTupleReply(tuple) => answers = ends(&tuple),
            _ => {}
        }
    }
    let key = key?;
    let ([_, to], [answers, _]) = (ends(&key)?, answers?);
    Some(Flow { to, answers, key })
}

/// Where a packet comes from and where it goes, if it is one of UDP.
fn ends(tuple: &[Tuple]) -> Option<[(IpAddr, u16); 2]> {
    let (mut is_udp, mut addresses, mut ports) = (false, [None; 2], [None; 2]);
    for part in tuple {
        match part {
            Tuple::Ip(parts) => parts.iter().for_each(|part| match part {
                IPTuple::SourceAddress(address) => addresses[0] = Some(*address),
                IPTuple::DestinationAddress(address) => addresses[1] = Some(*address),
                _ => {}
            }),
            Tuple::Proto(parts) => parts.iter().for_each(|part| match part {
                ProtoTuple::Protocol(spoken) => is_udp = *spoken == Spoken::Udp,
                ProtoTuple::SourcePort(port) => ports[0] = Some(*port),
                ProtoTuple::DestinationPort(port) => ports[1] = Some(*port),
                _ => {}
            }),
            _ => {}
        }
    }
    let source = addresses[0].zip(ports[0]);
    let destination = addresses[1].zip(ports[1]);
    is_udp.then_some([source?, destination?])
}
