//! Day 7: `stats`. The kernel counts what each cgroup uses; here it is read.

use std::fmt::Write as _;
use std::io::{IsTerminal, stdout};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::json;

use crate::error::{self, COMMAND_FAILED, Result};
use crate::files;
use crate::metadata::output::{Format, columns, show};
use crate::metadata::record::{Record, Status};
use crate::metadata::state::State;
use crate::metadata::traces;

/// The time between two looks: processor time is a rate.
const INTERVAL: Duration = Duration::from_secs(1);

/// Show what containers use, until Ctrl-C
#[derive(Debug, clap::Args)]
pub struct Stats {
    #[command(flatten)]
    state: State,

    /// Print once, and exit
    #[arg(long)]
    no_stream: bool,

    /// How to print it; json: one line for each container, sizes in bytes
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,

    /// Their ids or names (without any: all that run)
    containers: Vec<String>,
}

/// What one cgroup uses, at one moment.
#[derive(Debug, Clone, Copy)]
struct Usage {
    at: Instant,
    /// Processor time so far.
    processor: Duration,
    /// Bytes, without what the kernel can drop at once: file pages long not used.
    memory: u64,
    /// Bytes; `None`: no limit.
    memory_limit: Option<u64>,
    processes: u64,
}

impl Stats {
    /// Prints until it is stopped, or once. Returns the exit code: 1 if a container
    /// is unknown or does not run.
    pub fn execute(self) -> Result<u8> {
        let mut named = Vec::new();
        let mut code = error::for_each(&self.containers, |word| {
            named.push(self.one(word)?);
            Ok(())
        });
        if !self.containers.is_empty() && named.is_empty() {
            return Ok(code);
        }
        if self.containers.is_empty() && self.complain()? {
            code = COMMAND_FAILED;
        }
        loop {
            // Those that were started or have ended meanwhile, too.
            let records = if self.containers.is_empty() { self.all()? } else { named.clone() };
            let before: Vec<_> = records.iter().map(|record| usage(&self.state, record)).collect();
            sleep(INTERVAL);
            let after: Vec<_> = records.iter().map(|record| usage(&self.state, record)).collect();
            let rows: Vec<_> = records.iter().zip(before.into_iter().zip(after)).collect();
            let text = match self.format {
                Format::Table => table(&rows),
                Format::Json => lines(&rows),
            };
            // Over the last one, as top does.
            let clear = !self.no_stream && self.format == Format::Table && stdout().is_terminal();
            let is_read = show(&if clear { format!("\x1b[H\x1b[J{text}") } else { text })?;
            if self.no_stream || !is_read {
                return Ok(code);
            }
        }
    }

    fn one(&self, word: &str) -> Result<Record> {
        let record = self.state.settle(self.state.find(word)?)?;
        if record.status != Status::Running {
            bail!("container {word} is not running; tiny-docker ps lists those that are");
        }
        if traces::cgroup_of(&self.state.dir(&record.id))?.is_none() {
            bail!(
                "container {word} has no cgroup, so nothing counts what it uses; there was no place for one when it \
                 was started, and run --memory says why"
            );
        }
        Ok(record)
    }

    /// Says of what runs, or may run, that not all is known. Returns whether there is any.
    fn complain(&self) -> Result<bool> {
        let listing = self.state.list()?;
        listing.complaints.iter().for_each(error::say);
        let mut any = false;
        for record in &listing.records {
            let why = match (record.process(), &record.unreadable) {
                (Err(error), _) => format!("container {} may run: {error:#}", record.title()),
                (Ok(Some(_)), Some(why)) => format!("{}: {why}", self.state.dir(&record.id).display()),
                _ => continue,
            };
            error::say(why);
            any = true;
        }
        Ok(any)
    }

    fn all(&self) -> Result<Vec<Record>> {
        let running = |record: &Record| record.process().is_ok_and(|process| process.is_some());
        Ok(self.state.list()?.records.into_iter().filter(running).collect())
    }
}

/// `None`: it has no cgroup, or none any more.
fn usage(state: &State, record: &Record) -> Option<Usage> {
    read_usage(&traces::cgroup_of(&state.dir(&record.id)).ok()??).ok()
}

