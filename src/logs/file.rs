//! Day 5: `container.log`, what is in it and how it is written.
//!
//! Each entry is one line of text: when, which stream, whether the line is
//! whole, and the bytes. It is the format that Kubernetes' runtimes write.
//!
//! ```text
//! 2026-11-23T10:00:00.000000000Z stdout F hello
//! 2026-11-23T10:00:00.250000000Z stderr P what comes next has no end of line y
//! 2026-11-23T10:00:00.500000000Z stderr F et
//! ```
//!
//! `F` is a full line, or the last piece of one; `P` a piece that goes on in the
//! next entry of the same stream. So any bytes fit, and come out again as they
//! went in.

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::Context;
use jiff::Timestamp;
use rustix::fs::fstatvfs;

use crate::error::{self, Result};
use crate::plan::Plan;

/// The name of the log in its container's directory.
pub const LOG: &str = "container.log";

/// Bytes of an entry before its content.
pub const HEADER: usize = 40;
/// Where in it the `F` or `P` is.
const TAG: usize = 38;

/// What a log leaves free on the disk, in bytes: how the container ended has to
/// be written there as well.
const RESERVE: u64 = 1 << 20;

/// The stream that a byte was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// File descriptor 1.
    Stdout,
    /// File descriptor 2.
    Stderr,
}

impl Stream {
    /// Its name, as people and the log have it.
    pub fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// What a command's words are written down in. Here it is one file, which grows; day 14 has
/// another one, of several files.
pub trait Log: Debug + Send {
    /// Writes down what the command has just written to `stream`.
    fn append(&mut self, stream: Stream, bytes: &[u8]);
}

/// A log as the pumps have it: one at a time writes.
pub type SharedLog = Arc<Mutex<dyn Log>>;

/// Makes the log of a container with this directory and this plan.
pub type OpenLog = fn(&Path, &Plan) -> Result<SharedLog>;

/// A log in one file, which is being written.
#[derive(Debug)]
pub struct LogFile {
    file: File,
    /// Bytes of output that did not fit on the disk, since the last entry that did.
    lost: usize,
    /// Whether the user has been told that something did not fit.
    told: bool,
}

impl LogFile {
    /// The log of a container that keeps it in one file.
    pub fn of(dir: &Path, _plan: &Plan) -> Result<SharedLog> {
        Ok(Arc::new(Mutex::new(LogFile::create(&dir.join(LOG))?)))
    }

    /// Makes the file `path`, or goes on in it.
    pub fn create(path: &Path) -> Result<LogFile> {
        // O_APPEND: were it truncated, the next entry would still go to its end.
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .with_context(|| format!("make {path:?}"))?;
        Ok(LogFile { file, lost: 0, told: false })
    }

    /// How long it is, in bytes.
    pub fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// From here on writes into the file of `next`. What is missing is still said there. (day 14)
    pub fn go_on_in(&mut self, next: LogFile) {
        self.file = next.file;
    }

    // ANCHOR: append
    /// Writes down what the command has just written to `stream`.
    ///
    /// A full disk is not the command's fault: it runs on, the user is told once,
    /// and where bytes are missing the log says how many.
    pub fn append(&mut self, stream: Stream, bytes: &[u8]) {
        // ANCHOR: day5_task1_append_solution
        let now = format!("{:.9}", Timestamp::now());
        let mut entries = Vec::with_capacity(bytes.len() + 16 * HEADER);
        if self.lost > 0 {
            let gap = format!("tiny-docker: {} bytes of output are missing here\n", self.lost);
            format_entries(&mut entries, &now, Stream::Stderr, gap.as_bytes());
        }
        format_entries(&mut entries, &now, stream, bytes);

        match self.write(&entries) {
            Ok(()) => self.lost = 0,
            Err(error) => {
                if !std::mem::replace(&mut self.told, true) {
                    error::say(format_args!("{LOG}: {error}; the log has a gap from here on"));
                }
                self.lost += bytes.len();
            }
        }
        // ANCHOR_END: day5_task1_append_solution
    }
    // ANCHOR_END: append

    /// Writes all of `entries` or nothing: half an entry would spoil the next.
    fn write(&mut self, entries: &[u8]) -> io::Result<()> {
        // A file system that cannot say how large it is, such as ramfs, says 0.
        let disk = fstatvfs(&self.file).ok().filter(|disk| disk.f_blocks > 0);
        if disk.is_some_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) < RESERVE) {
            return Err(io::Error::other("the last MiB of its disk is kept for the record"));
        }
        let before = self.length()?;
        let written = self.file.write_all(entries);
        if written.is_err() {
            self.file.set_len(before)?;
        }
        written
    }
}

impl Log for LogFile {
    fn append(&mut self, stream: Stream, bytes: &[u8]) {
        LogFile::append(self, stream, bytes);
    }
}

