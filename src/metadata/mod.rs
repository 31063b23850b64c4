//! Day 4: metadata. *Can I remember what I started?*
//!
//! The mechanism of a run: its container gets an id and a record, which follows
//! it from its first moment to its last.

pub mod aside;
pub mod at_once;
pub mod by_person;
pub mod change;
pub mod ending;
pub mod flush;
pub mod freezer;
pub mod health;
pub mod holder;
pub mod layout;
pub mod output;
pub mod owner;
pub mod pidfd;
pub mod ports;
pub mod ps;
pub mod read;
pub mod record;
pub mod shown;
pub mod state;
pub mod traces;
pub mod tree;
pub mod turn;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::unistd::Pid;

use crate::container::{Container, Mechanism};
use crate::error::{self, Result};
use crate::wait::Arrived;

use self::flush::Alarm;
use self::owner::Owner;
use self::record::{Record, Status};
use self::state::State;

/// The flags of day 4.
#[derive(Debug, clap::Args)]
pub struct Metadata {
    #[command(flatten)]
    state: State,

    /// A name for the container
    #[arg(long)]
    name: Option<String>,

    /// Forget the container when it ends
    #[arg(long)]
    rm: bool,

    /// The container's record, and the right to change it.
    #[arg(skip)]
    owned: Option<(Owner, Record)>,

    /// The container that is started again, and what was remembered of it.
    #[arg(skip)]
    again: Option<Record>,

    /// One that this process starts once more, and then again: see [`Keeper`].
    #[arg(skip)]
    keeper: Keeper,

    /// Rings when the container has been running for a moment.
    #[arg(skip)]
    alarm: Option<Alarm>,
}

impl Metadata {
    /// Where this container is remembered.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The container of `record` is started once more, instead of a new one. (day 14)
    pub fn again(&mut self, record: Record) {
        self.again = Some(record);
    }

    /// Where it is kept at its end, if it is to be started again, and taken from. (day 14)
    pub fn keeper(&mut self) -> &mut Keeper {
        &mut self.keeper
    }

    /// Writes down the end of a container, and keeps it if it is to be started again.
    fn close(&self, owner: Owner, mut record: Record, again: Option<Duration>) -> Result<()> {
        let turn = owner.turn(&mut record)?;
        if again.is_some() {
            record.will_restart()?;
        }
        owner.write_end(&record)?;
        drop(turn);
        let Some(ran_for) = again else {
            flush::soon_after_us(&owner.dir);
            return Ok(());
        };
        flush::soon(&owner.dir);
        self.keeper.replace(Some(Kept { owner, record, ran_for }));
        Ok(())
    }
}

/// What there is between two lives of a container that its `run` starts again. The lock is held
/// all the time: there is no moment at which nobody looks after it. (day 14)
pub type Keeper = Rc<RefCell<Option<Kept>>>;

/// A container that is to be started again.
#[derive(Debug)]
pub struct Kept {
    /// The right to.
    pub owner: Owner,
    /// What is remembered of it.
    pub record: Record,
    /// How long it has run.
    pub ran_for: Duration,
}

/// Becomes the owner of the container `id`, which does not run; `kept`: it is already.
fn take_up(
    state: &State,
    id: &str,
    kept: Option<Kept>,
    container: &mut Container,
) -> Result<(Owner, Record)> {
    let (owner, mut record) = match kept {
        Some(Kept { owner, record, .. }) => (owner, record),
        None => {
            let (owner, mut record) = (state.own(id)?, state.read(id)?);
            if record.process()?.is_some() {
                bail!("container {} runs already", record.title());
            }
            by_person::forget(&owner.dir)?;
            record.restarts = 0;
            (owner, record)
        }
    };
    record.owned_by_this_process()?;
    // Of a start that was killed.
    traces::remove_cgroup_of(&owner.dir)?;
    container.end.kept = true;
    container.parts.id = Some(record.id.clone());
    let dir = std::fs::canonicalize(&owner.dir).with_context(|| format!("look at {:?}", owner.dir))?;
    container.parts.dir = Some(dir.clone());
    Ok((owner.at(dir), record))
}

