//! Day 14: exec. *Can it look after itself?*
//!
//! One more process in a container that runs. It is started on the same path as the first one
//! was, by the heart; only its namespaces are not new: it joins those that are there.
//!
//! What is in the container may be hostile by now, its programs, its /proc and its /etc/passwd
//! above all. So what is opened of the host is opened before the child goes in; the child is
//! born inside ([`join`]); and the file of this program cannot be written to through any
//! process of it ([`program`]).

pub mod again;
pub mod join;
pub mod keys;
pub mod program;
pub mod start;
pub mod target;

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sched::{CloneFlags, setns};
use nix::unistd::{Pid, fchdir, setsid};

use crate::container::{self, Container, Join, Mechanism};
use crate::error::{CANNOT_EXECUTE, Failure, RUNTIME_ERROR, Result, exit_code, failed};
use crate::explain::{shell, step};
use crate::ids;
use crate::kernel::send_signal;
use crate::logs::supervisor::{self, Ready};
use crate::logs::wires::Wires;
use crate::metadata::state::State;
use crate::plan::Plan;
use crate::rootfs::process::{apply_settings, check_workdir, find_user};
use crate::stop::signals::pass_on;
use crate::wait::Arrived;

use self::target::Target;

const DAY: u8 = 14;

/// The signal by which a check of a container's health is ended that takes too long: its command
/// gets SIGKILL, and this process reaps it as ever.
pub const END_OF_A_CHECK: i32 = libc::SIGALRM;

/// The flags of `exec`.
#[derive(Debug, clap::Args)]
pub struct Exec {
    #[command(flatten)]
    state: State,

    /// Run it in the background: print nothing, and return
    #[arg(short, long)]
    detach: bool,

    /// Give it this program's stdin (without it: an empty one)
    #[arg(short, long)]
    interactive: bool,

    /// Give it a terminal of its own (-it: to work in it)
    #[arg(short, long)]
    tty: bool,

    /// Set an environment variable, on top of the container's; NAME alone takes the host's value
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    env: Vec<OsString>,

    /// The user (without it: the container's); names are the container's own
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,

    /// The directory that it starts in (without it: the container's)
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<PathBuf>,

    /// It is a check of the container's health: see [`END_OF_A_CHECK`].
    #[arg(long, hide = true)]
    is_check: bool,

    /// The container's id or name
    container: String,

    /// The command, and its arguments: from here on, all words are the command's
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    #[arg(value_names = ["COMMAND", "ARG"])]
    command: Vec<OsString>,

    #[arg(skip)]
    wires: Wires,

    #[arg(skip)]
    ready: Option<Ready>,
}

/// For the end of its help.
pub const EXAMPLES: &str = "\
Exit code: the command's own; 128+n if signal n killed it; 127 if there is no such
command; 126 if it cannot be started; 1 if there is no such container, or it does not run.

Examples:
  tiny-docker exec web ps
  tiny-docker exec -it web sh
  tiny-docker exec -u app -w /srv web sh -c 'id; pwd'";

impl Exec {
    /// Runs the command, with what `others` do to it. Returns what it exited with.
    pub fn execute(self, others: Vec<Box<dyn Mechanism>>) -> Result<u8> {
        program::go_on_read_only().map_err(failed)?;
        let container = Container::new(Plan::nothing());
        let mut mechanisms: Vec<Box<dyn Mechanism>> = vec![Box::new(self)];
        mechanisms.extend(others);
        let outcome = container::run(container, &mut mechanisms);
        outcome.map_err(|error| match exit_code(&error) {
            RUNTIME_ERROR => Failure { exit_code: CANNOT_EXECUTE, message: format!("{error:#}") }.into(),
            _ => error,
        })
    }

    // ANCHOR: plan
    /// What the command is to be: a process as the container's own, but for what is asked for.
    fn plan(&self, of_the_container: &Plan) -> Result<Plan> {
        // ANCHOR: day14_task1_plan_solution
        check_workdir(self.workdir.as_deref())?;
        let mut plan = of_the_container.clone();
        plan.command = self.command.clone();
        plan.user = self.user.clone().or(plan.user);
        plan.working_dir = self.workdir.clone().or(plan.working_dir);
        (plan.tty, plan.interactive, plan.init) = (self.tty, self.interactive, false);
        // Programs draw for the terminal that somebody sits at now.
        if let Some(terminal) = std::env::var_os("TERM").filter(|name| self.tty && !name.is_empty()) {
            plan.environment.insert("TERM".into(), terminal);
        }
        apply_settings(&self.env, &mut plan.environment)?;
        Ok(plan)
        // ANCHOR_END: day14_task1_plan_solution
    }
    // ANCHOR_END: plan

