//! Day 12: layers become directories.
//!
//! Whoever wrote a layer may have had anything in mind. So it is unpacked by a process whose
//! `/` is the directory that the layer becomes: what it does to links and names, it does to
//! itself. That process is this program, started anew (as Docker does it): several layers are
//! unpacked at once, by threads, and a process with threads must not clone itself.

use std::fs::File;
use std::io::{BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, bail};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, getppid};
use rustix::fs::getxattr;
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::error::{COMMAND_FAILED, Result};
use crate::explain::{self, shell, step};
use crate::images::DAY;
use crate::images::decompress::{BUFFER, Hashed, decompress};
use crate::images::digest::Digest;
use crate::images::entries::Entries;
use crate::images::spec::Descriptor;
use crate::images::store::{Image, Store};
use crate::images::tree::Tree;
use crate::layers::overlay;
use crate::metadata::output::print;
use crate::namespaces::make_mounts_private;
use crate::rootfs::change_root;
use crate::rootfs::mount::{Dir, take};
use crate::wait::signal_name;

/// What one layer may take. The largest that people use have some 100,000 files and 20 GiB.
const MOST_ENTRIES: u64 = 1_000_000;
const MOST_BYTES: u64 = 256 << 30;
const MOST_MEMORY: u64 = 1 << 30;

/// How many layers are unpacked at the same time.
const AT_ONCE: usize = 4;

// ANCHOR: layer
/// Unpacks a layer whose file is in the store, if it is not there yet. Returns its directory.
///
/// It is unpacked aside, and renamed once its digest is what the image's configuration says of
/// it: under its name there is the whole layer, or nothing.
pub fn layer(store: &Store, layer: &Descriptor, diff_id: &Digest) -> Result<PathBuf> {
    // ANCHOR: day12_task3_layer_solution
    let Some(aside) = store.layer_aside(diff_id)? else {
        return store.layer(diff_id)?.context("somebody has removed the layer");
    };
    let blob = store.dir_of_blob(&layer.digest);
    let found = std::fs::metadata(&blob).with_context(|| format!("look at {blob:?}"))?.len();
    if found != layer.size {
        bail!("{blob:?} has {found} bytes, and the manifest says {}; pull the image again", layer.size);
    }
    let (unpacked, size) = unpack_apart(&blob, aside.dir(), aside.lock())
        .with_context(|| format!("unpack the layer {}", layer.digest))?;
    if unpacked != *diff_id {
        bail!(
            "the layer {} is {unpacked} when it is unpacked, and the image's configuration says {diff_id}; \
             the image is damaged, or somebody has changed it: do not use it",
            layer.digest
        );
    }
    store.keep_layer(aside, diff_id, size)
    // ANCHOR_END: day12_task3_layer_solution
}
// ANCHOR_END: layer

