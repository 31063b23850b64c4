//! Day 10: what day 15 needs of this machine, beyond what the days before it need.

use anyhow::Context;
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, capability_is_in_bounding_set};

use crate::cgroups::place;
use crate::error::Result;
use crate::files::{has_apparmor, has_selinux};
use crate::kernel;

use super::{Found, fine};

/// Of eBPF: r0 = 1, exit. Whoever asks it may have any device.
const YES: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 1, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];

/// What a container can have at most is what this process can. (capabilities(7))
pub fn bounding_set() -> Result<Found> {
    let mut lacking = Vec::new();
    for (name, capability) in CapabilitySet::all().iter_names() {
        match capability_is_in_bounding_set(capability) {
            Ok(true) => {}
            Ok(false) => lacking.push(format!("CAP_{name}")),
            // An older kernel does not know it, and asks for it nowhere.
            Err(Errno::INVAL) => {}
            Err(error) => return Err(error).context("prctl(PR_CAPBSET_READ)"),
        }
    }
    match lacking.len() {
        0 => fine("all can be given"),
        _ => Ok(Found::Note(
            format!("nobody started from here can have {}", lacking.join(", ")),
            "containers do without them; to give one to a container, start from a shell that has it",
        )),
    }
}

/// The kernel takes a program, and it is attached to nothing. (bpf(2))
pub fn device_filter() -> Result<Found> {
    kernel::load_device_program(&YES, &mut []).context("bpf(BPF_PROG_LOAD, BPF_PROG_TYPE_CGROUP_DEVICE)")?;
    if place::place().is_err() {
        return Ok(Found::Note(
            "there is no place for cgroups, and so none for a filter: containers get no CAP_MKNOD".into(),
            "see cgroup version 2",
        ));
    }
    fine("takes our programs")
}

/// The modules that give labels; a container has one if somebody asks for it.
pub fn labels() -> Result<Found> {
    fine(match (has_apparmor(), has_selinux()) {
        (true, true) => "AppArmor, SELinux",
        (true, false) => "AppArmor",
        (false, true) => "SELinux",
        (false, false) => "neither AppArmor nor SELinux: --security-opt apparmor=… and label=… are errors",
    })
}
