//! Day 1: the report. By this pipe the child tells the parent that it is about to become
//! the command, or why it cannot.
//!
//! | what the parent reads | what it means |
//! | --- | --- |
//! | one byte, then end of file | the command runs: execve(2) has closed the child's end |
//! | another one | the child waits until somebody starts the command (day 18) |
//! | an exit code and a message, after that byte or without it | the child failed, and says why |
//! | end of file at once | the child was killed before it came so far |

use std::cell::Cell;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;

use anyhow::{Context, bail};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::pipe2;

use crate::error::{Failure, RUNTIME_ERROR, Result};
use crate::kernel;
use crate::wait::{Child, readable, signal_name};

/// The child's last word before execve. No report of a failure begins with it: those begin
/// with an exit code, and none of them is 0.
const ABOUT_TO_EXEC: u8 = 0;

/// The child is ready, and waits. (day 18)
const WAITS: u8 = u8::MAX;

/// What the child says if nobody opens the gate.
pub const ABANDONED: &str = "the runtime ended before the container was ready";

/// The parent's end, from which it hears.
#[derive(Debug)]
pub struct Hearing(OwnedFd);

/// The child's end.
#[derive(Debug)]
pub struct Report {
    pipe: OwnedFd,
    /// See [`Report::go_on_alone`].
    is_alone: Cell<bool>,
}

/// What a child has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// It has become the command.
    Started,
    /// It waits until somebody starts the command. (day 18)
    Waits,
}

/// The two ends of something else than a pipe of this process's: of a FIFO. (day 18; fifo(7))
pub fn of(hearing: OwnedFd, report: OwnedFd) -> (Hearing, Report) {
    (Hearing(hearing), Report::by(report))
}

/// The parent's end alone, of what is another process's child. (day 18)
pub fn hear_from(hearing: OwnedFd) -> Hearing {
    Hearing(hearing)
}

/// The two ends. The kernel closes the child's at exec (O_CLOEXEC).
pub fn pipe() -> Result<(Hearing, Report)> {
    let (hearing, report) = pipe2(OFlag::O_CLOEXEC).context("make a pipe")?;
    Ok((Hearing(hearing), Report::by(report)))
}

impl Report {
    fn by(pipe: OwnedFd) -> Report {
        Report { pipe, is_alone: Cell::new(false) }
    }

    /// The last thing before execve. Should that fail, [`Report::fail`] can still say so.
    pub fn about_to_exec(&self) -> nix::Result<()> {
        if self.is_alone.get() {
            return Ok(());
        }
        nix::unistd::write(&self.pipe, &[ABOUT_TO_EXEC]).map(drop)
    }

    /// If whoever has started it has ended since, it goes on all the same: a word to nobody would be the end of
    /// it, by SIGPIPE. (day 18)
    pub fn go_on_alone(&self) -> Result<()> {
        self.is_alone.set(self.nobody_hears()?);
        Ok(())
    }

    /// All is ready, and it waits to be started. Whoever hears this need not stay. (day 18)
    pub fn waits(&self) -> nix::Result<()> {
        nix::unistd::write(&self.pipe, &[WAITS]).map(drop)
    }

    /// Has the parent died? Then nobody holds the other end any more.
    pub fn nobody_hears(&self) -> Result<bool> {
        let mut fds = [PollFd::new(self.pipe.as_fd(), PollFlags::empty())];
        poll(&mut fds, PollTimeout::ZERO).context("poll the report pipe")?;
        Ok(fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR)))
    }

    /// Reports why the command does not run, and ends the child.
    pub fn fail(self, exit_code: u8, message: &str) -> ! {
        // In one write: killed between two, it would leave half a report. If nobody
        // reads it there is nobody to tell.
        let _ = File::from(self.pipe).write_all(&[&[exit_code], message.as_bytes()].concat());
        kernel::exit_now(exit_code)
    }

    /// From here on a panic in the child is reported like any other error: the learner's
    /// `todo!()`, above all. Left alone it would end PID 1 as if by a segmentation fault.
    pub fn report_panics(&self) -> Result<()> {
        let pipe = self.pipe.try_clone().context("duplicate the report pipe")?;
        std::panic::set_hook(Box::new(move |panic| {
            if let Ok(pipe) = pipe.try_clone() {
                Report::by(pipe).fail(RUNTIME_ERROR, &format!("in the container: {panic}"))
            }
        }));
        Ok(())
    }
}

// ANCHOR: hear
impl Hearing {
    /// Why the child has not become the command; `None`: because it was not let through the gate.
    pub fn what_it_knows(self, child: &mut Child) -> Option<anyhow::Error> {
        self.hear(child).err().filter(|error| error.to_string() != ABANDONED)
    }

    /// Returns once the child has become the command, or waits, or with the reason why it has not.
    pub fn hear(self, child: &mut Child) -> Result<Heard> {
        match self.listen()? {
            Some(heard) => Ok(heard),
            None => {
                bail!("the container ended before its command ran: its process {}", how_it_ended(child)?)
            }
        }
    }

    /// The same of somebody else's child; `None`: it ended without a word.
    pub fn listen(self) -> Result<Option<Heard>> {
        let mut pipe = File::from(self.0);
        let (mut said, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            readable(&pipe, None, "the container to start")?;
            match pipe.read(&mut buffer).context("read the child's report")? {
                0 => break,
                count => said.extend_from_slice(&buffer[..count]),
            }
            if said == [WAITS] {
                return Ok(Some(Heard::Waits));
            }
        }
        let came_to_exec = said.first() == Some(&ABOUT_TO_EXEC);
        match said[usize::from(came_to_exec)..].split_first() {
            None if came_to_exec => Ok(Some(Heard::Started)),
            None => Ok(None),
            Some((&exit_code, message)) => {
                Err(Failure { exit_code, message: String::from_utf8_lossy(message).into_owned() }.into())
            }
        }
    }
}
// ANCHOR_END: hear

/// How a child that did not say anything came to its end.
fn how_it_ended(child: &mut Child) -> Result<String> {
    let Some(status) = child.reap_soon()? else { return Ok("closed its report and did not end".into()) };
    Ok(match status.signal() {
        Some(libc::SIGSYS) => {
            "was killed by SIGSYS: a filter of system calls (seccomp) does not allow what a start takes: write, execve"
                .into()
        }
        Some(signal) => format!(
            "was killed by {}. If nobody sent that, memory was short: dmesg tells, and so does ulimit -v",
            signal_name(signal)
        ),
        None => format!(
            "exited with {} and gave no reason: perhaps a filter of system calls (seccomp) does not allow write",
            status.code().unwrap_or_default()
        ),
    })
}
