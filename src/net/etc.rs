//! Day 9: what a container on the bridge is told of names. The files are day 8's.

use std::net::{IpAddr, Ipv4Addr};

use crate::container::Container;
use crate::error::Result;
use crate::netns::etc::{self, host_file};

// ANCHOR: write
/// Writes the files, for a container that has `address` and asks `dns`.
pub fn write(container: &mut Container, address: Ipv4Addr, dns: &[IpAddr]) -> Result<()> {
    let hosts = etc::hosts(&address.to_string(), etc::hostname(container));
    etc::write(container, vec![("hosts", hosts), ("resolv.conf", resolv_conf(dns)?)])
}
// ANCHOR_END: write

// ANCHOR: resolv_conf
/// Whom to ask for names: `dns`, or else those that the host asks.
///
/// A server on the host's own loopback, such as systemd-resolved, cannot be reached
/// from another network namespace: 127.0.0.53 is there the container itself. It is
/// omitted, and systemd's list of the real ones is read instead. (resolv.conf(5))
fn resolv_conf(dns: &[IpAddr]) -> Result<Vec<u8>> {
    // ANCHOR: day9_task5_resolv_conf_solution
    if !dns.is_empty() {
        return Ok(dns.iter().map(|server| format!("nameserver {server}\n")).collect::<String>().into());
    }
    for file in ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"] {
        let text = host_file(file)?;
        let lines = text.split(|byte| *byte == b'\n');
        let lines: Vec<&[u8]> = lines.filter(|line| !line.is_empty() && !is_out_of_reach(line)).collect();
        if lines.iter().any(|line| line.starts_with(b"nameserver")) {
            return Ok([lines.join(&b'\n'), b"\n".to_vec()].concat());
        }
    }
    Ok("# The host asks only itself for names, and a container cannot. Name a server: run --dns ADDRESS\n"
        .into())
    // ANCHOR_END: day9_task5_resolv_conf_solution
}
// ANCHOR_END: resolv_conf

/// Is this line a name server that no container on the bridge can ask? One on the host's
/// loopback is; 0.0.0.0 means the same; and IPv6 there is none on the bridge.
fn is_out_of_reach(line: &[u8]) -> bool {
    let line = String::from_utf8_lossy(line);
    let mut words = line.split_whitespace();
    words.next() == Some("nameserver")
        && words.next().is_none_or(|word| {
            // What is no IPv4 address is one of IPv6, with a zone perhaps: fe80::1%eth0.
            word.parse::<Ipv4Addr>().map_or(true, |address| address.is_loopback() || address.is_unspecified())
        })
}
