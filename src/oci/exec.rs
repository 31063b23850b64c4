//! Day 18: `exec`: one more process in a container that runs, on the same path as day 14's.

use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};
use nix::sched::{CloneFlags, setns};
use nix::unistd::{Pid, setsid};

use crate::capabilities::sets;
use crate::cgroups;
use crate::container::{self, Container, Join, Mechanism};
use crate::error::Result;
use crate::exec::{join, program};
use crate::explain::step;
use crate::identity::become_root_inside;
use crate::metadata::freezer::is_frozen;
use crate::plan::Plan;
use crate::wait::Arrived;

use super::bundle::write_pid;
use super::console::Console;
use super::listener::Listener;
use super::namespaces::KINDS;
use super::spec::linux::Linux;
use super::spec::process::Process;
use super::spec::read_json;
use super::store::{Kept, Status, Store};
use super::{DAY, cgroup, process, schedule};

/// What a command line says about a process that is to be made.
#[derive(Debug, Default)]
pub struct Wishes {
    /// A file that describes it; `None`: it is as the container's, but for what follows.
    pub process: Option<PathBuf>,
    /// Its command.
    pub command: Vec<String>,
    /// `NAME=VALUE`, on top.
    pub env: Vec<String>,
    /// Where it starts.
    pub cwd: Option<String>,
    /// `UID[:GID]`.
    pub user: Option<String>,
    /// Whether it has a terminal.
    pub tty: bool,
    /// Groups besides its user's.
    pub groups: Vec<u32>,
    /// Capabilities besides the container's.
    pub capabilities: Vec<String>,
    /// Whether no program gives it more power.
    pub no_new_privileges: bool,
    /// Its AppArmor profile, if not the container's.
    pub apparmor: Option<String>,
    /// Its cgroup, seen from the container's.
    pub cgroup: Option<String>,
    /// Where its number is written.
    pub pid_file: Option<PathBuf>,
    /// Where its terminal goes.
    pub console_socket: Option<PathBuf>,
    /// Whether nobody here waits for its end.
    pub detach: bool,
    /// How many open files it has besides the standard ones.
    pub passed_files: u32,
}

/// Runs one more process in the container `id`. Returns what it exits with.
pub fn run(store: &Store, id: &str, wishes: Wishes) -> Result<u8> {
    program::go_on_read_only()?;
    let (dir, kept) = store.look(id)?;
    match kept.status()? {
        Status::Running => {}
        Status::Paused => bail!("container {id} is paused; expected one that runs: resume it first"),
        other => bail!("container {id}: container not running, but {}", other.word()),
    }
    let spec = super::spec::Spec::of(&dir)?;
    let process = wishes.process(spec.process.clone().unwrap_or_default())?;
    let mut container = Container::new(Plan::nothing());
    container.parts.passed_files = wishes.passed_files;
    let linux = spec.linux();
    let more = More { kept, linux, process, wishes, console: Console::None, listener: None };
    container::run(container, &mut [Box::new(more)])
}

impl Wishes {
    fn process(&self, of_the_container: Process) -> Result<Process> {
        if let Some(file) = &self.process {
            let described: Process = serde_json::from_slice(&read_json(file)?)
                .with_context(|| format!("{file:?} is no description of a process"))?;
            return Ok(confined_as(described, of_the_container));
        }
        let mut process = of_the_container;
        (process.args, process.terminal) = (self.command.clone(), self.tty);
        process.env.extend(self.env.iter().cloned());
        process.cwd = self.cwd.clone().unwrap_or(process.cwd);
        process.user.additional_gids.extend(&self.groups);
        process.no_new_privileges |= self.no_new_privileges;
        process.apparmor_profile = self.apparmor.clone().or(process.apparmor_profile);
        let sets = process.capabilities.get_or_insert_default();
        for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
            set.extend(self.capabilities.iter().cloned());
        }
        if let Some(user) = &self.user {
            let number = |text: &str| {
                text.parse().with_context(|| format!("--user {user:?}: expected UID[:GID], numbers"))
            };
            let (uid, gid) = user.split_once(':').map_or((&user[..], None), |(uid, gid)| (uid, Some(gid)));
            process.user.uid = number(uid)?;
            process.user.gid = gid.map_or(Ok(process.user.gid), number)?;
        }
        Ok(process)
    }
}