// ANCHOR: mechanism
impl Mechanism for Metadata {
    fn prepare(&mut self, container: &mut Container) -> Result<()> {
        if let Some(name) = &self.name {
            check_name("--name", name)?;
        }
        container.plan.auto_remove = self.rm;
        if let Some(before) = &self.again {
            let kept = self.keeper.take();
            self.owned = Some(take_up(&self.state, &before.id, kept, container)?);
            return Ok(());
        }
        let mut record = Record::new(container.plan.clone(), self.name.take());
        record.owned_by_this_process()?;
        let owner = self.state.create(&mut record)?;
        container.parts.id = Some(record.id.clone());
        container.parts.dir = Some(owner.dir.clone());
        self.owned = Some((owner, record));
        Ok(())
    }

    // Before the command runs: whoever sees what it does finds it in ps. If it
    // cannot start after all, cleanup removes the record.
    fn attach(&mut self, container: &mut Container, child: Pid) -> Result<()> {
        let Some((owner, record)) = &mut self.owned else { return Ok(()) };
        // By now every mechanism has said what its flags ask for; and with -d another
        // process looks after the container than the one that began.
        record.plan = container.plan.clone();
        record.address = container.parts.address;
        record.ports = container.parts.ports.clone();
        if self.again.is_some() {
            record.begins_again();
            // Of its last end; of the next one there will be another.
            let _ = std::fs::remove_file(owner.dir.join(layout::BEFORE));
        }
        // (What is started again may have been an earlier process's of the same number.)
        if self.again.is_some() || record.owner.is_none_or(|owner| !owner.is_this_process()) {
            record.owned_by_this_process()?;
        }
        record.started(child.as_raw())?;
        owner.make_room(record)?;
        if self.again.is_none() {
            owner.sign(record)?;
            return owner.write(record);
        }
        owner.sign_again(record)?;
        let _turn = owner.turn(record)?;
        owner.write(record)
    }

    fn started(&mut self, _container: &mut Container, _child: Pid) -> Result<()> {
        self.alarm = if self.rm { None } else { Alarm::set() };
        Ok(())
    }

    fn signalled(&mut self, _child: Pid, arrived: Arrived) -> Result<bool> {
        let rang = self.alarm.is_some() && arrived.signal == Alarm::SIGNAL as i32;
        if let Some((owner, _)) = self.owned.as_ref().filter(|_| rang) {
            flush::soon(&owner.dir);
        }
        Ok(rang)
    }

    fn cleanup(&mut self, container: &mut Container) -> Result<()> {
        self.alarm = None;
        let Some((owner, mut record)) = self.owned.take() else { return Ok(()) };
        match container.end.exit {
            Some((status, exit_code)) if !self.rm => {
                record.ended(status, exit_code);
                // From day 14 on it may have been connected to others while it ran.
                record.plan.networks = container.plan.networks.clone();
                record.oom_killed = container.end.oom_killed;
                let failures = || Some(container.end.failures.join("; ")).filter(|words| !words.is_empty());
                record.reason = container.end.reason.clone().or_else(failures);
                let id = record.id.clone();
                // The command has ended as it did, whether that can be written down or not.
                if let Err(error) = self.close(owner, record, container.end.again) {
                    error::print(
                        &error.context(format!("container {id}: its end could not be written down")),
                    );
                }
                Ok(())
            }
            // It was there before, or is only made.
            None if container.end.kept => {
                let mut record = self.again.take().unwrap_or(record);
                if container.end.again.is_some() {
                    record.reason = Some(container.end.failures.join("; "));
                    return self.close(owner, record, container.end.again);
                }
                if container.parts.only_made {
                    record.plan = container.plan.clone();
                }
                if record.status == Status::Restarting {
                    record.gave_up();
                }
                (record.owner, record.pid_namespace) = (None, None);
                let turn = owner.turn(&mut record)?;
                owner.write(&record)?;
                drop(turn);
                flush::soon_after_us(&owner.dir);
                if container.parts.only_made {
                    output::print(&format!("{}\n", record.id))?;
                }
                Ok(())
            }
            // It never started, so that there is nothing to remember; or nobody
            // wants to.
            _ => owner.remove(),
        }
    }
}
// ANCHOR_END: mechanism

// ANCHOR: name
/// Docker's rule for names: a letter or digit, then at least one more of
/// letters, digits, `_`, `.`, `-`. `what` it is, for the error.
pub fn check_name(what: &str, name: &str) -> Result<()> {
    // ANCHOR: day4_task1_check_name_solution
    let fine = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if name.len() < 2 || !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.chars().all(fine) {
        bail!(
            "{what} {name:?}: expected two or more of letters, digits, '_', '.' and '-', the first a letter or digit, such as web-1"
        );
    }
    Ok(())
    // ANCHOR_END: day4_task1_check_name_solution
}
// ANCHOR_END: name
