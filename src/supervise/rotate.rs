//! Day 14: `--log-opt`: a log that grows no further than it may.
//!
//! When a file of the log is full, the log goes on in another one, and the oldest is removed:
//!
//! ```text
//! container.log      the first; by now removed
//! container.log.1    ┐
//! container.log.2    ├ max-file=3: so many are kept
//! container.log.3    ┘ max-size=10m: no larger. This one is being written
//! ```
//!
//! Files are numbered as they are made, and never renamed. So there is no moment at which a name
//! means another file than before, neither for whoever reads them ([`log_files`](super::log_files)),
//! nor for whoever goes on writing after one who was killed: to go on in another file is one
//! open(2), which has happened or has not.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::{Context, bail};

use crate::container::{Container, Mechanism};
use crate::error::{self, Result};
use crate::explain::{shell, step};
use crate::logs::file::{HEADER, LOG, Log, LogFile, SharedLog, Stream};
use crate::plan::Plan;

use super::DAY;
use super::log_files::{last_bytes, numbers, path_of};

/// The flag of a log.
#[derive(Debug, clap::Args)]
pub struct LogOptions {
    /// How its log is kept: max-size=10m: in files no larger (k, m, g); max-file=3: in so many (else 1)
    #[arg(long = "log-opt", value_name = "NAME=VALUE")]
    log_opt: Vec<String>,
}

impl Mechanism for LogOptions {
    fn prepare(&mut self, container: &mut Container) -> Result<()> {
        for option in &self.log_opt {
            let Some((name, value)) = option.split_once('=') else {
                bail!("--log-opt {option:?}: expected NAME=VALUE, such as max-size=10m or max-file=3");
            };
            container.plan.log_options.insert(name.into(), value.into());
        }
        Limits::of(&container.plan.log_options).map(drop)
    }
}

/// How much of a log is kept.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Limits {
    /// The most bytes that a file has; `None`: as many as come.
    size: Option<u64>,
    /// The most files there are.
    files: u64,
}

impl Limits {
    // ANCHOR: limits
    /// What `options` ask for, in Docker's words. There `max-file` is 1 if nobody says anything
    /// else, and means nothing without `max-size`.
    fn of(options: &BTreeMap<String, String>) -> Result<Limits> {
        let mut limits = Limits { size: None, files: 1 };
        for (name, value) in options {
            match name.as_str() {
                "max-size" => limits.size = Some(size(value)?),
                "max-file" => match value.parse() {
                    Ok(0) => bail!("--log-opt max-file={value}: max-file cannot be less than 1"),
                    Ok(files) => limits.files = files,
                    Err(_) => {
                        bail!("--log-opt max-file={value:?}: expected how many files are kept, such as 3")
                    }
                },
                _ => bail!(
                    "unknown log opt {name:?}; expected max-size, such as max-size=10m, or max-file, such as max-file=3"
                ),
            }
        }
        Ok(limits)
    }
    // ANCHOR_END: limits
}

/// The size that `text` means, in bytes. Here, unlike for memory, Docker counts in thousands.
fn size(text: &str) -> Result<u64> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let power = match lower[digits.len()..].strip_suffix('b').unwrap_or(&lower[digits.len()..]) {
        "" => Some(0),
        "k" => Some(1),
        "m" => Some(2),
        "g" => Some(3),
        "t" => Some(4),
        _ => None,
    };
    let number = digits.trim_end().parse::<f64>().ok().filter(|number| number.is_finite());
    let (Some(number), Some(power)) = (number, power) else {
        bail!("--log-opt max-size={text:?}: expected a size such as 10m: a number, and k, m or g");
    };
    match (number * 1000_f64.powi(power)) as u64 {
        0 => bail!("--log-opt max-size={text}: max-size must be a positive number"),
        bytes => Ok(bytes),
    }
}

