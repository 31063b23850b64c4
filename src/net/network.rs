//! Day 9: `network rm`. The bridge, NAT and forwarding outlive the last container:
//! the next one starts faster, and nobody counts who is left. This removes them.

use std::path::Path;
use std::thread::sleep;
use std::time::Instant;

use anyhow::bail;

use crate::error::{self, Result};
use crate::explain::step;
use crate::metadata::output::print;
use crate::metadata::state::State;
use crate::net::address;
use crate::net::nat;
use crate::net::subnet::{Plan, Subnet};
use crate::net::{check_ours, find_link, lock, plugged_in};
use crate::netns::netlink::Netlink;
use crate::wait::{A_MOMENT, PATIENCE};

const DAY: u8 = 9;

/// Manage the network that containers share
#[derive(Debug, clap::Args)]
pub struct NetworkCommand {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Remove the bridge and its rules; the next run makes them anew
    Rm(Rm),
}

#[derive(Debug, clap::Args)]
struct Rm {
    #[command(flatten)]
    state: State,

    #[command(flatten)]
    subnet: Subnet,
}

impl NetworkCommand {
    /// Prints the bridge's name. Returns the exit code.
    pub fn execute(self) -> Result<u8> {
        let Action::Rm(rm) = self.command;
        let plan = rm.subnet.plan()?;
        Ok(error::for_each(std::slice::from_ref(&plan.bridge), |name| {
            remove(rm.state.path(), &plan)?;
            print(&format!("{name}\n")).map(drop)
        }))
    }
}

// ANCHOR: rm
/// Removes what containers share, if none of them is connected. The files of the
/// addresses stay: a lock counts only as long as its file has its name.
fn remove(root: &Path, plan: &Plan) -> Result<()> {
    let name = &plan.bridge;
    let _lock = if root.is_dir() { Some(lock(root)?) } else { None };
    let netlink = Netlink::open()?;
    if let Some(link) = find_link(&netlink, name)? {
        let index = check_ours(plan, &link)?;
        let start = Instant::now();
        loop {
            let (starting, connected) = (address::anybody_has_one(root)?, plugged_in(&netlink, index)?);
            if !starting && connected == 0 {
                break;
            }
            // A cable without its container: the kernel is about to remove it.
            if starting || start.elapsed() > PATIENCE {
                bail!(
                    "{name} is in use, by {connected} container(s); stop them first: tiny-docker ps lists them"
                );
            }
            sleep(A_MOMENT);
        }
        let describe = || (format!("link delete {name}"), format!("ip link delete {name}"));
        step(DAY, describe, || netlink.wait(netlink.handle.link().del(index).execute()))?;
    }
    nat::remove(name)
}
// ANCHOR_END: rm
