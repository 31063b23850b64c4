//! Day 18: the command line: runc's, as far as engines use it. Options may stand after the id.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use nix::sys::stat::umask;

use crate::error::Result;
use crate::explain;
use crate::inherited::UMASK;
use crate::metadata::output::print;
use crate::stop::signals::signal_named;

use super::bundle::Wishes;
use super::log::{self, Format};
use super::spec::VERSION;
use super::spec::resources::{Cpu, Memory, Pids, Resources};
use super::store::Store;
use super::{exec, features, life, running, template};

/// An OCI runtime: what podman, containerd and a kubelet start containers with.
#[derive(Debug, Parser)]
#[command(name = "tiny-runc", disable_help_subcommand = true, disable_version_flag = true)]
struct Cli {
    /// Print every kernel operation to stderr, with the shell command that does the same
    #[arg(long, global = true)]
    explain: bool,
    /// Where containers are remembered [default: /run/tiny-runc]
    #[arg(long, value_name = "DIR", global = true)]
    root: Option<PathBuf>,
    /// The file to which errors are written as well
    #[arg(long, value_name = "FILE", global = true)]
    log: Option<PathBuf>,
    /// How they are written there
    #[arg(long, value_enum, default_value_t, global = true)]
    log_format: Format,
    /// For callers of runc: changes nothing
    #[arg(long, global = true)]
    debug: bool,
    /// cgroupsPath is SLICE:PREFIX:NAME, as systemd has it
    #[arg(long, global = true)]
    systemd_cgroup: bool,
    /// For callers of crun: changes nothing
    #[arg(long, value_name = "NAME", global = true)]
    cgroup_manager: Option<String>,
    /// For callers of runc: changes nothing
    #[arg(long, value_name = "WHETHER", global = true)]
    rootless: Option<String>,
    /// Print the version
    #[arg(long, short)]
    version: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
#[command(defer = true)]
enum Command {
    /// Make a container, and leave it before its command
    Create(Make),
    /// Start the command of a container that was made
    Start { id: String },
    /// Make a container, and run its command
    Run {
        /// Do not wait for its end
        #[arg(short, long)]
        detach: bool,
        #[command(flatten)]
        make: Make,
    },
    /// Print how a container fares
    State { id: String },
    /// Send a signal to the first process of a container
    Kill {
        /// To all of it
        #[arg(short, long)]
        all: bool,
        id: String,
        #[arg(default_value = "TERM", value_parser = signal_named)]
        signal: i32,
    },
    /// Remove a container that has ended
    Delete {
        /// One that runs too; one that is not there is no error
        #[arg(short, long)]
        force: bool,
        id: String,
    },
    /// Run one more process in a container
    Exec(Box<Exec>),
    /// Print the processes of a container
    Ps {
        /// table or json
        #[arg(short, long, default_value = "table")]
        format: String,
        id: String,
        /// Options of ps(1)
        #[arg(allow_hyphen_values = true, trailing_var_arg = true)]
        words: Vec<String>,
    },
    /// Print all containers
    List {
        /// table or json
        #[arg(short, long, default_value = "table")]
        format: String,
        /// Their ids alone
        #[arg(short, long)]
        quiet: bool,
    },
    /// Hold up all processes of a container
    Pause { id: String },
    /// Let them go on
    Resume { id: String },
    /// Change the limits of a container
    Update(Box<Update>),
    /// Print what a container uses
    Events {
        /// Once
        #[arg(long)]
        stats: bool,
        /// How often, such as 5s
        #[arg(long, default_value = "5s")]
        interval: String,
        id: String,
    },
    /// Write a config.json to begin with
    Spec {
        #[arg(short, long, default_value = ".")]
        bundle: PathBuf,
    },
    /// Print what this runtime can do, as JSON
    Features,
}

#[derive(Debug, Args)]
struct Make {
    /// The directory of the bundle
    #[arg(short, long, default_value = ".")]
    bundle: PathBuf,
    /// Its configuration [default: config.json]
    #[arg(short = 'f', long)]
    config: Option<PathBuf>,
    #[arg(long)]
    pid_file: Option<PathBuf>,
    #[arg(long)]
    console_socket: Option<PathBuf>,
    /// Pass so many open files on, from 3 on
    #[arg(long, default_value_t = 0)]
    preserve_fds: u32,
    /// For callers of runc: changes nothing
    #[arg(long)]
    no_pivot: bool,
    /// For callers of runc: changes nothing
    #[arg(long)]
    no_new_keyring: bool,
    id: String,
}

#[derive(Debug, Args)]
struct Exec {
    /// A file that describes the process
    #[arg(short, long)]
    process: Option<PathBuf>,
    #[arg(short, long)]
    detach: bool,
    #[arg(short, long)]
    tty: bool,
    #[arg(short, long)]
    env: Vec<String>,
    #[arg(long)]
    cwd: Option<String>,
    /// UID[:GID]
    #[arg(short, long)]
    user: Option<String>,
    #[arg(long)]
    pid_file: Option<PathBuf>,
    #[arg(long)]
    console_socket: Option<PathBuf>,
    #[arg(long, default_value_t = 0)]
    preserve_fds: u32,
    id: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

#[derive(Debug, Args)]
struct Update {
    /// linux.resources, in JSON; -: from stdin
    #[arg(short, long)]
    resources: Option<PathBuf>,
    #[arg(long, allow_hyphen_values = true)]
    memory: Option<i64>,
    #[arg(long, allow_hyphen_values = true)]
    memory_swap: Option<i64>,
    #[arg(long, allow_hyphen_values = true)]
    memory_reservation: Option<i64>,
    #[arg(long)]
    cpu_share: Option<u64>,
    #[arg(long, allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    #[arg(long)]
    cpu_period: Option<u64>,
    #[arg(long)]
    cpuset_cpus: Option<String>,
    #[arg(long)]
    cpuset_mems: Option<String>,
    #[arg(long, allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    id: String,
}

/// The program. Returns what it exits with.
pub fn main() -> u8 {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => {
            let _ = usage.print();
            return usage.exit_code() as u8;
        }
    };
    if cli.explain {
        explain::turn_on();
    }
    umask(UMASK);
    let (log, format) = (cli.log.clone(), cli.log_format);
    cli.execute().unwrap_or_else(|error| log::tell(&error, log.as_ref(), format))
}

impl Cli {
    fn execute(self) -> Result<u8> {
        let store = Store::at(self.root);
        match self.command {
            _ if self.version => print(&version()),
            None => anyhow::bail!("there is no command; expected one, such as create: tiny-runc --help"),
            Some(Command::Create(make)) => make.execute(&store, true, false),
            Some(Command::Run { detach, make }) => make.execute(&store, false, detach),
            Some(Command::Start { id }) => life::start(&store, &id),
            Some(Command::State { id }) => running::state(&store, &id),
            Some(Command::Kill { all, id, signal }) => life::kill(&store, &id, signal, all),
            Some(Command::Delete { force, id }) => life::delete(&store, &id, force),
            Some(Command::Exec(exec)) => exec.execute(&store),
            Some(Command::Ps { format, id, words }) => running::ps(&store, &id, format == "json", &words),
            Some(Command::List { format, quiet }) => running::list(&store, format == "json", quiet),
            Some(Command::Pause { id }) => life::freeze(&store, &id, true),
            Some(Command::Resume { id }) => life::freeze(&store, &id, false),
            Some(Command::Update(update)) => update.execute(&store),
            Some(Command::Events { stats, interval, id }) => {
                let seconds = interval.trim_end_matches('s').parse().unwrap_or(5);
                running::events(&store, &id, stats, Duration::from_secs(seconds))
            }
            Some(Command::Spec { bundle }) => template::write(&bundle),
            Some(Command::Features) => {
                print(&format!("{}\n", serde_json::to_string_pretty(&features::document())?))
            }
        }
    }
}

/// Three lines, each with one colon or one "version": go-runc takes them apart.
fn version() -> String {
    format!("tiny-runc version {}\ncommit: none\nspec: {VERSION}\n", env!("CARGO_PKG_VERSION"))
}

impl Make {
    fn execute(self, store: &Store, waits: bool, detach: bool) -> Result<u8> {
        let wishes = Wishes { pid_file: self.pid_file, console_socket: self.console_socket, waits, detach };
        life::make(store, &self.id, &self.bundle, self.config.as_deref(), self.preserve_fds, wishes)
    }
}

impl Exec {
    fn execute(self, store: &Store) -> Result<u8> {
        let wishes = exec::Wishes {
            process: self.process,
            command: self.command,
            env: self.env,
            cwd: self.cwd,
            user: self.user,
            tty: self.tty,
            pid_file: self.pid_file,
            console_socket: self.console_socket,
            detach: self.detach,
            passed_files: self.preserve_fds,
        };
        exec::run(store, &self.id, wishes)
    }
}

impl Update {
    fn execute(self, store: &Store) -> Result<u8> {
        let memory = Memory {
            limit: self.memory,
            swap: self.memory_swap,
            reservation: self.memory_reservation,
            ..Memory::default()
        };
        let cpu = Cpu {
            shares: self.cpu_share,
            quota: self.cpu_quota,
            period: self.cpu_period,
            cpus: self.cpuset_cpus,
            mems: self.cpuset_mems,
            ..Cpu::default()
        };
        let pids = self.pids_limit.map(|limit| Pids { limit: Some(limit) });
        let more = Resources { memory: Some(memory), cpu: Some(cpu), pids, ..Resources::default() };
        running::update(store, &self.id, self.resources.as_deref(), more)
    }
}
