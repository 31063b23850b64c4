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
    let words = in_the_engines_words(&format!("{error:#}"), code);
    if let Some(path) = log {
        let time = Timestamp::now().to_string();
        let line = match format {
            Format::Json => json!({"level": "error", "msg": words, "time": time}).to_string(),
            Format::Text => format!("time=\"{time}\" level=error msg={words:?}"),
        };
        let opened = OpenOptions::new().append(true).create(true).open(path);
        // Without a log there is still stderr.
        let _ = opened.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    }
    let _ = stream::write_all(std::io::stderr(), format!("tiny-runc: {words}\n").as_bytes());
    match code {
        NOT_FOUND | CANNOT_EXECUTE => code,
        _ => COMMAND_FAILED,
    }
}

/// podman tells from these words which exit code it has itself: 127 or 126. (podman,
/// `libpod/oci_util.go`)
fn in_the_engines_words(words: &str, code: u8) -> String {
    match code {
        NOT_FOUND if !words.contains("no such file") => {
            format!("{words} (executable file not found in $PATH)")
        }
        NOT_FOUND => format!("{words} (no such file or directory)"),
        CANNOT_EXECUTE if !words.contains("permission denied") => format!("{words} (permission denied)"),
        _ => words.into(),
    }
}
