//! Day 12: where things are in the store, whose directory is `store`.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::explain::{shell, step};
use crate::images::DAY;
use crate::images::digest::Digest;

/// The file `digest`, whether it is there or not.
pub fn blob(store: &Path, digest: &Digest) -> PathBuf {
    store.join("blobs/sha256").join(digest.hex())
}

/// The unpacked layer `diff_id`, whether it is there or not.
pub fn layer(store: &Path, diff_id: &Digest) -> PathBuf {
    store.join("layers").join(diff_id.hex())
}

/// Where something is made before it is there, and taken apart when it is not there any more.
pub fn aside(store: &Path) -> PathBuf {
    store.join("aside")
}

/// Replaces a small file, as a whole or not at all. (rename(2)) For one process at a time: whoever
/// was killed has left a new one, and the next one writes that again.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let new = path.with_extension("new");
    let describe = || (format!("rename({new:?}, {path:?})"), format!("mv {} {}", shell(&new), shell(path)));
    let replaced = step(DAY, describe, || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        fs::rename(&new, path)
    });
    if replaced.is_err() {
        let _ = fs::remove_file(&new);
    }
    replaced
}
