//! Day 5: wires. What lies between a command and whoever listens to it: pipes, or a
//! terminal of its own, and the threads that carry what comes and goes.
//!
//! They are laid before the command exists, connected when it runs, and taken down when it
//! has ended. `run` does that, and so does whatever else starts a command (day 14).

use std::fs::File;
use std::io::{IsTerminal, stderr, stdin, stdout};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};

use anyhow::{Context, bail};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::SigSet;
use nix::unistd::{Pid, dup2_stdin, dup2_stdout, pipe2};
use rustix::fs::{FileType, fstat};

use crate::error::Result;
use crate::explain::step;
use crate::kernel;
use crate::logs::file::{SharedLog, Stream};
use crate::logs::pump::{self, Phase, Pump};
use crate::logs::terminal::{self, RawMode};
use crate::metadata::pidfd::Process;
use crate::rootfs::mount::Dir;
use crate::wait::{Arrived, readable};

const DAY: u8 = 5;

/// A command's three streams, as the heart takes them: `None` is the runtime's own.
pub type Stdio = [Option<OwnedFd>; 3];

/// What lies between the command and whoever listens.
#[derive(Debug, Default)]
pub struct Wires {
    /// Whether nobody listens but the log.
    detach: bool,
    /// Whether its stdin stays open.
    interactive: bool,
    /// Whether it has a terminal of its own.
    tty: bool,
    /// Where what it writes is written down; `None`: nowhere.
    pub log: Option<SharedLog>,
    /// Our ends of the pipes that are the command's stdout and stderr.
    outputs: Vec<(Stream, OwnedFd)>,
    /// The other end of a stdin that nobody closes.
    _stdin: Option<OwnedFd>,
    /// By which the child sends us its terminal: our end, and the child's.
    sockets: Option<(UnixStream, UnixStream)>,
    /// Where our stdin goes, if the command has no terminal and it stays ours.
    typed: Option<OwnedFd>,
    /// The end of this pipe tells that nothing more is passed on.
    _hang_up: Option<OwnedFd>,
    /// While its pump lives: where a person would sit.
    terminal: Weak<File>,
    raw_mode: Option<RawMode>,
    pumps: Vec<JoinHandle<Result<()>>>,
    /// To the pumps: see [`Pump::line`].
    line: Option<UnixStream>,
}

impl Wires {
    /// For a command that is to run in the background (`detach`), to be typed into
    /// (`interactive`), to have a terminal (`tty`).
    pub fn new(detach: bool, interactive: bool, tty: bool) -> Result<Wires> {
        if tty && interactive && !detach && !stdin().is_terminal() {
            bail!(
                "-i with -t passes on what is typed, and stdin is not a terminal; for a pipe or a file, omit -t"
            );
        }
        Ok(Wires { detach, interactive, tty, ..Wires::default() })
    }

    /// Parent, before the child exists. Returns the command's ends; a terminal is opened later,
    /// in the child, by [`Wires::open_terminal`].
    pub fn lay(&mut self) -> Result<Stdio> {
        if self.tty {
            self.sockets = Some(UnixStream::pair().context("make a socket pair")?);
            return Ok([None, None, None]);
        }
        self.make_pipes()
    }

    /// The same for a command of which nothing is written down. It gets our own streams, but for
    /// those that [stay ours](stays_ours): what comes and goes there goes through pipes. And an
    /// empty stdin is none of ours.
    pub fn lay_to_what_is_no_terminal(&mut self) -> Result<Stdio> {
        if self.tty {
            return self.lay();
        }
        let null = || null().map(OwnedFd::from).map(Some);
        if self.detach {
            return Ok([null()?, null()?, null()?]);
        }
        let mut theirs = [None, None, None];
        if !self.interactive {
            theirs[0] = null()?;
        } else if stays_ours(stdin()) {
            let (their_stdin, typed) = pipe2(OFlag::O_CLOEXEC).context("make a pipe")?;
            (theirs[0], self.typed) = (Some(their_stdin), Some(typed));
        }
        for (stream, stays) in
            [(Stream::Stdout, stays_ours(stdout())), (Stream::Stderr, stays_ours(stderr()))]
        {
            if stays {
                let (output, their_output) = pipe2(OFlag::O_CLOEXEC).context("make a pipe")?;
                self.outputs.push((stream, output));
                theirs[if stream == Stream::Stdout { 1 } else { 2 }] = Some(their_output);
            }
        }
        Ok(theirs)
    }

    /// Child: the terminal, if there is to be one, of the devpts in `dev` (`None`: it has the
    /// host's). Our end goes to the parent.
    pub fn open_terminal(&self, dev: Option<Dir>) -> Result<Option<Stdio>> {
        let Some((_, socket)) = &self.sockets else { return Ok(None) };
        let (ours, theirs) = terminal::open(dev, !self.detach)?;
        terminal::check(&ours)?;
        terminal::send(socket, ours.as_fd())?;
        let copy = || theirs.try_clone().context("dup the terminal");
        Ok(Some([Some(copy()?), Some(copy()?), Some(copy()?)]))
    }

