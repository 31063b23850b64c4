//! Day 11: what a container sees besides its layers: directories and files of the host,
//! volumes, and memory. All of it is opened here, while there are paths to it, and attached
//! by day 3 once the container's root is `/`.

use std::ffi::{OsStr, OsString};
use std::fs::DirBuilder;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use anyhow::{Context, bail};
use nix::unistd::Pid;
use rustix::fs::{AtFlags, FileType, statat};

use crate::container::{Container, Fill, Mechanism, Mount};
use crate::error::Result;
use crate::explain::{shell, step};
use crate::layers::first_use;
use crate::layers::mount_flag::{Asked, mount_flag, tmpfs_flag, volume_flag, word};
use crate::layers::volume_store::{DATA, Held, InUse, Store};
use crate::metadata::layout::root_of;
use crate::metadata::state::State;
use crate::plan::{MountKind, MountPoint};
use crate::rootfs::mount::{Flags, HARMLESS, make, take};

const DAY: u8 = 11;

/// The flags of day 11 that say what is mounted.
#[derive(Debug, clap::Args)]
pub struct Volumes {
    /// Mount a directory or a file of the host, or a volume
    #[arg(short = 'v', long = "volume", value_name = "[SOURCE:]TARGET[:OPTIONS]")]
    volumes: Vec<OsString>,

    /// Mount something: type=bind|volume|tmpfs,source=…,target=…[,readonly]
    #[arg(long = "mount", value_name = "KEY=VALUE,…")]
    mounts: Vec<OsString>,

    /// Mount memory, with options such as size=64m,mode=1777
    #[arg(long = "tmpfs", value_name = "TARGET[:OPTIONS]")]
    tmpfs: Vec<OsString>,

    /// All volumes, once it has any.
    #[arg(skip)]
    store: Option<Store>,

    /// Its volumes. Nobody removes them while they are here.
    #[arg(skip)]
    held: Vec<Held>,
}

// ANCHOR: volumes
impl Mechanism for Volumes {
    fn prepare(&mut self, container: &mut Container) -> Result<()> {
        for Asked { point, make_source } in self.asked()? {
            if let Some(source) = point.source.as_deref().filter(|_| make_source) {
                make_on_host(source)?;
            }
            // What a flag says takes the place of what an image says.
            container.plan.mounts.retain(|other| other.target != point.target);
            container.plan.mounts.push(point);
        }
        if container.parts.only_made {
            return Ok(());
        }
        let Container { plan, parts, .. } = container;
        let Some(dir) = parts.dir.as_deref().filter(|_| !plan.mounts.is_empty()) else { return Ok(()) };
        if !plan.has_own_root() {
            bail!("-v, --mount and --tmpfs are for a container with its own /: add --rootfs or --layer");
        }
        let mut mounts = Vec::new();
        let store = self.store.insert(Store::open(State::at(root_of(dir)?.to_owned()))?);
        for point in &mut plan.mounts {
            if point.kind == MountKind::Volume {
                self.held.push(hold(store, point)?);
            }
            let now_at = self.held.last().map(|held| held.volume.dir.join(DATA));
            let now_at = now_at.filter(|_| point.kind == MountKind::Volume).or(point.source.clone());
            mounts.push(open(point, now_at.as_deref())?);
        }
        // In front: of two mounts of one target the first counts, and a user may have a /etc/hosts.
        parts.mounts.splice(0..0, mounts);
        Ok(())
    }

    // The record has its volumes by now: whoever finds them finds who has them.
    fn attach(&mut self, _container: &mut Container, _child: Pid) -> Result<()> {
        let Some(store) = &self.store else { return Ok(()) };
        for held in std::mem::take(&mut self.held) {
            let made_for_this = held.is_aside();
            let held = if made_for_this { held.publish(store)? } else { Some(held) };
            self.held.push(held.context("a volume without a name was removed by another process")?);
        }
        Ok(())
    }

    fn cleanup(&mut self, container: &mut Container) -> Result<()> {
        let (plan, id) = (&container.plan, container.parts.id.as_deref());
        let goes = match container.end.exit {
            Some(_) => plan.auto_remove,
            None => !container.end.kept,
        };
        for held in self.held.drain(..).filter(|held| goes || held.is_aside()) {
            let its_own =
                |point: &MountPoint| point.anonymous && point.name.as_ref() == Some(&held.volume.name);
            match &self.store {
                _ if held.is_aside() => held.discard()?,
                Some(store) if plan.mounts.iter().any(its_own) => remove_with_container(store, held, id)?,
                _ => {}
            }
        }
        Ok(())
    }
}
// ANCHOR_END: volumes

