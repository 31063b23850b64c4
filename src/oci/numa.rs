//! Day 18: from which memory nodes a process gets its memory: `linux.memoryPolicy`. (set_mempolicy(2),
//! numa(7))

use anyhow::{Context, bail};

use crate::error::Result;
use crate::explain::step;
use crate::kernel;

use super::DAY;
use super::numbers::{MOST, of_flags, of_list, of_word};
use super::spec::linux::Linux;

/// The specification's names. (Linux, `linux/mempolicy.h`: libc lacks two.)
pub const MODES: [(&str, i32); 7] = [
    ("MPOL_DEFAULT", libc::MPOL_DEFAULT),
    ("MPOL_BIND", libc::MPOL_BIND),
    ("MPOL_INTERLEAVE", libc::MPOL_INTERLEAVE),
    ("MPOL_WEIGHTED_INTERLEAVE", 6),
    ("MPOL_PREFERRED", libc::MPOL_PREFERRED),
    ("MPOL_PREFERRED_MANY", 5),
    ("MPOL_LOCAL", libc::MPOL_LOCAL),
];

/// What changes how a mode is meant.
pub const FLAGS: [(&str, i32); 3] = [
    ("MPOL_F_NUMA_BALANCING", libc::MPOL_F_NUMA_BALANCING),
    ("MPOL_F_RELATIVE_NODES", libc::MPOL_F_RELATIVE_NODES),
    ("MPOL_F_STATIC_NODES", libc::MPOL_F_STATIC_NODES),
];

/// A policy, as the kernel takes it.
struct Policy {
    /// With its flags.
    mode: i32,
    /// A bit for each node; empty: none.
    nodes: Vec<u64>,
}

/// Parent: errors, if `linux.memoryPolicy` is none, before anything is made.
pub fn check(linux: &Linux) -> Result<()> {
    policy(linux).map(drop)
}

/// Child: gets its memory as `linux.memoryPolicy` says, and so do all that it becomes and makes.
/// Errors: set_mempolicy(2); EINVAL: the machine has none of the nodes, or ENOSYS: its kernel knows no nodes.
pub fn apply(linux: &Linux) -> Result<()> {
    let (Some(policy), Some(asked)) = (policy(linux)?, &linux.memory_policy) else { return Ok(()) };
    let describe = || {
        let (mode, nodes, flags) = (&asked.mode, &asked.nodes, asked.flags.join(" | "));
        (format!("set_mempolicy({mode}, nodes {nodes:?}, flags {flags:?})"), "numactl …".into())
    };
    step(DAY, describe, || kernel::set_memory_policy(policy.mode, &policy.nodes))
        .context("linux.memoryPolicy: expected nodes, a mode and flags that this machine and its kernel have")
}

/// `None`: nothing is said.
fn policy(linux: &Linux) -> Result<Option<Policy>> {
    let Some(asked) = &linux.memory_policy else { return Ok(None) };
    if asked.mode.is_empty() && asked.nodes.is_empty() && asked.flags.is_empty() {
        return Ok(None);
    }
    let mode = of_word("linux.memoryPolicy.mode", &MODES, &asked.mode)?;
    let flags = of_flags("linux.memoryPolicy.flags", &FLAGS, &asked.flags)?;
    let nodes = of_list("linux.memoryPolicy.nodes", &asked.nodes)?;
    let wanted = match mode {
        libc::MPOL_DEFAULT | libc::MPOL_LOCAL if !nodes.is_empty() => "none",
        // Without one it is as MPOL_LOCAL.
        libc::MPOL_DEFAULT | libc::MPOL_LOCAL | libc::MPOL_PREFERRED => "",
        _ if nodes.is_empty() => "one at least, such as 0",
        _ => "",
    };
    if !wanted.is_empty() {
        bail!("linux.memoryPolicy.nodes is {:?} with {}; expected {wanted}", asked.nodes, asked.mode);
    }
    let both = libc::MPOL_F_STATIC_NODES | libc::MPOL_F_RELATIVE_NODES;
    if flags & both == both {
        bail!(
            "linux.memoryPolicy.flags has MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES; expected one of them"
        );
    }
    let mut bits = if nodes.is_empty() { vec![] } else { vec![0; MOST / 64] };
    nodes.into_iter().for_each(|node| bits[node / 64] |= 1 << (node % 64));
    Ok(Some(Policy { mode: mode | flags, nodes: bits }))
}
