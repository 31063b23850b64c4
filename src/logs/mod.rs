//! Day 5: logs. *Can I capture logs?*
//!
//! The mechanism of a run: what the command writes goes through the runtime,
//! which writes it down and passes it on. `-d` leaves nobody to pass it to; `-t`
//! puts a terminal in between.

pub mod file;
pub mod pump;
pub mod reader;
pub mod since;
pub mod supervisor;
pub mod terminal;

use std::fs::File;
use std::io::{IsTerminal, stderr, stdin, stdout};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};

use anyhow::{Context, bail};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::SigSet;
use nix::unistd::{Pid, dup2_stdin, dup2_stdout, pipe2};

use crate::container::{Container, Mechanism};
use crate::error::Result;
use crate::explain::step;
use crate::kernel;
use crate::metadata::owner;
use crate::metadata::pidfd::Process;
use crate::rootfs::mount::Dir;
use crate::wait::{Arrived, readable};

use self::file::{LogFile, Stream};
use self::pump::{Phase, Pump};
use self::supervisor::Ready;
use self::terminal::RawMode;

const DAY: u8 = 5;

/// The flags of day 5.
#[derive(Debug, clap::Args)]
pub struct Logs {
    /// Run in the background: print the container's id, and return
    #[arg(short, long)]
    detach: bool,

    /// Keep stdin open: with -t it is what you type, with -d a pipe that nobody closes
    #[arg(short, long)]
    interactive: bool,

    /// Give the container a terminal of its own (-it: to work in it)
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
    /// While its pump lives: where a person would sit.
    terminal: Weak<File>,
    raw_mode: Option<RawMode>,
    ready: Option<Ready>,
    pumps: Vec<JoinHandle<Result<()>>>,
    /// To the pumps: see [`Pump::line`].
    line: Option<UnixStream>,
}

