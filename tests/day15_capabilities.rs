//! Day 15: what of root's power a container has: the five sets of capabilities.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use assert_cmd::assert::Assert;
use common::{World, busybox, until};
use predicates::prelude::*;
use predicates::str::{contains, is_empty};

/// Docker's fourteen. (moby, oci/caps/defaults.go)
const USUAL: u64 = 0xa804_25fb;
/// Numbers of capabilities. (linux/capability.h)
const CHOWN: u64 = 1 << 0;
const SETUID: u64 = 1 << 7;
const NET_ADMIN: u64 = 1 << 12;
const NET_RAW: u64 = 1 << 13;
const SYS_TIME: u64 = 1 << 25;

const SETS: &str = "grep ^Cap /proc/self/status";

/// A run of busybox with `flags`, of `script`.
fn run(world: &World, flags: &[&str], script: &str) -> Assert {
    let rootfs = busybox();
    let words = ["run", "--rm", "--net", "none", "--rootfs", rootfs.to_str().unwrap()];
    world.tiny_docker([&words[..], flags, &["sh", "-c", script]].concat()).assert()
}

/// The five sets, as /proc/PID/status has them, by name.
fn sets_in(text: &str) -> BTreeMap<String, u64> {
    let sets = text.lines().filter_map(|line| line.strip_prefix("Cap")?.split_once(":\t"));
    sets.map(|(name, set)| (name.into(), u64::from_str_radix(set, 16).unwrap())).collect()
}

/// The sets of what was run.
fn sets(assert: Assert) -> BTreeMap<String, u64> {
    sets_in(&String::from_utf8_lossy(&assert.success().get_output().stdout))
}

/// What root has of `allowed`: all of it, and nothing to hand on.
fn of_root(allowed: u64) -> BTreeMap<String, u64> {
    [("Inh", 0), ("Prm", allowed), ("Eff", allowed), ("Bnd", allowed), ("Amb", 0)]
        .map(|(name, set)| (name.into(), set))
        .into()
}

/// What anybody else has.
fn of_others(allowed: u64) -> BTreeMap<String, u64> {
    [("Inh", 0), ("Prm", 0), ("Eff", 0), ("Bnd", allowed), ("Amb", 0)]
        .map(|(name, set)| (name.into(), set))
        .into()
}

