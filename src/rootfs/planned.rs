//! Day 3, for later days: the planned mounts ([`Mount`]). They are attached once the root
//! has changed and no path leads to the host, and before the root becomes read-only: what is
//! missing to mount on is made.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};
use nix::mount::{MntFlags, umount2};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, fstatfs, mkdirat, openat, openat2,
    statat,
};
use rustix::io::Errno;

use crate::container::{Container, Mount};
use crate::error::Result;
use crate::explain::{shell, step};
use crate::kernel;

use super::mount::{Dir, Flags, READ_ONLY, attach_on, mount, until_sure};

const DAY: u8 = 3;

// ANCHOR: attach_all
/// Child, on its own root: attaches all that is planned, a parent before what is mounted in
/// it. The umask must be 0.
pub fn attach_all(container: &mut Container, root: &Dir, dev: &Dir) -> Result<()> {
    let mounts = in_order(std::mem::take(&mut container.parts.mounts));
    for mount in &mounts {
        mount.fill.as_ref().map_or(Ok(()), |fill| (fill.by)(&fill.volume, &mount.target))?;
    }
    let mut covers = Vec::new();
    for mount in mounts {
        let at = match place_for(root, &mount) {
            Err(error) if cannot_be_written(&error) => {
                covers.push(cover(root, dev, &mount.target).with_context(|| format!("{error:#}"))?);
                place_for(root, &mount)?
            }
            place => place?,
        };
        attach(mount, &at)?;
    }
    // What lies over a directory that cannot be written is not to be a hole in it.
    covers.iter().try_for_each(|cover| {
        kernel::add_mount_flags(cover.as_fd(), c"", READ_ONLY.bits()).context("make it read-only")
    })
}
// ANCHOR_END: attach_all

/// Child, on its own root: attaches one that is planned, as it stands: over whatever is there, also in
/// /proc. For whoever says in which order, and is not whoever runs in there. (day 18)
pub fn attach_as_it_stands(root: &Dir, mount: Mount) -> Result<()> {
    let place = match find(root, &mount.target, OFlags::empty()) {
        Err(Errno::NOENT | Errno::LOOP) => make_place(root, &mount)?,
        found => found.with_context(|| format!("open {:?} of the rootfs", mount.target))?,
    };
    let target = mount.target.clone();
    attach(mount, &Dir::new(place, &target)).with_context(|| {
        format!("mount on {target:?} of the rootfs; expected a directory there for a directory, else a file")
    })
}

/// The same on the host's own root, in this container's copy of the host's mounts. What is
/// missing there is not made.
pub fn attach_what_has_a_place(container: &mut Container) -> Result<()> {
    let mounts = in_order(std::mem::take(&mut container.parts.mounts));
    if mounts.is_empty() {
        return Ok(());
    }
    let root = Dir::open("/").context("open /")?;
    for mount in mounts {
        match find(&root, &mount.target, OFlags::NOFOLLOW) {
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            place => {
                let target = mount.target.clone();
                let place = place.with_context(|| format!("open {target:?}"))?;
                attach(mount, &Dir::new(place, target))?;
            }
        }
    }
    Ok(())
}

/// A parent before what is mounted in it; and of those that have the same target the first.
fn in_order(mut mounts: Vec<Mount>) -> Vec<Mount> {
    // (Both leave what is equal in its order.)
    mounts.sort_by(|a, b| a.target.cmp(&b.target));
    mounts.dedup_by(|later, first| later.target == first.target);
    mounts
}

fn attach(mount: Mount, at: &Dir) -> Result<()> {
    if mount.read_only {
        let describe = || {
            let call = format!("mount_setattr({:?}, MOUNT_ATTR_RDONLY, AT_RECURSIVE)", mount.target);
            (call, format!("mount -o remount,bind,ro {}", shell(&mount.target)))
        };
        step(DAY, describe, || kernel::add_mount_flags_below(mount.tree.as_fd(), READ_ONLY.bits()))?;
    }
    attach_on(DAY, mount.tree, at)
}

// ANCHOR: place
/// Opens what is at `mount.target` in `root`. If nothing is, an empty directory or file is
/// made, and the directories on the way to it.
///
/// The root may have any links: with RESOLVE_IN_ROOT none of them leads out of it, and with
/// RESOLVE_NO_MAGICLINKS none in /proc leads anywhere. (openat2(2))
fn place_for(root: &Dir, mount: &Mount) -> Result<Dir> {
    let target = &mount.target;
    let place = match find(root, target, OFlags::empty()) {
        Err(Errno::NOENT | Errno::LOOP) => make_place(root, mount)?,
        found => found.with_context(|| format!("open {target:?} of the rootfs"))?,
    };
    check(&place, mount)?;
    Ok(Dir::new(place, target))
}

/// Opens what is at `target` in `root`. No link leads out of it. (openat2(2))
pub fn find(root: &Dir, target: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    find_by(root, target, flags, ResolveFlags::NO_MAGICLINKS)
}

/// The same of a path on which no link is.
pub fn find_without_links(root: &Dir, target: &Path) -> rustix::io::Result<OwnedFd> {
    find_by(root, target, OFlags::empty(), ResolveFlags::NO_SYMLINKS)
}

fn find_by(root: &Dir, target: &Path, flags: OFlags, resolve: ResolveFlags) -> rustix::io::Result<OwnedFd> {
    let inside = target.strip_prefix("/").unwrap_or(target);
    let inside = if inside.as_os_str().is_empty() { Path::new(".") } else { inside };
    let (flags, resolve) = (OFlags::PATH | OFlags::CLOEXEC | flags, ResolveFlags::IN_ROOT | resolve);
    until_sure(|| openat2(root, inside, flags, Mode::empty(), resolve))
}

