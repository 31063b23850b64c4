//! Day 18: the nodes of a bundle's devices, and those that every container has. (config-linux.md, "Default
//! Devices")

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, chmodat, chownat, makedev, mknodat, openat, symlinkat};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use crate::capabilities::device_filter::Rule;
use crate::capabilities::node::{Kind, MKNOD, READ, WRITE};
use crate::error::Result;
use crate::explain::{shell, step};
use crate::kernel;
use crate::rootfs::devices::{DEVICES, LINKS};
use crate::rootfs::mount::{Dir, attach_on, take};
use crate::rootfs::planned::{find, make_parents};

use super::DAY;
use super::spec::linux::Device;
use super::spec::resources::DeviceRule;

/// Whether the host's nodes are mounted, instead of made anew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Hosts {
    /// No.
    #[default]
    Never,
    /// Each that may not be made, for a cgroup above allows none: podman's of a pod, above all.
    WhereRefused,
    /// All: in a user namespace nobody makes a device. (mknod(2), EPERM)
    Always,
}

/// The nodes that are to be made.
#[derive(Debug, Default)]
pub struct Nodes {
    /// Each with the host's, if that may be needed: a mount that is attached nowhere yet.
    devices: Vec<(Device, Option<OwnedFd>)>,
    hosts: Hosts,
    has_links: bool,
}

/// Whether programs of cgroups above are asked too whether a device may be made. (bpf(2))
pub fn others_are_asked(cgroup: &OwnedFd) -> bool {
    // What the kernel does not tell is seen when it refuses.
    kernel::count_device_programs(cgroup.as_fd()).is_ok_and(|count| count > 1)
}

impl Nodes {
    /// Parent. `with_own`: whether its /dev is its own. What would be made in the host's would stay there.
    pub fn plan(asked: &[Device], with_own: bool, hosts: Hosts) -> Result<Nodes> {
        if !with_own {
            return Ok(Nodes::default());
        }
        let usual = DEVICES.iter().map(|(path, major, minor)| Device {
            path: path.into(),
            kind: "c".into(),
            major: *major as i64,
            minor: *minor as i64,
            ..Device::default()
        });
        let mut devices: Vec<Device> = asked.to_vec();
        devices.extend(usual.filter(|one| asked.iter().all(|other| other.path != one.path)));
        let with_host = |device: Device| {
            let host = match hosts {
                Hosts::Never => None,
                Hosts::WhereRefused => take(DAY, &device.path).ok(),
                Hosts::Always => Some(take(DAY, &device.path)?),
            };
            Ok((device, host))
        };
        let devices = devices.into_iter().map(with_host).collect::<Result<_>>()?;
        Ok(Nodes { devices, hosts, has_links: true })
    }

    /// Child, on its own root.
    pub fn make(self, root: &Dir) -> Result<()> {
        for (device, host) in &self.devices {
            make_parents(root, device.path.parent().unwrap_or(Path::new("/")))?;
            let made = match host {
                Some(host) if self.hosts == Hosts::Always => mount_one(root, device, host),
                Some(host) => make_one(root, device).or_else(|error| match error.downcast_ref() {
                    Some(&Errno::PERM) => mount_one(root, device, host),
                    _ => Err(error),
                }),
                None => make_one(root, device),
            };
            made.with_context(|| format!("make the device {:?}", device.path))?;
        }
        for (target, link) in LINKS.iter().filter(|_| self.has_links) {
            let describe = || (format!("symlink({target:?}, {link:?})"), format!("ln -s {target} {link}"));
            let (parent, name) = parent_of(root, Path::new(link))?;
            step(DAY, describe, || match symlinkat(*target, &parent, &name) {
                Err(Errno::EXIST) => Ok(()),
                made => made,
            })?;
        }
        Ok(())
    }
}

fn parent_of(root: &Dir, path: &Path) -> Result<(OwnedFd, PathBuf)> {
    let (parent, name) = path.parent().zip(path.file_name()).context("a node needs a name")?;
    let parent = find(root, parent, OFlags::DIRECTORY).with_context(|| format!("open {parent:?}"))?;
    Ok((parent, name.into()))
}

fn make_one(root: &Dir, device: &Device) -> Result<()> {
    let kind = match device.kind.as_str() {
        "c" | "u" => FileType::CharacterDevice,
        "b" => FileType::BlockDevice,
        "p" => FileType::Fifo,
        other => bail!("its type is {other:?}; expected c, u, b or p"),
    };
    let (parent, name) = parent_of(root, &device.path)?;
    let mode = Mode::from_raw_mode(device.file_mode.unwrap_or(0o666) & 0o7777);
    let number = makedev(device.major as u32, device.minor as u32);
    let (uid, gid) = (device.uid.unwrap_or(0), device.gid.unwrap_or(0));
    let path = &device.path;
    let describe = || {
        let call = format!(
            "mknod({path:?}, {:#o}, makedev({}, {}))",
            mode.as_raw_mode(),
            device.major,
            device.minor
        );
        (call, format!("mknod {} {} {} {}", shell(path), device.kind, device.major, device.minor))
    };
    step(DAY, describe, || match mknodat(&parent, &name, kind, mode, number) {
        Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error),
        Ok(()) => {
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            chownat(&parent, &name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            chmodat(&parent, &name, mode, AtFlags::empty())
        }
    })
}

