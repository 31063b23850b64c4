//! Day 4: a process, by a handle that means this one and no other. Its number may be
//! another's a moment after its end. (pidfd_open(2))

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::error::Result;
use crate::explain::step;
use crate::files;
use crate::kernel::send_signal_by_handle;
use crate::wait::signal_name;

/// A process that ran when its handle was opened.
#[derive(Debug)]
pub struct Process {
    /// Its number on the host, for people to read.
    pub pid: i32,
    handle: OwnedFd,
}

impl Process {
    // ANCHOR: open
    /// The process that has the number `pid` at this moment; `None`: none has.
    pub fn open(pid: i32) -> Result<Option<Process>> {
        // ANCHOR: day4_task3_open_solution
        let Some(id) = Pid::from_raw(pid) else { bail!("the record's process id is {pid}") };
        match pidfd_open(id, PidfdFlags::empty()) {
            Ok(handle) => Ok(Some(Process { pid, handle })),
            // EINVAL: being reaped at this moment, or the number is now a thread's.
            Err(Errno::SRCH | Errno::INVAL) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("pidfd_open({pid})")),
        }
        // ANCHOR_END: day4_task3_open_solution
    }
    // ANCHOR_END: open

    /// Has it ended, now or `within` a time from now (`None`: however long it takes)?
    /// The handle becomes readable then. (pidfd_open(2))
    pub fn has_ended(&self, within: Option<Duration>) -> Result<bool> {
        // A time that no clock reaches is none.
        let until = within.and_then(|time| Instant::now().checked_add(time));
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let timeout = left.and_then(|left| Timespec::try_from(left).ok());
            match poll(&mut [PollFd::new(&self.handle, PollFlags::IN)], timeout.as_ref()) {
                Ok(ready) => return Ok(ready > 0),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("poll a pidfd"),
            }
        }
    }

    /// Has it come to its exec? Until then a container's first process is still the runtime, on
    /// its way from the host's `/` to its own, and whoever joined it would be on the host. The
    /// kernel has a flag for those that have not, PF_FORKNOEXEC. (proc_pid_stat(5), field 9;
    /// include/linux/sched.h)
    pub fn has_become_the_command(&self) -> Result<bool> {
        const FORKED_AND_NO_EXEC: u64 = 0x40;
        let file = format!("/proc/{}/stat", self.pid);
        // It has ended since.
        let Ok(stat) = files::read(&file) else { return Ok(true) };
        // The second field is a name in parentheses, which may contain anything.
        let name_ends = stat.iter().rposition(|byte| *byte == b')').context("a name in parentheses")?;
        let rest = String::from_utf8_lossy(&stat[name_ends + 1..]).into_owned();
        let flags = rest.split_ascii_whitespace().nth(9 - 3).and_then(|field| field.parse::<u64>().ok());
        Ok(flags.with_context(|| format!("{file} has no field 9"))? & FORKED_AND_NO_EXEC == 0)
    }

    /// Sends it the signal with this number; one that has just ended needs none. `day` is
    /// the caller's, for the narration. (pidfd_send_signal(2))
    pub fn signal(&self, day: u8, number: i32) -> Result<()> {
        let (pid, name) = (self.pid, signal_name(number));
        let describe = || {
            let by_hand = format!("kill -s {} {pid}", name.trim_start_matches("SIG"));
            (format!("pidfd_send_signal({pid}, {name})"), by_hand)
        };
        step(day, describe, || match send_signal_by_handle(self.handle.as_fd(), number) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            outcome => outcome,
        })
    }
}

impl From<Process> for OwnedFd {
    fn from(process: Process) -> OwnedFd {
        process.handle
    }
}

impl AsFd for Process {
    /// To poll it together with others: it becomes readable at the process's end.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}
