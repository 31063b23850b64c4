//! Day 7: cgroups, version 2. *Can I limit memory?*
//!
//! A namespace decides what a process sees, a cgroup how much it may use. A cgroup
//! is a directory, and its limits are files in it. The kernel enforces them:
//! nobody here watches anything. (cgroups(7); kernel: admin-guide/cgroup-v2)

pub mod limits;
pub mod place;
pub mod stats;

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::container::{Container, Mechanism};
use crate::error::{self, Result};
use crate::explain::{shell, step};
use crate::files;
use crate::metadata::traces;
use crate::rootfs::mount::{Dir, HARMLESS, READ_ONLY, mount};

use self::limits::{Limits, parse_cpus, parse_memory, parse_pids, parse_swap};

const DAY: u8 = 7;

/// How many cgroups a container may have within its own, and how deep. Each is memory of
/// the kernel's, and all must be removed in the end. It is far more than programs need that
/// make cgroups: systemd, another container engine.
const BOUNDS: [(&str, &str); 2] = [("cgroup.max.depth", "32"), ("cgroup.max.descendants", "1024")];

/// The flags of day 7.
#[derive(Debug, clap::Args)]
pub struct Cgroups {
    /// Memory limit: bytes, or a number with k, m or g, at least 6m [0: no limit]
    #[arg(short, long, value_name = "SIZE", allow_hyphen_values = true)]
    memory: Option<String>,

    /// Limit for memory and swap together [-1: any amount of swap; not given: no swap]
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory_swap: Option<String>,

    /// Limit for processor time: 0.5 is half of one processor [0: no limit]
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    cpus: Option<String>,

    /// Limit for processes and threads [-1: no limit]
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pids_limit: Option<String>,

    /// The container's cgroup.
    #[arg(skip)]
    cgroup: Option<PathBuf>,
}

// ANCHOR: mechanism
impl Mechanism for Cgroups {
    fn prepare(&mut self, container: &mut Container) -> Result<()> {
        let limits = self.limits()?;
        container.plan.limits =
            limits.iter().map(|(file, value)| (file.to_string(), value.clone())).collect();
        if container.parts.only_made {
            return Ok(());
        }
        let (Some(dir), Some(id)) = (&container.parts.dir, &container.parts.id) else { return Ok(()) };
        // No limit was asked for: then no other place is searched.
        if limits.is_empty() && !place::is_usual() {
            return Ok(());
        }
        let place = match place::find(&controllers_of(&limits)) {
            Ok(place) => place,
            // Nor need this host be able to keep one.
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
        bound(&cgroup);
        write_limits(&cgroup, &limits)?;
        container.parts.cgroup = Some(open(&cgroup)?);
        Ok(())
    }

    fn enter(&mut self, container: &mut Container) -> Result<()> {
        match &self.cgroup {
            Some(_) => show_own_cgroup_alone(container.parts.sys.take()),
            None => Ok(()),
        }
    }

    fn cleanup(&mut self, container: &mut Container) -> Result<()> {
        let Some(cgroup) = self.cgroup.take() else { return Ok(()) };
        let kills = oom_kills(&cgroup);
        let ran_out = matches!(kills, Ok(1..)) && had_run_out(&cgroup);
        let limit = if ran_out { limit_of(&cgroup, self.memory.take()) } else { None };
        // Also when that could not be read: it counts only while it is there. And what cannot
        // be removed is a complaint: the command has had its end, whatever it was.
        if let Err(error) = traces::remove_cgroup(&cgroup) {
            let error = error.context("the container's cgroup is left; tiny-docker rm tries it again");
            container.end.complain(&error);
        }
        let Some((_, code)) = container.end.exit else { return Ok(()) };
        match kills {
            Ok(kills) => container.end.oom_killed = Some(kills > 0),
            Err(error) => container.end.complain(&error),
        }
        if container.end.oom_killed == Some(true) {
            let words = in_words(code == 137, limit.as_deref());
            // If nobody reads it, it is still in the record.
            error::say(&words);
            container.end.reason = Some(words);
        }
        Ok(())
    }
}
// ANCHOR_END: mechanism

impl Cgroups {
    // ANCHOR: limits
    /// The flags as what the kernel's files take. What is no limit is not in the list.
    fn limits(&self) -> Result<Limits> {
        // ANCHOR: day7_task1_limits_solution
        let memory = self.memory.as_deref().map(parse_memory).transpose()?.flatten();
        let swap = parse_swap(self.memory_swap.as_deref().unwrap_or("0"), memory)?;
        let cpus = self.cpus.as_deref().map(parse_cpus).transpose()?.flatten();
        let processes = self.pids_limit.as_deref().map(parse_pids).transpose()?.flatten();
        let files = [
            ("memory.max", memory.map(|bytes| bytes.to_string())),
            ("memory.swap.max", swap),
            ("cpu.max", cpus),
            ("pids.max", processes),
        ];
        Ok(files.into_iter().filter_map(|(file, content)| Some((file, content?))).collect())
        // ANCHOR_END: day7_task1_limits_solution
    }
    // ANCHOR_END: limits
}

/// Why the command, or one of its processes, was killed. `limit` is the container's, if
/// it was that one that was reached.
fn in_words(command_itself: bool, limit: Option<&str>) -> String {
    let whom = if command_itself { "the command" } else { "a process of the container" };
    match limit {
        Some(limit) => format!(
            "out of memory: {whom} needed more than the limit of {limit}, and the kernel killed it; allow more: --memory"
        ),
        None => format!(
            "out of memory: the machine, or a cgroup above the container's, had none left, and the kernel killed {whom}"
        ),
    }
}

/// The limit of memory that `cgroup` has by now, as it was `typed`, or in bytes where it has been
/// changed since. The kernel keeps whole pages.
fn limit_of(cgroup: &Path, typed: Option<String>) -> Option<String> {
    const PAGE: u64 = 4096;
    let now =
        String::from_utf8(files::read(cgroup.join("memory.max")).ok()?).ok()?.trim().parse::<u64>().ok()?;
    let is_it =
        |text: &String| parse_memory(text).ok().flatten().is_some_and(|typed| typed / PAGE == now / PAGE);
    Some(typed.filter(is_it).unwrap_or(format!("{now} bytes")))
}

/// Which controllers `limits` need: what stands before the dot.
fn controllers_of(limits: &Limits) -> Vec<&'static str> {
    limits.iter().filter_map(|(file, _)| file.split('.').next()).collect()
}

