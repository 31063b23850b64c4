//! Day 4, for day 7: what a container has that does not end with its processes,
//! its cgroup. The kernel keeps that until somebody removes it.
//!
//! It is noted in the container's directory *before* it is made. So whoever finds
//! what a killed `run` left there knows all that is left elsewhere.

use std::ffi::{CString, OsString};
use std::fs;
use std::io::{Error, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Instant;

use anyhow::Context;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, open, openat, unlinkat};
use rustix::io::Errno;

use crate::error::Result;
use crate::explain::{shell, step};
use crate::files;
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

/// The cgroup of the container in `dir`; `None`: it has none, or none any more. An error:
/// nobody can tell.
pub fn cgroup_of(dir: &Path) -> Result<Option<PathBuf>> {
    let note = dir.join(NOTE);
    let path = match files::read(&note) {
        // Its run was killed before it wrote the note, and so before it made the cgroup.
        Ok(path) if path.is_empty() => return Ok(None),
        Ok(path) => PathBuf::from(OsString::from_vec(path)),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(error).with_context(|| format!("read {note:?}, which says where its cgroup is"));
        }
    };
    let is_there = path.try_exists().with_context(|| format!("look at the cgroup {path:?}"))?;
    Ok(is_there.then_some(path))
}

// ANCHOR: kill_all
/// SIGKILL. From day 7 on to all that is in the cgroup of the container in `dir`, at
/// once; before, to its PID 1, whose end is the end of the others. So it is also where
/// nobody can tell which cgroup it has, or may not write there.
pub fn kill_all(day: u8, dir: &Path, process: &Process) -> Result<()> {
    match cgroup_of(dir) {
        Ok(Some(cgroup)) if kill_all_in(&cgroup).unwrap_or(false) => Ok(()),
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
    if !file.try_exists()? {
        return Ok(false);
    }
    let describe = || (format!("write 1 > {}", file.display()), format!("echo 1 > {}", shell(&file)));
    step(DAY, describe, || match files::write(&file, "1") {
        // All in it have ended, and their `run` has just removed it.
        Err(error) if is_gone(&error) => Ok(()),
        outcome => outcome,
    })?;
    Ok(true)
    // ANCHOR_END: day7_task6_kill_all_in_solution
}
// ANCHOR_END: kill

fn is_busy(error: &Error) -> bool {
    error.kind() == ErrorKind::ResourceBusy
}

/// Whether somebody else has removed the cgroup: before the file was opened, or since.
fn is_gone(error: &Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

// ANCHOR: remove
/// Removes the cgroup of the container in `dir`, if it is still there, with
/// whoever is still in it.
pub fn remove_cgroup_of(dir: &Path) -> Result<()> {
    cgroup_of(dir)?.map_or(Ok(()), |cgroup| remove_cgroup(&cgroup))
}

/// Removes `cgroup`, with all cgroups that the container's root has made below it.
/// (cgroup-v2, "Creating Processes": one that is empty is removed by rmdir(2))
pub fn remove_cgroup(cgroup: &Path) -> Result<()> {
    let describe = || (format!("rmdir({cgroup:?})"), format!("rmdir {}", shell(cgroup)));
    step(DAY, describe, || {
        let start = Instant::now();
        loop {
            match fs::remove_dir(cgroup).or_else(|_| remove_tree(cgroup)) {
                // Somebody is in there: a killed run's command, which is about to die. Or somebody
                // else is removing it too, and has taken away what we were about to.
                Err(error) if is_busy(&error) || is_gone(&error) => {
                    if !cgroup.try_exists()? {
                        return Ok(());
                    }
                    if start.elapsed() > PATIENCE {
                        return Err(error);
                    }
                    let _ = files::write(cgroup.join("cgroup.kill"), "1");
                    sleep(A_MOMENT);
                }
                outcome => return outcome,
            }
        }
    })
}

/// Removes `cgroup` and all below it, from the leaves up: one that has children cannot be
/// removed before them. There may be more levels than a path can be long, or a stack deep;
/// so it goes from each to the next by descriptor, and remembers the names.
fn remove_tree(cgroup: &Path) -> std::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut here = open(cgroup, flags, Mode::empty())?;
    let mut names: Vec<CString> = Vec::new();
    loop {
        match remove_children_of(&here)? {
            Some(child) => {
                here = openat(&here, &child, flags, Mode::empty())?;
                names.push(child);
            }
            None => {
                let Some(name) = names.pop() else { return fs::remove_dir(cgroup) };
                here = openat(&here, c"..", flags, Mode::empty())?;
                unlinkat(&here, &name, AtFlags::REMOVEDIR)?;
            }
        }
    }
}

/// Removes the cgroups in `dir` that are leaves. Returns one that is none, if there is any.
fn remove_children_of(dir: &OwnedFd) -> std::io::Result<Option<CString>> {
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type() != FileType::Directory || name == c"." || name == c".." {
            continue;
        }
        match unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            // It has children; or somebody is in it, and then it has none.
            Err(Errno::BUSY) => return Ok(Some(name.to_owned())),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}
// ANCHOR_END: remove
