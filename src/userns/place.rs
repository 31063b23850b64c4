//! Day 17: where a person's namespaces are written down.
//!
//! ```text
//! ~/.local/share/tiny-docker/namespaces      which process holds them; locked by whoever makes one
//!                            network.sock    by which slirp4netns takes orders
//!                            containers/ …   the state directory of days 4 and on
//! ```
//!
//! One place for all commands of a person, wherever they are typed, with `--root` or without. So it is not
//! XDG_RUNTIME_DIR: somebody who is logged in has that one, and the same person's cron job has not.

use std::env;
use std::fs::{self, DirBuilder, File};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::PathBuf;

use anyhow::{Context, bail};
use nix::unistd::{Uid, User, geteuid};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::metadata::pidfd::Process;
use crate::metadata::record::{Identity, boot_id};

/// Which process holds them.
pub const FILE: &str = "namespaces";

/// What is in it.
#[derive(Debug, Serialize, Deserialize)]
struct Written {
    /// The process.
    #[serde(flatten)]
    holder: Identity,
    /// Of which boot: a home outlives it, and numbers are given again.
    boot_id: String,
}

/// Where a person's containers are, and all that is said of them. (XDG Base Directory Specification)
pub fn data_dir() -> Result<PathBuf> {
    let named = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || named("HOME").or_else(|| Some(User::from_uid(geteuid()).ok()??.dir));
    let data = named("XDG_DATA_HOME").or_else(|| Some(home()?.join(".local/share")));
    let data = data.context(
        "there is no place for containers: XDG_DATA_HOME and HOME are empty; expected one of them, an absolute path",
    )?;
    Ok(data.join("tiny-docker"))
}

/// The same, for the person `uid` alone, and made if it is not there.
pub fn private_data_dir(uid: Uid) -> Result<PathBuf> {
    let dir = data_dir()?;
    DirBuilder::new().recursive(true).mode(0o700).create(&dir).with_context(|| format!("make {dir:?}"))?;
    let found = fs::metadata(&dir).with_context(|| format!("look at {dir:?}"))?;
    if found.uid() != uid.as_raw() || found.mode() & 0o077 != 0 {
        bail!(
            "{dir:?} is user {}'s, with mode {:o}; expected a directory for you alone (user {uid}, mode 700)",
            found.uid(),
            found.mode() & 0o7777
        );
    }
    Ok(dir)
}

/// The process that holds the user namespace that this process is in; `None`: another program has made it.
pub fn of_this_namespace() -> Result<Option<Process>> {
    let Ok(mut file) = data_dir().and_then(|dir| Ok(File::open(dir.join(FILE))?)) else { return Ok(None) };
    let Some(process) = read(&mut file)? else { return Ok(None) };
    let users = |pid: &str| fs::metadata(format!("/proc/{pid}/ns/user")).map(|found| found.ino()).ok();
    let is_ours = users("self").is_some() && users("self") == users(&process.pid.to_string());
    Ok(is_ours.then_some(process))
}

/// The process that is written in `file`, if it lives.
pub fn read(file: &mut File) -> Result<Option<Process>> {
    let mut text = Vec::new();
    file.take(4096).read_to_end(&mut text).context("read which process holds the namespaces")?;
    // None yet; or whoever wrote it was killed.
    let Ok(written) = serde_json::from_slice::<Written>(&text) else { return Ok(None) };
    if written.boot_id == boot_id()? { written.holder.process() } else { Ok(None) }
}

/// Writes it there.
pub fn write(file: &mut File, holder: Identity) -> Result<()> {
    let text = serde_json::to_vec(&Written { holder, boot_id: boot_id()?.into() })?;
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| file.write_all(&text))
        .context("write which process holds the namespaces")
}
