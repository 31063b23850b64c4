//! Day 11: `diff`, what a container has changed. Nothing keeps a list of that: its own layer
//! is one. What is in it was added or changed, and what was deleted has left a sign there.
//! (kernel: filesystems/overlayfs, "whiteouts and opaque directories")

use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fgetxattr, openat, statat};
use rustix::io::Errno;

use crate::error::{self, COMMAND_FAILED, Result};
use crate::explain::step;
use crate::layers::overlay;
use crate::layers::pack::{CAPABILITY, show};
use crate::layers::streams::{Out, is_broken_pipe};
use crate::layers::tree::{Walk, kind, names, open_below, open_dir};
use crate::metadata::state::State;

use super::DAY;

/// Show what a container has changed in its layers: A added, C changed, D deleted
///
/// In a path, a byte that would end or change the line is shown as the kernel shows it in
/// /proc/mounts: \012 for a newline, \134 for a backslash.
#[derive(Debug, clap::Args)]
pub struct Diff {
    #[command(flatten)]
    state: State,

    /// Its id or name
    container: String,
}

/// What happened to a file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change {
    /// It was not there.
    Added,
    /// It was there, and is another one or has other attributes.
    Changed,
    /// It was there.
    Deleted,
}

impl Diff {
    /// Prints a line for each change. Returns the exit code: 1 if that are not all.
    pub fn execute(self) -> Result<u8> {
        Ok(match self.show() {
            Ok(()) => 0,
            Err(error) => {
                error::print(&error);
                COMMAND_FAILED
            }
        })
    }

    fn show(&self) -> Result<()> {
        let record = self.state.settle(self.state.find(&self.container)?)?;
        let title = record.title();
        if let Some(why) = &record.unreadable {
            bail!("container {title} cannot be read, so nobody can tell which layers it has: {why}");
        }
        if record.plan.layers.is_empty() {
            bail!(
                "container {title} has no layer of its own: what it writes goes where everything else is. \
                 Expected one that was started with --layer DIR instead of --rootfs DIR"
            );
        }
        let (upper, lower) = open_layers(&record.plan.layers, &self.state.dir(&record.id))?;
        let stdout = io::stdout().as_fd().try_clone_to_owned().context("dup")?;
        let out = BufWriter::new(Out(stdout));
        match (Differ { out, above: vec![] }).walk(upper, lower) {
            // `diff | head` has what it wants.
            Err(error) if is_broken_pipe(&error) => Ok(()),
            outcome => outcome,
        }
    }
}

// ANCHOR: open_layers
/// The container's own layer, and what is below it, as one tree: the kernel knows which of
/// several layers counts. For that this process gets mounts of its own, which end with it.
fn open_layers(layers: &[PathBuf], dir: &Path) -> Result<(OwnedFd, OwnedFd)> {
    let dir = &fs::canonicalize(dir).with_context(|| format!("look at {dir:?}"))?;
    let open = |path: &Path| -> Result<OwnedFd> {
        Ok(File::open(path).with_context(|| format!("open {path:?}"))?.into())
    };
    let upper = open(&overlay::upper(dir))?;
    let lower = match layers {
        [only] => open(only)?,
        layers => {
            let describe = || ("unshare(CLONE_NEWNS)".into(), "unshare --mount".into());
            step(DAY, describe, || unshare(CloneFlags::CLONE_NEWNS))?;
            crate::namespaces::make_mounts_private()?;
            overlay::build_lower(layers, dir)?
        }
    };
    let lower = open_dir(lower.as_fd(), c".").context("open what is below")?;
    Ok((upper, lower))
}
// ANCHOR_END: open_layers

/// Why a walk may fail.
const MOVED: &str = "the container moved or removed it while it was looked at; try again";

/// A file in the layer, and what is below it in its place.
struct Pair {
    upper: Stat,
    lower: Option<Stat>,
}

struct Differ<W> {
    out: W,
    /// The directories on the way to here.
    above: Vec<Above>,
}

#[derive(Default)]
struct Above {
    /// Whether it has its line.
    shown: bool,
    /// Whether what is below it in the other layers is hidden: it is opaque, or in one that is.
    hides: bool,
}

