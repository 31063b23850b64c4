//! Day 12: the entries of a layer become files.
//!
//! This runs in a process whose `/` is the layer's directory, so no link and no `..` leads
//! anywhere else. What remains to be done right is what an entry may do to the others: a link
//! is never written through, but replaced; and whiteouts, which say what a layer takes away
//! from those below it, become what overlayfs knows them by. (OCI image-spec, layer.md)

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, Error, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, bail};
use rustix::fs::{
    AtFlags, CWD, Dev, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat,
    fchmod, fchown, flistxattr, fremovexattr, fsetxattr, futimens, linkat, makedev, mkdirat, mknodat, openat,
    statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use crate::error::Result;
use crate::ids;
use crate::images::entries::{Entries, Entry, kind};
use crate::images::remove::remove_tree;
use crate::layers::overlay;

/// An entry of this name in a directory says that the rest of the name is not there any more.
pub const WHITEOUT: &[u8] = b".wh.";
/// An entry of this name says that nothing of the directory below is there any more.
pub const OPAQUE: &[u8] = b".wh..wh..opq";

const OPEN: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC);
const ONLY_OURS: Mode = Mode::RWXU;

/// What is in the way of an entry, and is not any more.
#[derive(Debug, PartialEq)]
enum Found {
    Nothing,
    /// It stays, if the new one is a directory too.
    Directory,
    /// Something of this name in the layers below is not there any more.
    Whiteout,
}

/// The tree that is being made.
pub struct Tree {
    root: OwnedFd,
    /// The directory of the last entry: most of the time it is that of the next one too.
    here: (Vec<u8>, OwnedFd),
    /// What directories' times are to be. Whatever is made in one changes it, so they come last.
    times: HashMap<Vec<u8>, (i64, u32)>,
    /// How many bytes may be written, and how many were.
    room: u64,
    written: u64,
}

impl Tree {
    /// In the root directory of this process. At most `room` bytes of data.
    pub fn new(room: u64) -> Result<Tree> {
        let open = || openat(CWD, "/", OFlags::RDONLY | OFlags::DIRECTORY | OPEN, Mode::empty());
        let (root, here) = (open().context("open /")?, open().context("open /")?);
        Ok(Tree { root, here: (vec![], here), times: HashMap::new(), room, written: 0 })
    }

    // ANCHOR: make
    /// Makes `entry`, whose data follows in `from`.
    pub fn make(&mut self, entry: &Entry, from: &mut Entries<impl BufRead>) -> Result<()> {
        // ANCHOR: day12_task3_make_solution
        let (dir, name) = split(&entry.name)?;
        if name.is_empty() {
            return self.make_root(entry);
        }
        self.go_to(&dir)?;
        if name == OPAQUE {
            return make_opaque(&self.here.1);
        }
        // What AUFS kept for itself: hard links, and what was to be removed.
        if name.starts_with(b".wh..wh.") {
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return self.white_out(hidden);
        }
        match entry.kind {
            kind::DIRECTORY => self.make_directory(entry, &name),
            kind::HARD_LINK => self.make_hard_link(&entry.link, &name),
            _ => {
                self.make_way(&name, false)?;
                match entry.kind {
                    kind::FILE => self.make_file(entry, &name, from),
                    kind::LINK => {
                        symlinkat(&entry.link[..], &self.here.1, &name[..]).context("symlinkat")?;
                        self.finish_by_name(entry, &name)
                    }
                    _ => self.make_special(entry, &name),
                }
            }
        }
        // ANCHOR_END: day12_task3_make_solution
    }
    // ANCHOR_END: make

    /// Opens the directory `dir`, and makes it if the archive has no entry for it. A link on the
    /// way is followed: whatever it says, it leads to somewhere in the layer.
    fn go_to(&mut self, dir: &[u8]) -> Result<()> {
        if self.here.0 == dir {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let path = if dir.is_empty() { b"." } else { dir };
        let opened = match openat(&self.root, path, flags, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR) => self.make_parents(dir)?,
            opened => opened.context("open its directory")?,
        };
        self.here = (dir.to_vec(), opened);
        Ok(())
    }

