//! Day 8: the files of /etc that name the container and the servers to ask for names: hostname,
//! hosts, resolv.conf. They differ from container to container, so they cannot be in the
//! root file system, which several may share and which is the user's: they are kept in the
//! container's directory, and mounted over those that are there. (hosts(5), resolv.conf(5))

use std::fs::{OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, bail};
use nix::mount::{MntFlags, umount2};
use nix::sys::statvfs::{FsFlags, statvfs};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, fchmod, mkdirat, openat, openat2, statat,
};
use rustix::io::Errno;

use crate::container::{Container, Mechanism};
use crate::error::Result;
use crate::explain::step;
use crate::kernel;
use crate::plan::Network;
use crate::rootfs::mount::{Dir, Flags, READ_ONLY, attach, mount, take};

const DAY: u8 = 8;

/// For everybody in the container to read.
const MODE: u32 = 0o644;

/// A file of /etc, as a mount that is not anywhere yet.
#[derive(Debug)]
pub struct EtcFile {
    name: &'static str,
    mount: OwnedFd,
}

/// The mechanism of the files that need no address: those of `--net none` and `--net host`.
#[derive(Debug, Default)]
pub struct EtcFiles(Vec<EtcFile>);

// ANCHOR: mechanism
impl Mechanism for EtcFiles {
    fn prepare(&mut self, container: &mut Container) -> Result<()> {
        // On the host's own root file system the host's files are there.
        if !container.plan.has_own_root() {
            return Ok(());
        }
        let name = hostname(container);
        let files = match container.plan.network {
            // 127.0.1.1 as Debian has it: all of 127.0.0.0/8 is the loopback device's.
            Some(Network::None) => vec![("hosts", hosts("127.0.1.1", name))],
            Some(Network::Host) => {
                vec![("hosts", hosts_of_the_host(name)?), ("resolv.conf", host_file("/etc/resolv.conf")?)]
            }
            Some(Network::Bridge) | None => return Ok(()),
        };
        self.0 = write(container, files)?;
        Ok(())
    }

    fn attach(&mut self, _container: &mut Container, _child: nix::unistd::Pid) -> Result<()> {
        // The child has its own copies.
        self.0.clear();
        Ok(())
    }

    fn enter(&mut self, container: &mut Container) -> Result<()> {
        mount_all(container, std::mem::take(&mut self.0))
    }
}
// ANCHOR_END: mechanism

/// The container's name for itself.
pub fn hostname(container: &Container) -> &str {
    container.plan.hostname.as_deref().unwrap_or("localhost")
}

/// The text of `hosts`: this container, and no other.
pub fn hosts(address: &str, hostname: &str) -> Vec<u8> {
    format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{address}\t{hostname}\n").into()
}

/// The host's own, for it is its network; and the container's name, which the host does
/// not know.
fn hosts_of_the_host(hostname: &str) -> Result<Vec<u8>> {
    let mut text = host_file("/etc/hosts")?;
    if text.is_empty() {
        return Ok(hosts("127.0.1.1", hostname));
    }
    if !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    text.extend(format!("127.0.1.1\t{hostname}\n").bytes());
    Ok(text)
}

// ANCHOR: host_file
/// The most that we read of a host's file: some have long lists of names in /etc/hosts.
const ENOUGH: u64 = 16 << 20;

/// What is in `path` on the host; nothing, if no regular file is there. It is whatever an
/// administrator has written: bytes, in any encoding. And it may be anything: from a FIFO
/// that nobody writes to, an ordinary open(2) would wait forever.
pub fn host_file(path: &str) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(text),
        // What a socket says to this, and a link that leads to itself.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENXIO | libc::ELOOP)) => return Ok(text),
        other => other.with_context(|| format!("open {path} of the host"))?,
    };
    let metadata = file.metadata().with_context(|| format!("look at {path} of the host"))?;
    if metadata.is_file() {
        text.reserve(metadata.len().min(ENOUGH) as usize + 1);
        file.take(ENOUGH).read_to_end(&mut text).with_context(|| format!("read {path} of the host"))?;
        if text.len() as u64 == ENOUGH {
            bail!("{path} of the host: expected less than {} MiB of text", ENOUGH >> 20);
        }
    }
    Ok(text)
}
// ANCHOR_END: host_file

