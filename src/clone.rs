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
    let options = [
        (CloneFlags::CLONE_NEWUTS, "--uts"),
        (CloneFlags::CLONE_NEWPID, "--pid --fork"),
        (CloneFlags::CLONE_NEWNS, "--mount"),
        (CloneFlags::CLONE_NEWIPC, "--ipc"),
        (CloneFlags::CLONE_NEWNET, "--net"),
    ];
    let mut by_hand =
        String::from(if into_cgroup { "echo 0 > …/cgroup.procs; unshare" } else { "unshare" });
    for (_, option) in options.iter().filter(|(flag, _)| namespaces.contains(*flag)) {
        by_hand.push(' ');
        by_hand.push_str(option);
    }
    if namespaces.is_empty() {
        return ("clone3(no flags: a fork)".into(), "a shell forks for every command".into());
    }
    let into_cgroup = into_cgroup.then_some("CLONE_INTO_CGROUP");
    let flags: Vec<&str> = namespaces.iter_names().map(|(name, _)| name).chain(into_cgroup).collect();
    (format!("clone3({})", flags.join(" | ")), by_hand)
}
