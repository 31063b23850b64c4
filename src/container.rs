//! The heart: a container is a process, and mechanisms shape its world.
//!
//! ```text
//! parent  prepare₁…ₙ  clone3  attach₁…ₙ  release              started₁…ₙ  wait  cleanupₙ…₁
//! child                  └── enter₁…ₙ ── waits ┴ exec ………………………………… exit
//! ```

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use nix::fcntl::OFlag;
use nix::sched::CloneFlags;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, chdir, pipe2};

use crate::clone::clone;
use crate::command;
use crate::error::{self, Result, exit_code};
use crate::explain::{self, shell, step};
use crate::identity::{User, assume, hand_over};
use crate::inherited;
use crate::kernel::{self, Clone};
use crate::plan::{HealthCheck, Plan, PublishedPort};
use crate::report::{self, Heard, Hearing, Report};
use crate::wait::{self, Arrived, Child, Signals, exit_code_of};

// ANCHOR: container
/// A container: what it is to be, what it is made with, and what came of it.
#[derive(Debug)]
pub struct Container {
    /// What it is to be. Complete, and not changed any more, once every mechanism's
    /// `prepare` has been called; the child changes its own copy.
    pub plan: Plan,
    /// What it is made with.
    pub parts: Parts,
    /// What came of it.
    pub end: End,
}

/// What a container is made with: what the runtime has opened, found out and been
/// given for it. It is as short-lived as this process.
#[derive(Debug, Default)]
pub struct Parts {
    /// By what it is known; `None`: nobody remembers it.
    pub id: Option<String>,
    /// The directory, absolute, in which things about it are kept.
    pub dir: Option<PathBuf>,
    /// The cgroup that it is born in; `None`: the runtime's.
    pub cgroup: Option<OwnedFd>,
    /// Its address on the network, if it gets one.
    pub address: Option<Ipv4Addr>,
    /// By what it is connected there.
    pub wire: Option<Wire>,
    /// The host's ports that lead to it.
    pub ports: Vec<PublishedPort>,
    /// What becomes its `/`: a mount that is attached nowhere yet. `None`: the host's.
    pub root: Option<OwnedFd>,
    /// In the child, once it has a root of its own: its /sys, and its /dev. What is to be
    /// mounted there is mounted on these, for others may exchange what a path leads to.
    pub sys: Option<OwnedFd>,
    /// See `sys`.
    pub dev: Option<OwnedFd>,
    /// What its image says, where nobody says anything else.
    pub defaults: Defaults,
    /// What is mounted in its root, besides what every container has. Where two have the
    /// same target, the first counts. On the host's own root what is missing is not made, and
    /// nothing is mounted there.
    pub mounts: Vec<Mount>,
    /// What becomes /dev/console on a root of its own: a mount that is attached
    /// nowhere yet.
    pub console: Option<OwnedFd>,
    /// The host's devices that are day 3's, in the order of its list: mounts that are attached
    /// nowhere yet. None: it makes nodes for them. (day 17)
    pub devices: Vec<OwnedFd>,
    /// Mounts whose files get its ids as soon as it has any: the same that the child attaches. (day 17)
    pub unmapped: Vec<OwnedFd>,
    /// In the child: by which `root` comes, if somebody else makes it. (day 17)
    pub root_comes: Option<UnixStream>,
    /// What the child does first of all, once it is past the gate: it becomes its own root. `None`: it
    /// is root already. (day 17)
    pub first_step: Option<FirstStep>,
    /// Its stdin, stdout and stderr; `None`: the runtime's.
    pub stdio: [Option<OwnedFd>; 3],
    /// The ids that the plan's user turned out to have; `None`: whoever started the
    /// runtime.
    pub user: Option<User>,
    /// What the child does as the very last before exec, as the command's user.
    pub last_steps: LastSteps,
    /// Whether it is only made: `start` will start it. Then nothing is opened for it yet. (day 14)
    pub only_made: bool,
    /// The program of its init: a copy of this one, in memory; `None`: it has no init.
    pub init: Option<OwnedFd>,
    /// What the kernel asks before each of its system calls; `None`: it makes any. (day 16)
    pub filter: Option<Filter>,
    /// Whether no filter keeps it from the host's devices, for it has no cgroup. (day 15)
    pub unfiltered: bool,
    /// The container that its command is one more process of; `None`: it has one of its own.
    pub join: Option<Join>,
    /// Namespaces of others that it is born into, besides new ones; `None`: it is in the runtime's. (day 18)
    pub shared: Option<Shared>,
    /// How many open files it has from whoever called the runtime: those after stderr. (day 18)
    pub passed_files: u32,
    /// Whether this process ends once the container runs, or waits to be started: whoever called the
    /// runtime looks after it. (day 18)
    pub left_alone: bool,
    /// In the child: what it waits at before its command. See [`LastSteps::wait`]. (day 18)
    pub waits: Option<OwnedFd>,
    /// The two ends of its report, if that is not a pipe; `None`: it is one. (day 18)
    pub report: Option<(Hearing, Report)>,
    /// In the child, until it has passed it: the gate. See [`Parts::pass_the_gate`].
    pub gate: Option<File>,
}

