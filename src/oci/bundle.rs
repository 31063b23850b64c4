//! Day 18: the second front door: a bundle is a mechanism. Its `prepare` turns config.json into fields of a
//! [`Container`], as the flags of days 1 to 17 do; from the clone on the heart does not know who asked.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, umask};
use nix::unistd::Pid;
use rustix::fs::{OFlags, open};

use crate::capabilities::{device_filter, sets, sysctl, ulimit};
use crate::cgroups;
use crate::container::{Container, Mechanism};
use crate::error::Result;
use crate::explain::step;
use crate::files;
use crate::identity::become_root_inside;
use crate::kernel;
use crate::metadata::record::Identity;
use crate::namespaces::{make_mounts_private, set_hostname};
use crate::netns::bring_loopback_up;
use crate::rootfs::change_root;
use crate::rootfs::mount::{Dir, attach_on, take};
use crate::rootfs::process::make_workdir;
use crate::userns::birth;
use crate::wait::Arrived;

use super::cgroup::{Driver, Place};
use super::console::Console;
use super::devices::{self, Hosts, Nodes};
use super::listener::Listener;
use super::mounts::{self, Planned};
use super::namespaces::{self, Its, Users};
use super::net_devices::{self, Moving};
use super::resources::Files;
use super::spec::Spec;
use super::spec::linux::Linux;
use super::spec::process::Process;
use super::store::{Kept, Status, Stored};
use super::{DAY, cgroup, gate, hooks, numa, process, resources, root, systemd};

/// What a command line says about a container that is to be made.
#[derive(Debug, Default)]
pub struct Wishes {
    /// Where its first process's number is written.
    pub pid_file: Option<PathBuf>,
    /// Where its terminal goes.
    pub console_socket: Option<PathBuf>,
    /// Whether its command waits for `start`.
    pub waits: bool,
    /// Whether nobody waits for its end.
    pub detach: bool,
    /// Who makes its cgroup.
    pub cgroups: Driver,
}

/// A bundle on its way to a container.
#[derive(Debug)]
pub struct Bundle {
    stored: Option<Stored>,
    spec: Spec,
    linux: Linux,
    process: Process,
    wishes: Wishes,
    its: Its,
    users: Option<Users>,
    mounts: Vec<Planned>,
    limits: Files,
    place: Option<Place>,
    nodes: Nodes,
    interfaces: Vec<Moving>,
    null: Option<OwnedFd>,
    console: Console,
    turns: Option<hooks::Turns>,
    listener: Option<Listener>,
}

impl Bundle {
    /// The container that `spec` describes, with `process` in it, whose place is `stored`.
    pub fn new(stored: Stored, spec: Spec, process: Process, wishes: Wishes) -> Bundle {
        let linux = spec.linux();
        let none = CloneFlags::empty();
        Bundle {
            stored: Some(stored),
            spec,
            linux,
            process,
            wishes,
            its: Its { new: none, own: none },
            users: None,
            mounts: vec![],
            limits: vec![],
            place: None,
            nodes: Nodes::default(),
            interfaces: vec![],
            null: None,
            console: Console::None,
            turns: None,
            listener: None,
        }
    }

    fn stored(&self) -> Result<&Stored> {
        self.stored.as_ref().context("the container has no directory any more")
    }

    fn check(&self) -> Result<()> {
        // The root of one that is there is everybody's who is in it.
        let has_mounts = self.its.new.contains(CloneFlags::CLONE_NEWNS);
        if !has_mounts {
            bail!(
                "linux.namespaces has no new one of the type mount; expected one, for its root is another one"
            );
        }
        // Without one of its own they would be the machine's.
        let has_names = self.its.own.contains(CloneFlags::CLONE_NEWUTS);
        if !has_names
            && [&self.spec.hostname, &self.spec.domainname].into_iter().flatten().any(|name| !name.is_empty())
        {
            bail!(
                "hostname and domainname need a namespace of the type uts; add one to linux.namespaces, or omit them"
            );
        }
        if self.linux.intel_rdt.is_some() {
            bail!("linux.intelRdt is not supported by this runtime; omit it (`features` lists what is)");
        }
        numa::check(&self.linux)
    }

