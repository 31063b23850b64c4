//! Day 6: `--init`, a PID 1 that does what a PID 1 should: it passes signals on,
//! and reaps the orphans that the kernel gives to it. The command is its child,
//! and an ordinary process. (pid_namespaces(7))
//!
//! It is this program, started anew from a copy in memory: `tiny-docker init PID`.
//! A mere copy of the runtime's process would show the container the runtime's environment
//! and command line, and, as /proc/1/exe, its file on the host.

use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;

use anyhow::{Context, bail};
use nix::fcntl::OFlag;
use nix::sched::CloneFlags;
use nix::sys::prctl::set_name;
use nix::unistd::{Pid, fexecve, getpid, pipe2};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use rustix::process::{WaitOptions, wait};

use crate::container::Container;
use crate::error::Result;
use crate::explain::step;
use crate::kernel::{self, Clone};
use crate::stop::signals::pass_on;
use crate::wait::Signals;

const DAY: u8 = 6;

/// What PID 1 of a container with `--init` runs. Nobody types it.
#[derive(Debug, clap::Args)]
pub struct Init {
    /// The container's command, which is this process's child
    command: i32,
}

// ANCHOR: sealed
/// A copy of this program in memory that nobody can change any more. The file that this
/// process was started from may be gone; the kernel still has it. (memfd_create(2))
pub fn sealed_program() -> Result<OwnedFd> {
    let mut program = File::open("/proc/self/exe").context("open /proc/self/exe")?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let create = || match memfd_create("tiny-docker", flags | MemfdFlags::EXEC) {
        // Before Linux 6.3 there was no such flag: every memfd could be executed.
        Err(Errno::INVAL) => memfd_create("tiny-docker", flags),
        outcome => outcome,
    };
    let describe = || {
        let calls = "memfd_create(\"tiny-docker\"), sendfile(/proc/self/exe), fcntl(F_ADD_SEALS)";
        (calls.into(), "cp /proc/self/exe /dev/shm/tiny-docker".into())
    };
    step(DAY, describe, || {
        let mut copy = File::from(create()?);
        // From kernel to kernel: the bytes do not pass through this process. (sendfile(2))
        io::copy(&mut program, &mut copy)?;
        fcntl_add_seals(&copy, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
        io::Result::Ok(copy.into())
    })
}
// ANCHOR_END: sealed

// ANCHOR: stay_behind
/// The child's last step before exec: makes a child of its own, which goes on
/// and becomes the command, and stays behind as PID 1.
pub fn stay_behind(container: &Container) -> Result<()> {
    // ANCHOR: day6_task4_stay_behind_solution
    let (go, going) = pipe2(OFlag::O_CLOEXEC).context("make a pipe")?;
    let describe = || ("clone3(no flags): PID 1 stays behind as init".into(), "tini -- …".into());
    // SAFETY: the child has one thread, as every child of clone3.
    match step(DAY, describe, || unsafe { kernel::clone3(CloneFlags::empty(), None) })? {
        Clone::Child => {
            // Until the exec has closed the other end: no command without its init.
            drop(going);
            File::from(go).read(&mut [0]).context("wait for the init")?;
            Ok(())
        }
        Clone::Parent(command, _) => {
            let Err(error) = become_the_init(container, command);
            Err(error)
        }
    }
    // ANCHOR_END: day6_task4_stay_behind_solution
}
// ANCHOR_END: stay_behind

// ANCHOR: become_the_init
/// Replaces this process by the init, with the environment that the command has. Returns
/// only when that failed. (execveat(2))
fn become_the_init(container: &Container, command: Pid) -> Result<Infallible> {
    // ANCHOR: day6_task4_become_the_init_solution
    let program = container.parts.init.as_ref().context("there is no copy of the init")?;
    let arguments = ["tiny-docker".into(), "init".into(), command.to_string().into()].map(c_string);
    let arguments = arguments.into_iter().collect::<Result<Vec<CString>>>()?;
    let variables = (container.plan.environment.iter())
        .map(|(name, value)| c_string([name, OsStr::new("="), value].into_iter().collect()))
        .collect::<Result<Vec<CString>>>()?;
    // It is of the container too. (day 16)
    container.parts.last_steps.filter.map_or(Ok(()), |attach| attach(container))?;
    let describe = || {
        let call = format!("execveat(the copy, [\"tiny-docker\", \"init\", \"{command}\"])");
        (call, format!("exec -a tiny-docker /dev/shm/tiny-docker init {command}"))
    };
    step(DAY, describe, || fexecve(program, &arguments, &variables))
    // ANCHOR_END: day6_task4_become_the_init_solution
}
// ANCHOR_END: become_the_init

fn c_string(text: OsString) -> Result<CString> {
    Ok(CString::new(text.into_vec())?)
}

impl Init {
    /// What PID 1 does, up to the command's end. Returns the command's exit code.
    pub fn execute(self) -> Result<u8> {
        if getpid().as_raw() != 1 {
            bail!("init is what `tiny-docker run --init` runs as PID 1 of a container; use that");
        }
        // The kernel has named this process by its file, which has no good name.
        set_name(c"tiny-docker").context("name this process")?;
        reap_until(Pid::from_raw(self.command))
    }
}

// ANCHOR: reap
/// Reaps whatever ends, and passes on every other signal, until the command has
/// ended. Returns its exit code: 128+n for signal n, since an init that dies of
/// a signal it cannot die of is no use.
fn reap_until(command: Pid) -> Result<u8> {
    // ANCHOR: day6_task4_reap_until_solution
    let signals = Signals::block()?;
    loop {
        // Before the first wait as well: a child that has ended already is not announced again.
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
        // If the command has just ended, this fails, and its SIGCHLD comes next.
        let _ = pass_on(command, arrived);
    }
    // ANCHOR_END: day6_task4_reap_until_solution
}
// ANCHOR_END: reap
