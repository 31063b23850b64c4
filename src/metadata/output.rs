//! Day 4: what the commands print, for people and for programs.

use std::fmt::Write as _;
use std::io::{ErrorKind, stdout};

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
