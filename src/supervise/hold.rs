//! Day 14: a container is held up for as long as something is done with it, and not a moment
//! longer, whatever becomes of this process. ([`commit`](super::commit))

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::Context;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::CloneFlags;
use nix::sys::signal::SigSet;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, pipe2};
use rustix::stdio::{stdin, stdout};

use crate::error::Result;
use crate::explain::step;
use crate::kernel::{self, Clone};
use crate::metadata::freezer::FREEZE;

use super::DAY;
use super::pause::freeze;

/// All that is in a cgroup is held up until this value is dropped, or this process ends: a guard
/// sees to it, a process that does nothing but wait for this one.
#[derive(Debug)]
pub struct Held {
    guard: OwnedFd,
    release: Option<OwnedFd>,
}

impl Held {
    // ANCHOR: hold
    /// Holds up all that is in `cgroup`. This process must have one thread.
    pub fn new(cgroup: &Path) -> Result<Held> {
        // ANCHOR: day14_task4_new_solution
        let file = cgroup.join(FREEZE);
        let freezer = OpenOptions::new().write(true).open(&file).with_context(|| format!("open {file:?}"))?;
        let (released, release) = pipe2(OFlag::O_CLOEXEC).context("make a pipe")?;
        let describe = || {
            let call = "clone3(no flags): a guard for the container that is paused";
            (call.into(), format!("trap 'echo 0 > {}' EXIT", file.display()))
        };
        // SAFETY: this process has one thread.
        let guard = match step(DAY, describe, || unsafe { kernel::clone3(CloneFlags::empty(), None) })? {
            Clone::Child => let_go(&released, &freezer),
            Clone::Parent(_, guard) => guard,
        };
        // From here on dropping it lets all go on, also if the next line fails.
        let held = Held { guard, release: Some(release) };
        freeze(cgroup)?;
        Ok(held)
        // ANCHOR_END: day14_task4_new_solution
    }
    // ANCHOR_END: hold
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release = None;
        let _ = waitid(Id::PIDFd(self.guard.as_fd()), WaitPidFlag::WEXITED);
    }
}

/// The guard. It waits for the end of a pipe, which the kernel makes when it closes the files of
/// whoever holds the other end, also after SIGKILL.
fn let_go(released: &OwnedFd, freezer: &File) -> ! {
    // Nothing else stays open here: no lock, no pipe of the caller's.
    let _ = dup2_stdin(released);
    let _ = dup2_stdout(freezer);
    let _ = dup2_stderr(freezer);
    // SAFETY: this process ends with exit_now, and uses none of them until then.
    let _ = unsafe { kernel::close_inherited_files() };
    // A key such as Ctrl-C ends the one that is waited for, and not the one that waits.
    let _ = SigSet::all().thread_block();
    while nix::unistd::read(stdin(), &mut [0]) == Err(Errno::EINTR) {}
    let _ = nix::unistd::write(stdout(), b"0");
    kernel::exit_now(0)
}
