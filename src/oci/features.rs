//! Day 18: `features`: what a caller may ask of this runtime. (OCI runtime-spec, features.md)

use rustix::thread::CapabilitySet;
use serde_json::{Value, json};

use crate::seccomp::profile::FLAGS;

use super::namespaces::KINDS;
use super::numa;
use super::numbers::names;
use super::options::Options;
use super::spec::VERSION;

/// The document. It says what the program can do, whatever the kernel can.
pub fn document() -> Value {
    let capabilities: Vec<String> =
        CapabilitySet::all().iter_names().map(|(name, _)| format!("CAP_{name}")).collect();
    let flags = FLAGS.map(|(name, _)| name);
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": Options::known(),
        "linux": {
            "namespaces": KINDS.map(|(name, _)| name),
            "capabilities": capabilities,
            "cgroup": {"v1": false, "v2": true, "systemd": true, "systemdUser": false, "rdma": true},
            "seccomp": {
                "enabled": true,
                "actions": [
                    "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS",
                    "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP",
                ],
                "operators": [
                    "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT",
                    "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE",
                ],
                "archs": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"],
                "knownFlags": flags,
                "supportedFlags": flags,
            },
            "apparmor": {"enabled": true},
            "selinux": {"enabled": true},
            "intelRdt": {"enabled": false},
            "memoryPolicy": {"modes": names(&numa::MODES), "flags": names(&numa::FLAGS)},
            "netDevices": {"enabled": true},
            "mountExtensions": {"idmap": {"enabled": true}},
        },
        "annotations": {},
    })
}
