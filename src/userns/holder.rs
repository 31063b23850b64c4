//! Day 17: who holds a person's namespaces: one process for all commands of theirs. It is in the
//! namespaces and does nothing, so they stay. (podman calls its own `catatonit -P`, "the pause process")
//! Where it is written down: [`place`](super::place).

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use nix::fcntl::OFlag;
use nix::sched::CloneFlags;
use nix::sys::prctl::set_name;
use nix::unistd::{Pid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, pause, pipe2, setsid};

use crate::error::{self, Result};
use crate::explain::{self, shell, step};
use crate::files;
use crate::identity::become_root_inside;
use crate::ids::{HOW_TO_HAVE_MORE, Ids};
use crate::kernel::{self, Clone};
use crate::metadata::layout::open_to_lock;
use crate::metadata::pidfd::Process;
use crate::metadata::record::Identity;
use crate::netns::bring_loopback_up;
use crate::rootfs::mount::{Dir, Flags, attach, mount, take};
use crate::wait::{Child, PATIENCE, lock};

use super::DAY;
use super::network;
use super::person::Person;
use super::place;

// ANCHOR: of
/// The process that holds the namespaces of `person`, as `dir` says. The first command makes it.
pub fn of(person: &Person, dir: &Path) -> Result<Process> {
    let path = dir.join(place::FILE);
    let mut file = open_to_lock(&path).with_context(|| format!("open {path:?}"))?;
    lock(&file, false, Some(PATIENCE), &format!("{path:?}"))?;
    if let Some(process) = place::read(&mut file)? {
        return Ok(process);
    }
    let (child, mut release) = make(person, dir)?;
    let identity = Identity::of(child.pid.as_raw())?.context("the holder has ended")?;
    place::write(&mut file, identity)?;
    // Not before it is written down, or a kill in between would leave one that nobody knows.
    release.write_all(b"!").context("let the holder stay")?;
    // It stays: it is nobody's child soon.
    std::mem::forget(child);
    identity.process()?.context("the process that holds the namespaces has ended at once")
}
// ANCHOR_END: of

/// The same, if it is there.
pub fn found(dir: &Path) -> Result<Option<Process>> {
    match File::open(dir.join(place::FILE)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        file => place::read(&mut file.with_context(|| format!("open {:?}", dir.join(place::FILE)))?),
    }
}

// ANCHOR: make
/// Makes it. It ends unless it is told, by what is returned, that it is written down.
fn make(person: &Person, dir: &Path) -> Result<(Child, File)> {
    let pipe = || pipe2(OFlag::O_CLOEXEC).context("make a pipe");
    let ((gate, release), (hearing, say), (end, held)) = (pipe()?, pipe()?, pipe()?);
    let namespaces = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET;
    let describe = || {
        let call = "clone3(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET): it holds the namespaces";
        (call.into(), "unshare --user --mount --net sleep infinity &".into())
    };
    // SAFETY: this process has one thread.
    let child = match step(DAY, describe, || unsafe { kernel::clone3(namespaces, None) })? {
        Clone::Parent(pid, pidfd) => Child::new(pid, pidfd),
        Clone::Child => {
            drop((release, hearing, end));
            hold(gate.into(), say.into(), &held)
        }
    };
    drop((gate, say, held));
    if let Some((uids, gids)) = &person.ids {
        map("newuidmap", child.pid, person.uid.as_raw(), uids)?;
        map("newgidmap", child.pid, person.gid.as_raw(), gids)?;
    } else {
        map_one(child.pid, person)?;
    }
    let mut release = File::from(release);
    release.write_all(b"!").context("let the holder go on")?;
    let mut words = String::new();
    File::from(hearing).read_to_string(&mut words).context("hear of the holder")?;
    if words != READY {
        bail!(
            "{}",
            if words.is_empty() { "the process that holds the namespaces was killed" } else { &words }
        );
    }
    network::connect_to_the_world(child.pid, end, dir)?;
    Ok((child, release))
}
// ANCHOR_END: make

/// What it says when it is.
const READY: &str = "ready";

