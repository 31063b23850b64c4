//! Day 9: who has which address.
//!
//! For each address there is a file, and whoever has the file locked has the
//! address: the `run` that waits for the container. The kernel drops the lock when
//! that process dies, even by SIGKILL, and so gives the address back. (flock(2); the
//! same idea as day 4's owner) The files are opened under the network's lock alone.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::Context;

use crate::error::Result;
use crate::explain::step;
use crate::metadata::state::open_to_lock;
use crate::net::lock::{NetworkLock, make_private};
use crate::net::subnet::Lan;

const DAY: u8 = 9;

/// The right to one address. It ends with this value, or with this process.
#[derive(Debug)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    _lock: File,
}

/// The address that was given last, in the same directory.
const LAST: &str = "last";

/// Takes `wanted`, or else an address that nobody has. `in_use` says whether the kernel
/// still has a cable for an address: it removes that of a container a moment after its end.
pub fn lease(
    lock: &NetworkLock,
    lan: &Lan,
    wanted: Option<Ipv4Addr>,
    in_use: impl Fn(Ipv4Addr) -> Result<bool>,
) -> Result<Lease> {
    let dir = lock.addresses(&lan.bridge);
    make_private(&dir)?;
    match wanted {
        Some(address) => lease_this(&dir, address),
        None => next_free(&dir, lan, in_use),
    }
}

// ANCHOR: next_free
/// Takes the next address after the one that was given last, so that one that was just
/// given back rests for a while. One that is still in use is taken only if there is no
/// other: its cable is about to go.
fn next_free(dir: &Path, lan: &Lan, in_use: impl Fn(Ipv4Addr) -> Result<bool>) -> Result<Lease> {
    // ANCHOR: day9_task2_next_free_solution
    let last = last_given(dir).unwrap_or(lan.gateway());
    let after = lan.hosts().filter(|address| *address > last);
    let in_turn = after.chain(lan.hosts().filter(|address| *address <= last));
    let mut about_to_go = None;
    for address in in_turn {
        let Some(lease) = try_lock(dir, address)? else { continue };
        if !in_use(address)? {
            remember(dir, address);
            return Ok(lease);
        }
        about_to_go = about_to_go.or(Some(lease));
    }
    let (network, bits, count) = (lan.network, lan.bits, lan.hosts().count());
    about_to_go.with_context(|| {
        format!(
            "all {count} addresses of {network}/{bits} are in use; stop a container, \
             or use a larger subnet: --subnet"
        )
    })
    // ANCHOR_END: day9_task2_next_free_solution
}
// ANCHOR_END: next_free

/// The address that was given last, if one was.
fn last_given(dir: &Path) -> Option<Ipv4Addr> {
    String::from_utf8(fs::read(dir.join(LAST)).ok()?).ok()?.trim_end().parse().ok()
}

/// It is a hint, and no more: whether an address is free, its lock says. So it does not
/// matter whether this works. Each is as long as the longest: so the file is overwritten, and
/// not first emptied, for which some file systems wait for the disk.
fn remember(dir: &Path, address: Ipv4Addr) {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(dir.join(LAST));
    let text = format!("{:<15}\n", address.to_string());
    let _ = file.and_then(|mut file| file.write_all(text.as_bytes()));
}

/// The next one to be given is the first.
pub fn begin_anew(lock: &NetworkLock, lan: &Lan) {
    let _ = fs::remove_file(lock.addresses(&lan.bridge).join(LAST));
}

/// Does anybody have an address on `bridge`?
pub fn anybody_has_one(lock: &NetworkLock, bridge: &str) -> Result<bool> {
    let dir = lock.addresses(bridge);
    let files = match fs::read_dir(&dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        other => other.with_context(|| format!("read {dir:?}"))?,
    };
    for file in files {
        let path = file.with_context(|| format!("read {dir:?}"))?.path();
        let file = File::open(&path).with_context(|| format!("open {path:?}"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(true),
            Err(TryLockError::Error(error)) => return Err(error).with_context(|| format!("lock {path:?}")),
        }
    }
    Ok(false)
}

fn lease_this(dir: &Path, address: Ipv4Addr) -> Result<Lease> {
    try_lock(dir, address)?.with_context(|| {
        format!("--ip {address}: another container has it; tiny-docker ps shows which. Stop that one, or omit --ip")
    })
}

// ANCHOR: try_lock
/// `None`: somebody has it.
fn try_lock(dir: &Path, address: Ipv4Addr) -> Result<Option<Lease>> {
    let file = dir.join(address.to_string());
    let lock = open_to_lock(&file).with_context(|| format!("open {file:?}"))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error).with_context(|| format!("lock {file:?}")),
    }
    let describe = || (format!("flock({file:?}): it is ours"), format!("flock -n {} …", file.display()));
    step(DAY, describe, || Ok::<_, std::io::Error>(Some(Lease { address, _lock: lock })))
}
// ANCHOR_END: try_lock