impl Parts {
    /// Child: waits until the parent has called every mechanism's `attach`. Until then both are at
    /// work at once. So an `enter` that needs what an `attach` has made calls this; if none does,
    /// the heart does, before exec.
    pub fn pass_the_gate(&mut self) -> Result<()> {
        let Some(mut gate) = self.gate.take() else { return Ok(()) };
        // End of file instead of a byte: the parent gave up, or died.
        gate.read_exact(&mut [0]).map_err(|_| anyhow!(report::ABANDONED))
    }
}

/// See [`Parts::last_steps`]. They are of several days, and this is their order.
#[derive(Debug, Default)]
pub struct LastSteps {
    /// Goes to where the command starts, with more care than `chdir` has. (day 14)
    pub place: Option<LastStep>,
    /// Gives up what of root's power the container is not to have. (day 15)
    pub privileges: Option<LastStep>,
    /// Leaves an init behind, which has then given it up too. (day 6)
    pub init: Option<LastStep>,
    /// Waits until somebody starts the command: all is ready by then. It has nothing more of its
    /// parent's, which may have ended. (day 18)
    pub wait: Option<LastWait>,
    /// Has the kernel ask a filter before each system call from there on. Nothing follows but the
    /// exec: the command's, or the init's own. (day 16)
    pub filter: Option<LastStep>,
}

/// One of them.
pub type LastStep = fn(&Container) -> Result<()>;

/// See [`LastSteps::wait`].
pub type LastWait = fn(&Container, &Report) -> Result<()>;

/// See [`Parts::first_step`].
pub type FirstStep = fn(&mut Container) -> Result<()>;

impl LastSteps {
    /// All but the last two.
    fn in_order(&self) -> impl Iterator<Item = LastStep> {
        [self.place, self.privileges, self.init].into_iter().flatten()
    }
}

/// A filter of system calls, as the kernel takes it. (day 16)
#[derive(Debug)]
pub struct Filter {
    /// A program of classic BPF: eight bytes for each instruction.
    pub program: Vec<[u8; 8]>,
    /// SECCOMP_FILTER_FLAG_…
    pub flags: u32,
    /// What it answers to what it has no rule for. For people.
    pub otherwise: u32,
}

/// The other way to start: not in new namespaces, but in those that a container has that
/// runs. (day 14)
#[derive(Debug)]
pub struct Join {
    /// A handle on a process of that container, its first one.
    pub process: OwnedFd,
    /// Makes the child, in the namespaces that the plan names, and in the cgroup. The child
    /// has started afresh already.
    pub by: fn(&Join, CloneFlags, Option<&OwnedFd>) -> Result<Clone>,
    /// What the plan says of it. The child starts afresh before it can read the plan.
    pub oom_score_adj: Option<i32>,
}

