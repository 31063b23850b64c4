//! Day 3: this program's own file, and where it must not be started.
//!
//! A container chooses what its command is. One that is a link to `/proc/self/exe`, or a script
//! whose first line is `#!/proc/self/exe`, has the kernel execute once more what the child is at
//! that moment: the *host's* file of this program, inside, with the container's arguments. Were
//! it to do there what they say, it would start somebody who opens that file, by `/proc/PID/exe`,
//! and changes it, or who may do what with it. (CVE-2019-5736; day 14 has more of it)

use anyhow::bail;
use rustix::fs::{AtFlags, CWD, StatVfsMountFlags, StatxFlags, readlinkat, statvfs, statx};
use rustix::path::Arg;

use crate::error::Result;

/// What this process executes, by whatever path it was started. (proc_pid_exe(5))
pub const OWN: &str = "/proc/self/exe";

/// What the kernel adds to the name of a file that has none any more: one that was replaced while
/// it runs, or a copy in memory.
const DELETED: &[u8] = b" (deleted)";

/// Refuses to go on where the file of this program is not at its path: then somebody has started
/// it in another root, by the link above. On a mount that is read-only it can do no harm.
pub fn require_own_root() -> Result<()> {
    // Without /proc there is no such link either.
    let Ok(path) = readlinkat(CWD, OWN, Vec::new()) else { return Ok(()) };
    if path.as_bytes().ends_with(DELETED) || place(path.as_c_str()) == place(OWN) {
        return Ok(());
    }
    if statvfs(OWN).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY)) {
        return Ok(());
    }
    bail!(
        "this program was started by {OWN} in a root file system that is not its own, where it has no business; \
         expected a start by its path"
    )
}

/// Which file of which mount it is. (statx(2), STATX_MNT_ID)
fn place(path: impl Arg) -> Option<(u32, u32, u64, u64)> {
    let found = statx(CWD, path, AtFlags::empty(), StatxFlags::INO | StatxFlags::MNT_ID).ok()?;
    Some((found.stx_dev_major, found.stx_dev_minor, found.stx_ino, found.stx_mnt_id))
}
