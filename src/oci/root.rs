//! Day 18: the container's root, from the inside: what is hidden in it, what is read-only, and whether mounts
//! come in and go out.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rustix::fs::{AtFlags, FileType, OFlags, statat};
use rustix::io::Errno;

use crate::error::Result;
use crate::explain::step;
use crate::kernel;
use crate::rootfs::mount::{Dir, HARMLESS, READ_ONLY, attach_on, make, take, take_open};
use crate::rootfs::planned::find;

use super::DAY;
use super::spec::linux::Linux;

/// How the root takes part in what is mounted elsewhere later.
pub fn propagation(linux: &Linux) -> Result<Option<(u64, bool)>> {
    let Some(word) = linux.rootfs_propagation.as_deref().filter(|word| !word.is_empty()) else {
        return Ok(None);
    };
    Ok(Some(match word {
        "private" => (libc::MS_PRIVATE, false),
        "rprivate" => (libc::MS_PRIVATE, true),
        "slave" => (libc::MS_SLAVE, false),
        "rslave" => (libc::MS_SLAVE, true),
        "shared" => (libc::MS_SHARED, false),
        "rshared" => (libc::MS_SHARED, true),
        "unbindable" => (libc::MS_UNBINDABLE, false),
        "runbindable" => (libc::MS_UNBINDABLE, true),
        _ => bail!(
            "linux.rootfsPropagation is {word:?}; expected private, shared, slave or unbindable, or one with an r before it"
        ),
    }))
}

/// Parent: the host's /dev/null, which lies over a file that is hidden; `None`: nothing is to be.
pub fn take_null(masked: &[PathBuf]) -> Result<Option<OwnedFd>> {
    if masked.is_empty() { Ok(None) } else { take(DAY, Path::new("/dev/null")).map(Some) }
}

// ANCHOR: mask
/// Child, on its own root: hides `paths`: a file by `null`, a directory by one that is empty and read-only.
/// What is not there needs no hiding.
pub fn mask(root: &Dir, paths: &[PathBuf], null: Option<OwnedFd>) -> Result<()> {
    // ANCHOR: day18_task6_mask_solution
    let mut null = null.map(Cover::new);
    let mut empty = None;
    for path in paths {
        let Some((place, is_dir)) = look(root, path)? else { continue };
        if is_dir && empty.is_none() {
            empty = Some(Cover::new(make("tmpfs", HARMLESS | READ_ONLY, "")?));
        }
        let cover = if is_dir { &mut empty } else { &mut null };
        let cover = cover.as_mut().context("there is no /dev/null")?;
        cover.lay(&Dir::new(place, path)).with_context(|| format!("hide {path:?}"))?;
    }
    Ok(())
    // ANCHOR_END: day18_task6_mask_solution
}
// ANCHOR_END: mask

/// What lies over several places: nobody can write to it.
struct Cover {
    mount: OwnedFd,
    lies: bool,
}

impl Cover {
    fn new(mount: OwnedFd) -> Cover {
        Cover { mount, lies: false }
    }

    // ANCHOR: cover
    /// Itself over the first place; over the others copies, which the kernel makes of nothing that is attached
    /// nowhere yet, or in another mount namespace. (open_tree(2), EINVAL)
    fn lay(&mut self, over: &Dir) -> Result<()> {
        // ANCHOR: day18_task6_lay_solution
        if self.lies {
            return attach_on(DAY, take_open(DAY, self.mount.as_fd(), "what is empty")?, over);
        }
        self.lies = true;
        attach_on(DAY, self.mount.as_fd(), over)
        // ANCHOR_END: day18_task6_lay_solution
    }
    // ANCHOR_END: cover
}

/// Child: makes `paths` read-only, with all that is mounted below.
pub fn make_read_only(root: &Dir, paths: &[PathBuf]) -> Result<()> {
    for path in paths {
        let Some((place, _)) = look(root, path)? else { continue };
        // A flag belongs to a mount: it is made one, by mounting it on itself.
        let copy = take_open(DAY, place.as_fd(), "the path").with_context(|| format!("copy {path:?}"))?;
        let describe = || {
            let call = format!("mount_setattr({path:?}, MOUNT_ATTR_RDONLY, AT_RECURSIVE)");
            (call, format!("mount -o remount,bind,ro {}", path.display()))
        };
        step(DAY, describe, || kernel::add_mount_flags_below(copy.as_fd(), READ_ONLY.bits()))?;
        attach_on(DAY, copy, &Dir::new(place, path)).with_context(|| format!("make {path:?} read-only"))?;
    }
    Ok(())
}

/// Child, when all is mounted: says how the root itself is.
pub fn finish(root: &Dir, read_only: bool, propagation: Option<(u64, bool)>) -> Result<()> {
    let set = if read_only { READ_ONLY.bits() } else { 0 };
    let (kind, below) = propagation.unwrap_or((0, false));
    if set == 0 && kind == 0 {
        return Ok(());
    }
    let describe = || {
        (format!("mount_setattr(\"/\", {set:#x}, propagation {kind:#x})"), "mount -o remount,bind,… /".into())
    };
    step(DAY, describe, || {
        kernel::change_mount(root.as_fd(), false, u64::from(set), 0, 0)?;
        kernel::change_mount(root.as_fd(), below, 0, 0, kind)
    })
}

/// What is at `path`, and whether it is a directory; `None`: nothing is.
fn look(root: &Dir, path: &Path) -> Result<Option<(OwnedFd, bool)>> {
    let place = match find(root, path, OFlags::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => return Ok(None),
        place => place.with_context(|| format!("open {path:?}"))?,
    };
    let found = statat(&place, "", AtFlags::EMPTY_PATH).with_context(|| format!("look at {path:?}"))?;
    Ok(Some((place, FileType::from_raw_mode(found.st_mode) == FileType::Directory)))
}
