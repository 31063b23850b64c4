//! Day 5: `run -d`. The process that was started leaves, and another one stays
//! with the container: its supervisor. Nothing else here is a daemon.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, anyhow, bail};
use nix::fcntl::OFlag;
use nix::unistd::{chdir, dup2_stderr, dup2_stdin, dup2_stdout, pipe2, setsid};
use rustix::process::{Signal, pidfd_send_signal};

use crate::error::{self, Result};
use crate::explain::step;
use crate::kernel::{self, Clone};
use crate::metadata::output::print;
use crate::wait::{PATIENCE, readable};

const DAY: u8 = 5;

/// The supervisor's word to the process that it comes from, that the command
/// has started.
#[derive(Debug)]
pub struct Ready(File);

// ANCHOR: detach
/// Makes the supervisor, and returns in it. The process that called this waits
/// until the command runs, prints `id` if it is not empty, and exits; if the command
/// cannot start, it exits as the supervisor did, which has said why.
pub fn detach(id: &str) -> Result<Ready> {
    // ANCHOR: day5_task3_detach_solution
    let (ready, announce) = pipe2(OFlag::O_CLOEXEC).context("make a pipe")?;
    let describe = || ("clone3(no flags): the supervisor".into(), "setsid … &".into());
    // SAFETY: no thread has been started yet: that comes with the pumps.
    match step(DAY, describe, || unsafe { kernel::clone3(nix::sched::CloneFlags::empty(), None) })? {
        Clone::Child => {
            drop(ready);
            // Out of the session: no Ctrl-C and no hangup of the user's terminal
            // reaches it any more. (setsid(2))
            setsid().context("setsid")?;
            Ok(Ready(announce.into()))
        }
        Clone::Parent(_, supervisor) => {
            drop(announce);
            kernel::exit_now(started(ready, &supervisor, id).unwrap_or_else(|error| {
                error::print(&error);
                error::exit_code(&error)
            }))
        }
    }
    // ANCHOR_END: day5_task3_detach_solution
}
// ANCHOR_END: detach

/// Waits for the supervisor's word, or its end. Returns what to exit with.
fn started(ready: OwnedFd, supervisor: &OwnedFd, id: &str) -> Result<u8> {
    if let Err(told_to_end) = readable(&ready, None, "the supervisor") {
        // The supervisor left the session, so the terminal does not tell it. It undoes what it
        // made, and says so itself.
        let _ = pidfd_send_signal(supervisor, Signal::TERM);
        readable(supervisor, Some(PATIENCE), "the supervisor to undo what it made")?;
        return Ok(error::exit_code(&told_to_end));
    }
    if File::from(ready).read(&mut [0]).context("wait for the supervisor")? == 1 {
        if id.is_empty() {
            return Ok(0);
        }
        // Not Docker's 1 for what cannot be printed: it is an error of `run`.
        return print(&format!("{id}\n")).map_err(|error| anyhow!("container {id} runs, but {error:#}"));
    }
    match kernel::reap(supervisor.as_fd()).context("wait for the supervisor")?.code() {
        // It has said why.
        Some(code) => Ok(code as u8),
        None => {
            bail!("the supervisor was killed before the command ran; tiny-docker ps -a shows what is left")
        }
    }
}

impl Ready {
    // ANCHOR: announce
    /// Gives the word. From here on the supervisor holds nothing of its user's:
    /// not the terminal, not a pipe that somebody waits at, not a directory.
    pub fn announce(mut self) -> Result<()> {
        // ANCHOR: day5_task3_announce_solution
        let null = OpenOptions::new().read(true).write(true).open("/dev/null").context("open /dev/null")?;
        let describe =
            || ("dup2(/dev/null, 0, 1, 2), chdir(/)".into(), "cd /; exec </dev/null >&0 2>&0".into());
        step(DAY, describe, || {
            dup2_stdin(&null)?;
            dup2_stdout(&null)?;
            dup2_stderr(&null)?;
            chdir("/")
        })?;
        // Nobody may be waiting any more. The container runs all the same, and ps
        // shows it.
        let _ = self.0.write_all(b"!");
        Ok(())
        // ANCHOR_END: day5_task3_announce_solution
    }
    // ANCHOR_END: announce
}
