//! Day 14: one check of a container's health: a `tiny-docker exec`, what it writes, and its end.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use jiff::Timestamp;
use nix::fcntl::OFlag;
use nix::poll::PollFlags;
use nix::unistd::pipe2;
use rustix::io::ioctl_fionread;

use crate::error::Result;
use crate::exec::END_OF_A_CHECK;
use crate::logs::pump::poll_some;
use crate::metadata::health::Check;
use crate::metadata::layout::root_of;
use crate::metadata::pidfd::Process;
use crate::wait::PATIENCE;

use super::DAY;

/// So many bytes of what it writes are remembered.
const OUTPUT: usize = 4096;

/// Checks the container in `dir` by `test`, which may take `timeout`. `None`: `stopped` was closed
/// before. A check that could not be made has failed: for want of memory, say, or of a descriptor.
/// By the next one there may be some again.
pub fn check(dir: &Path, test: &[String], timeout: Duration, stopped: &OwnedFd) -> Option<Check> {
    let start = Timestamp::now();
    let checked = Probe::start(dir, test).and_then(|probe| probe.result(timeout, stopped));
    checked.unwrap_or_else(|error| {
        Some(Check { start, end: Timestamp::now(), exit_code: -1, output: format!("{error:#}") })
    })
}

/// A check that runs. Dropping it ends it.
struct Probe {
    child: Child,
    /// The same process, to be waited for together with others.
    process: Process,
    /// What it writes.
    written: File,
    begun: Timestamp,
}

impl Probe {
    /// Begins to check the container in `dir` by `test`: `CMD` and words, or `CMD-SHELL` and a line.
    fn start(dir: &Path, test: &[String]) -> Result<Probe> {
        let words: Vec<&str> = match test {
            [kind, words @ ..] if kind == "CMD" => words.iter().map(String::as_str).collect(),
            [kind, line, ..] if kind == "CMD-SHELL" => vec!["/bin/sh", "-c", line],
            _ => bail!("a check of {test:?}: expected CMD and words, or CMD-SHELL and a line"),
        };
        let id = dir.file_name().context("the container's directory has no name")?;
        let (written, write) = pipe2(OFlag::O_CLOEXEC).context("make a pipe")?;
        // Another program: this process has threads, and cannot be cloned as `exec` does it.
        let mut exec = Command::new("/proc/self/exe");
        exec.arg("--root").arg(root_of(dir)?).args(["exec", "--is-check"]).arg(id).arg("--").args(words);
        exec.stdin(Stdio::null()).stdout(write.try_clone().context("dup a pipe")?).stderr(write);
        let begun = Timestamp::now();
        let child = exec.spawn().context("start a process")?;
        let process = Process::open(child.id() as i32)?.context("the check's process is gone")?;
        Ok(Probe { child, process, written: written.into(), begun })
    }

    // ANCHOR: result
    /// Waits for its end, at most for `timeout`. `None`: `stopped` was closed before.
    fn result(mut self, timeout: Duration, stopped: &OwnedFd) -> Result<Option<Check>> {
        let until = Instant::now() + timeout;
        let mut output = Vec::new();
        let mut is_open = true;
        let exit_code = loop {
            let left = until.saturating_duration_since(Instant::now());
            let [said, ended, stop] = poll_some(
                [
                    is_open.then_some((self.written.as_fd(), PollFlags::POLLIN)),
                    Some((self.process.as_fd(), PollFlags::POLLIN)),
                    Some((stopped.as_fd(), PollFlags::POLLIN)),
                ],
                Some(left),
            )?;
            if !stop.is_empty() {
                return Ok(None);
            }
            // Whoever writes without an end is late as well.
            let is_late = left.is_zero();
            if !ended.is_empty() && (said.is_empty() || is_late) {
                let status = self.child.wait().context("wait for the check")?;
                break status.code().unwrap_or(-1);
            } else if is_late {
                output = format!("Health check exceeded timeout ({timeout:?})").into_bytes();
                break -1;
            } else if !said.is_empty() {
                is_open = self.read(&mut output)?;
            }
        };
        output.truncate(OUTPUT);
        let output = String::from_utf8_lossy(&output).into_owned();
        Ok(Some(Check { start: self.begun, end: Timestamp::now(), exit_code, output }))
    }
    // ANCHOR_END: result

    /// Reads what there is. Returns whether there may be more.
    fn read(&mut self, output: &mut Vec<u8>) -> Result<bool> {
        let count = ioctl_fionread(&self.written).context("look at a pipe")?.max(1).min(OUTPUT as u64);
        let mut buffer = vec![0; count as usize];
        let count = self.written.read(&mut buffer).context("read what the check writes")?;
        if output.len() < OUTPUT {
            output.extend_from_slice(&buffer[..count]);
        }
        Ok(count > 0)
    }
}

impl Drop for Probe {
    /// Ends its command, and then it: its command is its child, and of whoever is killed somebody
    /// else has to reap the children. A container cannot end while one of them is a zombie.
    fn drop(&mut self) {
        let _ = self.process.signal(DAY, END_OF_A_CHECK);
        if !self.process.has_ended(Some(PATIENCE)).unwrap_or(false) {
            let _ = self.child.kill();
        }
        // (One that has ended was reaped, or is now.)
        let _ = self.child.wait();
    }
}
