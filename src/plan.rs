//! What a container is to be, and nothing of how that is done: what was asked for,
//! as data. The record keeps it (day 4), so that a container can be made again from
//! what is on the disk.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use clap::ValueEnum;
use nix::sched::CloneFlags;
use serde::{Deserialize, Serialize};

use crate::bytes;
pub use crate::care::{HealthCheck, Restart};
use crate::ids::UserNamespace;
use crate::privileges::Privileges;

// ANCHOR: plan
/// What a container is to be. The command line says the first of it, and every
/// mechanism's `prepare` adds what its flags ask for. Paths on the host are absolute.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// The command and its arguments.
    #[serde(with = "bytes::list")]
    pub command: Vec<OsString>,
    /// The command's environment.
    #[serde(default, with = "bytes::environment")]
    pub environment: BTreeMap<OsString, OsString>,
    /// The new namespaces it is born into.
    #[serde(default = "CloneFlags::empty", with = "flags")]
    pub namespaces: CloneFlags,
    /// Its own host name; `None`: the host's.
    pub hostname: Option<String>,
    /// The directory that becomes its `/`; `None`: the host's `/`.
    #[serde(with = "bytes::path")]
    pub rootfs: Option<PathBuf>,
    /// The directories that together become its `/`, the uppermost first, with a writable
    /// layer of its own on top; none: it has no layers.
    #[serde(default, with = "bytes::paths", skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<PathBuf>,
    /// The image that its layers and its settings are from; `None`: it is of none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageUsed>,
    /// Names and values that mean something to people and to other programs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The ports that its image is known to listen on: `80/tcp`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exposed_ports: Vec<String>,
    /// Which of its ports are to be ports of the host too, as people type it: `8080:80`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<String>,
    /// The number of the signal that asks it to end; `None`: SIGTERM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<i32>,
    /// What is mounted in it that somebody asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<MountPoint>,
    /// Whether it is forgotten when it ends.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub auto_remove: bool,
    /// Whether its `/` is read-only.
    #[serde(default)]
    pub read_only: bool,
    /// Whom the command runs as, `USER[:GROUP]`; `None`: whoever started the runtime.
    #[serde(default)]
    pub user: Option<String>,
    /// Where the command starts, seen from inside; `None`: wherever it is.
    #[serde(default, with = "bytes::path")]
    pub working_dir: Option<PathBuf>,
    /// Whether it has a terminal of its own.
    #[serde(default)]
    pub tty: bool,
    /// Whether its stdin stays open.
    #[serde(default)]
    pub interactive: bool,
    /// Whether a small init is its PID 1.
    #[serde(default)]
    pub init: bool,
    /// Its limits: files of its cgroup, and what is written into them, in order.
    #[serde(default)]
    pub limits: Vec<(String, String)>,
    /// When it is started again, once it has ended.
    #[serde(default, skip_serializing_if = "Restart::is_no")]
    pub restart: Restart,
    /// How to find out, again and again, whether it does what it is there for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthCheck>,
    /// How its log is kept, as people type it: `max-size` is `10m`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub log_options: BTreeMap<String, String>,
    /// What it is connected to; `None`: nobody said, so to all that the host is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// The networks of users that it is connected to, the first as eth0.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<Attachment>,
    /// The address it asks for; `None`: any that is free.
    #[serde(default)]
    pub ip: Option<Ipv4Addr>,
    /// The name servers it asks for; none: the host's.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
    /// What of root's power it has. (Before day 15: all that is left in its namespaces.)
    #[serde(default, skip_serializing_if = "Privileges::are_usual")]
    pub privileges: Privileges,
    /// Which ids of the host its ids are; `None`: the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_namespace: Option<UserNamespace>,
}
// ANCHOR_END: plan

/// The image that a container is of. (day 12)
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageUsed {
    /// As people write it: `alpine:latest`.
    pub name: String,
    /// Its id: the digest of its configuration.
    pub id: String,
    /// The digest of its manifest.
    pub manifest: String,
}

