//! Day 11: a child whose `/` is a container's. What is done to a container's files is done in
//! there, where a link leads to the container's own files or nowhere. Resolved from the host
//! instead, a path that was checked could be a link to /etc when it is opened. (CVE-2018-15664)

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::{set_dumpable, set_pdeathsig};
use nix::sys::signal::Signal;
use nix::unistd::{getppid, pipe2};

use crate::container::{Container, Mechanism, Mount};
use crate::error::Result;
use crate::explain::{self, step};
use crate::identity::join_users;
use crate::ids;
use crate::kernel::{self, Clone};
use crate::layers::{overlay, volume};
use crate::metadata::owner::Owner;
use crate::metadata::pidfd::Process;
use crate::metadata::record::{Record, Status};
use crate::metadata::state::State;
use crate::namespaces;
use crate::plan::MountKind;
use crate::rootfs::{Rootfs, devices, mount::take};
use crate::wait::{A_MOMENT, Child, PATIENCE, signal_name};

const DAY: u8 = 11;

/// Where a container's files are.
#[derive(Debug)]
pub enum Place {
    /// In these namespaces of its process. They stay while they are open, whatever becomes of the
    /// container.
    Running {
        /// Its mounts.
        mounts: OwnedFd,
        /// Its users, if they are not the host's. (day 17)
        users: Option<OwnedFd>,
    },
    /// On the disk. While this value lives, nobody else may remove it or use its layer.
    Ended(Box<Record>, Owner),
}

/// Memory that an ended container no longer has. What is made anew in its place while files are
/// copied is gone when that is done.
const MEMORY: [&str; 3] = ["/dev", "/dev/shm", "/proc"];

/// How much of its error a child says, in bytes: a container chooses how long its paths are, and
/// nobody reads before the child has ended. So it must fit into the pipe. (pipe(7), "Pipe capacity")
const MOST_WORDS: usize = 16 << 10;

/// A child at work in there.
pub struct Inside {
    child: Child,
    words: File,
}

// ANCHOR: place
impl Place {
    /// Where the files of the container `word` are.
    pub fn of(state: &State, word: &str) -> Result<Place> {
        let since = Instant::now();
        loop {
            let record = state.settle(state.find(word)?)?;
            let title = record.title();
            if let Some(why) = &record.unreadable {
                bail!("container {title} cannot be read, so nobody can tell where its files are: {why}");
            }
            if !record.plan.has_own_root() {
                bail!(
                    "container {title} has the host's own /, and no other; its files are the host's: use cp, \
                     without tiny-docker"
                );
            }
            match record.process()? {
                // Until its exec it is the runtime, on its way from the host's / to its own.
                Some(process) if process.has_become_the_command()? => {
                    if let Some(place) = running(&record, &process)? {
                        return Ok(place);
                    }
                }
                Some(_) => {}
                None if record.status == Status::Exited || record.is_only_made() => {
                    match state.try_own(&record.id)? {
                        Some(owner) => return Ok(Place::Ended(Box::new(record), owner)),
                        None => record.is_visible()?,
                    }
                }
                None => record.is_visible()?,
            }
            if since.elapsed() > PATIENCE {
                let seconds = PATIENCE.as_secs();
                bail!(
                    "container {title} is in the hands of another process, which starts it, removes it or \
                     copies its files, and still is after {seconds} s; try again"
                );
            }
            std::thread::sleep(A_MOMENT);
        }
    }

    /// In the child: the mounts, by device, in which nothing that is written is kept.
    pub fn memory(&self) -> Vec<u64> {
        let Place::Ended(record, _) = self else { return vec![] };
        let mounts = record.plan.mounts.iter().filter(|point| point.kind == MountKind::Tmpfs);
        let targets = mounts.map(|point| point.target.as_path()).chain(MEMORY.map(Path::new));
        targets.filter_map(|target| fs::metadata(target).ok()).map(|found| found.dev()).collect()
    }
}
// ANCHOR_END: place

/// The files of a container that runs; `None`: it has ended.
fn running(record: &Record, process: &Process) -> Result<Option<Place>> {
    let has_own = record.plan.user_namespace.is_some();
    let users = if has_own { namespace_of(process, "user")? } else { None };
    // As root of the host nobody writes in there.
    if has_own && users.is_none() {
        return Ok(None);
    }
    Ok(namespace_of(process, "mnt")?.map(|mounts| Place::Running { mounts, users }))
}

/// A namespace of a container's process; `None`: it has ended. (namespaces(7))
fn namespace_of(process: &Process, kind: &str) -> Result<Option<OwnedFd>> {
    let file = format!("/proc/{}/ns/{kind}", process.pid);
    match File::open(&file) {
        // A process that is about to end lets go of it a moment before.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        // If it runs at this moment, that number has meant it all the time.
        _ if process.has_ended(Some(Duration::ZERO))? => Ok(None),
        opened => Ok(Some(opened.with_context(|| format!("open {file}"))?.into())),
    }
}

