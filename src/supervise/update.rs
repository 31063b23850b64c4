//! Day 14: `update`: the limits of a container, and when it is started again, are changed while it
//! runs. The limits are files of its cgroup: the kernel keeps the new ones from the moment they
//! are written.

use std::io::{Error, ErrorKind};
use std::path::Path;

use anyhow::{Context, bail};

use crate::cgroups::limits::{parse_cpus, parse_memory, parse_pids, parse_swap};
use crate::error::{Result, failed};
use crate::explain::{shell, step};
use crate::files;
use crate::metadata::at_once::for_each_at_once;
use crate::metadata::flush;
use crate::metadata::record::Record;
use crate::metadata::state::State;
use crate::metadata::traces;
use crate::plan::Restart;

use super::{DAY, policy};

/// Change the limits of containers, and when they are started again
#[derive(Debug, clap::Args)]
pub struct Update {
    #[command(flatten)]
    state: State,

    /// Memory limit: bytes, or a number with k, m or g, at least 6m [0: no limit]
    #[arg(short, long, value_name = "SIZE", allow_hyphen_values = true)]
    memory: Option<String>,

    /// Limit for memory and swap together [-1: any amount of swap; 0: no swap]
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory_swap: Option<String>,

    /// Limit for processor time: 0.5 is half of one processor [0: no limit]
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    cpus: Option<String>,

    /// Limit for processes and threads [-1: no limit]
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pids_limit: Option<String>,

    /// When to start it again once it has ended: no, on-failure[:N], always, unless-stopped
    #[arg(long, value_name = "POLICY", value_parser = policy::parse)]
    restart: Option<Restart>,

    /// Their ids or names
    #[arg(required = true)]
    containers: Vec<String>,
}

/// Files of a cgroup, and what is to be written into them; `None`: no limit.
type Changes = Vec<(&'static str, Option<String>)>;

impl Update {
    /// Prints those that were changed. Returns the exit code: 1 if one could not be.
    pub fn execute(self) -> Result<u8> {
        let flags = [&self.memory, &self.memory_swap, &self.cpus, &self.pids_limit];
        if flags.iter().all(|flag| flag.is_none()) && self.restart.is_none() {
            return Err(failed(anyhow::anyhow!(
                "there is nothing to change; expected at least one of --memory, --memory-swap, --cpus, \
                 --pids-limit and --restart"
            )));
        }
        Ok(for_each_at_once(&self.containers, |word| {
            let id = self.state.find(word)?.id;
            self.update(&id)?;
            flush::soon(&self.state.dir(&id));
            Ok(format!("{word}\n"))
        }))
    }

    /// First the kernel, then the record: so it never says what is not so. If it cannot be
    /// written, the kernel gets back what was there.
    fn update(&self, id: &str) -> Result<()> {
        let mut undo = None;
        let dir = self.state.dir(id);
        let written = self.state.change(id, |record| {
            let changes = self.wanted(&record.plan.limits)?;
            let restart = self.restart.unwrap_or(record.plan.restart);
            if record.plan.auto_remove && !restart.is_no() {
                bail!(
                    "container {} was started with --rm, which forgets it at its end; so nobody can start it again",
                    record.title()
                );
            }
            if !changes.is_empty() && record.process()?.is_some() {
                let cgroup = traces::cgroup_of(&dir)?;
                let none =
                    || format!("container {} has no cgroup, and so it can have no limits", record.title());
                let cgroup = cgroup.with_context(none)?;
                must_fit(&cgroup, &changes).with_context(|| format!("container {}", record.title()))?;
                undo = Some((write_all(&cgroup, &changes)?, cgroup));
            }
            plan(record, &changes);
            record.plan.restart = restart;
            Ok(())
        });
        if written.is_err()
            && let Some((old, cgroup)) = undo
        {
            give_back(&cgroup, &old);
        }
        written.map(drop)
    }

    // ANCHOR: wanted
    /// The flags as what the kernel's files take, for a container that has the limits `now`. What
    /// is typed for swap is memory and swap together; the file is swap alone. So whoever changes
    /// one of the two, and does not say so, changes the other.
    fn wanted(&self, now: &[(String, String)]) -> Result<Changes> {
        // ANCHOR: day14_task4_wanted_solution
        let value = |file: &str| now.iter().find(|(name, _)| name == file).map(|(_, value)| value.as_str());
        let memory_now = value("memory.max").and_then(|text| text.parse::<u64>().ok());
        let mut changes = Changes::new();
        let memory = match &self.memory {
            Some(text) => {
                let memory = parse_memory(text)?;
                changes.push(("memory.max", memory.map(|bytes| bytes.to_string())));
                memory
            }
            None => memory_now,
        };
        match (&self.memory_swap, &self.memory) {
            (Some(text), _) => changes.push(("memory.swap.max", parse_swap(text, memory)?)),
            (None, Some(text)) => {
                changes.push(("memory.swap.max", swap(text, memory, memory_now, value("memory.swap.max"))?));
            }
            (None, None) => {}
        }
        if let Some(text) = &self.cpus {
            changes.push(("cpu.max", parse_cpus(text)?));
        }
        if let Some(text) = &self.pids_limit {
            changes.push(("pids.max", parse_pids(text)?));
        }
        Ok(changes)
        // ANCHOR_END: day14_task4_wanted_solution
    }
    // ANCHOR_END: wanted
}

/// The limit of swap, where the limit of memory alone becomes `memory`, as `text` says. What both
/// are together stays as it is, if it was asked for.
fn swap(text: &str, memory: Option<u64>, before: Option<u64>, swap: Option<&str>) -> Result<Option<String>> {
    let (Some(memory), Some(swap)) = (memory, swap) else {
        // No limit of memory, so none of swap; or it is the first one, as with run.
        return Ok(memory.map(|_| "0".into()));
    };
    match (before, swap.parse::<u64>()) {
        (Some(before), Ok(swap @ 1..)) => match (before + swap).checked_sub(memory) {
            Some(swap) => Ok(Some(swap.to_string())),
            None => bail!(
                "--memory {text}: that is more than memory and swap together, which are {} bytes; change --memory-swap \
                 at the same time",
                before + swap
            ),
        },
        _ => Ok(Some(swap.into())),
    }
}

/// The limits in the record, changed. What is no limit is not in the list.
fn plan(record: &mut Record, changes: &Changes) {
    let limits = &mut record.plan.limits;
    for (file, value) in changes {
        match (limits.iter_mut().find(|(name, _)| name == file), value) {
            (Some(limit), Some(value)) => limit.1 = value.clone(),
            (None, Some(value)) => limits.push((file.to_string(), value.clone())),
            (_, None) => limits.retain(|(name, _)| name != file),
        }
    }
}

/// It is an error if the container needs more memory at this moment than it is to have: the kernel
/// would take the limit, and kill until it is kept. What it has of files, the kernel can drop.
/// (cgroup-v2, "memory.max", "memory.stat")
fn must_fit(cgroup: &Path, changes: &Changes) -> Result<()> {
    let limit =
        |file: &str| changes.iter().find(|(name, _)| *name == file).and_then(|(_, value)| value.clone());
    let Some(limit_of_memory) = limit("memory.max").and_then(|text| text.parse::<u64>().ok()) else {
        return Ok(());
    };
    let text = |file: &str| {
        String::from_utf8_lossy(&files::read(cgroup.join(file)).unwrap_or_default()).into_owned()
    };
    let statistics = text("memory.stat");
    let of = |key: &str| {
        let line = statistics
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse::<u64>().ok());
        line.unwrap_or(0)
    };
    let can_be_dropped = of("active_file") + of("inactive_file") + of("slab_reclaimable");
    let used = text("memory.current").trim().parse::<u64>().unwrap_or(0).saturating_sub(can_be_dropped);
    let has_swap = limit("memory.swap.max").is_none_or(|swap| swap != "0");
    if used > limit_of_memory && !has_swap {
        bail!(
            "it needs {used} bytes of memory at this moment, and with a limit of {limit_of_memory} the kernel would \
             kill it; allow more, or stop it first"
        );
    }
    Ok(())
}

