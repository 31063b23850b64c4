//! Day 1: the command line. *Can I execute a command through my own CLI?*
//!
//! Every mechanism's flags are its own struct's fields; here they are only put
//! in a row.

use std::ffi::OsString;

use anyhow::bail;
use clap::{Args, Parser, Subcommand};

use crate::container::{self, Container, Mechanisms};
use crate::error::Result;
use crate::explain;

/// A small Docker that shows how it works.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES, disable_help_subcommand = true)]
pub struct Cli {
    /// Print every kernel operation to stderr, with the shell command that does the same
    #[arg(long, global = true)]
    explain: bool,

    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  tiny-docker run echo hello
  tiny-docker --explain run sh -c 'echo my pid is $$'
  tiny-docker run --help";

#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<Run>),
    /// List containers (comes to life on day 4)
    Ps,
    /// Show what a container wrote (comes to life on day 5)
    Logs {
        /// The container's id or name
        container: OsString,
    },
    /// Stop containers (comes to life on day 6)
    Stop {
        /// Their ids or names
        #[arg(required = true)]
        containers: Vec<OsString>,
    },
}

// ANCHOR: run
/// Run a command in a new container
#[derive(Debug, Args)]
#[command(after_help = RUN_EXAMPLES)]
struct Run {
    #[cfg(feature = "day2-namespaces")]
    #[command(flatten)]
    namespaces: crate::namespaces::Namespaces,

    #[cfg(feature = "day3-rootfs")]
    #[command(flatten)]
    rootfs: crate::rootfs::Rootfs,

    #[cfg(feature = "day3-rootfs")]
    #[command(flatten)]
    process: crate::process::Process,

    /// The command, and its arguments: from here on, all words are the command's
    #[arg(required = true, trailing_var_arg = true, value_names = ["COMMAND", "ARG"])]
    command: Vec<OsString>,
}

impl Run {
    /// The mechanisms of a run, in the order of their days.
    fn mechanisms(self) -> Box<Mechanisms> {
        Box::new([
            #[cfg(feature = "day2-namespaces")]
            Box::new(self.namespaces),
            #[cfg(feature = "day3-rootfs")]
            Box::new(self.rootfs),
            #[cfg(feature = "day3-rootfs")]
            Box::new(self.process),
        ])
    }
}
// ANCHOR_END: run

const RUN_EXAMPLES: &str = "\
Exit code: the command's own; 128+n if signal n killed it; 127 if there is no such
command; 126 if it cannot be executed; 125 for an error of tiny-docker itself.

Examples:
  tiny-docker run ls --help        (--help goes to ls)
  tiny-docker run sh -c 'exit 7'";

impl Cli {
    /// Does what the command line says. Returns the exit code.
    pub fn execute(self) -> Result<u8> {
        if self.explain {
            explain::turn_on();
        }
        // ANCHOR: day1_execute_solution
        match self.command {
            Command::Run(run) => {
                let container = Container::new(run.command.clone());
                container::run(container, &mut run.mechanisms())
            }
            Command::Ps => {
                bail!("ps comes to life on day 4: nothing remembers yet which containers were started")
            }
            Command::Logs { .. } => {
                bail!("logs comes to life on day 5: nothing keeps yet what a container writes")
            }
            Command::Stop { .. } => {
                bail!("stop comes to life on day 6: nothing ends a container from outside yet")
            }
        }
        // ANCHOR_END: day1_execute_solution
    }
}
