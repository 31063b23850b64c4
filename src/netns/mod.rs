//! Day 8: the network namespace. *Can I isolate networking?*
//!
//! A new one has interfaces, addresses, routes, firewall rules and ports of its
//! own, which is to say none: a loopback device that is down. An interface is in
//! one namespace at a time, and nobody gave this one any. (network_namespaces(7))

pub mod etc;
pub mod netlink;

use nix::sched::CloneFlags;
use rtnetlink::LinkUnspec;

use crate::container::{Container, Mechanism};
use crate::error::Result;
use crate::explain::step;
use crate::plan::Network;

use self::netlink::Netlink;

const DAY: u8 = 8;

/// The loopback device is the first that a namespace gets, at its birth.
const LOOPBACK: u32 = 1;

/// The flags of day 8.
#[derive(Debug, clap::Args)]
pub struct Netns {
    /// The container's network
    #[arg(long = "net", visible_alias = "network", value_name = "MODE", value_enum, default_value_t)]
    network: Network,
}

impl Netns {
    /// What the flag `--net` would say.
    pub fn new(network: Network) -> Netns {
        Netns { network }
    }
}

// ANCHOR: mechanism
impl Mechanism for Netns {
    fn prepare(&mut self, container: &mut Container) -> Result<()> {
        // ANCHOR: day8_task1_prepare_solution
        container.plan.network = Some(self.network);
        if self.network != Network::Host {
            container.plan.namespaces |= CloneFlags::CLONE_NEWNET;
        }
        Ok(())
        // ANCHOR_END: day8_task1_prepare_solution
    }

    fn enter(&mut self, container: &mut Container) -> Result<()> {
        match container.plan.network {
            Some(Network::None | Network::Bridge | Network::User) => bring_loopback_up(),
            Some(Network::Host) | None => Ok(()),
        }
    }
}
// ANCHOR_END: mechanism

// ANCHOR: loopback
/// Without it a container could not even talk to itself: 127.0.0.1 would answer
/// "Network is unreachable". The kernel gives the address as soon as it is up.
pub fn bring_loopback_up() -> Result<()> {
    // ANCHOR: day8_task2_bring_loopback_up_solution
    let netlink = Netlink::inside()?;
    let up = LinkUnspec::new_with_index(LOOPBACK).up().build();
    let describe = || ("link set lo up".into(), "ip link set lo up".into());
    step(DAY, describe, || netlink.wait(netlink.handle.link().set(up).execute()))
    // ANCHOR_END: day8_task2_bring_loopback_up_solution
}
// ANCHOR_END: loopback

/// Before day 9: what its mode is told.
pub struct NoBridgeYet;

impl Mechanism for NoBridgeYet {
    fn prepare(&mut self, container: &mut Container) -> Result<()> {
        if container.plan.network == Some(Network::Bridge) {
            anyhow::bail!(
                "--net bridge comes to life on day 9: nothing connects a container to anything yet; use none or host"
            );
        }
        Ok(())
    }
}