impl Volumes {
    /// What the flags ask for. Two mounts cannot have one target.
    fn asked(&self) -> Result<Vec<Asked>> {
        type Read = fn(&OsStr) -> Result<Asked>;
        let flags: [(&str, &[OsString], Read); 3] = [
            ("-v", &self.volumes, volume_flag),
            ("--mount", &self.mounts, mount_flag),
            ("--tmpfs", &self.tmpfs, tmpfs_flag),
        ];
        let mut all: Vec<Asked> = Vec::new();
        for (name, words, read) in flags {
            for flag in words {
                let asked = read(flag).with_context(|| format!("{name} {flag:?}"))?;
                let target = &asked.point.target;
                if all.iter().any(|other| other.point.target == *target) {
                    bail!("{name} {flag:?}: {target:?} has a mount already; expected another target");
                }
                all.push(asked);
            }
        }
        Ok(all)
    }
}

/// The volume that `point` means: the one of that name, or a new one.
fn hold(store: &Store, point: &mut MountPoint) -> Result<Held> {
    let held = match &point.name {
        Some(name) => store.hold(name)?,
        None => store.make_anonymous()?,
    };
    point.anonymous |= point.name.is_none();
    point.source = Some(store.path(&held.volume.name).join(DATA));
    point.name = Some(held.volume.name.clone());
    Ok(held)
}

/// Removes a volume that was made for the container `id`, unless others have begun to use it.
fn remove_with_container(store: &Store, held: Held, id: Option<&str>) -> Result<()> {
    match store.remove_unused(held, id) {
        Err(error) if error.downcast_ref::<InUse>().is_none() => Err(error),
        _ => Ok(()),
    }
}

/// Docker makes a directory where `-v` finds nothing on the host.
fn make_on_host(source: &Path) -> Result<()> {
    if source.symlink_metadata().is_ok() {
        return Ok(());
    }
    let describe = || (format!("mkdir({source:?}, 0o755)"), format!("mkdir -p {}", shell(source)));
    step(DAY, describe, || DirBuilder::new().recursive(true).mode(0o755).create(source))
        .context("the host has nothing at the source of -v")
}

// ANCHOR: open_mount
/// What `point` shows, as a mount that is attached nowhere yet. `source` is the path that it
/// has on the host at this moment.
pub fn open(point: &MountPoint, source: Option<&Path>) -> Result<Mount> {
    // ANCHOR: day11_task4_open_solution
    let tree = match source {
        None => make_tmpfs(point)?,
        Some(path) => take(DAY, path).with_context(|| {
            format!("{} {path:?}: expected a file or a directory of the host", word(point.kind))
        })?,
    };
    let found = statat(&tree, "", AtFlags::EMPTY_PATH).with_context(|| format!("look at {source:?}"))?;
    let volume = source.and_then(Path::parent).filter(|_| point.kind == MountKind::Volume && !point.no_copy);
    let fill = volume.map(|volume| anyhow::Ok(Fill { volume: take(DAY, volume)?, by: first_use::fill }));
    Ok(Mount {
        tree,
        target: point.target.clone(),
        is_dir: FileType::from_raw_mode(found.st_mode) == FileType::Directory,
        read_only: point.read_only,
        fill: fill.transpose()?,
    })
    // ANCHOR_END: day11_task4_open_solution
}
// ANCHOR_END: open_mount

/// Memory, with Docker's defaults: no set-user-ID programs, no devices, no programs at all.
fn make_tmpfs(point: &MountPoint) -> Result<OwnedFd> {
    let (mut flags, mut options) = (HARMLESS, Vec::new());
    for word in point.options.split(',') {
        match word {
            "suid" => flags.remove(Flags::MOUNT_ATTR_NOSUID),
            "dev" => flags.remove(Flags::MOUNT_ATTR_NODEV),
            "exec" => flags.remove(Flags::MOUNT_ATTR_NOEXEC),
            "nosuid" => flags |= Flags::MOUNT_ATTR_NOSUID,
            "nodev" => flags |= Flags::MOUNT_ATTR_NODEV,
            "noexec" => flags |= Flags::MOUNT_ATTR_NOEXEC,
            "noatime" => flags |= Flags::MOUNT_ATTR_NOATIME,
            "ro" | "rw" | "" => {}
            option => options.push(option),
        }
    }
    let options = options.join(",");
    let describe = || {
        let with = if point.options.is_empty() { String::new() } else { format!("-o {} ", point.options) };
        let set = if options.is_empty() { String::new() } else { format!("fsconfig({options:?}), ") };
        let by_hand = format!("mount -t tmpfs {with}tmpfs {}", shell(&point.target));
        (format!("fsopen(\"tmpfs\"), {set}fsmount"), by_hand)
    };
    step(DAY, describe, || make("tmpfs", flags, &options)).context(
        "expected options of tmpfs, such as size=64m,mode=1777,nr_inodes=1000,uid=0,gid=0, or exec, suid, dev, ro",
    )
}
