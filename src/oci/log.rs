//! Day 18: errors, for engines. They read the last line of the file that `--log` names, and some look for
//! words in it, for the specification has no error codes.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::json;

use crate::error::{CANNOT_EXECUTE, COMMAND_FAILED, NOT_FOUND, exit_code};
use crate::stream;

/// How lines of the log look.
#[derive(Debug, Clone, Copy, Default, PartialEq, clap::ValueEnum)]
#[allow(missing_docs)]
pub enum Format {
    #[default]
    Text,
    Json,
}

/// Tells what went wrong: in the log, if there is one, and on stderr. Returns the exit code.
pub fn tell(error: &anyhow::Error, log: Option<&PathBuf>, format: Format) -> u8 {
    let code = exit_code(error);
    let is_of_the_command = matches!(code, NOT_FOUND | CANNOT_EXECUTE);
    let words = format!("{error:#}");
    let words = if is_of_the_command { in_the_engines_words(&words, code) } else { words };
    if let Some(path) = log {
        let opened = OpenOptions::new().append(true).create(true).open(path);
        // Without a log there is still stderr.
        let _ = opened.and_then(|mut file| file.write_all(line(&words, format).as_bytes()));
    }
    let _ = stream::write_all(std::io::stderr(), format!("tiny-runc: {words}\n").as_bytes());
    if is_of_the_command { code } else { COMMAND_FAILED }
}

/// A line of the log that says `words`, with its end.
fn line(words: &str, format: Format) -> String {
    // ANCHOR: day18_task7_line_solution
    let time = Timestamp::now().to_string();
    match format {
        Format::Json => format!("{}\n", json!({"level": "error", "msg": words, "time": time})),
        Format::Text => format!("time=\"{time}\" level=error msg={words:?}\n"),
    }
    // ANCHOR_END: day18_task7_line_solution
}

// ANCHOR: words
/// podman tells from these words which exit code it has itself: 127 or 126. (podman,
/// `libpod/oci_util.go`)
fn in_the_engines_words(words: &str, code: u8) -> String {
    // ANCHOR: day18_task7_in_the_engines_words_solution
    match code {
        NOT_FOUND if !words.contains("no such file") => {
            format!("{words} (executable file not found in $PATH)")
        }
        NOT_FOUND => format!("{words} (no such file or directory)"),
        CANNOT_EXECUTE if !words.contains("permission denied") => format!("{words} (permission denied)"),
        _ => words.into(),
    }
    // ANCHOR_END: day18_task7_in_the_engines_words_solution
}
// ANCHOR_END: words
