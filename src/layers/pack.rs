//! Day 11: a file or a tree becomes a stream of tar. (tar(5))
//!
//! What is read may change while it is read, and on purpose: [`super::tree`]. A file that gets
//! shorter meanwhile is an error, for an archive with zeros in its place would look whole.

use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fmt::Display;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, bail};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, Stat, fgetxattr, fstat, fstatfs, major,
    minor, openat2, readlinkat, statat,
};
use rustix::io::Errno;
use tar::{Builder, EntryType, Header};

use crate::error::{self, Result};
use crate::layers::sparse;
use crate::layers::tree::{Identity, Walk, identity, kind, names};

/// The extended attribute with a program's capabilities, the one that is copied: what others
/// mean is the file system's or the host's. (capabilities(7), "File capabilities")
pub const CAPABILITY: &str = "security.capability";

/// In an archive for others: an extended attribute. (bsdtar's and GNU tar's name for it)
pub const XATTR: &str = "SCHILY.xattr.security.capability";

/// The same between two processes of ours, in hexadecimal: the crate ends a value at the
/// first newline, and a capability may have that byte.
pub const XATTR_IN_HEX: &str = "TINYDOCKER.xattr.security.capability";

/// (statfs(2))
const SYSFS_MAGIC: rustix::fs::FsWord = 0x6265_6572;

/// What is to be packed.
#[derive(Debug)]
pub struct Source {
    /// The directory that it is in.
    pub dir: OwnedFd,
    /// Its name there; `.`: what is in that directory.
    pub name: CString,
    /// What it is called in the archive.
    pub base: Vec<u8>,
    /// Whether a link is followed to what it means.
    pub follow: bool,
}

/// Packs `source` into `out`. `for_others`: nobody but us reads it otherwise. Directories in
/// `left_empty` are packed without what is in them.
pub fn pack(source: &Source, out: impl Write, for_others: bool, left_empty: &[Identity]) -> Result<()> {
    let failed = Cell::new(false);
    let out = Builder::new(Guarded { out, failed: &failed });
    let mut pack = Pack { out, for_others, left_empty, links: HashMap::new() };
    let outcome = pack.all(source);
    // Dropped, the builder would write an archive's end: half an archive would look whole.
    failed.set(outcome.is_err());
    outcome?;
    pack.out.finish().context("write the archive's end")
}

/// A stream to which nothing is written any more once something has failed.
struct Guarded<'a, W> {
    out: W,
    failed: &'a Cell<bool>,
}

impl<W: Write> Write for Guarded<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.failed.get() { Err(std::io::Error::other("broken off")) } else { self.out.write(bytes) }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

/// What is said of a file before its entry: keys and values. (tar(5), "Pax Interchange Format")
type Records = Vec<(&'static str, Vec<u8>)>;

struct Pack<'a, W: Write> {
    out: Builder<Guarded<'a, W>>,
    for_others: bool,
    left_empty: &'a [Identity],
    /// Of files with several names: the first one that was packed.
    links: HashMap<Identity, Vec<u8>>,
}