/// Namespaces that are there already, and that a container is born into. (day 18)
#[derive(Debug)]
pub struct Shared {
    /// What kind each is, and a descriptor of it.
    pub namespaces: Vec<(CloneFlags, OwnedFd)>,
    /// How far the clocks of a new time namespace are ahead: lines as `/proc/PID/timens_offsets` takes
    /// them; empty: it gets none that is new.
    pub clocks: Option<String>,
    /// Makes the child in these, in new ones, and in the cgroup. The child has started afresh already.
    pub by: fn(&Shared, CloneFlags, Option<&OwnedFd>) -> Result<Clone>,
    /// What the plan says of it. The child starts afresh before it can read the plan.
    pub oom_score_adj: Option<i32>,
}

/// By what a container is connected. (day 9)
#[derive(Debug, Clone)]
pub struct Wire {
    /// The name of the host's end of the cable: a port of the bridge, while the container lives.
    pub cable: String,
    /// The first address of the bridge's subnet, and how many bits of an address say that it
    /// is in there.
    pub subnet: (Ipv4Addr, u8),
}

/// What a container is where its flags say nothing: what its image says. (day 12)
#[derive(Debug, Default)]
pub struct Defaults {
    /// `NAME=VALUE`.
    pub environment: Vec<OsString>,
    /// `USER[:GROUP]`.
    pub user: Option<String>,
    /// An absolute path.
    pub working_dir: Option<PathBuf>,
    /// How to find out whether it is well.
    pub health: Option<HealthCheck>,
}

/// A mount that is planned: what was opened on the host, while there were paths to it, is
/// attached inside once there are none any more. (open_tree(2), move_mount(2))
#[derive(Debug)]
pub struct Mount {
    /// What is to be seen there: a mount that is attached nowhere yet.
    pub tree: OwnedFd,
    /// Where, seen from inside: an absolute path.
    pub target: PathBuf,
    /// Whether the root of `tree` is a directory: so what is made where `target` is missing.
    pub is_dir: bool,
    /// Whether nothing can be written there, or in what is mounted below.
    pub read_only: bool,
    /// What it gets from the root before anything is mounted in it; `None`: nothing.
    pub fill: Option<Fill>,
}

/// How a volume that is empty gets what the root has at its place. (day 11)
#[derive(Debug)]
pub struct Fill {
    /// The volume's own directory, with all that belongs to it: a mount that is attached nowhere.
    pub volume: OwnedFd,
    /// Does it; the path is the mount's target, and nothing is mounted there yet.
    pub by: fn(&OwnedFd, &Path) -> Result<()>,
}

/// What came of a container.
#[derive(Debug, Default)]
pub struct End {
    /// How its command ended, and what the runtime exits with; `None`: not yet,
    /// or it never started.
    pub exit: Option<(ExitStatus, u8)>,
    /// Whether the kernel killed any of it for want of memory; `None`: nobody knows.
    pub oom_killed: Option<bool>,
    /// Why it ended, in words, where its exit code does not say it.
    pub reason: Option<String>,
    /// Whether what is remembered of it stays although its command never ran: it was there
    /// before, or is only made. (day 14)
    pub kept: bool,
    /// Whether it lives on without this process: then there is nothing to undo yet. (day 18)
    pub lives_on: bool,
    /// Whether it is to be started again, and then for how long it has run. (day 14)
    pub again: Option<Duration>,
    /// What the runtime itself failed in, in words: for a log and a record, where nobody
    /// may be there any more who could be told.
    pub failures: Vec<String>,
}
// ANCHOR_END: container

impl End {
    /// Says what the runtime failed in, where that is no reason to fail altogether.
    pub fn complain(&mut self, error: &anyhow::Error) {
        error::print(error);
        self.failures.push(format!("{error:#}"));
    }
}

impl Container {
    /// A container that is to become what `plan` says.
    pub fn new(plan: Plan) -> Container {
        Container { plan, parts: Parts::default(), end: End::default() }
    }
}

