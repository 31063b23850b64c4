//! Day 4, for day 14: a person has ended a container. That is noted in its directory *before* the
//! signal: whoever looks after it, and would start it again, sees it end at that moment, and must
//! know why. What is noted stays until somebody starts it.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use nix::sys::signal::Signal;

use crate::error::Result;
use crate::metadata::layout::DAY;
use crate::metadata::record::{Record, Status};
use crate::metadata::state::State;

/// The note, in the container's directory: `stop 15`, for whoever watches.
pub const NOTE: &str = "ended";

/// Ends the wait of a `run` that is about to start its container again. (It means nothing to one
/// that does not wait.)
pub const WAKE: Signal = Signal::SIGURG;

/// Notes that a person is about to end the container of `record`, by `command` and with the signal
/// of this number. It is an error if that cannot be noted, and it would be started again.
pub fn note(state: &State, record: &Record, command: &str, signal: i32) -> Result<()> {
    let path = state.dir(&record.id).join(NOTE);
    let mut opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
    // That it is there is what counts. On a disk that is full it stays empty.
    if let Ok(note) = &mut opened {
        let _ = note.write_all(format!("{command} {signal}\n").as_bytes());
    }
    match opened {
        Err(error) if error.kind() != ErrorKind::NotFound && !record.plan.restart.is_no() => Err(error)
            .with_context(|| {
                format!("note in {path:?} that container {} is not to be started again", record.title())
            }),
        // Removed meanwhile; or the disk is full, and nobody asks.
        Err(_) => Ok(()),
        // Whoever is about to start it again looks, before it waits. If it waits already, that is
        // in the record by now.
        Ok(_) => state.read(&record.id).map_or(Ok(()), |record| wake(&record)),
    }
}

fn wake(record: &Record) -> Result<()> {
    let waits = record.owner.filter(|_| record.status == Status::Restarting && record.is_visible().is_ok());
    match waits.map(|owner| owner.process()).transpose()?.flatten() {
        Some(owner) => owner.signal(DAY, WAKE as i32),
        None => Ok(()),
    }
}

/// Has a person ended the container in `dir`? Where nobody can tell, the container that is not
/// wanted counts for worse than the one that does not run.
pub fn is_noted(dir: &Path) -> bool {
    !fs::symlink_metadata(dir.join(NOTE)).is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

/// By which command a person has ended the container in `dir`, and with which signal; `None`:
/// nobody has, or nobody can tell.
pub fn by_what(dir: &Path) -> Option<(String, i32)> {
    let mut text = String::new();
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let note = OpenOptions::new().read(true).custom_flags(flags).open(dir.join(NOTE)).ok()?;
    note.take(64).read_to_string(&mut text).ok()?;
    let (command, signal) = text.trim_end().split_once(' ')?;
    Some((command.into(), signal.parse().ok()?))
}

/// Somebody starts the container in `dir`.
pub fn forget(dir: &Path) -> Result<()> {
    match fs::remove_file(dir.join(NOTE)) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {:?}", dir.join(NOTE)))
        }
        _ => Ok(()),
    }
}