// ANCHOR: map
/// Has the map of `child` written: 0 is `own`, and from 1 on come `ids`. A person may write only the first
/// of it. For the rest there are two programs that are set-user-ID root, and look into /etc/subuid.
/// (newuidmap(1))
fn map(program: &str, child: Pid, own: u32, ids: &Ids) -> Result<()> {
    // ANCHOR: day17_task6_map_solution
    let numbers =
        [child.as_raw() as u32, 0, own, 1, 1, ids.outside, ids.count].map(|number| number.to_string());
    let describe = || {
        (format!("execve({program:?}, {})", numbers.join(" ")), format!("{program} {}", numbers.join(" ")))
    };
    step(DAY, describe, || {
        let output = match Command::new(program).args(&numbers).output() {
            Err(error) if error.kind() == ErrorKind::NotFound => Err(error).with_context(|| {
                format!("{program} is not installed: it is in the package uidmap, or shadow-utils")
            }),
            output => output.with_context(|| format!("execute {program}")),
        }?;
        if !output.status.success() {
            bail!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim_end());
        }
        Ok(())
    })
    // ANCHOR_END: day17_task6_map_solution
}
// ANCHOR_END: map

/// Writes the map of `child` without anybody's help: 0 is `person`, and there is nobody else. Whoever could
/// leave a group might come to what this group alone may not read, so that has to be given up first.
/// (user_namespaces(7), "The /proc/pid/setgroups file")
fn map_one(child: Pid, person: &Person) -> Result<()> {
    error::say(format!("your containers have one user, 0, which is you; for others, {HOW_TO_HAVE_MORE}"));
    let (uid, gid) = (format!("0 {} 1", person.uid), format!("0 {} 1", person.gid));
    for (name, text) in [("setgroups", "deny"), ("uid_map", &uid), ("gid_map", &gid)] {
        let file = format!("/proc/{child}/{name}");
        let describe = || (format!("write \"{text}\" > {file}"), format!("echo {text} > {file}"));
        step(DAY, describe, || files::write(&file, text))?;
    }
    Ok(())
}

/// The process itself. While it lives, `held` is open, and whoever has the other end connects it.
fn hold(mut gate: File, mut say: File, held: &OwnedFd) -> ! {
    explain::in_child();
    let words = match settle(&mut gate) {
        Ok(()) => READY.into(),
        Err(error) => format!("{error:#}"),
    };
    let _ = say.write_all(words.as_bytes());
    drop(say);
    if words != READY || gate.read_exact(&mut [0]).is_err() {
        kernel::exit_now(1)
    }
    // Nothing of its caller's stays open here, least of all a lock, a terminal or a pipe.
    let null = File::options().read(true).write(true).open("/dev/null");
    let _ = null.map(|null| (dup2_stdin(&null), dup2_stderr(&null)));
    let _ = (dup2_stdout(held), setsid(), set_name(c"td-namespaces"));
    // SAFETY: this process does nothing any more but wait for its end.
    let _ = unsafe { kernel::close_inherited_files() };
    loop {
        pause();
    }
}

/// Makes the namespaces such that root can live in them.
fn settle(gate: &mut File) -> Result<()> {
    gate.read_exact(&mut [0]).context("the command that wanted it has ended")?;
    become_root_inside()?;
    // The host's mounts come in here as slaves, by themselves: what is mounted there afterwards is seen
    // here, and what is unmounted there is not kept. And nobody's directory is.
    // (mount_namespaces(7), "Restrictions on mount namespaces")
    chdir("/").context("chdir(\"/\")")?;
    own_run()?;
    bring_loopback_up()
}

/// A /run in which root inside can make something, with all that the host's has.
fn own_run() -> Result<()> {
    const HOSTS: &str = "/run/.host";
    let hosts = take(DAY, Path::new("/run"))?;
    let run = Dir::open("/run").context("open /run")?;
    let flags = Flags::MOUNT_ATTR_NOSUID | Flags::MOUNT_ATTR_NODEV;
    let run = mount(DAY, "tmpfs", &run, "/run", flags, "mode=755")?;
    fs::create_dir(HOSTS).with_context(|| format!("make {HOSTS}"))?;
    attach(DAY, hosts, &run, HOSTS)?;
    for entry in fs::read_dir(HOSTS).with_context(|| format!("read {HOSTS}"))? {
        let name = entry.with_context(|| format!("read {HOSTS}"))?.file_name();
        // Root's containers are not ours.
        if name != "tiny-docker" {
            let link = Path::new("/run").join(&name);
            let target = Path::new(HOSTS).join(&name);
            symlink(&target, &link).with_context(|| format!("make the link {}", shell(&link)))?;
        }
    }
    Ok(())
}
