//! What can go wrong, and the exit code that says so.

use std::fmt::{self, Display};
use std::io::{ErrorKind, stderr};

use crate::stream;

/// The result of everything that can fail here. [`exit_code`] finds the exit
/// code again, under whatever context was added on the way.
pub type Result<T> = anyhow::Result<T>;

/// The runtime's own failure: nothing wrong with the command. (docker-run(1), "Exit Status")
pub const RUNTIME_ERROR: u8 = 125;
/// A command other than `run` did not do all that it was asked to.
pub const COMMAND_FAILED: u8 = 1;
/// The command is there, but it cannot be executed.
pub const CANNOT_EXECUTE: u8 = 126;
/// There is no such command.
pub const NOT_FOUND: u8 = 127;

/// An error that knows its exit code. All other errors are [`RUNTIME_ERROR`]s.
#[derive(Debug, thiserror::Error)]
pub struct Failure {
    /// What the process exits with: 1, 125, 126 or 127.
    pub exit_code: u8,
    /// What was wrong, what was expected, what to do.
    pub message: String,
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The exit code that `error` stands for.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<Failure>() {
        Some(failure) => failure.exit_code,
        None => RUNTIME_ERROR,
    }
}

/// Commands other than `run` end with 1 when they fail.
pub fn failed(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref::<Failure>() {
        Some(_) => error,
        None => Failure { exit_code: COMMAND_FAILED, message: format!("{error:#}") }.into(),
    }
}

/// What kind of error of the system it is, whatever has been said about it since; `None`: none of the system's.
pub fn io_kind(error: &anyhow::Error) -> Option<ErrorKind> {
    error.downcast_ref().map(std::io::Error::kind)
}

/// Prints `error` with its causes. `{:#}`: without a backtrace, whatever
/// RUST_BACKTRACE says.
pub fn print(error: &anyhow::Error) {
    say(format_args!("{error:#}"));
}

/// Says `words` on stderr, in one write: others may write there at the same time.
/// If nobody reads them, there is nobody to tell.
pub fn say(words: impl Display) {
    let _ = stream::write_all(stderr(), format!("tiny-docker: {words}\n").as_bytes());
}

/// Does something for each of several containers. One that fails is reported,
/// and keeps it from none of the others. Returns the exit code: 1, as Docker's,
/// if one failed.
pub fn for_each(words: &[String], mut action: impl FnMut(&str) -> Result<()>) -> u8 {
    let mut code = 0;
    for word in words {
        if let Err(error) = action(word) {
            print(&error);
            code = COMMAND_FAILED;
        }
    }
    code
}
