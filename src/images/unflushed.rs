//! Day 12: after a power cut, nothing that is half on the disk is taken for whole; and nobody
//! waits for the disk.
//!
//! rename(2) is atomic for all who look. A disk has another view: the name may be there, and the
//! data not yet, for up to half a minute. So what gets its name leaves a note first, an empty file
//! in `unflushed/`, of which the name alone counts: the boot, the kind, the digest. A process of
//! its own waits for the disk (syncfs(2)), and removes the notes that were there before it began.
//! A note of an earlier boot was therefore not removed in time: its file is verified again, and
//! its layer is unpacked again. (A file system brings names to the disk in the order in which
//! they were made, so a note is never later than what it is about.)

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use anyhow::Context;
use nix::unistd::setsid;
use rustix::fs::syncfs;

use crate::error::Result;
use crate::images::aside::Aside;
use crate::images::digest::{Digest, Hasher};
use crate::images::place;
use crate::metadata::flush;
use crate::metadata::record::boot_id;
use crate::wait::lock;

fn notes_of(store: &Path) -> PathBuf {
    store.join("unflushed")
}

/// Whether this process has left a note.
static NOTED: AtomicBool = AtomicBool::new(false);

/// Notes that the file or the layer `digest` is about to get its name. What is on a tmpfs does
/// not outlive the boot.
pub fn note(store: &Path, kind: &str, digest: &Digest) -> Result<()> {
    let place = notes_of(store);
    if flush::is_in_memory(&place) {
        return Ok(());
    }
    let path = place.join(format!("{}.{kind}.{}", boot_id()?, digest.hex()));
    NOTED.store(true, Relaxed);
    File::create(&path).map(drop).with_context(|| format!("make {path:?}"))
}

// ANCHOR: verify
/// Verifies what an earlier boot may have left half on the disk. Once that is done, `forget` takes
/// their names away from images that are not whole any more; and then the notes go.
pub fn verify_after_a_power_cut(store: &Path, forget: impl FnOnce() -> Result<()>) -> Result<()> {
    // ANCHOR: day12_task2_verify_after_a_power_cut_solution
    let is_old = |name: &OsString| !name.to_string_lossy().starts_with(boot_id().unwrap_or_default());
    let notes = notes(store)?;
    if !notes.iter().any(is_old) {
        return Ok(());
    }
    let place = notes_of(store);
    let opened = File::open(&place).with_context(|| format!("open {place:?}"))?;
    lock(&opened, false, None, "the image store, which another process verifies after a power cut,")?;
    let notes: Vec<OsString> = self::notes(store)?.into_iter().filter(is_old).collect();
    for note in &notes {
        let text = note.to_string_lossy();
        let words: Vec<&str> = text.split('.').collect();
        if let [_, kind, hex] = words[..]
            && let Ok(digest) = format!("sha256:{hex}").parse::<Digest>()
        {
            match kind {
                "layer" => Aside::remove(&place::aside(store), &place::layer(store, &digest))?,
                _ => verify_blob(store, &digest)?,
            }
        }
    }
    forget()?;
    for note in notes {
        let note = place.join(note);
        fs::remove_file(&note).with_context(|| format!("remove {note:?}"))?;
    }
    Ok(())
    // ANCHOR_END: day12_task2_verify_after_a_power_cut_solution
}
// ANCHOR_END: verify

/// Removes the file `digest` if it is not what its name says.
pub fn verify_blob(store: &Path, digest: &Digest) -> Result<()> {
    let path = place::blob(store, digest);
    let Ok(mut file) = File::open(&path) else { return Ok(()) };
    let mut hasher = Hasher::new();
    std::io::copy(&mut file, &mut hasher).with_context(|| format!("read {path:?}"))?;
    if hasher.finish() == *digest {
        return Ok(());
    }
    fs::remove_file(&path).with_context(|| format!("remove {path:?}, which is damaged"))
}

fn notes(store: &Path) -> Result<Vec<OsString>> {
    let place = notes_of(store);
    let read = || fs::read_dir(&place)?.map(|entry| entry.map(|entry| entry.file_name())).collect();
    let notes: std::io::Result<Vec<OsString>> = read();
    notes.with_context(|| format!("read {place:?}"))
}

/// Has all that this process added brought to the disk soon, by another one. Returns at once.
pub fn flush_soon(store: &Path) {
    if NOTED.swap(false, Relaxed) {
        let mut command = Command::new("/proc/self/exe");
        command.arg("flush-images").arg(store).current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // If there is none to be had, another one does it later.
        let _ = command.spawn();
    }
}

/// Bring the image store to the disk: a process of `pull`'s own
#[derive(Debug, clap::Args)]
pub struct FlushImages {
    /// The store
    dir: PathBuf,
}

impl FlushImages {
    /// Returns the exit code.
    pub fn execute(self) -> Result<u8> {
        // Neither a terminal that closes nor Ctrl-C ends it.
        let _ = setsid();
        let store = &self.dir;
        let notes = notes(store)?;
        let opened = File::open(notes_of(store)).context("open the image store")?;
        syncfs(&opened).context("syncfs")?;
        for note in notes {
            let _ = fs::remove_file(notes_of(store).join(note));
        }
        Ok(0)
    }
}
