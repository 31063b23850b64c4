//! Day 18: from `process` of config.json to a plan: who runs what, with which powers.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use anyhow::{Context, bail};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid};

use crate::capabilities::{labels, sets, ulimit};
use crate::container::Container;
use crate::error::Result;
use crate::exec::stay_inside;
use crate::explain::step;
use crate::files;
use crate::identity::User;
use crate::kernel;
use crate::privileges::{ExactSets, Privileges, Ulimit};
use crate::rootfs::process::home_of;
use crate::seccomp::attach;
use crate::seccomp::profile::Profile;

use super::listener::{self, Listener};
use super::spec::linux::Linux;
use super::spec::process::{Capabilities, Process, Rlimit};
use super::{DAY, numa, schedule};

/// Parent: what `process` says, as fields of `container`.
pub fn fill(container: &mut Container, process: &Process) -> Result<()> {
    if process.args.is_empty() {
        bail!("process.args is empty; expected a command");
    }
    if !process.cwd.starts_with('/') {
        bail!("process.cwd is {:?}; expected an absolute path, such as /", process.cwd);
    }
    schedule::check(process)?;
    let plan = &mut container.plan;
    plan.command = process.args.iter().map(OsString::from).collect();
    plan.environment = environment(&process.env)?;
    plan.working_dir = Some(process.cwd.clone().into());
    plan.privileges = privileges(process)?;
    let gids = process.user.additional_gids.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let (uid, gid) = (Uid::from_raw(process.user.uid), Gid::from_raw(process.user.gid));
    container.parts.user = Some(User { uid, gid, groups: gids });
    container.parts.last_steps.place = Some(stay_inside);
    container.parts.last_steps.privileges = Some(sets::give_up_the_rest);
    Ok(())
}

fn environment(env: &[String]) -> Result<BTreeMap<OsString, OsString>> {
    let pair = |text: &String| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        if name.is_empty() {
            bail!("process.env: {text:?} has no name; expected NAME=VALUE");
        }
        Ok((name.into(), value.into()))
    };
    env.iter().map(pair).collect()
}

fn privileges(process: &Process) -> Result<Privileges> {
    let set = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let privileges = Privileges {
        exactly: Some(exact(&process.capabilities.clone().unwrap_or_default())),
        no_new_privileges: process.no_new_privileges,
        apparmor: set(&process.apparmor_profile),
        label: set(&process.selinux_label).map(|label| parts_of(&label)).unwrap_or_default(),
        ulimits: process.rlimits.iter().map(limit).collect::<Result<_>>()?,
        // Nobody says: it is the caller's, which the heart would otherwise raise to 0.
        oom_score_adj: process.oom_score_adj.or_else(callers_oom_score_adj),
        ..Privileges::default()
    };
    labels::check(&privileges)?;
    Ok(privileges)
}

/// The bits of the names. What this kernel does not know, nobody can have.
fn exact(named: &Capabilities) -> ExactSets {
    let bits = |names: &[String]| sets::set_of(names).bits();
    ExactSets {
        bounding: bits(&named.bounding),
        effective: bits(&named.effective),
        permitted: bits(&named.permitted),
        inheritable: bits(&named.inheritable),
        ambient: bits(&named.ambient),
    }
}

fn limit(rlimit: &Rlimit) -> Result<(String, Ulimit)> {
    let name = rlimit.kind.strip_prefix("RLIMIT_").unwrap_or_default().to_ascii_lowercase();
    if !ulimit::is_known(&name) {
        bail!("process.rlimits: there is no limit {:?}; expected one of getrlimit(2)", rlimit.kind);
    }
    let value = |number: u64| (number != u64::MAX).then_some(number);
    Ok((name, Ulimit { soft: value(rlimit.soft), hard: value(rlimit.hard) }))
}

/// `system_u:system_r:container_t:s0:c1,c2` by the names of its parts.
fn parts_of(label: &str) -> BTreeMap<String, String> {
    let names = ["user", "role", "type", "level"];
    names.iter().zip(label.splitn(4, ':')).map(|(name, part)| (name.to_string(), part.into())).collect()
}

fn callers_oom_score_adj() -> Option<i32> {
    let text = files::read("/proc/self/oom_score_adj").ok()?;
    String::from_utf8_lossy(&text).trim().parse().ok()
}

