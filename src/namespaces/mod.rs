//! Day 2: namespaces. *Can I run that command inside new Linux namespaces?*
//!
//! A namespace gives a process its own view of one kind of thing: host name
//! (uts), process ids (pid), mounts (mnt), System V and POSIX message queues
//! (ipc). The child is born into new ones, by flags of clone3. (namespaces(7))

pub mod mount;

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::mount::MsFlags;
use nix::sched::CloneFlags;
use nix::unistd::{geteuid, sethostname};
use rustix::thread::{CapabilitySet, capabilities};

use crate::container::{Container, Mechanism};
use crate::error::Result;
use crate::explain::{shell, step};

use self::mount::{HARMLESS, mount};

const DAY: u8 = 2;

/// The host name of a container that asks for none.
const DEFAULT_HOSTNAME: &str = "tiny-container";

/// The flags of day 2.
#[derive(Debug, clap::Args)]
pub struct Namespaces {
    /// The container's own host name
    #[arg(long, value_name = "NAME", default_value = DEFAULT_HOSTNAME)]
    hostname: String,
}

// ANCHOR: mechanism
impl Mechanism for Namespaces {
    fn prepare(&mut self, container: &mut Container) -> Result<()> {
        // ANCHOR: day2_task1_prepare_solution
        check_hostname(&self.hostname)?;
        require_sys_admin()?;
        container.plan.hostname = Some(self.hostname.clone());
        container.plan.namespaces |= CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWIPC;
        Ok(())
        // ANCHOR_END: day2_task1_prepare_solution
    }

    fn enter(&mut self, container: &mut Container) -> Result<()> {
        // First of all: the new mount namespace is a copy of the host's, and
        // without this the next mount would appear on the host as well.
        make_mounts_private().map_err(not_in_a_plain_directory)?;
        set_hostname(&self.hostname)?;
        // On a root file system of its own, day 3 mounts /proc there.
        if !container.plan.has_own_root() {
            mount_proc()?;
        }
        Ok(())
    }
}
// ANCHOR_END: mechanism

// ANCHOR: private
/// Cuts the tie between the mounts of this namespace and those of the host.
///
/// systemd makes every mount of a host shared, and a copy of a shared mount is
/// its peer: what is mounted under one appears under the other.
/// (mount_namespaces(7), "Shared subtrees")
pub fn make_mounts_private() -> Result<()> {
    // ANCHOR: day2_task3_make_mounts_private_solution
    let describe =
        || (r#"mount("", "/", "", MS_REC|MS_PRIVATE, "")"#.into(), "mount --make-rprivate /".into());
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    step(DAY, describe, || nix::mount::mount(None::<&str>, "/", None::<&str>, flags, None::<&str>))
    // ANCHOR_END: day2_task3_make_mounts_private_solution
}
// ANCHOR_END: private

/// `/` is a mount point, except for a process that lives in a chroot: there it may be any
/// directory, and mount(2) says EINVAL ("target is not a mount point").
fn not_in_a_plain_directory(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref() {
        Some(Errno::EINVAL) => error.context(
            "/ is not a mount point here, so this seems to be a chroot into a plain directory; make that \
             one before the chroot (mount --bind DIR DIR), or run outside of it",
        ),
        _ => error,
    }
}

// ANCHOR: hostname
/// Sets the host name of this uts namespace. (sethostname(2))
pub fn set_hostname(name: &str) -> Result<()> {
    // ANCHOR: day2_task2_set_hostname_solution
    step(
        DAY,
        || (format!("sethostname({name:?})"), format!("hostname {}", shell(name))),
        || sethostname(name),
    )
    // ANCHOR_END: day2_task2_set_hostname_solution
}
// ANCHOR_END: hostname

// ANCHOR: proc
/// Mounts the /proc of this pid namespace. The one that was there shows the
/// processes of the namespace it was mounted in: the host's. (proc(5))
pub fn mount_proc() -> Result<()> {
    // ANCHOR: day2_task4_mount_proc_solution
    mount(DAY, "proc", "/proc", HARMLESS, "")
    // ANCHOR_END: day2_task4_mount_proc_solution
}
// ANCHOR_END: proc

/// The kernel takes any bytes. Names that other programs choke on are refused,
/// as is a name longer than the kernel's 64 bytes. (sethostname(2), HOST_NAME_MAX)
fn check_hostname(name: &str) -> Result<()> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if name.is_empty() || name.len() > 64 || !name.chars().all(fine) {
        bail!("--hostname {name:?}: expected 1 to 64 letters, digits, '-', '.' or '_', such as web-1");
    }
    Ok(())
}

/// Says what is missing before the kernel says no more than EPERM.
/// (capabilities(7))
fn require_sys_admin() -> Result<()> {
    let have = capabilities(None).context("capget")?.effective;
    if !have.contains(CapabilitySet::SYS_ADMIN) {
        bail!(
            "new namespaces need the capability CAP_SYS_ADMIN, which this process (user id {}) does not have; \
             run it with sudo, or in the lab's virtual machine (make vm-shell)",
            geteuid()
        );
    }
    Ok(())
}
