//! Day 16: seccomp. *Which questions may it ask the kernel?*
//!
//! ```text
//! a profile (JSON, names) ── for this container, on this machine ── numbers, and what is decided
//!     ── intervals, a tree ── a program (classic BPF) ── the child, last of all before exec: attach
//! ```
//!
//! Whatever a program does beyond its own memory, it asks the kernel for, by one of some four
//! hundred system calls. Each is a door, with code of its own behind it, and a mistake in one is a
//! way out of any container. Programs use some two hundred of them. A filter closes the others:
//! the kernel runs it before each call, and does what it answers. (seccomp(2))

pub mod answer;
pub mod attach;
pub mod bpf;
pub mod calls;
pub mod compiler;
#[cfg(test)]
mod oracle;
pub mod profile;
pub mod resolve;
pub mod show;

use crate::capabilities::node::Node;
use crate::capabilities::{Capabilities, OfExec};
use crate::container::{Container, LastStep, Mechanism};
use crate::error::Result;

const DAY: u8 = 16;

/// The flags of day 15, as they are from day 16 on.
#[derive(Debug, clap::Args)]
#[command(mut_arg("security_opt", |arg| arg.help(SECURITY_OPT)))]
pub struct Filtered {
    #[command(flatten)]
    capabilities: Capabilities,
}

const SECURITY_OPT: &str = "seccomp=FILE|unconfined (a profile of Docker's format), no-new-privileges, \
    apparmor=PROFILE, or label=user|role|type|level:VALUE (SELinux)";

/// The same for `exec`: it has the container's filter.
#[derive(Debug, clap::Args)]
pub struct FilteredExec {
    #[command(flatten)]
    capabilities: OfExec,
}

impl Filtered {
    /// See [`Capabilities::take_nodes`].
    pub fn take_nodes(&mut self) -> Vec<Node> {
        self.capabilities.take_nodes()
    }
}

// ANCHOR: mechanism
impl Mechanism for Filtered {
    fn prepare(&mut self, container: &mut Container) -> Result<()> {
        // With a flag it is made anew, without one perhaps from its record.
        let chosen =
            self.capabilities.take_options("seccomp").pop().map(|value| attach::read(&value)).transpose()?;
        let planned = container.plan.privileges.seccomp.take();
        self.capabilities.prepare(container)?;
        container.plan.privileges.seccomp = chosen.unwrap_or(planned);
        filter(container)
    }

    fn enter(&mut self, container: &mut Container) -> Result<()> {
        self.capabilities.enter(container)
    }
}

impl Mechanism for FilteredExec {
    fn prepare(&mut self, container: &mut Container) -> Result<()> {
        // Before its own capabilities: with exec --privileged the command may more, but the
        // container's filter stays, as with Docker.
        container.parts.unfiltered = container.parts.cgroup.is_none();
        filter(container)?;
        self.capabilities.prepare(container)
    }

    fn enter(&mut self, container: &mut Container) -> Result<()> {
        self.capabilities.enter(container)
    }
}
// ANCHOR_END: mechanism

/// Prepares the filter that the container is to have.
fn filter(container: &mut Container) -> Result<()> {
    container.parts.filter = attach::filter_of(container)?;
    container.parts.last_steps.filter = container.parts.filter.as_ref().map(|_| attach::attach as LastStep);
    Ok(())
}
