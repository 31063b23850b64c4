//! Day 10: `doctor` finds what is there, and what is not, and changes nothing. (That
//! it leaves nothing behind, the harness says.)
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use common::{Setting, World, alive, binary, pid, supervisor, until};
use nix::sys::signal::{Signal, kill};
use serde_json::Value;

/// What `doctor --json` says after `preparation`, a piece of shell, in a mount and a
/// network namespace of its own.
fn doctor(world: &World, preparation: &str) -> (i32, Vec<Value>) {
    let script = format!("set -e; {preparation}\nexec {} doctor --json", binary().display());
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "sh", "-c", &script]).current_dir(world.dir());
    read(command.output().unwrap())
}

fn read(output: Output) -> (i32, Vec<Value>) {
    let findings = serde_json::from_slice(&output.stdout);
    (output.status.code().unwrap(), findings.unwrap_or_else(|_| panic!("{}", common::said(&output))))
}

/// The checks that found something missing.
fn missing(findings: &[Value]) -> Vec<&str> {
    let missing = findings.iter().filter(|finding| finding["verdict"] == "missing");
    missing.map(|finding| finding["check"].as_str().unwrap()).collect()
}

fn found<'a>(findings: &'a [Value], check: &str) -> &'a Value {
    findings
        .iter()
        .find(|finding| finding["check"] == check)
        .unwrap_or_else(|| panic!("no {check}: {findings:?}"))
}

/// A check by what it says, all of it.
fn words(finding: &Value) -> String {
    format!("{} {}", finding["found"].as_str().unwrap(), finding["mend"].as_str().unwrap_or_default())
}

#[test]
#[ignore = "privileged: make vm-test"]
fn where_every_day_runs_it_says_so() {
    let world = World::new();
    let output = world.tiny_docker(["doctor"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.ends_with("\nEvery day can run here.\n") && !text.contains("MISSING"), "{text}");
    // So that a table that says nothing would be seen.
    let (code, findings) = doctor(&world, ":");
    assert_eq!((code, missing(&findings)), (0, vec![]));
    for day in [1, 2, 3, 4, 5, 7, 8, 9, 11, 12, 13, 14, 15] {
        assert!(findings.iter().any(|finding| finding["day"] == day), "day {day}: {findings:?}");
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn without_root_it_says_how_to_get_it() {
    let world = World::new();
    let copy = world.dir().join("tiny-docker");
    fs::copy(binary(), &copy).unwrap();
    let mut command = Command::new(copy);
    command.args(["doctor", "--json"]).uid(65534).gid(65534);
    let (code, findings) = read(command.output().unwrap());
    assert_eq!(code, 1);
    assert!(words(found(&findings, "root's rights")).contains("sudo"), "{findings:?}");
    assert_eq!(found(&findings, "kernel")["verdict"], "ok");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn a_host_without_cgroups_lacks_day_7() {
    let world = World::new();
    let (code, findings) = doctor(&world, "umount --lazy /sys/fs/cgroup");
    assert_eq!(code, 1);
    let all = ["cgroup version 2", "memory controller", "cpu controller", "pids controller"];
    assert_eq!(missing(&findings), all);
    assert!(words(found(&findings, all[0])).contains("mount -t cgroup2"), "{findings:?}");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn a_cgroup_of_systemds_is_not_ours() {
    let world = World::new();
    let (code, findings) = doctor(&world, "mount -t tmpfs tmpfs /run; mkdir -p /run/systemd/system");
    assert_eq!(code, 1);
    assert!(words(found(&findings, "cgroup version 2")).contains("systemd-run --scope -p Delegate=yes"));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn a_layer_cannot_be_written_on_an_overlay() {
    let world = World::new();
    for dir in ["low", "up", "work", "over"] {
        fs::create_dir(world.dir().join(dir)).unwrap();
    }
    let (code, findings) = doctor(
        &world,
        "mount -t overlay -o lowerdir=low,upperdir=up,workdir=work overlay over; export TINY_DOCKER_ROOT=$PWD/over/state",
    );
    // (From day 12 on the layers of images lie there as well.)
    let missing = missing(&findings);
    assert!(code == 1 && missing.contains(&"writable layers"), "exit code {code}: {missing:?}");
    let said = words(found(&findings, "writable layers"));
    assert!(said.contains("lies on an overlay") && said.contains("--root DIR"), "{said}");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn no_namespaces_left_to_make() {
    let world = World::new();
    let none = Setting::set("/proc/sys/user/max_uts_namespaces", "0");
    let (code, findings) = doctor(&world, ":");
    drop(none);
    assert_eq!((code, missing(&findings)), (1, vec!["uts namespace"]));
    assert!(words(found(&findings, "uts namespace")).contains("sysctl"), "{findings:?}");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn a_bridge_or_a_subnet_of_somebody_elses() {
    let world = World::new();
    for (preparation, said) in [
        ("ip link add td0 type dummy", "not ours"),
        ("ip link add lan0 type dummy; ip addr add 10.10.0.9/16 dev lan0; ip link set lan0 up", "by lan0"),
    ] {
        let (code, findings) = doctor(&world, preparation);
        assert_eq!((code, missing(&findings)), (1, vec!["bridge and subnet"]));
        assert!(words(found(&findings, "bridge and subnet")).contains(said), "{findings:?}");
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn what_a_killed_runtime_left_is_noted_until_ps_has_looked() {
    let world = World::new();
    let id = world.detach(&["--net", "none"], "sleep 1000");
    let note = || {
        let (code, findings) = read(world.tiny_docker(["doctor", "--json"]).output().unwrap());
        assert_eq!(code, 0);
        (found(&findings, "containers")["verdict"].clone(), words(found(&findings, "containers")))
    };
    assert_eq!(note().0, "ok");
    let command = pid(&world, &id);
    kill(supervisor(&world, &id), Signal::SIGKILL).unwrap();
    until("the container is gone", || !alive(command));
    let (verdict, words) = note();
    assert!(verdict == "note" && words.contains("tiny-docker ps -a"), "{verdict} {words}");
    world.ps();
    assert_eq!(note().0, "ok");
    world.remove_all();
    // A cgroup that nobody knows of.
    let cgroup = "/sys/fs/cgroup/tiny-docker-0123456789ab";
    fs::create_dir(cgroup).unwrap();
    let (_, findings) = read(world.tiny_docker(["doctor", "--json"]).output().unwrap());
    fs::remove_dir(cgroup).unwrap();
    assert!(self::words(found(&findings, "cgroups left behind")).contains("tiny-docker-0123456789ab"));
}
