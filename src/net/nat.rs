//! Day 9: NAT. *Can I connect it to the outside world?*
//!
//! Outside this machine nobody knows the containers' addresses. So what they
//! send leaves with the machine's own, and the answers find their way back:
//! masquerading. The kernel is told so in tables, chains and rules. How they
//! travel is in `nftables`; `nft list ruleset` shows what arrived.

use std::net::Ipv4Addr;

use netlink_packet_netfilter::nftables::{Expressions, InetHookNumber, MetaKey, Operator};

use crate::error::Result;
use crate::net::nfnetlink::change;
use crate::net::nftables::{
    Batch, Chain, Command, NF_ACCEPT, NF_DROP, add_table, and, c_string, compare, delete_table,
    is_redirected, load, load_ct_state, load_source_address, other, verdict,
};
use crate::net::subnet::mask;

// ANCHOR: ensure
/// Lets the containers on `bridge`, whose addresses are `network`/`prefix`, talk
/// to the outside, and nobody outside start to talk to them. When all is there
/// already, it only looks. (nft(8))
pub fn ensure(bridge: &str, network: Ipv4Addr, prefix: u8) -> Result<()> {
    let (table, subnet) = (table_name(bridge), format!("{network}/{prefix}"));
    ensure_table(bridge, |chains| {
        if is_whole(chains, &table, &subnet) {
            return vec![];
        }
        make_table(bridge, &subnet, masquerade(bridge, network, prefix))
    })
}

/// Makes the table of `bridge`, if `make` has anything to do for that, and has other people's
/// chains let its packets through.
fn ensure_table(bridge: &str, make: impl Fn(&[Chain]) -> Vec<Command>) -> Result<()> {
    let table = table_name(bridge);
    change(|netlink, chains| {
        let mut batch = Batch { title: vec![], commands: make(chains) };
        if !batch.commands.is_empty() {
            batch.title.push(format!("add table ip {table}"));
        }
        // Whoever loads a firewall anew takes our rules out of it: look each time.
        for chain in foreign(chains, &table).filter(|chain| chain.drops) {
            let found = netlink.rules(chain, &table)?;
            if found.len() != 2 {
                batch.title.push(format!("let {bridge} through {chain}"));
                batch.commands.extend(found.iter().map(|handle| chain.delete_rule(*handle)));
                batch.commands.extend(let_through(chain, bridge));
            }
        }
        Ok(batch)
    })
}
// ANCHOR_END: ensure

/// For a bridge whose containers stay among themselves (day 14): nothing is forwarded to them
/// or from them. The host itself they reach, for that is no forwarding.
pub fn ensure_internal(bridge: &str, network: Ipv4Addr, prefix: u8) -> Result<()> {
    let (table, subnet) = (table_name(bridge), format!("{network}/{prefix}, internal"));
    let forward = Chain::ours(&table, "forward");
    ensure_table(bridge, |chains| {
        if has_rules(chains, &forward, 3, &subnet) {
            return vec![];
        }
        let mut commands = no_table(&table).to_vec();
        commands.push(add_table(&table));
        commands.push(forward.add("filter", InetHookNumber::Forward, 0, &subnet));
        commands.extend(internal_rules(bridge).map(|(text, rule)| forward.add_rule(&text, rule)));
        commands
    })
}

/// Takes away what [`ensure`] made for `bridge`, if it is there, and nothing else.
pub fn remove(bridge: &str) -> Result<()> {
    let table = table_name(bridge);
    change(|netlink, chains| {
        let mut batch = Batch { title: vec![format!("delete table ip {table}")], ..Batch::default() };
        batch.commands.extend(no_table(&table));
        // Whatever their policy is now.
        for chain in foreign(chains, &table) {
            let found = netlink.rules(chain, &table)?;
            batch.commands.extend(found.iter().map(|handle| chain.delete_rule(*handle)));
        }
        Ok(batch)
    })
}

/// Also the comment by which our rules in other people's chains are known. Two
/// bridges must not take each other's for their own.
fn table_name(bridge: &str) -> String {
    format!("tiny-docker-{bridge}")
}

/// Other people's chains that are asked about what is forwarded.
fn foreign<'a>(chains: &'a [Chain], table: &'a str) -> impl Iterator<Item = &'a Chain> {
    chains.iter().filter(move |chain| chain.forwards && chain.table != table)
}

/// Both of our chains are there, for this subnet, with as many rules as we gave them, and
/// with the policy that we gave them.
fn is_whole(chains: &[Chain], table: &str, subnet: &str) -> bool {
    let chain = |name, rules| has_rules(chains, &Chain::ours(table, name), rules, subnet);
    chain("postrouting", 1) && chain("forward", 4)
}

fn has_rules(chains: &[Chain], wanted: &Chain, rules: u32, subnet: &str) -> bool {
    chains
        .iter()
        .any(|chain| chain.is(wanted) && chain.rules == rules && !chain.drops && chain.has_comment(subnet))
}

