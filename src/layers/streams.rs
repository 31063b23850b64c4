//! Day 11: the streams that an archive comes by and goes by.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::stream;

/// A stream that is not ours alone, and may be non-blocking.
pub struct Out(pub OwnedFd);

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        stream::write_all(&self.0, bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The same to read from.
pub struct In(pub io::Stdin);

impl Read for In {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match nix::unistd::read(self.0.as_fd(), into) {
                Err(nix::errno::Errno::EAGAIN) => {
                    poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)?;
                }
                Err(nix::errno::Errno::EINTR) => {}
                outcome => return outcome.map_err(io::Error::from),
            }
        }
    }
}

/// Counts what is written.
pub struct Counted<'a, W> {
    /// The stream itself.
    pub to: W,
    /// How many bytes that were.
    pub count: &'a mut u64,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        *self.count += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// As Docker says it: thousands, and three digits.
pub fn size(bytes: u64) -> String {
    let (mut amount, mut unit) = (bytes as f64, 0);
    while amount >= 1000.0 && unit < 5 {
        (amount, unit) = (amount / 1000.0, unit + 1);
    }
    let digits = if unit == 0 || amount >= 100.0 {
        0
    } else if amount >= 10.0 {
        1
    } else {
        2
    };
    format!("{amount:.digits$}{}", ["B", "kB", "MB", "GB", "TB", "PB"][unit])
}

/// Did it fail because nobody reads any more?
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
    io.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}
