//! Day 13: ports. *Can the world reach in?*
//!
//! ```text
//!   another machine ──► 192.0.2.1:8080 ──[ nat: dnat to 10.10.0.2:80 ]──► td0 ──► container
//!   the host itself ──► 127.0.0.1:8080 ──► the runtime, which has bound it, copies ──┘
//! ```
//!
//! The kernel redirects what comes for a published port of the host; the process that waits
//! for the container has that port bound, so that it is nobody else's, and passes on by hand
//! what the kernel does not redirect: all that comes by loopback, and IPv6.

pub mod command;
pub mod conntrack;
pub mod dnat;
pub mod flag;
pub mod hairpin;
pub mod holder;
pub mod open_files;
pub mod proxy;
pub mod relay;
pub mod reserve;
pub mod udp;
pub mod watch;
pub mod words;

use std::sync::OnceLock;

use anyhow::Context;
use nix::unistd::Pid;

use crate::container::{Container, Mechanism};
use crate::error::{self, Result};
use crate::plan::{Network, PublishedPort};

use self::dnat::Redirection;
use self::open_files::OpenFiles;
use self::proxy::Proxy;
use self::reserve::Reserved;

const DAY: u8 = 13;

/// Set where this network's ports are not the host's, and somebody passes these on to them: a person's,
/// without root. (day 17)
pub static PASSED_ON: OnceLock<()> = OnceLock::new();

/// The flags of day 13.
#[derive(Debug, clap::Args)]
pub struct Ports {
    /// A port of the container that is to be one of the host's too: 8080:80, 127.0.0.1:53:53/udp,
    /// 8000-8010:8000-8010; without the host's, any that is free
    #[arg(short, long, value_name = "[IP:][HOST:]PORT")]
    publish: Vec<String>,

    /// Publish all ports that the image exposes, each as any of the host's that is free
    #[arg(short = 'P', long)]
    publish_all: bool,

    /// From the host's point of view: bound, and nobody serves them yet.
    #[arg(skip)]
    reserved: Vec<Reserved>,

    /// The same ports, as this network has them.
    #[arg(skip)]
    here: Vec<PublishedPort>,

    /// What the kernel does with what arrives.
    #[arg(skip)]
    redirection: Option<Redirection>,

    /// What we do with the rest of it.
    #[arg(skip)]
    proxy: Option<Proxy>,

    /// How many open files the container may have: as many as before.
    #[arg(skip)]
    open_files: Option<OpenFiles>,
}

// ANCHOR: mechanism
impl Mechanism for Ports {
    fn prepare(&mut self, container: &mut Container) -> Result<()> {
        let plan = &mut container.plan;
        plan.publish.append(&mut self.publish);
        if self.publish_all {
            plan.publish.extend(flag::exposed(&plan.exposed_ports, &plan.publish)?);
        }
        if plan.publish.is_empty() {
            return Ok(());
        }
        if !matches!(plan.network, Some(Network::Bridge | Network::User)) {
            // As Docker: its words, and it goes on.
            error::say(
                "published ports are discarded: -p and -P are for containers on the bridge (--net bridge)",
            );
            plan.publish.clear();
            return Ok(());
        }
        let all = flag::parse_all(&plan.publish)?;
        if container.parts.only_made {
            return Ok(());
        }
        self.open_files = Some(OpenFiles::raise()?);
        for (text, wanted) in &all {
            let mut wanted = wanted.clone();
            let address = wanted.address;
            if PASSED_ON.get().is_some() {
                // The address is one of the host's, and not here.
                wanted.address = None;
            }
            let reserved = reserve::reserve(&wanted).with_context(|| format!("-p {text}"))?;
            let here = reserved.published;
            self.here.push(here);
            container.parts.ports.push(PublishedPort { address: address.or(here.address), ..here });
            self.reserved.push(reserved);
        }
        Ok(())
    }

    fn attach(&mut self, container: &mut Container, _child: Pid) -> Result<()> {
        let parts = &container.parts;
        let (Some(id), Some(address), Some(wire)) = (&parts.id, parts.address, &parts.wire) else {
            return Ok(());
        };
        if self.reserved.is_empty() {
            return Ok(());
        }
        // Its socket is ours alone: the child was made before it.
        self.redirection = dnat::redirect(id, address, wire, &self.here)?;
        hairpin::allow(wire)?;
        if let Err(error) = conntrack::forget_older(&self.here, address) {
            container.end.complain(&error);
        }
        self.proxy = Some(proxy::get_ready(std::mem::take(&mut self.reserved), address)?);
        Ok(())
    }

    fn enter(&mut self, _container: &mut Container) -> Result<()> {
        self.open_files.take().map_or(Ok(()), OpenFiles::restore)
    }

    fn started(&mut self, _container: &mut Container, _child: Pid) -> Result<()> {
        self.proxy.as_mut().map_or(Ok(()), Proxy::serve)
    }

    fn cleanup(&mut self, container: &mut Container) -> Result<()> {
        // In this order: while nothing is redirected any more, the port is still ours.
        let undone = match self.redirection.take() {
            Some(redirection) => redirection.end(),
            None => Ok(()),
        };
        if let Some(address) = container.parts.address.filter(|_| !self.here.is_empty()) {
            conntrack::forget_redirected(&self.here, address);
        }
        self.reserved.clear();
        self.proxy.take().map_or(Ok(()), Proxy::stop).and(undone)
    }
}
// ANCHOR_END: mechanism
