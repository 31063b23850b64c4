//! `tiny-docker`: the command line. What it does is in the library: `src/lib.rs`.

use std::process::ExitCode;

use clap::Parser;
use tiny_docker_rs::cli::Cli;
use tiny_docker_rs::error;

fn main() -> ExitCode {
    // Bad usage and --help end in here, with 2 and 0.
    let cli = Cli::parse();
    match cli.execute() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            error::print(&error);
            ExitCode::from(error::exit_code(&error))
        }
    }
}
