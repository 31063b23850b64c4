//! What can go wrong, and the exit code that says so.

use std::fmt;

/// The result of everything that can fail here. [`exit_code`] finds the exit
/// code again, under whatever context was added on the way.
pub type Result<T> = anyhow::Result<T>;

/// The runtime's own failure: nothing wrong with the command. (docker-run(1), "Exit Status")
pub const RUNTIME_ERROR: u8 = 125;
/// The command is there, but it cannot be executed.
pub const CANNOT_EXECUTE: u8 = 126;
/// There is no such command.
pub const NOT_FOUND: u8 = 127;

/// An error that knows its exit code. All other errors are [`RUNTIME_ERROR`]s.
#[derive(Debug, thiserror::Error)]
pub struct Failure {
    /// What the process exits with: 125, 126 or 127.
    pub exit_code: u8,
    /// What was wrong, what was expected, what to do.
    pub message: String,
}

impl fmt::Display for Failure {
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
