//! Day 10: what day 13 needs of this machine, and what in its firewalls stands in the way of a
//! published port. Only what is certain is said: a chain that refuses whatever comes to its end.

use std::cell::RefCell;

use netlink_packet_core::{NLM_F_DUMP, NlasIterator};
use netlink_packet_netfilter::conntrack::ConntrackMessage;
use netlink_packet_netfilter::nftables::*;
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily as Family};
use nix::sched::{CloneFlags, unshare};

use anyhow::Context;

use crate::error::Result;
use crate::files;
use crate::net::nfnetlink::{Netlink, change, packet};
use crate::net::nftables::{Batch, Chain, add_owned_table, is_for_this_host, other};

use super::{Found, fine};

const DAY: u8 = 10;

/// Attributes of a rule, of a list, and of what an expression is made of. (linux/netfilter/nf_tables.h)
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_IMMEDIATE_DATA: u16 = 2;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_TARGET_NAME: u16 = 1;

/// In a network namespace of its own: a table that its socket owns, and a rule that redirects.
pub fn redirection() -> Result<Found> {
    unshare(CloneFlags::CLONE_NEWNET).context("unshare")?;
    let chain = Chain::ours("doctor", "prerouting");
    let [ask, compare] = is_for_this_host();
    let rule = vec![
        ask,
        compare,
        Expressions::Immediate(vec![
            Immediate::DestinationRegister(Register::Reg1),
            Immediate::Data(DataAttribute::Value(vec![10, 10, 0, 2])),
        ]),
        other("nat", &[(1, 1), (2, u8::from(Family::IPv4).into()), (3, Register::Reg1.into())]),
    ];
    let commands = vec![
        add_owned_table("doctor"),
        chain.add("nat", InetHookNumber::PreRouting, -100, "doctor"),
        chain.add_rule("fib daddr type local dnat to 10.10.0.2", rule),
    ];
    Netlink::open()?.commit(DAY, None, &Batch { title: vec!["add table ip doctor".into()], commands })?;
    fine("can be redirected, in a table of our own")
}

/// The kernel's table of connections, of which old flows of UDP are deleted.
pub fn connections() -> Result<Found> {
    unshare(CloneFlags::CLONE_NEWNET).context("unshare")?;
    let header = NetfilterHeader::new(Family::IPv4, 0, 0);
    let all = packet(0, NLM_F_DUMP, NetfilterMessage::new(header, ConntrackMessage::Get(vec![])));
    Netlink::open()?.list(&all).context("ctnetlink: list connections")?;
    fine("can be listed, and forgotten")
}

/// Chains of other people's that refuse whatever comes to their end. (Those at forward with the
/// policy drop get two rules of ours.)
pub fn firewalls() -> Result<Found> {
    let seen = RefCell::default();
    // A change that changes nothing.
    change(|netlink, chains| {
        *seen.borrow_mut() = in_the_way(netlink, chains)?;
        Ok(Batch::default())
    })?;
    let (arriving, forwarded) = seen.into_inner();
    if !arriving.is_empty() {
        return Ok(Found::Note(
            format!("{} refuses at prerouting, before a port can be redirected", arriving.join(", ")),
            "no rule of ours can undo that; let the published ports in, in that chain",
        ));
    }
    if !forwarded.is_empty() {
        return Ok(Found::Note(
            format!("{} refuses what none of its rules lets through", forwarded.join(", ")),
            "let td0 through there: iifname and oifname; firewalld: firewall-cmd --zone=trusted --add-interface=td0",
        ));
    }
    fine("none that refuses what it does not know")
}

/// Those at prerouting, and those at forward.
fn in_the_way(netlink: &Netlink, chains: &[Chain]) -> Result<(Vec<String>, Vec<String>)> {
    let (mut arriving, mut forwarded) = (Vec::new(), Vec::new());
    for chain in chains.iter().filter(|chain| !chain.table.starts_with("tiny-docker-")) {
        if chain.arrives && (chain.drops || refuses_all(netlink, chain)?) {
            arriving.push(chain.to_string());
        }
        if chain.forwards && !chain.drops && refuses_all(netlink, chain)? {
            forwarded.push(chain.to_string());
        }
    }
    Ok((arriving, forwarded))
}

/// 127.0.0.0/8 as an ordinary network: then a neighbour's packets for it are not dropped.
/// (kernel: networking/ip-sysctl, route_localnet)
pub fn loopback(bridge: &str) -> Result<Found> {
    for interface in ["all", bridge] {
        let file = format!("/proc/sys/net/ipv4/conf/{interface}/route_localnet");
        if files::read(&file).unwrap_or_default().trim_ascii() == b"1" {
            return Ok(Found::Note(
                format!(
                    "net.ipv4.conf.{interface}.route_localnet is on: containers may reach the host's 127.0.0.1"
                ),
                "we do not need it; if nobody does: sysctl -w net.ipv4.conf.all.route_localnet=0",
            ));
        }
    }
    fine("is the host's alone")
}

/// Whether a rule of this chain refuses whatever comes to it.
fn refuses_all(netlink: &Netlink, chain: &Chain) -> Result<bool> {
    let rules = netlink.list(&packet(0, NLM_F_DUMP, chain.list().message))?;
    Ok(rules.iter().any(|(_, rule)| refuses(rule)))
}

/// Whether a rule refuses, and has no condition.
fn refuses(rule: &[u8]) -> bool {
    let (mut refuses, mut always) = (false, true);
    let expressions = inside(rule.get(4..).unwrap_or_default(), NFTA_RULE_EXPRESSIONS);
    for expression in expressions.iter().flat_map(|list| inside(list, NFTA_LIST_ELEM)) {
        let of = |kind| inside(&expression, kind).into_iter().next().unwrap_or_default();
        let (name, data) = (of(NFTA_EXPR_NAME), of(NFTA_EXPR_DATA));
        match name.strip_suffix(&[0]).unwrap_or(&name) {
            b"counter" | b"log" => {}
            b"reject" => refuses = true,
            b"immediate" => refuses |= is_drop(&data),
            // iptables' own.
            b"target" => refuses |= inside(&data, NFTA_TARGET_NAME).iter().any(|name| name == b"REJECT\0"),
            _ => always = false,
        }
    }
    refuses && always
}

/// Whether what is loaded is the verdict drop, whose number is 0.
fn is_drop(immediate: &[u8]) -> bool {
    let verdicts = inside(immediate, NFTA_IMMEDIATE_DATA);
    let verdicts = verdicts.iter().flat_map(|data| inside(data, NFTA_DATA_VERDICT));
    verdicts.flat_map(|verdict| inside(&verdict, NFTA_VERDICT_CODE)).any(|code| code == [0; 4])
}

/// The values of those attributes that are of this kind.
fn inside(attributes: &[u8], kind: u16) -> Vec<Vec<u8>> {
    let all = NlasIterator::new(attributes).flatten();
    all.filter(|attribute| attribute.kind() == kind).map(|attribute| attribute.value().to_vec()).collect()
}