// ANCHOR: mechanism
/// One mechanism of one day. Its fields are its command-line flags; its
/// behaviour is what it does at six moments of a container's life.
pub trait Mechanism {
    /// Parent, before the child exists: check the flags, and make what the child
    /// will be born into. Host paths are opened here.
    fn prepare(&mut self, _container: &mut Container) -> Result<()> {
        Ok(())
    }
    /// Parent; the child exists in its namespaces and waits: reach into it by pid.
    fn attach(&mut self, _container: &mut Container, _child: Pid) -> Result<()> {
        Ok(())
    }
    /// Child, inside its namespaces, before exec: shape the world from within.
    /// What it changes in `container` stays in the child.
    fn enter(&mut self, _container: &mut Container) -> Result<()> {
        Ok(())
    }
    /// Parent; the child has become the command.
    fn started(&mut self, _container: &mut Container, _child: Pid) -> Result<()> {
        Ok(())
    }
    /// Parent, while the command runs: a signal has reached the runtime. Returns
    /// whether that is dealt with; if not, the next mechanism is asked.
    fn signalled(&mut self, _child: Pid, _arrived: Arrived) -> Result<bool> {
        Ok(false)
    }
    /// Parent, once the child is gone, or when an earlier moment failed: undo.
    fn cleanup(&mut self, _container: &mut Container) -> Result<()> {
        Ok(())
    }
}
// ANCHOR_END: mechanism

/// The mechanisms of one run, in the order of their days.
pub type Mechanisms = [Box<dyn Mechanism>];

// ANCHOR: run
/// Runs `container` from its first moment to its last. Returns the command's
/// exit code: its own, or 128+n when signal n killed it.
///
/// `cleanup` runs in reverse over every mechanism whose `prepare` was called,
/// whatever happened in between.
pub fn run(container: Container, mechanisms: &mut Mechanisms) -> Result<u8> {
    close_what_is_not_passed(&container)?;
    run_once_more(container, mechanisms)
}

/// Closes the files that whoever called us has left open.
pub fn close_what_is_not_passed(container: &Container) -> Result<()> {
    // Whoever started us may have left files open, and they are not the
    // container's. Now, not at exec: a rootfs in which some path is a link to
    // /proc/self/fd/3 would use them before. (CVE-2024-21626)
    let first = 3 + container.parts.passed_files;
    let describe = || (format!("close_range({first}, ~0, 0)"), format!("exec {first}>&- {}>&- …", first + 1));
    // SAFETY: none of the runtime's own is open yet.
    step(1, describe, || unsafe { kernel::close_inherited_files_from(first) })
}

/// The same in a process that has run one already: what is open is its own. (day 14)
pub fn run_once_more(mut container: Container, mechanisms: &mut Mechanisms) -> Result<u8> {
    // Before anything is made: from here on a signal can no longer end the
    // runtime between two steps, with the second half undone.
    let signals = Signals::block()?;
    let mut prepared = 0;
    let outcome = prepare(&mut container, mechanisms, &mut prepared)
        .and_then(|()| live(&mut container, mechanisms, &signals));
    if container.end.lives_on && outcome.is_ok() {
        return outcome;
    }
    signals.let_the_second_end_us()?;
    container.end.failures.extend(outcome.as_ref().err().map(|error| format!("{error:#}")));
    // A mechanism whose cleanup fails does not stop the others from cleaning up.
    let mut undone = Ok(());
    for mechanism in mechanisms[..prepared].iter_mut().rev() {
        let cleaned = mechanism.cleanup(&mut container);
        container.end.failures.extend(cleaned.as_ref().err().map(|error| format!("{error:#}")));
        undone = undone.and(cleaned);
    }
    match (outcome, undone) {
        (Ok(code), Err(error)) => {
            Err(error.context(format!("the command exited with {code}, but the runtime failed")))
        }
        (Err(error), Err(more)) => Err(error.context(format!("cleaning up failed too ({more:#})"))),
        (outcome, Ok(())) => outcome,
    }
}
// ANCHOR_END: run

