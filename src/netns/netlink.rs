//! Day 8: rtnetlink, by which the kernel is asked for links, addresses and routes.
//! It is a socket; `ip` talks through the same. (rtnetlink(7))

use std::cell::{OnceCell, RefCell};
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{self, Poll, Waker};

use anyhow::Context;
use bytes::BufMut;
use futures_util::stream::{Stream, TryStreamExt};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::proto::Connection;
use rtnetlink::sys::{AsyncSocket, Socket, SocketAddr};
use rtnetlink::{Error, Handle, new_connection_with_socket};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;

use crate::error::Result;

// ANCHOR: netlink
/// A netlink socket. It belongs to the network namespace in which it was opened,
/// and speaks to no other: the child opens its own.
///
/// The library is asynchronous, for programs that do much at once. We ask one thing
/// after the other, and wait each time: for that no runtime is needed, and none is
/// started, with its threads and its files, at each container's start.
pub struct Netlink {
    connection: RefCell<Connection<RouteNetlinkMessage, NonBlocking>>,
    /// Makes requests.
    pub handle: Handle,
}

impl Netlink {
    /// Opens a socket in the network namespace of this process.
    pub fn open() -> Result<Netlink> {
        let (connection, handle, _) = new_connection_with_socket().context("open a netlink socket")?;
        Ok(Netlink { connection: RefCell::new(connection), handle })
    }

    /// Brings `request` to its end: whenever it cannot go on, what it asked for is sent, what
    /// has come is read, and if nothing has come, the next answer is waited for.
    fn complete<T>(&self, request: impl Future<Output = T>) -> io::Result<T> {
        let (mut request, mut nobody_to_wake) = (pin!(request), task::Context::from_waker(Waker::noop()));
        loop {
            if let Poll::Ready(answer) = request.as_mut().poll(&mut nobody_to_wake) {
                return Ok(answer);
            }
            let mut connection = self.connection.borrow_mut();
            let _ = Pin::new(&mut *connection).poll(&mut nobody_to_wake);
            if let Poll::Ready(answer) = request.as_mut().poll(&mut nobody_to_wake) {
                return Ok(answer);
            }
            let mut answer = [PollFd::new(&connection.socket_mut().0, PollFlags::IN)];
            retry_on_intr(|| poll(&mut answer, None))?;
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

/// A socket as the library wants it: one that says "not yet" instead of waiting.
struct NonBlocking(Socket);

/// The outcome of a system call that does not wait.
fn ready<T>(outcome: io::Result<T>) -> Poll<io::Result<T>> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        outcome => Poll::Ready(outcome),
    }
}

impl AsyncSocket for NonBlocking {
    fn new(protocol: isize) -> io::Result<NonBlocking> {
        let socket = Socket::new(protocol)?;
        socket.set_non_blocking(true)?;
        Ok(NonBlocking(socket))
    }

    fn socket_ref(&self) -> &Socket {
        &self.0
    }

    fn socket_mut(&mut self) -> &mut Socket {
        &mut self.0
    }

    fn poll_send(&self, _: &mut task::Context, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready(self.0.send(bytes, 0))
    }

    fn poll_send_to(&self, _: &mut task::Context, bytes: &[u8], to: &SocketAddr) -> Poll<io::Result<usize>> {
        ready(self.0.send_to(bytes, to, 0))
    }

    fn poll_recv<B: BufMut>(&self, _: &mut task::Context, buffer: &mut B) -> Poll<io::Result<()>> {
        ready(self.0.recv(buffer, 0).map(drop))
    }

    fn poll_recv_from<B: BufMut>(
        &self,
        _: &mut task::Context,
        buffer: &mut B,
    ) -> Poll<io::Result<SocketAddr>> {
        ready(self.0.recv_from(buffer, 0).map(|(_, from)| from))
    }

    fn poll_recv_from_full(&self, _: &mut task::Context) -> Poll<io::Result<(Vec<u8>, SocketAddr)>> {
        ready(self.0.recv_from_full())
    }
}
