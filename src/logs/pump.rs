//! Day 5: pumps. A pump is a thread that carries one stream of the command to the log
//! and to the user, and notices when either end is gone.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::io::ioctl_fionread;

use crate::error::Result;
use crate::kernel;
use crate::logs::file::{SharedLog, Stream};
use crate::metadata::pidfd::Process;
use crate::stream;

const DAY: u8 = 5;

/// More than a pipe holds (pipe(7)), and large enough to cost nothing until something is read.
const BUFFER: usize = kernel::LARGE_BLOCK;

/// How long after the command's end its last words may take to arrive, when their
/// stream has no end because somebody else has it open.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// How often to look whether a terminal that no process has open is opened again.
const REOPENED: Duration = Duration::from_millis(100);

/// How long a command whose user has gone may take to end by itself.
const FAREWELL: Duration = Duration::from_secs(3);

/// One stream of the command on its way. A pump alone owns all that it holds: when it
/// ends, the streams are closed, and whoever is at their other ends learns of it.
#[derive(Debug)]
pub struct Pump {
    /// Which one.
    pub stream: Stream,
    /// Where what the command writes comes out.
    pub from: Arc<File>,
    /// What it is written down in; `None`: nothing is.
    pub log: Option<SharedLog>,
    /// Where the user reads it; `None`: there is no user.
    pub to: Option<OwnedFd>,
    /// The terminal at which the user of a container with -t sits.
    pub seat: Option<OwnedFd>,
    /// The end of this pipe tells [`pass_on_keys`] that the pump has ended.
    pub hang_up: Option<OwnedFd>,
    /// The other end is the main thread's, which shuts it down when the command has
    /// ended, and then waits until all pumps have closed theirs.
    pub line: Arc<UnixStream>,
    /// What is still to be waited for.
    pub phase: Phase,
}

/// How far a pump has come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Phase {
    /// The command runs.
    Running,
    /// It does, and its user has gone.
    Deserted,
    /// It has ended. Its last words are waited for until then.
    Ending(Instant),
    /// So many bytes are the rest.
    Rest(usize),
}

/// What a pump listens for.
struct Happened {
    /// The command has written, or closed its stream.
    output: bool,
    /// The command has ended.
    end: bool,
    /// The user has gone.
    desertion: bool,
}

impl Pump {
    // ANCHOR: pump
    /// Writes down what the command writes, and passes it on to the user, up to its
    /// end. A user who does not read makes `to` block, then this, then the pipe fill
    /// up, and then the command wait: nothing is lost.
    pub fn carry(&mut self) -> Result<()> {
        // ANCHOR: day5_task1_carry_solution
        let mut buffer = vec![0; BUFFER];
        loop {
            let count = self.read(&mut buffer).context("read what the command wrote")?;
            if count == 0 {
                return Ok(());
            }
            self.write_down(&buffer[..count]);
            let Some(to) = &self.to else { continue };
            match stream::write_all(to, &buffer[..count]) {
                Ok(()) => {}
                // Nobody reads any more (`run … | head`): `from` is closed after this,
                // and the command's next write tells it so, as without us. (SIGPIPE)
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
                // A full disk, for one. The command is told in the same way, and the
                // user, who wanted all of it, is told why.
                Err(error) => {
                    let name = self.stream.name();
                    return Err(error).with_context(|| format!("pass on what it wrote to {name}"));
                }
            }
        }
        // ANCHOR_END: day5_task1_carry_solution
    }
    // ANCHOR_END: pump

    fn write_down(&self, bytes: &[u8]) {
        if let Some(log) = &self.log {
            log.lock().unwrap_or_else(PoisonError::into_inner).append(self.stream, bytes);
        }
    }

