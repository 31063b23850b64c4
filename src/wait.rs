//! Day 1, the parent's side of a running command: wait for it, and say how it ended.

use std::fs::{File, TryLockError};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use crate::error::{Failure, Result};
use crate::explain::step;
use crate::kernel::{self, ENDING};

/// How long to wait for what others do at once: longer than the runtime takes to write
/// down the end of its container, even on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How long to wait before looking again at what will change at once.
pub const A_MOMENT: Duration = Duration::from_millis(2);

// ANCHOR: readable
/// Waits until `fd` can be read, at most for `patience` (`None`: however long it takes).
/// Returns whether it can.
///
/// Everything that `run` waits for, other than its command, is waited for by this function
/// or by [`lock`]. The runtime blocks all signals, so any other wait would be deaf. A signal
/// of [`ENDING`] ends the wait with an error that says what was waited for (`what`), and the
/// caller's cleanup follows. The next one ends the runtime at once.
pub fn readable(fd: impl AsFd, patience: Option<Duration>, what: &str) -> Result<bool> {
    wait_for(Some(fd.as_fd()), patience, what)
}
// ANCHOR_END: readable

/// Ends with an error if a signal has told the runtime to end. `what` is what it is doing.
pub fn told_to_end(what: &str) -> Result<()> {
    wait_for(None, Some(Duration::ZERO), what).map(drop)
}

fn wait_for(fd: Option<BorrowedFd>, patience: Option<Duration>, what: &str) -> Result<bool> {
    // A signalfd sees only what is blocked. In a command that blocks nothing, such as `ps`,
    // a signal does what it always does, and this one stays silent. (signalfd(2))
    let mut listened_for = SigSet::from_iter(ENDING);
    listened_for.add(Signal::SIGTSTP);
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = SignalFd::with_flags(&listened_for, flags).context("signalfd")?;
    // A time that no clock reaches is none.
    let until = patience.and_then(|patience| Instant::now().checked_add(patience));
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let timeout = left.map_or(PollTimeout::NONE, |left| left.try_into().unwrap_or(PollTimeout::MAX));
        let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        fds.extend(fd.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).with_context(|| format!("wait for {what}")),
        }
        let ready = fds.get(1).and_then(PollFd::any) == Some(true);
        let heard = fds[0].any() == Some(true);
        if heard && let Some(info) = signals.read_signal().context("read from signalfd")? {
            match Signal::try_from(info.ssi_signo as i32).context("a signal that was not asked for")? {
                Signal::SIGTSTP => raise(Signal::SIGSTOP).context("stop")?,
                signal => return Err(ended_by(signal, what)),
            }
        } else if ready || left.is_some_and(|left| left.is_zero()) {
            return Ok(ready);
        }
    }
}

/// The runtime was told to end while it waited for `what`: what it exits with is what a
/// shell says of a program that the signal killed. From here on the next such signal does
/// kill it: whoever sends a second one does not want to wait for the cleanup.
fn ended_by(signal: Signal, what: &str) -> anyhow::Error {
    for signal in ENDING.into_iter().filter(|signal| !kernel::is_ignored(*signal)) {
        let _ = kernel::reset_signal(signal);
    }
    let _ = SigSet::from_iter(ENDING).thread_unblock();
    let message = format!("ended by {signal} while waiting for {what}");
    Failure { exit_code: 128 + signal as u8, message }.into()
}

/// Locks `file` (`shared`: together with others who share), and waits for that like
/// [`readable`]. It is an error if `patience` runs out. (flock(2))
pub fn lock(file: &File, shared: bool, patience: Option<Duration>, what: &str) -> Result<()> {
    let until = patience.and_then(|patience| Instant::now().checked_add(patience));
    // No poll tells when a lock is free, and flock(2) alone would hear no signal.
    let mut pause = A_MOMENT;
    loop {
        match if shared { file.try_lock_shared() } else { file.try_lock() } {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error).with_context(|| format!("lock {what}")),
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            let seconds = patience.unwrap_or_default().as_secs();
            bail!("{what} is held by another process, and still was after {seconds} s; try again");
        }
        wait_for(None, Some(pause), what)?;
        pause = (pause * 2).min(A_MOMENT * 10);
    }
}

