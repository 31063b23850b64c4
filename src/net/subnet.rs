//! Day 9: which addresses are ours: a subnet, and the names that follow from it.

use std::net::Ipv4Addr;

use anyhow::{Context, bail};

use crate::error::Result;

/// The subnet where nobody says anything else.
pub const DEFAULT: &str = "10.10.0.0/24";

/// The variable that says something else.
pub const VARIABLE: &str = "TINY_DOCKER_SUBNET";

/// What all containers on one bridge have in common.
#[derive(Debug, Clone, clap::Args)]
pub struct Subnet {
    /// The containers' subnet; the first address is the host's
    #[arg(long, value_name = "ADDRESS/BITS", env = VARIABLE, default_value = DEFAULT)]
    subnet: String,

    /// The bridge that connects them
    #[arg(long, value_name = "NAME", env = "TINY_DOCKER_BRIDGE", default_value = "td0")]
    bridge: String,
}

/// A [`Subnet`] that has been checked: one Ethernet, and the addresses in it.
#[derive(Debug, Clone)]
pub struct Lan {
    /// The bridge's name.
    pub bridge: String,
    /// The first address of the subnet, which means all of it.
    pub network: Ipv4Addr,
    /// How many bits of an address say which subnet it is in.
    pub bits: u8,
    /// The host's address on the bridge, by which containers reach everything else.
    pub gateway: Ipv4Addr,
    /// What the network is called that somebody has made (day 14); `None`: it is the one that
    /// is always there.
    pub name: Option<String>,
    /// Whether nothing leaves it, and nothing comes in (day 14).
    pub internal: bool,
}

impl Subnet {
    /// The flags, if they make sense.
    pub fn lan(&self) -> Result<Lan> {
        let (network, bits) = parse(&self.subnet)?;
        Ok(Lan::new(self.bridge()?, network, bits))
    }

    /// The bridge's name, if it is one.
    pub fn bridge(&self) -> Result<&str> {
        // The number of a container comes behind, and the kernel takes 15 bytes.
        let fine = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        let name = &self.bridge;
        if name.is_empty() || name.len() > 9 || !name.chars().all(fine) {
            bail!("--bridge {name:?}: expected 1 to 9 letters, digits, '-' or '_', such as td1");
        }
        // In /proc/sys/net these two stand for interfaces, and are none.
        if ["all", "default"].contains(&name.as_str()) {
            bail!("--bridge {name:?}: the kernel keeps this name for itself; choose another, such as td1");
        }
        Ok(name)
    }
}

/// The first address and the number of bits of the subnet `text`, as `--subnet` has it.
pub fn parse(text: &str) -> Result<(Ipv4Addr, u8)> {
    split(text).with_context(|| {
        format!("--subnet {text:?}: expected a subnet of 16 to 30 bits, such as 10.20.0.0/24")
    })
}

fn split(text: &str) -> Result<(Ipv4Addr, u8)> {
    let (address, bits) = text.split_once('/').context("it has no '/'")?;
    // Digits alone: Rust would take `+24` too.
    if !bits.bytes().all(|byte| byte.is_ascii_digit()) {
        bail!("{bits:?} is no number of bits");
    }
    let (address, bits): (Ipv4Addr, u8) = (address.parse()?, bits.parse()?);
    if !(16..=30).contains(&bits) {
        bail!("{bits} bits");
    }
    let network = Ipv4Addr::from_bits(address.to_bits() & mask(bits));
    if network != address {
        bail!("{address} is not its first address, which is {network}");
    }
    // "This network", the loopback device's, and from 224 on multicast and what is
    // reserved: no interface may have one of them. (RFC 6890)
    if matches!(network.octets()[0], 0 | 127 | 224..) {
        bail!("no machine has an address that begins with {}", network.octets()[0]);
    }
    Ok((network, bits))
}

/// The first `bits` bits of an address, 1 to 32: those that say which subnet it is in.
pub fn mask(bits: u8) -> u32 {
    u32::MAX << (32 - bits)
}

impl Lan {
    /// The subnet's first address is the host's, unless somebody says otherwise.
    pub fn new(bridge: &str, network: Ipv4Addr, bits: u8) -> Lan {
        let gateway = Ipv4Addr::from_bits(network.to_bits() + 1);
        Lan { bridge: bridge.into(), network, bits, gateway, name: None, internal: false }
    }

    /// The host's address on the bridge, by which containers reach everything else.
    pub fn gateway(&self) -> Ipv4Addr {
        self.gateway
    }

