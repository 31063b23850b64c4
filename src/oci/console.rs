//! Day 18: the terminal of a command. An engine has a socket, and gets the other end by it
//! (`--console-socket`); a person who types `tiny-runc run` sits in front of it, as on day 5.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, bail};
use nix::unistd::Pid;
use rustix::termios::{Winsize, tcsetwinsize};

use crate::container::Container;
use crate::error::Result;
use crate::logs::terminal;
use crate::logs::wires::Wires;
use crate::rootfs::mount::Dir;
use crate::stop::signals::pass_on;
use crate::wait::Arrived;

use super::spec::process::Process;

/// Where the other end of the terminal is.
#[derive(Debug, Default)]
pub enum Console {
    /// There is none.
    #[default]
    None,
    /// Whoever listens at this socket.
    Engine(UnixStream),
    /// The terminal of this program.
    Person(Wires),
}

impl Console {
    /// Parent, before the child exists. `leaves`: whether this program ends before the command does.
    pub fn new(
        container: &mut Container,
        process: &Process,
        socket: Option<&Path>,
        leaves: bool,
    ) -> Result<Console> {
        match socket {
            _ if !process.terminal => Ok(Console::None),
            Some(path) => {
                let connected = UnixStream::connect(path).with_context(|| format!("connect to {path:?}"))?;
                Ok(Console::Engine(connected))
            }
            None if leaves => {
                bail!("process.terminal: somebody must have its other end; use --console-socket PATH")
            }
            None => {
                let mut wires = Wires::new(false, true, true)?;
                container.parts.stdio = wires.lay()?;
                Ok(Console::Person(wires))
            }
        }
    }

    /// Child: opens the terminal in the devpts of `dev`, or of its own /dev if that is `None`.
    pub fn open(self, container: &mut Container, process: &Process, dev: Option<Dir>) -> Result<()> {
        let stdio = match self {
            Console::None => return Ok(()),
            Console::Person(wires) => wires.open_terminal(dev)?.context("there is no terminal")?,
            Console::Engine(socket) => {
                let (ours, theirs) = terminal::open(dev, true)?;
                terminal::send(&socket, ours.as_fd())?;
                let copy = || theirs.try_clone().context("duplicate the terminal");
                [Some(copy()?), Some(copy()?), Some(copy()?)]
            }
        };
        if let (Some(size), Some(theirs)) = (process.console_size, &stdio[0]) {
            set_size(theirs, size.height, size.width)?;
        }
        container.parts.stdio = stdio;
        Ok(())
    }

    /// Parent, once there is a child, which has a copy of the socket.
    pub fn let_go(&mut self) {
        if matches!(self, Console::Engine(_)) {
            *self = Console::None;
        }
    }

    /// Parent, once `child` is the command: what is typed goes there.
    pub fn connect(&mut self, child: Pid) -> Result<()> {
        if let Console::Person(wires) = self { wires.connect(child) } else { Ok(()) }
    }

    /// A signal has reached this program: it is for the terminal, or for `child`. Returns whether that was all.
    pub fn signalled(&self, child: Pid, arrived: Arrived) -> Result<bool> {
        if matches!(self, Console::Person(wires) if wires.signalled(arrived)) {
            return Ok(true);
        }
        pass_on(child, arrived)?;
        // A runtime that is told to stop, as by Ctrl-Z, still does that itself.
        Ok(arrived.signal != libc::SIGTSTP)
    }

    /// Parent, when the command has ended.
    pub fn take_down(&mut self) -> Result<()> {
        match std::mem::take(self) {
            Console::Person(mut wires) => wires.take_down(),
            _ => Ok(()),
        }
    }
}

/// (tty_ioctl(4), TIOCSWINSZ)
fn set_size(terminal: &OwnedFd, height: u16, width: u16) -> Result<()> {
    let size = Winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).context("process.consoleSize")
}