/// Can `mount` be attached on `place`?
fn check(place: &OwnedFd, mount: &Mount) -> Result<()> {
    let Mount { target, is_dir, .. } = mount;
    let found = statat(place, "", AtFlags::EMPTY_PATH).with_context(|| format!("look at {target:?}"))?;
    let kind = FileType::from_raw_mode(found.st_mode);
    match (kind == FileType::Directory, is_dir) {
        (true, false) => bail!(
            "{} of the rootfs is a directory; expected a file, for a file is to be mounted there: remove it",
            target.display()
        ),
        (false, true) => bail!(
            "{} of the rootfs is not a directory; expected one, for a directory is to be mounted there: \
             remove it",
            target.display()
        ),
        _ => {}
    }
    // What is there is the kernel's, and programs believe it.
    if fstatfs(place).is_ok_and(|found| found.f_type == PROC_SUPER_MAGIC) {
        bail!("{} is in /proc, where nothing can be mounted; expected another place", target.display());
    }
    Ok(())
}

/// Makes what `mount` is to be attached on. A link that leads nowhere stays, and is covered
/// where it stands by a file.
fn make_place(root: &Dir, mount: &Mount) -> Result<OwnedFd> {
    let target = &mount.target;
    let (parent, name) = target.parent().zip(target.file_name()).context("a mount point needs a name")?;
    make_parents(root, parent)?;
    let parent = find(root, parent, OFlags::DIRECTORY)
        .with_context(|| format!("open {parent:?} of the rootfs, which may be a link that leads nowhere"))?;
    let made = if mount.is_dir { make_dir(&parent, name, target) } else { make_file(&parent, name, target) };
    made.with_context(|| format!("the rootfs has no {}", target.display()))?;
    find(root, target, OFlags::NOFOLLOW).with_context(|| format!("open {target:?} of the rootfs"))
}

/// Makes the directory `dir` in `root`, and those above it, if they are missing.
pub fn make_parents(root: &Dir, dir: &Path) -> Result<()> {
    let mut path = PathBuf::from("/");
    for component in dir.components() {
        let above = path.clone();
        path.push(component);
        if let Component::Normal(name) = component
            && find(root, &path, OFlags::DIRECTORY).is_err_and(|errno| errno == Errno::NOENT)
        {
            let above = find(root, &above, OFlags::DIRECTORY)
                .with_context(|| format!("open {above:?} of the rootfs"))?;
            make_dir(&above, name, &path).with_context(|| format!("the rootfs has no {}", path.display()))?;
        }
    }
    Ok(())
}

fn make_dir(parent: &OwnedFd, name: &OsStr, path: &Path) -> Result<()> {
    let describe = || (format!("mkdir({path:?})"), format!("mkdir {}", shell(path)));
    step(DAY, describe, || match mkdirat(parent, name, Mode::from_bits_truncate(0o755)) {
        // Another run was faster; or it is a link, and whoever opens it will see.
        Err(Errno::EXIST) => Ok(()),
        made => made,
    })
}

fn make_file(parent: &OwnedFd, name: &OsStr, path: &Path) -> Result<()> {
    let describe = || (format!("open({path:?}, O_CREAT|O_EXCL)"), format!("touch {}", shell(path)));
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    step(DAY, describe, || match openat(parent, name, flags, Mode::from_bits_truncate(0o644)) {
        Err(Errno::EXIST) => Ok(()),
        made => made.map(drop),
    })
}
// ANCHOR_END: place

fn cannot_be_written(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(&(Errno::ROFS | Errno::PERM | Errno::ACCESS)))
}

// ANCHOR: cover
/// For a rootfs that cannot be written: lays a layer, in memory, over the nearest directory
/// above `target` that there is. (kernel: filesystems/overlayfs)
fn cover(root: &Dir, dev: &Dir, target: &Path) -> Result<Dir> {
    const LAYER: &str = "/dev/layer";
    let below = |dir: &Path| Some((find(root, dir, OFlags::DIRECTORY).ok()?, dir.to_owned()));
    let Some((dir, path)) = target.ancestors().skip(1).find_map(below).filter(|(_, path)| path != "/") else {
        bail!("make an empty directory of that name in it");
    };
    let private = Mode::from_bits_truncate(0o755);
    mkdirat(dev, "layer", private).context("make /dev/layer")?;
    let layer = mount(DAY, "tmpfs", dev, LAYER, Flags::empty(), "mode=755")?;
    for dir in ["upper", "work"] {
        mkdirat(&layer, dir, private).with_context(|| format!("make {LAYER}/{dir}"))?;
    }
    let number = std::os::fd::AsRawFd::as_raw_fd(&dir);
    let layers = format!("lowerdir=/proc/self/fd/{number},upperdir={LAYER}/upper,workdir={LAYER}/work");
    let name = path.to_string_lossy().into_owned();
    let on = Dir::new(dir, path);
    let covered = mount(DAY, "overlay", &on, &name, Flags::empty(), &layers).with_context(|| {
        format!(
            "no layer could be laid over its {name} (\"Invalid argument\" means: it lies on an overlay of an \
             overlay, as deep as the kernel goes, or on a file system that overlayfs does not take); make \
             an empty one of that name in it"
        )
    })?;
    // The overlay holds on to it; no path need lead there.
    let describe = || (format!("umount2({LAYER:?}, MNT_DETACH)"), format!("umount -l {LAYER}"));
    step(DAY, describe, || umount2(LAYER, MntFlags::MNT_DETACH))?;
    std::fs::remove_dir(LAYER).context("remove /dev/layer")?;
    Ok(covered)
}
// ANCHOR_END: cover
