//! Day 18: a program that decides about system calls. It listens at a unix socket, and gets a descriptor by
//! which the kernel asks it. (seccomp_unotify(2); OCI runtime-spec, config-linux.md, "Seccomp")

use std::fs::File;
use std::io::Write;
use std::mem::forget;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;

use anyhow::{Context, bail};
use rustix::fs::{MemfdFlags, memfd_create};
use serde_json::json;

use crate::container::Container;
use crate::error::Result;
use crate::explain::step;
use crate::kernel;
use crate::logs::rights;
use crate::seccomp::answer::Action;
use crate::seccomp::attach::explained;
use crate::seccomp::profile::Profile;

use super::DAY;
use super::spec::VERSION;
use super::store::{Kept, Status};

/// The call by which the child hands the descriptor over. The program does not have it yet, so it cannot
/// decide about this one.
const HANDS_OVER: &str = "sendmsg";

/// Somebody who listens.
#[derive(Debug)]
pub struct Listener {
    socket: UnixStream,
    metadata: String,
    /// What it is told along with the descriptor. The parent writes it, for it knows the process's number; the
    /// child reads it, for it has the descriptor.
    text: File,
}

impl Listener {
    /// Parent: whoever decides about calls of `profile`; `None`: nobody does. There are paths to it still. Who is
    /// named is told, as with crun, also if there is nothing to decide.
    pub fn of(profile: &Profile) -> Result<Option<Listener>> {
        if profile.default_action == Action::Notify {
            bail!(
                "defaultAction is SCMP_ACT_NOTIFY; expected another one: what a start takes would be asked about"
            );
        }
        if profile.notifies().any(|name| name == HANDS_OVER) {
            bail!(
                "SCMP_ACT_NOTIFY for {HANDS_OVER}: by that call the listener gets to know; expected other calls"
            );
        }
        let Some(path) = &profile.listener_path else {
            if profile.notifies().next().is_some() {
                bail!("SCMP_ACT_NOTIFY: expected listenerPath, the socket of who decides");
            }
            return Ok(None);
        };
        let socket =
            UnixStream::connect(path).with_context(|| format!("listenerPath: connect to {path:?}"))?;
        let text = memfd_create("listener", MemfdFlags::CLOEXEC).context("memfd_create")?.into();
        Ok(Some(Listener { socket, metadata: profile.listener_metadata.clone().unwrap_or_default(), text }))
    }

    // ANCHOR: tell
    /// Parent: writes down what it is told of the process `pid` of a container. (config-linux.md, "The
    /// Container Process State")
    pub fn tell(mut self, pid: i32, kept: &Kept, status: Status) -> Result<()> {
        let text = json!({
            "ociVersion": VERSION,
            "fds": ["seccompFd"],
            "pid": pid,
            "metadata": self.metadata,
            "state": kept.state(status),
        });
        self.text.write_all(text.to_string().as_bytes()).context("write down what the listener is told")
    }
    // ANCHOR_END: tell

    /// Child, past the gate: reads it, while it may.
    pub fn ready(self) -> Result<()> {
        let mut text = vec![0; self.text.metadata()?.len() as usize];
        // Both processes have one and the same position in it.
        self.text.read_exact_at(&mut text, 0).context("read what the listener is told")?;
        let _ = AT_ATTACH.set((self.socket, text));
        Ok(())
    }
}

/// Of the child: whom it tells what. A last step is a function without data.
static AT_ATTACH: OnceLock<(UnixStream, Vec<u8>)> = OnceLock::new();

// ANCHOR: attach
/// Child, instead of day 16's `attach`: the same, and hands the descriptor over.
pub fn attach_and_hand_over(container: &Container) -> Result<()> {
    let Some(filter) = &container.parts.filter else { return Ok(()) };
    let (socket, text) = AT_ATTACH.get().context("there is no listener")?;
    let describe = || ("seccomp(…, SECCOMP_FILTER_FLAG_NEW_LISTENER, …)".into(), "(no shell can)".into());
    let attached =
        step(DAY, describe, || kernel::attach_call_filter_and_listen(&filter.program, filter.flags));
    let listened = attached.map_err(explained)?;
    let describe = || ("sendmsg(listenerPath, SCM_RIGHTS)".into(), "(no shell can)".into());
    step(DAY, describe, || rights::send_with(socket, text, &[listened.as_fd()])).context(
        "the listener got no descriptor; expected that it listens, and that the filter allows sendmsg",
    )?;
    // The exec closes it. By close(2) it could be asked about.
    forget(listened);
    Ok(())
}
// ANCHOR_END: attach
