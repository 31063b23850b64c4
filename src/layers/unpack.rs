//! Day 11: a stream of tar becomes files below one directory, and nowhere else: no name in it
//! leads up, no link is followed, neither one that was there nor one that the archive made.
//! What is made is made by hand, by descriptor: the crate only reads. (openat2(2), tar(5))

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, bail};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags, chmodat, chownat,
    fchmod, fchown, fsetxattr, fstat, linkat, mkdirat, mknodat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use tar::{Archive, Entry, EntryType};

use crate::error::Result;
use crate::layers::entry::{capability, contents, device_number, time, value_of};
use crate::layers::new_file::NewFile;
use crate::layers::pack::{CAPABILITY, show};
use crate::layers::sparse;
use crate::layers::tree::{Identity, identity, kind, open_below, open_dir};

/// Whose the copies are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Owners {
    /// The user's who runs this program.
    Ours,
    /// Those that the archive names, by number.
    Archived,
}

/// Where what is in an archive goes.
#[derive(Debug)]
pub struct Target {
    /// Below this directory.
    pub top: OwnedFd,
    /// What the first part of each name becomes, and what it is. `None`: names stay.
    pub renamed: Option<(Vec<u8>, Vec<u8>)>,
}

/// What an archive begins with.
#[derive(Debug)]
pub struct First {
    /// Whether that is a directory.
    pub is_dir: bool,
    /// The first part of its name: `.` if it is what is in a directory.
    pub base: Vec<u8>,
}

/// The error of an archive that is not whole.
#[derive(Debug, thiserror::Error)]
#[error("the archive ends too early, so not all of it was copied")]
pub struct TooEarly;

/// Unpacks the archive `from`, to where `target` says once it has seen the first entry.
/// Returns how many bytes of contents that were. Error: also [`TooEarly`].
pub fn unpack(from: impl Read, owners: Owners, target: impl FnOnce(&First) -> Result<Target>) -> Result<u64> {
    let mut input = Input { from, ended: false };
    let outcome = unpack_all(&mut input, owners, target);
    // An archive ends with blocks of zeros, and not where its stream happens to end.
    match outcome {
        Err(error) if input.ended => Err(error.context(TooEarly)),
        Ok(_) if input.ended => Err(TooEarly.into()),
        // What comes after them nobody needs; but whoever writes it is not to be broken off.
        Ok(bytes) => io::copy(&mut input, &mut io::sink()).map(|_| bytes).context("read the archive's end"),
        Err(error) => Err(error),
    }
}

fn unpack_all(
    input: &mut impl Read,
    owners: Owners,
    target: impl FnOnce(&First) -> Result<Target>,
) -> Result<u64> {
    let mut archive = Archive::new(input);
    let (mut unpack, mut target) = (None::<Unpack>, Some(target));
    for entry in archive.entries().context("read the archive")? {
        let mut entry = entry.context("read an archive of tar")?;
        if let Some(target) = target.take() {
            unpack = Some(Unpack::new(target(&first(&entry))?, owners)?);
        }
        if let Some(unpack) = &mut unpack {
            unpack.entry(&mut entry)?;
        }
    }
    let Some(mut unpack) = unpack else { return Ok(0) };
    unpack.go_to(b"").map(|()| unpack.bytes)
}

/// The stream, and whether it has ended.
struct Input<R> {
    from: R,
    ended: bool,
}

impl<R: Read> Read for Input<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let count = self.from.read(into)?;
        self.ended |= count == 0 && !into.is_empty();
        Ok(count)
    }
}

fn first(entry: &Entry<impl Read>) -> First {
    let path = entry.path_bytes();
    let base = path.split(|byte| *byte == b'/').next().unwrap_or_default().to_vec();
    First { is_dir: entry.header().entry_type().is_dir(), base }
}

/// What an entry says about its file, besides its contents.
#[derive(Debug)]
struct About {
    mode: Mode,
    owner: (Uid, Gid),
    times: Timestamps,
}

struct Unpack {
    target: Target,
    owners: Owners,
    /// The directory that the last entry was in, and its path below the top.
    here: OwnedFd,
    path: Vec<u8>,
    /// Those on the way to it: how long its path is, and what is still to be set there. What
    /// is made in a directory changes its time; so its own is set last.
    levels: Vec<(usize, Option<About>)>,
    /// The directories that this archive made or named.
    known: HashSet<Identity>,
    bytes: u64,
}

impl Unpack {
    fn new(target: Target, owners: Owners) -> Result<Unpack> {
        let here = open_below(&target.top, b"").context("open the destination")?;
        Ok(Unpack { target, owners, here, path: vec![], levels: vec![], known: HashSet::new(), bytes: 0 })
    }

