//! Day 4, for day 7: what a container has that does not end with its processes,
//! its cgroup. The kernel keeps that until somebody removes it.
//!
//! It is noted in the container's directory *before* it is made. So whoever finds
//! what a killed `run` left there knows all that is left elsewhere.

use std::fs;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Instant;

use anyhow::Context;

use crate::error::Result;
use crate::explain::step;
use crate::metadata::pidfd::Process;
use crate::wait::{A_MOMENT, PATIENCE};

const DAY: u8 = 7;

/// The note, in the container's directory.
const NOTE: &str = "cgroup";

/// Notes that the container in `dir` is about to get the cgroup `cgroup`. Not
/// synced to the disk: a machine that dies takes its cgroups with it.
pub fn note_cgroup(dir: &Path, cgroup: &Path) -> Result<()> {
    fs::write(dir.join(NOTE), cgroup.as_os_str().as_encoded_bytes())
        .with_context(|| format!("write {:?}", dir.join(NOTE)))
}

/// The cgroup of the container in `dir`; `None` if it has none.
pub fn cgroup_of(dir: &Path) -> Option<PathBuf> {
    let path = PathBuf::from(fs::read_to_string(dir.join(NOTE)).ok()?);
    path.is_dir().then_some(path)
}

// ANCHOR: kill_all
/// SIGKILL. From day 7 on to all that is in the cgroup of the container in `dir`, at
/// once; before, to its PID 1, whose end is the end of the others.
pub fn kill_all(day: u8, dir: &Path, process: &Process) -> Result<()> {
    match cgroup_of(dir) {
        Some(cgroup) if kill_all_in(&cgroup)? => Ok(()),
        _ => process.signal(day, libc::SIGKILL),
    }
}
// ANCHOR_END: kill_all

// ANCHOR: kill
/// Has the kernel kill all that is in `cgroup`, at once: while a list is walked
/// and its processes are killed one by one, a fork bomb makes new ones. Returns
/// whether it did; kernels before 5.14 cannot. (kernel: admin-guide/cgroup-v2,
/// "cgroup.kill")
pub fn kill_all_in(cgroup: &Path) -> Result<bool> {
    // ANCHOR: day7_task6_kill_all_in_solution
    let file = cgroup.join("cgroup.kill");
    if !file.exists() {
        return Ok(false);
    }
    let describe = || (format!("write 1 > {}", file.display()), format!("echo 1 > {}", file.display()));
    step(DAY, describe, || match fs::write(&file, "1") {
        // All in it have ended, and their `run` has just removed it.
        Err(error) if is_gone(&error) => Ok(()),
        outcome => outcome,
    })?;
    Ok(true)
    // ANCHOR_END: day7_task6_kill_all_in_solution
}
// ANCHOR_END: kill

/// Whether somebody else has removed the cgroup: before the file was opened, or since.
fn is_gone(error: &Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

// ANCHOR: remove
/// Removes the cgroup of the container in `dir`, if it is still there, with
/// whoever is still in it. (cgroup-v2, "Creating Processes": one that is empty is
/// removed by rmdir(2))
pub fn remove_cgroup_of(dir: &Path) -> Result<()> {
    let Some(cgroup) = cgroup_of(dir) else { return Ok(()) };
    let remove = || match fs::remove_dir(&cgroup) {
        Err(error) if is_gone(&error) => Ok(()),
        outcome => outcome,
    };
    let describe = || (format!("rmdir({cgroup:?})"), format!("rmdir {}", cgroup.display()));
    step(DAY, describe, || {
        let start = Instant::now();
        loop {
            match remove() {
                // Somebody is in there: a killed run's command, which is about to die; or
                // cgroups of the container's own.
                Err(error) if error.kind() == ErrorKind::ResourceBusy && start.elapsed() < PATIENCE => {
                    let _ = fs::write(cgroup.join("cgroup.kill"), "1");
                    remove_children_of(&cgroup);
                    sleep(A_MOMENT);
                }
                outcome => return outcome,
            }
        }
    })
}

/// Removes what can be removed of the cgroups that the container's root has made
/// below its own: one that has children cannot be removed before them.
fn remove_children_of(cgroup: &Path) {
    let entries = fs::read_dir(cgroup).into_iter().flatten().flatten();
    for child in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_children_of(&child.path());
        let _ = fs::remove_dir(child.path());
    }
}
// ANCHOR_END: remove