    /// Reads what the command writes as soon as there is something. Returns 0 when
    /// nothing more is to come: at the end of the stream; when the user has gone; and a
    /// moment after the command's end, whoever else still has its stdout open.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut is_closed = false;
        while self.wait(is_closed)? {
            let room = if let Phase::Rest(left) = self.phase { left.min(buffer.len()) } else { buffer.len() };
            match (&*self.from).read(&mut buffer[..room]) {
                Ok(count) => {
                    if let Phase::Rest(left) = &mut self.phase {
                        *left -= count;
                    }
                    return Ok(count);
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                // A terminal that no process has open. While the command runs, one may
                // open it again: there is /dev/console.
                Err(error) if error.raw_os_error() == Some(libc::EIO) => is_closed = true,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(0)
    }

    // ANCHOR: wait
    /// Waits until there may be something to read. Returns false when nothing more is
    /// to come. `is_closed`: a terminal that no process had open just now.
    fn wait(&mut self, is_closed: bool) -> Result<bool> {
        loop {
            let patience = match self.phase {
                Phase::Rest(left) => return Ok(left > 0),
                Phase::Ending(_) if is_closed => return Ok(false),
                Phase::Ending(until) => Some(until.saturating_duration_since(Instant::now())),
                Phase::Running | Phase::Deserted => is_closed.then_some(REOPENED),
            };
            let happened = self.listen(is_closed, patience)?;
            if happened.end {
                self.phase = Phase::Ending(Instant::now() + LAST_WORDS);
            } else if patience == Some(Duration::ZERO) {
                self.phase = Phase::Rest(ioctl_fionread(&*self.from)? as usize);
                continue;
            }
            match self.phase {
                Phase::Deserted => return Ok(false),
                // What is there is read first: it was written before.
                Phase::Running if happened.desertion => self.phase = Phase::Deserted,
                _ => {}
            }
            if happened.output || happened.desertion || (is_closed && !happened.end) {
                return Ok(happened.output || !happened.desertion);
            }
        }
    }

    /// What has happened, or happens within `patience`.
    fn listen(&self, is_closed: bool, patience: Option<Duration>) -> Result<Happened> {
        let runs = !matches!(self.phase, Phase::Ending(_));
        // Of the user's side no event is asked for. That nobody is there any more is told
        // all the same, and although there may be nothing to write. (poll(2))
        let [output, end, to, seat] = poll_some(
            [
                (!is_closed).then_some((self.from.as_fd(), PollFlags::POLLIN)),
                runs.then_some((self.line.as_fd(), PollFlags::POLLIN)),
                self.to.as_ref().map(|to| (to.as_fd(), PollFlags::empty())),
                self.seat.as_ref().map(|seat| (seat.as_fd(), PollFlags::empty())),
            ],
            patience,
        )?;
        let desertion = (to | seat).intersects(PollFlags::POLLERR | PollFlags::POLLHUP);
        Ok(Happened { output: !output.is_empty(), end: !end.is_empty(), desertion })
    }
    // ANCHOR_END: wait

    // ANCHOR: hang_up
    /// The pump's whole life. At its end it hangs up: the streams are closed. A terminal
    /// sends SIGHUP to the container then. But a command that is PID 1 and has no handler
    /// for that does not get it, and with nobody at its terminal it would run forever: so
    /// `command`, which has a terminal, gets some time, and then SIGKILL. (pty(7);
    /// pid_namespaces(7))
    pub fn live(mut self, command: Option<Process>) -> Result<()> {
        let outcome = self.carry();
        let line = self.line.clone();
        drop(self);
        if let Some(command) = command {
            let [ended] = poll_some([Some((line.as_fd(), PollFlags::POLLIN))], Some(FAREWELL))?;
            if ended.is_empty() {
                command.signal(DAY, libc::SIGKILL)?;
            }
        }
        outcome
    }
    // ANCHOR_END: hang_up
}

/// Passes on what is typed, until the user or the container's terminal has gone. The
/// pump of that terminal, at its end, closes the other end of `hung_up`; then this
/// must let go of it as well, also if what is typed finds no room. (Its O_NONBLOCK is set.)
pub fn pass_on_keys(keys: OwnedFd, terminal: Arc<File>, hung_up: OwnedFd) -> Result<()> {
    let wait = |fd: BorrowedFd, event| -> Result<bool> {
        let [_, hung_up] = poll_some([Some((fd, event)), Some((hung_up.as_fd(), PollFlags::POLLIN))], None)?;
        Ok(hung_up.is_empty())
    };
    let mut buffer = [0; 4096];
    while wait(keys.as_fd(), PollFlags::POLLIN)? {
        let mut typed: &[u8] = match nix::unistd::read(&keys, &mut buffer) {
            Ok(0) => break,
            Ok(count) => &buffer[..count],
            Err(Errno::EAGAIN | Errno::EINTR) => continue,
            Err(error) => return Err(error).context("read what is typed"),
        };
        while !typed.is_empty() && wait(terminal.as_fd(), PollFlags::POLLOUT)? {
            match nix::unistd::write(&*terminal, typed) {
                Ok(count) => typed = &typed[count..],
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(error) => return Err(error).context("pass on what is typed"),
            }
        }
    }
    Ok(())
}

/// Waits, at most for `patience`, until something happens to one of `fds`, and returns
/// for each what that is. (poll(2))
pub fn poll_some<const N: usize>(
    fds: [Option<(BorrowedFd, PollFlags)>; N],
    patience: Option<Duration>,
) -> Result<[PollFlags; N]> {
    let timeout = patience.map_or(PollTimeout::NONE, |time| time.try_into().unwrap_or(PollTimeout::MAX));
    let mut asked: Vec<PollFd> = fds.iter().flatten().map(|(fd, events)| PollFd::new(*fd, *events)).collect();
    match poll(&mut asked, timeout) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(error).context("poll"),
    }
    let mut events = asked.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
    Ok(fds.map(|fd| fd.and_then(|_| events.next()).unwrap_or(PollFlags::empty())))
}