fn live(container: &mut Container, mechanisms: &mut Mechanisms, signals: &Signals) -> Result<u8> {
    if container.parts.only_made {
        container.end.kept = true;
        return Ok(0);
    }
    let (child, heard) = start(container, mechanisms)?;
    if container.parts.left_alone {
        return leave(child, heard, container, mechanisms);
    }
    wait(child, container, mechanisms, signals)
}

/// Goes away from a container that runs, or waits to be started. Until then a failure is the end of it.
fn leave(child: Child, heard: Heard, container: &mut Container, mechanisms: &mut Mechanisms) -> Result<u8> {
    if heard == Heard::Started {
        mechanisms.iter_mut().try_for_each(|mechanism| mechanism.started(container, child.pid))?;
    }
    child.let_go();
    container.end.lives_on = true;
    Ok(0)
}

fn prepare(container: &mut Container, mechanisms: &mut Mechanisms, prepared: &mut usize) -> Result<()> {
    for mechanism in mechanisms {
        *prepared += 1;
        mechanism.prepare(container)?;
    }
    Ok(())
}

// ANCHOR: start
/// Makes the child, and returns once it has become the command, or waits to be started.
fn start(container: &mut Container, mechanisms: &mut Mechanisms) -> Result<(Child, Heard)> {
    // Two pipes. At the gate the child waits until it is released. By the other it reports
    // that it is about to become the command, or why it cannot.
    let (gate, release) = pipe2(OFlag::O_CLOEXEC).context("make a pipe")?;
    let (hearing, report) = container.parts.report.take().map_or_else(report::pipe, Ok)?;

    let namespaces = container.plan.namespaces;
    let cgroup = container.parts.cgroup.take();
    let cloned = match (&container.parts.join, &container.parts.shared) {
        (None, None) => clone(namespaces, cgroup.as_ref())?,
        (Some(join), _) => (join.by)(join, namespaces, cgroup.as_ref())?,
        (None, Some(shared)) => (shared.by)(shared, namespaces, cgroup.as_ref())?,
    };
    // In the child as well, before anything else: an open directory of the host is
    // a way out of the container. (CVE-2024-21626)
    drop(cgroup);
    let mut child = match cloned {
        Clone::Parent(pid, pidfd) => Child::new(pid, pidfd),
        Clone::Child => {
            // Only the parent may hold these ends: their closing tells that it died.
            drop((release, hearing));
            become_the_command(container, mechanisms, gate, report)
        }
    };
    drop((gate, report));
    // The child has copies. With ours open, what the command writes to would have no end.
    container.parts.stdio = [None, None, None];
    (container.parts.root, container.parts.console, container.parts.join) = (None, None, None);
    (container.parts.shared, container.parts.waits) = (None, None);
    container.parts.mounts.clear();

    let mut mechanisms = mechanisms.iter_mut();
    if let Err(error) = mechanisms.try_for_each(|mechanism| mechanism.attach(container, child.pid)) {
        // Nobody can reach into a child that has ended, and then it knows why. One that lives comes
        // to a gate that nobody opens any more, and knows nothing.
        drop(release);
        return Err(hearing.what_it_knows(&mut child).unwrap_or(error));
    }
    wait::told_to_end("the container to be ready")?;
    let describe = || ("write(gate): the child may go on".into(), "a fork would not have waited".into());
    // A child that is gone already cannot be released; its report says why.
    let _ = step(1, describe, || File::from(release).write_all(b"!"));
    let heard = hearing.hear(&mut child)?;
    Ok((child, heard))
}
// ANCHOR_END: start

// ANCHOR: wait
/// From the command's first moment to its last. Returns its exit code.
fn wait(
    child: Child,
    container: &mut Container,
    mechanisms: &mut Mechanisms,
    signals: &Signals,
) -> Result<u8> {
    for mechanism in mechanisms.iter_mut() {
        mechanism.started(container, child.pid)?;
    }
    let status = child.wait(signals, |child, arrived| {
        for mechanism in mechanisms.iter_mut() {
            if mechanism.signalled(child, arrived)? {
                return Ok(());
            }
        }
        wait::take(child, arrived)
    });
    let status = match status {
        Ok(status) => status,
        Err(error) => {
            // Nobody waits for it any more, so it was killed. It has run all the same.
            container.end.exit = Some((ExitStatus::from_raw(libc::SIGKILL), 128 + libc::SIGKILL as u8));
            return Err(error);
        }
    };
    let code = exit_code_of(status)?;
    container.end.exit = Some((status, code));
    Ok(code)
}
// ANCHOR_END: wait

