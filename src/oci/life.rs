//! Day 18: the commands that make, start and end a container.

use std::path::{Path, PathBuf, absolute};

use anyhow::{Context, bail};
use jiff::Timestamp;

use crate::container::{self, Container};
use crate::error::Result;
use crate::exec::program;
use crate::kernel::send_signal;
use crate::metadata::freezer;
use crate::metadata::record::boot_id;
use crate::metadata::traces;
use crate::plan::Plan;
use crate::supervise::pause;
use crate::wait::{PATIENCE, told_to_end};

use super::bundle::{Bundle, Wishes};
use super::end::clear;
use super::spec::Spec;
use super::store::{Kept, Status, Store, Stored};
use super::{DAY, cgroup, gate, hooks, namespaces, process};

/// Makes the container `id` of a bundle, and does what `wishes` say. Returns the exit code.
pub fn make(
    store: &Store,
    id: &str,
    bundle: &Path,
    config: Option<&Path>,
    passed_files: u32,
    wishes: Wishes,
) -> Result<u8> {
    // In a pid namespace that others are in, they see this program before it is the command. (CVE-2019-5736)
    program::go_on_read_only()?;
    let bundle = absolute(bundle).context("find out where the bundle is")?;
    let (text, spec) = Spec::read(&bundle, config)?;
    let root = spec.root.as_ref().context("config.json has no root; expected one")?;
    let process = spec.process.clone().context("config.json has no process; expected one")?;
    let kept = Kept {
        id: id.into(),
        rootfs: bundle.join(&root.path),
        bundle,
        process: None,
        boot_id: boot_id()?.into(),
        created: Timestamp::now(),
        cgroup: None,
        scope: None,
        annotations: spec.annotations.clone().unwrap_or_default(),
    };
    let mut container = Container::new(Plan::nothing());
    container.parts.passed_files = passed_files + process::sockets_of_caller();
    container::close_what_is_not_passed(&container)?;
    let stored = store.create(kept, &text)?;
    let bundle = Bundle::new(stored, spec, process, wishes);
    container::run_once_more(container, &mut [Box::new(bundle)])
}

/// Starts the command of a container that waits.
pub fn start(store: &Store, id: &str) -> Result<u8> {
    let stored = store.open(id)?;
    match stored.kept.status()? {
        Status::Created if stored.kept.is_frozen() => {
            bail!("container {id} is paused; expected that it can go on: resume it first")
        }
        Status::Created => gate::open_it(&stored.dir)?,
        other => bail!("cannot start container {id}: it is {}; expected one that is created", other.word()),
    }
    let spec = stored.spec()?;
    let called =
        hooks::call(spec.hooks(|hooks| &hooks.poststart), "poststart", &stored.kept, Status::Running);
    // Then it is not to go on. (runtime.md, "Lifecycle")
    called.or_else(|error| end(&stored).and(Err(error)))?;
    Ok(0)
}

/// Sends a signal to the first process of a container, or to all of it.
pub fn kill(store: &Store, id: &str, signal: i32, all: bool) -> Result<u8> {
    let (dir, kept) = store.look(id)?;
    let process = kept.process()?;
    // Without the end of a pid namespace the others would stay.
    let has_pids = || Spec::of(&dir).is_ok_and(|spec| namespaces::are_new(&spec.linux(), "pid"));
    if all || signal == libc::SIGKILL && process.is_some() && !has_pids() {
        let cgroup = kept.cgroup.clone().filter(|cgroup| cgroup.exists());
        match (&cgroup, signal) {
            (Some(cgroup), libc::SIGKILL) if traces::kill_all_in(cgroup)? => {}
            (Some(cgroup), signal) => {
                for pid in cgroup::processes(cgroup) {
                    // One that has just ended needs none.
                    let _ = send_signal(nix::unistd::Pid::from_raw(pid), signal);
                }
            }
            (None, signal) => process.iter().try_for_each(|process| process.signal(DAY, signal))?,
        }
        return Ok(0);
    }
    let Some(process) = process else { bail!("container {id}: container not running") };
    process.signal(DAY, signal)?;
    if let Some(cgroup) =
        kept.cgroup.as_deref().filter(|cgroup| signal == libc::SIGKILL && freezer::is_frozen(cgroup))
    {
        freezer::thaw(DAY, cgroup)?;
    }
    Ok(0)
}

/// Removes a container; with `force` also one that runs, and none at all.
pub fn delete(store: &Store, id: &str, force: bool) -> Result<u8> {
    if force && !store.has(id) {
        return Ok(0);
    }
    store.forget_what_is_half_made(id)?;
    if force && let Ok((_, kept)) = store.look(id) {
        // Whoever still makes it has the lock up to its end.
        kept.process()?.map_or(Ok(()), |process| process.signal(DAY, libc::SIGKILL))?;
    }
    let stored = match store.open(id) {
        Err(_) if force && !store.has(id) => return Ok(0),
        stored => stored?,
    };
    match stored.kept.status()? {
        Status::Stopped => {}
        // Nobody reaps what only waits but whoever made it, and that is not here.
        Status::Created => end(&stored)?,
        _ if force => end(&stored)?,
        other => bail!("cannot delete container {id} that is not stopped: {}", other.word()),
    }
    let spec = stored.spec().unwrap_or_default();
    clear(stored, &spec).map(|()| 0)
}

/// Kills all of a container, and waits for the end of its first process.
fn end(stored: &Stored) -> Result<()> {
    if let Some(cgroup) = stored.kept.cgroup.as_deref().filter(|cgroup| cgroup.exists()) {
        traces::kill_all_in(cgroup)?;
    }
    let Some(process) = stored.kept.process()? else { return Ok(()) };
    process.signal(DAY, libc::SIGKILL)?;
    if !process.has_ended(Some(PATIENCE))? {
        bail!("container {} does not end: the kernel holds up its process {}", stored.kept.id, process.pid);
    }
    told_to_end("the container to end")
}

/// Holds up all processes of a container, or lets them go on. (kernel: admin-guide/cgroup-v2,
/// "cgroup.freeze")
pub fn freeze(store: &Store, id: &str, frozen: bool) -> Result<u8> {
    let stored = store.open(id)?;
    let status = stored.kept.status()?;
    if matches!(status, Status::Stopped | Status::Creating) {
        bail!("container {id}: container not running");
    }
    let cgroup: PathBuf =
        stored.kept.cgroup.clone().context("it has no cgroup, and only a cgroup can be paused")?;
    if !frozen {
        return freezer::thaw(DAY, &cgroup).map(|()| 0);
    }
    pause::freeze(&cgroup).with_context(|| format!("container {id}"))?;
    Ok(0)
}
