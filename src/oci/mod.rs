//! Day 18: the OCI runtime. *Can somebody else drive it?*
//!
//! ```text
//! podman ── conmon ──┐
//! containerd ── shim ┴── tiny-runc create │ start │ kill │ delete ── a container
//! ```
//!
//! An engine has images, networks and logs of its own. What it does not have is what days 1 to 8 and 15 to
//! 17 are about: the process. For that it writes a *bundle*, a directory with a `config.json` and a root
//! file system, and calls a program with runc's command line. This is one: a second front door to the same
//! house. (OCI runtime-spec)
//!
//! | file | what |
//! | --- | --- |
//! | `command` | the command line |
//! | `spec` | config.json |
//! | `store` | what is remembered of a container, and how it fares |
//! | `bundle` | the mechanism: from a bundle to a `Container` |
//! | `process`, `namespaces`, `mounts`, `devices`, `cgroup`, `resources`, `hooks`, `gate`, `listener` | its parts |
//! | `schedule`, `numa`, `net_devices` | its processors, its memory nodes, its interfaces |
//! | `life`, `exec`, `running` | the commands |
//! | `log` | errors, for engines |

pub mod bundle;
pub mod cgroup;
pub mod command;
pub mod console;
pub mod devices;
pub mod end;
pub mod exec;
pub mod features;
pub mod gate;
pub mod hooks;
pub mod life;
pub mod listener;
pub mod log;
pub mod mounts;
pub mod namespaces;
pub mod net_devices;
pub mod numa;
pub mod numbers;
pub mod options;
pub mod process;
pub mod resources;
pub mod root;
pub mod running;
pub mod schedule;
pub mod spec;
pub mod store;
pub mod systemd;
pub mod template;

const DAY: u8 = 18;

/// The program. Returns what it exits with.
pub fn main() -> u8 {
    command::main()
}
