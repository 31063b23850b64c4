//! Day 17: where a person's namespaces are written down.

use std::env;
use std::fs::{self, DirBuilder, File};
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::PathBuf;

use anyhow::{Context, bail};

use crate::error::Result;
use crate::metadata::pidfd::Process;
use crate::metadata::record::Identity;

/// Which process holds them.
pub const FILE: &str = "namespaces";

/// The one that holds the user namespace that this process is in; `None`: another program has made it.
pub fn of_this_namespace() -> Result<Option<Process>> {
    let Ok(mut file) = File::open(dir_of_this_namespace()?.join(FILE)) else { return Ok(None) };
    let Some(process) = written_in(&mut file)? else { return Ok(None) };
    let users = |pid: &str| fs::metadata(format!("/proc/{pid}/ns/user")).map(|found| found.ino()).ok();
    let is_ours = users("self").is_some() && users("self") == users(&process.pid.to_string());
    Ok(is_ours.then_some(process))
}

/// Where the person is known whose namespaces we are in.
pub fn dir_of_this_namespace() -> Result<PathBuf> {
    let map = fs::read_to_string("/proc/self/uid_map").context("read /proc/self/uid_map")?;
    // Inside, outside, count: the first is root inside.
    let uid = map.split_whitespace().nth(1).and_then(|number| number.parse().ok());
    Ok(path_of_run_dir(uid.context("/proc/self/uid_map is empty")?))
}

/// The process that is written in `file`, if it lives.
pub fn written_in(file: &mut File) -> Result<Option<Process>> {
    let mut text = Vec::new();
    file.take(4096).read_to_end(&mut text).context("read which process holds the namespaces")?;
    // None yet; or whoever wrote it was killed.
    let Ok(identity) = serde_json::from_slice::<Identity>(&text) else { return Ok(None) };
    identity.process()
}

fn path_of_run_dir(uid: u32) -> PathBuf {
    let named = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    match named {
        Some(dir) => dir.join("tiny-docker"),
        None => PathBuf::from(format!("/tmp/tiny-docker-{uid}")),
    }
}

/// A directory of the person `uid` alone. In /tmp anybody may have made it before.
pub fn run_dir(uid: u32) -> Result<PathBuf> {
    let dir = path_of_run_dir(uid);
    match DirBuilder::new().mode(0o700).create(&dir) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        made => made.with_context(|| format!("make {dir:?}"))?,
    }
    let found = fs::symlink_metadata(&dir).with_context(|| format!("look at {dir:?}"))?;
    if !found.is_dir() || found.uid() != uid || found.mode() & 0o077 != 0 {
        bail!(
            "{dir:?} is not a directory for you alone; expected one of mode 700, or XDG_RUNTIME_DIR elsewhere"
        );
    }
    Ok(dir)
}
