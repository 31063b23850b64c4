//! Day 9: `network rm`. The bridge, NAT and forwarding outlive the last container:
//! the next one starts faster, and nobody counts who is left. This removes them.

use std::thread::sleep;
use std::time::Instant;

use anyhow::bail;

use crate::error::{self, Result};
use crate::explain::step;
use crate::metadata::output::print;
use crate::metadata::state::State;
use crate::net::address;
use crate::net::bridge::{find_link, mark, plugged_in};
use crate::net::lock::NetworkLock;
use crate::net::nat;
use crate::net::subnet::Subnet;
use crate::netns::netlink::Netlink;
use crate::wait::{A_MOMENT, PATIENCE, told_to_end};

const DAY: u8 = 9;

/// Manage the network that containers share
#[derive(Debug, clap::Args)]
pub struct NetworkCommand {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Remove the bridge and its rules; the next run makes them again
    Rm(Rm),
}

/// The flags of `network rm`.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub struct Rm {
    // The network is the host's, and no state directory's: taken, and not looked at.
    #[command(flatten)]
    state: State,

    #[command(flatten)]
    subnet: Subnet,
}

impl NetworkCommand {
    /// Prints the bridge's name. Returns the exit code.
    pub fn execute(self) -> Result<u8> {
        let Action::Rm(rm) = self.command;
        rm.execute()
    }
}

impl Rm {
    /// Prints the bridge's name. Returns the exit code.
    pub fn execute(self) -> Result<u8> {
        let bridge = self.subnet.bridge()?.to_string();
        Ok(error::for_each(&[bridge], |name| {
            remove(name)?;
            print(&format!("{name}\n")).map(drop)
        }))
    }

    /// The state directory.
    pub fn state(&self) -> &State {
        &self.state
    }
}

// ANCHOR: rm
/// Removes what containers share, if none of them is connected: the bridge `name`, for
/// whichever subnet it is, if it has our mark.
fn remove(name: &str) -> Result<()> {
    let lock = NetworkLock::take()?;
    take_down(&lock, name)?;
    lock.forget_addresses(name);
    Ok(())
}

/// Removes the bridge `name` and its rules, if no container is connected to it.
pub fn take_down(lock: &NetworkLock, name: &str) -> Result<()> {
    let netlink = Netlink::open()?;
    let start = Instant::now();
    while let Some(link) = find_link(&netlink, name)? {
        if mark(&link).is_none() {
            bail!(
                "the interface {name} is not ours, and stays; ours is a bridge whose hardware address \
                 begins with 02:74"
            );
        }
        let index = link.header.index;
        let (starting, connected) = (address::anybody_has_one(lock, name)?, plugged_in(&netlink, index)?);
        if !starting && connected == 0 {
            let describe = || (format!("link delete {name}"), format!("ip link delete {name}"));
            step(DAY, describe, || netlink.wait(netlink.handle.link().del(index).execute()))?;
            break;
        }
        // A cable without its container: the kernel is about to remove it.
        if starting || start.elapsed() > PATIENCE {
            let by = match connected {
                0 => "a container that is starting".to_string(),
                count => format!("{count} container(s)"),
            };
            bail!("{name} is in use, by {by}; stop them first: tiny-docker ps lists them");
        }
        told_to_end(&format!("the last cables of {name}"))?;
        sleep(A_MOMENT);
    }
    nat::remove(name)
}
// ANCHOR_END: rm
