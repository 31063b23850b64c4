//! Day 18: namespaces, new ones and those that are there. (namespaces(7), setns(2))
//!
//! What is new is a flag of clone3, as since day 2. What is there, a pod's network above all, is joined
//! first, by a go-between, whose child is then born in it, as with `exec` on day 14: whoever joins a pid or a
//! time namespace is not in it, only its children are.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::set_dumpable;
use nix::unistd::{Pid, pipe2};

use crate::capabilities::sysctl;
use crate::clone::options;
use crate::container::{Container, Shared};
use crate::error::Result;
use crate::exec::join::through_a_go_between;
use crate::explain::step;
use crate::files;
use crate::inherited;
use crate::kernel::{self, Clone};
use crate::userns::birth;
use crate::wait::Child;

use super::DAY;
use super::spec::linux::{IdMapping, Linux, Namespace};

/// nix does not have it. (clone(2))
pub const CLONE_NEWTIME: CloneFlags = CloneFlags::from_bits_retain(0x80);

/// The specification's names.
pub const KINDS: [(&str, CloneFlags); 8] = [
    ("cgroup", CloneFlags::CLONE_NEWCGROUP),
    ("ipc", CloneFlags::CLONE_NEWIPC),
    ("mount", CloneFlags::CLONE_NEWNS),
    ("network", CloneFlags::CLONE_NEWNET),
    ("pid", CloneFlags::CLONE_NEWPID),
    ("time", CLONE_NEWTIME),
    ("user", CloneFlags::CLONE_NEWUSER),
    ("uts", CloneFlags::CLONE_NEWUTS),
];

/// Which namespaces a container has.
#[derive(Debug, Clone, Copy)]
pub struct Its {
    /// Those that are made for it.
    pub new: CloneFlags,
    /// All that are not the runtime's.
    pub own: CloneFlags,
}

// ANCHOR: fill
/// Parent: says in `container` which namespaces it is born into.
pub fn fill(container: &mut Container, linux: &Linux) -> Result<Its> {
    // ANCHOR: day18_task2_fill_solution
    let (mut new, mut own, mut there) = (CloneFlags::empty(), CloneFlags::empty(), Vec::new());
    for namespace in &linux.namespaces {
        let flag = kind(namespace)?;
        if own.contains(flag) {
            bail!("linux.namespaces has two of the type {:?}; expected one", namespace.kind);
        }
        own |= flag;
        match namespace.path.as_deref().filter(|path| !path.as_os_str().is_empty()) {
            None => new |= flag,
            Some(path) => match open_namespace(path, flag)? {
                Some(file) => there.push((flag, file)),
                None => own -= flag,
            },
        }
    }
    let clocks = clocks(linux, new)?;
    // The cgroup namespace later: its root is the cgroup of whoever makes it, who is in it by then.
    let at_birth = new.difference(CloneFlags::CLONE_NEWCGROUP | CLONE_NEWTIME);
    container.plan.namespaces = at_birth;
    if !there.is_empty() || clocks.is_some() {
        // The user namespace last: what is the host's can only be joined by the host's root.
        there.sort_by_key(|(flag, _)| *flag == CloneFlags::CLONE_NEWUSER);
        let oom_score_adj = container.plan.privileges.oom_score_adj;
        container.parts.shared = Some(Shared { namespaces: there, clocks, by: clone_into, oom_score_adj });
    }
    Ok(Its { new, own })
    // ANCHOR_END: day18_task2_fill_solution
}
// ANCHOR_END: fill

fn kind(namespace: &Namespace) -> Result<CloneFlags> {
    let found = KINDS.iter().find(|(name, _)| *name == namespace.kind);
    let Some((name, flag)) = found else {
        bail!(
            "linux.namespaces: there is no type {:?}; expected {:?}",
            namespace.kind,
            KINDS.map(|(name, _)| name)
        );
    };
    if fs::metadata(runtimes_own(*flag)).is_err() {
        bail!("linux.namespaces: this kernel has no {name} namespaces; omit it");
    }
    Ok(*flag)
}

/// The specification's name of a kind.
fn name_of(flag: CloneFlags) -> &'static str {
    KINDS.iter().find(|(_, other)| *other == flag).map_or("", |(name, _)| *name)
}

