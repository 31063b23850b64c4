//! Day 11: the streams that an archive comes by and goes by.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::metadata::output::human;
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

/// How much has been copied; a person at a terminal sees it grow.
#[derive(Debug)]
pub struct Progress {
    /// What stands before the number; `None`: nobody sees it.
    words: Option<&'static str>,
    count: u64,
    drawn: Option<Instant>,
}

impl Progress {
    /// How often it is drawn anew: more often nobody sees.
    const PAUSE: Duration = Duration::from_millis(75);

    /// Nothing has been copied yet.
    pub fn new(words: Option<&'static str>) -> Progress {
        Progress { words, count: 0, drawn: None }
    }

    /// How many bytes that were.
    pub fn count(&self) -> u64 {
        self.count
    }

    fn add(&mut self, count: usize) {
        self.count += count as u64;
        if let Some(words) = self.words
            && self.drawn.is_none_or(|then| then.elapsed() >= Progress::PAUSE)
        {
            // In the place of the last one. That it cannot be shown is no reason to stop.
            let text = format!("\r\x1b[K{words}{}", human(self.count, 3));
            let _ = stream::write_all(io::stderr(), text.as_bytes());
            self.drawn = Some(Instant::now());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.drawn.is_some() {
            let _ = stream::write_all(io::stderr(), b"\r\x1b[K");
        }
    }
}

/// A stream, of which is counted what goes through it.
pub struct Counted<'a, S> {
    /// The stream itself.
    pub stream: S,
    /// How much that is.
    pub progress: &'a mut Progress,
}

impl<S: Write> Write for Counted<'_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.stream.write(bytes)?;
        self.progress.add(count);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl<S: Read> Read for Counted<'_, S> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(into)?;
        self.progress.add(count);
        Ok(count)
    }
}

/// Did it fail because nobody reads any more?
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
    io.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}
