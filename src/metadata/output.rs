//! Day 4: what the commands print, for people and for programs.

use std::fmt::Write as _;
use std::io::{BufRead, ErrorKind, stdin, stdout};

use anyhow::Context;

use crate::error::{COMMAND_FAILED, Failure, Result};
use crate::stream;

/// How a list is printed.
#[derive(Debug, Clone, Copy, PartialEq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For programs: one object per line.
    Json,
}

/// Docker's table: columns as wide as their longest entry, three spaces apart.
pub fn columns(head: &[&str], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = head.iter().map(|cell| cell.to_string()).collect();
    let all = || std::iter::once(&head).chain(rows);
    let width = |column: usize| all().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    for row in all() {
        for (cell, width) in row.iter().zip(&widths).take(head.len() - 1) {
            let _ = write!(text, "{cell:width$}   ");
        }
        text.push_str(&row[head.len() - 1]);
        text.push('\n');
    }
    text
}

/// Prints `text` to stdout. That nobody reads it is no error (`ps | head`).
pub fn print(text: &str) -> Result<u8> {
    show(text).map(|_| 0)
}

/// Prints `text` to stdout. Returns whether somebody reads it; if not, a command
/// that would go on and on ends.
pub fn show(text: &str) -> Result<bool> {
    match stream::write_all(stdout(), text.as_bytes()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => {
            let message = format!("write to stdout: {error}; not all of it was printed");
            Err(Failure { exit_code: COMMAND_FAILED, message }.into())
        }
    }
}

/// Asks the person in front before all of `what` is removed, as Docker does. Anything but `y`
/// means no.
pub fn agrees(what: &str) -> Result<bool> {
    print(&format!("WARNING! This will remove {what}.\nAre you sure you want to continue? [y/N] "))?;
    let mut answer = String::new();
    stdin().lock().read_line(&mut answer).context("read the answer")?;
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}

/// A number of bytes as Docker says it: so many digits, of which zeros at the end are omitted,
/// and units of a thousand.
pub fn human(bytes: u64, digits: i32) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    // What is rounded to one digit more than these has the next unit.
    let most = (10_f64.powi(digits) - 0.5).min(1000.0);
    let (mut size, mut unit) = (bytes as f64, 0);
    while size >= most && unit + 1 < units.len() {
        (size, unit) = (size / 1000.0, unit + 1);
    }
    let decimals = (digits - 1 - size.max(1.0).log10() as i32).max(0) as usize;
    let text = format!("{size:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::human;

    #[test]
    fn sizes_are_dockers() {
        for (bytes, expected) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1234, "1.234kB"),
            (12_345, "12.35kB"),
            (123_456, "123.5kB"),
            (1_000_000, "1MB"),
            (1_500_000_000, "1.5GB"),
            (u64::MAX, "18.45EB"),
        ] {
            assert_eq!(human(bytes, 4), expected);
        }
    }
}
