//! Day 18: `linux` of a bundle's config.json. (config-linux.md)

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::null::or_null;
use super::resources::Resources;

// ANCHOR: linux
/// What there is on Linux alone.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Linux {
    /// Which namespaces it does not share with the host.
    #[serde(deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<Namespace>,
    /// Of a new user namespace: who its users are on the host.
    #[serde(deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub uid_mappings: Vec<IdMapping>,
    /// The same of its groups.
    #[serde(deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub gid_mappings: Vec<IdMapping>,
    /// Of a new time namespace: how far its clocks, `monotonic` and `boottime`, are ahead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_offsets: Option<BTreeMap<String, TimeOffset>>,
    /// The nodes that are made in it.
    #[serde(deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
    /// Network interfaces of the host's that become its own, by their names there. (1.3)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub net_devices: Option<BTreeMap<String, NetDevice>>,
    /// Where in the tree of cgroups it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroups_path: Option<String>,
    /// How much of the machine it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Kernel parameters of its own namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sysctl: Option<BTreeMap<String, String>>,
    /// Which system calls it may make: a profile as day 16 reads it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<Box<RawValue>>,
    /// What is mounted elsewhere later: whether it comes in, and out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rootfs_propagation: Option<String>,
    /// What is hidden in it.
    #[serde(deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub masked_paths: Vec<PathBuf>,
    /// What is read-only in it.
    #[serde(deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub readonly_paths: Vec<PathBuf>,
    /// The SELinux label of what is mounted in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mount_label: Option<String>,
    /// Intel's Resource Director Technology.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intel_rdt: Option<serde_json::Value>,
    /// On which memory nodes it allocates. (1.3)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_policy: Option<MemoryPolicy>,
    /// Which other system it looks like.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub personality: Option<Personality>,
}
// ANCHOR_END: linux

/// A namespace: a new one, or one that is there.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Namespace {
    /// `pid`, `network`, `mount`, `ipc`, `uts`, `user`, `cgroup`, `time`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Where it is; nothing: it is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
}

/// A range of ids.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMapping {
    /// From which id on, inside.
    #[serde(rename = "containerID")]
    pub container_id: u32,
    /// Which that is on the host.
    #[serde(rename = "hostID")]
    pub host_id: u32,
    /// How many there are.
    pub size: u32,
}

/// How far a clock is ahead.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct TimeOffset {
    pub secs: i64,
    pub nanosecs: u32,
}

/// A node of a device. (mknod(2))
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// Where, seen from inside.
    pub path: PathBuf,
    /// `c` or `u`, `b`, `p`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Which driver.
    #[serde(default)]
    pub major: i64,
    /// Which of its devices.
    #[serde(default)]
    pub minor: i64,
    /// Its permissions; `None`: 0666.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_mode: Option<u32>,
    /// Whose it is, inside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// See `uid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
}

/// A network interface.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NetDevice {
    /// What it is called inside; nothing: the same.
    pub name: Option<String>,
}

/// From which memory nodes memory comes. (set_mempolicy(2))
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryPolicy {
    /// `MPOL_BIND`.
    pub mode: String,
    /// A list, such as `0-3,7`.
    #[serde(deserialize_with = "or_null", skip_serializing_if = "String::is_empty")]
    pub nodes: String,
    /// `MPOL_F_STATIC_NODES`.
    #[serde(deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
}

/// An execution domain. (personality(2))
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Personality {
    /// `LINUX` or `LINUX32`.
    pub domain: String,
    /// The specification knows none.
    #[serde(deserialize_with = "or_null")]
    pub flags: Vec<String>,
}
