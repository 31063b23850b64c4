//! What tiny-docker is measured against: the kernel's floor, and OCI runtimes in the
//! same world (bundle.json: day 3's).
// Each bench is a program of its own, and takes from here what it needs.
#![allow(dead_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

/// Of the cgroup, in bytes.
const MEMORY: u64 = 128 << 20;

/// What a container's root may do, in the three sets that are not empty: Docker's fourteen.
const USUAL: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// `program`, an OCI runtime, with `namespaces` besides those of day 3, and with
/// "cgroup" among them a limit of its memory. An error says why it cannot run here.
pub fn command(
    program: &str,
    options: &[&str],
    dir: &Path,
    rootfs: &Path,
    namespaces: &[&str],
) -> Result<Command, String> {
    let bundle = bundle(program, dir, rootfs, namespaces, &[]);
    let mut command = Command::new(program);
    command.args(options).args(["run", "--bundle"]).arg(&bundle).arg("tiny-docker-bench");
    match command.output() {
        Ok(output) if output.status.success() => Ok(command),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// The bundle for it. `words`: its command; without any, the one that bundle.json has.
pub fn bundle(program: &str, dir: &Path, rootfs: &Path, namespaces: &[&str], words: &[&str]) -> PathBuf {
    let mut config: Value = serde_json::from_str(include_str!("../bundle.json")).unwrap();
    config["root"]["path"] = json!(rootfs);
    if !words.is_empty() {
        config["process"]["args"] = json!(words);
    }
    config["process"]["capabilities"] = json!({ "bounding": USUAL, "effective": USUAL, "permitted": USUAL });
    let linux = &mut config["linux"];
    let kinds = namespaces.iter().map(|kind| json!({ "type": kind }));
    linux["namespaces"].as_array_mut().unwrap().extend(kinds);
    if namespaces.contains(&"cgroup") {
        linux["cgroupsPath"] = json!(format!("/bench-{program}"));
        // Memory and swap together, which is to say no swap.
        linux["resources"] = json!({ "memory": { "limit": MEMORY, "swap": MEMORY }, "devices": devices() });
        linux["seccomp"] = seccomp();
        config["mounts"].as_array_mut().unwrap().push(json!({
            "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "ro"],
        }));
    }
    let bundle = dir.join(program);
    fs::create_dir_all(&bundle).unwrap();
    fs::write(bundle.join("config.json"), config.to_string()).unwrap();
    bundle
}

/// Which devices its processes may use: Docker's list. (The runtimes add null and its kin.)
fn devices() -> Value {
    json!([
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "c", "access": "m" },
        { "allow": true, "type": "b", "access": "m" },
    ])
}

/// Which system calls it may make: Docker's profile, as Docker hands it to a runtime for a container
/// with the usual capabilities.
fn seccomp() -> Value {
    let machine = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let mut profile: Value = serde_json::from_str(include_str!("../../src/seccomp/usual.json")).unwrap();
    let own = usize::from(machine == "arm64");
    let mut architectures = vec![profile["archMap"][own]["architecture"].clone()];
    architectures.extend(profile["archMap"][own]["subArchitectures"].as_array().unwrap().iter().cloned());
    profile["architectures"] = json!(architectures);
    profile.as_object_mut().unwrap().remove("archMap");
    // What excludes somebody excludes those with CAP_SYS_ADMIN alone.
    let rules = profile["syscalls"].as_array_mut().unwrap();
    rules.retain(|rule| {
        let all = |kind: &str, had: &str| {
            rule["includes"][kind].as_array().is_none_or(|names| names.iter().any(|name| name == had))
        };
        all("caps", "CAP_SYS_CHROOT") && all("arches", machine)
    });
    for rule in rules {
        let rule = rule.as_object_mut().unwrap();
        rule.remove("includes");
        rule.remove("excludes");
    }
    profile
}

/// benches/floor.c as a program.
pub fn compiled_floor(options: &[&str]) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/floor.c");
    let program = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("floor{}", options.concat()));
    let compiled = Command::new("cc")
        .args(["-O2", "-static"])
        .args(options)
        .arg("-o")
        .arg(&program)
        .arg(source)
        // What it includes is named from here.
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .unwrap();
    assert!(compiled.success());
    program
}
