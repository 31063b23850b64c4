//! Day 17: the birth of a user namespace: what the parent does to a child that has no ids yet, and what
//! the child then does first.
//!
//! ```text
//! parent  clone3(CLONE_NEWUSER | …)   gid_map, uid_map   idmapped mounts   the gate opens
//! child            └── nobody ──────────── waits ─────────────────────────────┴ setuid(0): root ── …
//! ```

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::Context;
use nix::unistd::{Gid, Pid, Uid};
use rustix::fs::{AtFlags, FileType, chownat, statat};

use crate::capabilities::node::Node;
use crate::capabilities::ulimit;
use crate::container::{Container, Mount, Parts};
use crate::error::Result;
use crate::exec::stay_inside;
use crate::explain::step;
use crate::files;
use crate::identity::{become_root_inside, make_over_before};
use crate::ids::{Ids, UserNamespace};
use crate::kernel;
use crate::logs::rights;
use crate::plan::{MountKind, Plan};
use crate::rootfs::devices;
use crate::rootfs::mount::take;

use super::DAY;

// ANCHOR: prepare
/// Parent, when all others have prepared what they have to: what is to be different for a container whose
/// root is `users`' first. `nodes`: the devices of the host that somebody has asked for.
pub fn prepare(container: &mut Container, users: &UserNamespace, nodes: Vec<Node>) -> Result<()> {
    container.parts.first_step = Some(become_root);
    container.parts.last_steps.place = Some(stay_inside);
    make_streams_over(container, users);
    take_devices(container, nodes)?;
    let Container { plan, parts, .. } = container;
    let mut unmapped: Vec<OwnedFd> =
        parts.root.iter().map(OwnedFd::try_clone).collect::<std::io::Result<_>>()?;
    for mount in &parts.mounts {
        match kind_of(plan, mount) {
            // Made for it: it is the root directory of it alone that has an owner.
            Some(MountKind::Tmpfs) => make_over_to(&mount.tree, users)?,
            // Whoever is root inside could leave a program there that whoever starts it on the host
            // executes as root. So it is as with Docker: what is there is nobody's, inside.
            Some(MountKind::Bind) => {}
            Some(MountKind::Volume) => {
                unmapped.push(mount.tree.try_clone()?);
                let whole = mount.fill.as_ref().map(|fill| fill.volume.try_clone());
                unmapped.extend(whole.transpose()?);
            }
            None if mount.target.starts_with("/dev") => {}
            None => unmapped.push(mount.tree.try_clone()?),
        }
    }
    parts.unmapped = unmapped;
    Ok(())
}
// ANCHOR_END: prepare

/// Parent, on the host: takes the devices that the container is to have, those of every container and
/// `nodes`. They are mounted in its /dev: whoever is root of a user namespace cannot make any.
pub fn take_devices(container: &mut Container, nodes: Vec<Node>) -> Result<()> {
    if !container.plan.has_own_root() {
        return Ok(());
    }
    container.parts.devices = devices::take_the_hosts()?;
    for Node { host, target, .. } in nodes {
        let tree = take(DAY, &host)?;
        container.parts.mounts.push(Mount { tree, target, is_dir: false, read_only: false, fill: None });
    }
    Ok(())
}

/// `None`: nobody has asked for it, so it is a file of the runtime's, or a device.
fn kind_of(plan: &Plan, mount: &Mount) -> Option<MountKind> {
    plan.mounts.iter().find(|point| point.target == mount.target).map(|point| point.kind)
}

/// Makes what is mounted over to those who are inside whoever they were to be outside.
fn make_over_to(tree: &OwnedFd, users: &UserNamespace) -> Result<()> {
    let found = statat(tree, "", AtFlags::EMPTY_PATH).context("look at a mount")?;
    let on_the_host = |ids: &Ids, id: u32| {
        ids.outside(id).with_context(|| format!("there is no id {id} in the container's user namespace"))
    };
    let (uid, gid) = (on_the_host(&users.uids, found.st_uid)?, on_the_host(&users.gids, found.st_gid)?);
    let describe = || (format!("fchownat(mount, {uid}, {gid})"), format!("chown {uid}:{gid} …"));
    let (owner, group) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
    step(DAY, describe, || chownat(tree, "", Some(owner), Some(group), AtFlags::EMPTY_PATH))
}

/// Parent: makes the pipes that are the standard streams over to root inside, who can then make them
/// over to the command's user. The child cannot: they are of somebody whom it does not know.
pub fn make_streams_over(container: &Container, users: &UserNamespace) {
    let root = (Uid::from_raw(users.uids.outside), Gid::from_raw(users.gids.outside));
    make_over_before(&container.parts.stdio, root);
}

