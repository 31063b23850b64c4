//! **tiny-docker-rs**: a small Docker, one Linux mechanism a day.
//!
//! | file | day | the question |
//! | --- | --- | --- |
//! | [`cli`] | 1 | Can I execute a command through my own CLI? |
//! | [`container`] | 1 | the heart: a container is a process, and mechanisms shape its world |
//! | `namespaces` | 2 | Can I run it inside new Linux namespaces? |
//! | `rootfs`, `devices`, `process` | 3 | Can I give it a different root filesystem? |
//! | `metadata`, `record`, `state`, `ps` | 4 | Can I remember what I started? |
//! | `logs`, `log_file`, `log_reader`, `terminal`, `supervisor` | 5 | Can I capture logs? |
//! | `stop`, `init` | 6 | Can I stop a running container? |
//! | `cgroups`, `cgroup_place`, `traces`, `stats` | 7 | Can I limit memory? |
//! | `netns`, `netlink` | 8 | Can I isolate networking? |
//! | `bridge`, `subnet`, `address`, `nat`, `nftables`, `nfnetlink`, `etc`, `network` | 9 | Can I connect it to the outside world? |
//! | `doctor` | 10 | Can I explain the architecture clearly? |
//!
//! [`kernel`] holds the few system calls that no library wraps, [`explain`] the
//! narration, [`error`] the exit codes. Read [`container`] first.

pub mod cli;
pub mod command;
pub mod container;
pub mod error;
pub mod explain;
mod fault;
pub mod kernel;
pub mod wait;

#[cfg(feature = "day2-namespaces")]
pub mod mount;
#[cfg(feature = "day2-namespaces")]
pub mod namespaces;

#[cfg(feature = "day3-rootfs")]
pub mod devices;
#[cfg(feature = "day3-rootfs")]
pub mod process;
#[cfg(feature = "day3-rootfs")]
pub mod rootfs;

#[cfg(feature = "day4-metadata")]
pub mod metadata;
#[cfg(feature = "day4-metadata")]
pub mod ps;
#[cfg(feature = "day4-metadata")]
pub mod record;
#[cfg(feature = "day4-metadata")]
pub mod state;
#[cfg(feature = "day4-metadata")]
pub mod traces;

#[cfg(feature = "day5-logs")]
pub mod log_file;
#[cfg(feature = "day5-logs")]
pub mod log_reader;
#[cfg(feature = "day5-logs")]
pub mod logs;
#[cfg(feature = "day5-logs")]
pub mod supervisor;
#[cfg(feature = "day5-logs")]
pub mod terminal;

#[cfg(feature = "day6-stop")]
pub mod init;
#[cfg(feature = "day6-stop")]
pub mod stop;

#[cfg(feature = "day7-cgroups")]
pub mod cgroup_place;
#[cfg(feature = "day7-cgroups")]
pub mod cgroups;
#[cfg(feature = "day7-cgroups")]
pub mod stats;

#[cfg(feature = "day8-netns")]
pub mod netlink;
#[cfg(feature = "day8-netns")]
pub mod netns;

#[cfg(feature = "day9-net")]
pub mod address;
#[cfg(feature = "day9-net")]
pub mod bridge;
// Day 10 has no feature of its own: it looks at what all days need.
#[cfg(feature = "day9-net")]
pub mod doctor;
#[cfg(feature = "day9-net")]
pub mod etc;
#[cfg(feature = "day9-net")]
pub mod nat;
#[cfg(feature = "day9-net")]
pub mod network;
#[cfg(feature = "day9-net")]
pub mod nfnetlink;
#[cfg(feature = "day9-net")]
pub mod nftables;
#[cfg(feature = "day9-net")]
pub mod subnet;