    fn prepare_root(&mut self, container: &mut Container) -> Result<()> {
        let stored = self.stored()?;
        let (bundle, path) = (stored.kept.bundle.clone(), stored.kept.rootfs.clone());
        container.parts.root = Some(take(DAY, &path).with_context(|| format!("root.path {path:?}"))?);
        self.mounts = mounts::plan(&self.spec.mounts, &bundle)?;
        let dev = Path::new("/dev");
        let is_hosts_dev = self.mounts.iter().any(|mount| mount.is_the_hosts(dev));
        let hosts = if self.its.own.contains(CloneFlags::CLONE_NEWUSER) || crate::ids::are_not_the_hosts() {
            Hosts::Always
        } else if container.parts.cgroup.as_ref().is_some_and(devices::others_are_asked) {
            Hosts::WhereRefused
        } else {
            Hosts::Never
        };
        self.nodes = Nodes::plan(&self.linux.devices, !is_hosts_dev, hosts)?;
        self.null = root::take_null(&self.linux.masked_paths)?;
        root::propagation(&self.linux)?;
        self.mounts.iter().filter(|mount| mount.has_own_users()).try_for_each(|mount| mount.map_ids(None))
    }

    fn prepare_cgroup(&mut self, container: &mut Container) -> Result<()> {
        self.limits = self.linux.resources.as_ref().map(resources::files).transpose()?.unwrap_or_default();
        let id = self.stored()?.kept.id.clone();
        let path = self.linux.cgroups_path.as_deref();
        let Some(place) = cgroup::place(self.wishes.cgroups, path, &id, !self.limits.is_empty())? else {
            return Ok(());
        };
        cgroup::check_that_nobody_is_in(&place.dir)?;
        // Before it is there: whoever is killed in between leaves nothing that `delete` does not know.
        let stored = self.stored.as_mut().context("the container has no directory")?;
        stored.kept.cgroup = Some(place.dir.clone());
        stored.kept.scope = place.scope.as_ref().map(|(unit, _)| unit.clone());
        stored.write()?;
        let by_systemd = place.scope.is_some();
        if !by_systemd && !cgroup::make_if_allowed(&place.dir, !self.limits.is_empty())? {
            stored.kept.cgroup = None;
            return stored.write();
        }
        self.place = Some(place);
        if !by_systemd {
            container.parts.cgroup = self.limit_cgroup()?;
        }
        Ok(())
    }

    /// Parent: limits the cgroup, which is there. Returns it.
    fn limit_cgroup(&self) -> Result<Option<OwnedFd>> {
        let Some(place) = &self.place else { return Ok(None) };
        cgroup::limit(&place.dir, &self.limits)?;
        let opened = cgroups::open(&place.dir)?;
        let asked = self.linux.resources.as_ref().map(|resources| &resources.devices[..]).unwrap_or_default();
        if let Some(rules) = devices::rules(asked)?.filter(|_| !crate::ids::are_not_the_hosts()) {
            device_filter::attach(&opened, &rules)?;
        }
        Ok(Some(opened))
    }
}

// ANCHOR: mechanism
impl Mechanism for Bundle {
    fn prepare(&mut self, container: &mut Container) -> Result<()> {
        self.its = namespaces::fill(container, &self.linux)?;
        self.users = Users::of(&self.linux, self.its)?;
        self.check()?;
        process::fill(container, &self.process)?;
        self.interfaces = net_devices::plan(&self.linux, self.its)?;
        process::tell_of_sockets(container);
        if let Some(shared) = &mut container.parts.shared {
            shared.oom_score_adj = container.plan.privileges.oom_score_adj;
        }
        container.plan.privileges.sysctls = namespaces::sysctls(&self.linux, self.its)?;
        self.listener = process::filter(container, &self.linux)?;
        self.prepare_cgroup(container)?;
        self.prepare_root(container)?;
        if self.its.own.contains(CloneFlags::CLONE_NEWUSER) {
            container.parts.first_step = Some(|_| become_root_inside());
        }
        let leaves = self.wishes.waits || self.wishes.detach;
        self.console = Console::new(container, &self.process, self.wishes.console_socket.as_deref(), leaves)?;
        self.turns = hooks::Turns::of(self.spec.hooks.as_ref())?;
        container.parts.left_alone = self.wishes.detach;
        container.parts.last_steps.wait = Some(hooks::call_at_start);
        if self.wishes.waits {
            let dir = self.stored()?.dir.clone();
            container.parts.waits = Some(gate::make(container, &dir)?);
            container.parts.last_steps.wait = Some(gate::wait);
        }
        Ok(())
    }

