//! What of root's power a container has, and what bounds it: as data. The record keeps it, and
//! `run`, `exec` and a restart apply the same. (day 15)

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::bytes;

// ANCHOR: privileges
/// What of root's power a container has.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Privileges {
    /// All of it: every capability and every device, and nothing of the host is hidden.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub privileged: bool,
    /// The capabilities that are added to the usual ones, by name, such as `CAP_NET_ADMIN`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cap_add: Vec<String>,
    /// Those that are taken away from them. What is in both lists is there, as with Docker.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cap_drop: Vec<String>,
    /// Its five sets of capabilities, exactly: then the two lists above say nothing. (day 18)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exactly: Option<ExactSets>,
    /// Whether no program can gain any, set-user-ID or not. (prctl(2), PR_SET_NO_NEW_PRIVS)
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_new_privileges: bool,
    /// The AppArmor profile that confines it; `None`: the caller's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apparmor: Option<String>,
    /// The parts of its SELinux label that somebody has given, by their names: `type` is
    /// `container_t`. The others are the caller's.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub label: BTreeMap<String, String>,
    /// The profile that says which system calls it may make: the text of it, or `unconfined`;
    /// `None`: the usual one. (day 16)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<String>,
    /// Its resource limits, by their names without `RLIMIT_`, in lower case.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub ulimits: BTreeMap<String, Ulimit>,
    /// The host's devices that it has, besides those that every container has.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
    /// Settings of its own kernel namespaces: `net.ipv4.ip_forward` is `1`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    /// The groups that its command is in besides its user's own: names or numbers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// How gladly the kernel kills it when memory is short, from -1000, never, to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// How much memory its /dev/shm may take, in bytes; `None`: 64 MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shm_size: Option<u64>,
}
// ANCHOR_END: privileges

/// The five sets of a process's capabilities, a bit for each. (day 18; capabilities(7))
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ExactSets {
    pub bounding: u64,
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub ambient: u64,
}

/// A resource limit; `None`: there is none. (getrlimit(2))
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ulimit {
    /// What counts.
    pub soft: Option<u64>,
    /// How far a process may raise it by itself.
    pub hard: Option<u64>,
}

/// A device of the host that a container has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// What it is called on the host.
    #[serde(with = "bytes::one_path")]
    pub host: PathBuf,
    /// What it is called in the container.
    #[serde(with = "bytes::one_path")]
    pub target: PathBuf,
    /// Of `rwm` what is allowed: reading, writing, making another node for it.
    pub access: String,
}

impl Privileges {
    /// Whether nobody has asked for anything: it is as every container is.
    pub fn are_usual(&self) -> bool {
        *self == Privileges::default()
    }

    /// Whether the child's last step, when it is its command's user already, takes a capability.
    pub fn needs_power_at_the_end(&self) -> bool {
        let exactly = self.exactly.is_some();
        exactly || !self.ulimits.is_empty() || self.apparmor.is_some() || !self.label.is_empty()
    }
}
