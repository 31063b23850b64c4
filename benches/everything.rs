//! `make bench`, its part in the VM: from starting the runtime to its exit, with
//! `/bin/true` as the command, and all that the days up to 9 bring: record, log,
//! memory limit, its own network on a bridge. Against the kernel's floor (floor.c),
//! crun and runc.
//!
//! vm/bench.sh puts the programs into the guest, and makes what the floor needs.
#![allow(clippy::unwrap_used, missing_docs)]

mod chart;
mod turns;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use turns::Turns;

const ROOTFS: &str = "/rootfs/busybox";
/// On the guest's disk, as it is for a user: a tmpfs would make syncs free.
const STATE: &str = "/var/lib/bench";
const MEMORY: u64 = 128 << 20;

fn main() {
    assert!(Path::new("/payload").is_dir(), "this runs in the VM: make bench");
    let rounds = std::env::var("BENCH_ROUNDS").map_or(200, |rounds| rounds.parse().unwrap());
    let floor_state = format!("{STATE}/floor");
    fs::create_dir_all(&floor_state).unwrap();

    let mut turns = Turns::new(rounds, Duration::from_millis(100));
    turns.add("floor", command("floor", &["--all", &floor_state, ROOTFS, "/bin/true"]));
    turns.add("tiny-docker", tiny_docker(&[]));
    turns.add("crun", oci("crun", &["--cgroup-manager=cgroupfs"]));
    turns.add("runc", oci("runc", &[]));
    turns.measure();
    turns.report("start to exit of /bin/true with everything on");
    println!("crun and runc: the same namespaces and limit, but no bridge, no record kept, no log");
    draw(&turns);
    turns.limit("BENCH_ALL_LIMIT", "floor");
    turns.limit("BENCH_CRUN_LIMIT", "crun");
}

/// BENCH_SVG=FILE: the chart.
fn draw(turns: &Turns) {
    let Some(file) = std::env::var_os("BENCH_SVG") else { return };
    let rows: Vec<(&str, f64)> = ["floor", "tiny-docker", "crun", "runc"]
        .into_iter()
        .filter_map(|name| Some((name, turns.median(name)?)))
        .collect();
    let parts = chart::parts(&mut tiny_docker(&["--explain"]), 20);
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let emulated = match std::env::var("BENCH_ACCEL").as_deref() {
        Ok("kvm") => "with KVM",
        _ => "on an emulated processor",
    };
    let machine = format!("medians; Linux {} in QEMU {emulated}", release.trim());
    fs::write(file, chart::draw(&rows, "tiny-docker", &parts, &machine)).unwrap();
}

fn tiny_docker(options: &[&str]) -> Command {
    let words = ["run", "--memory", "128m", "--rootfs", ROOTFS, "/bin/true"];
    let mut run = command("tiny-docker", &[options, &words].concat());
    run.env("TINY_DOCKER_ROOT", format!("{STATE}/tiny-docker"));
    run
}

/// An OCI runtime: day 3's bundle, with a network namespace and a cgroup.
fn oci(program: &str, options: &[&str]) -> Command {
    let mut config: Value = serde_json::from_str(include_str!("bundle.json")).unwrap();
    config["root"]["path"] = json!(ROOTFS);
    let linux = &mut config["linux"];
    linux["cgroupsPath"] = json!(format!("/bench-{program}"));
    // Memory and swap together, which is to say no swap.
    linux["resources"] = json!({ "memory": { "limit": MEMORY, "swap": MEMORY } });
    let namespaces = linux["namespaces"].as_array_mut().unwrap();
    namespaces.extend([json!({ "type": "network" }), json!({ "type": "cgroup" })]);
    config["mounts"].as_array_mut().unwrap().push(json!({
        "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
        "options": ["nosuid", "noexec", "nodev", "ro"],
    }));

    let bundle = format!("{STATE}/{program}");
    fs::create_dir_all(&bundle).unwrap();
    fs::write(format!("{bundle}/config.json"), config.to_string()).unwrap();
    command(program, &[options, &["run", "--bundle", &bundle, "bench"]].concat())
}

fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}