impl<W: Write> Differ<W> {
    // ANCHOR: walk
    /// Goes through `upper`, the container's layer, and beside it through what is below.
    fn walk(&mut self, upper: OwnedFd, lower: OwnedFd) -> Result<()> {
        let mut below = Below { top: lower, path: vec![], here: None };
        let all = names(&upper).context("read the layer")?;
        let mut walk = Walk::new(upper, all).context("open the layer")?;
        self.above.push(Above::default());
        loop {
            while let Some(name) = walk.next_name() {
                self.look_at(&mut walk, &mut below, &name)
                    .with_context(|| format!("look at {}", show(&walk.path)))?;
            }
            self.above.pop();
            if !walk.leave().context(MOVED)? {
                return self.out.flush().map_err(Into::into);
            }
        }
    }

    /// Prints what there is to say of `name`, on which the walk stands. If it is a directory,
    /// the walk goes into it.
    fn look_at(&mut self, walk: &mut Walk, below: &mut Below, name: &CStr) -> Result<()> {
        let lower = below.stat(&walk.path, name)?;
        let upper = match statat(&walk.here, name, AtFlags::SYMLINK_NOFOLLOW) {
            // In an opaque directory, and so not seen; or deleted a moment ago.
            Err(Errno::NOENT) if lower.is_some() && !made_by_the_runtime(&walk.path) => {
                return self.line(Change::Deleted, &walk.path);
            }
            Err(Errno::NOENT) => return Ok(()),
            found => found?,
        };
        let is_dir = kind(&upper) == FileType::Directory;
        let change = self.compare(walk, below, name, Pair { upper, lower })?;
        if let Some(change) = change {
            self.line(change, &walk.path)?;
        }
        // What was in a directory that is gone went with it.
        if is_dir {
            let dir = open_dir(walk.here.as_fd(), name).context(MOVED)?;
            let hides = self.above.last().is_some_and(|above| above.hides) || is_opaque(&dir)?;
            let names = below.names_with(&dir, &walk.path, hides)?;
            walk.enter(dir, names).context(MOVED)?;
            self.above.push(Above { shown: change.is_some(), hides });
        }
        Ok(())
    }
    // ANCHOR_END: walk

    /// What happened to the file that the walk stands on.
    fn compare(&self, walk: &Walk, below: &Below, name: &CStr, pair: Pair) -> Result<Option<Change>> {
        if made_by_the_runtime(&walk.path) {
            return Ok(None);
        }
        let change = change_of(&pair.upper, pair.lower.as_ref());
        // Nothing else differs: then it may be what a program may do. (capabilities(7))
        if change.is_none() && kind(&pair.upper) == FileType::RegularFile {
            let ours = capability(&walk.here, name)?;
            let theirs = below.here.as_ref().map(|dir| capability(dir, name)).transpose()?.flatten();
            return Ok((ours != theirs).then_some(Change::Changed));
        }
        Ok(change)
    }

    /// Prints a line, and before it those of the directories on the way that have none yet: in
    /// them something has changed.
    fn line(&mut self, change: Change, path: &[u8]) -> Result<()> {
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for (end, above) in ends.zip(self.above.iter_mut().skip(1)) {
            if !std::mem::replace(&mut above.shown, true) {
                print(&mut self.out, Change::Changed, &path[..end])?;
            }
        }
        print(&mut self.out, change, path)
    }
}

// ANCHOR: change_of
/// What happened to a file, of which `upper` is in the container's layer and `lower` below it;
/// `None`: nothing. As Docker: the time and the size of a directory tell nothing, and a file
/// that was opened to be written, and was not, has come into the layer all the same.
fn change_of(upper: &Stat, lower: Option<&Stat>) -> Option<Change> {
    // ANCHOR: day11_task3_change_of_solution
    let Some(lower) = lower else {
        // A sign for what is not there any more below either says nothing.
        return (!is_whiteout(upper)).then_some(Change::Added);
    };
    if is_whiteout(upper) {
        return Some(Change::Deleted);
    }
    let looks = |found: &Stat| (found.st_mode, found.st_uid, found.st_gid, found.st_rdev);
    let contents = |found: &Stat| (found.st_size, found.st_mtime, found.st_mtime_nsec);
    let is_dir = kind(upper) == FileType::Directory;
    let same = looks(upper) == looks(lower) && (is_dir || contents(upper) == contents(lower));
    (!same).then_some(Change::Changed)
    // ANCHOR_END: day11_task3_change_of_solution
}
// ANCHOR_END: change_of

