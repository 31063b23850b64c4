//! Day 12: a file that is still coming. What has come stays, whatever happens: the next who
//! wants the file goes on from there.

use std::fs::{File, OpenOptions, remove_file, rename};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::error::Result;
use crate::explain::{shell, step};
use crate::images::decompress::BUFFER;
use crate::images::digest::{Digest, Hasher};
use crate::images::spec::Descriptor;
use crate::images::{DAY, place, unflushed};
use crate::metadata::state::is_still;
use crate::wait::lock;

/// A file that is still coming. Dropped, it stays for the next who wants it.
pub struct Partial {
    store: PathBuf,
    expected: Descriptor,
    path: PathBuf,
    file: File,
    length: u64,
    hasher: Hasher,
}

impl Partial {
    // ANCHOR: open
    /// The place for `expected`, with what has come of it. It waits while another process loads
    /// the same file: that one has locked it. (flock(2))
    pub fn open(store: &Path, expected: &Descriptor) -> Result<Partial> {
        let path = store.join("partial").join(expected.digest.hex());
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        loop {
            let file = options.open(&path).with_context(|| format!("open {path:?}"))?;
            lock(&file, false, None, "the same file of an image, which another process loads,")?;
            // It may have got its name while we waited, or been removed: then nobody finds ours.
            if !is_still(&file, &path)? {
                continue;
            }
            let (store, expected) = (store.to_owned(), expected.clone());
            let mut partial = Partial { store, expected, path, file, length: 0, hasher: Hasher::new() };
            partial.take_up()?;
            return Ok(partial);
        }
    }
    // ANCHOR_END: open

    /// Takes the digest of what is there.
    fn take_up(&mut self) -> Result<()> {
        let mut buffer = vec![0; BUFFER];
        loop {
            match self.file.read(&mut buffer).with_context(|| format!("read {:?}", self.path))? {
                0 => break,
                count => {
                    self.hasher.update(&buffer[..count]);
                    self.length += count as u64;
                }
            }
        }
        if self.length > self.expected.size { self.restart() } else { Ok(()) }
    }

    /// How much of it is there, in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// What comes next. An error if that is more than the descriptor says.
    pub fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        if self.length + bytes.len() as u64 > self.expected.size {
            bail!(
                "{} is longer than the {} bytes that were announced",
                self.expected.digest,
                self.expected.size
            );
        }
        self.file.write_all(bytes).with_context(|| format!("write {:?}", self.path))?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// From the beginning: nothing of what is there counts.
    pub fn restart(&mut self) -> Result<()> {
        self.file
            .set_len(0)
            .and_then(|()| self.file.rewind())
            .with_context(|| format!("empty {:?}", self.path))?;
        (self.length, self.hasher) = (0, Hasher::new());
        Ok(())
    }

    /// Removes it. Whoever waits for its lock finds that it is gone, and makes a new one.
    pub fn discard(self) -> Result<()> {
        remove_file(&self.path).with_context(|| format!("remove {:?}", self.path))
    }

    // ANCHOR: finish
    /// Verifies length and digest, and gives it its name. If the digest does not match, it is
    /// removed; if it is too short, it stays.
    pub fn finish(self) -> Result<()> {
        // ANCHOR: day12_task2_finish_solution
        let Descriptor { digest, size, .. } = &self.expected;
        if self.length != *size {
            bail!("{digest} ends after {} of {size} bytes", self.length);
        }
        let found = self.hasher.finish();
        if found != *digest {
            remove_file(&self.path).with_context(|| format!("remove {:?}", self.path))?;
            bail!(
                "what came has the digest {found}, and {digest} was asked for: it was damaged on the way, or \
                 somebody has changed it; nothing of it was kept"
            );
        }
        keep(&self.store, &self.path, digest)
        // ANCHOR_END: day12_task2_finish_solution
    }
    // ANCHOR_END: finish
}

impl std::fmt::Debug for Partial {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "Partial({:?}, {} bytes)", self.path, self.length)
    }
}

// ANCHOR: keep
/// Gives the file `from`, which has been verified, its name in the store.
pub fn keep(store: &Path, from: &Path, digest: &Digest) -> Result<()> {
    // ANCHOR: day12_task2_keep_solution
    unflushed::note(store, "blob", digest)?;
    let to = place::blob(store, digest);
    let describe = || (format!("rename({from:?}, {to:?})"), format!("mv {} {}", shell(from), shell(&to)));
    step(DAY, describe, || rename(from, &to))
    // ANCHOR_END: day12_task2_keep_solution
}
// ANCHOR_END: keep
