//! Day 8: rtnetlink, by which the kernel is asked for links, addresses and routes.
//! It is a socket; `ip` talks through the same. (rtnetlink(7))

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{self, Poll, Waker};

use anyhow::Context;
use bytes::BufMut;
use futures_util::stream::{Stream, TryStreamExt};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::proto::Connection;
use rtnetlink::sys::{AsyncSocket, Socket, SocketAddr};
use rtnetlink::{Error, Handle, new_connection_with_socket};

use crate::error::Result;

// ANCHOR: netlink
/// A netlink socket. It belongs to the network namespace in which it was opened,
/// and speaks to no other: the child opens its own.
///
/// The library is asynchronous, for programs that do much at once. We ask one thing
/// after the other, and wait each time: for that no runtime is needed, and none is
/// started, with its threads and its files, at each container's start.
pub struct Netlink {
    connection: RefCell<Connection<RouteNetlinkMessage, OneAtATime>>,
    /// Makes requests.
    pub handle: Handle,
}

impl Netlink {
    /// Opens a socket in the network namespace of this process.
    pub fn open() -> Result<Netlink> {
        let (connection, handle, _) = new_connection_with_socket().context("open a netlink socket")?;
        Ok(Netlink { connection: RefCell::new(connection), handle })
    }

    /// Brings `request` to its end: what it asks for is sent, and one answer after the other is
    /// read and handed to it, until it has all.
    fn complete<T>(&self, request: impl Future<Output = T>) -> io::Result<T> {
        let (mut request, mut nobody_to_wake) = (pin!(request), task::Context::from_waker(Waker::noop()));
        loop {
            if let Poll::Ready(answer) = request.as_mut().poll(&mut nobody_to_wake) {
                return Ok(answer);
            }
            let mut connection = self.connection.borrow_mut();
            connection.poll_requests(&mut nobody_to_wake);
            connection.poll_send_messages(&mut nobody_to_wake);
            connection.socket_mut().is_awaited.set(true);
            connection.poll_read_messages(&mut nobody_to_wake);
            connection.forward_responses();
            if connection.should_shut_down() {
                return Err(io::Error::other("the netlink socket cannot be used any more"));
            }
        }
    }

    /// Child: the socket by which it configures its own namespace. It is opened once, however
    /// many interfaces there are, for that takes as long as several requests.
    ///
    /// The parent must not use this. Its child would find a copy of the parent's here, which
    /// speaks to the parent's namespace.
    pub fn inside() -> Result<Rc<Netlink>> {
        thread_local!(static INSIDE: OnceCell<Rc<Netlink>> = const { OnceCell::new() });
        INSIDE.with(|inside| match inside.get() {
            Some(netlink) => Ok(netlink.clone()),
            None => {
                let netlink = Rc::new(Netlink::open()?);
                Ok(inside.get_or_init(|| netlink).clone())
            }
        })
    }

    /// Sends a request, and waits for the kernel's answer. The error is the
    /// kernel's, as of any system call.
    pub fn wait<T>(&self, request: impl Future<Output = std::result::Result<T, Error>>) -> io::Result<T> {
        self.complete(request)?.map_err(as_io)
    }

    /// Sends a request whose answer is a list.
    pub fn list<T>(&self, answers: impl Stream<Item = std::result::Result<T, Error>>) -> io::Result<Vec<T>> {
        self.complete(answers.try_collect())?.map_err(as_io)
    }
}
// ANCHOR_END: netlink

impl fmt::Debug for Netlink {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("Netlink")
    }
}

fn as_io(error: Error) -> io::Error {
    match error {
        Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}

/// The library would ask the socket whether something has come, before and after each message.
/// We know that: after a request the next message is worth waiting for, and that one alone.
struct OneAtATime {
    socket: Socket,
    is_awaited: Cell<bool>,
}

impl OneAtATime {
    /// Waits for the message that is awaited; "not yet" if there is none.
    fn receive<T>(&self, mut receive: impl FnMut(&Socket) -> io::Result<T>) -> Poll<io::Result<T>> {
        if !self.is_awaited.take() {
            return Poll::Pending;
        }
        loop {
            match receive(&self.socket) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => return Poll::Ready(outcome),
            }
        }
    }
}

impl AsyncSocket for OneAtATime {
    fn new(protocol: isize) -> io::Result<OneAtATime> {
        Ok(OneAtATime { socket: Socket::new(protocol)?, is_awaited: Cell::new(false) })
    }

    fn socket_ref(&self) -> &Socket {
        &self.socket
    }

    fn socket_mut(&mut self) -> &mut Socket {
        &mut self.socket
    }

    fn poll_send(&self, _: &mut task::Context, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.socket.send(bytes, 0))
    }

    fn poll_send_to(&self, _: &mut task::Context, bytes: &[u8], to: &SocketAddr) -> Poll<io::Result<usize>> {
        Poll::Ready(self.socket.send_to(bytes, to, 0))
    }

    fn poll_recv<B: BufMut>(&self, _: &mut task::Context, buffer: &mut B) -> Poll<io::Result<()>> {
        self.receive(|socket| socket.recv(buffer, 0).map(drop))
    }

    fn poll_recv_from<B: BufMut>(
        &self,
        _: &mut task::Context,
        buffer: &mut B,
    ) -> Poll<io::Result<SocketAddr>> {
        self.receive(|socket| socket.recv_from(buffer, 0).map(|(_, from)| from))
    }

    fn poll_recv_from_full(&self, _: &mut task::Context) -> Poll<io::Result<(Vec<u8>, SocketAddr)>> {
        self.receive(|socket| socket.recv_from_full())
    }
}
