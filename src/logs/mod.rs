//! Day 5: logs. *Can I capture logs?*
//!
//! The mechanism of a run: what the command writes goes through the runtime,
//! which writes it down and passes it on. `-d` leaves nobody to pass it to; `-t`
//! puts a terminal in between.

pub mod file;
pub mod pump;
pub mod reader;
pub mod rights;
pub mod since;
pub mod supervisor;
pub mod terminal;
pub mod wires;

use std::os::fd::OwnedFd;
use std::sync::PoisonError;

use anyhow::Context;
use nix::unistd::Pid;

use crate::container::{Container, Mechanism};
use crate::error::Result;
use crate::metadata::owner;
use crate::rootfs::mount::Dir;
use crate::wait::Arrived;

use self::file::{LogFile, OpenLog, Stream};
use self::supervisor::Ready;
use self::wires::Wires;

/// The flags of day 5.
#[derive(Debug, clap::Args)]
pub struct Logs {
    /// Run in the background: print the container's id, and return
    #[arg(short, long)]
    detach: bool,

    /// Keep stdin open: with -t it is what you type, with -d a pipe that nobody closes
    #[arg(short, long)]
    interactive: bool,

    /// Give the container a terminal of its own (-it: to work in it)
    #[arg(short, long)]
    tty: bool,

    /// Whether this process is in the background already, and stays there.
    #[arg(skip)]
    stays: bool,

    /// What makes its log.
    #[arg(skip = LogFile::of as OpenLog)]
    open: OpenLog,

    #[arg(skip)]
    wires: Wires,

    #[arg(skip)]
    ready: Option<Ready>,

    /// What is printed once it runs, if not its id.
    #[arg(skip)]
    says: Option<String>,
}

impl Logs {
    /// What is printed once a container in the background runs. (day 14)
    pub fn says(&mut self, words: &str) {
        self.says = Some(words.into());
    }

    /// Whether the container is to run in the background. (day 14)
    pub fn in_background(&self) -> bool {
        self.detach
    }

    /// This process is in the background if the container is to be: it has run before. (day 14)
    pub fn stay(&mut self) {
        self.stays = true;
    }

    /// `open` makes the log, and not day 5. (day 14)
    pub fn kept_by(&mut self, open: OpenLog) {
        self.open = open;
    }
}

// ANCHOR: mechanism
impl Mechanism for Logs {
    fn prepare(&mut self, container: &mut Container) -> Result<()> {
        let (Some(dir), Some(id)) = (container.parts.dir.clone(), container.parts.id.clone()) else {
            return Ok(());
        };
        (container.plan.tty, container.plan.interactive) = (self.tty, self.interactive);
        if container.parts.only_made {
            return Ok(());
        }
        self.wires = Wires::new(self.detach, self.interactive, self.tty)?;
        if self.detach && !self.stays {
            // From here on we are another process.
            self.ready = Some(supervisor::detach(self.says.as_deref().unwrap_or(&id))?);
            owner::changes_hands(&dir)?;
        }
        self.wires.log = Some((self.open)(&dir, &container.plan)?);
        if self.detach || self.tty {
            // The user's terminal is not the container's.
            container.parts.console = None;
        }
        container.parts.stdio = self.wires.lay()?;
        Ok(())
    }

    fn enter(&mut self, container: &mut Container) -> Result<()> {
        let dev = container.parts.dev.as_ref().filter(|_| self.tty);
        let dev = dev.map(OwnedFd::try_clone).transpose().context("dup /dev")?;
        if let Some(terminal) = self.wires.open_terminal(dev.map(|dev| Dir::new(dev, "/dev")))? {
            container.parts.stdio = terminal;
        }
        Ok(())
    }

    fn started(&mut self, _container: &mut Container, child: Pid) -> Result<()> {
        self.wires.connect(child)?;
        self.ready.take().map_or(Ok(()), Ready::announce)
    }

    fn signalled(&mut self, _child: Pid, arrived: Arrived) -> Result<bool> {
        Ok(self.wires.signalled(arrived))
    }

    fn cleanup(&mut self, container: &mut Container) -> Result<()> {
        let outcome = self.wires.take_down();
        // A supervisor has nobody else whom it could tell.
        if let Some(log) = self.wires.log.as_ref().filter(|_| self.detach) {
            let pumped = outcome.as_ref().err().map(|error| format!("{error:#}"));
            for failure in container.end.failures.iter().chain(&pumped) {
                let words = format!("tiny-docker: {failure}\n");
                log.lock().unwrap_or_else(PoisonError::into_inner).append(Stream::Stderr, words.as_bytes());
            }
        }
        (self.wires, self.ready) = (Wires::default(), None);
        outcome
    }
}
// ANCHOR_END: mechanism
