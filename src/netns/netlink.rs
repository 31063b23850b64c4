//! Day 8: rtnetlink, by which the kernel is asked for links, addresses and routes.
//! It is a socket; `ip` talks through the same. (rtnetlink(7))

use std::cell::OnceCell;
use std::future::Future;
use std::io;
use std::rc::Rc;

use anyhow::Context;
use futures_util::stream::{Stream, TryStreamExt};
use rtnetlink::{Error, Handle};
use tokio::runtime::{Builder, Runtime};

use crate::error::Result;

// ANCHOR: netlink
/// A netlink socket. It belongs to the network namespace in which it was opened,
/// and speaks to no other: the child opens its own.
///
/// The library is asynchronous, for programs that do much at once. We ask one thing
/// after the other, and wait each time. Its runtime is one without threads, since
/// clone3 must find this process with a single one.
#[derive(Debug)]
pub struct Netlink {
    runtime: Runtime,
    /// Makes requests.
    pub handle: Handle,
}

impl Netlink {
    /// Opens a socket in the network namespace of this process.
    pub fn open() -> Result<Netlink> {
        let runtime = Builder::new_current_thread().enable_io().build().context("start tokio")?;
        let (connection, handle) = {
            let _guard = runtime.enter();
            let (connection, handle, _) = rtnetlink::new_connection().context("open a netlink socket")?;
            (connection, handle)
        };
        runtime.spawn(connection);
        Ok(Netlink { runtime, handle })
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
        self.runtime.block_on(request).map_err(as_io)
    }

    /// Sends a request whose answer is a list.
    pub fn list<T>(&self, answers: impl Stream<Item = std::result::Result<T, Error>>) -> io::Result<Vec<T>> {
        self.runtime.block_on(answers.try_collect()).map_err(as_io)
    }
}
// ANCHOR_END: netlink

fn as_io(error: Error) -> io::Error {
    match error {
        Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}
