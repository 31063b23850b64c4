//! Day 18: hooks: programs that are called at moments of a container's life, with its state on their stdin.
//! (config.md, "POSIX-platform Hooks")

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::container::Container;
use crate::error::Result;
use crate::explain::{shell, step};
use crate::kernel;
use crate::report::{ABANDONED, Report};
use crate::wait::A_MOMENT;

use super::DAY;
use super::spec::{Hook, Hooks};
use super::store::{Kept, Status};

/// Calls `hooks`, one after the other. The first that fails is an error, and the rest are not called.
pub fn call(hooks: &[Hook], moment: &str, kept: &Kept, status: Status) -> Result<()> {
    hooks.iter().try_for_each(|hook| {
        call_one(hook, kept, status).with_context(|| format!("the hook {:?} ({moment})", hook.path))
    })
}

// ANCHOR: call_one
fn call_one(hook: &Hook, kept: &Kept, status: Status) -> Result<()> {
    // ANCHOR: day18_task5_call_one_solution
    let mut command = Command::new(&hook.path);
    if let Some((name, arguments)) = hook.args.split_first() {
        command.arg0(name).args(arguments);
    }
    let pairs = hook.env.iter().filter_map(|text| text.split_once('='));
    command.env_clear().envs(pairs).stdin(Stdio::piped());
    let describe = || (format!("execve({:?})", hook.path), shell(&hook.path).to_string());
    kernel::begin_as_a_hook(&mut command);
    let mut child = step(DAY, describe, || command.spawn())?;
    // One that does not want to know may have closed it.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(kept.state(status).to_string().as_bytes()));
    let until = hook
        .timeout
        .and_then(|seconds| Instant::now().checked_add(Duration::from_secs(u64::try_from(seconds).ok()?)));
    loop {
        let ended = if until.is_none() { Some(child.wait()?) } else { child.try_wait()? };
        match ended {
            Some(status) if status.success() => return Ok(()),
            Some(status) => bail!("it failed: {status}"),
            None if until.is_some_and(|until| Instant::now() >= until) => {
                let _ = child.kill();
                child.wait()?;
                bail!("it took longer than its {} s", hook.timeout.unwrap_or_default());
            }
            None => sleep(A_MOMENT),
        }
    }
    // ANCHOR_END: day18_task5_call_one_solution
}
// ANCHOR_END: call_one

/// The two ends by which the hooks on the host and the child take turns: they come when the child has mounted
/// all, and it goes on when they are done.
#[derive(Debug)]
pub struct Turns {
    host: UnixStream,
    child: UnixStream,
}

/// What the child hears when they have all succeeded. No text of an error begins with it.
const DONE: u8 = 0;

impl Turns {
    /// Those of `hooks`; `None`: none of them is called on the host before the command.
    pub fn of(hooks: Option<&Hooks>) -> Result<Option<Turns>> {
        let is_needed =
            hooks.is_some_and(|hooks| !hooks.prestart.is_empty() || !hooks.create_runtime.is_empty());
        let pair = is_needed.then(UnixStream::pair).transpose().context("make a pair of sockets")?;
        Ok(pair.map(|(host, child)| Turns { host, child }))
    }

    // ANCHOR: on_host
    /// Parent: calls them when it is their turn. By a thread, for the child needs this process
    /// meanwhile; it ends when they are done, or the child has ended.
    pub fn call_on_host(self, hooks: &Hooks, kept: &Kept) {
        let Turns { mut host, child } = self;
        drop(child);
        let (hooks, kept) = (hooks.clone(), kept.clone());
        thread::spawn(move || {
            if host.read_exact(&mut [0]).is_err() {
                return;
            }
            let called = call(&hooks.prestart, "prestart", &kept, Status::Creating)
                .and_then(|()| call(&hooks.create_runtime, "createRuntime", &kept, Status::Creating));
            let said = called.map_or_else(|error| format!("{error:#}").into_bytes(), |()| vec![DONE]);
            // The child has ended if it does not hear this.
            let _ = host.write_all(&said);
        });
    }
    // ANCHOR_END: on_host

    /// Child: it is their turn. Returns when they are done.
    pub fn wait_for_host(self) -> Result<()> {
        let Turns { host, mut child } = self;
        drop(host);
        let mut said = Vec::new();
        child.write_all(b"!").and_then(|()| child.read_to_end(&mut said)).context("wait for the hooks")?;
        match &said[..] {
            [DONE] => Ok(()),
            [] => bail!(ABANDONED),
            error => bail!("{}", String::from_utf8_lossy(error)),
        }
    }
}

/// What the child of this process calls when its command is started: it is another moment than all that a
/// mechanism has, for it comes after the last steps.
static AT_START: OnceLock<(Vec<Hook>, Kept)> = OnceLock::new();

/// Child: see [`call_at_start`].
pub fn plan_for_start(hooks: &[Hook], kept: Kept) {
    if !hooks.is_empty() {
        let _ = AT_START.set((hooks.to_vec(), kept));
    }
}

/// Child, when somebody has started it, as the command's user, with the command's powers.
pub fn call_at_start(_container: &Container, _report: &Report) -> Result<()> {
    AT_START.get().map_or(Ok(()), |(hooks, kept)| call(hooks, "startContainer", kept, Status::Created))
}
