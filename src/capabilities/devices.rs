//! Day 15: devices of the host that a container has. (mknod(2))

use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf, absolute};

use anyhow::{Context, bail};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, chmodat, chownat, major, makedev, minor, mkdirat, mknodat,
    openat2, statat,
};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use crate::error::Result;
use crate::explain::{shell, step};
use crate::privileges::{Device, Privileges};

use super::DAY;
use super::node::{Kind, MKNOD, Node, READ, WRITE};

/// How deep a directory of devices may be.
const DEPTH: usize = 16;

/// How many devices may be in one that is given. The kernel follows all ways through the filter
/// before it takes it, and they grow faster than the rules.
const MOST: usize = 512;

/// What is in the host's /dev and is the container's own in its /dev: day 3 has made it, or not.
const NOT_THE_HOSTS: [&str; 15] = [
    "console", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout",
    "tty", "urandom", "zero",
];

const EXPECTED: &str = "expected HOST[:CONTAINER][:rwm], such as /dev/kvm, or /dev/sdb:/dev/disk:r";

/// `--device`: HOST[:CTR][:rwm]. As with Docker the second part is the access if it can be.
pub fn parse(typed: &[OsString]) -> Result<Vec<Device>> {
    typed.iter().map(|word| parse_one(word)).collect()
}

// ANCHOR: parse
fn parse_one(word: &OsStr) -> Result<Device> {
    // ANCHOR: day15_task4_parse_one_solution
    let parts: Vec<&[u8]> = word.as_bytes().split(|byte| *byte == b':').collect();
    let (host, target, access) = match parts[..] {
        [host] => (host, host, &b"rwm"[..]),
        [host, access] if is_access(access) => (host, host, access),
        [host, target] => (host, target, &b"rwm"[..]),
        [host, target, access] if is_access(access) => (host, target, access),
        [_, _, access] => bail!(
            "--device {word:?}: {:?} is no access; expected r, w and m, each at most once: read, write, mknod",
            OsStr::from_bytes(access)
        ),
        _ => bail!("--device {word:?}: too many colons; {EXPECTED}"),
    };
    if host.is_empty() || target.is_empty() {
        bail!("--device {word:?}: a path is empty; {EXPECTED}");
    }
    let host_path = absolute(OsStr::from_bytes(host)).context("find out where this is")?;
    let target = if target == host { &host_path } else { Path::new(OsStr::from_bytes(target)) };
    Ok(Device {
        target: below_dev(target).with_context(|| format!("--device {word:?}"))?,
        host: host_path,
        access: String::from_utf8_lossy(access).into_owned(),
    })
    // ANCHOR_END: day15_task4_parse_one_solution
}
// ANCHOR_END: parse

/// Some of r, w and m, none of them twice.
fn is_access(word: &[u8]) -> bool {
    let once = |letter: &u8| word.iter().filter(|other| *other == letter).count() == 1;
    !word.is_empty() && word.iter().all(|letter| b"rwm".contains(letter) && once(letter))
}

/// `target`, if it is a path below /dev, without `.` and double slashes.
fn below_dev(target: &Path) -> Result<PathBuf> {
    let plain: PathBuf = target.components().collect();
    let goes_up = plain.components().any(|component| component == Component::ParentDir);
    if goes_up || plain.strip_prefix("/dev").map_or(true, |rest| rest.as_os_str().is_empty()) {
        bail!(
            "{target:?} is not below the container's /dev; expected a place there, for only there a node opens \
             a device: --device HOST:/dev/NAME"
        );
    }
    Ok(plain)
}

// ANCHOR: look_up
/// Parent: what is there on the host, now. A disk that is plugged in again may have another number.
pub fn look_up(privileges: &Privileges) -> Result<Vec<Node>> {
    // ANCHOR: day15_task4_look_up_solution
    let mut nodes = Vec::new();
    for device in &privileges.devices {
        for node in nodes_of(device)? {
            match nodes.iter().find(|other: &&Node| other.target == node.target) {
                Some(other)
                    if (other.kind, other.major, other.minor) != (node.kind, node.major, node.minor) =>
                {
                    bail!("--device: {:?} cannot be two devices; expected another place for one", node.target)
                }
                _ => nodes.push(node),
            }
        }
    }
    if privileges.privileged {
        let mut all = Vec::new();
        let is_the_hosts = |name: &OsStr| NOT_THE_HOSTS.iter().all(|other| name != *other);
        find(Path::new("/dev"), Path::new("/dev"), 0, &is_the_hosts, &mut all);
        all.retain(|node| nodes.iter().all(|other| other.target != node.target));
        nodes.extend(all);
    }
    Ok(nodes)
    // ANCHOR_END: day15_task4_look_up_solution
}
// ANCHOR_END: look_up