// ANCHOR: mount_point
/// A mount that somebody asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MountPoint {
    /// What is mounted there.
    #[serde(rename = "type")]
    pub kind: MountKind,
    /// Of a volume: its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The path on the host; `None`: it has none.
    #[serde(default, with = "bytes::path", skip_serializing_if = "Option::is_none")]
    pub source: Option<PathBuf>,
    /// Where it is mounted, seen from inside.
    #[serde(with = "bytes::one_path")]
    pub target: PathBuf,
    /// Whether nothing can be written there.
    #[serde(default)]
    pub read_only: bool,
    /// Of a volume: whether it was made for this container alone, which gave it no name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub anonymous: bool,
    /// Of a volume: whether it stays empty, whatever the root has at its place.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_copy: bool,
    /// Of a tmpfs: its options, such as `size=64m,mode=1777`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub options: String,
}

/// What a mount shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    /// A file or a directory of the host.
    Bind,
    /// A directory that is kept for containers.
    Volume,
    /// Memory, for as long as the container runs.
    Tmpfs,
}
// ANCHOR_END: mount_point

// ANCHOR: network
/// What a container is connected to.
#[derive(Debug, Clone, Copy, PartialEq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// Everything that the host has: its interfaces and its ports (no isolation)
    Host,
    /// Nothing but itself: a loopback interface
    #[value(alias = "isolated")]
    None,
    /// The other containers, the host, and through it the outside world (day 9)
    Bridge,
    /// Networks that somebody has made, by name (day 14)
    #[value(skip)]
    User,
}
// ANCHOR_END: network

/// How a container is connected to a network that somebody has made. (day 14)
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attachment {
    /// The network's name.
    pub network: String,
    /// What the container is called there, besides its name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// The address it asks for; `None`: any that is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<Ipv4Addr>,
}

// ANCHOR: published_port
/// A port of the host that leads to one of the container's. (day 13)
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PublishedPort {
    /// What is spoken there.
    pub protocol: Protocol,
    /// Which of its own.
    pub container_port: u16,
    /// The host's address; `None`: all that it has, of IPv4 and of IPv6.
    pub address: Option<IpAddr>,
    /// Which of the host's.
    pub host_port: u16,
}

/// What is spoken at a port. Each has ports of its own: 53/tcp is not 53/udp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Single packets.
    Udp,
}
// ANCHOR_END: published_port

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        })
    }
}

impl PublishedPort {
    /// The host's addresses as Docker writes them: `0.0.0.0` and `[::]`.
    pub fn hosts(&self) -> Vec<String> {
        match self.address {
            None => vec!["0.0.0.0".into(), "[::]".into()],
            Some(IpAddr::V4(address)) => vec![address.to_string()],
            Some(IpAddr::V6(address)) => vec![format!("[{address}]")],
        }
    }
}

impl Plan {
    /// A container like its host in everything: just a process that runs `command`,
    /// with this process's environment.
    pub fn new(command: Vec<OsString>) -> Plan {
        Plan { command, environment: std::env::vars_os().collect(), ..Plan::nothing() }
    }

    /// Whether its `/` is not the host's.
    pub fn has_own_root(&self) -> bool {
        self.rootfs.is_some() || !self.layers.is_empty()
    }

    /// No command, and no environment: what is known of a plan that cannot be read.
    pub fn nothing() -> Plan {
        Plan {
            command: vec![],
            environment: BTreeMap::new(),
            namespaces: CloneFlags::empty(),
            hostname: None,
            rootfs: None,
            layers: vec![],
            image: None,
            labels: BTreeMap::new(),
            exposed_ports: vec![],
            publish: vec![],
            stop_signal: None,
            mounts: vec![],
            auto_remove: false,
            read_only: false,
            user: None,
            working_dir: None,
            tty: false,
            interactive: false,
            init: false,
            limits: vec![],
            restart: Restart::No,
            health: None,
            log_options: BTreeMap::new(),
            network: None,
            networks: vec![],
            ip: None,
            dns: vec![],
            privileges: Privileges::default(),
            user_namespace: None,
        }
    }
}

/// Flags of clone3 by their names: `["CLONE_NEWPID"]`.
mod flags {
    use nix::sched::CloneFlags;
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    pub fn serialize<S: Serializer>(flags: &CloneFlags, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(flags.iter_names().map(|(name, _)| name))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<CloneFlags, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        let flag = |name: &String| {
            CloneFlags::from_name(name).ok_or_else(|| D::Error::custom(format!("no namespace {name:?}")))
        };
        names.iter().map(flag).collect()
    }
}
