//! Day 15: resource limits of the command and of all that it starts. (getrlimit(2))
//!
//! A cgroup limits a container; these limit each of its processes, and a child inherits them.
//! What no `--ulimit` says is the caller's.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use nix::unistd::Pid;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, prlimit, setrlimit};

use crate::error::Result;
use crate::explain::step;
use crate::privileges::Ulimit;

use super::DAY;

// ANCHOR: resources
/// Docker's names, and `as`, which Docker lacks: how much a process may have mapped.
const RESOURCES: [(&str, Resource); 16] = [
    ("as", Resource::As),
    ("core", Resource::Core),
    ("cpu", Resource::Cpu),
    ("data", Resource::Data),
    ("fsize", Resource::Fsize),
    ("locks", Resource::Locks),
    ("memlock", Resource::Memlock),
    ("msgqueue", Resource::Msgqueue),
    ("nice", Resource::Nice),
    ("nofile", Resource::Nofile),
    ("nproc", Resource::Nproc),
    ("rss", Resource::Rss),
    ("rtprio", Resource::Rtprio),
    ("rttime", Resource::Rttime),
    ("sigpending", Resource::Sigpending),
    ("stack", Resource::Stack),
];
// ANCHOR_END: resources

/// `--ulimit NAME=SOFT[:HARD]`. Of two with the same name the last one counts, as with Docker.
pub fn parse(typed: &[String]) -> Result<BTreeMap<String, Ulimit>> {
    typed.iter().map(|text| parse_limit(text)).collect()
}

// ANCHOR: parse_limit
/// One of them. Without HARD it is the same as SOFT: nobody can raise it again.
fn parse_limit(text: &str) -> Result<(String, Ulimit)> {
    // ANCHOR: day15_task5_parse_limit_solution
    let Some((name, values)) = text.split_once('=') else {
        bail!("--ulimit {text:?}: expected NAME=SOFT[:HARD], such as nofile=1024:2048");
    };
    if resource(name).is_none() {
        let names: Vec<&str> = RESOURCES.iter().map(|(name, _)| *name).collect();
        bail!("--ulimit {text:?}: there is no limit {name:?}; expected one of {}", names.join(", "));
    }
    let value = |word: &str| {
        parse_value(word).with_context(|| {
            format!("--ulimit {text:?}: expected a number instead of {word:?}, or -1 for no limit")
        })
    };
    let (soft, hard) = match values.split_once(':') {
        Some((soft, hard)) => (value(soft)?, value(hard)?),
        None => (value(values)?, value(values)?),
    };
    // The kernel would say EINVAL.
    if let Some(most) = hard
        && soft.is_none_or(|soft| soft > most)
    {
        bail!("--ulimit {text:?}: SOFT is more than HARD; expected at most {most}");
    }
    Ok((name.into(), Ulimit { soft, hard }))
    // ANCHOR_END: day15_task5_parse_limit_solution
}
// ANCHOR_END: parse_limit

/// A number, or that there is no limit: `Some(None)`. 2^64-1 is the kernel's own word for that,
/// so a number ends where Docker's does.
fn parse_value(word: &str) -> Option<Option<u64>> {
    match word {
        "-1" | "unlimited" => Some(None),
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().ok().filter(|value| *value <= i64::MAX as u64).map(Some)
        }
        _ => None,
    }
}

/// Whether there is a limit of this name.
pub fn is_known(name: &str) -> bool {
    resource(name).is_some()
}

fn resource(name: &str) -> Option<Resource> {
    RESOURCES.iter().find(|(known, _)| *known == name).map(|(_, resource)| *resource)
}

// ANCHOR: set
/// Child, the last thing before it gives up its capabilities: sets them. Not earlier: they are the
/// command's limits, and with few files or none the runtime could not finish its own work. Not
/// later: raising a hard limit takes CAP_SYS_RESOURCE. (capabilities(7))
pub fn set(limits: &BTreeMap<String, Ulimit>) -> Result<()> {
    // ANCHOR: day15_task5_set_solution
    for (name, limit) in limits {
        let resource = resource(name).with_context(|| format!("there is no limit {name:?}"))?;
        let describe = || {
            let (soft, hard) = (word(limit.soft), word(limit.hard));
            let call = format!("setrlimit(RLIMIT_{}, {soft}:{hard})", name.to_ascii_uppercase());
            (call, format!("prlimit --{name}={soft}:{hard} …"))
        };
        let value = Rlimit { current: limit.soft, maximum: limit.hard };
        step(DAY, describe, || setrlimit(resource, value)).map_err(|error| explained(error, name, limit))?;
    }
    Ok(())
    // ANCHOR_END: day15_task5_set_solution
}
// ANCHOR_END: set

/// Parent: lets the process `child` have them, where it may not raise them itself: root of a user
/// namespace has no CAP_SYS_RESOURCE on the host. What counts for it stays, until it is ready. (day 17)
pub fn raise(child: Pid, limits: &BTreeMap<String, Ulimit>) -> Result<()> {
    let child = rustix::process::Pid::from_raw(child.as_raw());
    for (name, limit) in limits {
        let resource = resource(name).with_context(|| format!("there is no limit {name:?}"))?;
        let own = getrlimit(resource);
        if own.maximum.is_none_or(|own| limit.hard.is_some_and(|hard| hard <= own)) {
            continue;
        }
        let describe = || {
            let call =
                format!("prlimit(child, RLIMIT_{}, …:{})", name.to_ascii_uppercase(), word(limit.hard));
            (call, format!("prlimit --pid PID --{name}=:{}", word(limit.hard)))
        };
        let value = Rlimit { maximum: limit.hard, ..own };
        step(17, describe, || prlimit(child, resource, value))
            .map_err(|error| explained(error, name, limit))?;
    }
    Ok(())
}

/// `error` with what it means here.
fn explained(error: anyhow::Error, name: &str, limit: &Ulimit) -> anyhow::Error {
    let hard = word(limit.hard);
    match (error.downcast_ref::<Errno>(), name) {
        (Some(&Errno::PERM), "nofile") => error.context(format!(
            "--ulimit {name}: HARD is {hard}; expected at most what /proc/sys/fs/nr_open says, which is for \
             the whole machine, or what the caller's own limit is where it has no CAP_SYS_RESOURCE"
        )),
        (Some(&Errno::PERM), _) => error.context(format!(
            "--ulimit {name}: HARD is {hard}; expected at most the caller's own (prlimit --{name}), for to raise \
             it takes CAP_SYS_RESOURCE"
        )),
        _ => error.context(format!("--ulimit {name}")),
    }
}

/// A limit as people read it.
fn word(value: Option<u64>) -> String {
    value.map_or("unlimited".into(), |number| number.to_string())
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn what_is_no_limit_is_refused_by_name() {
        for text in [
            "nofile",
            "nofile=",
            "nofile=1:",
            "nofile=:1",
            "nofile=+1",
            "nofile=-2",
            "nofile=2:1",
            "nofile=-1:1",
        ] {
            assert!(parse(&[text.into()]).is_err(), "{text}");
        }
        for text in ["files=1", "=1", "NOFILE=1", "nofile=1:2:3", "cpu=18446744073709551615"] {
            assert!(parse(&[text.into()]).is_err(), "{text}");
        }
    }
}
