//! Day 17: who makes the overlay of a container with a user namespace.
//!
//! Not its own root: an overlay marks what is removed in attributes that the host's root alone may
//! write, and so are the layers of images written (`trusted.overlay.…`). And not the runtime: the layers,
//! mapped to the container's ids, must be mounts of the maker's own namespace. So it is one more process,
//! with mounts of its own. It is born before the child, for later the runtime may have several threads; it
//! waits until there is a user namespace; and what it has made goes to the child, over a socket.
//!
//! ```text
//! runtime  clone3(helper)   clone3(child)   the maps   ──→ its user namespace ──→   … waits for its end
//! helper        └─ waits ────────────────────────────────┴ layers, overlay ──→ root, end
//! child                          └─ waits at the gate ──────────────────────────┴ receives its root
//! ```

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, pipe2, setfsgid, setfsuid};
use rustix::thread::{capabilities, set_capabilities};

use crate::container::Container;
use crate::error::Result;
use crate::explain::{self, step};
use crate::ids::UserNamespace;
use crate::kernel::{self, Clone};
use crate::layers::inside::dies_with;
use crate::layers::overlay;
use crate::logs::rights;
use crate::namespaces::make_mounts_private;
use crate::rootfs::mount::{Dir, attach_on, take, take_open};
use crate::wait::{Child, readable};

use super::DAY;
use super::birth::{CannotBeMapped, map_mount};
use super::shifted;

/// The process that makes it.
#[derive(Debug)]
pub struct Builder {
    child: Child,
    /// By which it gets the user namespace.
    line: UnixStream,
    /// Why it could not do it.
    words: File,
}

// ANCHOR: begin
impl Builder {
    /// The process that will make the root of `container`; `None`: it has no layers. This process must
    /// have one thread.
    pub fn begin(container: &mut Container, users: &UserNamespace) -> Result<Option<Builder>> {
        let Container { plan, parts, .. } = container;
        let Some(dir) = parts.dir.as_deref().filter(|_| !plan.layers.is_empty()) else { return Ok(None) };
        let (line, its_line) = UnixStream::pair().context("make a socket pair")?;
        let (root_comes, root_goes) = UnixStream::pair().context("make a socket pair")?;
        let (words, mut say) = pipe2(OFlag::O_CLOEXEC).map(|(r, w)| (File::from(r), File::from(w)))?;
        let describe =
            || ("clone3(no flags): a process that makes its root".into(), "unshare --mount … &".into());
        let runtime = std::process::id();
        // SAFETY: the caller has one thread.
        match step(DAY, describe, || unsafe { kernel::clone3(CloneFlags::empty(), None) })? {
            Clone::Parent(pid, pidfd) => {
                parts.root_comes = Some(root_comes);
                Ok(Some(Builder { child: Child::new(pid, pidfd), line, words }))
            }
            Clone::Child => {
                drop((line, words, root_comes));
                explain::in_child();
                let outcome = dies_with(runtime, &CloneFlags::empty())
                    .and_then(|()| work(&plan.layers, dir, users, &its_line, &root_goes, runtime));
                if let Err(error) = &outcome {
                    let _ = say.write_all(format!("{error:#}").as_bytes());
                }
                kernel::exit_now(u8::from(outcome.is_err()))
            }
        }
    }

    /// Parent, once the maps are written: has it make the root, and send it to the child.
    pub fn build(mut self, users: &File) -> Result<()> {
        let mut words = Vec::new();
        let told = rights::send(&self.line, &[users.as_fd()]);
        // A copy takes its time, and Ctrl-C is heard meanwhile.
        readable(&self.words, None, "the container's root to be made")?;
        self.words.read_to_end(&mut words).context("hear of the process that makes the root")?;
        match self.child.reap_soon()? {
            Some(status) if status.success() => told.context("tell the process that makes the root"),
            Some(_) if !words.is_empty() => bail!("{}", String::from_utf8_lossy(&words)),
            Some(status) => bail!("the process that makes the container's root was killed ({status})"),
            None => bail!("the process that makes the container's root does not end"),
        }
    }
}
// ANCHOR_END: begin

/// The process itself.
fn work(
    layers: &[PathBuf],
    dir: &Path,
    users: &UserNamespace,
    line: &UnixStream,
    root_goes: &UnixStream,
    runtime: u32,
) -> Result<()> {
    let namespace = rights::receive(line).context("receive the user namespace")?.pop();
    let namespace = File::from(namespace.context("the runtime gave up")?);
    let describe = || ("unshare(CLONE_NEWNS)".into(), "unshare --mount".into());
    step(DAY, describe, || unshare(CloneFlags::CLONE_NEWNS))?;
    make_mounts_private()?;
    let root = if shifted::is_there(dir) {
        shifted::build(layers, dir, users)?
    } else {
        match build(layers, dir, users, &namespace, runtime) {
            Err(error) if error.downcast_ref::<CannotBeMapped>().is_some() => {
                shifted::build(layers, dir, users)?
            }
            built => built?,
        }
    };
    rights::send(root_goes, &[root.as_fd()]).context("send the root")
}

// ANCHOR: build
/// The overlay of the container's ids: each layer is mapped to them, its own layer too. So on the disk
/// there are ids from 0 on, whatever the container's are, and all containers share the layers. Returns a
/// mount that is attached nowhere.
fn build(
    layers: &[PathBuf],
    dir: &Path,
    users: &UserNamespace,
    namespace: &File,
    runtime: u32,
) -> Result<OwnedFd> {
    // ANCHOR: day17_task4_build_solution
    let open = |layer: &Path| {
        let mount = take(DAY, layer).with_context(|| format!("open the layer {layer:?}"))?;
        map_mount(&mount, namespace).with_context(|| format!("the layer {layer:?}"))?;
        Ok(mount)
    };
    let get_ready = |lower: &[OwnedFd], own: &OwnedFd| {
        // Where they are attached does not matter. What counts is that they are.
        let path = overlay::own_layer(dir);
        let somewhere = File::open(&path).with_context(|| format!("open {path:?}"))?;
        let somewhere = Dir::new(somewhere.into(), path);
        for mount in lower.iter().chain([own]) {
            attach_on(DAY, mount, &somewhere)?;
        }
        make_files_as(users, runtime)
    };
    let root = overlay::build_of(layers, dir, &open, &get_ready)?;
    take_open(DAY, root.as_fd(), "the overlay")
    // ANCHOR_END: day17_task4_build_solution
}
// ANCHOR_END: build

/// What this process makes from here on, and what the kernel makes for the overlay in its name, is root's
/// inside. The host's root is nobody in the mapped layers: the kernel could not make the directory that an
/// overlay works in (EOVERFLOW), and would mount it read-only without a word.
///
/// With that change go the capabilities about files; they are still permitted. (capabilities(7), "Effect
/// of user ID changes on capabilities")
fn make_files_as(users: &UserNamespace, runtime: u32) -> Result<()> {
    let (uid, gid) = (users.uids.outside, users.gids.outside);
    let describe = || {
        let call = format!("setfsgid({gid}), setfsuid({uid}), capset(effective: all that are permitted)");
        (call, "no shell can do that".into())
    };
    step(DAY, describe, || {
        // They return who it was, and no error.
        setfsgid(Gid::from_raw(gid));
        setfsuid(Uid::from_raw(uid));
        let mut sets = capabilities(None)?;
        sets.effective = sets.permitted;
        set_capabilities(None, sets)
    })?;
    // With who it was, the kernel has forgotten that it dies with the runtime. (prctl(2))
    dies_with(runtime, &CloneFlags::empty())
}
