//! Day 13: a published port is bound, by the process that waits for the container. So it is
//! nobody else's for as long as the container lives; and if it is somebody else's already,
//! this is how that is found out. What arrives at the descriptor is `proxy`'s.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use anyhow::bail;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, listen, socket_with, sockopt};

use crate::error::Result;
use crate::explain::step;
use crate::plan::{Protocol, PublishedPort};
use crate::ports::flag::Wanted;
use crate::ports::holder;

use super::DAY;

/// As many connections wait to be accepted as the host allows. (listen(2), somaxconn)
const BACKLOG: i32 = i32::MAX;

/// A port of the host's that is ours.
#[derive(Debug)]
pub struct Reserved {
    /// Where it leads.
    pub published: PublishedPort,
    /// Bound to it; of TCP it listens. Of IPv6 and of IPv4, if no address was asked for. It
    /// does not block.
    pub socket: OwnedFd,
}

// ANCHOR: reserve
/// Takes a port as it is wanted: the first one that is free, if there is a choice.
pub fn reserve(wanted: &Wanted) -> Result<Reserved> {
    // ANCHOR: day13_task1_reserve_solution
    let choice = wanted.host_ports.clone().unwrap_or(0..=0);
    let (first, last) = (*choice.start(), *choice.end());
    for port in choice {
        let mut published = PublishedPort {
            protocol: wanted.protocol,
            container_port: wanted.container_port,
            address: wanted.address,
            host_port: port,
        };
        match open(&mut published) {
            Ok(socket) => return Ok(Reserved { published, socket }),
            Err(error) if is(&error, Errno::ADDRINUSE) && port < last => {}
            Err(error) if is(&error, Errno::ADDRINUSE) && first < last => {
                bail!("the ports {first} to {last} are all taken; choose others, or stop whoever has one")
            }
            Err(error) => return Err(explain_refusal(error, &published)),
        }
    }
    bail!("no port to choose from")
    // ANCHOR_END: day13_task1_reserve_solution
}
// ANCHOR_END: reserve

fn is(error: &anyhow::Error, errno: Errno) -> bool {
    error.downcast_ref::<Errno>() == Some(&errno)
}

// ANCHOR: open
/// A socket that has this port. Whoever asks for no address gets all of them by one descriptor:
/// one of IPv6 takes IPv4 as well, unless it is told not to. (ipv6(7), IPV6_V6ONLY)
fn open(published: &mut PublishedPort) -> Result<OwnedFd> {
    // ANCHOR: day13_task1_open_solution
    let both = published.address.is_none();
    let address = published.address.unwrap_or(Ipv6Addr::UNSPECIFIED.into());
    let name = SocketAddr::new(address, published.host_port);
    let protocol = published.protocol;
    let describe = || {
        let flag = if protocol == Protocol::Udp { "-u " } else { "" };
        (format!("bind({name}): {protocol}"), format!("nc -lk {flag}-p {} &", name.port()))
    };
    match step(DAY, describe, || bound(name, protocol, both)) {
        // A kernel without IPv6.
        Err(error) if both && is(&error, Errno::AFNOSUPPORT) => {
            published.address = Some(Ipv4Addr::UNSPECIFIED.into());
            open(published)
        }
        Err(error) => Err(error),
        Ok(socket) => {
            let name: SocketAddr = getsockname(&socket)?.try_into()?;
            published.host_port = name.port();
            Ok(socket)
        }
    }
    // ANCHOR_END: day13_task1_open_solution
}
// ANCHOR_END: open

fn bound(name: SocketAddr, protocol: Protocol, both: bool) -> rustix::io::Result<OwnedFd> {
    let (family, kind) = (
        if name.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET },
        if protocol == Protocol::Tcp { SocketType::STREAM } else { SocketType::DGRAM },
    );
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    if name.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, !both)?;
    }
    if protocol == Protocol::Tcp {
        // Connections of whoever had it before may still be closing: they do not matter. Whoever
        // listens does. (socket(7), SO_REUSEADDR)
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &name)?;
    if protocol == Protocol::Tcp {
        listen(&socket, BACKLOG)?;
    }
    Ok(socket)
}

/// What to do about it.
fn explain_refusal(error: anyhow::Error, published: &PublishedPort) -> anyhow::Error {
    let (port, protocol) = (published.host_port, published.protocol);
    if is(&error, Errno::ADDRINUSE) {
        let whose = holder::of(port, protocol);
        return error.context(format!(
            "port {port}/{protocol} of this host is taken{whose}; free it, or publish another port"
        ));
    }
    match published.address {
        Some(address) if is(&error, Errno::ADDRNOTAVAIL) => error.context(format!(
            "this host has no address {address}; ip address lists those it has, and without one it is all of them"
        )),
        _ if is(&error, Errno::MFILE) => error.context(
            "each published port is an open file of the runtime, and it may have no more; raise the limit: ulimit -Hn",
        ),
        _ => error,
    }
}