// ANCHOR: write_maps
/// Parent: says who `child` is. Once, for each of the two files can be written once; and in one write.
/// As root of the host the parent may name any ids. (user_namespaces(7), "Defining user and group ID
/// mappings")
pub fn write_maps(child: Pid, users: &UserNamespace) -> Result<()> {
    // ANCHOR: day17_task3_write_maps_solution
    for (name, ids) in [("gid_map", &users.gids), ("uid_map", &users.uids)] {
        let (file, line) = (format!("/proc/{child}/{name}"), ids.line());
        let describe = || (format!("write \"{line}\" > {file}"), format!("echo {line} > {file}"));
        step(DAY, describe, || files::write(&file, &line))?;
    }
    Ok(())
    // ANCHOR_END: day17_task3_write_maps_solution
}
// ANCHOR_END: write_maps

/// Parent: what the kernel asks root of the host for, and not the root of any namespace.
pub fn give_what_root_inside_cannot_take(child: Pid, plan: &Plan) -> Result<()> {
    ulimit::raise(child, &plan.privileges.ulimits)?;
    let Some(value) = plan.privileges.oom_score_adj else { return Ok(()) };
    let file = format!("/proc/{child}/oom_score_adj");
    let describe = || (format!("write {value} > {file}"), format!("echo {value} > {file}"));
    step(DAY, describe, || files::write(&file, &value.to_string()))
        .with_context(|| format!("--oom-score-adj {value}"))
}

/// The user namespace of `child`.
pub fn open_namespace(child: Pid) -> Result<File> {
    let path = format!("/proc/{child}/ns/user");
    step(DAY, || (format!("open({path:?})"), format!("exec 3<{path}")), || File::open(&path))
}

// ANCHOR: map_mounts
/// Parent: has the files of `mounts`, which are attached nowhere yet, be the container's. The child has
/// the same mounts open, and attaches them afterwards.
pub fn map_mounts(mounts: &mut Vec<OwnedFd>, users: &UserNamespace, namespace: &File) -> Result<()> {
    // ANCHOR: day17_task4_map_mounts_solution
    mounts.drain(..).try_for_each(|mount| match map_mount(&mount, namespace) {
        Err(error) if error.downcast_ref::<CannotBeMapped>().is_some() && is_file(&mount)? => {
            make_over_to(&mount, users)
        }
        mapped => mapped,
    })
    // ANCHOR_END: day17_task4_map_mounts_solution
}
// ANCHOR_END: map_mounts

/// Why a mount stays whoever's it is.
#[derive(Debug, thiserror::Error)]
#[error(
    "the file system that it lies on cannot show its files as somebody else's; expected ext4, xfs or btrfs, or \
     tmpfs from Linux 6.3 on: for --root DIR, --rootfs DIR and --layer DIR"
)]
pub struct CannotBeMapped;

/// One of them.
pub fn map_mount(mount: &OwnedFd, namespace: &File) -> Result<()> {
    let describe = || {
        let by_hand = "mount -o bind,X-mount.idmap=/proc/PID/ns/user …";
        ("mount_setattr(…, MOUNT_ATTR_IDMAP, its user namespace)".into(), by_hand.into())
    };
    step(DAY, describe, || kernel::map_ids_of_mount(mount.as_fd(), namespace.as_fd())).map_err(|error| {
        match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error) {
            Some(libc::EINVAL) => error.context(CannotBeMapped),
            _ => error,
        }
    })
}

/// One of those that the runtime itself has made for the container, in /etc.
fn is_file(mount: &OwnedFd) -> Result<bool> {
    let found = statat(mount, "", AtFlags::EMPTY_PATH).context("look at a mount")?;
    Ok(FileType::from_raw_mode(found.st_mode) == FileType::RegularFile)
}

// ANCHOR: become_root
/// Child, first of all. By now its maps are there, but it is still nobody: who it was on the host is not
/// in them. All that it makes would be nobody's, and the kernel refuses to make it (EOVERFLOW).
pub fn become_root(container: &mut Container) -> Result<()> {
    // ANCHOR: day17_task3_become_root_solution
    container.parts.unmapped.clear();
    become_root_inside()?;
    receive_root(&mut container.parts)
    // ANCHOR_END: day17_task3_become_root_solution
}
// ANCHOR_END: become_root

/// Takes the root that somebody else has made, if it is to be so.
fn receive_root(parts: &mut Parts) -> Result<()> {
    let Some(socket) = parts.root_comes.take() else { return Ok(()) };
    let root = rights::receive(&socket).context("receive the root")?.pop();
    parts.root = Some(root.context("nobody has made its root")?);
    Ok(())
}