    fn make_parents(&mut self, dir: &[u8]) -> Result<OwnedFd> {
        let mut here = self.root.try_clone().context("dup")?;
        for name in dir.split(|byte| *byte == b'/') {
            let mut is_new = false;
            if is_whiteout(&here, name)? {
                unlinkat(&here, name, AtFlags::empty()).context("unlinkat")?;
                is_new = true;
            }
            match mkdirat(&here, name, Mode::from_bits_truncate(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno).context("mkdirat"),
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            here = openat(&here, name, flags, Mode::empty()).with_context(|| {
                let name = name.escape_ascii();
                format!("\"{name}\" on the way to it is no directory, or a link that leads to none")
            })?;
            if is_new {
                make_opaque(&here)?;
            }
        }
        Ok(here)
    }

    // ANCHOR: make_way
    /// Removes what has the name already: a later entry of the same name replaces an earlier
    /// one, whatever they are. A directory stays for a directory.
    fn make_way(&mut self, name: &[u8], for_directory: bool) -> Result<Found> {
        // ANCHOR: day12_task3_make_way_solution
        if is_whiteout(&self.here.1, name)? {
            unlinkat(&self.here.1, name, AtFlags::empty()).context("unlinkat")?;
            return Ok(Found::Whiteout);
        }
        match unlinkat(&self.here.1, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(Found::Nothing),
            Err(Errno::ISDIR) if for_directory => Ok(Found::Directory),
            Err(Errno::ISDIR) => {
                remove_tree(&self.here.1, name).context("remove the directory of this name")?;
                // Neither they nor what was below them are there any more.
                let gone = joined(&self.here.0, name);
                self.times.retain(|dir, _| !dir.starts_with(&gone));
                Ok(Found::Nothing)
            }
            Err(errno) => Err(errno).context("unlinkat"),
        }
        // ANCHOR_END: day12_task3_make_way_solution
    }
    // ANCHOR_END: make_way

    // ANCHOR: file
    /// Makes a regular file. The order counts: a new owner takes set-user-ID and capabilities
    /// away (chown(2)), and writing changes the time.
    fn make_file(&mut self, entry: &Entry, name: &[u8], from: &mut Entries<impl BufRead>) -> Result<()> {
        // ANCHOR: day12_task3_make_file_solution
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OPEN;
        let mut file =
            File::from(openat(&self.here.1, name, flags, Mode::RUSR | Mode::WUSR).context("openat")?);
        self.written = self.written.saturating_add(entry.size);
        if self.written.max(entry.sparse.as_ref().map_or(0, |sparse| sparse.size)) > self.room {
            bail!("with it the layer is larger than {} GiB", self.room >> 30);
        }
        match &entry.sparse {
            None => while from.data(u64::MAX, |bytes| file.write_all(bytes).context("write"))? > 0 {},
            Some(sparse) => {
                for (offset, length) in &sparse.map {
                    file.seek(SeekFrom::Start(*offset)).context("lseek")?;
                    let mut left = *length;
                    while left > 0 {
                        match from.data(left, |bytes| file.write_all(bytes).context("write"))? {
                            0 => bail!("a sparse file has less data than its map says"),
                            count => left -= count as u64,
                        }
                    }
                }
                file.set_len(sparse.size).context("ftruncate")?;
            }
        }
        finish(&file, entry)?;
        futimens(&file, &times(entry.time)).context("futimens")
        // ANCHOR_END: day12_task3_make_file_solution
    }
    // ANCHOR_END: file

    fn make_directory(&mut self, entry: &Entry, name: &[u8]) -> Result<()> {
        let found = self.make_way(name, true)?;
        if found != Found::Directory {
            mkdirat(&self.here.1, name, ONLY_OURS).context("mkdirat")?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OPEN;
        let dir = openat(&self.here.1, name, flags, Mode::empty()).context("openat")?;
        if found == Found::Whiteout {
            make_opaque(&dir)?;
        }
        finish(&dir, entry)?;
        self.times.insert(joined(&self.here.0, name), entry.time);
        Ok(())
    }

    fn make_root(&mut self, entry: &Entry) -> Result<()> {
        if entry.kind != kind::DIRECTORY {
            bail!("it has no name; expected that of a file");
        }
        self.times.insert(b".".to_vec(), entry.time);
        finish(&self.root, entry)
    }

    /// A second name for what has one already in this layer. It is never followed: the new name
    /// of a link is the link's.
    fn make_hard_link(&mut self, target: &[u8], name: &[u8]) -> Result<()> {
        let (dir, target_name) = split(target)?;
        if target_name.starts_with(WHITEOUT) || target_name.is_empty() {
            bail!("it is a hard link to {}; expected a file", target.escape_ascii());
        }
        let target = joined(&dir, &target_name);
        let link = || linkat(&self.root, &target[..], &self.here.1, name, AtFlags::empty());
        let linked = match link() {
            Err(Errno::EXIST) if self.is_same(&target, name)? => Ok(()),
            Err(Errno::EXIST) => {
                self.make_way(name, false)?;
                linkat(&self.root, &target[..], &self.here.1, name, AtFlags::empty())
            }
            other => other,
        };
        linked.with_context(|| format!("a hard link to {}, in the same layer", target.escape_ascii()))
    }

    fn is_same(&self, target: &[u8], name: &[u8]) -> Result<bool> {
        let one = statat(&self.root, target, AtFlags::SYMLINK_NOFOLLOW).context("look at its target")?;
        let other = statat(&self.here.1, name, AtFlags::SYMLINK_NOFOLLOW).context("fstatat")?;
        Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
    }

    fn make_special(&mut self, entry: &Entry, name: &[u8]) -> Result<()> {
        let (major, minor) = entry.device;
        let (file_type, device) = match entry.kind {
            kind::FIFO => (FileType::Fifo, 0),
            kind::BLOCKS => (FileType::BlockDevice, makedev(major, minor)),
            kind::CHARACTERS if (major, minor) == (0, 0) => {
                bail!("it is the device 0:0, which to overlayfs is a whiteout; expected a file named .wh.…")
            }
            kind::CHARACTERS => (FileType::CharacterDevice, makedev(major, minor)),
            other => bail!("its type is {:?}, which is none of a layer's", char::from(other)),
        };
        // In a user namespace nobody makes a device, and it would open for nobody. (day 17)
        if file_type != FileType::Fifo && ids::are_not_the_hosts() {
            return Ok(());
        }
        mknodat(&self.here.1, name, file_type, ONLY_OURS, device as Dev).context("mknodat")?;
        self.finish_by_name(entry, name)
    }

    /// For what should not, or cannot, be opened: what is new here cannot be a link to
    /// elsewhere, unless it was to be one.
    fn finish_by_name(&self, entry: &Entry, name: &[u8]) -> Result<()> {
        let (uid, gid) = owner(entry);
        chownat(&self.here.1, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| ids::explain(Error::from(errno)))
            .context("fchownat")?;
        if entry.kind != kind::LINK {
            let mode = Mode::from_bits_truncate(entry.mode);
            chmodat(&self.here.1, name, mode, AtFlags::empty()).context("fchmodat")?;
        }
        utimensat(&self.here.1, name, &times(entry.time), AtFlags::SYMLINK_NOFOLLOW).context("utimensat")
    }

    // ANCHOR: white_out
    /// Something of the layers below is not there any more: to overlayfs, the character device
    /// 0:0. What this layer itself has of that name is not meant; but if that is a directory,
    /// nothing of the one below shows in it.
    fn white_out(&mut self, name: &[u8]) -> Result<()> {
        // ANCHOR: day12_task3_white_out_solution
        if matches!(name, b"" | b"." | b"..") {
            bail!("it takes away {:?}; expected the name of a file", name.escape_ascii().to_string());
        }
        match statat(&self.here.1, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {
                mknodat(&self.here.1, name, FileType::CharacterDevice, Mode::empty(), 0).context("mknodat")
            }
            Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OPEN;
                make_opaque(openat(&self.here.1, name, flags, Mode::empty()).context("openat")?)
            }
            other => other.map(drop).context("fstatat"),
        }
        // ANCHOR_END: day12_task3_white_out_solution
    }
    // ANCHOR_END: white_out

    /// Sets the times of all directories: nothing is made in them any more. Returns how many
    /// bytes were written.
    pub fn finish(self) -> Result<u64> {
        for (dir, time) in &self.times {
            match utimensat(&self.root, &dir[..], &times(*time), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(errno) => {
                    return Err(errno).with_context(|| format!("utimensat({})", dir.escape_ascii()));
                }
            }
        }
        Ok(self.written)
    }
}

// ANCHOR: split
/// The directory and the name of an entry, without `.` and empty parts: `./a//b` is `b` in `a`.
/// A name that begins with `/` means the layer's root, as in every archive.
fn split(path: &[u8]) -> Result<(Vec<u8>, Vec<u8>)> {
    // ANCHOR: day12_task3_split_solution
    let mut parts: Vec<&[u8]> =
        path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    if parts.contains(&&b".."[..]) {
        bail!("the name {} leads out of its directory; expected one without \"..\"", path.escape_ascii());
    }
    let name = parts.pop().unwrap_or_default().to_vec();
    if parts.iter().any(|part| part.starts_with(WHITEOUT) && !part.starts_with(b".wh..wh.")) {
        bail!("the name {} has a whiteout for a directory", path.escape_ascii());
    }
    Ok((parts.join(&b'/'), name))
    // ANCHOR_END: day12_task3_split_solution
}
// ANCHOR_END: split

fn joined(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}

fn is_whiteout(dir: &OwnedFd, name: &[u8]) -> Result<bool> {
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => {
            Ok(FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice && found.st_rdev == 0)
        }
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno).context("fstatat"),
    }
}

