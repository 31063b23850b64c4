//! Day 18: when a process gets a processor (`process.scheduler`), and of `exec` on which
//! (`process.execCPUAffinity`). (sched(7), config.md)

use anyhow::{Context, bail};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::error::Result;
use crate::explain::step;
use crate::kernel;

use super::DAY;
use super::numbers::{of_flags, of_list, of_word};
use super::spec::process::{Process, Scheduler};

/// The specification's names; `None`: Linux has a number for it, and no such policy.
const POLICIES: [(&str, Option<i32>); 7] = [
    ("SCHED_OTHER", Some(libc::SCHED_OTHER)),
    ("SCHED_FIFO", Some(libc::SCHED_FIFO)),
    ("SCHED_RR", Some(libc::SCHED_RR)),
    ("SCHED_BATCH", Some(libc::SCHED_BATCH)),
    ("SCHED_ISO", None),
    ("SCHED_IDLE", Some(libc::SCHED_IDLE)),
    ("SCHED_DEADLINE", Some(SCHED_DEADLINE)),
];

/// libc does not have it. (Linux, `linux/sched.h`)
const SCHED_DEADLINE: i32 = 6;

const FLAGS: [(&str, i32); 7] = [
    ("SCHED_FLAG_RESET_ON_FORK", libc::SCHED_FLAG_RESET_ON_FORK),
    ("SCHED_FLAG_RECLAIM", libc::SCHED_FLAG_RECLAIM),
    ("SCHED_FLAG_DL_OVERRUN", libc::SCHED_FLAG_DL_OVERRUN),
    ("SCHED_FLAG_KEEP_POLICY", libc::SCHED_FLAG_KEEP_POLICY),
    ("SCHED_FLAG_KEEP_PARAMS", libc::SCHED_FLAG_KEEP_PARAMS),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", libc::SCHED_FLAG_UTIL_CLAMP_MIN),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", libc::SCHED_FLAG_UTIL_CLAMP_MAX),
];

/// The shortest time that SCHED_DEADLINE counts, in nanoseconds. (sched(7))
const SHORTEST: u64 = 1024;

/// Parent: errors, if `process` says anything of this that nobody can do, before anything is made.
pub fn check(process: &Process) -> Result<()> {
    process.scheduler.as_ref().map(attributes).transpose()?;
    for (what, list) in affinities(process) {
        of_list(what, list)?;
    }
    Ok(())
}

/// Child, while it has root's power: becomes what `process.scheduler` says. Errors: sched_setattr(2).
pub fn apply(process: &Process) -> Result<()> {
    let Some(scheduler) = &process.scheduler else { return Ok(()) };
    let attributes = attributes(scheduler)?;
    let describe = || {
        let Scheduler { policy, nice, priority, .. } = scheduler;
        (format!("sched_setattr({policy}, nice {nice}, priority {priority})"), "chrt …, renice …".into())
    };
    step(DAY, describe, || kernel::set_scheduler(attributes))
}

/// As the kernel takes it. Errors: a word that is not known, or numbers that do not go with the policy.
fn attributes(scheduler: &Scheduler) -> Result<libc::sched_attr> {
    let Some(policy) = of_word("process.scheduler.policy", &POLICIES, &scheduler.policy)? else {
        bail!("process.scheduler.policy is {:?}; Linux has none, expected another one", scheduler.policy);
    };
    let flags = of_flags("process.scheduler.flags", &FLAGS, &scheduler.flags)?;
    if !(-20..20).contains(&scheduler.nice) {
        bail!("process.scheduler.nice is {}; expected -20, which is the first, to 19", scheduler.nice);
    }
    // With this flag none of the numbers counts.
    if flags & libc::SCHED_FLAG_KEEP_PARAMS == 0 {
        check_numbers(scheduler, policy)?;
    }
    let Scheduler { nice, runtime, deadline, period, .. } = *scheduler;
    Ok(libc::sched_attr {
        // The kernel's function fills it in.
        size: 0,
        sched_policy: policy as u32,
        sched_flags: flags as u64,
        sched_nice: nice,
        sched_priority: scheduler.priority as u32,
        sched_runtime: runtime,
        sched_deadline: deadline,
        sched_period: period,
    })
}

fn check_numbers(scheduler: &Scheduler, policy: i32) -> Result<()> {
    let Scheduler { policy: name, priority, runtime, deadline, period, .. } = scheduler;
    let (least, most) = if [libc::SCHED_FIFO, libc::SCHED_RR].contains(&policy) { (1, 99) } else { (0, 0) };
    if !(least..=most).contains(priority) {
        bail!(
            "process.scheduler.priority is {priority} with {name}; expected 1 to 99 with SCHED_FIFO or SCHED_RR, and 0 with any other"
        );
    }
    if policy != SCHED_DEADLINE {
        if (*runtime, *deadline, *period) != (0, 0, 0) {
            bail!(
                "process.scheduler: runtime, deadline and period are for SCHED_DEADLINE; with {name} omit them"
            );
        }
        return Ok(());
    }
    // A period of 0 is one as long as the deadline. (sched_setattr(2))
    let period = if *period == 0 { deadline } else { period };
    if *runtime < SHORTEST || runtime > deadline || deadline > period {
        bail!(
            "process.scheduler: runtime {runtime}, deadline {deadline}, period {period}; expected {SHORTEST} <= runtime <= deadline <= period, in nanoseconds"
        );
    }
    Ok(())
}

const INITIAL: &str = "process.execCPUAffinity.initial";
const FINAL: &str = "process.execCPUAffinity.final";

/// The lists that are there, with their names.
fn affinities(process: &Process) -> impl Iterator<Item = (&'static str, &str)> {
    let both =
        process.exec_cpu_affinity.iter().flat_map(|both| [(INITIAL, &both.initial), (FINAL, &both.last)]);
    both.filter_map(|(what, list)| Some((what, list.as_deref()?))).filter(|(_, list)| !list.is_empty())
}

/// The runtime, before it makes a child: goes to the processors on which that is to begin, for the child
/// inherits this. Errors: sched_setaffinity(2); EINVAL: this machine has none of them, or allows none.
pub fn begin_on_its_processors(process: &Process) -> Result<()> {
    go_to(process, INITIAL)
}

/// Child, in its cgroup: goes to the processors on which it is to stay. Errors: as above.
pub fn stay_on_its_processors(process: &Process) -> Result<()> {
    go_to(process, FINAL)
}

fn go_to(process: &Process, which: &str) -> Result<()> {
    let Some((what, list)) = affinities(process).find(|(what, _)| *what == which) else { return Ok(()) };
    let mut processors = CpuSet::new();
    of_list(what, list)?.into_iter().try_for_each(|number| processors.set(number))?;
    let describe = || (format!("sched_setaffinity({list})"), format!("taskset --cpu-list {list} …"));
    step(DAY, describe, || sched_setaffinity(Pid::from_raw(0), &processors)).with_context(|| {
        format!("{what} is {list:?}; expected processors that there are and that are allowed")
    })
}