impl<W: Write> Pack<'_, W> {
    fn all(&mut self, source: &Source) -> Result<()> {
        let Some(top) = self.add(&source.dir, &source.name, &source.base, source.follow)? else {
            return Ok(());
        };
        let found = names(&top).with_context(|| format!("read {}", show(&source.base)))?;
        let mut walk = Walk::new(top, found).context("read the directory")?;
        let full = |walk: &Walk| [&source.base[..], b"/", &walk.path].concat();
        loop {
            let Some(name) = walk.next_name() else {
                let more = walk.leave().map_err(|errno| match errno {
                    Errno::STALE | Errno::NOENT | Errno::LOOP | Errno::NOTDIR => anyhow::anyhow!(
                        "{} was moved or replaced while it was copied ({errno}); try again when nothing \
                         changes it",
                        show(&full(&walk))
                    ),
                    errno => anyhow::Error::from(errno).context(format!("open {}", show(&full(&walk)))),
                })?;
                if !more {
                    return Ok(());
                }
                continue;
            };
            let path = full(&walk);
            if let Some(dir) = self.add(&walk.here, &name, &path, false)?
                && !self.left_empty.contains(&identity(&fstat(&dir)?))
            {
                let names = names(&dir).with_context(|| format!("read {}", show(&path)))?;
                walk.enter(dir, names).with_context(|| format!("look at {}", show(&path)))?;
            }
        }
    }

    /// Packs `name`, which is in `dir` and is called `path` in the archive. Returns a
    /// directory whose contents are to be packed too.
    fn add(&mut self, dir: &OwnedFd, name: &CStr, path: &[u8], follow: bool) -> Result<Option<OwnedFd>> {
        let nofollow = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        let found = match statat(dir, name, nofollow) {
            // Gone since it was listed. (The source itself was there a moment ago.)
            Err(Errno::NOENT) if path.contains(&b'/') => return Ok(None),
            found => found.with_context(|| format!("look at {}", show(path)))?,
        };
        match kind(&found) {
            FileType::Directory => self.add_dir(dir, name, path, follow),
            FileType::RegularFile => self.add_file(dir, name, path, follow).map(|()| None),
            FileType::Socket => {
                // There is no such thing in an archive, and no use for one without its process.
                error::say(format_args!("{} is a socket, and was left out", show(path)));
                Ok(None)
            }
            other => self.add_node(dir, name, path, &found, other).map(|()| None),
        }
        .with_context(|| format!("copy {}", show(path)))
    }

    fn add_dir(&mut self, dir: &OwnedFd, name: &CStr, path: &[u8], follow: bool) -> Result<Option<OwnedFd>> {
        let opened = open(dir, name, OFlags::DIRECTORY, follow)?;
        let found = fstat(&opened)?;
        let mut header = header(&found, EntryType::Directory)?;
        self.put(&mut header, &[path, b"/"].concat(), None, vec![], &found, std::io::empty())?;
        Ok(Some(opened))
    }

    fn add_file(&mut self, dir: &OwnedFd, name: &CStr, path: &[u8], follow: bool) -> Result<()> {
        // Should it be a pipe by now, O_NONBLOCK does not wait for its other end.
        let opened = open(dir, name, OFlags::NONBLOCK | OFlags::NOCTTY, follow)?;
        let found = fstat(&opened)?;
        if kind(&found) != FileType::RegularFile {
            bail!("it was replaced while it was copied; try again when nothing changes it");
        }
        // The size of such a file is not how much there is to read.
        if fstatfs(&opened).is_ok_and(|found| [PROC_SUPER_MAGIC, SYSFS_MAGIC].contains(&found.f_type)) {
            bail!("the kernel makes it up while it is read; expected a file on a file system");
        }
        if found.st_nlink > 1 {
            if let Some(first) = self.links.get(&identity(&found)).cloned() {
                let mut header = header(&found, EntryType::Link)?;
                return self.put(&mut header, path, Some(&first), vec![], &found, std::io::empty());
            }
            self.links.insert(identity(&found), path.to_vec());
        }
        let capability = capability(&opened)?;
        let file = File::from(opened);
        let size = found.st_size as u64;
        let mut header = header(&found, EntryType::Regular)?;
        header.set_size(size);
        let mut more = self.capability_record(capability);
        match sparse::map(&file, size)? {
            Some(map) => {
                header.set_size(sparse::length(&map));
                more.extend(sparse::describe(&map, size));
                self.put(&mut header, path, None, more, &found, sparse::Data::new(&file, &map))
            }
            None => {
                let data = Exactly { file: &file, left: size };
                self.put(&mut header, path, None, more, &found, data)
            }
        }
    }

    /// A link, a pipe or a device: what has no contents.
    fn add_node(
        &mut self,
        dir: &OwnedFd,
        name: &CStr,
        path: &[u8],
        found: &Stat,
        kind: FileType,
    ) -> Result<()> {
        let (entry, target) = match kind {
            FileType::Symlink => (EntryType::Symlink, Some(readlinkat(dir, name, vec![])?.into_bytes())),
            FileType::Fifo => (EntryType::Fifo, None),
            FileType::CharacterDevice => (EntryType::Char, None),
            FileType::BlockDevice => (EntryType::Block, None),
            _ => bail!("it is none of the kinds of file that there are"),
        };
        let mut header = header(found, entry)?;
        header.set_device_major(major(found.st_rdev))?;
        header.set_device_minor(minor(found.st_rdev))?;
        self.put(&mut header, path, target.as_deref(), vec![], found, std::io::empty())
    }

    fn capability_record(&self, capability: Option<Vec<u8>>) -> Records {
        match capability {
            Some(value) if self.for_others => vec![(XATTR, value)],
            Some(value) => {
                let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
                vec![(XATTR_IN_HEX, hex.into_bytes())]
            }
            None => vec![],
        }
    }

    /// Writes one entry, and before it what does not fit into its header.
    fn put(
        &mut self,
        header: &mut Header,
        path: &[u8],
        target: Option<&[u8]>,
        mut more: Records,
        found: &Stat,
        data: impl Read,
    ) -> Result<()> {
        // The header has the seconds.
        more.push(("mtime", time(found).into_bytes()));
        self.out.append_pax_extensions(more.iter().map(|(key, value)| (*key, &value[..])))?;
        if !fits(&mut header.as_old_mut().name, path) {
            self.put_long(EntryType::GNULongName, path)?;
        }
        if let Some(target) = target
            && !fits(&mut header.as_old_mut().linkname, target)
        {
            self.put_long(EntryType::GNULongLink, target)?;
        }
        header.set_cksum();
        self.out.append(header, data).map_err(Into::into)
    }

    /// A name that is longer than a header has room for, as an entry of its own.
    fn put_long(&mut self, kind: EntryType, name: &[u8]) -> Result<()> {
        let mut header = Header::new_gnu();
        fits(&mut header.as_old_mut().name, b"././@LongLink");
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(name.len() as u64 + 1);
        header.set_cksum();
        Ok(self.out.append(&header, name.chain(&b"\0"[..]))?)
    }
}

