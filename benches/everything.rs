//! `make bench`, its part in the VM: from starting the runtime to its exit, with
//! `/bin/true` as the command, and all that the days up to 16 bring: record, log,
//! memory limit, its own network on a bridge, capabilities, device filter, seccomp. Against the
//! kernel's floor (floor.c), crun and runc.
//!
//! vm/bench.sh puts the programs into the guest, and makes what the floor needs.
#![allow(clippy::unwrap_used, missing_docs)]

mod chart;
mod oci;
mod turns;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use turns::Turns;

const ROOTFS: &str = "/rootfs/busybox";
/// On the guest's disk, as it is for a user: a tmpfs would make syncs free.
const STATE: &str = "/var/lib/bench";

fn main() {
    assert!(Path::new("/payload").is_dir(), "this runs in the VM: make bench");
    let rounds = std::env::var("BENCH_ROUNDS").map_or(200, |rounds| rounds.parse().unwrap());
    let floor_state = format!("{STATE}/floor");
    fs::create_dir_all(&floor_state).unwrap();

    let mut turns = Turns::new(rounds, Duration::from_millis(300));
    turns.add("floor", command("floor", &["--all", &floor_state, ROOTFS, "/bin/true"]));
    turns.add("tiny-docker", tiny_docker(&[]));
    for (runtime, options) in [("crun", &["--cgroup-manager=cgroupfs"][..]), ("runc", &[])] {
        let kinds = ["network", "cgroup"];
        let command = oci::command(runtime, options, Path::new(STATE), Path::new(ROOTFS), &kinds);
        turns.add(runtime, command.unwrap_or_else(|reason| panic!("{runtime}: {reason}")));
    }
    turns.measure();
    turns.report("start to exit of /bin/true with everything on");
    println!("crun and runc: the same namespaces and limit, but no bridge, no record kept, no log");
    draw(&turns);
    turns.limit("tiny-docker", "BENCH_ALL_LIMIT", "floor");
    turns.limit("tiny-docker", "BENCH_CRUN_LIMIT", "crun");
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

fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}
