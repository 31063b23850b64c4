//! Writing to a stream that is not ours alone: stdout, stderr, a terminal.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

// ANCHOR: write_all
/// Writes all of `bytes` to `to`, however long its reader takes.
///
/// A write may stop short, or stop with EAGAIN: whether a pipe or a terminal is
/// non-blocking is a property of the open file, and another program that has the
/// same file open may have chosen it. So wait, and go on. (write(2); fcntl(2),
/// "File status flags")
///
/// Of the other errors one alone, EPIPE, means that nobody reads
/// ([`ErrorKind::BrokenPipe`]). A full disk, for one, is an error like any other.
pub fn write_all(to: impl AsFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match nix::unistd::write(&to, bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => wait_for_room(&to)?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
// ANCHOR_END: write_all

fn wait_for_room(to: impl AsFd) -> nix::Result<()> {
    match poll(&mut [PollFd::new(to.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE) {
        // A reader that has gone is also an event: the next write says so.
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error),
    }
}
