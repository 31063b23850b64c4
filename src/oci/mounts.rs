//! Day 18: the mounts of a bundle, in the order in which they are written.
//!
//! What is the host's is taken in `prepare`, while there are paths to it. What is new, a /proc above all,
//! shows the namespaces of whoever makes it: the child makes it, in its own, before its root changes. Both
//! are attached once it has changed. (fsopen(2), open_tree(2), move_mount(2))

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, openat, statat};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::container::Mount;
use crate::error::Result;
use crate::explain::{shell, step};
use crate::kernel;
use crate::layers::copy::copy_tree;
use crate::rootfs::mount::{Dir, Flags, make};
use crate::rootfs::planned;

use super::DAY;
use super::namespaces::Users;
use super::options::Options;
use super::spec;

const CGROUPS: &str = "cgroup2";
const CGROUPS_OF_HOST: &str = "/sys/fs/cgroup";

/// A mount that is planned.
#[derive(Debug)]
pub struct Planned {
    target: PathBuf,
    options: Options,
    what: What,
    /// Of whose ids its files are to be: a user namespace of its own; `None`: the container's.
    users: Option<Users>,
}

#[derive(Debug)]
enum What {
    /// Something of the host's: a mount that is attached nowhere yet.
    Taken { tree: OwnedFd, is_dir: bool },
    /// A new file system of this type.
    New(String),
}

/// Parent: takes what is the host's of `mounts`.
pub fn plan(mounts: &[spec::Mount], bundle: &Path) -> Result<Vec<Planned>> {
    mounts.iter().map(|mount| plan_one(mount, bundle)).collect()
}

// ANCHOR: plan_one
fn plan_one(mount: &spec::Mount, bundle: &Path) -> Result<Planned> {
    let mut options = Options::parse(&mount.options);
    let kind = mount.kind.as_deref().filter(|kind| !kind.is_empty()).unwrap_or("none");
    if kind == "bind" && options.bind.is_none() {
        options.bind = Some(false);
    }
    // Old engines write it without the slash.
    let target = Path::new("/").join(&mount.destination);
    let what = match (options.bind, &mount.source) {
        (Some(below), Some(source)) => {
            let source = bundle.join(source);
            let tree = take(&source, below).with_context(|| format!("mount {source:?} on {target:?}"))?;
            let found =
                statat(&tree, "", AtFlags::EMPTY_PATH).with_context(|| format!("look at {source:?}"))?;
            What::Taken { is_dir: FileType::from_raw_mode(found.st_mode) == FileType::Directory, tree }
        }
        (Some(_), None) => bail!("mounts: the bind mount on {target:?} has no source"),
        (None, _) if kind == "none" => {
            bail!("mounts: the one on {target:?} has no type; expected one, or the option bind")
        }
        // What is mounted as such is version 2.
        (None, _) => What::New(if kind == "cgroup" { CGROUPS.into() } else { kind.into() }),
    };
    if options.bind.is_some()
        && let Some(word) = options.words_of_nobody().next()
    {
        bail!("mounts: the bind mount on {target:?} has the option {word:?}, which is none of one: omit it");
    }
    let ids = (!mount.uid_mappings.is_empty())
        .then(|| Users { uids: mount.uid_mappings.clone(), gids: mount.gid_mappings.clone() });
    if ids.is_some() && options.idmap.is_none() {
        options.idmap = Some(false);
    }
    Ok(Planned { target, options, what, users: ids })
}
// ANCHOR_END: plan_one

/// What is at `path` of the host, with or without what is mounted below, with its propagation.
fn take(path: &Path, below: bool) -> Result<OwnedFd> {
    let describe = || {
        let by_hand = format!("mount --{} {} …", if below { "rbind" } else { "bind" }, shell(path));
        (format!("open_tree({path:?}, OPEN_TREE_CLONE)"), by_hand)
    };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let flags = if below { flags | OpenTreeFlags::AT_RECURSIVE } else { flags };
    step(DAY, describe, || open_tree(CWD, path, flags))
}

impl Planned {
    /// Whether it lies over `path`, with something that is the host's.
    pub fn is_the_hosts(&self, path: &Path) -> bool {
        self.target == path && matches!(self.what, What::Taken { .. })
    }

    /// Whether its files are to be the container's users'.
    pub fn is_mapped(&self) -> bool {
        self.options.idmap.is_some()
    }

    /// Parent: gives its files the ids of its own user namespace, or of the container's, `own`.
    pub fn map_ids(&self, own: Option<&OwnedFd>) -> Result<()> {
        let (Some(below), What::Taken { tree, .. }) = (self.options.idmap, &self.what) else { return Ok(()) };
        let made = self.users.as_ref().map(Users::namespace).transpose()?.map(OwnedFd::from);
        let users = made.as_ref().or(own).context("the option idmap needs mappings, or a user namespace")?;
        let describe = || {
            (format!("mount_setattr({:?}, MOUNT_ATTR_IDMAP)", self.target), "mount -o X-mount.idmap=…".into())
        };
        step(DAY, describe, || {
            if below {
                kernel::map_ids_below(tree.as_fd(), users.as_fd())
            } else {
                kernel::map_ids_of_mount(tree.as_fd(), users.as_fd())
            }
        })
    }