/// A log in several files, which is being written.
#[derive(Debug)]
struct RotatedLog {
    dir: PathBuf,
    limits: Limits,
    /// The file that is being written, and its number.
    log: LogFile,
    number: u64,
    /// Whether the user has been told that the log cannot go on in another file.
    told: bool,
}

/// Makes the log of a container with this directory and this plan, or goes on in it: as it was
/// left, also by a supervisor that was killed.
pub fn open(dir: &Path, plan: &Plan) -> Result<SharedLog> {
    let limits = Limits::of(&plan.log_options)?;
    let number = match limits.size {
        None => 0,
        Some(_) => numbers(dir)?.pop().unwrap_or(0),
    };
    let path = path_of(dir, number);
    let log = LogFile::create(&path)?;
    if log.length()? > 0 {
        end_the_last_entry(&path).with_context(|| format!("go on in {path:?}"))?;
    }
    if limits.size.is_none() {
        return Ok(Arc::new(Mutex::new(log)));
    }
    Ok(Arc::new(Mutex::new(RotatedLog { dir: dir.into(), limits, log, number, told: false })))
}

impl Log for RotatedLog {
    // ANCHOR: append
    /// Writes down as many whole lines as the file has room for, then goes on in another one. A
    /// line that is longer than a file may be has one for itself.
    fn append(&mut self, stream: Stream, mut bytes: &[u8]) {
        // ANCHOR: day14_task3_append_solution
        while !bytes.is_empty() {
            let mut fitting = fitting(bytes, self.room());
            if fitting == 0 && self.is_begun() && self.go_on() {
                continue;
            }
            if fitting == 0 {
                fitting = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |end| end + 1);
            }
            let (now, later) = bytes.split_at(fitting);
            self.log.append(stream, now);
            bytes = later;
        }
        // ANCHOR_END: day14_task3_append_solution
    }
    // ANCHOR_END: append
}

impl RotatedLog {
    /// How many bytes the file may still grow.
    fn room(&self) -> u64 {
        let length = self.log.length().unwrap_or(0);
        self.limits.size.unwrap_or(u64::MAX).saturating_sub(length)
    }

    fn is_begun(&self) -> bool {
        self.log.length().is_ok_and(|length| length > 0)
    }

    /// Goes on in another file; returns whether it does. If it cannot, the one there is grows: a
    /// log that is too large is better than one with a gap.
    fn go_on(&mut self) -> bool {
        let outcome = self.rotate();
        if let Err(error) = &outcome
            && !std::mem::replace(&mut self.told, true)
        {
            error::say(format_args!("{LOG} grows beyond its max-size: {error:#}"));
        }
        outcome.is_ok()
    }

    // ANCHOR: rotate
    /// Makes the next file and writes into it, and removes those that are too many. What is too
    /// old goes first: on a full disk that is where the room comes from. The file that is being
    /// written stays until there is another one, also where only one is kept.
    fn rotate(&mut self) -> Result<()> {
        // ANCHOR: day14_task3_rotate_solution
        self.keep(self.limits.files.saturating_sub(1).max(1))?;
        let next = path_of(&self.dir, self.number + 1);
        let describe = || (format!("open({next:?}, O_CREAT | O_APPEND)"), format!("exec >>{}", shell(&next)));
        self.log.go_on_in(step(DAY, describe, || LogFile::create(&next))?);
        self.number += 1;
        self.keep(self.limits.files)
        // ANCHOR_END: day14_task3_rotate_solution
    }
    // ANCHOR_END: rotate

    /// Removes all files but the newest `count`. The bytes of one that somebody still reads stay
    /// until that is closed. (unlink(2))
    fn keep(&self, count: u64) -> Result<()> {
        let numbers = numbers(&self.dir)?;
        let too_many = numbers.len().saturating_sub(usize::try_from(count).unwrap_or(usize::MAX));
        for number in &numbers[..too_many] {
            let path = path_of(&self.dir, *number);
            step(
                DAY,
                || (format!("unlink({path:?})"), format!("rm {}", shell(&path))),
                || fs::remove_file(&path),
            )?;
        }
        Ok(())
    }
}