// ANCHOR: masquerade
/// `ip saddr 10.10.0.0/24 oifname != "td0" masquerade`: what comes from a
/// container, and leaves by another interface than the bridge, gets that
/// interface's address as its source.
///
/// A rule is a list of expressions. One loads a value into a register, another
/// computes with it, or compares it; a comparison that fails ends the rule.
fn masquerade(bridge: &str, network: Ipv4Addr, prefix: u8) -> Vec<Expressions> {
    // ANCHOR: day9_task4_masquerade_solution
    vec![
        load_source_address(),
        and(mask(prefix).to_be_bytes()),
        compare(Operator::Equal, &network.octets()),
        load(MetaKey::Oifname),
        compare(Operator::NotEqual, &c_string(bridge)),
        other("masq", &[]),
    ]
    // ANCHOR_END: day9_task4_masquerade_solution
}
// ANCHOR_END: masquerade

// ANCHOR: forward
/// What may be forwarded to and from containers: the first rule that holds
/// decides. (Between two containers both interfaces are the bridge.)
///
/// What the host itself has redirected to a container, by a rule of its own, is asked for:
/// its status has the bit DST_NAT. (day 13)
fn forward_rules(bridge: &str) -> [(String, Vec<Expressions>); 4] {
    let bridge_is = |key| vec![load(key), compare(Operator::Equal, &c_string(bridge))];
    // The state is a set of bits: ESTABLISHED is 2, RELATED 4. (linux/netfilter/nf_conntrack_common.h)
    let known = vec![load_ct_state(), and(6_u32.to_ne_bytes()), compare(Operator::NotEqual, &[0; 4])];
    [
        (
            format!("oifname \"{bridge}\" ct state established,related accept"),
            [bridge_is(MetaKey::Oifname), known, vec![verdict(NF_ACCEPT)]].concat(),
        ),
        (
            format!("oifname \"{bridge}\" ct status dnat accept"),
            [bridge_is(MetaKey::Oifname), is_redirected(), vec![verdict(NF_ACCEPT)]].concat(),
        ),
        (
            format!("iifname \"{bridge}\" accept"),
            [bridge_is(MetaKey::Iifname), vec![verdict(NF_ACCEPT)]].concat(),
        ),
        (
            format!("oifname \"{bridge}\" drop"),
            [bridge_is(MetaKey::Oifname), vec![verdict(NF_DROP)]].concat(),
        ),
    ]
}
// ANCHOR_END: forward

/// Between two containers both interfaces are the bridge. (The kernel asks about those packets
/// only where br_netfilter is loaded.)
fn internal_rules(bridge: &str) -> [(String, Vec<Expressions>); 3] {
    let bridge_is = |key| vec![load(key), compare(Operator::Equal, &c_string(bridge))];
    let within =
        [bridge_is(MetaKey::Iifname), bridge_is(MetaKey::Oifname), vec![verdict(NF_ACCEPT)]].concat();
    let drop = |key| [bridge_is(key), vec![verdict(NF_DROP)]].concat();
    [
        (format!("iifname \"{bridge}\" oifname \"{bridge}\" accept"), within),
        (format!("iifname \"{bridge}\" drop"), drop(MetaKey::Iifname)),
        (format!("oifname \"{bridge}\" drop"), drop(MetaKey::Oifname)),
    ]
}

// ANCHOR: table
/// Our own table, whatever of it was there before. The comment says for which
/// subnet it is.
fn make_table(bridge: &str, subnet: &str, masquerade: Vec<Expressions>) -> Vec<Command> {
    let table = table_name(bridge);
    let (postrouting, forward) = (Chain::ours(&table, "postrouting"), Chain::ours(&table, "forward"));
    let out = format!("ip saddr {subnet} oifname != \"{bridge}\" masquerade");
    let mut commands = no_table(&table).to_vec();
    commands.push(add_table(&table));
    // 100: srcnat, after everything that looks at the container's own address.
    commands.push(postrouting.add("nat", InetHookNumber::PostRouting, 100, subnet));
    commands.push(postrouting.add_rule(&out, masquerade));
    commands.push(forward.add("filter", InetHookNumber::Forward, 0, subnet));
    commands.extend(forward_rules(bridge).map(|(text, rule)| forward.add_rule(&text, rule)));
    commands
}
// ANCHOR_END: table

/// To add a table that is there is no error, but to delete one that is not is one.
fn no_table(table: &str) -> [Command; 2] {
    [add_table(table), delete_table(table)]
}

// ANCHOR: let_through
/// Two rules for the head of a chain that drops what it does not know, such as
/// Docker's or ufw's. Every chain at a hook is asked, and one drop is final: that
/// ours accepts does not help there. Nor does it hurt to accept all here, for
/// what ours drops stays dropped.
///
/// The expressions are those that iptables writes: others it could not show.
fn let_through(chain: &Chain, bridge: &str) -> [Command; 2] {
    // What is inserted last is first.
    [("oifname", MetaKey::Oifname), ("iifname", MetaKey::Iifname)].map(|(word, key)| {
        let is_bridge = compare(Operator::Equal, &c_string(bridge));
        let rule = vec![load(key), is_bridge, other("counter", &[]), verdict(NF_ACCEPT)];
        chain.insert_rule(&format!("{word} \"{bridge}\" counter accept"), rule, &table_name(bridge))
    })
}
// ANCHOR_END: let_through
