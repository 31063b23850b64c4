//! Day 7: cgroups, version 2. *Can I limit memory?*
//!
//! A namespace decides what a process sees, a cgroup how much it may use. A cgroup
//! is a directory, and its limits are files in it. The kernel enforces them:
//! nobody here watches anything. (cgroups(7); kernel: admin-guide/cgroup-v2)

pub mod place;
pub mod stats;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::container::{Container, Mechanism};
use crate::error::{self, Result};
use crate::explain::step;
use crate::metadata::traces;
use crate::namespaces::mount::{HARMLESS, mount};

const DAY: u8 = 7;

/// Docker's: with less, a program does not even start.
const LEAST_MEMORY: u64 = 6 << 20;

/// The flags of day 7.
#[derive(Debug, clap::Args)]
pub struct Cgroups {
    /// The most memory: bytes, or a number with k, m or g (at least 6m)
    #[arg(short, long, value_name = "SIZE", allow_hyphen_values = true)]
    memory: Option<String>,

    /// The most memory and swap together; -1: any amount of swap (without it: no swap)
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory_swap: Option<String>,

    /// The most processor time; 0.5 is half of one processor's
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    cpus: Option<String>,

    /// The most processes and threads; -1: any number
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pids_limit: Option<String>,

    /// The container's cgroup.
    #[arg(skip)]
    cgroup: Option<PathBuf>,
}