// ANCHOR: write
/// Writes `files`, each with its name, and the file `hostname` into the container's
/// directory, and opens each as a mount: the child will have no path to them. Makes sure
/// that there is something to mount them on.
pub fn write(container: &Container, mut files: Vec<(&'static str, Vec<u8>)>) -> Result<Vec<EtcFile>> {
    let Some(dir) = &container.parts.dir else { return Ok(vec![]) };
    files.insert(0, ("hostname", format!("{}\n", hostname(container)).into()));
    if let Some(root) = &container.parts.root {
        let names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
        make_mount_points(root, &names)?;
    }
    files.into_iter().map(|(name, text)| write_one(dir, name, &text)).collect()
}
// ANCHOR_END: write

fn write_one(dir: &Path, name: &'static str, text: &[u8]) -> Result<EtcFile> {
    let path = dir.join(name);
    let describe = || (format!("write {path:?}"), format!("cat > {}", path.display()));
    step(DAY, describe, || {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        // Not as open(2) sets it, which takes the bits of our caller's umask away.
        file.set_permissions(Permissions::from_mode(MODE))?;
        file.write_all(text)
    })?;
    Ok(EtcFile { name, mount: take(DAY, &path)? })
}

// ANCHOR: mount_points
/// Makes an empty file in /etc of the rootfs for each of `names` that it lacks, as runc
/// does: something to mount on. It stays there. In a rootfs that cannot be written this is
/// left to [`cover_etc`].
fn make_mount_points(root: &OwnedFd, names: &[&str]) -> Result<()> {
    let made = open_etc_of(root).and_then(|etc| {
        names
            .iter()
            .try_for_each(|name| make_mount_point(&etc, name).with_context(|| format!("make etc/{name}")))
    });
    match made {
        Err(error) if matches!(error.downcast_ref(), Some(&(Errno::ROFS | Errno::PERM | Errno::ACCESS))) => {
            Ok(())
        }
        other => other.context("in the rootfs"),
    }
}

/// Opens /etc of a rootfs, which gets one if it has none.
fn open_etc_of(root: &OwnedFd) -> Result<OwnedFd> {
    // It is not our root yet, and may have any links: with RESOLVE_IN_ROOT none of them
    // leads out of it. (openat2(2))
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let open = || openat2(root, "etc", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), inside);
    match open() {
        Err(Errno::NOENT) => {
            match mkdirat(root, "etc", Mode::from_bits_truncate(0o755)) {
                // Another run was faster.
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno).context("make etc"),
            }
            let etc = open().context("open etc, which is a link that leads nowhere in the rootfs")?;
            // Whatever umask our caller has.
            fchmod(&etc, Mode::from_bits_truncate(0o755)).context("make etc readable for everybody")?;
            Ok(etc)
        }
        other => other.context("open etc"),
    }
}

