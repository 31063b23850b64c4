//! Day 6: `--init`, a PID 1 that does what a PID 1 should: it passes signals on,
//! and reaps the orphans that the kernel gives to it. The command is its child,
//! and an ordinary process. (pid_namespaces(7))

use anyhow::Context;
use nix::sched::CloneFlags;
use nix::unistd::Pid;
use rustix::io::Errno;
use rustix::process::{WaitOptions, wait};

use crate::error::{RUNTIME_ERROR, Result};
use crate::explain::step;
use crate::kernel::{self, Clone};
use crate::stop::signals::pass_on;
use crate::wait::Signals;

const DAY: u8 = 6;

// ANCHOR: stay_behind
/// The child's last step before exec: makes a child of its own, which goes on
/// and becomes the command, and stays behind as PID 1.
pub fn stay_behind() -> Result<()> {
    // ANCHOR: day6_task4_stay_behind_solution
    let describe = || ("clone3(no flags): PID 1 stays behind as init".into(), "tini -- …".into());
    match step(DAY, describe, || kernel::clone3(CloneFlags::empty(), None))? {
        Clone::Child => Ok(()),
        // Its errors would have nobody to go to: the report is the command's.
        Clone::Parent(command, _) => kernel::exit_now(reap_until(command).unwrap_or(RUNTIME_ERROR)),
    }
    // ANCHOR_END: day6_task4_stay_behind_solution
}
// ANCHOR_END: stay_behind

// ANCHOR: reap
/// Reaps whoever ends, and passes on every other signal, until the command has
/// ended. Returns its exit code: 128+n for signal n, since an init that dies of
/// a signal it cannot die of is no use.
fn reap_until(command: Pid) -> Result<u8> {
    // ANCHOR: day6_task4_reap_until_solution
    // The report's end of file says that the command runs: not while we hold it.
    kernel::close_inherited_files().context("close_range")?;
    let signals = Signals::block()?;
    loop {
        // Before the first wait as well: who ended already will not be told again.
        // And several that end at once make one SIGCHLD: until nobody is left.
        loop {
            // (nix's waitpid would fail for an orphan that a real-time signal killed.)
            match wait(WaitOptions::NOHANG) {
                Ok(None) | Err(Errno::CHILD) => break,
                Ok(Some((pid, status))) if pid.as_raw_pid() == command.as_raw() => {
                    let killed = || status.terminating_signal().map(|signal| 128 + signal);
                    let code = status.exit_status().or_else(killed);
                    return Ok(code.context("the command neither exited nor was killed")? as u8);
                }
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("wait"),
            }
        }
        let arrived = signals.wait()?;
        // To one that has just ended: then it is SIGCHLD that comes next.
        let _ = pass_on(command, arrived);
    }
    // ANCHOR_END: day6_task4_reap_until_solution
}
// ANCHOR_END: reap
