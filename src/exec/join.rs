//! Day 14: going into a container that runs.
//!
//! ```text
//! runtime     clone3 ─┬─ waits ──────────────────── hears the child's number ── goes on as in `run`
//! go-between          └─ setns … clone3(CLONE_PARENT) ── tells it, ends
//! child                          └── waits at the gate ── becomes the command
//! ```
//!
//! Three rules of the kernel make it two steps. Whoever joins a pid namespace stays where it is:
//! only its children are born there. Whoever joins a mount namespace sees no path of the host any
//! more, and the runtime still needs some. And a process that has joined another pid namespace
//! for its children can start no thread. So the runtime joins nothing: a go-between does, and
//! makes it a child that is the runtime's own. (setns(2), pid_namespaces(7), clone(2))

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, anyhow, bail};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::set_dumpable;
use nix::unistd::{Pid, pipe2};
use rustix::process::{PidfdFlags, pidfd_open};

use crate::clone::options;
use crate::container::Join;
use crate::error::Result;
use crate::explain::{self, step};
use crate::inherited;
use crate::kernel::{self, Clone};
use crate::wait::{Child, readable};

const DAY: u8 = 14;

// ANCHOR: clone_inside
/// Makes a child of this process that is born in the namespaces `namespaces` of the process that
/// `join` means, and in `cgroup`. It is not dumpable: nothing of the container can look into it without CAP_SYS_PTRACE.
pub fn clone_inside(join: &Join, namespaces: CloneFlags, cgroup: Option<&OwnedFd>) -> Result<Clone> {
    through_a_go_between(DAY, &|| go_in(join, namespaces, cgroup))
}

/// Makes a child of this process as `go` does, in a process in between: what that one joins, this one does
/// not. `day` is the caller's, for the narration.
pub fn through_a_go_between(day: u8, go: &dyn Fn() -> Result<Clone>) -> Result<Clone> {
    // ANCHOR: day14_task1_through_a_go_between_solution
    let (told, tell) = pipe2(OFlag::O_CLOEXEC).context("make a pipe")?;
    let describe = || ("clone3(no flags): a go-between".into(), "nsenter … &".into());
    // SAFETY: this process has one thread.
    match step(day, describe, || unsafe { kernel::clone3(CloneFlags::empty(), None) })? {
        Clone::Parent(pid, pidfd) => {
            drop(tell);
            hear_of_it(told, Child::new(pid, pidfd))
        }
        Clone::Child => {
            drop(told);
            explain::in_child();
            let words = match go() {
                Ok(Clone::Child) => return Ok(Clone::Child),
                Ok(Clone::Parent(child, _)) => child.as_raw().to_ne_bytes().to_vec(),
                Err(error) => [&[0; 4], format!("{error:#}").as_bytes()].concat(),
            };
            let _ = File::from(tell).write_all(&words);
            kernel::exit_now(0)
        }
    }
    // ANCHOR_END: day14_task1_through_a_go_between_solution
}
// ANCHOR_END: clone_inside

// ANCHOR: go_in
/// The go-between: joins the namespaces, and makes the child, which is not its own but its
/// parent's. (clone(2), CLONE_PARENT)
fn go_in(join: &Join, namespaces: CloneFlags, cgroup: Option<&OwnedFd>) -> Result<Clone> {
    // ANCHOR: day14_task1_go_in_solution
    // While there is still the host's /proc to do it with.
    inherited::start_afresh()?;
    join.oom_score_adj.map_or_else(inherited::may_be_killed_for_memory, inherited::set_oom_score_adj)?;
    // Before anybody in there can see the child: no process of the container without CAP_SYS_PTRACE
    // can open its memory, its descriptors or its program. (CVE-2016-9962, CVE-2019-5736)
    let describe = || ("prctl(PR_SET_DUMPABLE, 0)".into(), "no shell can do that".into());
    step(DAY, describe, || set_dumpable(false))?;
    // Its network too where that is no new one: the caller's may be another by now.
    let namespaces = namespaces | CloneFlags::CLONE_NEWNET;
    let describe = || describe_setns(namespaces);
    step(DAY, describe, || setns(&join.process, namespaces)).map_err(if_it_ended)?;
    let describe = || {
        let into = cgroup.map_or("", |_| " | CLONE_INTO_CGROUP");
        (format!("clone3(CLONE_PARENT{into})"), "nsenter forks as well: --fork".into())
    };
    // SAFETY: this process has one thread.
    step(DAY, describe, || unsafe { kernel::clone3(CloneFlags::CLONE_PARENT, cgroup.map(AsFd::as_fd)) })
        .map_err(if_it_ended)
    // ANCHOR_END: day14_task1_go_in_solution
}
// ANCHOR_END: go_in

/// `error` in words, where it means that the container's first process has ended (ESRCH), or is
/// about to: then nobody is born in its pid namespace any more. The kernel has no other word for
/// that than for a lack of memory. (pid_namespaces(7))
pub fn if_it_ended(error: anyhow::Error) -> anyhow::Error {
    let setns = error.downcast_ref::<Errno>().map(|errno| *errno as i32);
    let clone = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
    match setns.or(clone) {
        Some(libc::ESRCH) => anyhow!("the container has just ended"),
        Some(libc::ENOMEM) => error.context("the container is about to end, or memory is short"),
        _ => error,
    }
}

/// The runtime: what the go-between has to say, up to its end.
fn hear_of_it(told: OwnedFd, mut go_between: Child) -> Result<Clone> {
    readable(&told, None, "a process to go into the container")?;
    let mut words = Vec::new();
    File::from(told).read_to_end(&mut words).context("hear of the child in the container")?;
    go_between.reap_soon()?;
    let Some((number, why)) = words.split_first_chunk::<4>() else {
        bail!("the process that went into the container was killed");
    };
    let pid = Pid::from_raw(i32::from_ne_bytes(*number));
    let Some(id) = rustix::process::Pid::from_raw(pid.as_raw()) else {
        bail!("{}", String::from_utf8_lossy(why));
    };
    // It is our child: until it is reaped, nobody else gets its number.
    let pidfd = pidfd_open(id, PidfdFlags::empty()).with_context(|| format!("pidfd_open({pid})"))?;
    Ok(Clone::Parent(pid, pidfd))
}

fn describe_setns(namespaces: CloneFlags) -> (String, String) {
    let names: Vec<&str> = namespaces.iter_names().map(|(name, _)| name).collect();
    let by_hand = format!("nsenter --target PID{}", options(namespaces));
    (format!("setns(pidfd, {})", names.join(" | ")), by_hand)
}