// ANCHOR: image
/// Unpacks all layers of `image` that are not there yet, several at once. Returns their
/// directories, the uppermost first, as overlayfs has them.
pub fn image(store: &Store, image: &Image) -> Result<Vec<PathBuf>> {
    let layers: Vec<_> = image.manifest.layers.iter().zip(&image.config.rootfs.diff_ids).collect();
    let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
    let work = || {
        while let Some((file, diff_id)) = layers.get(next.fetch_add(1, Relaxed)) {
            if let Err(error) = layer(store, file, diff_id) {
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                next.store(layers.len(), Relaxed);
            }
        }
    };
    let missing = layers.iter().filter(|(_, diff_id)| !store.dir_of_layer(diff_id).exists()).count();
    // One of them is this thread: an image that is there takes no thread at all.
    std::thread::scope(|scope| {
        for _ in 1..missing.min(AT_ONCE) {
            scope.spawn(work);
        }
        work();
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(visible(layers.iter().rev().map(|(_, diff_id)| store.dir_of_layer(diff_id)).collect())),
    }
}
// ANCHOR_END: image

/// Of `layers`, the uppermost first, those that can be seen. A layer may hide all that is below
/// it, and overlayfs knows that of every directory but `/`.
pub fn visible(mut layers: Vec<PathBuf>) -> Vec<PathBuf> {
    let is_opaque = |layer: &PathBuf| getxattr(layer, overlay::opaque_attribute(), &mut [0; 2][..]).is_ok();
    let last = layers.iter().position(is_opaque).map_or(layers.len(), |at| at + 1);
    layers.truncate(last);
    layers
}

/// Has another process unpack `blob` into `dir`. It holds the lock `lock` as long as it lives.
/// Returns the digest of the archive, and how many bytes are in its files.
fn unpack_apart(blob: &Path, dir: &Path, lock: &File) -> Result<(Digest, u64)> {
    let mut command = Command::new("/proc/self/exe");
    if explain::is_on() {
        command.arg("--explain");
    }
    command.arg("unpack-layer").arg(blob).arg(dir).arg(std::process::id().to_string());
    let lock: OwnedFd = lock.try_clone().context("dup")?.into();
    command.stdin(Stdio::from(lock)).stdout(Stdio::piped());
    let describe = || {
        let call = format!("execve(\"/proc/self/exe\", [\"unpack-layer\", {blob:?}, {dir:?}])");
        (call, format!("tar -xf {} -C {}", shell(blob), shell(dir)))
    };
    let output = step(DAY, describe, || command.spawn()?.wait_with_output())?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    match (output.status.code(), output.status.signal()) {
        (Some(0), _) => {
            let (digest, size) =
                said.trim_end().split_once(' ').context("it said nothing that we expected")?;
            Ok((digest.parse()?, size.parse()?))
        }
        (_, Some(signal)) => bail!(
            "the process that unpacked it was killed by {}; if nobody sent that, it wanted more memory than \
             {} MiB, or than there is",
            signal_name(signal),
            MOST_MEMORY >> 20
        ),
        _ if said.is_empty() => bail!("the process that was to unpack it ended without a word"),
        _ => bail!("{}", said.trim_end()),
    }
}

/// Unpack a layer: a process of `pull`'s own
#[derive(Debug, clap::Args)]
pub struct UnpackLayer {
    /// The layer's file
    blob: PathBuf,

    /// The empty directory that it is to become
    dir: PathBuf,

    /// Who started this: it ends with that
    parent: i32,
}

impl UnpackLayer {
    /// Returns the exit code, and prints the layer's digest, or what went wrong.
    pub fn execute(self) -> Result<u8> {
        explain::in_child();
        match self.unpack() {
            Ok((digest, size)) => print(&format!("{digest} {size}\n")),
            Err(error) => print(&format!("{error:#}\n")).map(|_| COMMAND_FAILED),
        }
    }

    // ANCHOR: unpack
    fn unpack(&self) -> Result<(Digest, u64)> {
        // ANCHOR: day12_task3_unpack_solution
        let describe = || ("prctl(PR_SET_PDEATHSIG, SIGKILL)".into(), "setpriv --pdeathsig KILL".into());
        step(DAY, describe, || set_pdeathsig(Signal::SIGKILL))?;
        if getppid() != Pid::from_raw(self.parent) {
            bail!("the process that started this has ended");
        }
        let blob = File::open(&self.blob).with_context(|| format!("open {:?}", self.blob))?;
        self.enter()?;
        limit()?;
        // Modes are meant as they are written. Not earlier: the directory itself is made by us.
        umask(Mode::empty());
        let mut archive = BufReader::with_capacity(BUFFER, Hashed::new(decompress(blob)?));
        let size = unpack(&mut archive)?;
        // What follows the last entry, zeros mostly, belongs to the digest too.
        std::io::copy(&mut archive, &mut std::io::sink()).context("read the layer to its end")?;
        Ok((archive.into_inner().finish(), size))
        // ANCHOR_END: day12_task3_unpack_solution
    }
    // ANCHOR_END: unpack

    // ANCHOR: enter
    /// From here on `/` is the layer's directory, and no path leads out of it. (day 3)
    fn enter(&self) -> Result<()> {
        // ANCHOR: day12_task3_enter_solution
        let root = Dir::new(take(DAY, &self.dir)?, "/");
        let describe = || ("unshare(CLONE_NEWNS)".into(), "unshare --mount".into());
        step(DAY, describe, || unshare(CloneFlags::CLONE_NEWNS))?;
        make_mounts_private()?;
        change_root(&root)
        // ANCHOR_END: day12_task3_enter_solution
    }
    // ANCHOR_END: enter
}

/// What an archive says of itself may ask for any amount of memory, or of disk.
fn limit() -> Result<()> {
    for (name, resource, most) in
        [("RLIMIT_AS", Resource::As, MOST_MEMORY), ("RLIMIT_FSIZE", Resource::Fsize, MOST_BYTES)]
    {
        let describe = || (format!("setrlimit({name}, {} << 30)", most >> 30), "ulimit -v … -f …".into());
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        step(DAY, describe, || setrlimit(resource, limit))?;
    }
    Ok(())
}

/// Makes what is in `archive` in this process's root directory. Returns how many bytes that is.
fn unpack(archive: &mut BufReader<Hashed<impl Read>>) -> Result<u64> {
    let mut entries = Entries::new(archive, MOST_ENTRIES);
    let mut tree = Tree::new(MOST_BYTES)?;
    while let Some(entry) = entries.next_entry()? {
        tree.make(&entry, &mut entries).with_context(|| format!("\"{}\"", entry.name.escape_ascii()))?;
    }
    tree.finish()
}
