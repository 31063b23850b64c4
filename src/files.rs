//! Files that the kernel makes up while they are read or written: those of /proc, of
//! /sys and of the tree of cgroups.

use std::fs::{File, OpenOptions};
use std::io::{Read, Result, Write};
use std::path::Path;

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
