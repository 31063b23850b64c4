//! Day 5: logs. *Can I capture logs?*
//!
//! The mechanism of a run: what the command writes goes through the runtime,
//! which writes it down and passes it on. `-d` leaves nobody to pass it to; `-t`
//! puts a terminal in between.

pub mod file;
pub mod reader;
pub mod supervisor;
pub mod terminal;

use std::fs::File;
use std::io::{IsTerminal, Read, stderr, stdin, stdout};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Pid, pipe2};

use crate::container::{Container, Mechanism};
use crate::error::Result;
use crate::explain::step;
use crate::wait::Arrived;

use self::file::{LogFile, Stream};
use self::supervisor::Ready;
use self::terminal::RawMode;

const DAY: u8 = 5;

/// The flags of day 5.
#[derive(Debug, clap::Args)]
pub struct Logs {
    /// Run in the background: print the container's id, and return
    #[arg(short, long)]
    detach: bool,

    /// Keep stdin open: with -t what is typed, with -d a pipe that nobody closes
    #[arg(short, long)]
    interactive: bool,

    /// A terminal of the container's own (-it: to sit at)
    #[arg(short, long)]
    tty: bool,

    #[arg(skip)]
    wires: Wires,
}

/// What lies between the command and whoever listens.
#[derive(Debug, Default)]
struct Wires {
    log: Option<Arc<Mutex<LogFile>>>,
    /// Our ends of the pipes that are the command's stdout and stderr.
    outputs: Vec<(Stream, OwnedFd)>,
    /// The other end of a stdin that nobody closes.
    _stdin: Option<OwnedFd>,
    /// By which the child sends us its terminal: our end, and the child's.
    sockets: Option<(UnixStream, UnixStream)>,
    terminal: Option<OwnedFd>,
    raw_mode: Option<RawMode>,
    ready: Option<Ready>,
    pumps: Vec<JoinHandle<Result<()>>>,
}

// ANCHOR: mechanism
impl Mechanism for Logs {
    fn prepare(&mut self, container: &mut Container) -> Result<()> {
        let (Some(dir), Some(id)) = (container.parts.dir.clone(), container.parts.id.clone()) else {
            return Ok(());
        };
        if self.tty && self.interactive && !self.detach && !stdin().is_terminal() {
            bail!(
                "-t with -i passes on what is typed, and stdin is not a terminal; leave -t away for a pipe or a file"
            );
        }
        (container.plan.tty, container.plan.interactive) = (self.tty, self.interactive);
        if self.detach {
            // From here on we are another process.
            self.wires.ready = Some(supervisor::detach(&id)?);
        }
        self.wires.log = Some(Arc::new(Mutex::new(LogFile::create(&dir)?)));
        if self.detach || self.tty {
            // The user's terminal is not the container's.
            container.parts.console = None;
        }
        if self.tty {
            self.wires.sockets = Some(UnixStream::pair().context("make a socket pair")?);
        } else {
            container.parts.stdio = self.make_pipes()?;
        }
        Ok(())
    }

    fn enter(&mut self, container: &mut Container) -> Result<()> {
        let Some((_, socket)) = &self.wires.sockets else { return Ok(()) };
        let (ours, theirs) = terminal::open(container.plan.rootfs.is_some())?;
        terminal::send(socket, ours.as_fd())?;
        let copy = || theirs.try_clone().context("dup the terminal");
        container.parts.stdio = [Some(copy()?), Some(copy()?), Some(copy()?)];
        Ok(())
    }

    fn started(&mut self, _container: &mut Container, _child: Pid) -> Result<()> {
        if let Some((socket, theirs)) = self.wires.sockets.take() {
            // If the child was killed before it sent anything, this is its end.
            drop(theirs);
            self.connect_terminal(terminal::receive(&socket)?)?;
        }
        for (stream, output) in std::mem::take(&mut self.wires.outputs) {
            self.start_pump(stream, output)?;
        }
        self.wires.ready.take().map_or(Ok(()), Ready::announce)
    }

