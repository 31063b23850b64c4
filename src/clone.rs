//! Day 1: the system call that makes a child, and how it is narrated.

use std::os::fd::{AsFd, OwnedFd};

use nix::sched::CloneFlags;

use crate::error::Result;
use crate::explain::step;
use crate::kernel::{self, Clone};

/// Makes the child in new namespaces.
pub fn clone(namespaces: CloneFlags, cgroup: Option<&OwnedFd>) -> Result<Clone> {
    let day = if namespaces.is_empty() { 1 } else { 2 };
    let describe = || describe_clone(namespaces, cgroup.is_some());
    // SAFETY: this process has one thread: what needs more starts them once the child is there.
    step(day, describe, || unsafe { kernel::clone3(namespaces, cgroup.map(AsFd::as_fd)) })
}

/// `clone3` as `--explain` shows it, and what a shell does instead.
fn describe_clone(namespaces: CloneFlags, into_cgroup: bool) -> (String, String) {
    let before = if into_cgroup { "echo 0 > …/cgroup.procs; " } else { "" };
    // Whoever unshares a pid namespace stays where it is: its child is born there.
    let by_hand = format!("{before}unshare{}", options(namespaces).replace("--pid", "--pid --fork"));
    if namespaces.is_empty() {
        return ("clone3(no flags: a fork)".into(), "a shell forks for every command".into());
    }
    let into_cgroup = into_cgroup.then_some("CLONE_INTO_CGROUP");
    let flags: Vec<&str> = namespaces.iter_names().map(|(name, _)| name).chain(into_cgroup).collect();
    (format!("clone3({})", flags.join(" | ")), by_hand)
}

/// `namespaces` as unshare(1) and nsenter(1) call them: ` --uts --pid`.
pub fn options(namespaces: CloneFlags) -> String {
    let options = [
        (CloneFlags::CLONE_NEWUSER, " --user"),
        (CloneFlags::CLONE_NEWUTS, " --uts"),
        (CloneFlags::CLONE_NEWPID, " --pid"),
        (CloneFlags::CLONE_NEWNS, " --mount"),
        (CloneFlags::CLONE_NEWIPC, " --ipc"),
        (CloneFlags::CLONE_NEWNET, " --net"),
    ];
    options.iter().filter(|(flag, _)| namespaces.contains(*flag)).map(|(_, option)| *option).collect()
}
