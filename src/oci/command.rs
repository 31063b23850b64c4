//! Day 18: the command line: runc's, as far as engines use it. Options may stand after the id.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use clap::{Args, Parser, Subcommand, value_parser};
use nix::sys::stat::umask;

use crate::cgroups::limits::parse_size;
use crate::error::Result;
use crate::explain;
use crate::inherited::UMASK;
use crate::metadata::output::print;
use crate::stop::signals::signal_named;

use super::bundle::Wishes;
use super::cgroup::Driver;
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
    /// Who makes cgroups: cgroupfs, systemd, disabled
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
        #[arg(short, long, value_enum, default_value = "table")]
        format: Printed,
        id: String,
        /// Options of ps(1)
        #[arg(allow_hyphen_values = true, trailing_var_arg = true)]
        words: Vec<String>,
    },
    /// Print all containers
    List {
        #[arg(short, long, value_enum, default_value = "table")]
        format: Printed,
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
        #[arg(long, default_value = "5s", value_parser = interval)]
        interval: Duration,
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

/// What a process and its caller have in common.
#[derive(Debug, Args)]
struct Caller {
    #[arg(long)]
    pid_file: Option<PathBuf>,
    #[arg(long)]
    console_socket: Option<PathBuf>,
    /// Pass so many open files on, from 3 on
    #[arg(long, default_value_t = 0, value_parser = value_parser!(u32).range(..=4096))]
    preserve_fds: u32,
}

#[derive(Debug, Args)]
struct Make {
    /// The directory of the bundle
    #[arg(short, long, default_value = ".")]
    bundle: PathBuf,
    /// Its configuration [default: config.json]
    #[arg(short = 'f', long)]
    config: Option<PathBuf>,
    #[command(flatten)]
    caller: Caller,
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
    /// A group more
    #[arg(short = 'g', long, value_name = "GID")]
    additional_gids: Vec<u32>,
    /// A capability more, such as CAP_KILL
    #[arg(short, long, value_name = "NAME")]
    cap: Vec<String>,
    #[arg(long)]
    no_new_privs: bool,
    #[arg(long, value_name = "PROFILE")]
    apparmor: Option<String>,
    /// A cgroup below the container's
    #[arg(long, value_name = "PATH")]
    cgroup: Option<String>,
    #[command(flatten)]
    caller: Caller,
    id: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

#[derive(Debug, Args)]
struct Update {
    /// linux.resources, in JSON; -: from stdin
    #[arg(short, long)]
    resources: Option<PathBuf>,
    #[arg(long, allow_hyphen_values = true, value_parser = size)]
    memory: Option<i64>,
    #[arg(long, allow_hyphen_values = true, value_parser = size)]
    memory_swap: Option<i64>,
    #[arg(long, allow_hyphen_values = true, value_parser = size)]
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
    fn driver(&self) -> Result<Driver> {
        Ok(match self.cgroup_manager.as_deref() {
            _ if self.systemd_cgroup => Driver::Systemd,
            None | Some("cgroupfs") => Driver::Files,
            Some("systemd") => Driver::Systemd,
            Some("disabled") => Driver::Nobody,
            Some(name) => bail!("--cgroup-manager {name}: expected cgroupfs, systemd or disabled"),
        })
    }

    fn execute(self) -> Result<u8> {
        let cgroups = self.driver()?;
        let store = Store::at(self.root);
        match self.command {
            _ if self.version => print(&version()),
            None => bail!("there is no command; expected one, such as create: tiny-runc --help"),
            Some(Command::Create(make)) => {
                make.execute(&store, Wishes { waits: true, cgroups, ..Wishes::default() })
            }
            Some(Command::Run { detach, make }) => {
                make.execute(&store, Wishes { detach, cgroups, ..Wishes::default() })
            }
            Some(Command::Start { id }) => life::start(&store, &id),
            Some(Command::State { id }) => running::state(&store, &id),
            Some(Command::Kill { all, id, signal }) => life::kill(&store, &id, signal, all),
            Some(Command::Delete { force, id }) => life::delete(&store, &id, force),
            Some(Command::Exec(exec)) => exec.execute(&store),
            Some(Command::Ps { format, id, words }) => {
                running::ps(&store, &id, format == Printed::Json, &words)
            }
            Some(Command::List { format, quiet }) => running::list(&store, format == Printed::Json, quiet),
            Some(Command::Pause { id }) => life::freeze(&store, &id, true),
            Some(Command::Resume { id }) => life::freeze(&store, &id, false),
            Some(Command::Update(update)) => update.execute(&store),
            Some(Command::Events { stats, interval, id }) => running::events(&store, &id, stats, interval),
            Some(Command::Spec { bundle }) => template::write(&bundle),
            Some(Command::Features) => {
                print(&format!("{}\n", serde_json::to_string_pretty(&features::document())?))
            }
        }
    }
}

/// Bytes: `100M`; `-1`: no limit.
fn size(text: &str) -> std::result::Result<i64, String> {
    if text == "-1" {
        return Ok(-1);
    }
    let bytes = parse_size("a size", text).map_err(|error| error.to_string())?;
    i64::try_from(bytes).map_err(|error| error.to_string())
}

/// `500ms`, `5s`, `1m`.
fn interval(text: &str) -> std::result::Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let milliseconds = match unit {
        "ms" => 1,
        "s" | "" => 1000,
        "m" => 60_000,
        _ => 0,
    };
    let all = number.parse::<u64>().ok().and_then(|number| number.checked_mul(milliseconds));
    let all = all.filter(|all| *all > 0).map(Duration::from_millis);
    all.ok_or_else(|| "expected a time, such as 500ms, 5s or 1m".into())
}

/// How something is printed.
#[derive(Debug, Clone, Copy, PartialEq, clap::ValueEnum)]
enum Printed {
    Table,
    Json,
}

/// Three lines, each with one colon or one "version": go-runc takes them apart.
fn version() -> String {
    format!("tiny-runc version {}\ncommit: none\nspec: {VERSION}\n", env!("CARGO_PKG_VERSION"))
}

impl Make {
    fn execute(self, store: &Store, wishes: Wishes) -> Result<u8> {
        let wishes =
            Wishes { pid_file: self.caller.pid_file, console_socket: self.caller.console_socket, ..wishes };
        life::make(store, &self.id, &self.bundle, self.config.as_deref(), self.caller.preserve_fds, wishes)
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
            groups: self.additional_gids,
            capabilities: self.cap,
            no_new_privileges: self.no_new_privs,
            apparmor: self.apparmor,
            cgroup: self.cgroup,
            pid_file: self.caller.pid_file,
            console_socket: self.caller.console_socket,
            detach: self.detach,
            passed_files: self.caller.preserve_fds,
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