/// What is to be written into a cgroup's files: for each its name and its content.
type Limits = Vec<(&'static str, String)>;

// ANCHOR: mechanism
impl Mechanism for Cgroups {
    fn prepare(&mut self, container: &mut Container) -> Result<()> {
        let limits = self.limits()?;
        container.plan.limits =
            limits.iter().map(|(file, value)| (file.to_string(), value.clone())).collect();
        let (Some(dir), Some(id)) = (&container.parts.dir, &container.parts.id) else { return Ok(()) };
        let place = match place::find(&controllers_of(&limits)) {
            Ok(place) => place,
            // No limit was asked for, so this host need not be able to keep one.
            Err(_) if limits.is_empty() => return Ok(()),
            Err(error) => return Err(error),
        };
        let cgroup = place.join(format!("tiny-docker-{id}"));
        traces::note_cgroup(dir, &cgroup)?;
        match make(&cgroup) {
            Err(_) if limits.is_empty() => return Ok(()),
            made => made?,
        }
        self.cgroup = Some(cgroup.clone());
        write_limits(&cgroup, &limits)?;
        container.parts.cgroup = Some(open(&cgroup)?);
        Ok(())
    }

    fn enter(&mut self, container: &mut Container) -> Result<()> {
        match &self.cgroup {
            Some(_) => show_own_cgroup_alone(container.plan.rootfs.is_some()),
            None => Ok(()),
        }
    }

    fn cleanup(&mut self, container: &mut Container) -> Result<()> {
        let (Some(cgroup), Some(dir)) = (self.cgroup.take(), &container.parts.dir) else { return Ok(()) };
        let kills = oom_kills(&cgroup);
        // Also when that could not be read: it counts only while it is there.
        traces::remove_cgroup_of(dir)?;
        let killed = kills? > 0;
        if container.end.exit.is_some() {
            container.end.oom_killed = Some(killed);
            if killed {
                let words = self.in_words(container.end.exit.is_some_and(|(_, code)| code == 137));
                // If nobody reads it, it is still in the record.
                error::say(&words);
                container.end.reason = Some(words);
            }
        }
        Ok(())
    }
}
// ANCHOR_END: mechanism

impl Cgroups {
    // ANCHOR: limits
    /// The flags as what the kernel's files take.
    fn limits(&self) -> Result<Limits> {
        // ANCHOR: day7_task1_limits_solution
        let mut limits = Limits::new();
        let memory = self.memory.as_deref().map(|text| parse_size("--memory", text)).transpose()?;
        match memory {
            Some(memory) if memory < LEAST_MEMORY => bail!(
                "--memory {}: too little for a program to start at all; expected at least 6m",
                self.memory.as_deref().unwrap_or_default()
            ),
            Some(memory) => limits.push(("memory.max", memory.to_string())),
            None => {}
        }
        match (memory, self.memory_swap.as_deref()) {
            (None, Some(_)) => bail!("--memory-swap is memory and swap together, and needs --memory as well"),
            (None, None) => {}
            // Without this, what is over the limit would go to the swap, and the
            // limit be none.
            (Some(_), None) => limits.push(("memory.swap.max", "0".into())),
            (Some(_), Some("-1")) => limits.push(("memory.swap.max", "max".into())),
            (Some(memory), Some(text)) => match parse_size("--memory-swap", text)?.checked_sub(memory) {
                Some(swap) => limits.push(("memory.swap.max", swap.to_string())),
                None => bail!(
                    "--memory-swap {text}: memory and swap together are less than --memory alone; expected at least as much"
                ),
            },
        }
        if let Some(text) = &self.cpus {
            limits.push(("cpu.max", parse_cpus(text)?));
        }
        if let Some(text) = &self.pids_limit {
            match text.parse::<i64>() {
                Ok(-1 | 0) => {}
                Ok(number @ 1..) => limits.push(("pids.max", number.to_string())),
                _ => {
                    bail!("--pids-limit {text:?}: expected a number of processes, such as 64, or -1 for any")
                }
            }
        }
        Ok(limits)
        // ANCHOR_END: day7_task1_limits_solution
    }
    // ANCHOR_END: limits

    /// Why the command, or one of its processes, was killed.
    fn in_words(&self, command_itself: bool) -> String {
        let whom = if command_itself { "the command" } else { "a process of the container" };
        match self.memory.as_deref() {
            Some(limit) => format!(
                "out of memory: {whom} needed more than the limit of {limit}, and the kernel killed it; allow more: --memory"
            ),
            None => format!("out of memory: the machine had none left, and the kernel killed {whom}"),
        }
    }
}

// ANCHOR: size
/// A size as Docker takes it: a number, decimals too, and a unit of b, k, m, g, t
/// or p, each 1024 times the one before; `128m`, `128mb`, `128MiB` are the same.
fn parse_size(flag: &str, text: &str) -> Result<u64> {
    // ANCHOR: day7_task1_parse_size_solution
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text[digits.len()..].to_ascii_lowercase();
    let stem = unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(&unit);
    let power = match stem {
        "" if !unit.starts_with('i') => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => -1,
    };
    let number = digits.trim_end().parse::<f64>().ok().filter(|number| *number >= 0.0 && number.is_finite());
    match (number, power) {
        (Some(number), 0..) => Ok((number * 1024f64.powi(power)) as u64),
        _ => bail!("{flag} {text:?}: expected a size such as 128m: a number, and b, k, m or g"),
    }
    // ANCHOR_END: day7_task1_parse_size_solution
}
// ANCHOR_END: size

// ANCHOR: cpus
/// `--cpus` as cpu.max has it: so many microseconds of processor time in each
/// period of 100,000. With several processors it may be more than the period.
fn parse_cpus(text: &str) -> Result<String> {
    // ANCHOR: day7_task1_parse_cpus_solution
    const PERIOD: f64 = 100_000.0;
    let there = std::thread::available_parallelism().map_or(1, |count| count.get());
    match text.parse::<f64>() {
        // The kernel refuses less than a hundredth: it switches no faster.
        Ok(cpus) if (0.01..=there as f64).contains(&cpus) => {
            Ok(format!("{} {PERIOD}", (cpus * PERIOD).round()))
        }
        _ => bail!("--cpus {text:?}: expected a number from 0.01 to {there}, the processors of this machine"),
    }
    // ANCHOR_END: day7_task1_parse_cpus_solution
}
// ANCHOR_END: cpus

/// Which controllers `limits` need: what stands before the dot.
fn controllers_of(limits: &Limits) -> Vec<&'static str> {
    limits.iter().filter_map(|(file, _)| file.split('.').next()).collect()
}

fn make(cgroup: &Path) -> Result<()> {
    let describe = || (format!("mkdir({cgroup:?})"), format!("mkdir {}", cgroup.display()));
    step(DAY, describe, || DirBuilder::new().mode(0o755).create(cgroup))
}

