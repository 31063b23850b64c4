//! Day 8: the files of /etc that name the container and the servers to ask for names: hostname,
//! hosts, resolv.conf. They differ from container to container, so they cannot be in the
//! root file system, which several may share and which is the user's: they are kept in the
//! container's directory, and mounted over those that are there. (hosts(5), resolv.conf(5))

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, bail};
use nix::sys::statvfs::{FsFlags, fstatvfs, statvfs};
use rustix::fs::{AtFlags, statat};
use rustix::io::Errno;

use crate::container::{Container, Mechanism, Mount};
use crate::error::Result;
use crate::explain::step;
use crate::plan::Network;
use crate::rootfs::mount::take;

const DAY: u8 = 8;

/// For everybody in the container to read.
const MODE: u32 = 0o644;

/// The mechanism of the files that need no address: those of `--net none` and `--net host`.
#[derive(Debug)]
pub struct EtcFiles;

// ANCHOR: mechanism
impl Mechanism for EtcFiles {
    fn prepare(&mut self, container: &mut Container) -> Result<()> {
        // On the host's own root file system the host's files are there.
        if !container.plan.has_own_root() {
            return Ok(());
        }
        if container.parts.only_made {
            return Ok(());
        }
        let name = hostname(container);
        let files = match container.plan.network {
            // 127.0.1.1 as Debian has it: all of 127.0.0.0/8 is the loopback device's.
            Some(Network::None) => vec![("hosts", hosts("127.0.1.1", name))],
            Some(Network::Host) => {
                vec![("hosts", hosts_of_the_host(name)?), ("resolv.conf", host_file("/etc/resolv.conf")?)]
            }
            Some(Network::Bridge | Network::User) | None => return Ok(()),
        };
        write(container, files)
    }
}
// ANCHOR_END: mechanism

/// The container's name for itself.
pub fn hostname(container: &Container) -> &str {
    container.plan.hostname.as_deref().unwrap_or("localhost")
}

/// The text of `hosts`: this container, and no other.
pub fn hosts(address: &str, hostname: &str) -> Vec<u8> {
    format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{address}\t{hostname}\n").into()
}

/// The host's own, for it is its network; and the container's name, which the host does
/// not know.
fn hosts_of_the_host(hostname: &str) -> Result<Vec<u8>> {
    let mut text = host_file("/etc/hosts")?;
    if text.is_empty() {
        return Ok(hosts("127.0.1.1", hostname));
    }
    if !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    text.extend(format!("127.0.1.1\t{hostname}\n").bytes());
    Ok(text)
}

// ANCHOR: host_file
/// The most that we read of a host's file: some have long lists of names in /etc/hosts.
const ENOUGH: u64 = 16 << 20;

/// What is in `path` on the host; nothing, if no regular file is there. It is whatever an
/// administrator has written: bytes, in any encoding. And it may be anything: from a FIFO
/// that nobody writes to, an ordinary open(2) would wait forever.
pub fn host_file(path: &str) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(text),
        // What a socket says to this, and a link that leads to itself.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENXIO | libc::ELOOP)) => return Ok(text),
        other => other.with_context(|| format!("open {path} of the host"))?,
    };
    let metadata = file.metadata().with_context(|| format!("look at {path} of the host"))?;
    if metadata.is_file() {
        text.reserve(metadata.len().min(ENOUGH) as usize + 1);
        file.take(ENOUGH).read_to_end(&mut text).with_context(|| format!("read {path} of the host"))?;
        if text.len() as u64 == ENOUGH {
            bail!("{path} of the host: expected less than {} MiB of text", ENOUGH >> 20);
        }
    }
    Ok(text)
}
// ANCHOR_END: host_file

// ANCHOR: write
/// Writes `files`, each with its name, and the file `hostname` into the container's
/// directory, and plans to mount each in /etc: the child will have no path to them.
pub fn write(container: &mut Container, mut files: Vec<(&'static str, Vec<u8>)>) -> Result<()> {
    let Some(dir) = container.parts.dir.clone() else { return Ok(()) };
    files.insert(0, ("hostname", format!("{}\n", hostname(container)).into()));
    let read_only = is_read_only(container)?;
    if read_only && has_no_etc(container) {
        // And nothing can be mounted there.
        return Ok(());
    }
    for (name, text) in files {
        let tree = write_one(&dir, name, &text)?;
        // If somebody has planned another file of this name, that one is mounted.
        let target = Path::new("/etc").join(name);
        container.parts.mounts.push(Mount { tree, target, is_dir: false, read_only, fill: None });
    }
    Ok(())
}
// ANCHOR_END: write

fn write_one(dir: &Path, name: &'static str, text: &[u8]) -> Result<OwnedFd> {
    let path = dir.join(name);
    let describe = || (format!("write {path:?}"), format!("cat > {}", path.display()));
    step(DAY, describe, || {
        let new = || OpenOptions::new().write(true).create_new(true).mode(MODE).open(&path);
        let mut file = match new() {
            // It is started once more. Its old one may be anything by now.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                fs::remove_file(&path).and_then(|()| new())
            }
            opened => opened,
        }?;
        file.write_all(text)
    })?;
    take(DAY, &path)
}

/// Is its `/` read-only? Then these files are too: what is mounted there is to be no hole.
fn is_read_only(container: &Container) -> Result<bool> {
    let found = match &container.parts.root {
        Some(root) => fstatvfs(root),
        None if container.plan.has_own_root() => return Ok(container.plan.read_only),
        None => statvfs("/"),
    };
    let flags = found.context("statvfs(/)")?.flags();
    Ok(container.plan.read_only || flags.contains(FsFlags::ST_RDONLY))
}

fn has_no_etc(container: &Container) -> bool {
    let etc = container.parts.root.as_ref().map(|root| statat(root, "etc", AtFlags::SYMLINK_NOFOLLOW));
    matches!(etc, Some(Err(Errno::NOENT)))
}