// ANCHOR: fitting
/// How many of `bytes` have room in a log for `room` bytes: as many whole lines as possible, and
/// of each its header and its end count as well.
fn fitting(bytes: &[u8], mut room: u64) -> usize {
    // ANCHOR: day14_task3_fitting_solution
    let mut fitting = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let end = usize::from(!line.ends_with(b"\n"));
        let Some(left) = room.checked_sub((HEADER + line.len() + end) as u64) else { break };
        fitting += line.len();
        room = left;
    }
    fitting
    // ANCHOR_END: day14_task3_fitting_solution
}
// ANCHOR_END: fitting

// ANCHOR: end_the_last_entry
/// Whoever wrote the log at `path` may have been killed in the middle of an entry. It gets its end
/// of line, or the next entry would be a part of it; if not even its header is whole, it goes.
fn end_the_last_entry(path: &Path) -> io::Result<()> {
    // ANCHOR: day14_task3_end_the_last_entry_solution
    let file = File::options().read(true).append(true).open(path)?;
    let (start, last) = last_bytes(&file)?;
    let entry = last.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    match last.len() - entry {
        0 => Ok(()),
        1..HEADER => file.set_len(start + entry as u64),
        _ => io::Write::write_all(&mut &file, b"\n"),
    }
    // ANCHOR_END: day14_task3_end_the_last_entry_solution
}
// ANCHOR_END: end_the_last_entry

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(options: &[(&str, &str)]) -> Result<Limits> {
        Limits::of(&options.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect())
    }

    #[test]
    fn options_are_dockers() {
        for (text, bytes) in
            [("10m", 10_000_000), ("1k", 1000), ("1.5K", 1500), ("7", 7), ("2gb", 2_000_000_000)]
        {
            let found = limits(&[("max-size", text)]).unwrap();
            assert_eq!(found, Limits { size: Some(bytes), files: 1 }, "{text}");
        }
        for text in ["", "m", "0", "-1", "0k", "1x", "1kk", "inf", "nan", "k1"] {
            assert!(limits(&[("max-size", text)]).is_err(), "{text:?} is no size of a log");
        }
        assert_eq!(limits(&[("max-file", "3")]).unwrap(), Limits { size: None, files: 3 }, "max-file alone");
        for text in ["", "0", "-1", "1.5", "many"] {
            assert!(limits(&[("max-file", text)]).is_err(), "{text:?} is no number of files");
        }
        assert!(limits(&[("compress", "true")]).is_err(), "an option that is not there");
    }

    #[test]
    fn whole_lines_fit() {
        let line = HEADER as u64 + 2;
        for (bytes, room, expected) in [
            (&b"a\nb\nc\n"[..], 3 * line, 6),
            (b"a\nb\nc\n", 3 * line - 1, 4),
            (b"a\nb\nc\n", line - 1, 0),
            (b"a\nb", 2 * line, 3),
            (b"a\nb", 2 * line - 1, 2),
            (b"", 0, 0),
        ] {
            assert_eq!(fitting(bytes, room), expected, "{bytes:?} in {room}");
        }
    }

    #[test]
    fn what_a_killed_writer_left_is_ended() {
        let entry = "2026-11-23T10:00:00.000000000Z stdout F hello";
        let whole = format!("{entry}\n");
        for (left, expected) in [
            (whole.clone(), whole.clone()),
            (format!("{whole}{entry}"), format!("{whole}{whole}")),
            (format!("{whole}2026-11-23T10"), whole.clone()),
            ("2026".into(), String::new()),
            (entry[..40].into(), format!("{}\n", &entry[..40])),
        ] {
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(file.path(), &left).unwrap();
            end_the_last_entry(file.path()).unwrap();
            assert_eq!(fs::read_to_string(file.path()).unwrap(), expected, "{left:?}");
        }
    }
}
