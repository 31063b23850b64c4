//! Day 14: which subnet a new network gets.

use std::net::Ipv4Addr;

use anyhow::{Context, bail};

use crate::error::Result;
use crate::net::bridge::{name_of, routes};
use crate::net::subnet::{self, Lan};
use crate::netns::netlink::Netlink;

use super::store::Definition;

/// A subnet that somebody has.
pub struct Taken {
    network: Ipv4Addr,
    bits: u8,
    by: String,
}

/// The subnet of the network that is always there, unless a variable says otherwise. (day 9)
fn default_subnet() -> String {
    let set = std::env::var(subnet::VARIABLE).ok().filter(|text| !text.is_empty());
    set.unwrap_or(subnet::DEFAULT.into())
}

/// All subnets that are taken: by `networks`, by the default network, and by the host itself,
/// which has a route to each of the machines that it knows.
pub fn taken(networks: &[Definition], netlink: &Netlink) -> Result<Vec<Taken>> {
    let mut taken = Vec::new();
    for one in networks {
        let lan = one.lan()?;
        taken.push(Taken { network: lan.network, bits: lan.bits, by: format!("the network {}", one.name) });
    }
    // It may be there tomorrow.
    if let Ok((network, bits)) = subnet::parse(&default_subnet()) {
        taken.push(Taken { network, bits, by: "the default network, bridge".into() });
    }
    for route in routes(netlink)? {
        let by = route.by.and_then(name_of).map_or("a route".into(), |name| format!("the host (by {name})"));
        taken.push(Taken { network: route.network, bits: route.bits, by });
    }
    Ok(taken)
}

/// Docker's: those of 172.16.0.0/12 but for the first two, of which one is its own default
/// network's, and then pieces of 192.168.0.0/16. All of them are private. (RFC 1918)
fn pools() -> impl Iterator<Item = (Ipv4Addr, u8)> {
    let large = (18..=31).map(|number| (Ipv4Addr::new(172, number, 0, 0), 16));
    let small = (0..=240).step_by(16).map(|number| (Ipv4Addr::new(192, 168, number, 0), 20));
    large.chain(small)
}

/// Who has an address of `lan`, if anybody has.
fn holder<'a>(lan: &Lan, taken: &'a [Taken]) -> Option<&'a Taken> {
    taken.iter().find(|one| lan.overlaps(one.network, one.bits))
}

// ANCHOR: choose
/// The first of Docker's subnets of which nobody has an address.
pub fn choose(taken: &[Taken]) -> Result<(Ipv4Addr, u8)> {
    // ANCHOR: day14_task5_choose_solution
    let is_free = |&(network, bits): &(Ipv4Addr, u8)| holder(&Lan::new("", network, bits), taken).is_none();
    pools().find(is_free).context(
        "all of the subnets that networks get by themselves are taken; remove one \
         (tiny-docker network prune), or choose: --subnet 10.20.0.0/24",
    )
    // ANCHOR_END: day14_task5_choose_solution
}
// ANCHOR_END: choose

/// Errors if anybody has an address of `lan`, which somebody has asked for.
pub fn check(lan: &Lan, taken: &[Taken]) -> Result<()> {
    if let Some(other) = holder(lan, taken) {
        bail!(
            "--subnet {}/{}: {} has {}/{}, which overlaps it; choose another, such as 10.20.0.0/24, or omit --subnet",
            lan.network,
            lan.bits,
            other.by,
            other.network,
            other.bits
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Taken, choose, pools};
    use crate::net::subnet::Lan;

    #[test]
    fn the_first_subnet_that_overlaps_no_other_is_chosen() {
        let one = |network: &str, bits| Taken { network: network.parse().unwrap(), bits, by: "x".into() };
        let chosen = |taken: &[Taken]| choose(taken).unwrap().0.to_string();
        assert_eq!(chosen(&[]), "172.18.0.0");
        assert_eq!(chosen(&[one("172.18.7.0", 24)]), "172.19.0.0");
        assert_eq!(chosen(&[one("172.16.0.0", 12)]), "192.168.0.0");
        assert_eq!(chosen(&[one("172.16.0.0", 12), one("192.168.1.0", 24)]), "192.168.16.0");
        // The default route is no subnet.
        assert_eq!(chosen(&[one("0.0.0.0", 0)]), "172.18.0.0");
        let all = choose(&[one("172.16.0.0", 12), one("192.168.0.0", 16)]).unwrap_err();
        assert!(format!("{all:#}").contains("--subnet 10.20.0.0/24"), "{all:#}");
    }

    #[test]
    fn no_two_pools_overlap() {
        let all: Vec<_> = pools().collect();
        for (at, (network, bits)) in all.iter().enumerate() {
            let lan = Lan::new("", *network, *bits);
            assert!(all[at + 1..].iter().all(|(other, bits)| !lan.overlaps(*other, *bits)), "{network}");
        }
    }
}
