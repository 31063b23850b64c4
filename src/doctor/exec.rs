//! Day 10: what day 14 needs of this machine, beyond what the days before it need.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, bail};
use nix::sched::{CloneFlags, setns};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

use crate::cgroups::place;
use crate::error::Result;

use super::{Found, fine};

/// Joins a namespace by the handle of a process that is in it: the one that this thread is in.
pub fn joining() -> Result<Found> {
    let this = handle(getpid())?;
    setns(&this, CloneFlags::CLONE_NEWUTS).context("setns(pidfd, CLONE_NEWUTS)")?;
    fine("can be entered")
}

/// A copy of a descriptor of a process, which a module such as Yama or a seccomp filter may refuse.
pub fn descriptors() -> Result<Found> {
    let this = handle(getpid())?;
    pidfd_getfd(&this, this.as_raw_fd(), PidfdGetfdFlags::empty()).context("pidfd_getfd")?;
    fine("can be attached to")
}

/// Version 2 of cgroups has a freezer in every cgroup but the root.
pub fn freezer() -> Result<Found> {
    let Ok(place) = place::place() else {
        return Ok(Found::Note(
            "there is no place for cgroups, and what is in none cannot be paused".into(),
            "see cgroup version 2",
        ));
    };
    let all = fs::read_dir(&place).with_context(|| format!("look into {}", place.display()))?;
    let mut cgroups = all.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).peekable();
    if cgroups.peek().is_some() && !cgroups.any(|cgroup| cgroup.join("cgroup.freeze").exists()) {
        bail!("no cgroup in {} has a file cgroup.freeze; expected Linux 5.2 or newer", place.display());
    }
    fine("can be frozen")
}

/// Who starts containers after a boot.
pub fn systemd() -> Result<Found> {
    match Path::new(place::SYSTEMD).exists() {
        true => fine("systemd is here: tiny-docker systemd writes a unit for a container"),
        false => Ok(Found::Note(
            "systemd does not run here: after a boot, nobody starts containers".into(),
            "call tiny-docker start where this machine starts its programs",
        )),
    }
}

fn handle(pid: Pid) -> Result<OwnedFd> {
    pidfd_open(pid, PidfdFlags::empty()).context("pidfd_open")
}
