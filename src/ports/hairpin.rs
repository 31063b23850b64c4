//! Day 13: a container that asks for its own published port. What it sends comes back through
//! the cable that it left by.

use anyhow::Context;
use rtnetlink::LinkBridgePort;

use crate::container::Wire;
use crate::error::Result;
use crate::explain::step;
use crate::files;
use crate::net::bridge::find_link;
use crate::netns::netlink::Netlink;

use super::DAY;

// ANCHOR: allow
/// Lets the bridge send a packet out of the port that it came in by, which a switch never does.
/// It is needed only where the kernel runs what is bridged through the rules for what is
/// routed: there such a packet never leaves the bridge. (kernel: networking/ip-sysctl,
/// bridge-nf-call-iptables; ip-link(8), hairpin)
pub fn allow(wire: &Wire) -> Result<()> {
    // ANCHOR: day13_task3_allow_solution
    let asks = files::read("/proc/sys/net/bridge/bridge-nf-call-iptables").unwrap_or_default();
    if asks.trim_ascii() != b"1" {
        return Ok(());
    }
    let (netlink, cable) = (Netlink::open()?, &wire.cable);
    let link = find_link(&netlink, cable)?.with_context(|| format!("the cable {cable} is gone"))?;
    let port = LinkBridgePort::new(link.header.index).hairpin(true).build();
    let describe = || {
        let call = format!("link set {cable} type bridge_slave hairpin on");
        (call.clone(), format!("ip {call}"))
    };
    step(DAY, describe, || netlink.wait(netlink.handle.link().change(port).execute()))
    // ANCHOR_END: day13_task3_allow_solution
}
// ANCHOR_END: allow
