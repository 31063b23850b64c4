//! Day 4: a record as people see it, with `inspect` and with `--format json`.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use jiff::Timestamp;
use serde::Serialize;

use crate::ids::UserNamespace;
use crate::metadata::health::Health;
use crate::metadata::record::{Record, Status};
use crate::plan::{Attachment, ImageUsed, MountPoint, Network, PublishedPort};
use crate::privileges::Privileges;
use crate::wait::signal_name;

/// A record as `inspect` shows it: as text, and of the plan what people ask for first.
#[derive(Debug, Serialize)]
pub struct Shown<'a> {
    version: u32,
    id: &'a str,
    name: Option<&'a str>,
    command: Vec<String>,
    hostname: Option<&'a str>,
    rootfs: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    layers: Vec<String>,
    status: Status,
    created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<Timestamp>,
    pid: Option<i32>,
    start_time: Option<u64>,
    boot_id: Option<&'a str>,
    exit_code: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    restart: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    restart_count: Option<u32>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    log_options: &'a BTreeMap<String, String>,
    signal: Option<&'a str>,
    finished_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<&'a ImageUsed>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    exposed_ports: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_signal: Option<String>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    mounts: &'a [MountPoint],
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<Network>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    networks: &'a [Attachment],
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<Ipv4Addr>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    ports: &'a [PublishedPort],
    #[serde(skip_serializing_if = "Option::is_none")]
    oom_killed: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    paused: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<&'a Health>,
    #[serde(skip_serializing_if = "Privileges::are_usual")]
    privileges: &'a Privileges,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_namespace: Option<&'a UserNamespace>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unreadable: Option<&'a str>,
}

impl<'a> From<&'a Record> for Shown<'a> {
    fn from(record: &'a Record) -> Shown<'a> {
        Shown {
            version: record.version,
            id: &record.id,
            name: record.name.as_deref(),
            command: record.command(),
            hostname: record.plan.hostname.as_deref(),
            rootfs: record.plan.rootfs.as_ref().map(|dir| dir.to_string_lossy().into_owned()),
            layers: record.plan.layers.iter().map(|dir| dir.to_string_lossy().into_owned()).collect(),
            status: record.status,
            created_at: record.created_at,
            started_at: record.started_at,
            pid: record.pid,
            start_time: record.start_time,
            boot_id: record.boot_id.as_deref(),
            exit_code: record.exit_code,
            restart: Some(record.plan.restart.to_string()).filter(|_| !record.plan.restart.is_no()),
            restart_count: Some(record.restarts).filter(|_| !record.plan.restart.is_no()),
            log_options: &record.plan.log_options,
            signal: record.signal.as_deref(),
            finished_at: record.finished_at,
            image: record.plan.image.as_ref(),
            labels: &record.plan.labels,
            exposed_ports: &record.plan.exposed_ports,
            stop_signal: record.plan.stop_signal.map(signal_name),
            mounts: &record.plan.mounts,
            network: record.plan.network,
            networks: &record.plan.networks,
            address: record.address,
            ports: &record.ports,
            oom_killed: record.oom_killed,
            reason: record.reason.as_deref(),
            paused: record.paused,
            health: record.health.as_ref(),
            privileges: &record.plan.privileges,
            user_namespace: record.plan.user_namespace.as_ref(),
            unreadable: record.unreadable.as_deref(),
        }
    }
}