fn make(cgroup: &Path) -> Result<()> {
    let describe = || (format!("mkdir({cgroup:?})"), format!("mkdir {}", shell(cgroup)));
    step(DAY, describe, || fs::create_dir(cgroup))
}

/// Writes `content` into the file `name` of `cgroup`.
fn write(cgroup: &Path, name: &str, content: &str) -> Result<()> {
    let file = cgroup.join(name);
    let describe =
        || (format!("write {content} > {}", file.display()), format!("echo {content} > {}", shell(&file)));
    step(DAY, describe, || match files::write(&file, content) {
        // A kernel without swap has no limit for it, and needs none.
        Err(error) if error.kind() == ErrorKind::NotFound && name == "memory.swap.max" => Ok(()),
        outcome => outcome,
    })
}

// ANCHOR: bound
/// Bounds what the container can make of cgroups within its own. Nobody has asked for that,
/// so a container runs without it too. (cgroup-v2, "cgroup.max.depth")
fn bound(cgroup: &Path) {
    for (name, most) in BOUNDS {
        let _ = write(cgroup, name, most);
    }
}
// ANCHOR_END: bound

// ANCHOR: write_limits
/// Writes the limits, before anybody is in `cgroup`: there is no moment without them.
fn write_limits(cgroup: &Path, limits: &Limits) -> Result<()> {
    // ANCHOR: day7_task3_write_limits_solution
    for (name, content) in limits {
        write(cgroup, name, content)?;
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
pub fn open(cgroup: &Path) -> Result<OwnedFd> {
    // ANCHOR: day7_task2_open_solution
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(cgroup);
    opened.map(File::into).with_context(|| format!("open {cgroup:?}"))
    // ANCHOR_END: day7_task2_open_solution
}
// ANCHOR_END: open

// ANCHOR: enter
/// Makes this process's cgroup the root of all that it sees, and shows that,
/// read-only, at /sys/fs/cgroup. (cgroup_namespaces(7))
fn show_own_cgroup_alone(own_sys: Option<OwnedFd>) -> Result<()> {
    // ANCHOR: day7_task3_show_own_cgroup_alone_solution
    // Only now, in our cgroup: it is this process's cgroup that becomes the root.
    let describe = || ("unshare(CLONE_NEWCGROUP)".into(), "unshare --cgroup".into());
    step(DAY, describe, || unshare(CloneFlags::CLONE_NEWCGROUP))?;
    let sys = match own_sys {
        Some(sys) => Dir::new(sys, "/sys"),
        None => {
            // The host's is mounted there, and shows all. In this mount namespace it goes.
            let describe =
                || (r#"umount2("/sys/fs/cgroup", MNT_DETACH)"#.into(), "umount -l /sys/fs/cgroup".into());
            step(DAY, describe, || match umount2("/sys/fs/cgroup", MntFlags::MNT_DETACH) {
                // Nothing is mounted there: the host's is elsewhere.
                Err(Errno::EINVAL) => Ok(()),
                outcome => outcome,
            })?;
            Dir::open("/sys").context("open /sys")?
        }
    };
    // Read-only: whoever may write there sets limits, its own included.
    mount(DAY, "cgroup2", &sys, "/sys/fs/cgroup", HARMLESS | READ_ONLY, "").map(drop)
    // ANCHOR_END: day7_task3_show_own_cgroup_alone_solution
}
// ANCHOR_END: enter

// ANCHOR: oom
/// How many processes of `cgroup` the kernel killed because memory ran out. It
/// counts; nobody else has seen it. (cgroup-v2, "memory.events")
fn oom_kills(cgroup: &Path) -> Result<u64> {
    // ANCHOR: day7_task4_oom_kills_solution
    let events = match files::read(cgroup.join("memory.events")) {
        Ok(events) => String::from_utf8(events)?,
        // No memory controller here.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error).context("read memory.events"),
    };
    let kills = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
    kills.unwrap_or("0").parse().context("read memory.events")
    // ANCHOR_END: day7_task4_oom_kills_solution
}
// ANCHOR_END: oom

/// Whether it was `cgroup` itself that had no memory left, and not one above it, or the
/// machine. (cgroup-v2, "memory.events.local"; kernels before 5.2 cannot tell)
fn had_run_out(cgroup: &Path) -> bool {
    let events = files::read(cgroup.join("memory.events.local")).unwrap_or_default();
    !events.split(|byte| *byte == b'\n').any(|line| line == b"oom 0")
}