// ANCHOR: format
/// Adds an entry for each line in `bytes`, and one for what is left without an
/// end.
fn format_entries(entries: &mut Vec<u8>, time: &str, stream: Stream, bytes: &[u8]) {
    // ANCHOR: day5_task1_format_entries_solution
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let (tag, content) = match line.strip_suffix(b"\n") {
            Some(content) => ('F', content),
            None => ('P', line),
        };
        for part in [time, " ", stream.name(), if tag == 'F' { " F " } else { " P " }] {
            entries.extend_from_slice(part.as_bytes());
        }
        entries.extend_from_slice(content);
        entries.push(b'\n');
    }
    // ANCHOR_END: day5_task1_format_entries_solution
}
// ANCHOR_END: format

/// One entry of a log.
#[derive(Debug, PartialEq)]
pub struct Entry<'a> {
    /// When it was read from the command: RFC 3339, in UTC, always 30 characters,
    /// so that later is also greater.
    pub time: &'a str,
    /// Where the command wrote it to.
    pub stream: Stream,
    /// Does a line end with it?
    pub full: bool,
    /// The bytes, without the end of the line.
    pub content: &'a [u8],
}

// ANCHOR: parse
/// The entry that `line` is, without its newline. `None`: it is no entry.
pub fn parse(line: &[u8]) -> Option<Entry<'_>> {
    // ANCHOR: day5_task2_parse_solution
    let (header, content) = line.split_at_checked(HEADER)?;
    let mut fields = std::str::from_utf8(header).ok()?.split(' ');
    let time = fields.next().filter(|time| time.len() == 30 && time.ends_with('Z'))?;
    let stream = match fields.next()? {
        "stdout" => Stream::Stdout,
        "stderr" => Stream::Stderr,
        _ => return None,
    };
    let full = match fields.next()? {
        "F" => true,
        "P" => false,
        _ => return None,
    };
    Some(Entry { time, stream, full, content })
    // ANCHOR_END: day5_task2_parse_solution
}
// ANCHOR_END: parse

// ANCHOR: tail
/// Where in the log its last `count` lines begin, in bytes. Reads from the end,
/// so that it takes no longer for a log of a gigabyte.
pub fn tail(log: &File, count: usize) -> io::Result<u64> {
    // ANCHOR: day5_task4_tail_solution
    let is_full = |start: u64| -> io::Result<bool> {
        let mut tag = [0];
        Ok(log.read_at(&mut tag, start + TAG as u64)? == 1 && tag[0] == b'F')
    };
    let mut end = log.metadata()?.len();
    let mut block = vec![0; 64 << 10];
    // Where the entry begins that was looked at last; and how many lines do.
    let (mut entry, mut lines) = (end, 0);
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let block = &mut block[..(end - start) as usize];
        log.read_exact_at(block, start)?;
        for at in (0..block.len()).rev().filter(|at| block[*at] == b'\n') {
            let after = start + at as u64 + 1;
            if after == entry {
                continue;
            }
            // A line ends with this entry, or the log does.
            if is_full(after)? || lines == 0 {
                lines += 1;
            }
            if lines > count {
                return Ok(entry);
            }
            entry = after;
        }
        end = start;
    }
    // The first entry has no newline before it.
    let first = entry > 0 && (lines == 0 || is_full(0)?);
    Ok(if lines + usize::from(first) > count { entry } else { 0 })
    // ANCHOR_END: day5_task4_tail_solution
}
// ANCHOR_END: tail

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: &str = "2026-11-23T10:00:00.000000000Z";

    fn entries(bytes: &[u8]) -> Vec<u8> {
        let mut entries = Vec::new();
        format_entries(&mut entries, TIME, Stream::Stderr, bytes);
        entries
    }

    #[test]
    fn what_was_written_comes_out_again() {
        let written = b"one\n\ntwo\xff\0\r\nthree";
        let mut read = Vec::new();
        for line in entries(written).split(|byte| *byte == b'\n') {
            if line.is_empty() {
                continue;
            }
            let entry = parse(line).unwrap();
            assert_eq!((entry.time, entry.stream), (TIME, Stream::Stderr));
            read.extend_from_slice(entry.content);
            if entry.full {
                read.push(b'\n');
            }
        }
        assert_eq!(read, written);
        for broken in [&b""[..], b"hello", &entries(b"x")[..39], b"2026-11-23T10:00:00.000000000Z stdxxx F x"]
        {
            assert_eq!(parse(broken), None);
        }
    }

    #[test]
    fn the_tail_begins_where_its_first_line_does() {
        let mut file = tempfile::tempfile().unwrap();
        let long = [vec![b'x'; 100_000], b"\n".to_vec()].concat();
        let lines: [&[u8]; 5] = [b"a\n", b"b\n", &long, b"\n", b"no end"];
        // The long one in two pieces, as it comes from a pipe.
        let log: Vec<Vec<u8>> = lines
            .iter()
            .map(|line| {
                if line.len() < 9 {
                    entries(line)
                } else {
                    [entries(&line[..60_000]), entries(&line[60_000..])].concat()
                }
            })
            .collect();
        file.write_all(&log.concat()).unwrap();
        for count in 0..8 {
            let skipped = log.len().saturating_sub(count);
            let expected: usize = log[..skipped].iter().map(Vec::len).sum();
            assert_eq!(tail(&file, count).unwrap(), expected as u64, "the last {count} lines");
        }
    }
}
