//! Day 14: where a container asks for names: 127.0.0.11, port 53, as with Docker.
//!
//! The child opens the sockets, for a socket belongs to the network namespace in which it was
//! made, and hands them to the runtime, which stays outside. They do not listen on port 53: the
//! container may want that for a name server of its own. A rule in its namespace leads what is
//! for 127.0.0.11:53 to the port that they got.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context, bail};
use netlink_packet_netfilter::nftables::{
    DataAttribute, Expressions, Immediate, InetHookNumber, MetaKey, Operator, Payload, Register,
};

use crate::error::Result;
use crate::explain::step;
use crate::logs::rights;
use crate::net::nfnetlink::change;
use crate::net::nftables::{Batch, Chain, Command, add_table, compare, load, other};

use super::DAY;

/// One of the loopback device's own, all of 127.0.0.0/8.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

const TABLE: &str = "tiny-docker-names";

/// The sockets of a container's name server.
#[derive(Debug)]
pub struct Sockets {
    /// Most questions come here.
    pub udp: UdpSocket,
    /// And those whose answer is long.
    pub tcp: TcpListener,
}

// ANCHOR: open
impl Sockets {
    /// Child, in its network namespace, once its loopback device is up.
    pub fn open() -> Result<Sockets> {
        // ANCHOR: day14_task5_open_solution
        let describe = || (format!("bind({ADDRESS}), listen: for UDP and TCP"), "nc -lu 127.0.0.11".into());
        let (udp, tcp, port) = step(DAY, describe, || {
            let udp = UdpSocket::bind((ADDRESS, 0))?;
            let port = udp.local_addr()?.port();
            // Nobody else is in this namespace yet, so the same number is free.
            let tcp = TcpListener::bind((ADDRESS, port))?;
            Ok::<_, std::io::Error>((udp, tcp, port))
        })?;
        redirect(port)?;
        Ok(Sockets { udp, tcp })
        // ANCHOR_END: day14_task5_open_solution
    }

    /// Child: gives them to the process at the other end of `socket`. (unix(7), SCM_RIGHTS)
    pub fn send(&self, socket: &UnixStream) -> Result<()> {
        let files = [self.udp.as_fd(), self.tcp.as_fd()];
        let describe =
            || ("sendmsg(SCM_RIGHTS): the sockets, to the runtime".into(), "(no shell can)".into());
        step(DAY, describe, || rights::send(socket, &files))
    }

    /// Parent: takes what [`Sockets::send`] sent.
    pub fn receive(socket: &UnixStream) -> Result<Sockets> {
        let files = rights::receive(socket).context("receive the sockets of the name server")?;
        let Ok([udp, tcp]) = <[OwnedFd; 2]>::try_from(files) else {
            bail!("the container sent no sockets for its name server")
        };
        Ok(Sockets { udp: udp.into(), tcp: tcp.into() })
    }
}
// ANCHOR_END: open

// ANCHOR: redirect
/// Leads what is sent to 127.0.0.11:53 to `port` there. The answers find back by themselves: the
/// kernel remembers the connection. (nft(8), "NAT STATEMENTS")
fn redirect(port: u16) -> Result<()> {
    // ANCHOR: day14_task5_redirect_solution
    change(|_, _| {
        let output = Chain::ours(TABLE, "output");
        let mut commands: Vec<Command> = vec![add_table(TABLE)];
        // -100: dstnat, before the packet is routed again.
        commands.push(output.add("nat", InetHookNumber::LocalOut, -100, "names"));
        for (protocol, number) in [("udp", libc::IPPROTO_UDP), ("tcp", libc::IPPROTO_TCP)] {
            let text = format!("ip daddr {ADDRESS} {protocol} dport 53 dnat to {ADDRESS}:{port}");
            commands.push(output.add_rule(&text, redirection(number as u8, port)));
        }
        Ok(Batch { title: vec![format!("dnat {ADDRESS}:53 to port {port}")], commands })
    })
    // ANCHOR_END: day14_task5_redirect_solution
}
// ANCHOR_END: redirect

/// The expressions of one such rule.
fn redirection(protocol: u8, port: u16) -> Vec<Expressions> {
    let from = |base, offset, length| {
        let register = Payload::DestinationRegister(Register::Reg1);
        Expressions::Payload(vec![
            register,
            Payload::Base(base),
            Payload::Offset(offset),
            Payload::Len(length),
        ])
    };
    let set = |register, value: &[u8]| {
        let data = Immediate::Data(DataAttribute::Value(value.into()));
        Expressions::Immediate(vec![Immediate::DestinationRegister(register), data])
    };
    // Headers: 1 is IP's, with the destination from byte 16 on; 2 is UDP's or TCP's, with the
    // port from byte 2 on. (linux/netfilter/nf_tables.h, nft_payload_bases)
    vec![
        load(MetaKey::L4Proto),
        compare(Operator::Equal, &[protocol]),
        from(1, 16, 4),
        compare(Operator::Equal, &ADDRESS.octets()),
        from(2, 2, 2),
        compare(Operator::Equal, &53_u16.to_be_bytes()),
        set(Register::Reg1, &ADDRESS.octets()),
        set(Register::Reg2, &port.to_be_bytes()),
        // Its type (1: of the destination), its family, and where address and port are.
        other(
            "nat",
            &[(1, 1), (2, libc::NFPROTO_IPV4 as u32), (3, Register::Reg1.into()), (5, Register::Reg2.into())],
        ),
    ]
}