/// Where the kernel has that of this process.
fn runtimes_own(flag: CloneFlags) -> String {
    let name = match name_of(flag) {
        "network" => "net",
        "mount" => "mnt",
        name => name,
    };
    format!("/proc/self/ns/{name}")
}

/// The namespace at `path`; `None`: it is the one that this process is in. What is at a path is somebody's
/// word: something else than a namespace of this type would leave the container in the runtime's.
/// (ioctl_ns(2), NS_GET_NSTYPE)
fn open_namespace(path: &Path, flag: CloneFlags) -> Result<Option<OwnedFd>> {
    // A FIFO is not waited for.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = opened.with_context(|| format!("open the namespace {path:?}"))?;
    if kernel::kind_of_namespace(file.as_fd()).ok() != Some(flag.bits()) {
        bail!(
            "linux.namespaces: {path:?} is no namespace of the type {}; expected one, such as /proc/PID/ns/…",
            name_of(flag)
        );
    }
    let (found, own) = (file.metadata()?, fs::metadata(runtimes_own(flag))?);
    let is_own = (found.dev(), found.ino()) == (own.dev(), own.ino());
    Ok((!is_own).then(|| file.into()))
}

/// `monotonic 10 0`, as the kernel takes it; `None`: no new clocks. (time_namespaces(7))
fn clocks(linux: &Linux, new: CloneFlags) -> Result<Option<String>> {
    let offsets = linux.time_offsets.iter().flatten();
    let lines: String =
        offsets.map(|(clock, offset)| format!("{clock} {} {}\n", offset.secs, offset.nanosecs)).collect();
    if !lines.is_empty() && !new.contains(CLONE_NEWTIME) {
        bail!("linux.timeOffsets needs a new namespace of the type time");
    }
    Ok(new.contains(CLONE_NEWTIME).then_some(lines))
}

/// The kernel parameters of a bundle, each in a namespace of its own: elsewhere they are the machine's.
pub fn sysctls(linux: &Linux, its: Its) -> Result<BTreeMap<String, String>> {
    let texts: Vec<String> =
        linux.sysctl.iter().flatten().map(|(name, value)| format!("{name}={value}")).collect();
    let sysctls = sysctl::parse(&texts).context("linux.sysctl")?;
    let its = |flag| its.own.contains(flag);
    for name in sysctls.keys() {
        let own = match name.as_str() {
            name if name.starts_with("net.") => its(CloneFlags::CLONE_NEWNET),
            "kernel.hostname" => {
                bail!("linux.sysctl: kernel.hostname is what hostname says; expected that")
            }
            "kernel.domainname" => its(CloneFlags::CLONE_NEWUTS),
            name if name.starts_with("user.") => its(CloneFlags::CLONE_NEWUSER),
            name if name.starts_with("fs.mqueue.") || sysctl::is_of_ipc(name) => {
                its(CloneFlags::CLONE_NEWIPC)
            }
            _ => false,
        };
        if !own {
            bail!(
                "linux.sysctl: {name} is not in a namespace of the container's own; setting it would set it for the whole machine"
            );
        }
    }
    Ok(sysctls)
}

/// Whether a bundle has a new namespace of this kind.
pub fn are_new(linux: &Linux, kind: &str) -> bool {
    let is_new = |path: &Option<PathBuf>| path.as_ref().is_none_or(|path| path.as_os_str().is_empty());
    linux.namespaces.iter().any(|one| one.kind == kind && is_new(&one.path))
}

// ANCHOR: clone_into
/// Makes a child of this process in the namespaces of `shared`, and in new ones.
fn clone_into(shared: &Shared, new: CloneFlags, cgroup: Option<&OwnedFd>) -> Result<Clone> {
    through_a_go_between(DAY, &|| go_between(shared, new, cgroup))
}
// ANCHOR_END: clone_into