/// All that there is to be had: what this process can have at most.
fn all() -> u64 {
    sets_in(&std::fs::read_to_string("/proc/self/status").unwrap())["Bnd"]
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_a_name_is_taken_with_and_without_its_prefix() {
    let world = World::new();
    let rootfs = busybox();
    let words = ["create", "--name", "web", "--rootfs", rootfs.to_str().unwrap(), "--cap-add", "net_admin"];
    let more = ["--cap-add", "CAP_SYS_TIME", "--cap-drop", "cap_Chown", "--cap-drop", "all", "true"];
    world.tiny_docker([&words[..], &more].concat()).assert().success();
    let privileges = &world.inspect("web")["privileges"];
    assert_eq!(
        privileges["cap_add"],
        serde_json::json!(["CAP_NET_ADMIN", "CAP_SYS_TIME"]),
        "as the kernel says"
    );
    assert_eq!(privileges["cap_drop"], serde_json::json!(["CAP_CHOWN", "ALL"]), "as the kernel says");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_an_unknown_name_is_an_error_that_lists_the_near_ones() {
    let world = World::new();
    for (flag, name, near) in [
        ("--cap-add", "NET_ADMN", "near it: NET_ADMIN"),
        ("--cap-drop", "CAP_SYSADMIN", "SYS_ADMIN"),
        ("--cap-add", "chwon", "near it: CHOWN"),
    ] {
        run(&world, &[flag, name], "true")
            .code(125)
            .stderr(contains(format!("{flag} {name:?}: no such capability")).and(contains(near)));
    }
    for name in ["", "CAP_", "42", "root", "CAP_CAP_CHOWN"] {
        run(&world, &["--cap-add", name], "true").code(125).stderr(contains("with or without CAP_, or ALL"));
    }
    assert_eq!(world.ps().lines().count(), 1, "nothing was made: {}", world.ps());
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_the_usual_sets_are_dockers_bit_by_bit() {
    let world = World::new();
    assert_eq!(sets(run(&world, &[], SETS)), of_root(USUAL), "root, and nobody has asked for anything");
    assert_eq!(sets(run(&world, &["-u", "1000"], SETS)), of_others(USUAL), "a user who is not root");
    // On the host's root as well.
    let output = world.tiny_docker(["run", "--rm", "--net", "none", "sh", "-c", SETS]).assert();
    assert_eq!(sets(output), of_root(USUAL), "without a root of its own");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_with_an_init_both_have_given_it_up() {
    let world = World::new();
    let script = format!("{SETS}; echo; grep ^Cap /proc/1/status");
    let output = run(&world, &["--init"], &script).success();
    let text = String::from_utf8_lossy(&output.get_output().stdout).into_owned();
    let (command, init) = text.split_once("\n\n").unwrap_or_else(|| panic!("{text}"));
    assert_eq!(sets_in(command), of_root(USUAL), "the command");
    assert_eq!(sets_in(init), of_root(USUAL), "its init");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_what_is_added_and_dropped_is_as_with_docker() {
    let world = World::new();
    for (flags, allowed) in [
        ("--cap-add NET_ADMIN", USUAL | NET_ADMIN),
        ("--cap-drop CHOWN", USUAL & !CHOWN),
        ("--cap-drop ALL", 0),
        ("--cap-drop ALL --cap-add CHOWN --cap-add SETUID", CHOWN | SETUID),
        ("--cap-add ALL", all()),
        ("--cap-add ALL --cap-drop SYS_TIME --cap-drop NET_RAW", all() & !SYS_TIME & !NET_RAW),
        // In both lists: it is there.
        ("--cap-drop CHOWN --cap-add CHOWN", USUAL),
        ("--cap-add SYS_TIME --cap-drop SYS_TIME", USUAL | SYS_TIME),
        ("--cap-add ALL --cap-drop ALL --cap-add CHOWN", all()),
        ("--privileged", all()),
        ("--privileged --cap-drop ALL", all()),
    ] {
        let flags: Vec<&str> = flags.split(' ').collect();
        assert_eq!(sets(run(&world, &flags, SETS)), of_root(allowed), "{flags:?}");
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_root_cannot_do_any_more_what_it_has_no_capability_for() {
    let world = World::new();
    for (flags, script, added) in [
        ("", "hostname other", "--cap-add SYS_ADMIN"),
        ("", "mkdir /tmp/m; mount -t tmpfs tmpfs /tmp/m", "--cap-add SYS_ADMIN"),
        ("", "ip link set lo down", "--cap-add NET_ADMIN"),
        ("--cap-drop CHOWN", "touch /tmp/own; chown 1 /tmp/own", "--cap-add CHOWN"),
        ("--cap-drop ALL", "chroot / true", "--cap-add SYS_CHROOT"),
    ] {
        let words =
            |flags: &'static str| flags.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>();
        let without = [&words(flags)[..], &["--tmpfs", "/tmp"]].concat();
        run(&world, &without, script).failure().code(predicate::ne(125));
        let with = [&without[..], &words(added)].concat();
        run(&world, &with, script).success();
    }
    // And what it has always done in a file system of its own it does.
    let script = "touch /tmp/a; chown 7:7 /tmp/a; chmod 4755 /tmp/a; mknod /tmp/n c 1 3; \
        chroot / true && ping -c 1 -W 5 127.0.0.1 >/dev/null";
    let script = script.replace("; ", " && ");
    run(&world, &["--tmpfs", "/tmp"], &script).success();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_exec_has_what_run_has() {
    let world = World::new();
    let flags = ["--net", "none", "--name", "web", "--cap-drop", "NET_RAW", "--cap-add", "SYS_TIME"];
    world.detach(&flags, "sleep 1000");
    let exec = |flags: &[&str], script: &str| {
        sets(world.tiny_docker([&["exec"], flags, &["web", "sh", "-c", script]].concat()).assert())
    };
    let allowed = USUAL & !NET_RAW | SYS_TIME;
    assert_eq!(exec(&[], "grep ^Cap /proc/1/status"), of_root(allowed), "its first process");
    assert_eq!(exec(&[], SETS), of_root(allowed), "exec");
    assert_eq!(exec(&["-u", "1000"], SETS), of_others(allowed), "exec as somebody else");
    assert_eq!(exec(&["--privileged"], SETS), of_root(all()), "exec --privileged");
    // That was for the one command alone.
    assert_eq!(exec(&[], SETS), of_root(allowed), "exec, afterwards");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_it_has_the_same_when_it_is_started_again() {
    let world = World::new();
    let rootfs = busybox();
    let words = ["create", "--net", "none", "--name", "web", "--cap-drop", "ALL", "--cap-add", "CHOWN"];
    let words = [&words[..], &["--rootfs", rootfs.to_str().unwrap(), "sh", "-c", SETS]].concat();
    world.tiny_docker(words).assert().success();
    for start in ["the first start", "the second"] {
        assert_eq!(sets(world.tiny_docker(["start", "-a", "web"]).assert()), of_root(CHOWN), "{start}");
    }
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_it_gets_no_more_than_its_caller_has() {
    let world = World::new();
    let rootfs = busybox();
    let limited = |flags: &str| {
        let run = format!("run --rm --net none {flags} --rootfs {} sh -c '{SETS}'", rootfs.display());
        world.called_by(&format!("exec setpriv --bounding-set=-net_raw,-sys_time $0 {run}")).assert()
    };
    assert_eq!(sets(limited("")), of_root(USUAL & !NET_RAW), "of the usual ones what there is");
    limited("--cap-add SYS_TIME")
        .code(125)
        .stderr(contains("--cap-add SYS_TIME").and(contains("CapBnd")))
        .stdout(is_empty());
    assert_eq!(sets(limited("--privileged")), of_root(all() & !NET_RAW & !SYS_TIME), "privileged: all of it");
    assert_eq!(world.ps().lines().count(), 1, "nothing is left: {}", world.ps());
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_a_check_of_its_health_has_what_it_has() {
    let world = World::new();
    let test = format!("{SETS} | tr -d '\\t'; exit 1");
    let flags = ["--net", "none", "--name", "web", "--cap-drop", "ALL", "--cap-add", "CHOWN"];
    let check = ["--health-cmd", test.as_str(), "--health-interval", "500ms", "--health-retries", "1"];
    world.detach(&[&flags[..], &check].concat(), "sleep 1000");
    until("it has been checked", || world.inspect("web")["health"]["log"][0]["output"].is_string());
    let said = world.inspect("web")["health"]["log"][0]["output"].as_str().unwrap_or_default().to_string();
    assert!(said.contains("CapBnd:0000000000000001") && said.contains("CapEff:0000000000000001"), "{said}");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_long_killed_at_any_moment_nothing_is_left() {
    let world = World::new();
    let rootfs = busybox();
    let words = ["run", "--net", "none", "--cap-add", "SYS_TIME", "--rootfs"];
    let words = [&words[..], &[rootfs.to_str().unwrap(), "sh", "-c", "exit 7"]].concat();
    assert!(world.die_at_every_moment(&words) > 20, "so many operations are between its start and its end");
}
