//! Day 18: the commands that look at containers, and that change what they may use.

use std::io::{Read, stdin};
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::error::Result;
use crate::files;
use crate::metadata::output::{columns, print, show};

use super::spec::read_json;
use super::spec::resources::Resources;
use super::store::{Kept, Status, Store};
use super::{cgroup, resources, systemd};

/// Prints how a container fares.
pub fn state(store: &Store, id: &str) -> Result<u8> {
    let (_, kept) = store.look(id)?;
    print(&format!("{}\n", serde_json::to_string_pretty(&kept.state(kept.status()?))?))
}

/// Prints all containers.
pub fn list(store: &Store, as_json: bool, quiet: bool) -> Result<u8> {
    let all: Vec<(Kept, Status)> = store
        .list()
        .into_iter()
        .map(|kept| kept.status().map(|status| (kept, status)))
        .collect::<Result<_>>()?;
    if quiet {
        return print(&all.iter().map(|(kept, _)| format!("{}\n", kept.id)).collect::<String>());
    }
    if as_json {
        let states: Vec<Value> = all.iter().map(|(kept, status)| kept.state(*status)).collect();
        return print(&format!("{}\n", Value::from(states)));
    }
    let row = |(kept, status): &(Kept, Status)| {
        let pid = kept.state(*status)["pid"].to_string();
        vec![
            kept.id.clone(),
            pid,
            status.word().into(),
            kept.bundle.display().to_string(),
            kept.created.to_string(),
        ]
    };
    print(&columns(&["ID", "PID", "STATUS", "BUNDLE", "CREATED"], &all.iter().map(row).collect::<Vec<_>>()))
}

/// Prints the processes of a container: their numbers, or what ps(1) says of them.
pub fn ps(store: &Store, id: &str, as_json: bool, words: &[String]) -> Result<u8> {
    let (_, kept) = store.look(id)?;
    let mut pids = kept.cgroup.as_deref().map(cgroup::processes).unwrap_or_default();
    if pids.is_empty() {
        pids.extend(kept.process()?.map(|process| process.pid));
    }
    if as_json {
        return print(&format!("{}\n", Value::from(pids)));
    }
    let words = if words.is_empty() { &["-ef".to_string()][..] } else { words };
    let output = Command::new("ps").args(words).output().context("call ps(1)")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    let column = head.split_whitespace().position(|name| name == "PID");
    let Some(column) = column else { bail!("ps {words:?} prints no column PID; expected options that do") };
    let is_its = |line: &&str| {
        line.split_whitespace()
            .nth(column)
            .and_then(|pid| pid.parse().ok())
            .is_some_and(|pid| pids.contains(&pid))
    };
    let rows: String = lines.filter(is_its).map(|line| format!("{line}\n")).collect();
    print(&format!("{head}\n{rows}"))
}

/// Changes the limits of a container: those that `file` says, `-` is stdin, and those of `more`.
pub fn update(store: &Store, id: &str, file: Option<&Path>, more: Resources) -> Result<u8> {
    let stored = store.open(id)?;
    let mut asked = match file {
        None => more,
        Some(path) => {
            let mut text = Vec::new();
            if path == Path::new("-") {
                stdin().read_to_end(&mut text).context("read stdin")?;
            } else {
                text = read_json(path)?;
            }
            serde_json::from_slice(&text).context("--resources: expected linux.resources, in JSON")?
        }
    };
    let place = stored.kept.cgroup.as_ref().context("it has no cgroup, so it has no limits")?;
    complete(&mut asked, place);
    let limits = resources::files(&asked)?;
    if let Some(unit) = &stored.kept.scope {
        systemd::set_limits(unit, &limits)?;
    }
    cgroup::limit(place, &limits)?;
    Ok(0)
}

/// Some limits share a file, or a number: what is not asked for stays as it is.
fn complete(asked: &mut Resources, place: &Path) {
    let text = |name: &str| text_of(place, name);
    if let Some(cpu) = &mut asked.cpu
        && (cpu.quota.is_some() || cpu.period.is_some())
        && let Some((quota, period)) = text("cpu.max").trim().split_once(' ')
    {
        // "max" is no number: then it is without a limit.
        cpu.quota = cpu.quota.or(Some(quota.parse().unwrap_or(-1)));
        cpu.period = cpu.period.or(period.parse().ok());
    }
    if let Some(memory) = &mut asked.memory {
        match (memory.limit, memory.swap) {
            // Swap is no limit either then.
            (Some(..0), None) => memory.swap = Some(-1),
            (None, Some(1..)) => memory.limit = text("memory.max").trim().parse().ok(),
            _ => {}
        }
    }
}

/// Prints what a container uses: once, or every `interval`.
pub fn events(store: &Store, id: &str, once: bool, interval: Duration) -> Result<u8> {
    loop {
        let (_, kept) = store.look(id)?;
        if kept.status()? == Status::Stopped {
            if once {
                bail!("container {id}: container not running");
            }
            return Ok(0);
        }
        let stats = kept.cgroup.as_deref().map(stats).unwrap_or_default();
        if !show(&format!("{}\n", json!({"type": "stats", "id": id, "data": stats})))? || once {
            return Ok(0);
        }
        sleep(interval);
    }
}

/// What is in a file of the cgroup `place`; nothing, if there is none.
fn text_of(place: &Path, name: &str) -> String {
    String::from_utf8_lossy(&files::read(place.join(name)).unwrap_or_default()).into_owned()
}

fn stats(place: &Path) -> Value {
    let text = |name: &str| text_of(place, name);
    let number = |name: &str| text(name).trim().parse::<u64>().unwrap_or(0);
    let field = |file: &str, name: &str| {
        let line =
            text(file).lines().find_map(|line| line.strip_prefix(&format!("{name} ")).map(String::from));
        line.and_then(|number| number.parse::<u64>().ok()).unwrap_or(0)
    };
    let nanoseconds = |name: &str| field("cpu.stat", name) * 1000;
    json!({
        "cpu": {
            "usage": {
                "total": nanoseconds("usage_usec"),
                "kernel": nanoseconds("system_usec"),
                "user": nanoseconds("user_usec"),
            },
            "throttling": {
                "periods": field("cpu.stat", "nr_periods"),
                "throttledPeriods": field("cpu.stat", "nr_throttled"),
                "throttledTime": nanoseconds("throttled_usec"),
            },
        },
        "memory": {
            "usage": {"limit": number("memory.max"), "usage": number("memory.current"), "max": number("memory.peak"), "failcnt": 0},
            "cache": field("memory.stat", "file"),
        },
        "pids": {"current": number("pids.current"), "limit": number("pids.max")},
    })
}