/// Parent: the filter of system calls that `linux` asks for. Returns who decides about some, if anybody does.
pub fn filter(container: &mut Container, linux: &Linux) -> Result<Option<Listener>> {
    let Some(text) = &linux.seccomp else { return Ok(None) };
    let profile = Profile::parse(text.get().as_bytes()).context("linux.seccomp")?;
    let filter = attach::made_of(&profile, sets::of(container)).context("linux.seccomp")?;
    let listener = Listener::of(&profile).context("linux.seccomp")?;
    let attach = if listener.is_some() { listener::attach_and_hand_over } else { attach::attach };
    container.parts.filter = Some(filter);
    container.parts.last_steps.filter = Some(attach);
    Ok(listener)
}

/// How many sockets systemd has opened for whoever called, from 3 on: they are the command's.
/// (sd_listen_fds(3))
pub fn sockets_of_caller() -> u32 {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    // Else they are an ancestor's, which has left its environment behind. Who says no number means this one.
    let is_meant = number("LISTEN_PID").is_none_or(|pid| pid == std::process::id());
    let number = number("LISTEN_FDS").filter(|_| is_meant);
    // More are nobody's.
    number.filter(|number| *number < 4096).unwrap_or(0)
}

/// Parent: tells the command of them.
pub fn tell_of_sockets(container: &mut Container) {
    let sockets = sockets_of_caller();
    if sockets > 0 {
        let names = std::env::var_os("LISTEN_FDNAMES").map(|names| ("LISTEN_FDNAMES", names));
        // Its number there, whatever it is here.
        let pairs = [("LISTEN_FDS", sockets.to_string().into()), ("LISTEN_PID", "1".into())];
        let pairs = pairs.into_iter().chain(names).map(|(name, value)| (name.into(), value));
        container.plan.environment.extend(pairs);
    }
}

/// Child, on its own root: a command without a HOME gets its user's, as all engines expect.
pub fn set_home(container: &mut Container) -> Result<()> {
    let name = OsStr::new("HOME");
    if container.plan.environment.get(name).is_none_or(|home| home.is_empty()) {
        let uid = container.parts.user.as_ref().map_or(0, |user| user.uid.as_raw());
        // A root without a table of users has homes all the same.
        let home = home_of(uid).unwrap_or_else(|_| "/".into());
        container.plan.environment.insert(name.into(), home);
    }
    Ok(())
}

/// Child, when all is made that is to have other permissions: takes these from what the command makes.
pub fn set_umask(process: &Process) {
    umask(Mode::from_bits_truncate(process.user.umask.unwrap_or(0o022)));
}

/// Child: its execution domain, its memory nodes, and when it gets a disk and a processor.
pub fn settle(linux: &Linux, process: &Process) -> Result<()> {
    if let Some(personality) = &linux.personality {
        let domain = match personality.domain.as_str() {
            "LINUX" => 0,
            "LINUX32" => 8,
            other => bail!("linux.personality.domain is {other:?}; expected LINUX or LINUX32"),
        };
        step(
            DAY,
            || (format!("personality({domain})"), "setarch …".into()),
            || kernel::set_personality(domain),
        )?;
    }
    if let Some(io) = &process.io_priority {
        let class = match io.class.as_str() {
            "IOPRIO_CLASS_RT" => 1,
            "IOPRIO_CLASS_BE" => 2,
            "IOPRIO_CLASS_IDLE" => 3,
            other => bail!("process.ioPriority.class is {other:?}; expected IOPRIO_CLASS_RT, _BE or _IDLE"),
        };
        let describe = || (format!("ioprio_set({class}, {})", io.priority), "ionice …".into());
        step(DAY, describe, || kernel::set_io_priority(class, io.priority))?;
    }
    numa::apply(linux)?;
    schedule::apply(process)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_has_four_parts_and_the_last_may_have_colons() {
        let parts = parts_of("system_u:system_r:container_t:s0:c1,c2");
        assert_eq!(parts.get("level").map(String::as_str), Some("s0:c1,c2"));
        assert_eq!(parts.len(), 4);
    }

    #[test]
    fn the_largest_number_is_no_limit() {
        let rlimit = Rlimit { kind: "RLIMIT_NOFILE".into(), hard: u64::MAX, soft: 5 };
        let limit = limit(&rlimit).ok();
        assert_eq!(limit, Some(("nofile".into(), Ulimit { soft: Some(5), hard: None })));
    }
}