// ANCHOR: write_limits
/// Writes the limits, before anybody is in `cgroup`: there is no moment without them.
fn write_limits(cgroup: &Path, limits: &Limits) -> Result<()> {
    // ANCHOR: day7_task3_write_limits_solution
    for (name, value) in limits {
        let file = cgroup.join(name);
        let describe = || {
            let file = file.display();
            (format!("write {value} > {file}"), format!("echo {value} > {file}"))
        };
        step(DAY, describe, || match fs::write(&file, value) {
            // A kernel without swap has no limit for it, and needs none.
            Err(error) if error.kind() == ErrorKind::NotFound && *name == "memory.swap.max" => Ok(()),
            outcome => outcome,
        })?;
    }
    Ok(())
    // ANCHOR_END: day7_task3_write_limits_solution
}
// ANCHOR_END: write_limits

// ANCHOR: open
/// The cgroup as a file descriptor, for clone3: the child is born in there. To
/// write its process id into cgroup.procs afterwards would be slow, for the kernel
/// must wait until nobody is forking anywhere; and it would come after the child
/// could already have used memory. (clone(2), CLONE_INTO_CGROUP)
fn open(cgroup: &Path) -> Result<std::os::fd::OwnedFd> {
    // ANCHOR: day7_task3_open_solution
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(cgroup);
    opened.map(File::into).with_context(|| format!("open {cgroup:?}"))
    // ANCHOR_END: day7_task3_open_solution
}
// ANCHOR_END: open

// ANCHOR: enter
/// Makes this process's cgroup the root of all that it sees, and shows that,
/// read-only, at /sys/fs/cgroup. (cgroup_namespaces(7))
fn show_own_cgroup_alone(own_root: bool) -> Result<()> {
    // ANCHOR: day7_task3_show_own_cgroup_alone_solution
    // Only now, in our cgroup: it is this process's cgroup that becomes the root.
    let describe = || ("unshare(CLONE_NEWCGROUP)".into(), "unshare --cgroup".into());
    step(DAY, describe, || unshare(CloneFlags::CLONE_NEWCGROUP))?;
    if !own_root {
        // The host's is mounted there, and shows all. In this mount namespace it goes.
        let describe =
            || (r#"umount2("/sys/fs/cgroup", MNT_DETACH)"#.into(), "umount -l /sys/fs/cgroup".into());
        step(DAY, describe, || umount2("/sys/fs/cgroup", MntFlags::MNT_DETACH))?;
    }
    // Read-only: whoever may write there sets limits, its own included.
    mount(DAY, "cgroup2", "/sys/fs/cgroup", HARMLESS | MsFlags::MS_RDONLY, "")
    // ANCHOR_END: day7_task3_show_own_cgroup_alone_solution
}
// ANCHOR_END: enter

// ANCHOR: oom
/// How many processes of `cgroup` the kernel killed because memory ran out. It
/// counts; nobody else has seen it. (cgroup-v2, "memory.events")
fn oom_kills(cgroup: &Path) -> Result<u64> {
    // ANCHOR: day7_task4_oom_kills_solution
    let Ok(events) = fs::read_to_string(cgroup.join("memory.events")) else {
        // No memory controller here.
        return Ok(0);
    };
    let kills = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
    kills.unwrap_or("0").parse().context("read memory.events")
    // ANCHOR_END: day7_task4_oom_kills_solution
}
// ANCHOR_END: oom

#[cfg(test)]
mod tests {
    use super::{parse_cpus, parse_size};

    #[test]
    fn sizes_are_dockers() {
        for (text, bytes) in [
            ("0", 0),
            ("6291456", 6 << 20),
            ("32b", 32),
            ("32k", 32 << 10),
            ("32kb", 32 << 10),
            ("128m", 128 << 20),
            ("128MB", 128 << 20),
            ("128MiB", 128 << 20),
            ("1.5g", 3 << 29),
            ("2t", 2 << 40),
        ] {
            assert_eq!(parse_size("--memory", text).unwrap(), bytes, "{text}");
        }
        for text in ["", "m", "-1", "128x", "128mm", "128 bytes", "ib", "1ib", "1 2m", "nan", "inf", "1e400m"]
        {
            assert!(parse_size("--memory", text).is_err(), "{text}");
        }
    }

    #[test]
    fn processors_are_a_share_of_each_period() {
        assert_eq!(parse_cpus("0.5").unwrap(), "50000 100000");
        assert_eq!(parse_cpus("1").unwrap(), "100000 100000");
        for text in ["0", "-1", "0.001", "4096", "half", "nan"] {
            assert!(parse_cpus(text).is_err(), "{text}");
        }
    }
}