// ANCHOR: signs
/// Is this the sign that a file was deleted: a device with the number 0, 0?
fn is_whiteout(found: &Stat) -> bool {
    // ANCHOR: day11_task3_is_whiteout_solution
    kind(found) == FileType::CharacterDevice && found.st_rdev == 0
    // ANCHOR_END: day11_task3_is_whiteout_solution
}

/// Does the directory `dir` of the layer hide all that is below it? It was deleted, and made
/// anew.
fn is_opaque(dir: &OwnedFd) -> Result<bool> {
    // ANCHOR: day11_task3_is_opaque_solution
    let mut value = [0; 2];
    match fgetxattr(dir, overlay::opaque_attribute(), &mut value) {
        Ok(length) => Ok(value[..length] == *b"y"),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(errno) => Err(errno).context("read the attribute of an opaque directory"),
    }
    // ANCHOR_END: day11_task3_is_opaque_solution
}
// ANCHOR_END: signs

/// What is below the container's layer, at the place where the walk is.
struct Below {
    top: OwnedFd,
    /// The directory that is open, and its path.
    path: Vec<u8>,
    here: Option<OwnedFd>,
}

impl Below {
    /// The names in the directory `dir` of the layer, which is at `path`; and if it `hides` what
    /// is below, the names of that too: none of it is seen any more.
    fn names_with(&self, dir: &OwnedFd, path: &[u8], hides: bool) -> Result<Vec<CString>> {
        let mut all = names(dir).with_context(|| format!("read {}", show(path)))?;
        if hides && let Some(hidden) = self.open(path)? {
            all.extend(names(&hidden).with_context(|| format!("read {}", show(path)))?);
            all.sort();
            all.dedup();
        }
        Ok(all)
    }

    /// What is below in the place of `path`, whose last name is `name`.
    fn stat(&mut self, path: &[u8], name: &CStr) -> Result<Option<Stat>> {
        let parent = &path[..path.len() - name.to_bytes().len()];
        let parent = parent.strip_suffix(b"/").unwrap_or(parent);
        if self.path != parent || self.here.is_none() {
            (self.path, self.here) = (parent.to_vec(), self.open(parent)?);
        }
        let Some(here) = &self.here else { return Ok(None) };
        match statat(here, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(Some(found).filter(|found| !is_whiteout(found))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno).with_context(|| format!("look at {} below", show(path))),
        }
    }

    /// The directory `path` below; `None`: there is none.
    fn open(&self, path: &[u8]) -> Result<Option<OwnedFd>> {
        match open_below(&self.top, path) {
            Ok(dir) => Ok(Some(dir)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(errno).with_context(|| format!("open {} below", show(path))),
        }
    }
}

/// Is this one of the places on which the runtime itself mounts something? What was made
/// there is not the container's work, and no process in it can see it. Docker has them in a
/// layer of their own, below the container's, and does not list them either.
fn made_by_the_runtime(path: &[u8]) -> bool {
    const PLACES: [&[u8]; 6] = [b"dev", b"proc", b"sys", b"etc/hostname", b"etc/hosts", b"etc/resolv.conf"];
    PLACES.contains(&path)
}

fn capability(dir: &OwnedFd, name: &CStr) -> Result<Option<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(dir, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        file => file.with_context(|| format!("open {}", show(name.to_bytes())))?,
    };
    let mut value = [0; 64];
    match fgetxattr(&file, CAPABILITY, &mut value) {
        Ok(length) => Ok(Some(value[..length].to_vec())),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno).with_context(|| format!("look at {}", show(name.to_bytes()))),
    }
}

// ANCHOR: print
/// One line, whatever bytes `path` has: a name with a newline in it must not look like two
/// changes. Bytes that are no UTF-8 stay as they are.
fn print(out: &mut impl Write, change: Change, path: &[u8]) -> Result<()> {
    // ANCHOR: day11_task3_print_solution
    let letter = match change {
        Change::Added => b'A',
        Change::Changed => b'C',
        Change::Deleted => b'D',
    };
    let mut line = vec![letter, b' ', b'/'];
    for byte in path {
        match byte {
            0..b' ' | 0x7f | b'\\' => line.extend(format!("\\{byte:03o}").bytes()),
            _ => line.push(*byte),
        }
    }
    line.push(b'\n');
    Ok(out.write_all(&line)?)
    // ANCHOR_END: day11_task3_print_solution
}
// ANCHOR_END: print
