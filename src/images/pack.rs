//! Day 12: a container's own layer becomes an archive.
//!
//! The container may run, and its root may exchange any directory for a link at any moment. So
//! every directory is opened from the top anew, without following a link. (openat2(2),
//! RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS)

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fgetxattr, flistxattr, fstat, major,
    minor, openat, openat2, readlinkat, statat,
};
use rustix::io::Errno;
use tar::{Builder, EntryType, Header};

use crate::error::Result;
use crate::images::tree::{OPAQUE, WHITEOUT};
use crate::layers::overlay;

/// An archive in the making.
struct Pack<W: Write> {
    root: OwnedFd,
    archive: Builder<W>,
    /// The first name of each file that has several, by device and inode.
    first: HashMap<(u64, u64), PathBuf>,
    entries: usize,
}

// ANCHOR: pack
/// Writes the tree `upper`, the upper directory of an overlay, as a layer to `to`. Returns that,
/// and how many entries it has. The same tree makes the same bytes.
pub fn pack<W: Write>(upper: &Path, to: W) -> Result<(W, usize)> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = openat(CWD, upper, flags, Mode::empty()).with_context(|| format!("open {upper:?}"))?;
    let mut pack = Pack { root, archive: Builder::new(to), first: HashMap::new(), entries: 0 };
    // Directories that are still to be read, the next one last: a tree may be deeper than a stack.
    let mut left = vec![PathBuf::new()];
    while let Some(dir) = left.pop() {
        let below = pack.directory(&dir).with_context(|| format!("pack {dir:?}"))?;
        left.extend(below.into_iter().rev());
    }
    let entries = pack.entries;
    Ok((pack.archive.into_inner().context("write the archive")?, entries))
}
// ANCHOR_END: pack

impl<W: Write> Pack<W> {
    /// Writes the directory `dir` and what is in it, but for directories. Returns those.
    fn directory(&mut self, dir: &Path) -> Result<Vec<PathBuf>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let path = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        let opened = match openat2(&self.root, path, flags, Mode::empty(), inside) {
            // The container has removed it meanwhile.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(vec![]),
            opened => opened.context("openat2")?,
        };
        let names = names_in(&opened)?;
        // The root itself is the image's already, unless something is in it.
        if !dir.as_os_str().is_empty() {
            let stat = fstat(&opened).context("fstat")?;
            self.append(dir, &stat, EntryType::Directory, Some(&opened), io::empty())?;
        }
        if is_opaque(&opened) {
            self.append_mark(&dir.join(OsStr::from_bytes(OPAQUE)))?;
        }
        let mut below = vec![];
        for name in names {
            let path = dir.join(&name);
            if self.member(&opened, &name, &path).with_context(|| format!("pack {path:?}"))? {
                below.push(path);
            }
        }
        Ok(below)
    }

    // ANCHOR: member
    /// Writes what is called `name` in `dir`. Returns whether it is a directory, and not written.
    fn member(&mut self, dir: &OwnedFd, name: &OsStr, path: &Path) -> Result<bool> {
        // ANCHOR: day12_task5_member_solution
        if name.as_bytes().starts_with(WHITEOUT) {
            bail!(
                "in an image a name that begins with .wh. takes a file away; give it another one, or remove it"
            );
        }
        let stat = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(false),
            stat => stat.context("fstatat")?,
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            return Ok(true);
        }
        // What overlayfs has for "not there any more".
        if kind == FileType::CharacterDevice && stat.st_rdev == 0 {
            let mark = OsString::from_vec([WHITEOUT, name.as_bytes()].concat());
            return self.append_mark(&path.with_file_name(mark)).map(|()| false);
        }
        // A socket is nothing without the program that listens.
        if kind == FileType::Socket {
            return Ok(false);
        }
        if stat.st_nlink > 1 {
            let first = self.first.entry((stat.st_dev, stat.st_ino)).or_insert_with(|| path.into()).clone();
            if first != path {
                return self.append_link(path, &stat, EntryType::Link, &first).map(|()| false);
            }
        }
        self.leaf(dir, name, path, &stat).map(|()| false)
        // ANCHOR_END: day12_task5_member_solution
    }
    // ANCHOR_END: member

    /// Writes what is no directory, and has no entry yet.
    fn leaf(&mut self, dir: &OwnedFd, name: &OsStr, path: &Path, stat: &Stat) -> Result<()> {
        let nothing = None::<&OwnedFd>;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => self.file(dir, name, path),
            FileType::Symlink => {
                let target = readlinkat(dir, name, vec![]).context("readlinkat")?;
                let target = Path::new(OsStr::from_bytes(target.as_bytes()));
                self.append_link(path, stat, EntryType::Symlink, target)
            }
            FileType::Fifo => self.append(path, stat, EntryType::Fifo, nothing, io::empty()),
            FileType::BlockDevice => self.append(path, stat, EntryType::Block, nothing, io::empty()),
            _ => self.append(path, stat, EntryType::Char, nothing, io::empty()),
        }
    }

    fn file(&mut self, dir: &OwnedFd, name: &OsStr, path: &Path) -> Result<()> {
        // A FIFO that has taken its place would keep us waiting.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match openat(dir, name, flags, Mode::empty()) {
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(()),
            file => File::from(file.context("openat")?),
        };
        let stat = fstat(&file).context("fstat")?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(());
        }
        // As long as the header says, whatever the container does meanwhile.
        let data = (&file).chain(io::repeat(0)).take(stat.st_size as u64);
        self.append(path, &stat, EntryType::Regular, Some(&file), data)
    }

    /// An empty file, whose name says it all.
    fn append_mark(&mut self, path: &Path) -> Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_size(0);
        self.entries += 1;
        self.archive.append_data(&mut header, path, io::empty()).context("write the archive")
    }

    fn append_link(&mut self, path: &Path, stat: &Stat, kind: EntryType, target: &Path) -> Result<()> {
        self.before(stat, None::<&OwnedFd>)?;
        let mut header = header(stat, kind)?;
        self.entries += 1;
        self.archive.append_link(&mut header, path, target).context("write the archive")
    }

    fn append(
        &mut self,
        path: &Path,
        stat: &Stat,
        kind: EntryType,
        opened: Option<&impl AsFd>,
        data: impl Read,
    ) -> Result<()> {
        self.before(stat, opened)?;
        let mut header = header(stat, kind)?;
        self.entries += 1;
        self.archive.append_data(&mut header, path, data).context("write the archive")
    }

    /// What a header has no room for: parts of a second, and extended attributes; but none of
    /// overlayfs's own.
    fn before(&mut self, stat: &Stat, opened: Option<&impl AsFd>) -> Result<()> {
        let mut records: Vec<(String, Vec<u8>)> = vec![];
        if stat.st_mtime_nsec != 0 && stat.st_mtime >= 0 {
            records.push(("mtime".into(), format!("{}.{:09}", stat.st_mtime, stat.st_mtime_nsec).into()));
        }
        for (name, value) in opened.map(xattrs).transpose()?.unwrap_or_default() {
            records.push((format!("SCHILY.xattr.{name}"), value));
        }
        if records.is_empty() {
            return Ok(());
        }
        let records = records.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
        self.archive.append_pax_extensions(records).context("write the archive")
    }
}

