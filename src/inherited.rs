//! Day 1, the child: what it inherited from whoever called the runtime.
//!
//! A child is a copy of its parent, and execve(2) keeps most of what is left ("Effect on
//! process attributes"). So a command would behave differently depending on who started
//! it: a script that ignores SIGINT, a login shell with a umask of 077, a daemon that the
//! kernel may never kill. The rule, on every day:
//!
//! - **What changes how a program behaves, or is the caller's secret, starts afresh**, in
//!   [`start_afresh`] and [`hear_signals_again`].
//! - **What the caller is limited to passes on**, for to lift a restriction is not ours:
//!   resource limits, nice value, scheduling policy, processors, I/O priority, memory policy,
//!   no_new_privs, seccomp filters, securebits, capabilities. (Days 7, 15 and 16 add limits.)
//!
//! The umask is set and open files are closed at the very start (`main`, `container::run`), for
//! they concern the runtime too. The environment is day 3's.

use anyhow::Context;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::Mode;

use crate::error::Result;
use crate::explain::step;
use crate::files;
use crate::kernel;
use crate::wait::SIGRTMAX;

/// The umask of every command, as with Docker, and of the runtime itself: others may not
/// write to what is made. (umask(2))
pub const UMASK: Mode = Mode::S_IWGRP.union(Mode::S_IWOTH);

// ANCHOR: start_afresh
/// Gives this process a life of its own, before anything of the container is made: what its
/// signals do, its execution domain and session keyring. (Its oom_score_adj may be asked for: see
/// [`may_be_killed_for_memory`] and [`set_oom_score_adj`].)
pub fn start_afresh() -> Result<()> {
    // ANCHOR: day1_task4_start_afresh_solution
    reset_signals()?;
    // `setarch -R` turns address randomisation off, and exec keeps that. (personality(2))
    let describe = || ("personality(PER_LINUX)".into(), "setarch \"$(uname -m)\" …".into());
    step(1, describe, || kernel::set_personality(0))?;
    new_session_keyring()
    // ANCHOR_END: day1_task4_start_afresh_solution
}
// ANCHOR_END: start_afresh

/// Every signal does again what it does by default. A caller may have it ignored, and that
/// survives an exec: SIGINT and SIGQUIT after a script's `&`, SIGHUP under nohup.
/// (signal(7), "Signal dispositions")
fn reset_signals() -> Result<()> {
    // SIGPIPE later: until then a write to a pipe that nobody reads must be an error, as
    // everywhere in Rust. The other two cannot be changed.
    let spared = [libc::SIGPIPE, libc::SIGKILL, libc::SIGSTOP];
    let describe = || ("sigaction(1…64, SIG_DFL)".into(), "env --default-signal …".into());
    step(1, describe, || {
        (1..=SIGRTMAX).filter(|signal| !spared.contains(signal)).try_for_each(kernel::reset_signal_number)
    })
}

/// Leaves the caller's session keyring for an empty one: tokens of Kerberos, keys of
/// encrypted directories and whatever else the login put there are not the container's.
/// (session-keyring(7))
fn new_session_keyring() -> Result<()> {
    let describe = || ("keyctl(KEYCTL_JOIN_SESSION_KEYRING, NULL)".into(), "keyctl session".into());
    step(1, describe, || match kernel::join_new_session_keyring() {
        // A kernel without keyrings; or a seccomp filter, such as Docker's, that does not let
        // anybody in here reach them: the command inherits it, and cannot either.
        Err(Errno::ENOSYS | Errno::EPERM) => Ok(()),
        outcome => outcome,
    })
}

/// Of the process that asks. (proc_pid_oom_score_adj(5))
const OOM_SCORE_ADJ: &str = "/proc/self/oom_score_adj";

/// Sets oom_score_adj to 0. With the caller's -1000 (sshd's, systemd's) the kernel may not
/// kill what exceeds a memory limit, and it would hang. A positive one may stay: to lower
/// it takes a privilege, and it harms nobody but the container. (proc_pid_oom_score_adj(5))
pub fn may_be_killed_for_memory() -> Result<()> {
    let describe = || (format!("write 0 > {OOM_SCORE_ADJ}"), format!("echo 0 >{OOM_SCORE_ADJ}"));
    step(1, describe, || match files::write(OOM_SCORE_ADJ, "0") {
        Err(error) if is_negative(OOM_SCORE_ADJ) => Err(error),
        _ => Ok(()),
    })
}

/// Sets oom_score_adj to what somebody has asked for: from -1000, the kernel never kills it when
/// memory is short, to 1000, it is the first. Less than the caller's takes CAP_SYS_RESOURCE. (day 15)
pub fn set_oom_score_adj(value: i32) -> Result<()> {
    let describe = || (format!("write {value} > {OOM_SCORE_ADJ}"), format!("echo {value} >{OOM_SCORE_ADJ}"));
    step(15, describe, || files::write(OOM_SCORE_ADJ, &value.to_string())).with_context(|| {
        format!(
            "--oom-score-adj {value}: expected at least the caller's own, or that it has CAP_SYS_RESOURCE"
        )
    })
}

fn is_negative(file: &str) -> bool {
    files::read(file).is_ok_and(|text| text.starts_with(b"-"))
}

// ANCHOR: hear_signals_again
/// The last of it, just before exec: no signal is blocked any more, as nearly all are in the
/// runtime, and SIGPIPE is not ignored, as in every Rust program. A command would inherit
/// both: deaf to Ctrl-C, and a `yes | head` that never ends. (sigprocmask(2), signal(7))
pub fn hear_signals_again() -> Result<()> {
    // ANCHOR: day1_task3_hear_signals_again_solution
    let describe = || ("sigprocmask(SIG_SETMASK, none)".into(), "env --default-signal=PIPE …".into());
    step(1, describe, || {
        kernel::reset_signal(Signal::SIGPIPE)?;
        SigSet::empty().thread_set_mask()
    })
    // ANCHOR_END: day1_task3_hear_signals_again_solution
}
// ANCHOR_END: hear_signals_again