/// The child's side: never returns. Either it becomes the command, or it
/// reports and exits.
fn become_the_command(
    container: &mut Container,
    mechanisms: &mut Mechanisms,
    gate: OwnedFd,
    report: Report,
) -> ! {
    explain::in_child();
    container.parts.gate = Some(gate.into());
    let outcome = report.report_panics().and_then(|()| enter(container, mechanisms, &report));
    let Err(error) = outcome;
    // The parent is still at work on this process, maybe. Then it hears what its work was for.
    let _ = container.parts.pass_the_gate();
    report.fail(exit_code(&error), &format!("{error:#}"))
}

// ANCHOR: enter
fn enter(container: &mut Container, mechanisms: &mut Mechanisms, report: &Report) -> Result<Infallible> {
    // --explain tells one thing after the other.
    if explain::is_on() {
        container.parts.pass_the_gate()?;
    }
    die_with_the_parent(report)?;
    if container.parts.join.is_none() && container.parts.shared.is_none() {
        inherited::start_afresh()?;
        match container.plan.privileges.oom_score_adj {
            None => inherited::may_be_killed_for_memory()?,
            // Root of a user namespace may not ask for less than it has: its parent does, meanwhile.
            Some(_) if container.parts.first_step.is_some() => {}
            Some(value) => inherited::set_oom_score_adj(value)?,
        }
    }
    if let Some(first_step) = container.parts.first_step {
        container.parts.pass_the_gate()?;
        first_step(container)?;
        die_with_the_parent(report)?;
    }

    for mechanism in mechanisms {
        mechanism.enter(container)?;
    }
    container.parts.pass_the_gate()?;
    hand_over(&container.parts.stdio, container.parts.user.as_ref())?;
    if let Some(user) = &container.parts.user {
        assume(user)?;
        // Changing the user id made the kernel forget it. (prctl(2))
        die_with_the_parent(report)?;
    }
    if let Some(dir) = &container.plan.working_dir {
        step(3, || (format!("chdir({dir:?})"), format!("cd {}", shell(dir))), || chdir(dir))?;
    }
    for last_step in container.parts.last_steps.in_order() {
        last_step(container)?;
    }
    inherited::hear_signals_again()?;
    let command = command::prepare(&container.plan.command, &container.plan.environment)?;
    if container.parts.left_alone {
        step(
            1,
            || ("prctl(PR_SET_PDEATHSIG, 0)".into(), "setpriv --pdeathsig clear".into()),
            || set_pdeathsig(None),
        )?;
    }
    container.parts.last_steps.wait.map_or(Ok(()), |wait| wait(container, report))?;
    container.parts.last_steps.filter.map_or(Ok(()), |attach| attach(container))?;
    command::exec(&command, report)
}
// ANCHOR_END: enter

// ANCHOR: die_with_the_parent
/// Has the kernel kill this process when the runtime dies, also by SIGKILL. In
/// a pid namespace of its own this is PID 1, and all others die with it.
fn die_with_the_parent(report: &Report) -> Result<()> {
    // ANCHOR: day1_task4_die_with_the_parent_solution
    let describe = || ("prctl(PR_SET_PDEATHSIG, SIGKILL)".into(), "setpriv --pdeathsig KILL".into());
    step(1, describe, || set_pdeathsig(Signal::SIGKILL))?;
    // That works from now on. Was it too late already? (getppid(2) cannot tell: for PID 1
    // it is 0, parent or not.)
    if report.nobody_hears()? {
        bail!("the runtime died");
    }
    Ok(())
    // ANCHOR_END: day1_task4_die_with_the_parent_solution
}
// ANCHOR_END: die_with_the_parent
