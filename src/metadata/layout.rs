//! Day 4: what the files of the state directory are called, and how they are made.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use anyhow::Context;

use crate::error::Result;
use crate::explain::step;

/// Of the narration.
pub const DAY: u8 = 4;

/// Where a record is, in its container's directory.
pub const RECORD: &str = "config.json";

/// Where the one before the last is.
pub const BEFORE: &str = "config.json.before";

/// No record is longer, in bytes: the writer refuses to make one, so the reader can refuse
/// to read one. The kernel gives a command at most 6 MiB of arguments and environment, and
/// the least readable byte of it takes 14 in JSON. (execve(2), "Limits on size")
pub const LONGEST: u64 = 128 << 20;

/// What its owner has locked. A file, and not the directory: the child has what
/// is open here open as well, up to its exec, and an open directory of the host
/// would be a way out of the container. (CVE-2024-21626)
pub const LOCK: &str = "lock";

/// Is this the name of a container's directory?
pub fn is_id(name: Option<&OsStr>) -> bool {
    let digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    name.is_some_and(|name| name.len() == 12 && name.as_encoded_bytes().iter().all(digit))
}

/// The state directory, in which the container's directory `dir` lies.
pub fn root_of(dir: &Path) -> Result<&Path> {
    dir.ancestors().nth(2).context("the container's directory has no parent")
}

/// Opens the file `path` to be locked, and makes it if need be. What is in it does not
/// matter. (flock(2))
pub fn open_to_lock(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Makes the directory `dir`, for us alone, if it is not there.
pub fn make_private(dir: &Path) -> Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let describe = || (format!("mkdir({dir:?}, 0o700)"), format!("mkdir -p -m 700 {}", dir.display()));
    step(DAY, describe, || DirBuilder::new().recursive(true).mode(0o700).create(dir))
}
