//! Day 4: to the disk, and nobody waits for it.
//!
//! What is written is in the kernel's memory first. The kernel brings it to the disk by
//! itself, after 5 to 30 seconds; a power cut before that takes it. Waiting for the disk,
//! with fsync(2), is what a database does before it says "done". A person who runs a
//! container would wait for it before each prompt.
//!
//! So another process waits. It is on its own: neither `run` nor its shell waits for it, it
//! holds nothing of theirs open, and it ends by itself. (A thread would not do: a process
//! ends when all its threads have, and one that waits for a disk cannot be ended.)

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use nix::sched::CloneFlags;
use nix::sys::signal::{SigEvent, SigevNotify, Signal};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::time::ClockId;
use nix::unistd::{chdir, dup2_stderr, dup2_stdin, dup2_stdout, setsid};
use rustix::fs::{FlockOperation, flock, syncfs};
use rustix::stdio::stdin;

use crate::kernel::{self, Clone};
use crate::metadata::layout::{open_to_lock, root_of};

/// How long a flush waits for others who want one. Twice this, and the time that the disk
/// takes, is less than the second that is promised.
const SOON: Duration = Duration::from_millis(300);

// ANCHOR: soon
/// Has all that was written in the state directory brought to the disk soon. Returns at once.
///
/// The process that is about to flush holds a lock while it waits for others. They need no flush
/// of their own: a hundred containers that end in this time make one. If this cannot be done
/// now, the kernel does it later.
pub fn soon(container: &Path) {
    let Some((turn, null)) = turn(container) else { return };
    // The process is made by another one that ends at once, so it is nobody's child that
    // anybody knows.
    // SAFETY: what runs in the child is system calls and nothing else: other threads of this
    // process may hold locks, that of the allocator for one, which stay locked in there.
    match unsafe { kernel::clone3(CloneFlags::empty(), None) } {
        Ok(Clone::Parent(_, child)) => drop(waitid(Id::PIDFd(child.as_fd()), WaitPidFlag::WEXITED)),
        Ok(Clone::Child) => {
            // SAFETY: as above.
            if let Ok(Clone::Child) = unsafe { kernel::clone3(CloneFlags::empty(), None) } {
                flush(&turn, &null);
            }
            kernel::exit_now(0)
        }
        // No process more, no memory: see above.
        Err(_) => {}
    }
}

/// The same, for a runtime that is about to end: then its child is nobody's as well.
pub fn soon_after_us(container: &Path) {
    if let Some(files) = turn(container) {
        // SAFETY: it makes system calls and nothing else.
        let _ = unsafe { kernel::spawn_in_this_memory(|(turn, null)| flush(turn, null), files) };
    }
}

/// The lock, and /dev/null; `None`: there is nothing to flush, or somebody else is about to.
fn turn(container: &Path) -> Option<(File, File)> {
    let place = root_of(container).ok()?.join("flush");
    let turn = open_to_lock(&place).ok()?;
    if is_in_memory(&place) || turn.try_lock().is_err() {
        return None;
    }
    Some((turn, File::options().read(true).write(true).open("/dev/null").ok()?))
}

/// Is it on a tmpfs? What is there lives as long as the boot, flushed or not. (statfs(2))
pub fn is_in_memory(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC)
}

/// In the process that was made for it.
fn flush(turn: &File, null: &File) {
    // What stays open is what there is to flush.
    leave(turn, null, null);
    sleep(SOON);
    // Whoever writes from here on is too late for this one, and makes another.
    let _ = flock(stdin(), FlockOperation::Unlock);
    let _ = syncfs(stdin());
}
// ANCHOR_END: soon

/// In a process that nobody waits for, and that ends by [`kernel::exit_now`]: keeps nothing of
/// whoever started the runtime. Not its session, not a pipe that somebody reads to its end, not the
/// container's lock. What is open from here on are the three, as stdin, stdout and stderr.
pub fn leave(stdin: &File, stdout: impl AsFd, stderr: &File) {
    let _ = setsid();
    let _ = dup2_stdin(stdin);
    let _ = dup2_stdout(stdout);
    let _ = dup2_stderr(stderr);
    let _ = chdir(c"/");
    // SAFETY: no other descriptor is used in this process any more, nor dropped.
    let _ = unsafe { kernel::close_inherited_files() };
}

/// Rings once, by a signal to the runtime, when a container has been running for a moment: so
/// many end before that that their start need not be on the disk.
#[derive(Debug)]
pub struct Alarm(#[allow(dead_code)] Timer);

impl Alarm {
    /// The signal. It has no meaning for the runtime, and is not passed on to a command.
    /// (SIGALRM would: somebody may use that.)
    pub const SIGNAL: Signal = Signal::SIGURG;

    /// Sets it. `None`: there is no timer to be had, and the kernel will flush later.
    pub fn set() -> Option<Alarm> {
        let notify = SigevNotify::SigevSignal { signal: Alarm::SIGNAL, si_value: 0 };
        let mut timer = Timer::new(ClockId::CLOCK_MONOTONIC, SigEvent::new(notify)).ok()?;
        let once = Expiration::OneShot(TimeSpec::from_duration(SOON));
        timer.set(once, TimerSetTimeFlags::empty()).ok()?;
        Some(Alarm(timer))
    }
}