/// What a description does not say of its powers and limits is as with the container, as engines expect: it is
/// not the caller's.
fn confined_as(mut process: Process, container: Process) -> Process {
    let said = |text: Option<String>| text.filter(|text| !text.is_empty());
    process.capabilities = process.capabilities.or(container.capabilities);
    process.apparmor_profile = said(process.apparmor_profile).or(container.apparmor_profile);
    process.selinux_label = said(process.selinux_label).or(container.selinux_label);
    if process.rlimits.is_empty() {
        process.rlimits = container.rlimits;
    }
    process
}

/// One more process.
struct More {
    kept: Kept,
    linux: Linux,
    process: Process,
    wishes: Wishes,
    console: Console,
    listener: Option<Listener>,
}

impl More {
    fn own(&self) -> CloneFlags {
        let flag = |name: &String| KINDS.iter().find(|(kind, _)| kind == name).map(|(_, flag)| *flag);
        self.linux.namespaces.iter().filter_map(|one| flag(&one.kind)).collect()
    }
}

impl Mechanism for More {
    fn prepare(&mut self, container: &mut Container) -> Result<()> {
        process::fill(container, &self.process)?;
        self.listener = process::filter(container, &self.linux)?;
        let first = self.kept.process()?.context("container not running")?;
        container.plan.namespaces = self.own().difference(CloneFlags::CLONE_NEWCGROUP);
        if let Some(place) = self.kept.cgroup.as_ref().filter(|place| place.exists()) {
            if is_frozen(place) {
                bail!("container {} is paused", self.kept.id);
            }
            // What is above of it is not the container's.
            let below = Path::new(self.wishes.cgroup.as_deref().unwrap_or_default());
            let below = below.strip_prefix("/").unwrap_or(below);
            if below.components().any(|part| !matches!(part, Component::Normal(_))) {
                bail!("--cgroup {below:?}: expected a path below the container's cgroup, without . and ..");
            }
            let asked = place.join(below);
            let place = if self.wishes.cgroup.is_none() { cgroup::of_first(place, first.pid) } else { asked };
            container.parts.cgroup = Some(cgroups::open(&place)?);
        }
        let oom_score_adj = container.plan.privileges.oom_score_adj;
        container.parts.join = Some(Join { process: first.into(), by: join::clone_inside, oom_score_adj });
        if self.own().contains(CloneFlags::CLONE_NEWUSER) {
            container.parts.first_step = Some(|_| become_root_inside());
        }
        let socket = self.wishes.console_socket.as_deref();
        self.console = Console::new(container, &self.process, socket, self.wishes.detach)?;
        container.parts.left_alone = self.wishes.detach;
        schedule::begin_on_its_processors(&self.process)
    }

    fn enter(&mut self, container: &mut Container) -> Result<()> {
        if let Some(join) =
            container.parts.join.take().filter(|_| self.own().contains(CloneFlags::CLONE_NEWCGROUP))
        {
            let describe = || ("setns(pidfd, CLONE_NEWCGROUP)".into(), "nsenter --cgroup …".into());
            step(DAY, describe, || setns(&join.process, CloneFlags::CLONE_NEWCGROUP))?;
        }
        if self.process.terminal {
            std::mem::take(&mut self.console).open(container, &self.process, None)?;
        } else {
            step(DAY, || ("setsid()".into(), "setsid …".into()), setsid)?;
        }
        process::set_home(container)?;
        schedule::stay_on_its_processors(&self.process)?;
        process::settle(&self.linux, &self.process)?;
        sets::bound(container)?;
        if let Some(listener) = self.listener.take() {
            container.parts.pass_the_gate()?;
            listener.ready()?;
        }
        process::set_umask(&self.process);
        Ok(())
    }

    fn attach(&mut self, _container: &mut Container, child: Pid) -> Result<()> {
        self.console.let_go();
        if let Some(listener) = self.listener.take() {
            listener.tell(child.as_raw(), &self.kept, Status::Running)?;
        }
        self.wishes.pid_file.as_deref().map_or(Ok(()), |file| write_pid(file, child))
    }

    fn started(&mut self, _container: &mut Container, child: Pid) -> Result<()> {
        self.console.connect(child)
    }

    fn cleanup(&mut self, _container: &mut Container) -> Result<()> {
        self.console.take_down()
    }

    fn signalled(&mut self, child: Pid, arrived: Arrived) -> Result<bool> {
        self.console.signalled(child, arrived)
    }
}