    fn signalled(&mut self, _child: Pid, arrived: Arrived) -> Result<bool> {
        match &self.wires.terminal {
            Some(terminal) if arrived.signal == libc::SIGWINCH && !self.detach => {
                terminal::copy_size(terminal)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn cleanup(&mut self, _container: &mut Container) -> Result<()> {
        let mut outcome = Ok(());
        // The command is gone, and all that it started: the pipes have an end.
        for pump in self.wires.pumps.drain(..) {
            let pumped = pump.join().unwrap_or_else(|_| bail!("a pump panicked"));
            outcome = outcome.and(pumped);
        }
        self.wires = Wires::default();
        outcome
    }
}
// ANCHOR_END: mechanism

impl Logs {
    // ANCHOR: pipes
    /// Makes the pipes, keeps our ends, and returns the command's stdin, stdout
    /// and stderr. In the foreground its stdin is the runtime's own.
    fn make_pipes(&mut self) -> Result<[Option<OwnedFd>; 3]> {
        // ANCHOR: day5_task1_make_pipes_solution
        let pipe = || {
            let describe = || ("pipe2(O_CLOEXEC)".into(), "command 2>&1 | tee -a container.log".into());
            step(DAY, describe, || pipe2(OFlag::O_CLOEXEC))
        };
        let (stdout, their_stdout) = pipe()?;
        let (stderr, their_stderr) = pipe()?;
        self.wires.outputs = vec![(Stream::Stdout, stdout), (Stream::Stderr, stderr)];
        let their_stdin = if self.detach && self.interactive {
            let (their_stdin, stdin) = pipe()?;
            self.wires._stdin = Some(stdin);
            Some(their_stdin)
        } else if self.detach {
            Some(File::open("/dev/null").context("open /dev/null")?.into())
        } else {
            None
        };
        Ok([their_stdin, Some(their_stdout), Some(their_stderr)])
        // ANCHOR_END: day5_task1_make_pipes_solution
    }
    // ANCHOR_END: pipes

    /// Puts the user's terminal and the container's together.
    fn connect_terminal(&mut self, terminal: OwnedFd) -> Result<()> {
        let copy = || terminal.try_clone().context("dup the terminal");
        if !self.detach {
            terminal::copy_size(&terminal)?;
            if self.interactive {
                self.wires.raw_mode = Some(RawMode::enter()?);
                let (mut from, to) = (File::from(own(stdin())?), copy()?);
                // Ends with this process: it waits for a key that may never come.
                thread::spawn(move || {
                    let mut buffer = [0; 4096];
                    while let Ok(count @ 1..) = from.read(&mut buffer) {
                        if write_all(&to, &buffer[..count]).is_err() {
                            break;
                        }
                    }
                });
            }
        }
        self.wires.outputs = vec![(Stream::Stdout, copy()?)];
        self.wires.terminal = Some(terminal);
        Ok(())
    }

    fn start_pump(&mut self, stream: Stream, from: OwnedFd) -> Result<()> {
        let Some(log) = self.wires.log.clone() else { return Ok(()) };
        let to = match stream {
            _ if self.detach => None,
            Stream::Stdout => Some(own(stdout())?),
            Stream::Stderr => Some(own(stderr())?),
        };
        let pump = thread::Builder::new().spawn(move || pump(stream, from.into(), &log, to));
        self.wires.pumps.push(pump.context("start a thread")?);
        Ok(())
    }
}

// ANCHOR: pump
/// Writes down what comes `from` the command, and passes it on `to` the user, up
/// to its end. A user who does not read makes `to` block, then this, then the
/// pipe fill up, and then the command wait: nothing is lost.
fn pump(stream: Stream, mut from: File, log: &Mutex<LogFile>, to: Option<OwnedFd>) -> Result<()> {
    // ANCHOR: day5_task1_pump_solution
    // As much as a pipe holds. (pipe(7))
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            // A terminal that no process has open any more.
            Err(error) if error.raw_os_error() == Some(libc::EIO) => return Ok(()),
            Err(error) => return Err(error).context("read what the command wrote"),
        };
        log.lock().unwrap_or_else(PoisonError::into_inner).append(stream, &buffer[..count]);
        // Nobody reads any more (`run … | head`): `from` is closed on return, and
        // the command's next write tells it so, as without us. (SIGPIPE)
        if let Some(to) = &to
            && write_all(to, &buffer[..count]).is_err()
        {
            return Ok(());
        }
    }
    // ANCHOR_END: day5_task1_pump_solution
}
// ANCHOR_END: pump

/// Writes all of it, also to a file that another program has made non-blocking:
/// a terminal is often shared.
fn write_all(to: &OwnedFd, mut bytes: &[u8]) -> nix::Result<()> {
    while !bytes.is_empty() {
        match nix::unistd::write(to, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                poll(&mut [PollFd::new(to.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn own(stream: impl AsFd) -> Result<OwnedFd> {
    stream.as_fd().try_clone_to_owned().context("dup a standard stream")
}