// ANCHOR: go_between
fn go_between(shared: &Shared, new: CloneFlags, cgroup: Option<&OwnedFd>) -> Result<Clone> {
    // ANCHOR: day18_task2_go_between_solution
    // While there is still the host's /proc to do it with.
    inherited::start_afresh()?;
    shared.oom_score_adj.map_or(Ok(()), inherited::set_oom_score_adj)?;
    if let Some(clocks) = &shared.clocks {
        let describe = || ("unshare(CLONE_NEWTIME)".into(), "unshare --time".into());
        step(DAY, describe, || unshare(CLONE_NEWTIME))?;
        let describe =
            || (format!("write {clocks:?} > /proc/self/timens_offsets"), "unshare --monotonic …".into());
        if !clocks.is_empty() {
            step(DAY, describe, || files::write("/proc/self/timens_offsets", clocks))?;
        }
    }
    if shared.namespaces.iter().any(|(flag, _)| *flag == CloneFlags::CLONE_NEWPID) {
        // As with `exec`: whoever is in there sees the child, which has open files of the host's until it is the
        // command. (CVE-2016-9962)
        let describe = || ("prctl(PR_SET_DUMPABLE, 0)".into(), "no shell can do that".into());
        step(DAY, describe, || set_dumpable(false))?;
    }
    for (flag, namespace) in &shared.namespaces {
        let describe = || {
            let name = flag.iter_names().map(|(name, _)| name).next().unwrap_or("CLONE_NEWTIME");
            (format!("setns(…, {name})"), format!("nsenter{}=… …", options(*flag)))
        };
        step(DAY, describe, || setns(namespace, *flag))?;
    }
    // Not yet root of another user namespace, which may put nobody into a cgroup of the host's.
    let describe = || ("clone3(CLONE_PARENT | …)".into(), "nsenter forks as well: --fork".into());
    let flags = new | CloneFlags::CLONE_PARENT;
    // SAFETY: this process has one thread.
    step(DAY, describe, || unsafe { kernel::clone3(flags, cgroup.map(AsFd::as_fd)) })
    // ANCHOR_END: day18_task2_go_between_solution
}
// ANCHOR_END: go_between

/// Whose its ids are.
#[derive(Debug, Clone)]
pub struct Users {
    /// Of its users.
    pub uids: Vec<IdMapping>,
    /// Of its groups.
    pub gids: Vec<IdMapping>,
}

impl Users {
    /// Those of a new user namespace; `None`: it has none that is new.
    pub fn of(linux: &Linux, its: Its) -> Result<Option<Users>> {
        if !its.new.contains(CloneFlags::CLONE_NEWUSER) {
            if !linux.uid_mappings.is_empty() && !its.own.contains(CloneFlags::CLONE_NEWUSER) {
                bail!("linux.uidMappings needs a namespace of the type user");
            }
            return Ok(None);
        }
        let users = Users { uids: linux.uid_mappings.clone(), gids: linux.gid_mappings.clone() };
        let has_root = |ids: &[IdMapping]| ids.iter().any(|ids| ids.container_id == 0 && ids.size > 0);
        if !has_root(&users.uids) || !has_root(&users.gids) {
            bail!(
                "linux.uidMappings, linux.gidMappings: expected that each has an id 0, for root makes the container"
            );
        }
        Ok(Some(users))
    }

    /// Parent: says who `child` is. (user_namespaces(7))
    pub fn write(&self, child: Pid) -> Result<()> {
        for (name, ids) in [("gid_map", &self.gids), ("uid_map", &self.uids)] {
            let (file, lines) = (format!("/proc/{child}/{name}"), lines(ids));
            let describe = || (format!("write {lines:?} > {file}"), format!("echo … > {file}"));
            step(DAY, describe, || files::write(&file, &lines))?;
        }
        Ok(())
    }

    /// A user namespace of these ids, which nobody is in.
    pub fn namespace(&self) -> Result<File> {
        let (held, hold) = pipe2(OFlag::O_CLOEXEC).context("make a pipe")?;
        // SAFETY: this process has one thread.
        match unsafe { kernel::clone3(CloneFlags::CLONE_NEWUSER, None) }.context("clone3(CLONE_NEWUSER)")? {
            Clone::Child => {
                drop(hold);
                // Until the other end is closed.
                let _ = nix::unistd::read(&held, &mut [0]);
                kernel::exit_now(0)
            }
            Clone::Parent(pid, pidfd) => {
                let _child = Child::new(pid, pidfd);
                self.write(pid)?;
                birth::open_namespace(pid)
            }
        }
    }
}

fn lines(ids: &[IdMapping]) -> String {
    ids.iter().map(|ids| format!("{} {} {}\n", ids.container_id, ids.host_id, ids.size)).collect()
}
