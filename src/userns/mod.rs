//! Day 17: user namespaces. *Can root inside be nobody outside?*
//!
//! ```text
//! inside      0      1 …  65535         who somebody is, for all that asks inside
//!             │      │      │           uid_map, gid_map: written once, by the parent
//! host  1879048192   …193   …          who that is for the kernel, and for all other files
//!             │      │      │           idmapped mounts: the container's own files, and no others
//! disk        0      1 …  65535         whose they are
//! ```
//!
//! Until today root in a container is root: what holds it are the days before. In a user namespace
//! user 0 has all capabilities over what belongs to that namespace, its mounts, its network, its
//! host name; and over everything else it is somebody whom the host does not know.
//! (user_namespaces(7))

pub mod birth;
pub mod builder;
pub mod entrance;
pub mod flag;
pub mod holder;
pub mod network;
pub mod person;
pub mod place;
pub mod ranges;
pub mod shifted;

use anyhow::{Context, bail};
use nix::sched::CloneFlags;
use nix::unistd::Pid;

use crate::container::{Container, Mechanism};
use crate::error::Result;
use crate::ids::{self, UserNamespace};
use crate::metadata::layout::root_of;
use crate::metadata::state::State;
use crate::plan::{Network, Plan};
use crate::seccomp::{Filtered, FilteredExec};

use self::builder::Builder;
use self::flag::Mode;
use self::network::Forwarded;
use self::ranges::Lease;

const DAY: u8 = 17;

/// Whose terminals are, as day 3 makes them. (pts(4))
const TTY: u32 = 5;

/// The flags of days 15 and 16, and whose ids the container has.
#[derive(Debug, clap::Args)]
pub struct Remapped {
    #[command(flatten)]
    filtered: Filtered,

    /// A user namespace: auto (ids that are nobody's), host (none), or UID:GID[:COUNT] that 0 is outside
    #[arg(long, value_name = "MODE", env = "TINY_DOCKER_USERNS", value_parser = flag::parse)]
    userns: Option<Mode>,

    /// While it is held, its ids are nobody else's.
    #[arg(skip)]
    lease: Option<Lease>,

    /// Without root: its ports, as the host has them.
    #[arg(skip)]
    forwarded: Forwarded,

    /// Makes its overlay, once its user namespace is there.
    #[arg(skip)]
    builder: Option<Builder>,
}

/// The same for `exec`: it has the container's.
#[derive(Debug, clap::Args)]
pub struct RemappedExec {
    #[command(flatten)]
    filtered: FilteredExec,
}

// ANCHOR: mechanism
impl Mechanism for Remapped {
    fn prepare(&mut self, container: &mut Container) -> Result<()> {
        // One that is made from its record stays what it was.
        let planned = container.plan.user_namespace.take().filter(|_| container.end.kept);
        let mode = self.userns.filter(|_| !container.end.kept);
        container.plan.namespaces.remove(CloneFlags::CLONE_NEWUSER);
        self.filtered.prepare(container)?;
        container.plan.user_namespace = self.choose(container, mode, planned)?;
        let Some(users) = container.plan.user_namespace.clone() else { return self.without(container) };
        check(&container.plan)?;
        container.plan.namespaces |= CloneFlags::CLONE_NEWUSER;
        if !container.parts.only_made {
            birth::prepare(container, &users, self.filtered.take_nodes())?;
            self.builder = Builder::begin(container, &users)?;
        }
        Ok(())
    }

    // The last of all: the child has nothing to do before it has ids.
    fn attach(&mut self, container: &mut Container, child: Pid) -> Result<()> {
        self.forwarded = Forwarded::open(&container.parts.ports)?;
        let Some(users) = &container.plan.user_namespace else { return Ok(()) };
        birth::write_maps(child, users)?;
        birth::give_what_root_inside_cannot_take(child, &container.plan)?;
        let namespace = birth::open_namespace(child)?;
        birth::map_mounts(&mut container.parts.unmapped, users, &namespace)?;
        self.builder.take().map_or(Ok(()), |builder| builder.build(&namespace))
    }

    fn enter(&mut self, container: &mut Container) -> Result<()> {
        self.filtered.enter(container)
    }

    fn cleanup(&mut self, container: &mut Container) -> Result<()> {
        self.forwarded = Forwarded::default();
        // Where it was not needed any more: it has all that the runtime has locked.
        self.builder = None;
        self.filtered.cleanup(container)
    }
}

impl Mechanism for RemappedExec {
    fn prepare(&mut self, container: &mut Container) -> Result<()> {
        if let Some(users) = container.plan.user_namespace.clone() {
            birth::make_streams_over(container, &users);
            container.parts.first_step = Some(birth::become_root);
        }
        self.filtered.prepare(container)
    }

    fn enter(&mut self, container: &mut Container) -> Result<()> {
        self.filtered.enter(container)
    }
}
// ANCHOR_END: mechanism

impl Remapped {
    /// Of a container that has none: if the runtime is in one itself, no device is made there either.
    fn without(&mut self, container: &mut Container) -> Result<()> {
        if !ids::are_not_the_hosts() || container.parts.only_made {
            return Ok(());
        }
        birth::take_devices(container, self.filtered.take_nodes())
    }

    /// Which user namespace the container is to have. `planned`: what its record says.
    fn choose(
        &mut self,
        container: &Container,
        mode: Option<Mode>,
        planned: Option<UserNamespace>,
    ) -> Result<Option<UserNamespace>> {
        let asked = match (mode, &planned) {
            (None, None) | (Some(Mode::Host), _) => return Ok(None),
            (Some(Mode::Given { uids, gids }), _) => {
                return Ok(Some(UserNamespace { uids, gids, auto: false }));
            }
            (None, Some(planned)) if !planned.auto => return Ok(Some(planned.clone())),
            (None, Some(planned)) => Some(planned.uids),
            (Some(Mode::Auto), _) => None,
        };
        let dir = container.parts.dir.as_deref().context("the container has no directory")?;
        let state = State::at(root_of(dir)?.to_owned());
        let lease = ranges::lease(&state, container.parts.id.as_deref(), asked)?;
        if asked.is_some_and(|before| before != lease.uids) && shifted::is_there(dir) {
            bail!(
                "--userns auto: the ids from {} on, in which the container's files are, are another container's; \
                 stop that one, and start this one again",
                planned.map_or(0, |planned| planned.uids.outside)
            );
        }
        let users = UserNamespace { uids: lease.uids, gids: lease.gids, auto: true };
        self.lease = Some(lease);
        Ok(Some(users))
    }
}

/// Errors for what a container with a user namespace cannot have.
fn check(plan: &Plan) -> Result<()> {
    if ids::are_not_the_hosts() {
        bail!(
            "--userns: this runtime is in a user namespace already, and its ids are all that it has; expected \
             --userns host, which is the same one"
        );
    }
    if let Some(users) = plan.user_namespace.as_ref().filter(|_| plan.has_own_root())
        && users.gids.count <= TTY
    {
        bail!(
            "--userns: {} ids are too few: terminals belong to group {TTY}; expected at least {}",
            users.gids.count,
            TTY + 1
        );
    }
    if plan.privileges.privileged {
        bail!(
            "--privileged is all of root's power over the host, and root of a user namespace has none; expected \
             one of the two: --userns host"
        );
    }
    if matches!(plan.network, None | Some(Network::Host)) {
        bail!(
            "--net host is the host's network, and root of a user namespace has no power over that; expected a \
             network of its own, such as --net bridge, or --userns host"
        );
    }
    Ok(())
}