// ANCHOR: usage
/// Reads what `cgroup` uses. (cgroup-v2, "cpu.stat", "memory.current", "memory.stat")
fn read_usage(cgroup: &Path) -> Result<Usage> {
    // ANCHOR: day7_task5_read_usage_solution
    let read = |name: &str| {
        let file: PathBuf = cgroup.join(name);
        let text = files::read(&file).with_context(|| format!("read {file:?}"))?;
        String::from_utf8(text).with_context(|| format!("read {file:?}"))
    };
    let number = |name: &str| read(name).ok().and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0);
    let of_key = |text: &str, key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok());
        line.unwrap_or(0)
    };
    let inactive = of_key(&read("memory.stat").unwrap_or_default(), "inactive_file");
    Ok(Usage {
        at: Instant::now(),
        processor: Duration::from_micros(of_key(&read("cpu.stat")?, "usage_usec")),
        // As Docker counts: a file that was read once is in the cache, and no need.
        memory: number("memory.current").saturating_sub(inactive),
        // The word "max" is no number.
        memory_limit: read("memory.max").ok().and_then(|text| text.trim().parse().ok()),
        processes: number("pids.current"),
    })
    // ANCHOR_END: day7_task5_read_usage_solution
}
// ANCHOR_END: usage

// ANCHOR: percent
/// The processor time used between two looks, in hundredths of *one* processor: with
/// two busy it is 200.
fn processor_percent(before: &Usage, after: &Usage) -> f64 {
    // ANCHOR: day7_task5_processor_percent_solution
    let used = after.processor.saturating_sub(before.processor);
    100.0 * used.as_secs_f64() / (after.at - before.at).as_secs_f64()
    // ANCHOR_END: day7_task5_processor_percent_solution
}
// ANCHOR_END: percent

type Row<'a> = (&'a Record, (Option<Usage>, Option<Usage>));

fn table(rows: &[Row]) -> String {
    let head = ["CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "PIDS"];
    let cells = rows.iter().map(|(record, usage)| {
        let name = record.name.clone().unwrap_or_default();
        let (Some(before), Some(after)) = usage else {
            return [&record.id, name.as_str(), "--", "-- / --", "--", "--"].map(str::to_string).to_vec();
        };
        let limit = after.memory_limit.map_or("unlimited".into(), size);
        vec![
            record.id.clone(),
            name,
            format!("{:.2}%", processor_percent(before, after)),
            format!("{} / {limit}", size(after.memory)),
            memory_percent(after).map_or("--".into(), |percent| format!("{percent:.2}%")),
            after.processes.to_string(),
        ]
    });
    columns(&head, &cells.collect::<Vec<_>>())
}

fn lines(rows: &[Row]) -> String {
    let mut text = String::new();
    for (record, usage) in rows {
        let (Some(before), Some(after)) = usage else { continue };
        let line = json!({
            "id": record.id,
            "name": record.name,
            "cpu_percent": processor_percent(before, after),
            "memory_usage": after.memory,
            "memory_limit": after.memory_limit,
            "memory_percent": memory_percent(after),
            "pids": after.processes,
        });
        let _ = writeln!(text, "{line}");
    }
    text
}

fn memory_percent(usage: &Usage) -> Option<f64> {
    usage.memory_limit.map(|limit| 100.0 * usage.memory as f64 / limit as f64)
}

/// A size as Docker prints it: four digits, and a unit.
fn size(bytes: u64) -> String {
    let (mut number, mut unit) = (bytes as f64, 0);
    while number >= 1024.0 && unit < 5 {
        number /= 1024.0;
        unit += 1;
    }
    let decimals = match number {
        _ if number.fract() == 0.0 => 0,
        ..10.0 => 3,
        ..100.0 => 2,
        ..1000.0 => 1,
        _ => 0,
    };
    let digits = format!("{number:.decimals$}");
    let digits =
        if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { &digits };
    format!("{digits}{}", ["B", "KiB", "MiB", "GiB", "TiB", "PiB"][unit])
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_have_four_digits_and_a_unit() {
        for (bytes, text) in
            [(0, "0B"), (1023, "1023B"), (1 << 20, "1MiB"), (1_294_336, "1.234MiB"), (134_217_728, "128MiB")]
        {
            assert_eq!(size(bytes), text);
        }
    }
}