    /// Parent, once `child` is the command: the threads begin.
    pub fn connect(&mut self, child: Pid) -> Result<()> {
        kernel::share_one_heap();
        let (line, pumps_line) = UnixStream::pair().context("make a socket pair")?;
        self.line = Some(line);
        let pumps_line = Arc::new(pumps_line);
        if let Some((socket, theirs)) = self.sockets.take() {
            // If the child was killed before it sent anything, this is its end.
            drop(theirs);
            self.connect_terminal(terminal::receive(&socket)?, child, pumps_line.clone())?;
        }
        for (stream, output) in std::mem::take(&mut self.outputs) {
            let pump = self.new_pump(stream, Arc::new(output.into()), pumps_line.clone())?;
            self.start_pump(pump, None)?;
        }
        if let Some(typed) = self.typed.take() {
            let (hung_up, hang_up) = pipe2(OFlag::O_CLOEXEC).context("make a pipe")?;
            self._hang_up = Some(hang_up);
            never_wait(&typed)?;
            pass_on_keys(Arc::new(typed.into()), hung_up)?;
        }
        if self.tty || self.detach { Ok(()) } else { let_go() }
    }

    /// A signal has reached the runtime. Returns whether it was for the terminal.
    pub fn signalled(&self, arrived: Arrived) -> bool {
        match self.terminal.upgrade() {
            Some(terminal) if arrived.signal == libc::SIGWINCH && !self.detach => {
                terminal::copy_size(&*terminal);
                true
            }
            _ => false,
        }
    }

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
        self.outputs = vec![(Stream::Stdout, stdout), (Stream::Stderr, stderr)];
        let their_stdin = if self.detach && self.interactive {
            let (their_stdin, stdin) = pipe()?;
            self._stdin = Some(stdin);
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
        never_wait(&terminal)?;
        let terminal = Arc::new(File::from(terminal));
        // Not another owner: when the pump ends, the terminal is to be hung up.
        self.terminal = Arc::downgrade(&terminal);
        let mut pump = self.new_pump(Stream::Stdout, terminal.clone(), line)?;
        if self.detach {
            return self.start_pump(pump, None);
        }
        if stdin().is_terminal() {
            pump.seat = Some(own(stdin())?);
        }
        if self.interactive {
            self.raw_mode = Some(RawMode::enter()?);
            let (hung_up, hang_up) = pipe2(OFlag::O_CLOEXEC).context("make a pipe")?;
            pump.hang_up = Some(hang_up);
            pass_on_keys(terminal, hung_up)?;
        }
        self.start_pump(pump, Process::open(child.as_raw())?)
    }

    fn new_pump(&self, stream: Stream, from: Arc<File>, line: Arc<UnixStream>) -> Result<Pump> {
        let to = match stream {
            _ if self.detach => None,
            Stream::Stdout => Some(own(stdout())?),
            Stream::Stderr => Some(own(stderr())?),
        };
        Ok(Pump {
            stream,
            from,
            log: self.log.clone(),
            to,
            seat: None,
            hang_up: None,
            line,
            phase: Phase::Running,
        })
    }

    fn start_pump(&mut self, pump: Pump, command: Option<Process>) -> Result<()> {
        let thread = thread::Builder::new().spawn(move || pump.live(command));
        self.pumps.push(thread.context("start a thread")?);
        Ok(())
    }

    /// Waits until the pumps have passed on the command's last words, which takes as
    /// long as their reader takes; a signal ends that.
    pub fn take_down(&mut self) -> Result<()> {
        let Some(line) = self.line.take() else { return Ok(()) };
        line.shutdown(Shutdown::Write).context("shutdown")?;
        // By now a signal may be one that does nothing. Here the first one counts.
        let signals =
            kernel::ENDING.into_iter().filter(|signal| !kernel::is_ignored(*signal)).collect::<SigSet>();
        signals.thread_block().context("block signals")?;
        let waited = readable(&line, None, "what the command wrote to be read");
        signals.thread_unblock().context("unblock signals")?;
        waited?;
        let mut outcome = Ok(());
        for pump in self.pumps.drain(..) {
            let pumped = pump.join().unwrap_or_else(|_| bail!("a pump panicked"));
            outcome = outcome.and(pumped);
        }
        outcome
    }
}

/// Whether nobody else may hold `stream`. Whoever holds a terminal can type into it (ioctl_tty(2),
/// TIOCSTI). And whoever holds a file can open it once more by /proc/self/fd, and then read and write
/// all of it, whatever it was open for: root needs no path that leads there.
fn stays_ours(stream: impl AsFd + IsTerminal) -> bool {
    let found = fstat(&stream).map(|found| FileType::from_raw_mode(found.st_mode));
    stream.is_terminal() || matches!(found, Ok(FileType::RegularFile | FileType::BlockDevice))
}

fn null() -> Result<File> {
    File::options().read(true).write(true).open("/dev/null").context("open /dev/null")
}

/// From here on stdin is the command's alone, and stdout its pump's. While the runtime had
/// them open too, nobody at their other ends would see that the command closes them.
fn let_go() -> Result<()> {
    let null = null()?;
    let describe = || ("dup2(/dev/null, 0, 1)".into(), "exec </dev/null >/dev/null".into());
    step(DAY, describe, || dup2_stdin(&null).and_then(|()| dup2_stdout(&null)))
}

/// Begins to pass on what is typed. The thread is not waited for: it ends when the other end of
/// `hung_up` is closed, or with this process.
fn pass_on_keys(to: Arc<File>, hung_up: OwnedFd) -> Result<()> {
    let keys = own(stdin())?;
    let thread = thread::Builder::new().spawn(move || pump::pass_on_keys(keys, to, hung_up));
    thread.map(drop).context("start a thread")
}

/// A write that finds no room must not wait: see [`pump::pass_on_keys`].
fn never_wait(file: &OwnedFd) -> Result<()> {
    fcntl(file, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK)).map(drop).context("fcntl(O_NONBLOCK)")
}

fn own(stream: impl AsFd) -> Result<OwnedFd> {
    stream.as_fd().try_clone_to_owned().context("dup a standard stream")
}
