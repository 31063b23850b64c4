//! Day 14: `top`: the processes of a container, as the host sees them.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::error::{Result, failed};
use crate::exec::target::Target;
use crate::metadata::output::{columns, print};
use crate::metadata::state::State;

use super::process::{Clock, Facts, HEAD};

/// Show the processes of a container
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Top {
    #[command(flatten)]
    state: State,

    /// Its id or name
    container: String,

    /// What to show of them, as options of ps(1), which this host must have
    #[arg(value_name = "PS OPTIONS", trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<OsString>,
}

const EXAMPLES: &str = "\
The numbers and the users are the host's. The container has its own for them.

Examples:
  tiny-docker top web
  tiny-docker top web -o pid,user,args";

impl Top {
    /// Prints the table. Returns the exit code.
    pub fn execute(self) -> Result<u8> {
        print(&self.table().map_err(failed)?)
    }

    fn table(&self) -> Result<String> {
        let Target { record, process } = Target::find(&self.state, &self.container)?;
        let its = processes_of(process.pid)?;
        // Else the number may have been another process's by then.
        if process.has_ended(Some(Duration::ZERO))? {
            bail!("container {} has just ended", record.title());
        }
        if !self.options.is_empty() {
            return lines_of_ps(&self.options, &its);
        }
        let clock = Clock::read()?;
        // One that has ended since is shown no more.
        let rows: Vec<Vec<String>> =
            its.into_iter().filter_map(Facts::of).map(|facts| facts.row(&clock)).collect();
        Ok(columns(&HEAD, &rows))
    }
}

/// A process: its number, its parent's, and which pid namespace it is in.
struct Found {
    pid: i32,
    parent: i32,
    namespace: Option<u64>,
}

// ANCHOR: processes_of
/// The processes of the container whose first one is `pid`: those in its pid namespace, `exec`'s
/// among them, whose parent is outside; and their descendants, which may have namespaces of
/// their own. Nobody leaves: an orphan becomes the child of PID 1. (pid_namespaces(7))
fn processes_of(pid: i32) -> Result<BTreeSet<i32>> {
    // ANCHOR: day14_task4_processes_of_solution
    let namespace = namespace_of(pid).with_context(|| format!("look at /proc/{pid}/ns/pid"))?;
    let all = all_processes()?;
    let mut its: BTreeSet<i32> =
        all.iter().filter(|one| one.namespace == Some(namespace)).map(|one| one.pid).collect();
    loop {
        let before = its.len();
        let children: Vec<i32> =
            all.iter().filter(|one| its.contains(&one.parent)).map(|one| one.pid).collect();
        its.extend(children);
        if its.len() == before {
            return Ok(its);
        }
    }
    // ANCHOR_END: day14_task4_processes_of_solution
}
// ANCHOR_END: processes_of

fn namespace_of(pid: i32) -> std::io::Result<u64> {
    fs::metadata(format!("/proc/{pid}/ns/pid")).map(|found| found.ino())
}

fn all_processes() -> Result<Vec<Found>> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc").context("read /proc")? {
        let name = entry.context("read /proc")?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Some(facts) = Facts::of(pid) {
            all.push(Found { pid, parent: facts.parent, namespace: namespace_of(pid).ok() });
        }
    }
    Ok(all)
}

/// What ps(1) says with these options, of the processes `its` alone.
fn lines_of_ps(options: &[OsString], its: &BTreeSet<i32>) -> Result<String> {
    let output = match Command::new("ps").args(options).output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!(
                "this host has no ps(1), to which options are passed; omit them, or install it: apt install procps"
            )
        }
        output => output.context("start ps")?,
    };
    if !output.status.success() {
        bail!("ps: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    let Some(column) = head.split_whitespace().position(|name| name == "PID") else {
        bail!(
            "with these options ps prints no column PID, by which the container's processes are found; \
             add one, such as -o pid,args"
        );
    };
    let number = |line: &str| line.split_whitespace().nth(column).and_then(|field| field.parse().ok());
    let mut shown = format!("{head}\n");
    for line in lines.filter(|line| number(line).is_some_and(|pid: i32| its.contains(&pid))) {
        shown += line;
        shown.push('\n');
    }
    Ok(shown)
}