    fn attach(&mut self, container: &mut Container, child: Pid) -> Result<()> {
        if let Some(Place { scope: Some((unit, slice)), .. }) = &self.place {
            systemd::start_scope(unit, slice, child, &self.limits)?;
            self.limit_cgroup()?;
        }
        if let Some(users) = &self.users {
            users.write(child)?;
            ulimit::raise(child, &container.plan.privileges.ulimits)?;
            if let Some(value) = self.process.oom_score_adj {
                files::write(format!("/proc/{child}/oom_score_adj"), &value.to_string())
                    .with_context(|| format!("process.oomScoreAdj {value}"))?;
            }
        }
        if self.mounts.iter().any(|mount| mount.is_mapped() && !mount.has_own_users()) {
            let own = OwnedFd::from(birth::open_namespace(child)?);
            let mapped = self.mounts.iter().filter(|mount| mount.is_mapped() && !mount.has_own_users());
            mapped.into_iter().try_for_each(|mount| mount.map_ids(Some(&own)))?;
        }
        let stored = self.stored.as_mut().context("the container has no directory")?;
        stored.kept.process = Identity::of(child.as_raw())?;
        stored.write()?;
        if let Some(file) = &self.wishes.pid_file {
            write_pid(file, child)?;
        }
        net_devices::move_in(&self.interfaces, child)?;
        if let Some(listener) = self.listener.take() {
            listener.tell(child.as_raw(), &stored.kept, Status::Creating)?;
        }
        if let (Some(turns), Some(hooks)) = (self.turns.take(), &self.spec.hooks) {
            turns.call_on_host(hooks, &stored.kept);
        }
        // The child has copies of all.
        self.mounts = vec![];
        self.console.let_go();
        Ok(())
    }

    fn enter(&mut self, container: &mut Container) -> Result<()> {
        self.stored.iter_mut().for_each(Stored::let_go_of_lock);
        container.parts.shared = None;
        self.shape_namespaces(container)?;
        let mounts = std::mem::take(&mut self.mounts).into_iter();
        let own_cgroups = self.its.own.contains(CloneFlags::CLONE_NEWCGROUP);
        let ready = mounts.map(|mount| mount.ready(own_cgroups)).collect::<Result<Vec<_>>>()?;

        let root = Dir::new(container.parts.root.take().context("there is no root")?, "/");
        // Hooks see it at its path of the host's, with all that is mounted in it, and may mount more.
        let is_shown = self.turns.is_some() || !self.spec.hooks(|hooks| &hooks.create_container).is_empty();
        if is_shown {
            self.show(&root)?
        } else {
            change_root(&root)?
        }
        umask(Mode::empty());
        ready.into_iter().try_for_each(|mount| mount.attach(&root))?;
        std::mem::take(&mut self.nodes).make(&root)?;
        if is_shown {
            self.call_hooks_before_the_root_changes()?;
            change_root(&root)?;
        }
        if self.process.terminal {
            let dev = Dir::open("/dev").context("open /dev of the container")?;
            std::mem::take(&mut self.console).open(container, &self.process, Some(dev))?;
        }
        sysctl::set_all(container)?;
        umask(Mode::from_bits_truncate(0o022));
        make_workdir(Path::new(&self.process.cwd))?;
        root::make_read_only(&root, &self.linux.readonly_paths)?;
        root::mask(&root, &self.linux.masked_paths, self.null.take())?;
        let read_only = self.spec.root.as_ref().is_some_and(|root| root.readonly);
        root::finish(&root, read_only, root::propagation(&self.linux)?)?;
        self.last_of_all(container)
    }

    fn started(&mut self, _container: &mut Container, child: Pid) -> Result<()> {
        self.console.connect(child)?;
        // Who waits for its end does not keep others from it.
        self.stored.iter_mut().for_each(Stored::let_go_of_lock);
        let kept = &self.stored()?.kept;
        hooks::call(self.spec.hooks(|hooks| &hooks.poststart), "poststart", kept, Status::Running)
    }