fn make_opaque(dir: impl AsFd) -> Result<()> {
    let name = overlay::opaque_attribute();
    fsetxattr(dir, name, b"y", XattrFlags::empty()).with_context(|| format!("fsetxattr({name})"))
}

/// Owner, then mode, then extended attributes: each may take away what comes after it.
fn finish(file: impl AsFd, entry: &Entry) -> Result<()> {
    let (uid, gid) = owner(entry);
    fchown(&file, uid, gid).map_err(|errno| ids::explain(Error::from(errno))).context("fchown")?;
    fchmod(&file, Mode::from_bits_truncate(entry.mode)).context("fchmod")?;
    if entry.kind == kind::DIRECTORY {
        remove_xattrs(&file)?;
    }
    for (name, value) in entry.xattrs.iter().filter(|(name, _)| is_allowed(name)) {
        match fsetxattr(&file, &name[..], value, XattrFlags::empty()) {
            // A tmpfs before Linux 6.6 has no user.*; and whoever unpacks cannot choose.
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno).with_context(|| format!("fsetxattr({})", name.escape_ascii())),
        }
    }
    Ok(())
}

/// What an archive may set: neither what overlayfs takes for its own nor the labels of the host's
/// security modules.
fn is_allowed(xattr: &[u8]) -> bool {
    (xattr.starts_with(b"user.") || xattr == b"security.capability") && !overlay::is_an_overlays(xattr)
}

/// Those that an earlier entry of the same name has set.
fn remove_xattrs(dir: impl AsFd) -> Result<()> {
    let mut names = [0; 4096];
    let Ok(count) = flistxattr(&dir, &mut names) else { return Ok(()) };
    for name in names[..count].split(|byte| *byte == 0).filter(|name| is_allowed(name)) {
        fremovexattr(&dir, name).context("fremovexattr")?;
    }
    Ok(())
}

fn owner(entry: &Entry) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(entry.owner.0)), Some(Gid::from_raw(entry.owner.1)))
}

fn times((tv_sec, nanoseconds): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec, tv_nsec: nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}