    // ANCHOR: entry
    fn entry(&mut self, entry: &mut Entry<impl Read>) -> Result<()> {
        let shown = match value_of(entry, sparse::NAME)? {
            Some(name) => name,
            None => entry.path_bytes().into_owned(),
        };
        let path = self.place(&shown)?;
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            return Ok(());
        }
        if path.is_empty() {
            // The destination itself, which was there before.
            return Ok(());
        }
        let about = self.about(entry).with_context(|| format!("read what is said of {}", show(&shown)))?;
        let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&path[..0], &path[..]),
        };
        self.go_to(parent).with_context(|| format!("open the directory of {}", show(&shown)))?;
        let name = CString::new(name).context("a name with a NUL byte in it")?;
        self.make(entry, kind, &name, about, &path).with_context(|| format!("copy {}", show(&shown)))
    }

    fn make(
        &mut self,
        entry: &mut Entry<impl Read>,
        kind: EntryType,
        name: &CStr,
        about: About,
        path: &[u8],
    ) -> Result<()> {
        match kind {
            EntryType::Directory => self.make_dir(name, about, path),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.make_file(entry, name, &about)
            }
            EntryType::Link => {
                let target = entry.link_name_bytes().context("a link without a target")?.into_owned();
                self.make_hard_link(&target, name)
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().context("a link without a target")?.into_owned();
                let target = CString::new(target).context("a target with a NUL byte in it")?;
                self.clear(name)?;
                symlinkat(&target, &self.here, name)?;
                self.set_node(name, &about, false)
            }
            EntryType::Fifo | EntryType::Char | EntryType::Block => {
                // Of what is no device these fields may be empty.
                let (kind, number) = match kind {
                    EntryType::Fifo => (FileType::Fifo, 0),
                    EntryType::Char => (FileType::CharacterDevice, device_number(entry.header())?),
                    _ => (FileType::BlockDevice, device_number(entry.header())?),
                };
                self.clear(name)?;
                mknodat(&self.here, name, kind, Mode::RUSR, number)?;
                self.set_node(name, &about, true)
            }
            other => bail!("it is of the kind {other:?}, which is no kind of file here"),
        }
    }
    // ANCHOR_END: entry

    // ANCHOR: place
    /// Where below the top what the archive calls `path` goes. A name that leads up is an
    /// error; one that begins at / begins at the top.
    fn place(&self, path: &[u8]) -> Result<Vec<u8>> {
        // ANCHOR: day11_task5_place_solution
        let mut parts: Vec<&[u8]> = Vec::new();
        for part in path.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => bail!("{} leads out of the directory that it is copied to", show(path)),
                part => parts.push(part),
            }
        }
        if let Some((from, to)) = &self.target.renamed {
            let rest = if from == b"." { &parts[..] } else { parts.get(1..).unwrap_or_default() };
            parts =
                std::iter::once(&to[..]).filter(|to| !to.is_empty()).chain(rest.iter().copied()).collect();
        }
        Ok(parts.join(&b'/'))
        // ANCHOR_END: day11_task5_place_solution
    }
    // ANCHOR_END: place

    // ANCHOR: go_to
    /// Goes to the directory `path`, which is below the top, and makes those on the way that
    /// are missing. Whatever is left behind on the way gets its times.
    fn go_to(&mut self, path: &[u8]) -> Result<()> {
        while !is_in(path, &self.path) {
            let Some((_, about)) = self.levels.pop() else { break };
            if let Some(about) = about {
                set_dir(&self.here, &about)?;
            }
            self.path.truncate(self.levels.last().map_or(0, |(length, _)| *length));
            self.here = open_below(&self.target.top, &self.path)?;
        }
        let rest = path[self.path.len()..].to_vec();
        for name in rest.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            let name = CString::new(name).context("a name with a NUL byte in it")?;
            let dir = match open_dir(self.here.as_fd(), &name) {
                Err(Errno::NOENT) => {
                    mkdirat(&self.here, &name, Mode::from_bits_truncate(0o755))?;
                    open_dir(self.here.as_fd(), &name)
                }
                dir => dir,
            };
            let dir = dir.map_err(|errno| not_a_directory(errno, &name))?;
            // If the archive has been here before, the time that it set stays.
            let found = fstat(&dir)?;
            let about = self.known.contains(&identity(&found)).then(|| About {
                mode: Mode::from_raw_mode(found.st_mode),
                owner: (Uid::from_raw(found.st_uid), Gid::from_raw(found.st_gid)),
                times: times((found.st_mtime, found.st_mtime_nsec as i64)),
            });
            self.down(dir, &name, about);
        }
        Ok(())
    }
    // ANCHOR_END: go_to

    fn down(&mut self, dir: OwnedFd, name: &CStr, about: Option<About>) {
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend(name.to_bytes());
        self.levels.push((self.path.len(), about));
        self.here = dir;
    }

    fn make_dir(&mut self, name: &CStr, about: About, path: &[u8]) -> Result<()> {
        match mkdirat(&self.here, name, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        let dir = open_dir(self.here.as_fd(), name).map_err(|errno| not_a_directory(errno, name))?;
        self.known.insert(identity(&fstat(&dir)?));
        self.down(dir, name, Some(about));
        debug_assert_eq!(self.path, path);
        Ok(())
    }

    fn make_file(&mut self, entry: &mut Entry<impl Read>, name: &CStr, about: &About) -> Result<()> {
        self.is_no_directory(name)?;
        let mut file = NewFile::begin(&self.here)?;
        self.bytes += contents(entry, &mut file)?;
        // In this order: a new owner takes set-user-ID and capabilities away. (chown(2))
        fchown(file.opened(), Some(about.owner.0), Some(about.owner.1))?;
        fchmod(file.opened(), about.mode)?;
        if let Some(value) = capability(entry)? {
            fsetxattr(file.opened(), CAPABILITY, &value, XattrFlags::empty())
                .context("set its capabilities")?;
        }
        rustix::fs::futimens(file.opened(), &about.times)?;
        file.publish(&self.here, name)
    }

    fn make_hard_link(&mut self, target: &[u8], name: &CStr) -> Result<()> {
        let target = self.place(target)?;
        let (parent, last) = match target.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&target[..at], &target[at + 1..]),
            None => (&target[..0], &target[..]),
        };
        let dir = open_below(&self.target.top, parent).with_context(|| {
            format!("open the directory of {}, which it is a second name of", show(&target))
        })?;
        let last = CString::new(last).context("a target with a NUL byte in it")?;
        self.clear(name)?;
        // Without AT_SYMLINK_FOLLOW: of a link, the link itself gets the second name.
        linkat(&dir, &last, &self.here, name, AtFlags::empty())
            .with_context(|| format!("link({})", show(&target)))
    }

    /// Removes what `name` means, unless it is a directory.
    fn clear(&self, name: &CStr) -> Result<()> {
        self.is_no_directory(name)?;
        match unlinkat(&self.here, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno).context("remove what was there"),
        }
    }

    fn is_no_directory(&self, name: &CStr) -> Result<()> {
        match statat(&self.here, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) if kind(&found) == FileType::Directory => {
                bail!("a directory is in its place, and is not replaced by something else; remove it first")
            }
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno).context("look at what is in its place"),
        }
    }

    /// Sets what is said of a file that cannot be opened: a link, a pipe, a device.
    fn set_node(&self, name: &CStr, about: &About, has_mode: bool) -> Result<()> {
        let (uid, gid) = about.owner;
        chownat(&self.here, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        if has_mode {
            // It was made a moment ago, in a directory that nobody else need be able to write to.
            chmodat(&self.here, name, about.mode, AtFlags::empty())?;
        }
        Ok(utimensat(&self.here, name, &about.times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn about(&self, entry: &mut Entry<impl Read>) -> Result<About> {
        let header = entry.header();
        let id = |number: u64| u32::try_from(number).ok().filter(|id| *id != u32::MAX);
        let owner = match self.owners {
            Owners::Ours => (rustix::process::geteuid(), rustix::process::getegid()),
            Owners::Archived => (
                Uid::from_raw(id(header.uid()?).context("its owner is no number of a user")?),
                Gid::from_raw(id(header.gid()?).context("its group is no number of a group")?),
            ),
        };
        let mode = Mode::from_raw_mode(header.mode()? & 0o7777);
        let seconds = i64::try_from(header.mtime()?).context("its time is none")?;
        let time = value_of(entry, "mtime")?.and_then(|text| time(&text)).unwrap_or((seconds, 0));
        Ok(About { mode, owner, times: times(time) })
    }
}

/// Is the directory `path` the directory `dir`, or below it?
fn is_in(path: &[u8], dir: &[u8]) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| dir.is_empty() || rest.is_empty() || rest.starts_with(b"/"))
}

fn not_a_directory(errno: Errno, name: &CStr) -> anyhow::Error {
    let error = anyhow::Error::from(errno);
    match errno {
        Errno::LOOP | Errno::NOTDIR => error.context(format!(
            "{} is there and is not a directory, and is not replaced by one; remove it first",
            show(name.to_bytes())
        )),
        _ => error,
    }
}

fn set_dir(dir: &OwnedFd, about: &About) -> Result<()> {
    fchown(dir, Some(about.owner.0), Some(about.owner.1))?;
    fchmod(dir, about.mode)?;
    Ok(rustix::fs::futimens(dir, &about.times)?)
}

fn times((seconds, nanoseconds): (i64, i64)) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanoseconds },
    }
}