/// The nodes of one `--device`: itself, or all in the directory that it is.
fn nodes_of(device: &Device) -> Result<Vec<Node>> {
    let Device { host, target, access } = device;
    let expected = "expected a device of the host's, or a directory of such; ls -l shows a b or a c first";
    let found = fs::metadata(host).with_context(|| format!("--device {host:?}: {expected}"))?;
    let mut nodes = Vec::new();
    if found.is_dir() {
        find(host, target, 0, &|_| true, &mut nodes);
        if nodes.is_empty() || nodes.len() > MOST {
            let count = nodes.len();
            bail!(
                "--device {host:?} is a directory with {count} devices; expected at least one, at most {MOST}"
            );
        }
    } else {
        nodes.extend(node(&found, host.clone(), target.clone()));
    }
    for node in &mut nodes {
        node.access = access_of(access);
    }
    if nodes.is_empty() {
        bail!("--device {host:?} is not a device; {expected}. For files and directories there is -v");
    }
    Ok(nodes)
}

/// Adds to `nodes` what is in the directory `host`, and in those in there. Links are none: what
/// they lead to has a name of its own. What cannot be read is not there.
fn find(host: &Path, target: &Path, depth: usize, is_meant: &dyn Fn(&OsStr) -> bool, nodes: &mut Vec<Node>) {
    let entries = fs::read_dir(host).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| is_meant(&entry.file_name())) {
        let target = target.join(entry.file_name());
        match entry.metadata() {
            Ok(found) if found.is_dir() && depth < DEPTH => {
                find(&entry.path(), &target, depth + 1, &|_| true, nodes)
            }
            Ok(found) => nodes.extend(node(&found, entry.path(), target)),
            Err(_) => {}
        }
    }
}

/// What was `found` as a node; `None`: it is none.
fn node(found: &Metadata, host: PathBuf, target: PathBuf) -> Option<Node> {
    let kind = match found.file_type() {
        kind if kind.is_block_device() => Kind::Block,
        kind if kind.is_char_device() => Kind::Character,
        _ => return None,
    };
    let (major, minor) = (major(found.rdev()), minor(found.rdev()));
    let (mode, uid, gid) = (found.mode() & 0o7777, found.uid(), found.gid());
    Some(Node { host, target, kind, major, minor, mode, uid, gid, access: MKNOD | READ | WRITE })
}

fn access_of(letters: &str) -> u32 {
    [('r', READ), ('w', WRITE), ('m', MKNOD)]
        .into_iter()
        .filter(|(letter, _)| letters.contains(*letter))
        .fold(0, |access, (_, bit)| access | bit)
}

/// Child: makes the nodes in `dev`, which is the container's own /dev. On the host's root there is
/// none, and all devices are there already.
pub fn make_nodes(dev: Option<&OwnedFd>, nodes: &[Node]) -> Result<()> {
    let Some(dev) = dev else { return Ok(()) };
    nodes.iter().try_for_each(|node| {
        make_node(dev, node).with_context(|| format!("make {:?} in the container", node.target))
    })
}

