//! Day 3: mounts on descriptors.
//!
//! mount(2) takes paths, and every path is looked up anew. Whoever shares the root
//! file system can exchange a directory between two look-ups: what was checked is then
//! not what is mounted on. A descriptor leads where it led when it was opened. So a
//! mount is first made where no path leads (fsopen(2), open_tree(2)), and then attached
//! to a directory that is open. (move_mount(2))

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use crate::error::Result;
use crate::explain::{shell, step};
use crate::kernel;

pub use rustix::mount::MountAttrFlags as Flags;

/// What no kernel file system needs: set-user-ID programs, devices, programs.
pub const HARMLESS: Flags =
    Flags::MOUNT_ATTR_NOSUID.union(Flags::MOUNT_ATTR_NODEV).union(Flags::MOUNT_ATTR_NOEXEC);
/// Nothing can be written there.
pub const READ_ONLY: Flags = Flags::MOUNT_ATTR_RDONLY;

// ANCHOR: dir
/// A directory that is open, and the path that it has in the container. What is in it
/// is named by that path too: `/dev/null`, in the directory `/dev`.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

impl Dir {
    /// `fd`, which was opened at `path`.
    pub fn new(fd: OwnedFd, path: impl Into<PathBuf>) -> Dir {
        Dir { fd, path: path.into() }
    }

    /// Opens the directory `path`. A link on the way is an error, ELOOP. (openat2(2))
    pub fn open(path: impl Into<PathBuf>) -> rustix::io::Result<Dir> {
        let path = path.into();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat2(CWD, &path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?;
        Ok(Dir { fd, path })
    }

    /// What `path` is called, seen from this directory: `null` for `/dev/null`, and
    /// nothing for the directory itself.
    pub fn name_of<'a>(&self, path: &'a str) -> &'a Path {
        Path::new(path).strip_prefix(&self.path).unwrap_or(Path::new(path))
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<Dir> for OwnedFd {
    fn from(dir: Dir) -> OwnedFd {
        dir.fd
    }
}
// ANCHOR_END: dir

// ANCHOR: mount
/// Mounts a new file system of type `kind` at `path`, which is `on` itself or in it.
/// `options` are the file system's own. Returns its root.
pub fn mount(day: u8, kind: &str, on: &Dir, path: &str, flags: Flags, options: &str) -> Result<Dir> {
    let describe = || describe_mount(kind, path, flags, options);
    let mount = step(day, describe, || {
        let mount = make(kind, flags, options)?;
        move_mount(&mount, "", on, on.name_of(path), EMPTY_PATHS)
            .with_context(|| format!("move_mount({path:?})"))?;
        anyhow::Ok(mount)
    })?;
    Ok(Dir::new(mount, path))
}
// ANCHOR_END: mount

/// Both ends of move_mount(2) may be the descriptor itself, without a name in it.
const EMPTY_PATHS: MoveMountFlags =
    MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH.union(MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH);

// ANCHOR: new
/// The first half of [`mount`]: a new file system that is attached nowhere yet.
pub fn new(day: u8, kind: &str, flags: Flags) -> Result<OwnedFd> {
    let words = words_of(flags);
    let describe = || {
        let by_hand = format!("mount -t {kind} -o {} {kind} …", words.join(","));
        (format!("fsopen({kind:?}), fsmount({})", words.join("|")), by_hand)
    };
    step(day, describe, || make(kind, flags, ""))
}

/// The second: attaches `mount`, which is new, at `path`, which is `on` itself or in it. Returns
/// its root.
pub fn attach_new(day: u8, mount: OwnedFd, on: &Dir, path: &str) -> Result<Dir> {
    attach(day, &mount, on, path)?;
    Ok(Dir::new(mount, path))
}
// ANCHOR_END: new

// ANCHOR: make
/// A new file system, as a mount that is attached nowhere yet. (fsopen(2))
pub fn make(kind: &str, flags: Flags, options: &str) -> Result<OwnedFd> {
    let context = match fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC) {
        Err(Errno::NODEV) => Err(Errno::NODEV).with_context(|| format!("this kernel has no {kind}")),
        other => other.with_context(|| format!("fsopen({kind:?})")),
    }?;
    let configure = || {
        // What /proc/mounts shows as its device.
        fsconfig_set_string(&context, "source", kind)?;
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some((name, value)) => fsconfig_set_string(&context, name, value)?,
                None => fsconfig_set_flag(&context, option)?,
            }
        }
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags)
    };
    configure().with_context(|| why(&context, kind))
}

/// What the kernel has to say about a file system that it did not make: it writes that
/// into the descriptor of fsopen(2).
fn why(context: &OwnedFd, kind: &str) -> String {
    let mut words = vec![0; 1024];
    let length = context.try_clone().map(std::fs::File::from).and_then(|mut log| log.read(&mut words));
    words.truncate(length.unwrap_or(0));
    match String::from_utf8_lossy(&words).trim_end() {
        "" => format!("make a file system of type {kind}"),
        said => format!("make a file system of type {kind} ({said})"),
    }
}
// ANCHOR_END: make

