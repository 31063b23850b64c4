//! Day 13: UDP through the copying loop.
//!
//! UDP has no connections, so the loop remembers them: who has sent something gets a socket of
//! their own towards the container, and what comes back by that socket is for them. Such a
//! flow is forgotten when nothing has come for a while, as the kernel does with its own.

use std::collections::HashMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::cmsg_space;
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, connect, recv, send, socket_with};

use crate::files;
use crate::ports::relay::FLAGS;
use crate::ports::watch::{Watch, Who};

/// How many flows there are at most. For a new one the one that has been silent for longest goes.
pub const AT_MOST: usize = 1024;

/// How long the kernel remembers a flow in which nothing comes any more, in seconds. (nf_conntrack-sysctl)
const KERNELS_PATIENCE: &str = "/proc/sys/net/netfilter/nf_conntrack_udp_timeout_stream";

/// How often to look for flows that are to be forgotten.
const LOOK: Duration = Duration::from_secs(1);

/// No datagram is longer. (udp(7))
const LONGEST: usize = 64 << 10;

/// How many datagrams of one socket are passed on before others have their turn.
const TURN: usize = 64;

/// All that has been sent through the loop lately.
#[derive(Debug)]
pub struct Flows {
    numbers: HashMap<Caller, u64>,
    flows: HashMap<u64, Flow>,
    next: u64,
    at_most: usize,
    patience: Duration,
    looked: Instant,
    buffer: Vec<u8>,
}

/// Somebody who has sent a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Caller {
    /// To which door.
    door: usize,
    /// From where.
    from: SockaddrStorage,
    /// To which of the host's addresses.
    at: Option<At>,
}

/// An address of the host, and on IPv6 the index of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum At {
    V4(u32),
    V6([u8; 16], u32),
}

#[derive(Debug)]
struct Flow {
    caller: Caller,
    /// Connected to the container's server.
    server: OwnedFd,
    /// When a datagram came last.
    last: Instant,
}

/// Has the kernel tell of each datagram that comes to `door` which address it was sent to: the
/// answer must come from there. (ip(7), IP_PKTINFO; ipv6(7), IPV6_PKTINFO)
pub fn tell_where_it_was_sent(door: &OwnedFd) -> nix::Result<()> {
    // A socket of IPv6 that takes IPv4 as well tells both in the words of IPv6.
    setsockopt(door, Ipv6RecvPacketInfo, &true).or_else(|_| setsockopt(door, Ipv4PacketInfo, &true))
}

impl Flows {
    /// None yet, and never more than `at_most`.
    pub fn new(at_most: usize) -> Flows {
        let patience = files::read(KERNELS_PATIENCE)
            .ok()
            .and_then(|text| String::from_utf8(text).ok()?.trim_end().parse().ok());
        Flows {
            numbers: HashMap::new(),
            flows: HashMap::new(),
            next: 0,
            at_most,
            patience: Duration::from_secs(patience.unwrap_or(120)),
            looked: Instant::now(),
            buffer: vec![0; LONGEST],
        }
    }

    // ANCHOR: from_clients
    /// Passes on what has come to `door`, the one at place `at` in the list. As everywhere with
    /// UDP, what finds no room is lost.
    pub fn from_clients(&mut self, at: usize, door: &OwnedFd, to: SocketAddrV4, watch: &Watch) {
        // ANCHOR: day13_task4_from_clients_solution
        for _ in 0..TURN {
            let (length, caller) = match receive(door, at, &mut self.buffer) {
                Ok(Some(received)) => received,
                Ok(None) => continue,
                Err(_) => return,
            };
            let known = self.numbers.get(&caller).copied();
            // There may be no file left for another one.
            let Ok(number) = known.map_or_else(|| self.begin(caller, to, watch), Ok) else { continue };
            let Some(flow) = self.flows.get_mut(&number) else { continue };
            flow.last = Instant::now();
            let datagram = &self.buffer[..length];
            // The error may be that of the datagram before: nobody listened there then.
            if send(&flow.server, datagram, SendFlags::empty()).is_err() {
                let _ = send(&flow.server, datagram, SendFlags::empty());
            }
        }
        // ANCHOR_END: day13_task4_from_clients_solution
    }
    // ANCHOR_END: from_clients

