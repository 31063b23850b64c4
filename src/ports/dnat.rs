//! Day 13: the kernel redirects what comes for a published port: DNAT, for *destination*. It
//! keeps the client's address, and costs the runtime nothing.
//!
//! Each container has a table of its own, which belongs to the socket that made it. So its
//! rules go when its `run` does, also by SIGKILL, as day 9's lease does and the ports
//! themselves; and whoever loads a firewall anew (`nft flush ruleset`) does not take them away.

use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_netfilter::nftables::{Expressions, InetHookNumber, Operator, Register};

use crate::container::Wire;
use crate::error::Result;
use crate::net::nfnetlink::Netlink;
use crate::net::nftables::{
    Batch, Chain, add_owned_table, and, compare, delete_table, is_for_this_host, is_redirected,
    load_source_address, other,
};
use crate::net::subnet::mask;
use crate::plan::{Protocol, PublishedPort};
use crate::ports::words::{Map, load_destination_address, redirect as dnat};

use super::DAY;

/// What the kernel does with the ports of one container. It ends with this value, or with this
/// process.
#[derive(Debug)]
pub struct Redirection {
    table: String,
    /// Whose table it is.
    socket: Netlink,
}

// ANCHOR: redirect
/// Has the kernel redirect what comes for `ports` to the container `id`, which has `address`.
/// `None`: there is nothing among them that it could. One batch, however many they are.
pub fn redirect(
    id: &str,
    address: Ipv4Addr,
    wire: &Wire,
    ports: &[PublishedPort],
) -> Result<Option<Redirection>> {
    let ports: Vec<&PublishedPort> = ports.iter().filter(|port| can_be_redirected(port)).collect();
    if ports.is_empty() {
        return Ok(None);
    }
    let table = format!("tiny-docker-{id}");
    let about = format!("published ports of container {id}");
    let mut batch =
        Batch { title: vec![format!("add table ip {table}, owned by this socket")], commands: vec![] };
    batch.commands.push(add_owned_table(&table));
    let mut rules = Vec::new();
    for (name, by_address) in [("ports", false), ("ports_by_address", true)] {
        let map = Map { table: &table, name, by_address };
        let here: Vec<_> = ports.iter().filter(|port| is_by_address(port) == by_address).collect();
        if !here.is_empty() {
            batch.commands.push(map.add());
            let elements: Vec<_> = here.into_iter().map(|port| element(port, by_address, address)).collect();
            batch.commands.extend(map.add_elements(&elements));
            rules.push(rule(&map));
        }
    }
    // What comes from other machines and from containers, and what this host itself sends.
    // -100: dstnat, before everything that looks at where it goes.
    for (name, hook) in [("prerouting", InetHookNumber::PreRouting), ("output", InetHookNumber::LocalOut)] {
        let chain = Chain::ours(&table, name);
        batch.commands.push(chain.add("nat", hook, -100, &about));
        batch.commands.extend(rules.iter().map(|(text, rule)| chain.add_rule(text, rule.clone())));
    }
    let chain = Chain::ours(&table, "postrouting");
    batch.commands.push(chain.add("nat", InetHookNumber::PostRouting, 100, &about));
    let (network, bits) = wire.subnet;
    let text = format!("ip daddr {address} ip saddr {network}/{bits} ct status dnat masquerade");
    batch.commands.push(chain.add_rule(&text, hairpin(address, network, bits)));
    let socket = Netlink::open()?;
    socket.commit(DAY, None, &batch)?;
    Ok(Some(Redirection { table, socket }))
}
// ANCHOR_END: redirect

impl Redirection {
    /// Ends it. The kernel does so too once the socket is closed, but then lets us wait until
    /// no processor can be looking at the rules any more.
    pub fn end(self) -> Result<()> {
        let title = vec![format!("delete table ip {}", self.table)];
        let batch = Batch { title, commands: vec![delete_table(&self.table)] };
        self.socket.commit(DAY, None, &batch).map(drop)
    }
}

/// IPv4, and not loopback's: what a machine sends to itself has a source that means the
/// container itself where the packet would arrive.
pub fn can_be_redirected(port: &PublishedPort) -> bool {
    match port.address {
        None => true,
        Some(IpAddr::V4(address)) => !address.is_loopback(),
        Some(IpAddr::V6(_)) => false,
    }
}

/// Whether it is published at one of the host's addresses alone.
fn is_by_address(port: &PublishedPort) -> bool {
    matches!(port.address, Some(IpAddr::V4(address)) if !address.is_unspecified())
}

// ANCHOR: element
/// What stands in the map for `port`: its key, and what it leads to. Each part fills a
/// register of 4 bytes, in the order in which they travel.
fn element(port: &PublishedPort, by_address: bool, container: Ipv4Addr) -> (Vec<u8>, Vec<u8>, String) {
    // ANCHOR: day13_task2_element_solution
    let number = if port.protocol == Protocol::Tcp { libc::IPPROTO_TCP } else { libc::IPPROTO_UDP };
    let two_bytes = |port: u16| [port.to_be_bytes(), [0, 0]].concat();
    let mut key = [vec![number as u8, 0, 0, 0], two_bytes(port.host_port)].concat();
    let mut words = format!("{} . {}", port.protocol, port.host_port);
    if let Some(IpAddr::V4(address)) = port.address.filter(|_| by_address) {
        key.splice(0..0, address.octets());
        words.insert_str(0, &format!("{address} . "));
    }
    let data = [&container.octets()[..], &two_bytes(port.container_port)].concat();
    words += &format!(" : {container} . {}", port.container_port);
    (key, data, words)
    // ANCHOR_END: day13_task2_element_solution
}
// ANCHOR_END: element

// ANCHOR: rule
/// `fib daddr type local ip daddr != 127.0.0.0/8 dnat ip to … map @ports`: what is for this
/// host, by whichever of its addresses, but by loopback's.
fn rule(map: &Map) -> (String, Vec<Expressions>) {
    // ANCHOR: day13_task2_rule_solution
    let (key, look_up) = map.look_up();
    let not_loopback = vec![
        load_destination_address(Register::Reg1),
        and(mask(8).to_be_bytes()),
        compare(Operator::NotEqual, &[127, 0, 0, 0]),
    ];
    let text = format!("fib daddr type local ip daddr != 127.0.0.0/8 dnat ip to {key} map @{}", map.name);
    (text, [is_for_this_host().to_vec(), not_loopback, look_up, vec![dnat()]].concat())
    // ANCHOR_END: day13_task2_rule_solution
}
// ANCHOR_END: rule

// ANCHOR: hairpin
/// `ip daddr 10.10.0.2 ip saddr 10.10.0.0/24 ct status dnat masquerade`: what a container sends
/// to a published port gets the bridge's address as its source. Otherwise the answer would go
/// straight to that container, from an address that it has never asked.
fn hairpin(container: Ipv4Addr, network: Ipv4Addr, bits: u8) -> Vec<Expressions> {
    // ANCHOR: day13_task3_hairpin_solution
    let to = vec![load_destination_address(Register::Reg1), compare(Operator::Equal, &container.octets())];
    let from = vec![
        load_source_address(),
        and(mask(bits).to_be_bytes()),
        compare(Operator::Equal, &network.octets()),
    ];
    [to, from, is_redirected(), vec![other("masq", &[])]].concat()
    // ANCHOR_END: day13_task3_hairpin_solution
}
// ANCHOR_END: hairpin
