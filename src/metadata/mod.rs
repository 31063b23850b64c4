//! Day 4: metadata. *Can I remember what I started?*
//!
//! The mechanism of a run: its container gets an id and a record, which follows
//! it from its first moment to its last.

pub mod aside;
pub mod at_once;
pub mod ending;
pub mod flush;
pub mod holder;
pub mod layout;
pub mod output;
pub mod owner;
pub mod pidfd;
pub mod ports;
pub mod ps;
pub mod read;
pub mod record;
pub mod state;
pub mod traces;
pub mod tree;

use anyhow::bail;
use nix::unistd::Pid;

use crate::container::{Container, Mechanism};
use crate::error::{self, Result};
use crate::wait::Arrived;

use self::flush::Alarm;
use self::owner::Owner;
use self::record::Record;
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

    /// Rings when the container has been running for a moment.
    #[arg(skip)]
    alarm: Option<Alarm>,
}

impl Metadata {
    /// Where this container is remembered.
    pub fn state(&self) -> &State {
        &self.state
    }
}

// ANCHOR: mechanism
impl Mechanism for Metadata {
    fn prepare(&mut self, container: &mut Container) -> Result<()> {
        if let Some(name) = &self.name {
            check_name(name)?;
        }
        container.plan.auto_remove = self.rm;
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
        if record.owner.is_none_or(|owner| !owner.is_this_process()) {
            record.owned_by_this_process()?;
        }
        record.started(child.as_raw())?;
        owner.make_room(record)?;
        owner.sign(record)?;
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
                record.oom_killed = container.end.oom_killed;
                let failures = || Some(container.end.failures.join("; ")).filter(|words| !words.is_empty());
                record.reason = container.end.reason.clone().or_else(failures);
                // The command has ended as it did, whether that can be written down or not.
                match owner.write_end(&record) {
                    Ok(()) => flush::soon_after_us(&owner.dir),
                    Err(error) => error::print(
                        &error.context(format!("container {}: its end could not be written down", record.id)),
                    ),
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
/// letters, digits, `_`, `.`, `-`.
fn check_name(name: &str) -> Result<()> {
    // ANCHOR: day4_task1_check_name_solution
    let fine = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if name.len() < 2 || !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.chars().all(fine) {
        bail!(
            "--name {name:?}: expected two or more of letters, digits, '_', '.' and '-', the first a letter or digit, such as web-1"
        );
    }
    Ok(())
    // ANCHOR_END: day4_task1_check_name_solution
}
// ANCHOR_END: name
