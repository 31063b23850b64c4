//! Day 5: open files travel from one process to another over a socket. Who receives them gets
//! descriptors of its own. (unix(7), SCM_RIGHTS)

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// So many at once, and no more.
const MOST: usize = 2;

/// Sends `files` to the process at the other end of `socket`.
pub fn send(socket: &UnixStream, files: &[BorrowedFd]) -> io::Result<()> {
    // Rights travel only with at least one byte.
    send_with(socket, b"!", files)
}

/// Sends them along with `text`. If nobody is there any more it is an error, and not SIGPIPE.
pub fn send_with(socket: &UnixStream, text: &[u8], files: &[BorrowedFd]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut message = SendAncillaryBuffer::new(&mut space);
    message.push(SendAncillaryMessage::ScmRights(files));
    sendmsg(socket, &[IoSlice::new(text)], &mut message, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Takes what [`send`] sent; nothing, if the other end was closed before.
pub fn receive(socket: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut message = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut message, RecvFlags::CMSG_CLOEXEC)?;
    let mut files = Vec::new();
    for received in message.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = received {
            files.extend(rights);
        }
    }
    Ok(files)
}
