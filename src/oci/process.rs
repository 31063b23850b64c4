//! Day 18: from `process` of config.json to a plan: who runs what, with which powers.

use std::collections::BTreeMap;
use std::ffi::OsString;

use anyhow::{Context, bail};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid};
use rustix::thread::CapabilitySet;

use crate::capabilities::{exact, labels, sets, ulimit};
use crate::container::Container;
use crate::error::Result;
use crate::exec::stay_inside;
use crate::files;
use crate::identity::User;
use crate::privileges::{ExactSets, Privileges, Ulimit};
use crate::seccomp::attach;
use crate::seccomp::profile::Profile;

use super::spec::linux::Linux;
use super::spec::process::{Capabilities, Process, Rlimit};

/// Parent: what `process` says, as fields of `container`.
pub fn fill(container: &mut Container, process: &Process) -> Result<()> {
    if process.args.is_empty() {
        bail!("process.args is empty; expected a command");
    }
    if !process.cwd.starts_with('/') {
        bail!("process.cwd is {:?}; expected an absolute path, such as /", process.cwd);
    }
    let plan = &mut container.plan;
    plan.command = process.args.iter().map(OsString::from).collect();
    plan.environment = environment(&process.env)?;
    plan.working_dir = Some(process.cwd.clone().into());
    plan.privileges = privileges(process)?;
    let gids = process.user.additional_gids.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let (uid, gid) = (Uid::from_raw(process.user.uid), Gid::from_raw(process.user.gid));
    container.parts.user = Some(User { uid, gid, groups: gids });
    container.parts.last_steps.place = Some(stay_inside);
    container.parts.last_steps.privileges = Some(exact::give_up_the_rest);
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
    let bits = |names: &[String]| {
        let known = names.iter().filter_map(|name| CapabilitySet::from_name(name.strip_prefix("CAP_")?));
        known.fold(0, |bits, capability| bits | capability.bits())
    };
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

/// Parent: the filter of system calls that `linux` asks for.
pub fn filter(container: &mut Container, linux: &Linux) -> Result<()> {
    let Some(text) = &linux.seccomp else { return Ok(()) };
    let profile = Profile::parse(text.get().as_bytes()).context("linux.seccomp")?;
    let filter = attach::made_of(&profile, sets::of(container)).context("linux.seccomp")?;
    container.parts.filter = Some(filter);
    container.parts.last_steps.filter = Some(attach::attach);
    Ok(())
}

/// Child, when all is made that is to have other permissions: takes these from what the command makes.
pub fn set_umask(process: &Process) {
    umask(Mode::from_bits_truncate(process.user.umask.unwrap_or(0o022)));
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
