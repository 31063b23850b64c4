//! Day 14: this program's own file, and why a container cannot write to it.
//!
//! A container chooses what its programs are. One that is a link to /proc/self/exe, or a script
//! whose first line is `#!/proc/self/exe`, has the kernel execute once more what the process is
//! at that moment: this program. From then on any process in there can open it by /proc/PID/exe,
//! wait until nobody executes it any more, and write to it. The next one who starts it on the
//! host starts the container's code, as root. (CVE-2019-5736)
//!
//! That is a matter of the mount by which the file was reached, and a mount can be read-only.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use anyhow::Context;
use nix::sys::prctl::set_name;
use nix::unistd::{fexecve, geteuid};
use rustix::fs::{SealFlags, StatVfsMountFlags, fcntl_get_seals, statvfs};

use crate::error::Result;
use crate::explain::step;
use crate::kernel;
use crate::rootfs::mount::{READ_ONLY, take};
use crate::rootfs::own_file::OWN;
use crate::stop::init::sealed_program;

const DAY: u8 = 14;

/// For `exec`, before anybody has looked at its flags: this program would only look at them again.
/// Where `exec` is not the first word, or where this fails, `exec` itself comes to it. (Whoever is not root
/// may make no mount, and from day 17 on begins anew, by this program's path.)
pub fn before_the_flags() {
    if geteuid().is_root() && std::env::args_os().nth(1).is_some_and(|word| word == "exec") {
        let _ = go_on_read_only();
    }
}

// ANCHOR: read_only
/// Goes on as the same program, with the same arguments, on a mount of its file that is
/// read-only and attached nowhere. Where it is so already, it goes on as it is.
pub fn go_on_read_only() -> Result<()> {
    // ANCHOR: day14_task1_go_on_read_only_solution
    if cannot_be_written()? {
        // The kernel has named this process by its file, which has no name there.
        return set_name(c"tiny-docker").context("name this process");
    }
    let program = read_only_program()?;
    let arguments = std::env::args_os().map(|word| CString::new(word.into_vec()));
    let arguments = arguments.collect::<std::result::Result<Vec<_>, _>>()?;
    let variables = std::env::vars_os()
        .map(|(name, value)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()));
    let variables = variables.collect::<std::result::Result<Vec<_>, _>>()?;
    let describe = || ("execveat(the read-only program)".into(), "exec tiny-docker …".into());
    step(DAY, describe, || fexecve(&program, &arguments, &variables)).map(drop)
    // ANCHOR_END: day14_task1_go_on_read_only_solution
}
// ANCHOR_END: read_only

fn cannot_be_written() -> Result<bool> {
    let found = statvfs(OWN).with_context(|| format!("look at {OWN}"))?;
    if found.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(true);
    }
    let file = File::open(OWN).with_context(|| format!("open {OWN}"))?;
    Ok(fcntl_get_seals(&file).is_ok_and(|seals| seals.contains(SealFlags::WRITE)))
}

/// With its last descriptor, which exec closes, the mount becomes nobody's: from then on not
/// even root in the container can make it writable. (mount_setattr(2), "EINVAL")
fn read_only_program() -> Result<OwnedFd> {
    let Ok(program) = take(DAY, Path::new(OWN)) else {
        // It lies on a mount that is gone, or of another mount namespace: a copy, then.
        return sealed_program();
    };
    let describe = || ("mount_setattr(…, MOUNT_ATTR_RDONLY)".into(), "mount -o remount,bind,ro …".into());
    step(DAY, describe, || kernel::add_mount_flags(program.as_fd(), c"", READ_ONLY.bits()))?;
    Ok(program)
}