    fn signalled(&mut self, child: Pid, arrived: Arrived) -> Result<bool> {
        self.console.signalled(child, arrived)
    }

    fn cleanup(&mut self, _container: &mut Container) -> Result<()> {
        let heard = self.console.take_down();
        let Some(stored) = self.stored.take() else { return heard };
        heard.and(super::end::clear(stored, &self.spec))
    }
}
// ANCHOR_END: mechanism

impl Bundle {
    /// Child: what is remembered of it, with the number that it has in there.
    fn kept_inside(&self) -> Result<Kept> {
        let process = Some(Identity { pid: std::process::id() as i32, start_time: 0 });
        Ok(Kept { process, ..self.stored()?.kept.clone() })
    }

    /// Child: attaches its root at the path that it is from. A user namespace's root may be kept from going there.
    fn show(&self, root: &Dir) -> Result<()> {
        let path = &self.stored()?.kept.rootfs;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let place = open(path, flags, rustix::fs::Mode::empty())
            .with_context(|| format!("open {path:?}, where hooks are to see the root"))?;
        attach_on(DAY, root, &Dir::new(place, path))
    }

    /// Child: those on the host, and then those in here.
    fn call_hooks_before_the_root_changes(&mut self) -> Result<()> {
        let made_with = umask(Mode::from_bits_truncate(0o022));
        self.turns.take().map_or(Ok(()), hooks::Turns::wait_for_host)?;
        let called = self.spec.hooks(|hooks| &hooks.create_container);
        hooks::call(called, "createContainer", &self.kept_inside()?, Status::Creating)?;
        umask(made_with);
        Ok(())
    }

    /// Child: what its namespaces are to be, but for its mounts.
    fn shape_namespaces(&mut self, container: &mut Container) -> Result<()> {
        let new = |flag| self.its.new.contains(flag);
        make_mounts_private()?;
        if let Some(name) = self.spec.hostname.as_deref().filter(|name| !name.is_empty()) {
            set_hostname(name)?;
        }
        if let Some(name) = self.spec.domainname.as_deref().filter(|name| !name.is_empty()) {
            let describe = || (format!("setdomainname({name:?})"), format!("domainname {name}"));
            step(DAY, describe, || kernel::set_domain_name(name))?;
        }
        if new(CloneFlags::CLONE_NEWNET) {
            bring_loopback_up()?;
        }
        // A hook asks what is remembered, and a listener is told it; files are mapped to ids before they are
        // seen; systemd needs a process, to make it a cgroup; and interfaces come before what is set of them.
        let is_told_of = self.spec.hooks.is_some() || self.listener.is_some();
        let by_systemd = self.place.as_ref().is_some_and(|place| place.scope.is_some());
        let by_parent = by_systemd || !self.interfaces.is_empty();
        if is_told_of || by_parent || self.mounts.iter().any(Planned::is_mapped) {
            container.parts.pass_the_gate()?;
        }
        if new(CloneFlags::CLONE_NEWCGROUP) {
            // Only now, in its cgroup: that becomes the root.
            let describe = || ("unshare(CLONE_NEWCGROUP)".into(), "unshare --cgroup".into());
            step(DAY, describe, || unshare(CloneFlags::CLONE_NEWCGROUP))?;
        }
        Ok(())
    }

    /// Child: what holds for the command, and for nothing that is made before.
    fn last_of_all(&mut self, container: &mut Container) -> Result<()> {
        process::set_home(container)?;
        process::settle(&self.linux, &self.process)?;
        sets::bound(container)?;
        self.listener.take().map_or(Ok(()), Listener::ready)?;
        hooks::plan_for_start(self.spec.hooks(|hooks| &hooks.start_container), self.kept_inside()?);
        process::set_umask(&self.process);
        Ok(())
    }
}

/// Writes the number of a process into a file that appears as a whole: engines wait for it.
pub fn write_pid(file: &Path, pid: Pid) -> Result<()> {
    let new = file.with_extension("new");
    let written = fs::write(&new, pid.to_string()).and_then(|()| fs::rename(&new, file));
    written.with_context(|| format!("write {file:?}"))
}
