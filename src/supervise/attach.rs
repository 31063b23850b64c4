//! Day 14: `attach`: once more at the terminal, or at the streams, of a container that runs.
//!
//! Its supervisor holds the other end of its terminal and of its stdin, and writes down what it
//! writes. So what it writes is read where `logs -f` reads it; and what is typed goes where the
//! supervisor could write it: whoever may trace a process may have a copy of its descriptors.
//! Nobody need listen for that, and a container that nobody attaches to has no part in it.
//! (pidfd_getfd(2))

use std::fs;
use std::io::{IsTerminal, Read, stdin};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::thread;

use anyhow::{Context, bail};
use rustix::fs::makedev;
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};

use crate::error::{Result, failed};
use crate::exec::keys::DetachKeys;
use crate::exec::target::Target;
use crate::explain::step;
use crate::kernel;
use crate::logs::reader::ShowLogs;
use crate::logs::terminal::{self, RawMode};
use crate::metadata::pidfd::Process;
use crate::metadata::record::Record;
use crate::metadata::state::State;
use crate::stream;
use crate::supervise::log_files::IN_SEVERAL;
use crate::wait::Signals;

const DAY: u8 = 14;

/// Be at a container's terminal or streams again (ctrl-p ctrl-q: leave it, and let it run)
#[derive(Debug, clap::Args)]
pub struct Attach {
    #[command(flatten)]
    state: State,

    /// Pass on nothing that is typed
    #[arg(long)]
    no_stdin: bool,

    /// The keys that leave it
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    detach_keys: DetachKeys,

    /// Its id or name
    container: String,
}

impl Attach {
    /// To the container that `word` means, with everything that is typed.
    pub fn to(state: State, word: &str) -> Attach {
        Attach { state, no_stdin: false, detach_keys: DetachKeys::default(), container: word.into() }
    }

    /// Shows what the container writes from now on, up to its end. Returns what it exited with.
    pub fn execute(self) -> Result<u8> {
        self.stay().map_err(failed)
    }

    fn stay(self) -> Result<u8> {
        let Target { record, process } = Target::find(&self.state, &self.container)?;
        // Before anything is typed: what it answers is shown.
        let shown = ShowLogs::from_now_on(self.state.clone(), &record.id, IN_SEVERAL)?;
        let its_stdin = if self.no_stdin { None } else { stdin_of(&record, &process)? };
        let at_terminal = record.plan.tty && stdin().is_terminal();
        // With a thread of their own for signals and for keys; the terminal first, for its guard
        // is another process.
        let signals = Signals::block()?;
        let _raw_mode = match its_stdin {
            Some(_) if at_terminal => Some(RawMode::enter()?),
            _ => None,
        };
        let resized = its_stdin.as_ref().filter(|_| at_terminal).map(OwnedFd::try_clone).transpose()?;
        if let Some(terminal) = &resized {
            terminal::copy_size(terminal);
        }
        thread::Builder::new()
            .spawn(move || pass_on_signals(&signals, &process, resized))
            .context("start a thread")?;
        if let Some(its_stdin) = its_stdin {
            let keys = self.detach_keys;
            thread::Builder::new().spawn(move || pass_on(its_stdin, keys)).context("start a thread")?;
        }
        shown.show()?;
        match self.state.read(&record.id) {
            Ok(record) => Ok(record.exit_code.unwrap_or(0)),
            // It was run with --rm, and is gone.
            Err(_) => Ok(0),
        }
    }
}

// ANCHOR: stdin_of
/// A copy of the descriptor by which the supervisor could write to the container's stdin: its
/// end of the terminal, or of a pipe. `None`: there is none.
fn stdin_of(record: &Record, process: &Process) -> Result<Option<OwnedFd>> {
    // ANCHOR: day14_task2_stdin_of_solution
    if !record.plan.tty && !record.plan.interactive {
        return Ok(None);
    }
    let Some(supervisor) = record.owner.map(|owner| owner.process()).transpose()?.flatten() else {
        bail!("nobody looks after container {} any more", record.title());
    };
    let its = fs::metadata(format!("/proc/{}/fd/0", process.pid)).context("look at the container's stdin")?;
    for entry in fs::read_dir(format!("/proc/{}/fd", supervisor.pid)).context("look at the supervisor")? {
        let entry = entry.context("look at the supervisor")?;
        let Ok(found) = fs::metadata(entry.path()) else { continue };
        let is_it = match record.plan.tty {
            // What pts(4) calls the multiplexer: opened, it is one terminal's other end.
            true => found.file_type().is_char_device() && found.rdev() == makedev(5, 2),
            false => found.file_type().is_fifo() && (found.dev(), found.ino()) == (its.dev(), its.ino()),
        };
        let number = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        if let Some(number) = number.filter(|_| is_it) {
            let describe = || (format!("pidfd_getfd(supervisor, {number})"), "no shell can do that".into());
            let flags = PidfdGetfdFlags::empty();
            return step(DAY, describe, || pidfd_getfd(supervisor.as_fd(), number, flags)).map(Some);
        }
    }
    Ok(None)
    // ANCHOR_END: day14_task2_stdin_of_solution
}
// ANCHOR_END: stdin_of

/// Passes on signals, as `run` in the foreground does, for as long as this process lives.
fn pass_on_signals(signals: &Signals, process: &Process, terminal: Option<OwnedFd>) -> Result<()> {
    loop {
        let arrived = signals.wait()?;
        match (arrived.signal, &terminal) {
            (libc::SIGWINCH, Some(terminal)) => terminal::copy_size(terminal),
            (
                libc::SIGWINCH | libc::SIGCHLD | libc::SIGPIPE | libc::SIGURG | libc::SIGTSTP | libc::SIGCONT,
                _,
            ) => {}
            (signal, _) => process.signal(DAY, signal)?,
        }
    }
}

/// Passes on what is typed, until the keys come that leave the container.
fn pass_on(its_stdin: OwnedFd, mut keys: DetachKeys) -> Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let count = stdin().read(&mut buffer).context("read what is typed")?;
        let (typed, leaves) = keys.filter(&buffer[..count]);
        stream::write_all(&its_stdin, &typed).context("pass on what is typed")?;
        if leaves {
            // The guard gives the terminal back.
            kernel::exit_now(0);
        }
        if count == 0 {
            return Ok(());
        }
    }
}
