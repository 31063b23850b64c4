//! Day 9: who has which address.
//!
//! For each address there is a file, and whoever has the file locked has the
//! address: the `run` that waits for the container. The kernel drops the lock when
//! that process dies, even by SIGKILL, and so gives the address back. (flock(2); the
//! same idea as day 4's owner)

use std::fs::{self, DirBuilder, File, TryLockError};
use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Instant;

use anyhow::{Context, bail};

use crate::error::Result;
use crate::explain::step;
use crate::metadata::state::open_to_lock;
use crate::net::subnet::Plan;
use crate::wait::{A_MOMENT, PATIENCE};

const DAY: u8 = 9;

/// The right to one address. It ends with this value, or with this process.
#[derive(Debug)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    _lock: File,
}

/// Where the files are, in the state directory.
pub fn files(root: &Path) -> PathBuf {
    root.join("addresses")
}

/// The address that was given last, in the same directory.
const LAST: &str = "last";

// ANCHOR: lease
/// Takes `wanted`, or else an address that nobody has: the next after the one that
/// was given last, so that one that was just given back rests for a while. `in_use`
/// says whether the kernel still has a cable for an address: it removes that of a
/// container a moment after its end.
pub fn lease(
    root: &Path,
    plan: &Plan,
    wanted: Option<Ipv4Addr>,
    in_use: impl Fn(Ipv4Addr) -> bool,
) -> Result<Lease> {
    // ANCHOR: day9_task2_lease_solution
    let dir = files(root);
    DirBuilder::new().recursive(true).mode(0o700).create(&dir).with_context(|| format!("make {dir:?}"))?;
    if let Some(address) = wanted {
        return lease_this(&dir, plan, address, in_use);
    }
    let last = fs::read_to_string(dir.join(LAST)).ok().and_then(|text| text.parse().ok());
    let last = last.unwrap_or(plan.gateway());
    let after = plan.hosts().filter(|address| *address > last);
    let in_turn: Vec<Ipv4Addr> = after.chain(plan.hosts().filter(|address| *address <= last)).collect();
    let start = Instant::now();
    loop {
        let mut some_is_about_to_go = false;
        for address in in_turn.iter().copied() {
            let Some(lease) = try_lock(&dir, address)? else { continue };
            if !in_use(address) {
                // A hint, and no more: whether it is free, its lock says.
                let _ = fs::write(dir.join(LAST), address.to_string());
                return Ok(lease);
            }
            some_is_about_to_go = true;
        }
        if !some_is_about_to_go || start.elapsed() > PATIENCE {
            let (network, bits) = (plan.network, plan.bits);
            bail!(
                "all {} addresses of {network}/{bits} are in use; stop a container, or use a larger subnet: --subnet",
                plan.hosts().count()
            );
        }
        sleep(A_MOMENT);
    }
    // ANCHOR_END: day9_task2_lease_solution
}
// ANCHOR_END: lease

/// Does anybody have an address?
pub fn anybody_has_one(root: &Path) -> Result<bool> {
    let dir = files(root);
    for file in fs::read_dir(&dir).into_iter().flatten().flatten() {
        let lock = File::open(file.path()).with_context(|| format!("open {:?}", file.path()))?;
        if matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn lease_this(
    dir: &Path,
    plan: &Plan,
    address: Ipv4Addr,
    in_use: impl Fn(Ipv4Addr) -> bool,
) -> Result<Lease> {
    if !plan.has(address) {
        let (network, bits, gateway) = (plan.network, plan.bits, plan.gateway());
        bail!(
            "--ip {address}: expected an address of {network}/{bits}, but not its first, its last, or {gateway}, the host's"
        );
    }
    let Some(lease) = try_lock(dir, address)? else {
        bail!(
            "--ip {address}: another container has it; tiny-docker ps shows which. Stop that one, or leave --ip away"
        );
    };
    let start = Instant::now();
    while in_use(address) {
        if start.elapsed() > PATIENCE {
            bail!("--ip {address}: the interface {} is there, of no container of ours", plan.veth(address));
        }
        sleep(A_MOMENT);
    }
    Ok(lease)
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