fn make_mount_point(etc: impl AsFd, name: &str) -> rustix::io::Result<()> {
    let mode = Mode::from_bits_truncate(MODE);
    match openat(etc, name, OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC, mode) {
        Ok(file) => fchmod(&file, mode),
        Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}
// ANCHOR_END: mount_points

// ANCHOR: mount
/// Child, on its own root: mounts the files over those of /etc.
pub fn mount_all(container: &Container, files: Vec<EtcFile>) -> Result<()> {
    let Some(mut etc) = open_etc(&files)? else { return Ok(()) };
    let mut missing = Vec::new();
    for EtcFile { name, .. } in &files {
        if !is_there(&etc, name)? {
            missing.push(*name);
        }
    }
    // What lies over /etc is not to be a hole in a root that is read-only.
    let read_only = statvfs("/").context("statvfs")?.flags().contains(FsFlags::ST_RDONLY);
    // On the host's own root, what is not there is not made.
    if let Some(dev) = &container.parts.dev
        && !missing.is_empty()
    {
        etc = cover_etc(&etc, &Dir::new(dev.try_clone().context("dup")?, "/dev"), &missing)?;
        missing.clear();
        if read_only {
            keep_read_only(&etc, "/etc")?;
        }
    }
    for EtcFile { name, mount } in files.into_iter().filter(|file| !missing.contains(&file.name)) {
        if read_only {
            keep_read_only(&mount, name)?;
        }
        // A link is mounted on where it stands, wherever it leads. (move_mount(2),
        // MOVE_MOUNT_T_SYMLINKS)
        attach(DAY, mount, &etc, &format!("/etc/{name}"))?;
    }
    Ok(())
}
// ANCHOR_END: mount

fn keep_read_only(mount: impl AsFd, name: &str) -> Result<()> {
    kernel::add_mount_flags(mount.as_fd(), c"", READ_ONLY.bits())
        .with_context(|| format!("make {name} read-only"))
}

/// `None`: there is nothing to mount, or no /etc.
fn open_etc(files: &[EtcFile]) -> Result<Option<Dir>> {
    if files.is_empty() {
        return Ok(None);
    }
    // If it is a link, it leads somewhere in this root: there is no other any more.
    match openat(CWD, "/etc", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(etc) => Ok(Some(Dir::new(etc, "/etc"))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno).context("open /etc"),
    }
}

/// Is there something in /etc on which a file can be mounted?
fn is_there(etc: &Dir, name: &str) -> Result<bool> {
    match statat(etc, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::Directory => {
            bail!(
                "/etc/{name} of the rootfs is a directory; expected a file, for the container's own is \
                 mounted there: remove it"
            )
        }
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno).with_context(|| format!("look at /etc/{name}")),
    }
}

// ANCHOR: cover
/// For a rootfs that cannot be written: lays a layer over its /etc, in memory, and makes
/// the `missing` files there. Returns the new /etc. (kernel: filesystems/overlayfs)
fn cover_etc(etc: &Dir, dev: &Dir, missing: &[&str]) -> Result<Dir> {
    const LAYER: &str = "/dev/etc";
    let private = Mode::from_bits_truncate(0o755);
    mkdirat(dev, "etc", private).context("make /dev/etc")?;
    let layer = mount(DAY, "tmpfs", dev, LAYER, Flags::empty(), "mode=755")?;
    for dir in ["upper", "work"] {
        mkdirat(&layer, dir, private).with_context(|| format!("make {LAYER}/{dir}"))?;
    }
    let layers = "lowerdir=/etc,upperdir=/dev/etc/upper,workdir=/dev/etc/work";
    let covered = mount(DAY, "overlay", etc, "/etc", Flags::empty(), layers).with_context(|| {
        format!(
            "the rootfs cannot be written and lacks /etc/{}, and no layer could be laid over its /etc (\"Invalid argument\" \
             means: it lies on an overlay of an overlay, as deep as the kernel goes, or on a file system that \
             overlayfs does not take); make empty files of these names in it",
            missing.join(", /etc/")
        )
    })?;
    // The overlay holds on to it; no path need lead there.
    let describe = || (format!("umount2({LAYER:?}, MNT_DETACH)"), format!("umount -l {LAYER}"));
    step(DAY, describe, || umount2(LAYER, MntFlags::MNT_DETACH))?;
    std::fs::remove_dir(LAYER).context("remove /dev/etc")?;
    for name in missing {
        make_mount_point(&covered, name).with_context(|| format!("make /etc/{name}"))?;
    }
    Ok(covered)
}
// ANCHOR_END: cover