// ANCHOR: begin
impl Inside {
    /// Has a child do `work` where its `/` is the container's.
    ///
    /// `work` must not load anything from there, as the C library does to look up a user's
    /// name: it would be the container's code, run with all rights on the host.
    /// (CVE-2019-14271)
    pub fn begin(place: &Place, work: impl FnOnce() -> Result<()>) -> Result<Inside> {
        // What is opened on the host is opened before there is a child.
        let mut container = match place {
            Place::Running { .. } => None,
            Place::Ended(record, owner) => Some(prepare(record, owner)?),
        };
        let (words, mut say) = pipe2(OFlag::O_CLOEXEC).map(|(r, w)| (File::from(r), File::from(w)))?;
        let host = fs::metadata("/").map(|found| (found.dev(), found.ino())).context("look at /")?;
        let namespaces = match place {
            Place::Running { .. } => CloneFlags::empty(),
            // With a /proc of its own, in which nothing of the host is.
            Place::Ended(..) => CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC,
        };
        let parent = std::process::id();
        let describe = || ("clone3(the child that goes in)".into(), "unshare --mount --pid --fork".into());
        // SAFETY: this process has one thread.
        match step(DAY, describe, || unsafe { kernel::clone3(namespaces, None) })? {
            Clone::Parent(pid, pidfd) => Ok(Inside { child: Child::new(pid, pidfd), words }),
            Clone::Child => {
                drop(words);
                explain::in_child();
                let outcome = become_its_root(place)
                    .and_then(|()| dies_with(parent, &namespaces))
                    .and_then(|()| go_in(place, container.as_mut(), host))
                    .and_then(|()| work());
                if let Err(error) = &outcome {
                    let words = format!("{error:#}").into_bytes();
                    let _ = say.write_all(&words[..words.len().min(MOST_WORDS)]);
                }
                kernel::exit_now(u8::from(outcome.is_err()))
            }
        }
    }

    /// Waits for the end of its work: an error if it failed, with its own words.
    pub fn end(mut self) -> Result<()> {
        let mut words = Vec::new();
        self.words.read_to_end(&mut words).context("read what the child in the container says")?;
        match self.child.reap_soon()? {
            Some(status) if status.success() => Ok(()),
            Some(status) => match status.signal() {
                Some(signal) => bail!("the child in the container was killed by {}", signal_name(signal)),
                None => bail!("{}", String::from_utf8_lossy(&words)),
            },
            None => bail!("the child in the container does not end"),
        }
    }
}
// ANCHOR_END: begin

/// What the container's root is made of, once more: as its `run` did.
fn prepare(record: &Record, owner: &Owner) -> Result<Container> {
    overlay::refuse_shifted(&owner.dir)?;
    let mut container = Container::new(record.plan.clone());
    container.parts.id = Some(record.id.clone());
    container.parts.dir =
        Some(fs::canonicalize(&owner.dir).with_context(|| format!("look at {:?}", owner.dir))?);
    if let Some(dir) = &record.plan.rootfs {
        container.parts.root = Some(take(DAY, dir)?);
    }
    for point in &record.plan.mounts {
        // What was mounted there may be gone from the host by now; the rest can be copied.
        if point.source.as_ref().is_none_or(|source| source.exists()) {
            let mount = volume::open(point, point.source.as_deref())?;
            container.parts.mounts.push(Mount { fill: None, ..mount });
        }
    }
    for name in ["hostname", "hosts", "resolv.conf"] {
        let path = owner.dir.join(name);
        if path.exists() {
            let target = PathBuf::from("/etc").join(name);
            let tree = take(DAY, &path)?;
            container.parts.mounts.push(Mount { tree, target, is_dir: false, read_only: false, fill: None });
        }
    }
    // Nobody makes any in a user namespace. (day 17)
    if ids::are_not_the_hosts() {
        container.parts.devices = devices::take_the_hosts()?;
    }
    Ok(container)
}

/// Joins the container's user namespace, if it has one: what is made in there is then its root's. Before
/// that, as below, nothing in the container may look into this process. (day 17)
fn become_its_root(place: &Place) -> Result<()> {
    let Place::Running { users: Some(users), .. } = place else { return Ok(()) };
    set_dumpable(false).context("prctl(PR_SET_DUMPABLE)")?;
    join_users(users)
}

/// Has the kernel kill this child when its parent dies.
pub fn dies_with(parent: u32, namespaces: &CloneFlags) -> Result<()> {
    set_pdeathsig(Signal::SIGKILL).context("prctl(PR_SET_PDEATHSIG)")?;
    // Was it too late already? (In a pid namespace of its own the parent is 0, alive or not.)
    if namespaces.is_empty() && getppid().as_raw() as u32 != parent {
        bail!("the runtime died");
    }
    Ok(())
}

// ANCHOR: go_in
/// Makes the container's `/` this process's. `host` is which directory the host's is.
fn go_in(place: &Place, container: Option<&mut Container>, host: (u64, u64)) -> Result<()> {
    // ANCHOR: day11_task5_go_in_solution
    // What is in the container cannot open this process's program or memory. (CVE-2019-5736)
    let describe = || ("prctl(PR_SET_DUMPABLE, 0)".into(), "no shell can do that".into());
    step(DAY, describe, || set_dumpable(false))?;
    match (place, container) {
        (Place::Running { mounts, .. }, _) => {
            let describe = || {
                let call = "setns(/proc/PID/ns/mnt of its process, CLONE_NEWNS)";
                (call.into(), "nsenter --target PID --mount".into())
            };
            step(DAY, describe, || setns(mounts, CloneFlags::CLONE_NEWNS))?;
        }
        (Place::Ended(..), Some(container)) => {
            namespaces::make_mounts_private()?;
            if container.parts.root.is_none() {
                let dir = container.parts.dir.clone().context("the container's directory")?;
                container.parts.root = Some(overlay::build(&container.plan.layers, &dir)?);
            }
            Rootfs::default().enter(container)?;
        }
        (Place::Ended(..), None) => bail!("nothing was prepared"),
    }
    let found = fs::metadata("/").context("look at /")?;
    if (found.dev(), found.ino()) == host {
        bail!("its / is the host's: nothing was done");
    }
    Ok(())
    // ANCHOR_END: day11_task5_go_in_solution
}
// ANCHOR_END: go_in
