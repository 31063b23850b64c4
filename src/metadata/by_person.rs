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
use crate::metadata::pidfd::Process;
use crate::metadata::record::{Identity, Record, Status};
use crate::metadata::state::State;

/// The note, in the container's directory: `stop 15`, for whoever watches. Of a `restart` there is
/// a second line, which says what process it is.
pub const NOTE: &str = "ended";

/// Ends the wait of a `run` that is about to start its container again: a person has ended it, as
/// the note says, or starts it. (It means nothing to one that does not wait.)
pub const WAKE: Signal = Signal::SIGURG;

/// Notes that a person is about to end the container of `record`, by `command` and with the signal
/// of this number. It is an error if that cannot be noted, and it would be started again.
pub fn note(state: &State, record: &Record, command: &str, signal: i32) -> Result<()> {
    write_note(state, record, &format!("{command} {signal}\n"))
}

/// The same of a person who has this process start it again at once: see [`restarter`].
pub fn note_restart(state: &State, record: &Record, signal: i32) -> Result<()> {
    let this_process = serde_json::to_string(&Identity::of_this_process()?)?;
    write_note(state, record, &format!("stop {signal}\n{this_process}\n"))
}

fn write_note(state: &State, record: &Record, text: &str) -> Result<()> {
    let path = state.dir(&record.id).join(NOTE);
    let mut opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
    // That it is there is what counts. On a disk that is full it stays empty.
    if let Ok(note) = &mut opened {
        let _ = note.write_all(text.as_bytes());
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

/// Wakes the `run` of this container if it waits, and makes no difference otherwise.
pub fn wake(record: &Record) -> Result<()> {
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
    let text = read_note(dir)?;
    let (command, signal) = text.lines().next()?.split_once(' ')?;
    Some((command.into(), signal.parse().ok()?))
}

/// The process that has ended the container in `dir`, or is about to, and then starts it again.
pub fn restarter(dir: &Path) -> Option<Process> {
    let noted: Identity = serde_json::from_str(read_note(dir)?.lines().nth(1)?).ok()?;
    noted.process().ok()?
}

fn read_note(dir: &Path) -> Option<String> {
    let mut text = String::new();
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let note = OpenOptions::new().read(true).custom_flags(flags).open(dir.join(NOTE)).ok()?;
    note.take(256).read_to_string(&mut text).ok()?;
    Some(text)
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
