//! Writes the man pages and the shell completions of `tiny-docker`, as its command
//! line says them itself: `make install`.
//!
//! `cargo run --features day9 --example manual -- DIR`

use std::fs;
use std::io::{Error, Result};
use std::path::PathBuf;

use clap::CommandFactory;
use clap_complete::Shell;
use tiny_docker_rs::cli::Cli;

fn main() -> Result<()> {
    let dir = std::env::args_os().nth(1).map(PathBuf::from);
    let dir = dir.ok_or_else(|| Error::other("expected a directory to write into"))?;
    fs::create_dir_all(&dir)?;
    let mut command = Cli::command().name("tiny-docker");
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, "tiny-docker", &dir)?;
    }
    clap_mangen::generate_to(command, &dir)
}
