//! Day 3: this program's own file, and where it must not be started.
//!
//! A container chooses what its command is. One that is a link to `/proc/self/exe`, or a script
//! whose first line is `#!/proc/self/exe`, has the kernel execute once more what the child is at
//! that moment: the *host's* file of this program, inside, with the container's arguments. Were
//! it to do there what they say, it would start somebody who opens that file, by `/proc/PID/exe`,
//! and changes it, or who may do what with it. (CVE-2019-5736; day 14 has more of it)

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, bail};
use rustix::fs::{AtFlags, CWD, StatVfsMountFlags, StatxFlags, readlinkat, statvfs, statx};
use rustix::io::Errno;
use rustix::path::Arg;

use crate::error::Result;

/// What this process executes, by whatever path it was started. (proc_pid_exe(5))
pub const OWN: &str = "/proc/self/exe";

/// What the kernel adds to the name of a file that has none any more: one that was replaced while
/// it runs, or a copy in memory.
const DELETED: &[u8] = b" (deleted)";

/// Refuses to go on where the file of this program is not at its path: then somebody may have
/// started it in another root, by the link above. On a mount that is read-only it can do no harm.
/// Also where that cannot be found out: a container can be under a filter that refuses to tell.
pub fn require_own_root() -> Result<()> {
    is_at_its_path().with_context(|| {
        format!(
            "is this a start by {OWN} in a root file system that is not its own? Expected one by its path"
        )
    })
}

fn is_at_its_path() -> Result<()> {
    let path = match readlinkat(CWD, OWN, Vec::new()) {
        Ok(path) => path,
        // Without /proc there is no such link either.
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        Err(errno) => return Err(errno).context("read where it leads"),
    };
    if path.as_bytes().ends_with(DELETED) {
        return Ok(());
    }
    let (own, found) = (place(OWN).context("look at this program's file")?, place(path.as_c_str()));
    if found == Ok(own) || statvfs(OWN)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(());
    }
    let path = Path::new(OsStr::from_bytes(path.as_bytes()));
    match found {
        Err(errno) => Err(errno).with_context(|| format!("this program's file is not at {path:?}")),
        Ok(_) => bail!("another file is at {path:?}, where this program's was"),
    }
}

/// Which file of which mount it is. (statx(2), STATX_MNT_ID)
fn place(path: impl Arg) -> rustix::io::Result<(u32, u32, u64, u64)> {
    let found = statx(CWD, path, AtFlags::empty(), StatxFlags::INO | StatxFlags::MNT_ID)?;
    Ok((found.stx_dev_major, found.stx_dev_minor, found.stx_ino, found.stx_mnt_id))
}