    /// Whether it has a mapping of its own, which needs no container.
    pub fn has_own_users(&self) -> bool {
        self.users.is_some()
    }

    /// Child, in its namespaces: a mount that is attached nowhere yet, with all its options. `own_cgroups`:
    /// whether it is in a cgroup namespace of its own.
    pub fn ready(self, own_cgroups: bool) -> Result<Ready> {
        let Planned { target, mut options, what, .. } = self;
        let shows_the_machine = matches!(&what, What::New(kind) if kind == "proc" || kind == "sysfs");
        let (tree, is_dir) = match what {
            What::Taken { tree, is_dir } => (tree, is_dir),
            What::New(kind) => {
                let describe = || {
                    let call = format!("fsopen({kind:?}), fsconfig({:?}), fsmount(…)", options.data);
                    (call, format!("mount -t {kind} -o {} {kind} …", options.data))
                };
                // Anew it would be the host's whole tree as well, and would change its options (nsdelegate) for
                // everybody, for there they are the file system's. (cgroup-v2, "Mounting")
                let is_the_hosts = kind == CGROUPS && !own_cgroups;
                let made = if is_the_hosts {
                    take(Path::new(CGROUPS_OF_HOST), true)
                } else {
                    step(DAY, describe, || make(&kind, Flags::empty(), &options.data))
                };
                let tree = made.or_else(|error| {
                    // What the options say of it holds for what the host has mounted in there too.
                    options.set_below |= options.set;
                    instead_of(&kind, error)
                });
                (tree.with_context(|| format!("what is to be mounted on {target:?}"))?, true)
            }
        };
        apply(&tree, &options, &target)?;
        let (copy_up, set) = (options.copy_up, options.set);
        let mount = Mount { tree, target, is_dir, read_only: false, fill: None };
        Ok(Ready { mount, copy_up, set, shows_the_machine })
    }
}

/// In a user namespace, what shows another kind of namespace can be mounted only if that one is its own too.
/// (user_namespaces(7)) Else it is the host's that is shown.
fn instead_of(kind: &str, error: anyhow::Error) -> Result<OwnedFd> {
    let path = match kind {
        CGROUPS => CGROUPS_OF_HOST,
        "sysfs" => "/sys",
        "mqueue" => "/dev/mqueue",
        _ => return Err(error),
    };
    let refused = error.downcast_ref() == Some(&Errno::PERM);
    if refused { take(Path::new(path), true) } else { Err(error) }
}

/// Gives the mount `tree` what its options say. One that has been the host's is cut off from it, if they say
/// nothing else. Read-only comes last: see [`Ready::attach`].
fn apply(tree: &OwnedFd, options: &Options, target: &Path) -> Result<()> {
    let (propagation, below) = options.propagation.unwrap_or((libc::MS_PRIVATE, true));
    let describe = || {
        let call = format!("mount_setattr({target:?}, set {:#x}, clear {:#x})", options.set, options.clear);
        (call, "mount -o remount,bind,… …".into())
    };
    step(DAY, describe, || {
        let set = if options.copy_up { options.set & !libc::MOUNT_ATTR_RDONLY } else { options.set };
        kernel::change_mount(tree.as_fd(), below, 0, 0, propagation)?;
        kernel::change_mount(tree.as_fd(), false, set, options.clear, 0)?;
        if options.set_below | options.clear_below != 0 {
            kernel::change_mount(tree.as_fd(), true, options.set_below, options.clear_below, 0)?;
        }
        std::io::Result::Ok(())
    })
}

/// One that can be attached.
#[derive(Debug)]
pub struct Ready {
    mount: Mount,
    copy_up: bool,
    set: u64,
    shows_the_machine: bool,
}

impl Ready {
    /// Child, on its own root: attaches it.
    pub fn attach(self, root: &Dir) -> Result<()> {
        let target = self.mount.target.clone();
        if self.shows_the_machine {
            check_that_it_is_no_link(root, &target)?;
        }
        if self.copy_up {
            copy_up(root, &self.mount).with_context(|| format!("copy what is in {target:?} (tmpcopyup)"))?;
            kernel::change_mount(self.mount.tree.as_fd(), false, self.set, 0, 0)
                .with_context(|| format!("mount_setattr({target:?})"))?;
        }
        planned::attach_as_it_stands(root, self.mount)
    }
}

/// What is hidden in /proc and /sys is found by its path. If a link of the image led to them, whoever can
/// change where it leads could have it hidden elsewhere. (CVE-2019-19921, CVE-2023-27561)
fn check_that_it_is_no_link(root: &Dir, target: &Path) -> Result<()> {
    match planned::find_without_links(root, target) {
        Err(Errno::LOOP) => {
            bail!(
                "{target:?} of the rootfs is a link, or is reached by one; expected a directory: replace it by one"
            )
        }
        // What is missing will be made.
        _ => Ok(()),
    }
}

/// Fills a new tmpfs with what the root has at its place.
fn copy_up(root: &Dir, mount: &Mount) -> Result<()> {
    let Ok(place) = planned::find(root, &mount.target, OFlags::DIRECTORY) else { return Ok(()) };
    let open =
        |dir: &OwnedFd| openat(dir, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    copy_tree(&open(&place)?, &open(&mount.tree)?)
}
