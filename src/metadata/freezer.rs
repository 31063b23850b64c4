//! Day 4, for day 14: whether a container is held up. All that is in a cgroup can be: the kernel
//! takes it off the processors at the next moment it would return to its program, until it is
//! told otherwise. What is asked for is in `cgroup.freeze`, and what is so in `cgroup.events`.
//! (kernel: admin-guide/cgroup-v2, "cgroup.freeze")
//!
//! Nobody writes down that a container is paused: the kernel knows, and is asked. So there is no
//! moment at which a command that is killed leaves something untrue.

use std::io::ErrorKind;
use std::path::Path;

use crate::error::Result;
use crate::explain::{shell, step};
use crate::files;
use crate::metadata::traces::cgroup_of;

/// What is asked for.
pub const FREEZE: &str = "cgroup.freeze";

/// Is `cgroup` to be frozen?
pub fn is_frozen(cgroup: &Path) -> bool {
    files::read(cgroup.join(FREEZE)).is_ok_and(|asked| asked.starts_with(b"1"))
}

/// Is the container in `dir` paused? One without a cgroup never is.
pub fn is_paused(dir: &Path) -> bool {
    cgroup_of(dir).ok().flatten().is_some_and(|cgroup| is_frozen(&cgroup))
}

/// Lets all that is in `cgroup` go on. `day` is the caller's, for the narration.
pub fn thaw(day: u8, cgroup: &Path) -> Result<()> {
    let file = cgroup.join(FREEZE);
    let describe = || (format!("write 0 > {}", file.display()), format!("echo 0 > {}", shell(&file)));
    step(day, describe, || match files::write(&file, "0") {
        // All in it have ended, and it was removed.
        Err(error) if error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV) => {
            Ok(())
        }
        outcome => outcome,
    })
}

/// The same for the container in `dir`, if it is paused: it has just got a signal, which would
/// wait for that. (SIGKILL alone does not.)
pub fn let_act(day: u8, dir: &Path) -> Result<()> {
    match cgroup_of(dir)?.filter(|cgroup| is_frozen(cgroup)) {
        Some(cgroup) => thaw(day, &cgroup),
        None => Ok(()),
    }
}
