//! `vm/bench.sh runtime`: the OCI runtime of day 18, from `run` to its exit, with `/bin/true` as the command
//! and the config.json that podman 4.3 writes for `podman run` (podman.json): Docker's filter of system
//! calls, capabilities, masked paths, devices, a cgroup. Against crun and runc, in turns.
//!
//! `cargo bench --bench runtime`, as root, does the same here, without cgroups, and so without runc.
//! BENCH_CRUN=FILE is another crun to compare with.
#![allow(clippy::unwrap_used, missing_docs)]

mod turns;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use turns::Turns;

fn main() {
    let in_guest = Path::new("/payload").is_dir();
    let rounds = std::env::var("BENCH_ROUNDS").map_or(200, |rounds| rounds.parse().unwrap());
    let (dir, rootfs) = if in_guest {
        ("/var/lib/bench".into(), "/rootfs/busybox".into())
    } else {
        let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
        (Path::new(env!("CARGO_TARGET_TMPDIR")).join("runtime"), crate_dir.join("rootfs/busybox"))
    };
    let own = if in_guest { "tiny-runc".into() } else { env!("CARGO_BIN_EXE_tiny-runc").to_string() };
    let other = std::env::var("BENCH_CRUN").ok();

    let mut turns = Turns::new(rounds, Duration::from_millis(300));
    for (name, program) in [
        ("tiny-runc", Some(own)),
        ("crun", Some("crun".into())),
        ("runc", Some("runc".into())),
        ("BENCH_CRUN", other),
    ] {
        let Some(program) = program else { continue };
        // It cannot do without cgroups, and here they may be of version 1.
        if name == "runc" && !in_guest {
            continue;
        }
        let bundle = bundle(&dir.join(name), &rootfs, name, in_guest);
        let options: &[&str] = if in_guest { &[] } else { &["--cgroup-manager", "disabled"] };
        match run(&program, options, &bundle, name) {
            Ok(command) => turns.add(name, command),
            Err(reason) if in_guest || name == "tiny-runc" => panic!("{name}: {reason}"),
            Err(reason) => println!("without {name}: {reason}"),
        }
    }
    turns.measure();
    turns.report("start to exit of /bin/true with podman's config.json");
    for (variable, other) in [
        ("BENCH_RUNTIME_CRUN_LIMIT", "crun"),
        ("BENCH_RUNTIME_RUNC_LIMIT", "runc"),
        ("BENCH_RUNTIME_OTHER_LIMIT", "BENCH_CRUN"),
    ] {
        turns.limit("tiny-runc", variable, other);
    }
}

/// How `program` runs `bundle`, if it can.
fn run(program: &str, options: &[&str], bundle: &Path, name: &str) -> Result<Command, String> {
    let mut command = Command::new(program);
    command.args(options).arg("--root").arg(bundle.join("state")).args(["run", "--bundle"]).arg(bundle);
    command.arg(format!("bench-{name}"));
    match command.output() {
        Ok(output) if output.status.success() => Ok(command),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// A bundle in `dir`: podman's, but for what is of that one container.
fn bundle(dir: &Path, rootfs: &Path, name: &str, with_cgroups: bool) -> PathBuf {
    fs::create_dir_all(dir.join("shm")).unwrap();
    let mut config: Value = serde_json::from_str(include_str!("podman.json")).unwrap();
    config["process"]["args"] = json!(["/bin/true"]);
    config["root"]["path"] = json!(rootfs);
    for mount in config["mounts"].as_array_mut().unwrap() {
        let source = mount["source"].as_str().unwrap_or_default();
        if !source.starts_with('/') {
            continue;
        }
        let own = dir.join(Path::new(source).file_name().unwrap());
        if !own.is_dir() {
            fs::write(&own, "").unwrap();
        }
        mount["source"] = json!(own);
    }
    let linux = config["linux"].as_object_mut().unwrap();
    linux.insert("cgroupsPath".into(), json!(format!("/bench-{name}")));
    if !with_cgroups {
        linux.remove("resources");
        linux.remove("cgroupsPath");
        // Not every machine lets its root raise them.
        config["process"].as_object_mut().unwrap().remove("rlimits");
        let is_cgroup = |one: &Value| one["type"] == "cgroup";
        config["mounts"].as_array_mut().unwrap().retain(|mount| !is_cgroup(mount));
        config["linux"]["namespaces"].as_array_mut().unwrap().retain(|one| !is_cgroup(one));
    }
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
    dir.into()
}