    // ANCHOR: from_server
    /// Passes back what has come for the flow `number`, from the address that its client has
    /// sent to.
    pub fn from_server<'door>(&mut self, number: u64, door: impl Fn(usize) -> Option<&'door OwnedFd>) {
        // ANCHOR: day13_task4_from_server_solution
        let Some(flow) = self.flows.get_mut(&number) else { return };
        let Some(door) = door(flow.caller.door) else { return };
        flow.last = Instant::now();
        for _ in 0..TURN {
            match recv(&flow.server, &mut self.buffer[..], RecvFlags::empty()) {
                Ok((length, _)) => answer(door, &flow.caller, &self.buffer[..length]),
                Err(Errno::AGAIN) => return,
                // Nobody listens there, says the container. Its client has no use for that.
                Err(_) => {}
            }
        }
        // ANCHOR_END: day13_task4_from_server_solution
    }
    // ANCHOR_END: from_server

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// Forgets the flows in which nothing has come for long. To be called often.
    pub fn forget_old(&mut self) {
        if self.flows.is_empty() || self.looked.elapsed() < LOOK {
            return;
        }
        self.looked = Instant::now();
        let is_old = |flow: &Flow| flow.last.elapsed() >= self.patience;
        let old: Vec<u64> =
            self.flows.iter().filter(|(_, flow)| is_old(flow)).map(|(number, _)| *number).collect();
        old.into_iter().for_each(|number| self.forget(number));
    }

    fn begin(&mut self, caller: Caller, to: SocketAddrV4, watch: &Watch) -> io::Result<u64> {
        if self.flows.len() >= self.at_most
            && let Some(oldest) =
                self.flows.iter().min_by_key(|(_, flow)| flow.last).map(|(number, _)| *number)
        {
            self.forget(oldest);
        }
        let server = socket_with(AddressFamily::INET, SocketType::DGRAM, FLAGS, None)?;
        connect(&server, &to)?;
        let number = self.next;
        self.next += 1;
        watch.data(&server, Who::Flow(number))?;
        self.numbers.insert(caller, number);
        self.flows.insert(number, Flow { caller, server, last: Instant::now() });
        Ok(number)
    }

    fn forget(&mut self, number: u64) {
        if let Some(flow) = self.flows.remove(&number) {
            self.numbers.remove(&flow.caller);
        }
    }
}

/// Receives one datagram: its length, and whose it is. `None`: nobody could answer it.
fn receive(door: &OwnedFd, at: usize, buffer: &mut [u8]) -> io::Result<Option<(usize, Caller)>> {
    let mut control = cmsg_space!(libc::in6_pktinfo);
    let mut parts = [IoSliceMut::new(buffer)];
    let received =
        recvmsg::<SockaddrStorage>(door.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty())?;
    let Some(from) = received.address else { return Ok(None) };
    let sent_to = received.cmsgs()?.find_map(|message| match message {
        // Not `ipi_addr`, which can be a broadcast address: nothing may come from one.
        ControlMessageOwned::Ipv4PacketInfo(info) => Some(At::V4(info.ipi_spec_dst.s_addr)),
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(At::V6(info.ipi6_addr.s6_addr, info.ipi6_ifindex)),
        _ => None,
    });
    Ok(Some((received.bytes, Caller { door: at, from, at: sent_to })))
}

/// Sends `caller` a datagram, from the address that they have sent theirs to.
fn answer(door: &OwnedFd, caller: &Caller, datagram: &[u8]) {
    let parts = [IoSlice::new(datagram)];
    let send = |control: &[ControlMessage]| {
        sendmsg(door.as_raw_fd(), &parts, control, MsgFlags::empty(), Some(&caller.from))
    };
    // If it finds no room it is lost, as everywhere with UDP.
    let _ = match caller.at {
        None => send(&[]),
        Some(At::V4(address)) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: address },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            send(&[ControlMessage::Ipv4PacketInfo(&info)])
        }
        Some(At::V6(address, interface)) => {
            let info =
                libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: address }, ipi6_ifindex: interface };
            send(&[ControlMessage::Ipv6PacketInfo(&info)])
        }
    };
}
