//! Day 18: the gate at which a container waits between `create` and `start`: two FIFOs in its directory.
//! (fifo(7))
//!
//! ```text
//! create   prepare: opens both ─ clone ─ … ─ hears "it waits", ends
//! child                             └ … ready ─ says so ─ reads a byte of `start` … ─ exec
//! start                                              writes it ─┘    hears the rest of `report`
//! ```
//!
//! The child has opened its ends long before it waits. By then it may see no path of the host, have no
//! /proc, and be allowed no more open files.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use std::os::fd::AsFd;

use crate::container::Container;
use crate::error::Result;
use crate::explain::step;
use crate::report::{self, Heard, Report};

use super::{DAY, hooks};

const START: &str = "start";
const REPORT: &str = "report";

// ANCHOR: make
/// Makes the gate in `dir`. Returns the end at which the child waits.
pub fn make(container: &mut Container, dir: &Path) -> Result<OwnedFd> {
    for name in [START, REPORT] {
        let path = dir.join(name);
        let describe = || (format!("mkfifo({path:?})"), format!("mkfifo {}", path.display()));
        step(DAY, describe, || mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR))?;
    }
    // In this order: whoever opens the writing end waits for a reader.
    let hearing = open(&dir.join(REPORT), false)?;
    let report = open(&dir.join(REPORT), true)?;
    container.parts.report = Some(report::of(hearing.into(), report.into()));
    container.parts.left_alone = true;
    Ok(open(&dir.join(START), false)?.into())
}
// ANCHOR_END: make

/// Without waiting for whoever opens the other end.
fn open(path: &Path, to_write: bool) -> Result<File> {
    let opened = OpenOptions::new().read(!to_write).write(to_write).custom_flags(libc::O_NONBLOCK).open(path);
    opened.with_context(|| format!("open {path:?}"))
}

// ANCHOR: wait
/// Child, ready: says so, and waits for a byte.
pub fn wait(container: &Container, report: &Report) -> Result<()> {
    // ANCHOR: day18_task3_wait_solution
    let Some(gate) = &container.parts.waits else { return Ok(()) };
    let describe = || ("write(report): it waits; read(start)".into(), "read <start".into());
    step(DAY, describe, || {
        report.waits()?;
        let mut byte = [0];
        loop {
            poll(&mut [PollFd::new(gate.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)?;
            match nix::unistd::read(gate, &mut byte) {
                Ok(1) => return nix::Result::Ok(()),
                // Whoever opened the other end went away without a word: the next one may have one. Until
                // then poll(2) tells of the end, again and again.
                Ok(_) => std::thread::sleep(crate::wait::A_MOMENT),
                Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
    })?;
    hooks::call_at_start(container, report)?;
    report.go_on_alone()
    // ANCHOR_END: day18_task3_wait_solution
}
// ANCHOR_END: wait

// ANCHOR: open_it
/// Another process: opens the gate in `dir`, and hears what becomes of the child.
pub fn open_it(dir: &Path) -> Result<()> {
    // ANCHOR: day18_task3_open_it_solution
    let mut hearing = open(&dir.join(REPORT), false)?;
    // If `create` was killed just before it heard that the child waits, that is still in there.
    let _ = hearing.read(&mut [0]);
    let gate = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(dir.join(START));
    let mut gate = match gate {
        // Nobody reads at the other end.
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {
            bail!("its first process does not wait any more")
        }
        opened => opened.context("open the gate")?,
    };
    let describe = || ("write(start): it may go on".into(), "echo >start".into());
    step(DAY, describe, || gate.write_all(b"!"))?;
    match report::hear_from(hearing.into()).listen()? {
        Some(Heard::Started) => Ok(()),
        Some(Heard::Waits) => bail!("its first process waits once more, which it never does"),
        None => bail!("the container ended before its command ran"),
    }
    // ANCHOR_END: day18_task3_open_it_solution
}
// ANCHOR_END: open_it
