//! Day 14: how a log is read that is in several files: which they are, where its last lines begin,
//! and in which file it goes on. (How they are written: [`rotate`](super::rotate).)

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::error::{self, Result};
use crate::logs::file::{LOG, parse, tail};
use crate::logs::reader::{Files, Opened, open_file};

/// What `logs` and `attach` read.
pub const IN_SEVERAL: Files = Files { open: open_log, next };

/// The file `number` of the log in `dir`.
pub fn path_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(if number == 0 { LOG.into() } else { format!("{LOG}.{number}") })
}

/// The number of the file that is called `name`; `None`: it is none of a log.
fn number_of(name: &OsStr) -> Option<u64> {
    let name = name.to_str()?;
    if name == LOG {
        return Some(0);
    }
    let number = name.strip_prefix(LOG)?.strip_prefix('.')?;
    // As we write it, and not +1 or 01, which would be another file.
    number.parse().ok().filter(|value: &u64| *value > 0 && value.to_string() == number)
}

/// The numbers of all files of the log in `dir`, the oldest first; none: there is no log.
pub fn numbers(dir: &Path) -> Result<Vec<u64>> {
    let mut numbers = Vec::new();
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(numbers),
        entries => entries.with_context(|| format!("read {dir:?}"))?,
    };
    for entry in entries {
        let entry = entry.with_context(|| format!("read {dir:?}"))?;
        numbers.extend(number_of(&entry.file_name()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

// ANCHOR: open_log
/// Opens the log in `dir` where its last `count` lines begin (`None`: where it begins). They may
/// begin in any of its files, so it looks through them from the newest on, until there are enough.
fn open_log(dir: &Path, count: Option<usize>) -> Result<Option<Opened>> {
    // ANCHOR: day14_task3_open_log_solution
    let (mut found, mut wanted) = (None, count);
    for number in numbers(dir)?.into_iter().rev() {
        let Some(mut log) = open_file(path_of(dir, number))? else {
            // Removed since, as too old, and so those before it; if all are, there are newer ones.
            if found.is_none() {
                return open_log(dir, count);
            }
            break;
        };
        if let Some(count) = &mut wanted {
            if found.is_some() && ends_within_a_line(&log.file).context("find the last lines")? {
                // Its end, in the next file, has been counted. Its beginning is still missing.
                *count += 1;
            }
            if found.is_some() && *count == 0 {
                break;
            }
            let start = tail(&log.file, *count).context("find the last lines")?;
            log.file.seek(SeekFrom::Start(start)).context("find the last lines")?;
            if start > 0 || *count == 0 {
                return Ok(Some(log));
            }
            *count -= lines_in(&log.path)?.min(*count);
        }
        found = Some(log);
    }
    Ok(found)
    // ANCHOR_END: day14_task3_open_log_solution
}
// ANCHOR_END: open_log

/// How many lines end in the file `path`, or with it.
fn lines_in(path: &Path) -> Result<usize> {
    let read = || format!("read {path:?}");
    let mut file = BufReader::new(File::open(path).with_context(read)?);
    let (mut lines, mut within, mut entry) = (0, false, Vec::new());
    // One entry at a time: the file may be larger than the memory.
    while file.read_until(b'\n', &mut entry).with_context(read)? > 0 {
        within = !parse(&entry).is_some_and(|entry| entry.full);
        lines += usize::from(!within);
        entry.clear();
    }
    Ok(lines + usize::from(within))
}

/// The end of a file of a log, with more bytes than an entry ever has, and where it begins.
pub fn last_bytes(file: &File) -> io::Result<(u64, Vec<u8>)> {
    const LONGEST: u64 = 1 << 20;
    let length = file.metadata()?.len();
    let start = length.saturating_sub(LONGEST);
    let mut last = vec![0; (length - start) as usize];
    file.read_exact_at(&mut last, start)?;
    Ok((start, last))
}

/// Does the last line of this file go on in the next one?
fn ends_within_a_line(file: &File) -> io::Result<bool> {
    let (_, last) = last_bytes(file)?;
    let entry = last.split_inclusive(|byte| *byte == b'\n').next_back().and_then(parse);
    Ok(entry.is_some_and(|entry| !entry.full))
}

// ANCHOR: next
/// Opens the file in which the log goes on after the file `path`. They are numbered one after the
/// other: where a number is missing, a file was removed before anybody came to read it.
fn next(path: &Path) -> Result<Option<Opened>> {
    // ANCHOR: day14_task3_next_solution
    let (Some(dir), Some(number)) = (path.parent(), path.file_name().and_then(number_of)) else {
        return Ok(None);
    };
    loop {
        let Some(next) = numbers(dir)?.into_iter().find(|other| *other > number) else { return Ok(None) };
        // Removed since: then there is a later one.
        let Some(log) = open_file(path_of(dir, next))? else { continue };
        if next > number + 1 {
            error::say(format_args!(
                "output is missing here: {} of the log's files were full and removed before they were read; \
                 a larger max-size or max-file keeps more",
                next - number - 1
            ));
        }
        return Ok(Some(log));
    }
    // ANCHOR_END: day14_task3_next_solution
}
// ANCHOR_END: next

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn entry(tag: char, content: &str) -> String {
        format!("2026-11-23T10:00:00.000000000Z stdout {tag} {content}\n")
    }

    #[test]
    fn the_last_lines_are_found_across_files() {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            (2, [entry('F', "one"), entry('F', "two"), entry('P', "th")].concat()),
            (3, [entry('P', "r"), entry('F', "ee")].concat()),
            (4, String::new()),
            (5, [entry('F', "four"), entry('F', "five")].concat()),
            (6, entry('P', "si")),
        ];
        for (number, text) in &files {
            fs::write(path_of(dir.path(), *number), text).unwrap();
        }
        // What is none of its files.
        for name in ["container.log.05", "container.log.x", "container.log.", "container.logs"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let all: String = files.iter().map(|(_, text)| text.as_str()).collect();
        // Of the entries in order: where the last so many lines begin.
        for (count, first) in [(0, 8), (1, 7), (2, 6), (3, 5), (4, 2), (5, 1), (6, 0), (9, 0)] {
            let expected: String = all.split_inclusive('\n').skip(first).collect();
            let mut log = open_log(dir.path(), Some(count)).unwrap().unwrap();
            let mut read = String::new();
            log.file.read_to_string(&mut read).unwrap();
            while let Some(mut after) = next(&log.path).unwrap() {
                after.file.read_to_string(&mut read).unwrap();
                log = after;
            }
            assert_eq!(read, expected, "the last {count} lines");
        }
        assert_eq!(open_log(dir.path(), None).unwrap().unwrap().path, path_of(dir.path(), 2), "all of it");
    }
}