fn names_in(dir: &OwnedFd) -> Result<Vec<OsString>> {
    let mut names = vec![];
    for entry in Dir::read_from(dir).context("read")? {
        let name = entry.context("read")?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    names.sort();
    Ok(names)
}

fn header(stat: &Stat, kind: EntryType) -> Result<Header> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(stat.st_uid.into());
    header.set_gid(stat.st_gid.into());
    header.set_mtime(stat.st_mtime.max(0) as u64);
    header.set_size(if kind == EntryType::Regular { stat.st_size as u64 } else { 0 });
    if matches!(kind, EntryType::Block | EntryType::Char) {
        header.set_device_major(major(stat.st_rdev))?;
        header.set_device_minor(minor(stat.st_rdev))?;
    }
    Ok(header)
}

fn is_opaque(dir: &OwnedFd) -> bool {
    let mut value = [0; 2];
    matches!(fgetxattr(dir, overlay::opaque_attribute(), &mut value[..]), Ok(1)) && value[0] == b'y'
}

/// The extended attributes that belong into an image.
fn xattrs(file: &impl AsFd) -> Result<Vec<(String, Vec<u8>)>> {
    let (mut names, mut value, mut found) = (vec![0; 64 << 10], vec![0; 64 << 10], vec![]);
    let count = match flistxattr(file, &mut names[..]) {
        Err(Errno::OPNOTSUPP) => return Ok(vec![]),
        count => count.context("flistxattr")?,
    };
    for name in names[..count].split(|byte| *byte == 0) {
        let Ok(name) = std::str::from_utf8(name) else { continue };
        let is_of_images = name.starts_with("user.") || name == "security.capability";
        if is_of_images && !overlay::is_an_overlays(name.as_bytes()) {
            let length =
                fgetxattr(file, name, &mut value[..]).with_context(|| format!("fgetxattr({name})"))?;
            found.push((name.to_string(), value[..length].to_vec()));
        }
    }
    found.sort();
    Ok(found)
}
