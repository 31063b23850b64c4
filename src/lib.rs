//! **tiny-docker-rs**: a small Docker, one Linux mechanism a day.
//!
//! Each day has a folder, with its mechanism in `mod.rs` and its helpers beside it.
//! Day 1 is the heart, the files that stand here beside the folders.
//!
//! | day | where | the question |
//! | --- | --- | --- |
//! | 1 | [`cli`], [`container`] | Can I execute a command through my own CLI? |
//! | 2 | `namespaces` | Can I run it inside new Linux namespaces? |
//! | 3 | `rootfs` | Can I give it a different root filesystem? |
//! | 4 | `metadata` | Can I remember what I started? |
//! | 5 | `logs` | Can I capture logs? |
//! | 6 | `stop` | Can I stop a running container? |
//! | 7 | `cgroups` | Can I limit memory? |
//! | 8 | `netns` | Can I isolate networking? |
//! | 9 | `net` | Can I connect it to the outside world? |
//! | 10 | `doctor` | Can I explain the architecture clearly? |
//! | 11 | `layers` | Can containers share what they do not change? |
//! | 12 | `images` | Can I run what somebody else has packed? |
//! | 13 | `ports` | Can the world reach in? |
//! | 14 | `exec`, `supervise`, `networks` | Can it look after itself? |
//! | 15 | `capabilities` | Root, but how much of it? |
//! | 16 | `seccomp` | Which questions may it ask the kernel? |
//! | 17 | `userns` | Can root inside be nobody outside? |
//! | 18 | `oci` | Can somebody else drive it? |
//!
//! Read [`container`] first: a container is a process, and mechanisms shape its
//! world. [`plan`] says what it is to be, [`privileges`] what of root's power it has, [`ids`] whose
//! ids it has,
//! [`inherited`] what of its caller stays with it, [`identity`] gives it its user, [`command`]
//! becomes the command, [`report`] tells whether it did, [`wait`] waits for it.
//! [`kernel`] holds the few system calls that no library wraps, [`files`] reads and writes
//! what the kernel shows as files, [`explain`] is the narration, [`stream`] the one way to
//! write to stdout and stderr, [`error`] has the exit codes.

mod bytes;
pub mod care;
pub mod cli;
pub mod clone;
pub mod command;
pub mod container;
pub mod error;
pub mod explain;
mod fault;
pub mod files;
pub mod identity;
pub mod ids;
pub mod inherited;
pub mod kernel;
pub mod plan;
pub mod privileges;
pub mod report;
pub mod stream;
pub mod wait;

#[cfg(feature = "day2-namespaces")]
pub mod namespaces;

#[cfg(feature = "day3-rootfs")]
pub mod rootfs;

#[cfg(feature = "day4-metadata")]
pub mod metadata;

#[cfg(feature = "day5-logs")]
pub mod logs;

#[cfg(feature = "day6-stop")]
pub mod stop;

#[cfg(feature = "day7-cgroups")]
pub mod cgroups;

#[cfg(feature = "day8-netns")]
pub mod netns;

#[cfg(feature = "day9-net")]
pub mod net;

// Day 10 has no feature of its own: it looks at what all days need.
#[cfg(feature = "day9-net")]
pub mod doctor;

#[cfg(feature = "day11-layers")]
pub mod layers;

#[cfg(feature = "day12-images")]
pub mod images;

#[cfg(feature = "day13-ports")]
pub mod ports;

#[cfg(feature = "day14-exec")]
pub mod exec;

#[cfg(feature = "day14-exec")]
pub mod networks;

#[cfg(feature = "day14-exec")]
pub mod supervise;

#[cfg(feature = "day15-capabilities")]
pub mod capabilities;

#[cfg(feature = "day16-seccomp")]
pub mod seccomp;

#[cfg(feature = "day17-userns")]
pub mod userns;

#[cfg(feature = "day18-oci")]
pub mod oci;
