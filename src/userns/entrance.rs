//! Day 17: without root. A person who has ids in /etc/subuid is root in namespaces of their own, and what
//! is root there can do all that days 1 to 16 do.
//!
//! So nothing of these days has a second way for it. Before anything else, the runtime goes into these
//! namespaces, and begins anew: as root, with mounts and, for what runs containers, a network that belong
//! to the person. They are held by a process that does nothing else ([`holder`](super::holder)), for a
//! second user namespace has no power over what belongs to the first one, whatever its map is.
//! (user_namespaces(7), "Capabilities")

use std::env;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Context;
use nix::sched::{CloneFlags, setns};
use nix::unistd::geteuid;

use crate::error::Result;
use crate::explain::step;
use crate::identity::become_root_inside;
use crate::ids;
use crate::metadata::pidfd::Process;
use crate::ports;
use crate::rootfs::own_file::OWN;

use super::DAY;
use super::holder;
use super::person::Person;
use super::place::{of_this_namespace, private_data_dir};

/// Where the state directory is, as all commands hear of it.
const ROOT: &str = "TINY_DOCKER_ROOT";

// ANCHOR: enter
/// Goes on as root of the caller's own namespaces, if the caller is not root. `only_reads`: a command that
/// has nothing to say where nothing runs, and makes none. Somebody without a place for containers gets
/// none either: then the days before say what is missing.
pub fn enter(only_reads: bool) -> Result<()> {
    if geteuid().is_root() {
        return Ok(());
    }
    let person = Person::who_calls()?;
    let data = match private_data_dir(person.uid) {
        Err(_) if person.ids.is_none() => return Ok(()),
        data => data?,
    };
    let root_is_named = env::var_os(ROOT).is_some_and(|root| !root.is_empty());
    let holder = if only_reads { holder::found(&data)? } else { Some(holder::of(&person, &data)?) };
    if holder.is_none() && root_is_named {
        return Ok(());
    }
    let place = env::current_dir().context("find out where this is")?;
    let program = fs::read_link(OWN).with_context(|| format!("read {OWN}"))?;
    if let Some(holder) = holder {
        join(&holder, CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
        become_root_inside()?;
        // Whoever joins a mount namespace is at its root.
        env::set_current_dir(&place).with_context(|| format!("go back to {place:?}"))?;
    }
    let mut again = Command::new(&program);
    again.args(env::args_os().skip(1));
    if !root_is_named {
        again.env(ROOT, &data);
    }
    // Inside, the one whose home it would be is root.
    again.env("XDG_DATA_HOME", data.parent().context("the data directory is /")?);
    let describe = || (format!("execve({program:?}): the same once more"), "exec tiny-docker …".into());
    step(DAY, describe, || Err(again.exec()))
}
// ANCHOR_END: enter

/// For what runs containers, in the person's namespaces: goes into their network as well. What only
/// fetches images stays in the host's, which is nearer to the world.
pub fn connect() -> Result<()> {
    if !ids::are_not_the_hosts() {
        return Ok(());
    }
    match of_this_namespace()? {
        Some(holder) => {
            ports::PASSED_ON.get_or_init(|| ());
            join(&holder, CloneFlags::CLONE_NEWNET)
        }
        // Somebody else has made the namespace that we are root in.
        None => Ok(()),
    }
}

fn join(holder: &Process, namespaces: CloneFlags) -> Result<()> {
    let describe = || {
        let names: Vec<&str> = namespaces.iter_names().map(|(name, _)| name).collect();
        let options = crate::clone::options(namespaces);
        (format!("setns(pidfd, {})", names.join(" | ")), format!("nsenter --target PID{options}"))
    };
    step(DAY, describe, || setns(holder, namespaces))
}
