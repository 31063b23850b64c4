//! Day 18: `process` of a bundle's config.json: what runs in the container, as whom, with which powers.
//! `exec --process` takes a file with the same. (config.md, "Process")

use serde::{Deserialize, Serialize};

use super::null::or_null;

// ANCHOR: process
/// A process.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Process {
    /// Whether it has a terminal of its own.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub terminal: bool,
    /// How large that is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console_size: Option<ConsoleSize>,
    /// As whom it runs.
    pub user: User,
    /// The command and its arguments.
    #[serde(deserialize_with = "or_null")]
    pub args: Vec<String>,
    /// Its environment, `NAME=VALUE`.
    #[serde(deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Where it starts, seen from inside.
    pub cwd: String,
    /// What of root's power it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    /// Its resource limits.
    #[serde(deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub rlimits: Vec<Rlimit>,
    /// Whether no program can gain any privileges.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_new_privileges: bool,
    /// The AppArmor profile that confines it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apparmor_profile: Option<String>,
    /// Its SELinux label, all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selinux_label: Option<String>,
    /// How gladly the kernel kills it when memory is short; `None`: as whoever called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// When it gets a processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<Scheduler>,
    /// When it gets a disk.
    #[serde(rename = "ioPriority", skip_serializing_if = "Option::is_none")]
    pub io_priority: Option<IoPriority>,
    /// Of `exec`: on which processors.
    #[serde(rename = "execCPUAffinity", skip_serializing_if = "Option::is_none")]
    pub exec_cpu_affinity: Option<CpuAffinity>,
}
// ANCHOR_END: process

/// In characters.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ConsoleSize {
    pub height: u16,
    pub width: u16,
}

/// Numbers: names are the engine's business.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct User {
    /// User id, of inside.
    pub uid: u32,
    /// Primary group id, of inside.
    pub gid: u32,
    /// Which permissions are taken from what it makes; `None`: 022.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub umask: Option<u32>,
    /// Its other groups.
    #[serde(deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub additional_gids: Vec<u32>,
}

/// The five sets, by name. (capabilities(7))
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Capabilities {
    #[serde(deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub bounding: Vec<String>,
    #[serde(deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub effective: Vec<String>,
    #[serde(deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub inheritable: Vec<String>,
    #[serde(deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub permitted: Vec<String>,
    #[serde(deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub ambient: Vec<String>,
}

/// A resource limit; 2^64-1 is none. (getrlimit(2))
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Rlimit {
    /// `RLIMIT_NOFILE`.
    #[serde(rename = "type")]
    pub kind: String,
    /// How far it may be raised.
    pub hard: u64,
    /// What counts.
    pub soft: u64,
}

/// sched_setattr(2).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Scheduler {
    /// `SCHED_FIFO`.
    pub policy: String,
    pub nice: i32,
    pub priority: i32,
    #[serde(deserialize_with = "or_null")]
    pub flags: Vec<String>,
    /// Of SCHED_DEADLINE, in nanoseconds.
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// ioprio_set(2).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct IoPriority {
    /// `IOPRIO_CLASS_BE`.
    pub class: String,
    /// From 0, the first, to 7.
    pub priority: i32,
}

/// Lists of processors, such as `0-3,7`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuAffinity {
    /// Until it is in the container's cgroup.
    pub initial: Option<String>,
    /// From there on.
    #[serde(rename = "final")]
    pub last: Option<String>,
}