    /// Every address that a container may have: all but the first, which is the
    /// subnet's name, the gateway, and the last, which means all of them.
    pub fn hosts(&self) -> impl Iterator<Item = Ipv4Addr> {
        (1..self.last()).map(|number| self.nth(number)).filter(|address| *address != self.gateway)
    }

    /// What to do where the subnet cannot be had.
    pub fn another_subnet(&self) -> String {
        match &self.name {
            None => "choose another: --subnet 10.20.0.0/24, or TINY_DOCKER_SUBNET=10.20.0.0/24".into(),
            Some(name) => format!(
                "give the network {name} another: tiny-docker network rm {name}, and then \
                 tiny-docker network create --subnet 10.20.0.0/24 {name}"
            ),
        }
    }

    /// Errors if no container may have `address`.
    pub fn check(&self, address: Ipv4Addr) -> Result<()> {
        if address == self.gateway || !(1..self.last()).contains(&self.number(address)) {
            let (network, bits, gateway) = (self.network, self.bits, self.gateway());
            bail!(
                "--ip {address}: expected an address of {network}/{bits}, but not its first, its last, or {gateway}, the host's"
            );
        }
        Ok(())
    }

    /// Whether the subnet of `bits` bits that `address` is in has anything in common
    /// with this one. The default route has not, whole or in two halves, as some VPNs
    /// make it.
    pub fn overlaps(&self, address: Ipv4Addr, bits: u8) -> bool {
        let common = bits.min(self.bits);
        common > 1 && (address.to_bits() ^ self.network.to_bits()) & mask(common) == 0
    }

    /// The host's end of a container's cable: `td0-2` for the address ….2. Its name
    /// says who has the address, and the kernel has no name twice.
    pub fn veth(&self, address: Ipv4Addr) -> String {
        format!("{}-{}", self.bridge, self.number(address))
    }

    fn number(&self, address: Ipv4Addr) -> u32 {
        address.to_bits().wrapping_sub(self.network.to_bits())
    }

    fn nth(&self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() + number)
    }

    fn last(&self) -> u32 {
        !mask(self.bits)
    }
}

/// The hardware address that goes with `address`. It follows from it, so that
/// whoever gets an address again has its neighbours' ARP caches right; and on a
/// bridge it is the mark that the bridge is ours. (The 2 says: locally made up.)
pub fn hardware_address(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x74, a, b, c, d]
}

/// As people write it.
pub fn colons(hardware_address: &[u8]) -> String {
    let parts: Vec<String> = hardware_address.iter().map(|byte| format!("{byte:02x}")).collect();
    parts.join(":")
}

#[cfg(test)]
mod tests {
    use super::{Lan, Subnet};

    fn lan(subnet: &str) -> Result<Lan, String> {
        let subnet = Subnet { subnet: subnet.into(), bridge: "td0".into() };
        subnet.lan().map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_subnet_of_24_bits_has_253_addresses_for_containers() {
        let lan = lan("10.10.0.0/24").unwrap();
        assert_eq!(lan.gateway().to_string(), "10.10.0.1");
        assert_eq!(lan.hosts().count(), 253);
        assert!(lan.check("10.10.0.254".parse().unwrap()).is_ok());
        for no in ["10.10.0.0", "10.10.0.1", "10.10.0.255", "10.10.1.2", "10.9.255.255"] {
            assert!(lan.check(no.parse().unwrap()).is_err(), "{no}");
        }
        assert_eq!(lan.veth("10.10.0.2".parse().unwrap()), "td0-2");
    }

    #[test]
    fn subnets_overlap_when_one_lies_in_the_other() {
        let lan = lan("10.10.0.0/24").unwrap();
        for (address, bits, expected) in [
            ("10.10.0.77", 32, true),
            ("10.0.0.1", 8, true),
            ("10.10.1.1", 24, false),
            ("0.0.0.0", 0, false),
            ("0.0.0.0", 1, false),
        ] {
            assert_eq!(lan.overlaps(address.parse().unwrap(), bits), expected, "{address}/{bits}");
        }
    }

    #[test]
    fn a_bad_subnet_is_refused_in_words() {
        for text in [
            "",
            "10.10.0.0",
            "10.10.0.0/8",
            "10.10.0.0/31",
            "10.10.0.5/24",
            "10.10.0/24",
            "::/24",
            "0.0.0.0/16",
            "127.1.0.0/16",
            "224.0.0.0/16",
            "255.255.0.0/16",
            "10.10.0.0/32",
            "10.10.0.0/+24",
        ] {
            assert!(lan(text).unwrap_err().contains("such as 10.20.0.0/24"), "{text}");
        }
    }
}