/// Puts as much of `name` into `field` as fits. Returns whether that is all.
fn fits(field: &mut [u8; 100], name: &[u8]) -> bool {
    let length = name.len().min(field.len());
    field.fill(0);
    field[..length].copy_from_slice(&name[..length]);
    length == name.len()
}

fn header(found: &Stat, kind: EntryType) -> Result<Header> {
    // The standard's own kind: by it GNU tar knows how the holes are described.
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(found.st_mode & 0o7777);
    header.set_uid(found.st_uid.into());
    header.set_gid(found.st_gid.into());
    header.set_mtime(u64::try_from(found.st_mtime).unwrap_or(0));
    header.set_size(0);
    Ok(header)
}

/// When it was changed, in seconds; before 1970 they count backwards.
fn time(found: &Stat) -> String {
    const SECOND: i128 = 1_000_000_000;
    let time = i128::from(found.st_mtime) * SECOND + found.st_mtime_nsec as i128;
    let (sign, time) = (if time < 0 { "-" } else { "" }, time.abs());
    format!("{sign}{}.{:09}", time / SECOND, time % SECOND)
}

/// Opens `name` in `dir` to be read; no link is followed unless that was asked for.
fn open(dir: &OwnedFd, name: &CStr, flags: OFlags, follow: bool) -> rustix::io::Result<OwnedFd> {
    let nofollow = if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | flags | nofollow;
    openat2(dir, name, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
}

fn capability(file: impl AsFd) -> Result<Option<Vec<u8>>> {
    let mut value = [0; 64];
    match fgetxattr(file, CAPABILITY, &mut value) {
        Ok(length) => Ok(Some(value[..length].to_vec())),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno).context("read its capabilities"),
    }
}

/// A file up to the size that its header says: no more if it grows, and an error if it shrinks.
struct Exactly<'a> {
    file: &'a File,
    left: u64,
}

impl Read for Exactly<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(into.len());
        let count = self.file.read(&mut into[..most])?;
        if count == 0 && most > 0 {
            return Err(std::io::Error::other("it got shorter while it was copied; try again"));
        }
        self.left -= count as u64;
        Ok(count)
    }
}

/// `path` for people: quoted, whatever bytes it has.
pub fn show(path: &[u8]) -> impl Display {
    use std::os::unix::ffi::OsStrExt;
    format!("{:?}", std::ffi::OsStr::from_bytes(path))
}