// ANCHOR: write_all
/// Writes all of `changes` into the files of `cgroup`, or none: where one is refused, those before
/// it get back what was in them. Returns that.
fn write_all(cgroup: &Path, changes: &Changes) -> Result<Vec<(&'static str, String)>> {
    // ANCHOR: day14_task4_write_all_solution
    let mut done: Vec<(&'static str, String)> = Vec::new();
    for (file, value) in changes {
        let path = cgroup.join(file);
        let old = match files::read(&path) {
            // A kernel without swap has no limit for it, and needs none.
            Err(error) if error.kind() == ErrorKind::NotFound && *file == "memory.swap.max" => continue,
            old => old.map(|old| String::from_utf8_lossy(&old).trim_end().to_string()),
        };
        let value = value.as_deref().unwrap_or("max");
        let describe =
            || (format!("write {value} > {}", path.display()), format!("echo {value} > {}", shell(&path)));
        let written = old
            .map_err(|error| missing(error, file))
            .and_then(|old| step(DAY, describe, || files::write(&path, value)).map(|()| old));
        match written {
            Ok(old) => done.push((file, old)),
            Err(error) => {
                give_back(cgroup, &done);
                return Err(error);
            }
        }
    }
    Ok(done)
    // ANCHOR_END: day14_task4_write_all_solution
}
// ANCHOR_END: write_all

/// Writes back what was in the files, the last one first.
fn give_back(cgroup: &Path, old: &[(&'static str, String)]) {
    for (file, old) in old.iter().rev() {
        let _ = files::write(cgroup.join(file), old);
    }
}

fn missing(error: Error, file: &str) -> anyhow::Error {
    let controller = file.split('.').next().unwrap_or_default();
    match error.kind() {
        ErrorKind::NotFound => anyhow::anyhow!(
            "its cgroup has no file {file}, for it was started without the controller {controller}; start it again, \
             and run --help says with which flag"
        ),
        _ => anyhow::Error::new(error).context(format!("read {file}")),
    }
}