    fn find(&mut self, container: &mut Container) -> Result<()> {
        self.wires = Wires::new(self.detach, self.interactive, self.tty)?;
        let Target { record, process } = Target::find(&self.state, &self.container)?;
        container.plan = self.plan(&record.plan)?;
        container.parts.cgroup = target::open_cgroup(&self.state.dir(&record.id), record.title())?;
        let oom_score_adj = container.plan.privileges.oom_score_adj;
        container.parts.join = Some(Join { process: process.into(), by: join::clone_inside, oom_score_adj });
        container.parts.last_steps.place = Some(stay_inside);
        Ok(())
    }
}

// ANCHOR: mechanism
impl Mechanism for Exec {
    fn prepare(&mut self, container: &mut Container) -> Result<()> {
        self.find(container).map_err(failed)?;
        if self.detach {
            // From here on we are another process.
            self.ready = Some(supervisor::detach("")?);
        }
        container.parts.stdio = self.wires.lay_to_what_is_no_terminal()?;
        Ok(())
    }

    fn enter(&mut self, container: &mut Container) -> Result<()> {
        if let Some(join) = container.parts.join.take() {
            // Root of a user namespace may not join the host's; and in that, this process has been all
            // the time. (day 17)
            let has_less_power = container.plan.user_namespace.is_some() || ids::are_not_the_hosts();
            join_cgroup_namespace(&join.process, has_less_power)?;
        }
        find_user(container, true)?;
        match self.wires.open_terminal(None)? {
            Some(terminal) => container.parts.stdio = terminal,
            // Out of the session: in there, /dev/tty is not the user's terminal. (setsid(2))
            None => drop(step(DAY, || ("setsid()".into(), "setsid …".into()), setsid)?),
        }
        Ok(())
    }

    fn started(&mut self, _container: &mut Container, child: Pid) -> Result<()> {
        self.wires.connect(child)?;
        self.ready.take().map_or(Ok(()), Ready::announce)
    }

    fn signalled(&mut self, child: Pid, arrived: Arrived) -> Result<bool> {
        if self.is_check && arrived.signal == END_OF_A_CHECK {
            send_signal(child, libc::SIGKILL).context("kill the check's command")?;
        } else if !self.wires.signalled(arrived) {
            pass_on(child, arrived)?;
        }
        // A runtime that is told to stop, as by Ctrl-Z, still does that itself.
        Ok(arrived.signal != libc::SIGTSTP)
    }

    fn cleanup(&mut self, _container: &mut Container) -> Result<()> {
        let outcome = self.wires.take_down();
        (self.wires, self.ready) = (Wires::default(), None);
        outcome
    }
}
// ANCHOR_END: mechanism

/// Child: sees as the root of all cgroups what the container sees as such. Not earlier: the
/// kernel puts nobody into a cgroup that cannot be seen from where it asks.
fn join_cgroup_namespace(process: &OwnedFd, may_be_refused: bool) -> Result<()> {
    let describe = || ("setns(pidfd, CLONE_NEWCGROUP)".into(), "nsenter --target PID --cgroup …".into());
    step(DAY, describe, || match setns(process, CloneFlags::CLONE_NEWCGROUP) {
        Err(Errno::EPERM) if may_be_refused => Ok(()),
        joined => joined,
    })
}

// ANCHOR: stay_inside
/// Child, as its user, before exec: goes to its directory, but through nothing that /proc has
/// for an open file. What the caller's stdin is may be a directory of the host, and the
/// container may say that it starts in /proc/self/fd/0. (openat2(2), RESOLVE_NO_MAGICLINKS;
/// CVE-2024-21626)
pub fn stay_inside(container: &Container) -> Result<()> {
    // ANCHOR: day14_task1_stay_inside_solution
    let Some(dir) = &container.plan.working_dir else { return Ok(()) };
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let describe = || {
        let call = format!("openat2({dir:?}, RESOLVE_NO_MAGICLINKS), fchdir(…)");
        (call, format!("cd {}", shell(dir)))
    };
    step(DAY, describe, || openat2(AT_FDCWD, dir.as_path(), how).and_then(fchdir))
        .with_context(|| nowhere(dir))
    // ANCHOR_END: day14_task1_stay_inside_solution
}
// ANCHOR_END: stay_inside

fn nowhere(dir: &Path) -> String {
    format!(
        "it cannot start in {dir:?}; expected a directory of the container: name another one with --workdir"
    )
}
