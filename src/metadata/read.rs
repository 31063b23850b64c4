//! Day 4: reading a record, with suspicion: a file may be anything.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, bail};
use jiff::Timestamp;

use crate::error::Result;
use crate::metadata::layout::{BEFORE, LOCK, LONGEST, RECORD, is_id};
use crate::metadata::record::{Brief, Record, Status, VERSION};

/// What is known of the container whose directory is `dir`; `None`: there is none.
///
/// Of a container whose record cannot be read the rest is still true: it has an id, and
/// its owner has written into the lock what `stop`, `kill` and `rm` need to know.
pub fn known(dir: &Path) -> Result<Option<Record>> {
    let error = match read(dir, RECORD) {
        Ok(record) => return Ok(Some(record)),
        Err(error) => error,
    };
    if is_ours(&error) {
        return Err(error).with_context(|| format!("look at {dir:?}"));
    }
    match fs::symlink_metadata(dir) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("look at {dir:?}")),
    }
    // A power cut takes the newest record at most. The one before was on the disk.
    if is_torn(&error)
        && let Ok(before) = read(dir, BEFORE)
    {
        return Ok(Some(before));
    }
    let id = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let brief = match read_brief(dir) {
        Err(error) if is_ours(&error) => return Err(error).with_context(|| format!("look at {dir:?}")),
        Err(_) => Brief { created_at: changed(dir), ..Brief::default() },
        Ok(brief) => brief,
    };
    // If it has a lock, that decides whether it runs, for whoever looks closer.
    let has_lock = brief.pid.is_some() || fs::symlink_metadata(dir.join(LOCK)).is_ok();
    let status = if has_lock { Status::Running } else { Status::Exited };
    Ok(Some(Record { status, ..Record::unreadable(id, brief, format!("{error:#}")) }))
}

/// Is that an error of this process, which has too many files open, say, and no news about
/// the file? Then nobody can tell what is in it.
fn is_ours(error: &anyhow::Error) -> bool {
    let errno = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
    matches!(errno, Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
}

/// Is that the error of a file that has an end too early, or other bytes than text: as a
/// file is whose content did not reach the disk?
fn is_torn(error: &anyhow::Error) -> bool {
    error.downcast_ref::<serde_json::Error>().is_some_and(|error| error.is_eof() || error.is_syntax())
}

/// When something in `dir` was last made or renamed.
fn changed(dir: &Path) -> Timestamp {
    let changed = fs::metadata(dir).and_then(|found| found.modified());
    changed.ok().and_then(|time| Timestamp::try_from(time).ok()).unwrap_or_default()
}

fn read_brief(dir: &Path) -> Result<Brief> {
    Ok(serde_json::from_slice(&bytes(dir, LOCK)?)?)
}

// ANCHOR: read
/// The record in `dir` that is called `name`. All of it, or an error: a file that is
/// empty, cut off, or full of zeros is not JSON.
fn read(dir: &Path, name: &str) -> Result<Record> {
    // ANCHOR: day4_task2_read_solution
    if !is_id(dir.file_name()) {
        bail!("not a container: expected a directory named by 12 hexadecimal digits");
    }
    let text = bytes(dir, name)?;
    let record = match Record::parse(&text) {
        Ok(record) => record,
        Err(error) => match serde_json::from_slice(&text) {
            Ok(Version { version }) if version > VERSION => bail!(
                "{name} has version {version}, and this tiny-docker knows up to {VERSION}; use the newer one"
            ),
            _ => return Err(error).with_context(|| format!("{name} is no record")),
        },
    };
    if record.version > VERSION {
        bail!(
            "{name} has version {}, and this tiny-docker knows up to {VERSION}; use the newer one",
            record.version
        );
    }
    if dir.file_name() != Some(OsStr::new(&record.id)) {
        bail!("{name} is the record of container {}", record.id);
    }
    Ok(record)
    // ANCHOR_END: day4_task2_read_solution
}
// ANCHOR_END: read

// ANCHOR: bytes
/// What is in the file `name` of a container's directory, if it is a file of ours. Opening
/// a FIFO would wait until somebody writes (O_NONBLOCK does not), and a link leads
/// elsewhere (O_NOFOLLOW). All questions go to what was *opened*: by now the name may mean
/// something else. (open(2))
fn bytes(dir: &Path, name: &str) -> Result<Vec<u8>> {
    // ANCHOR: day4_task2_bytes_solution
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(dir.join(name))
        .with_context(|| format!("open {name}"))?;
    let metadata = file.metadata().with_context(|| format!("look at {name}"))?;
    if !metadata.is_file() {
        bail!("{name} is not a file");
    }
    let us = rustix::process::geteuid().as_raw();
    if metadata.uid() != us {
        bail!("{name} belongs to user {}, and would be believed only from user {us}", metadata.uid());
    }
    if metadata.len() > LONGEST {
        bail!("{name} has {} bytes, and no record has more than {LONGEST}", metadata.len());
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize + 1);
    file.take(LONGEST).read_to_end(&mut bytes).with_context(|| format!("read {name}"))?;
    Ok(bytes)
    // ANCHOR_END: day4_task2_bytes_solution
}
// ANCHOR_END: bytes

/// The one field that a record of any version has.
#[derive(serde::Deserialize)]
struct Version {
    version: u32,
}