/// The signals that reach the runtime, held back to be read at a moment of our
/// own choosing instead of interrupting at any.
pub struct Signals {
    pending: SignalFd,
}

impl Signals {
    /// Blocks every signal that could end the runtime before it has cleaned up.
    ///
    /// Not blocked: faults, which are bugs and happen at once, and the signals
    /// that stop a job in the background which wants the terminal. Nor what the caller has
    /// the runtime ignore: `nohup tiny-docker run …` outlives its terminal.
    pub fn block() -> Result<Signals> {
        // Whoever started us may have had SIGCHLD ignored, and that is inherited;
        // the kernel would then reap the child itself and its exit code be lost.
        kernel::reset_signal(Signal::SIGCHLD).context("reset SIGCHLD")?;
        use Signal::*;
        let mut blocked = SigSet::all();
        for signal in [SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT, SIGSYS, SIGTTIN, SIGTTOU] {
            blocked.remove(signal);
        }
        // A blocked signal is kept even if it is ignored.
        for signal in ENDING.into_iter().filter(|signal| kernel::is_ignored(*signal)) {
            blocked.remove(signal);
        }
        blocked.thread_set_mask().context("block signals")?;
        let pending = SignalFd::with_flags(&blocked, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .context("signalfd")?;
        Ok(Signals { pending })
    }

    /// Parent, before its cleanup. Whoever tells the runtime to end now has what is wanted; but
    /// whoever does it twice does not want to wait, and the second one ends it where it is.
    pub fn let_the_second_end_us(&self) -> Result<()> {
        let hear_no_more: Vec<Signal> =
            ENDING.into_iter().filter(|signal| !kernel::is_ignored(*signal)).collect();
        let blocked = SigSet::thread_get_mask().context("read the signal mask")?;
        // If they are not blocked any more, the first one has come: see `ended_by`.
        if hear_no_more.iter().any(|signal| blocked.contains(*signal)) {
            kernel::let_the_second_act(&hear_no_more).context("sigaction")?;
            SigSet::from_iter(ENDING).thread_unblock().context("unblock signals")?;
        }
        Ok(())
    }

    /// Waits for the next one.
    pub fn wait(&self) -> Result<Arrived> {
        loop {
            if let Some(arrived) = self.next()? {
                return Ok(arrived);
            }
            match poll(&mut [PollFd::new(self.pending.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("wait for a signal"),
            }
        }
    }

    /// The next one that has arrived, if any.
    pub fn next(&self) -> Result<Option<Arrived>> {
        let info = self.pending.read_signal().context("read from signalfd")?;
        Ok(info
            .map(|info| Arrived { signal: info.ssi_signo as i32, from_kernel: info.ssi_code == SI_KERNEL }))
    }
}

/// `si_code` of a signal that no process sent, but the kernel: for a key of the
/// terminal such as Ctrl-C, for one. (sigaction(2); the libc crate lacks it)
const SI_KERNEL: i32 = 0x80;

/// A signal that reached the runtime.
#[derive(Debug, Clone, Copy)]
pub struct Arrived {
    /// Its number. (nix's `Signal` has no real-time signals.)
    pub signal: i32,
    /// Nobody sent it but the kernel: a key of the terminal, for one. It then went
    /// to all of the terminal's foreground process group.
    pub from_kernel: bool,
}

/// The name of the signal `number`, as `kill -l` lists it. Real-time signals are counted
/// from SIGRTMIN, which is 34: the C library keeps 32 and 33 for itself. (signal(7))
pub fn signal_name(number: i32) -> String {
    match Signal::try_from(number) {
        Ok(signal) => signal.as_str().into(),
        Err(_) if number == SIGRTMIN => "SIGRTMIN".into(),
        Err(_) if number == SIGRTMAX => "SIGRTMAX".into(),
        Err(_) if number > SIGRTMIN => format!("SIGRTMIN+{}", number - SIGRTMIN),
        Err(_) => number.to_string(),
    }
}

/// The first real-time signal. ([`signal_name`])
pub const SIGRTMIN: i32 = 34;
/// The last real-time signal, and the last signal.
pub const SIGRTMAX: i32 = 64;

/// What a signal does to a runtime that no mechanism has told otherwise.
///
/// SIGTERM and SIGHUP end the command at once. (Day 6 passes them on instead.)
/// Ctrl-C and Ctrl-\ do nothing here: the terminal sends SIGINT and SIGQUIT to
/// the command as well, and it decides. Ctrl-Z stops the command, and so it does
/// the runtime: that is what the shell waits for.
pub fn take(child: Pid, arrived: Arrived) -> Result<()> {
    match arrived.signal {
        libc::SIGTERM | libc::SIGHUP => kill(child, Signal::SIGKILL).context("kill the command"),
        libc::SIGTSTP => raise(Signal::SIGSTOP).context("stop"),
        _ => Ok(()),
    }
}

/// A child that is not reaped yet. Dropping it kills and reaps it: a start that
/// fails half-way leaves no process.
#[derive(Debug)]
pub struct Child {
    /// Its process id, seen from the runtime. Ours until it is reaped.
    pub pid: Pid,
    pidfd: OwnedFd,
    reaped: bool,
}

impl Child {
    /// The child that clone3 just made.
    pub fn new(pid: Pid, pidfd: OwnedFd) -> Child {
        Child { pid, pidfd, reaped: false }
    }

    /// Waits for the end of the command, and returns how it ended. `on_signal`
    /// is told of each signal that reaches the runtime meanwhile.
    pub fn wait(
        mut self,
        signals: &Signals,
        mut on_signal: impl FnMut(Pid, Arrived) -> Result<()>,
    ) -> Result<ExitStatus> {
        loop {
            let mut fds = [
                PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN),
                PollFd::new(signals.pending.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("wait for the command"),
            }
            if fds[0].any() == Some(true) {
                return self.reap();
            }
            while let Some(arrived) = signals.next()? {
                on_signal(self.pid, arrived)?;
            }
        }
    }

    /// How a child ended that is about to; `None`: it does not end.
    pub fn reap_soon(&mut self) -> Result<Option<ExitStatus>> {
        let ended = readable(&self.pidfd, Some(PATIENCE), "the container's first process to end")?;
        if ended { self.reap().map(Some) } else { Ok(None) }
    }

    /// Leaves it to whoever reaps it once this process has ended. (day 18; prctl(2),
    /// PR_SET_CHILD_SUBREAPER)
    pub fn let_go(mut self) {
        self.reaped = true;
    }

    fn reap(&mut self) -> Result<ExitStatus> {
        let describe = || ("waitid(P_PIDFD, …, WEXITED)".into(), "wait $!; echo $?".into());
        let status = step(1, describe, || kernel::reap(self.pidfd.as_fd()))?;
        self.reaped = true;
        Ok(status)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = kill(self.pid, Signal::SIGKILL);
            // One that the kernel cannot end yet is left behind as a zombie, and ours no more
            // than until this process ends.
            let _ = self.reap_soon();
        }
    }
}

// ANCHOR: exit_code
/// What the runtime exits with after a command that ended with `status`: the
/// code it exited with, or 128 plus the number of the signal that killed it, as
/// every shell says it. (wait(2); POSIX shell, 2.8.2)
pub fn exit_code_of(status: ExitStatus) -> Result<u8> {
    // ANCHOR: day1_task3_exit_code_of_solution
    match (status.code(), status.signal()) {
        // A process has 32 bits for its exit code, and its parent sees 8 of them.
        (Some(code), _) => Ok(code as u8),
        (None, Some(signal)) => Ok(128 + signal as u8),
        (None, None) => bail!("the command neither exited nor was killed: {status:?}"),
    }
    // ANCHOR_END: day1_task3_exit_code_of_solution
}
// ANCHOR_END: exit_code
