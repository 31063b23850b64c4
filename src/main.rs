//! `tiny-docker`: the command line. What it does is in the library: `src/lib.rs`.

use std::io::{ErrorKind, stderr, stdout};
use std::process::ExitCode;

use tiny_docker_rs::cli::Cli;
use tiny_docker_rs::{error, stream};

fn main() -> ExitCode {
    let code = match Cli::from_arguments() {
        Ok(cli) => cli.execute().unwrap_or_else(|error| {
            error::print(&error);
            error::exit_code(&error)
        }),
        Err(usage) => explain_usage(&usage),
    };
    ExitCode::from(code)
}

/// Bad usage, and --help. Returns the exit code: 2, and 0.
fn explain_usage(usage: &clap::Error) -> u8 {
    let text = usage.render().to_string();
    if usage.use_stderr() {
        let _ = stream::write_all(stderr(), text.as_bytes());
        return usage.exit_code() as u8;
    }
    match stream::write_all(stdout(), text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            error::say(format_args!("write to stdout: {error}"));
            error::COMMAND_FAILED
        }
        _ => 0,
    }
}
