//! Day 15: capabilities. *Root, but how much of it?*
//!
//! ```text
//! parent  prepare: flags → plan.privileges        device filter → the cgroup
//! child   enter: its /dev, its sysctls, the bounding set ── setuid ── last step: limits, label,
//!                                                           the other sets, no_new_privs ── exec
//! ```
//!
//! Root is user 0, and what user 0 may do is forty-one capabilities. A container gets the
//! fourteen that programs in a file system of their own need, and no way to the others: what is
//! not in the bounding set, no exec brings back. (capabilities(7))

pub mod device_filter;
pub mod devices;
pub mod labels;
pub mod node;
pub mod own_proc;
pub mod sets;
pub mod sysctl;
pub mod ulimit;

use anyhow::bail;

use crate::cgroups::limits::parse_size;
use crate::container::{Container, Mechanism};
use crate::error::Result;
use crate::ids;
use crate::plan::Plan;
use crate::privileges::Privileges;

use self::node::Node;

const DAY: u8 = 15;

/// The flags of day 15.
#[derive(Debug, clap::Args)]
pub struct Capabilities {
    /// Add a capability, such as NET_ADMIN, or ALL
    #[arg(long, value_name = "NAME")]
    cap_add: Vec<String>,

    /// Take one away, or ALL
    #[arg(long, value_name = "NAME")]
    cap_drop: Vec<String>,

    /// All capabilities and devices, and nothing hidden: root in it is root on the machine
    #[arg(long)]
    privileged: bool,

    /// no-new-privileges, apparmor=PROFILE, or label=user|role|type|level:VALUE (SELinux)
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,

    /// Give it a device of the host; of rwm what it may do: read, write, mknod
    #[arg(long, value_name = "HOST[:CTR][:rwm]")]
    device: Vec<std::ffi::OsString>,

    /// Limit a resource, such as nofile=1024:2048; -1: no limit
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<String>,

    /// Set a kernel parameter of the container's own namespaces
    #[arg(long, value_name = "NAME=VALUE")]
    sysctl: Vec<String>,

    /// Have the command be in one more group: a name of the container's own, or a number
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,

    /// How gladly the kernel kills it when memory is short: -1000 never, 1000 first
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    oom_score_adj: Option<i32>,

    /// How much memory /dev/shm may take, such as 256m [without it: 64m]
    #[arg(long, value_name = "SIZE")]
    shm_size: Option<String>,

    /// The nodes of its /dev that are to be made.
    #[arg(skip)]
    nodes: Vec<Node>,
}

/// What day 15 adds to the flags of `exec`.
#[derive(Debug, clap::Args)]
pub struct OfExec {
    /// Give the command all capabilities
    #[arg(long)]
    privileged: bool,
}

// ANCHOR: mechanism
impl Mechanism for Capabilities {
    fn prepare(&mut self, container: &mut Container) -> Result<()> {
        let asked = self.asked()?;
        // Otherwise it is made from its record, and the plan says it.
        if !asked.are_usual() {
            container.plan.privileges = asked;
        }
        check(&container.plan)?;
        if container.parts.only_made {
            return Ok(());
        }
        let privileges = &container.plan.privileges;
        self.nodes = devices::look_up(privileges)?;
        match &container.parts.cgroup {
            _ if privileges.privileged => {}
            // Whoever is root of a user namespace alone may attach none, and can make no device. (day 17)
            Some(cgroup) if !ids::are_not_the_hosts() => {
                let rules = device_filter::rules(&self.nodes, container.parts.console.as_ref());
                device_filter::attach(cgroup, &rules)?;
            }
            _ => device_filter::do_without(container)?,
        }
        container.parts.last_steps.privileges = Some(sets::give_up_the_rest);
        Ok(())
    }

    fn enter(&mut self, container: &mut Container) -> Result<()> {
        devices::make_nodes(container.parts.dev.as_ref(), &self.nodes)?;
        sysctl::set_all(container)?;
        sets::bound(container)
    }
}

impl Mechanism for OfExec {
    fn prepare(&mut self, container: &mut Container) -> Result<()> {
        container.plan.privileges.privileged |= self.privileged;
        container.parts.unfiltered = container.parts.cgroup.is_none();
        container.parts.last_steps.privileges = Some(sets::give_up_the_rest);
        Ok(())
    }

    fn enter(&mut self, container: &mut Container) -> Result<()> {
        sets::bound(container)
    }
}
// ANCHOR_END: mechanism

impl Capabilities {
    /// What the flags ask for.
    fn asked(&self) -> Result<Privileges> {
        let mut asked = Privileges {
            privileged: self.privileged,
            cap_add: sets::names("--cap-add", &self.cap_add)?,
            cap_drop: sets::names("--cap-drop", &self.cap_drop)?,
            ulimits: ulimit::parse(&self.ulimit)?,
            devices: devices::parse(&self.device)?,
            sysctls: sysctl::parse(&self.sysctl)?,
            groups: self.group_add.clone(),
            oom_score_adj: self.oom_score_adj,
            shm_size: self.shm_size()?,
            ..Privileges::default()
        };
        labels::parse(&self.security_opt, &mut asked)?;
        Ok(asked)
    }

    /// Takes the values of `--security-opt NAME=VALUE` out of what was typed: for a later day, which
    /// knows what they mean.
    pub fn take_options(&mut self, name: &str) -> Vec<String> {
        let value = |option: &String| {
            if option == name {
                return Some(String::new());
            }
            labels::split(option).filter(|(one, _)| *one == name).map(|(_, value)| value.to_string())
        };
        let taken = self.security_opt.iter().filter_map(value).collect();
        self.security_opt.retain(|option| value(option).is_none());
        taken
    }

    /// The nodes that it would make: for a later day, which has another way.
    pub fn take_nodes(&mut self) -> Vec<Node> {
        std::mem::take(&mut self.nodes)
    }

    /// 0 is the usual size, as with Docker. For the kernel it would be no limit. (tmpfs(5))
    fn shm_size(&self) -> Result<Option<u64>> {
        let Some(text) = &self.shm_size else { return Ok(None) };
        Ok(Some(parse_size("--shm-size", text)?).filter(|bytes| *bytes > 0))
    }
}

/// Errors for what the container cannot have, before anything is made.
fn check(plan: &Plan) -> Result<()> {
    let Privileges { oom_score_adj, shm_size, devices, groups, .. } = &plan.privileges;
    if let Some(value) = oom_score_adj.filter(|value| !(-1000..=1000).contains(value)) {
        bail!("--oom-score-adj {value}: expected a number from -1000, never killed, to 1000, killed first");
    }
    let without_root = [
        ("--shm-size", shm_size.is_some()),
        ("--device", !devices.is_empty()),
        ("--group-add", !groups.is_empty() && plan.user.is_none()),
    ];
    if let Some((flag, _)) = without_root.into_iter().find(|(_, is_on)| *is_on && !plan.has_own_root()) {
        bail!("{flag} is for a container with its own /: add --image, --rootfs or --layer");
    }
    sets::check(&plan.privileges)?;
    labels::check(&plan.privileges)?;
    sysctl::check(plan)
}
