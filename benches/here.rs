//! `make bench`, its part on this machine: from starting the runtime to its exit, with
//! `/bin/true` as the command, and everything on but a cgroup (this machine may have
//! version 1). The state is on this machine's disk, and once more in memory: nobody is
//! to wait for the disk. Against the kernel's floor (floor.c, its files on the disk) and
//! crun, which makes no bridge, no record and no log.
//!
//! It works in a network namespace and a mount namespace of its own. Needs root, and
//! `make rootfs`.
#![allow(clippy::unwrap_used, missing_docs)]

mod chart;
mod oci;
mod turns;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statfs::{FsType, TMPFS_MAGIC, statfs};
use turns::Turns;

fn main() {
    let rootfs = Path::new(env!("CARGO_MANIFEST_DIR")).join("rootfs/busybox");
    assert!(rootfs.is_dir(), "{rootfs:?} is missing: make rootfs");
    let namespaces = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
    unshare(namespaces).unwrap_or_else(|errno| panic!("unshare: {errno} (is this run by root?)"));
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();

    let place = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("here");
    let [disk, memory] = ["disk", "memory"].map(|name| place.join(name));
    let _ = fs::remove_dir_all(&disk);
    for dir in [&disk, &memory] {
        fs::create_dir_all(dir).unwrap();
    }
    // No cgroups for anyone: machines differ in them, and crun refuses some. And a /run in memory,
    // as a machine has it that was booted. (file-hierarchy(7))
    for place in [Path::new("/sys/fs/cgroup"), Path::new("/run"), &memory] {
        mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    }
    let kind = statfs(&disk).unwrap().filesystem_type();
    if kind == TMPFS_MAGIC {
        println!("{disk:?} is in memory as well: no disk is measured");
    }

    let mut turns = Turns::new(200, Duration::from_millis(100));
    turns.add("floor", floor(&disk.join("floor"), &rootfs));
    turns.add("tiny-docker", tiny_docker(&disk, &rootfs));
    turns.add("in memory", tiny_docker(&memory, &rootfs));
    match oci::command("crun", &["--cgroup-manager=disabled"], &disk, &rootfs, &["network"]) {
        Ok(crun) => turns.add("crun", crun),
        Err(reason) => eprintln!("crun left out: {reason}"),
    }
    turns.measure();
    turns.report("start to exit of /bin/true on this machine, with everything on but a cgroup");
    println!("in memory: tiny-docker with its state on a tmpfs; of the others it is on {}", name_of(kind));
    draw(&turns, kind);
    turns.limit("tiny-docker", "BENCH_HERE_LIMIT", "floor");
    turns.limit("tiny-docker", "BENCH_DISK_LIMIT", "in memory");
    turns.limit("tiny-docker", "BENCH_HERE_CRUN_LIMIT", "crun");
    fs::remove_dir_all(&disk).unwrap();
}

/// BENCH_HERE_SVG=FILE: the chart.
fn draw(turns: &Turns, kind: FsType) {
    let Some(file) = std::env::var_os("BENCH_HERE_SVG") else { return };
    let labels = [
        ("floor", "floor".to_string()),
        ("tiny-docker", format!("ours, {}", name_of(kind))),
        ("in memory", "ours, tmpfs".to_string()),
        ("crun", "crun".to_string()),
    ];
    let rows: Vec<(&str, f64)> =
        labels.iter().filter_map(|(name, label)| Some((label.as_str(), turns.median(name)?))).collect();
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let version: Vec<&str> = release.trim().split('.').take(2).collect();
    let machine = format!("medians; Linux {}, not in QEMU, no cgroup", version.join("."));
    fs::write(file, chart::draw(&rows, "", &[], &machine)).unwrap();
}

fn name_of(kind: FsType) -> String {
    // statfs(2)
    match kind.0 {
        0xef53 => "ext4".into(),
        0x5846_5342 => "xfs".into(),
        0x9123_683e => "btrfs".into(),
        0x0102_1994 => "tmpfs".into(),
        0x794c_7630 => "overlayfs".into(),
        other => format!("file system {other:#x}"),
    }
}

fn tiny_docker(dir: &Path, rootfs: &Path) -> Command {
    let mut run = Command::new(env!("CARGO_BIN_EXE_tiny-docker"));
    run.args(["run", "--rootfs"]).arg(rootfs).arg("/bin/true");
    run.env("TINY_DOCKER_ROOT", dir.join("tiny-docker"));
    run
}

/// The floor, and the bridge that it expects.
fn floor(state: &Path, rootfs: &Path) -> Command {
    fs::create_dir_all(state).unwrap();
    let link = ["link", "add", "floor0", "address", "02:74:0a:0b:00:01", "up", "type", "bridge"];
    for words in [&link[..], &["address", "add", "10.11.0.1/24", "dev", "floor0"]] {
        assert!(Command::new("ip").args(words).status().unwrap().success());
    }
    let program = oci::compiled_floor(&["-DCGROUP=0"]);
    let mut command = Command::new(program);
    command.arg("--all").arg(state).arg(rootfs).arg("/bin/true");
    command
}