// ANCHOR: bind
/// Makes what is at `source`, which is in `from`, visible at `target`, which is in `on`,
/// too. `flags` are added to those that its mount has, before anybody can see it.
/// (open_tree(2), mount_setattr(2))
pub fn bind(day: u8, from: &Dir, source: &str, on: &Dir, target: &str, flags: Flags) -> Result<()> {
    let describe = || describe_bind(source, target, flags);
    step(day, describe, || {
        let copy = open_tree(from, from.name_of(source), COPY)?;
        if !flags.is_empty() {
            kernel::add_mount_flags(copy.as_fd(), c"", flags.bits())?;
        }
        move_mount(&copy, "", on, on.name_of(target), EMPTY_PATHS)?;
        std::io::Result::Ok(())
    })
}
// ANCHOR_END: bind

/// A copy of a mount, with all that is mounted below it.
const COPY: OpenTreeFlags = OpenTreeFlags::OPEN_TREE_CLONE
    .union(OpenTreeFlags::OPEN_TREE_CLOEXEC)
    .union(OpenTreeFlags::AT_RECURSIVE)
    .union(OpenTreeFlags::AT_EMPTY_PATH);

// ANCHOR: take
/// What is at `path` of the host, as a mount that is attached nowhere yet. With it
/// the container needs no path to the host any more.
///
/// It is private, although systemd's mounts are shared: what the container mounts in it
/// must not appear at `path`. (mount_namespaces(7), "Shared subtrees")
pub fn take(day: u8, path: &Path) -> Result<OwnedFd> {
    let describe =
        || (format!("open_tree({path:?}, OPEN_TREE_CLONE)"), format!("mount --rbind {} …", shell(path)));
    step(day, describe, || take_from(CWD, path))
}

/// The same of what is open already.
pub fn take_open(day: u8, file: BorrowedFd, name: &str) -> Result<OwnedFd> {
    let describe = || (format!("open_tree({name}, OPEN_TREE_CLONE)"), "see /dev/console below".into());
    step(day, describe, || take_from(file, Path::new("")))
}

fn take_from(at: BorrowedFd, path: &Path) -> Result<OwnedFd> {
    let mount = match open_tree(at, path, COPY) {
        Err(Errno::INVAL) => Err(Errno::INVAL).context(
            "the mount that it lies on is unbindable (mount --make-private), or of another mount namespace",
        ),
        opened => opened.map_err(Into::into),
    }?;
    kernel::make_mounts_private(mount.as_fd())?;
    Ok(mount)
}

/// Attaches `mount` at `path`, which is `on` itself or in it. (move_mount(2))
pub fn attach(day: u8, mount: impl AsFd, on: &Dir, path: &str) -> Result<()> {
    let describe = || (format!("move_mount(…, {path:?})"), format!("mount --move … {path}"));
    step(day, describe, || move_mount(mount, "", on, on.name_of(path), EMPTY_PATHS))
}

/// Attaches `mount` on what `at` is, a directory or a file: a link too, where it stands.
pub fn attach_on(day: u8, mount: impl AsFd, at: &Dir) -> Result<()> {
    let describe =
        || (format!("move_mount(…, {:?})", at.path), format!("mount --move … {}", shell(&at.path)));
    step(day, describe, || move_mount(mount, "", at, "", EMPTY_PATHS))
}
// ANCHOR_END: take

/// The calls of [`mount`], and what a shell does instead.
fn describe_mount(kind: &str, path: &str, flags: Flags, options: &str) -> (String, String) {
    let words = words_of(flags);
    let set = if options.is_empty() { String::new() } else { format!("fsconfig({options:?}), ") };
    let calls = format!("fsopen({kind:?}), {set}fsmount({}), move_mount({path:?})", words.join("|"));
    let words: Vec<&str> = words.into_iter().chain((!options.is_empty()).then_some(options)).collect();
    let with = if words.is_empty() { String::new() } else { format!("-o {} ", words.join(",")) };
    (calls, format!("mount -t {kind} {with}{kind} {path}"))
}

/// The calls of [`bind`], and what a shell does instead.
fn describe_bind(source: &str, target: &str, flags: Flags) -> (String, String) {
    let words = words_of(flags).join(",");
    let (set, with) = match words.as_str() {
        "" => (String::new(), String::new()),
        words => (format!("mount_setattr({words}), "), format!("-o {words} ")),
    };
    let calls = format!("open_tree({source:?}, OPEN_TREE_CLONE), {set}move_mount({target:?})");
    (calls, format!("mount --bind {with}{source} {target}"))
}

/// `flags` as mount(8) spells them after `-o`.
fn words_of(flags: Flags) -> Vec<&'static str> {
    let words = [
        (Flags::MOUNT_ATTR_RDONLY, "ro"),
        (Flags::MOUNT_ATTR_NOSUID, "nosuid"),
        (Flags::MOUNT_ATTR_NODEV, "nodev"),
        (Flags::MOUNT_ATTR_NOEXEC, "noexec"),
        (Flags::MOUNT_ATTR_STRICTATIME, "strictatime"),
    ];
    words.iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, word)| *word).collect()
}

/// `open`, which is openat2 with RESOLVE_IN_ROOT, again and again while the kernel cannot say for sure
/// that a `..` stayed inside: something was mounted or renamed meanwhile, anywhere on the machine. Not
/// without end, for somebody in a container may do that all the time. (openat2(2), EAGAIN)
pub fn until_sure(open: impl Fn() -> rustix::io::Result<OwnedFd>) -> rustix::io::Result<OwnedFd> {
    (0..1000).map(|_| open()).find(|opened| !matches!(opened, Err(Errno::AGAIN))).unwrap_or(Err(Errno::AGAIN))
}