// ANCHOR: make_node
fn make_node(dev: &OwnedFd, node: &Node) -> Result<()> {
    // ANCHOR: day15_task4_make_node_solution
    let (dir, name) = open_parent(dev, &node.target)?;
    let kind = if node.kind == Kind::Block { FileType::BlockDevice } else { FileType::CharacterDevice };
    let (mode, number) = (Mode::from_raw_mode(node.mode), makedev(node.major, node.minor));
    let (uid, gid) = (Uid::from_raw(node.uid), Gid::from_raw(node.gid));
    let made = step(
        DAY,
        || describe(node),
        || match mknodat(&dir, name, kind, mode, number) {
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(error),
            Ok(()) => {
                chownat(&dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
                // Once more: mknod(2) takes from it what the umask has. The directory is on the
                // container's own tmpfs, where nobody is yet who could put a link there.
                chmodat(&dir, name, mode, AtFlags::empty()).map(|()| true)
            }
        },
    )?;
    if !made {
        let there = statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if (FileType::from_raw_mode(there.st_mode), there.st_rdev) != (kind, number) {
            bail!("something else is there already; expected a free name: --device HOST:/dev/NAME");
        }
    }
    Ok(())
    // ANCHOR_END: day15_task4_make_node_solution
}
// ANCHOR_END: make_node

/// The directory in which `target` is to be, and its name there. What is missing is made; and what
/// is on another file system than /dev is not the container's own.
fn open_parent<'a>(dev: &OwnedFd, target: &'a Path) -> Result<(OwnedFd, &'a OsStr)> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |dir: &OwnedFd, name: &OsStr| openat2(dir, name, flags, Mode::empty(), resolve);
    let below = target.strip_prefix("/dev")?;
    let name = below.file_name().context("a node needs a name")?;
    let mut dir = open(dev, OsStr::new("."))?;
    for part in below.parent().into_iter().flat_map(Path::components) {
        let part = part.as_os_str();
        let mut opened = open(&dir, part);
        if let Err(Errno::NOENT) = opened {
            let describe = || (format!("mkdir({part:?}, 0755)"), format!("mkdir {}", shell(part)));
            step(DAY, describe, || mkdirat(&dir, part, Mode::from_raw_mode(0o755)))?;
            opened = open(&dir, part);
        }
        dir = opened.map_err(|errno| match errno {
            Errno::XDEV => {
                anyhow::anyhow!("something is mounted on {part:?}; expected a place in /dev itself")
            }
            Errno::LOOP | Errno::NOTDIR => {
                anyhow::anyhow!("{part:?} is not a directory; expected another place")
            }
            errno => errno.into(),
        })?;
    }
    Ok((dir, name))
}

fn describe(node: &Node) -> (String, String) {
    let Node { target, major, minor, mode, uid, gid, .. } = node;
    let (kind, letter) = if node.kind == Kind::Block { ("BLK", 'b') } else { ("CHR", 'c') };
    let path = shell(target);
    (
        format!("mknod({target:?}, S_IF{kind}|{mode:#o}, makedev({major}, {minor})), chown({uid}, {gid})"),
        format!("mknod -m {mode:o} {path} {letter} {major} {minor} && chown {uid}:{gid} {path}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(word: &str) -> std::result::Result<String, String> {
        let device = parse_one(OsStr::new(word)).map_err(|error| format!("{error:#}"))?;
        Ok(format!("{} {} {}", device.host.display(), device.target.display(), device.access))
    }

    #[test]
    fn what_is_typed_is_what_docker_takes() {
        for (word, expected) in [
            ("/dev/kvm", "/dev/kvm /dev/kvm rwm"),
            ("/dev/kvm:r", "/dev/kvm /dev/kvm r"),
            ("/dev/kvm:/dev/a/b", "/dev/kvm /dev/a/b rwm"),
            ("/dev/kvm:/dev//a/./b:mw", "/dev/kvm /dev/a/b mw"),
            ("/tmp/x:/dev/x", "/tmp/x /dev/x rwm"),
        ] {
            assert_eq!(said(word), Ok(expected.into()), "--device {word}");
        }
    }

    #[test]
    fn what_is_no_device_is_refused_in_words() {
        for (word, expected) in [
            ("", "empty"),
            ("/dev/kvm:", "empty"),
            ("/dev/kvm:rr", "not below"),
            ("/dev/kvm:/dev/kvm:rr", "no access"),
            ("/dev/kvm:/dev/kvm:", "no access"),
            ("/dev/kvm:/dev/kvm:r:w", "too many colons"),
            ("/dev/kvm:/kvm", "not below"),
            ("/dev/kvm:/dev", "not below"),
            ("/dev/kvm:/dev/../kvm", "not below"),
            ("/tmp/x", "not below"),
        ] {
            let error = said(word).unwrap_err();
            assert!(error.contains(expected), "--device {word}: {error}");
        }
    }
}