// ANCHOR: mechanism
impl Mechanism for Logs {
    fn prepare(&mut self, container: &mut Container) -> Result<()> {
        let (Some(dir), Some(id)) = (container.parts.dir.clone(), container.parts.id.clone()) else {
            return Ok(());
        };
        if self.tty && self.interactive && !self.detach && !stdin().is_terminal() {
            bail!(
                "-i with -t passes on what is typed, and stdin is not a terminal; for a pipe or a file, omit -t"
            );
        }
        (container.plan.tty, container.plan.interactive) = (self.tty, self.interactive);
        if self.detach {
            // From here on we are another process.
            self.wires.ready = Some(supervisor::detach(&id)?);
            owner::changes_hands(&dir)?;
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
        let dev = container.parts.dev.as_ref().map(OwnedFd::try_clone).transpose().context("dup /dev")?;
        let (ours, theirs) = terminal::open(dev.map(|dev| Dir::new(dev, "/dev")), !self.detach)?;
        terminal::send(socket, ours.as_fd())?;
        let copy = || theirs.try_clone().context("dup the terminal");
        container.parts.stdio = [Some(copy()?), Some(copy()?), Some(copy()?)];
        Ok(())
    }

    fn started(&mut self, _container: &mut Container, child: Pid) -> Result<()> {
        kernel::share_one_heap();
        let (line, pumps_line) = UnixStream::pair().context("make a socket pair")?;
        self.wires.line = Some(line);
        let pumps_line = Arc::new(pumps_line);
        if let Some((socket, theirs)) = self.wires.sockets.take() {
            // If the child was killed before it sent anything, this is its end.
            drop(theirs);
            self.connect_terminal(terminal::receive(&socket)?, child, pumps_line.clone())?;
        }
        for (stream, output) in std::mem::take(&mut self.wires.outputs) {
            let pump = self.new_pump(stream, Arc::new(output.into()), pumps_line.clone())?;
            self.start_pump(pump, None)?;
        }
        if !self.tty && !self.detach {
            let_go()?;
        }
        self.wires.ready.take().map_or(Ok(()), Ready::announce)
    }

    fn signalled(&mut self, _child: Pid, arrived: Arrived) -> Result<bool> {
        match self.wires.terminal.upgrade() {
            Some(terminal) if arrived.signal == libc::SIGWINCH && !self.detach => {
                terminal::copy_size(&*terminal);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn cleanup(&mut self, container: &mut Container) -> Result<()> {
        let outcome = self.join_pumps();
        // A supervisor has nobody else whom it could tell.
        if let Some(log) = self.wires.log.as_ref().filter(|_| self.detach) {
            let pumped = outcome.as_ref().err().map(|error| format!("{error:#}"));
            for failure in container.end.failures.iter().chain(&pumped) {
                let words = format!("tiny-docker: {failure}\n");
                log.lock().unwrap_or_else(PoisonError::into_inner).append(Stream::Stderr, words.as_bytes());
            }
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
    fn connect_terminal(&mut self, terminal: OwnedFd, child: Pid, line: Arc<UnixStream>) -> Result<()> {
        // A write that finds no room must not wait: see pass_on_keys.
        fcntl(&terminal, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK))
            .context("fcntl(O_NONBLOCK)")?;
        let terminal = Arc::new(File::from(terminal));
        // Not another owner: when the pump ends, the terminal is to be hung up.
        self.wires.terminal = Arc::downgrade(&terminal);
        let mut pump = self.new_pump(Stream::Stdout, terminal.clone(), line)?;
        if self.detach {
            return self.start_pump(pump, None);
        }
        if stdin().is_terminal() {
            pump.seat = Some(own(stdin())?);
        }
        if self.interactive {
            self.wires.raw_mode = Some(RawMode::enter()?);
            let (hung_up, hang_up) = pipe2(OFlag::O_CLOEXEC).context("make a pipe")?;
            pump.hang_up = Some(hang_up);
            let keys = own(stdin())?;
            // Not waited for: it ends with its pump, or with this process.
            thread::Builder::new()
                .spawn(move || pump::pass_on_keys(keys, terminal, hung_up))
                .context("start a thread")?;
        }
        self.start_pump(pump, Process::open(child.as_raw())?)
    }

    fn new_pump(&self, stream: Stream, from: Arc<File>, line: Arc<UnixStream>) -> Result<Pump> {
        let to = match stream {
            _ if self.detach => None,
            Stream::Stdout => Some(own(stdout())?),
            Stream::Stderr => Some(own(stderr())?),
        };
        let log = self.wires.log.clone().context("there is no log")?;
        Ok(Pump { stream, from, log, to, seat: None, hang_up: None, line, phase: Phase::Running })
    }

    fn start_pump(&mut self, pump: Pump, command: Option<Process>) -> Result<()> {
        let thread = thread::Builder::new().spawn(move || pump.live(command));
        self.wires.pumps.push(thread.context("start a thread")?);
        Ok(())
    }

    /// Waits until the pumps have passed on the command's last words, which takes as
    /// long as their reader takes; a signal ends that.
    fn join_pumps(&mut self) -> Result<()> {
        let Some(line) = self.wires.line.take() else { return Ok(()) };
        line.shutdown(Shutdown::Write).context("shutdown")?;
        // By now a signal may be one that does nothing. Here the first one counts.
        let signals =
            kernel::ENDING.into_iter().filter(|signal| !kernel::is_ignored(*signal)).collect::<SigSet>();
        signals.thread_block().context("block signals")?;
        let waited = readable(&line, None, "what the command wrote to be read");
        signals.thread_unblock().context("unblock signals")?;
        waited?;
        let mut outcome = Ok(());
        for pump in self.wires.pumps.drain(..) {
            let pumped = pump.join().unwrap_or_else(|_| bail!("a pump panicked"));
            outcome = outcome.and(pumped);
        }
        outcome
    }
}

/// From here on stdin is the command's alone, and stdout its pump's. While the runtime had
/// them open too, nobody at their other ends would see that the command closes them.
fn let_go() -> Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null").context("open /dev/null")?;
    let describe = || ("dup2(/dev/null, 0, 1)".into(), "exec </dev/null >/dev/null".into());
    step(DAY, describe, || dup2_stdin(&null).and_then(|()| dup2_stdout(&null)))
}

fn own(stream: impl AsFd) -> Result<OwnedFd> {
    stream.as_fd().try_clone_to_owned().context("dup a standard stream")
}