fn mount_one(root: &Dir, device: &Device, host: &OwnedFd) -> Result<()> {
    let (parent, name) = parent_of(root, &device.path)?;
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    openat(&parent, &name, flags, Mode::from_raw_mode(0o666)).map(drop).or_else(|error| match error {
        Errno::EXIST | Errno::NXIO => Ok(()),
        error => Err(error),
    })?;
    let place = openat(&parent, &name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    attach_on(DAY, host.as_fd(), &Dir::new(place, &device.path))
}

// ANCHOR: rules
/// The rules of a bundle as day 15's program takes them, which only allow; `None`: all devices are allowed.
/// Those that every container may use come last, as with runc.
pub fn rules(asked: &[DeviceRule]) -> Result<Option<Vec<Rule>>> {
    let (mut all, mut rules) = (false, Vec::new());
    for rule in asked {
        let access = access(rule.access.as_deref().unwrap_or("rwm"))?;
        let (major, minor) = (number(rule.major)?, number(rule.minor)?);
        let kinds: &[Kind] = match rule.kind.as_deref().unwrap_or("a") {
            "a" | "" => &[Kind::Block, Kind::Character],
            "b" => &[Kind::Block],
            "c" | "u" => &[Kind::Character],
            other => bail!("linux.resources.devices: there is no type {other:?}; expected a, b or c"),
        };
        let is_all = kinds.len() == 2 && major.is_none() && minor.is_none() && access == MKNOD | READ | WRITE;
        if is_all {
            (all, rules) = (rule.allow, vec![]);
            continue;
        }
        for kind in kinds {
            let one = Rule { kind: *kind, major, minor, access };
            if rule.allow { allow(&mut rules, one) } else { deny(&mut rules, one, all)? }
        }
    }
    if all {
        return Ok(None);
    }
    usual().for_each(|rule| allow(&mut rules, rule));
    Ok(Some(rules))
}
// ANCHOR_END: rules

/// -1 and nothing are all of them.
fn number(written: Option<i64>) -> Result<Option<u32>> {
    let number = written.filter(|number| *number != -1);
    let known = |number| {
        u32::try_from(number)
            .with_context(|| format!("linux.resources.devices: {number} is no number of a device"))
    };
    number.map(known).transpose()
}

fn allow(rules: &mut Vec<Rule>, rule: Rule) {
    let same = |one: &&mut Rule| (one.kind, one.major, one.minor) == (rule.kind, rule.major, rule.minor);
    match rules.iter_mut().find(same) {
        Some(one) => one.access |= rule.access,
        None => rules.push(rule),
    }
}

/// Takes away what another rule has allowed to the same devices, or to some of those.
fn deny(rules: &mut Vec<Rule>, rule: Rule, all: bool) -> Result<()> {
    // ANCHOR: day18_task6_deny_solution
    let within = |one: Option<u32>, other: Option<u32>| one.is_none() || one == other;
    let denied =
        |one: &Rule| one.kind == rule.kind && within(rule.major, one.major) && within(rule.minor, one.minor);
    let hole =
        |one: &Rule| one.kind == rule.kind && within(one.major, rule.major) && within(one.minor, rule.minor);
    if all || rules.iter().any(|one| hole(one) && !denied(one) && one.access & rule.access != 0) {
        bail!(
            "linux.resources.devices denies {rule}, which a rule before it allows together with others; expected \
             rules that allow what is allowed"
        );
    }
    rules.iter_mut().filter(|one| denied(one)).for_each(|one| one.access &= !rule.access);
    rules.retain(|one| one.access != 0);
    Ok(())
    // ANCHOR_END: day18_task6_deny_solution
}

fn usual() -> impl Iterator<Item = Rule> {
    let all = MKNOD | READ | WRITE;
    let numbers = DEVICES.iter().map(|(_, major, minor)| (Some(*major as u32), Some(*minor as u32)));
    // The console, the maker of pseudo-terminals, and these.
    let numbers = numbers.chain([(Some(5), Some(1)), (Some(5), Some(2)), (Some(136), None)]);
    let used = numbers.map(move |(major, minor)| Rule { kind: Kind::Character, major, minor, access: all });
    let made =
        [Kind::Block, Kind::Character].map(|kind| Rule { kind, major: None, minor: None, access: MKNOD });
    used.chain(made)
}

fn access(letters: &str) -> Result<u32> {
    letters.chars().try_fold(0, |access, letter| match letter {
        'r' => Ok(access | READ),
        'w' => Ok(access | WRITE),
        'm' => Ok(access | MKNOD),
        _ => bail!("linux.resources.devices: the access {letters:?} has other letters than r, w and m"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(allow: bool, kind: &str, major: i64, minor: i64, access: &str) -> DeviceRule {
        let some = |number: i64| (number >= 0).then_some(number);
        DeviceRule {
            allow,
            kind: Some(kind.into()),
            major: some(major),
            minor: some(minor),
            access: Some(access.into()),
        }
    }

    #[test]
    fn the_last_rule_that_fits_counts() {
        let none = rule(false, "a", -1, -1, "rwm");
        let words = |asked: &[DeviceRule]| {
            let rules = rules(asked).ok().flatten().unwrap_or_default();
            rules.iter().map(Rule::to_string).collect::<Vec<_>>()
        };
        assert_eq!(words(std::slice::from_ref(&none)).len(), DEVICES.len() + 5);
        assert!(words(&[none.clone(), rule(true, "c", 10, 229, "rw")]).contains(&"c 10:229 rw".to_string()));
        let taken = [none.clone(), rule(true, "c", 10, 229, "rw"), rule(false, "c", 10, -1, "w")];
        assert!(words(&taken).contains(&"c 10:229 r".to_string()));
        assert!(
            rules(&[rule(true, "a", -1, -1, "rwm")]).is_ok_and(|rules| rules.is_none()),
            "all are allowed"
        );
        assert!(
            rules(&[none, rule(true, "c", 10, -1, "rw"), rule(false, "c", 10, 1, "w")]).is_err(),
            "a hole"
        );
    }
}
