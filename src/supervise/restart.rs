//! Day 14: a container that has ended is started again, by the process that looks after it.
//!
//! ```text
//! run    prepare … start … wait … cleanup ── decides ── waits ── prepare … start … wait …
//! lock   ════════════════════════════════════════════════════════════════════════════════
//! record Running                   Restarting                    Running
//! ```
//!
//! Its lock is held all the time, so there is no moment at which the container seems to be
//! nobody's. All else is given up at each end and taken anew: its namespaces and its cgroup, its
//! address, its ports. Nobody else is there who could do it: if this process is killed, the
//! container dies with it, and stays what it is.

use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{dup2_stdin, dup2_stdout};

use crate::error::{self, RUNTIME_ERROR, Result, exit_code};
use crate::files;
use crate::kernel::{self, ENDING};
use crate::metadata::layout::root_of;
use crate::metadata::record::Record;
use crate::metadata::state::State;
use crate::metadata::{Keeper, Kept, by_person, flush};
use crate::supervise::policy::{back_off, is_started_again};
use crate::wait::{A_MOMENT, PATIENCE, readable};

// ANCHOR: look_after
/// Runs a container again by `one_more`, as often as its end says that it is to be: then it is
/// in `keeper`. `outcome` is what came of it first; returns what came of it last.
pub fn look_after(
    mut outcome: Result<u8>,
    keeper: &Keeper,
    mut one_more: impl FnMut(&State, Record) -> Result<u8>,
) -> Result<u8> {
    let mut pause = None;
    while let Some(mut kept) = keeper.take() {
        let wait = *pause.insert(back_off(pause, kept.ran_for));
        if was_told_to_end(&outcome) || !waits(&kept.owner.dir, wait)? {
            give_up(kept)?;
            break;
        }
        if let Err(error) = &outcome {
            error::print(error);
        }
        kept.owner.turn(&mut kept.record)?;
        let (state, record, before) =
            (State::at(root_of(&kept.owner.dir)?.to_owned()), kept.record.clone(), kept.record.restarts);
        keeper.replace(Some(kept));
        outcome = be_alone().and_then(|()| one_more(&state, record));
        // It did not even come to its record.
        if let Some(kept) = keeper.take() {
            let kept = if kept.record.restarts == before { failed(kept)? } else { Some(kept) };
            keeper.replace(kept);
        }
    }
    outcome
}
// ANCHOR_END: look_after

/// A container that could not be started again is tried again, as one that failed.
fn failed(mut kept: Kept) -> Result<Option<Kept>> {
    let record = &kept.record;
    let by_person = by_person::is_noted(&kept.owner.dir);
    if !is_started_again(record.plan.restart, RUNTIME_ERROR, record.restarts, by_person) {
        give_up(kept)?;
        return Ok(None);
    }
    let turn = kept.owner.turn(&mut kept.record)?;
    kept.record.will_restart()?;
    kept.owner.write(&kept.record)?;
    drop(turn);
    kept.ran_for = Duration::ZERO;
    Ok(Some(kept))
}

/// Writes down that the container has ended, and is not started again.
fn give_up(mut kept: Kept) -> Result<()> {
    let _turn = kept.owner.turn(&mut kept.record)?;
    kept.record.gave_up();
    kept.owner.write(&kept.record)?;
    flush::soon_after_us(&kept.owner.dir);
    Ok(())
}

/// Has a signal told this process to end, while the container ran or since?
fn was_told_to_end(outcome: &Result<u8>) -> bool {
    kernel::was_told_to_end() || outcome.as_ref().is_err_and(|error| exit_code(error) > 128)
}

// ANCHOR: waits
/// Waits for `pause` with starting a container again, whose directory is `dir`; not that long if a
/// person starts it. Returns whether it is still to be started: not if a person has ended it
/// meanwhile, nor if a signal has told this process to end.
fn waits(dir: &Path, pause: Duration) -> Result<bool> {
    // ANCHOR: day14_task3_waits_solution
    // Both kinds are read from a descriptor, so they must not act. (signalfd(2))
    let wake = SigSet::from_iter([by_person::WAKE]);
    SigSet::from_iter(ENDING.into_iter().chain([by_person::WAKE])).thread_block().context("block signals")?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let woken = SignalFd::with_flags(&wake, flags).context("signalfd")?;
    // What came for an earlier wait. Whoever starts the container says so until it is heard.
    woken.read_signal().context("read from signalfd")?;
    // First they are blocked, then comes the look: what is noted in between is not missed.
    if by_person::is_noted(dir) {
        return Ok(false);
    }
    match readable(woken.as_fd(), Some(pause), "the container's next start") {
        // Its time has come; or somebody has woken it, who has ended it, or starts it.
        Ok(_) => Ok(!by_person::is_noted(dir)),
        // Told to end.
        Err(_) => Ok(false),
    }
    // ANCHOR_END: day14_task3_waits_solution
}
// ANCHOR_END: waits

/// Waits until this process has one thread again. What carried the last life's streams is about to
/// end, and a child is a copy of one thread: a lock that another one held would never be let go
/// of. (fork(2))
fn be_alone() -> Result<()> {
    let since = Instant::now();
    loop {
        let status = files::read("/proc/self/status").context("look at this process")?;
        if status.split(|byte| *byte == b'\n').any(|line| line == b"Threads:\t1") {
            return Ok(());
        }
        if since.elapsed() > PATIENCE {
            bail!("what carried the container's output has not ended after {} s", PATIENCE.as_secs());
        }
        sleep(A_MOMENT);
    }
}

/// Copies of this process's stdin and stdout, which the first life gives away. A container in
/// the background has none.
#[derive(Debug, Clone, Default)]
pub struct Streams(Rc<RefCell<Option<[OwnedFd; 2]>>>);

impl Streams {
    /// Keeps them, if nobody has yet.
    pub fn keep(&self) -> Result<()> {
        if self.0.borrow().is_none() {
            let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
            let copies = [stdin.as_fd().try_clone_to_owned(), stdout.as_fd().try_clone_to_owned()];
            let [stdin, stdout] = copies.map(|copy| copy.context("dup a standard stream"));
            self.0.replace(Some([stdin?, stdout?]));
        }
        Ok(())
    }

    /// They are this process's again.
    pub fn put_back(&self) -> Result<()> {
        let kept = self.0.borrow();
        let Some([stdin, stdout]) = kept.as_ref() else { return Ok(()) };
        dup2_stdin(stdin).and_then(|()| dup2_stdout(stdout)).context("dup2")
    }
}
