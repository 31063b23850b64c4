//! Day 9: the lock on the network.
//!
//! The bridge belongs to the host, and so does the list of the addresses that are taken:
//! two state directories (`--root`) share both. What guards them must be as wide. It is
//! kept in /run, in a directory of this network namespace, and is gone after a reboot, as
//! the bridge is. (hier(7), /run)

use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use crate::error::Result;
use crate::wait;

const RUN: &str = "/run/tiny-docker/net";

/// A hundred starts at once take their turns on a slow machine. Whoever holds the lock for
/// longer than this is stopped (Ctrl-Z), or worse.
const PATIENCE: Duration = Duration::from_secs(60);

// ANCHOR: lock
/// The right to change what containers share. It ends with this value, or with this process.
#[derive(Debug)]
pub struct NetworkLock {
    dir: PathBuf,
    _lock: File,
}

impl NetworkLock {
    /// Takes it, or waits until it is free.
    pub fn take() -> Result<NetworkLock> {
        let dir = NetworkLock::place()?;
        loop {
            make_private(&dir)?;
            let lock = match File::open(&dir) {
                // Its last user has just removed it.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                other => other.with_context(|| format!("open {dir:?}"))?,
            };
            wait::lock(
                &lock,
                false,
                Some(PATIENCE),
                &format!("the lock on the network ({})", dir.display()),
            )?;
            // The same while we waited: then the lock is on a directory without a name.
            let ours = lock.metadata().with_context(|| format!("look at {dir:?}"))?.ino();
            if fs::metadata(&dir).is_ok_and(|named| named.ino() == ours) {
                return Ok(NetworkLock { dir, _lock: lock });
            }
        }
    }

    /// The directory of this network namespace, in which what containers share is written.
    pub fn place() -> Result<PathBuf> {
        // A network namespace is known by the number of its file. (namespaces(7))
        let namespace = fs::metadata("/proc/self/ns/net").context("look at /proc/self/ns/net")?.ino();
        Ok(Path::new(RUN).join(namespace.to_string()))
    }

    /// The directory of the addresses on `bridge`.
    pub fn addresses(&self, bridge: &str) -> PathBuf {
        self.dir.join(bridge)
    }

    /// Removes that directory, once nobody has an address; and what is empty then. The
    /// files in it are opened under this lock alone, so that nobody waits for one of them.
    pub fn forget_addresses(self, bridge: &str) {
        let _ = fs::remove_dir_all(self.addresses(bridge));
        // The directory of the namespace, and the two above: mkdir of the next run.
        let _ = self.dir.ancestors().take(3).try_for_each(fs::remove_dir);
    }
}
// ANCHOR_END: lock

/// Makes `dir`, for root alone, and what is above it.
pub fn make_private(dir: &Path) -> Result<()> {
    loop {
        match DirBuilder::new().recursive(true).mode(0o700).create(dir) {
            // The one above it was removed at this moment.
            Err(error) if error.kind() == ErrorKind::NotFound && Path::new("/run").is_dir() => continue,
            other => {
                return other.with_context(|| {
                    format!(
                        "make {dir:?}, where the addresses of containers are kept: it needs root, \
                         and a /run that can be written"
                    )
                });
            }
        }
    }
}
