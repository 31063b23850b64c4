//! Day 17: layers on a file system that cannot show its files as somebody else's: a tmpfs before Linux
//! 6.3, an overlay, many network file systems. Then the container gets a copy of its layers, in which each
//! file is whose it is to be, on the disk as well: it takes time and room, once for each container.
//!
//! ```text
//! <root>/containers/<id>/shifted     its layers, seen as one, shifted into its range
//!                        shifting    the same, half made
//! ```
//!
//! Such a container keeps its range for life, for its files are on the disk in that range.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::{Mode, umask};
use rustix::fs::{AtFlags, FileType, Stat, chmodat, chownat, fstat, statat};
use rustix::io::Errno;

use crate::error::{self, Result};
use crate::explain::{shell, step};
use crate::ids::UserNamespace;
use crate::layers::copy::copy_tree;
use crate::layers::overlay::{self, SHIFTED};
use crate::layers::tree::{Walk, identity, kind, names, open_dir};
use crate::metadata::tree::remove_tree;
use crate::rootfs::mount::take_open;

use super::DAY;

const SHIFTING: &str = "shifting";

/// Whether the container in `dir` has such a copy.
pub fn is_there(dir: &Path) -> bool {
    dir.join(SHIFTED).exists()
}

// ANCHOR: build
/// The overlay of the container's ids, without mapped mounts. For a process in a mount namespace of its
/// own. Returns a mount that is attached nowhere.
pub fn build(layers: &[PathBuf], dir: &Path, users: &UserNamespace) -> Result<OwnedFd> {
    if !is_there(dir) {
        error::say(
            "the layers, or the state directory, lie on a file system that cannot show its files as somebody \
             else's: the container gets a copy of them, which takes time and room (expected ext4, xfs or btrfs, \
             or tmpfs from Linux 6.3 on)",
        );
        copy(layers, dir, users).context("copy the layers into the container's range")?;
    }
    let root = overlay::build(&[dir.join(SHIFTED)], dir)?;
    take_open(DAY, root.as_fd(), "the overlay")
}
// ANCHOR_END: build

/// Makes the copy, whole or not at all.
fn copy(layers: &[PathBuf], dir: &Path, users: &UserNamespace) -> Result<()> {
    let (aside, own) = (dir.join(SHIFTING), overlay::own_layer(dir));
    if aside.exists() {
        remove_tree(&aside)?;
    }
    for made in [&aside, &own] {
        match DirBuilder::new().mode(0o700).create(made) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made_it => made_it.with_context(|| format!("make {made:?}"))?,
        }
    }
    let to: OwnedFd = File::open(&aside).with_context(|| format!("open {aside:?}"))?.into();
    let before = umask(Mode::empty());
    let copied = match layers {
        [only] => copy_tree(&File::open(only).with_context(|| format!("open {only:?}"))?.into(), &to),
        layers => {
            let lower = overlay::build_lower(layers, dir)?;
            let lower = open_dir(lower.as_fd(), c".").context("open the layers")?;
            copy_tree(&lower, &to).and_then(|()| {
                let describe =
                    || (format!("umount2({own:?}, MNT_DETACH)"), format!("umount -l {}", shell(&own)));
                step(DAY, describe, || umount2(&own, MntFlags::MNT_DETACH))
            })
        }
    };
    umask(before);
    copied?;
    let describe = || {
        let (uid, gid) = (users.uids.outside, users.gids.outside);
        let call = format!("chown all in {aside:?}: {uid} and {gid} further");
        (call, "find … -exec chown -h …".into())
    };
    step(DAY, describe, || shift(&to, users))?;
    let own: OwnedFd = File::open(&own).with_context(|| format!("open {own:?}"))?.into();
    make_upper_look_like(&to, &own)?;
    fs::rename(&aside, dir.join(SHIFTED)).with_context(|| format!("rename {aside:?}"))
}

/// Its `/` is what its own layer says, and that may have been made from the layers as they were. What it
/// says now does not depend on how often this was begun.
fn make_upper_look_like(tree: &OwnedFd, own: &OwnedFd) -> Result<()> {
    let upper = match open_dir(own.as_fd(), c"upper") {
        Err(Errno::NOENT) => return Ok(()),
        upper => upper.context("open the container's own layer")?,
    };
    if !names(&upper)?.is_empty() {
        bail!(
            "the container has written files of its own, for ids from 0 on, and where they lie now they cannot be \
             shown as somebody else's; expected the file system that they were written on, or --userns host"
        );
    }
    let found = fstat(tree)?;
    let (uid, gid) = (rustix::fs::Uid::from_raw(found.st_uid), rustix::fs::Gid::from_raw(found.st_gid));
    chownat(own, c"upper", Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).context("chown the own layer")
}

// ANCHOR: shift
/// Makes all in `tree` over to whoever has its owner's number inside. A file with several names has one
/// owner: it is shifted once.
fn shift(tree: &OwnedFd, users: &UserNamespace) -> Result<()> {
    // ANCHOR: day17_task4_shift_solution
    let mut seen = HashSet::new();
    let mut walk = Walk::new(tree.try_clone()?, names(tree)?)?;
    shift_one(tree, c".", &fstat(tree)?, users)?;
    loop {
        while let Some(name) = walk.next_name() {
            let found = statat(&walk.here, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            if kind(&found) == FileType::Directory {
                shift_one(&walk.here, &name, &found, users)?;
                let dir = open_dir(walk.here.as_fd(), &name)?;
                let below = names(&dir)?;
                walk.enter(dir, below)?;
            } else if found.st_nlink == 1 || seen.insert(identity(&found)) {
                shift_one(&walk.here, &name, &found, users)?;
            }
        }
        if !walk.leave()? {
            return Ok(());
        }
    }
    // ANCHOR_END: day17_task4_shift_solution
}
// ANCHOR_END: shift

/// One of them. Whose number there is none for stays whoever it is, and is nobody inside.
fn shift_one(dir: &OwnedFd, name: &std::ffi::CStr, found: &Stat, users: &UserNamespace) -> Result<()> {
    let (uid, gid) = (users.uids.outside(found.st_uid), users.gids.outside(found.st_gid));
    let (uid, gid) = (uid.map(rustix::fs::Uid::from_raw), gid.map(rustix::fs::Gid::from_raw));
    chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).with_context(|| format!("chown {name:?}"))?;
    // A change of the owner takes set-user-ID away. (chown(2))
    if kind(found) != FileType::Symlink {
        let mode = rustix::fs::Mode::from_raw_mode(found.st_mode);
        chmodat(dir, name, mode, AtFlags::empty()).with_context(|| format!("chmod {name:?}"))?;
    }
    Ok(())
}
