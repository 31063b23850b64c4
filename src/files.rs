//! Files that the kernel makes up while they are read or written: those of /proc, of
//! /sys and of the tree of cgroups.

use std::fs::{File, OpenOptions};
use std::io::{Read, Result, Write};
use std::path::Path;

use nix::sys::statfs::statfs;

/// All bytes of such a file. They need not be UTF-8: paths are among them.
///
/// It says that its size is 0, so `fs::read` would feel its way with reads of 32 bytes.
pub fn read(path: impl AsRef<Path>) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(4096);
    // `take`, for a `File` alone would ask for its size nevertheless, twice.
    File::open(path)?.take(u64::MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes `text` into such a file, all at once. ENOENT means that there is none: `fs::write`
/// would try to make it, and be told EACCES.
pub fn write(path: impl AsRef<Path>, text: &str) -> Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
}

/// Whether this kernel has AppArmor, and it is turned on. (kernel: admin-guide/LSM/apparmor)
pub fn has_apparmor() -> bool {
    read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y"))
}

/// Whether this kernel has SELinux, and it is turned on. By its file system: a directory of that
/// name is on every kernel that was built with it.
pub fn has_selinux() -> bool {
    const SELINUX_MAGIC: u32 = 0xf97c_ff8c;
    let dir = Path::new("/sys/fs/selinux");
    statfs(dir).is_ok_and(|found| found.filesystem_type().0 as u32 == SELINUX_MAGIC)
        && dir.join("status").exists()
}
