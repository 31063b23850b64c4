//! Day 14: a container that runs is asked again and again whether it is well.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;

use common::layout::{Layout, Packed, tar_of};
use common::{World, busybox, nobody_is_left, said, until};
use nix::sys::signal::{Signal, kill};
use predicates::str::contains;
use rustix::process::{Pid as Process, Resource, Rlimit, getrlimit, prlimit};
use serde_json::{Value, json};

/// A container called web that does nothing, on a root of its own, and `flags`.
fn web(world: &World, flags: &[&str]) {
    let rootfs = busybox();
    let words = ["run", "-d", "--net", "none", "--name", "web", "--layer", rootfs.to_str().unwrap()];
    world.tiny_docker([&words[..], flags, &["sleep", "1000"]].concat()).assert().success();
}

fn exec(world: &World, command: &[&str]) {
    world.tiny_docker([&["exec", "web"], command].concat()).assert().success();
}

fn health(world: &World) -> Value {
    world.inspect("web")["health"].clone()
}

fn is(world: &World, status: &str) {
    until(&format!("it is {status}"), || health(world)["status"] == status);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_a_check_says_whether_it_is_well() {
    let world = World::new();
    let check = "echo looked; test -e /tmp/ok";
    let flags = ["--health-interval", "100ms", "--health-retries", "2", "--health-cmd", check];
    web(&world, &flags);
    is(&world, "unhealthy");
    assert!(world.ps().contains(" (unhealthy)"), "ps: {}", world.ps());
    exec(&world, &["touch", "/tmp/ok"]);
    is(&world, "healthy");
    assert!(world.ps().contains(" (healthy)"), "ps: {}", world.ps());
    let found = health(&world);
    assert_eq!(found["failing_streak"], 0, "failures in a row: {found}");
    let log = found["log"].as_array().unwrap();
    let last = log.last().unwrap();
    assert_eq!(
        (&last["exit_code"], &last["output"]),
        (&json!(0), &json!("looked\n")),
        "the last check: {last}"
    );
    exec(&world, &["rm", "/tmp/ok"]);
    is(&world, "unhealthy");
    let found = health(&world);
    assert!(found["failing_streak"].as_u64() >= Some(2), "failures in a row: {found}");
    until("there were many", || health(&world)["failing_streak"].as_u64() > Some(6));
    assert_eq!(health(&world)["log"].as_array().unwrap().len(), 5, "how many are remembered");
    // It is not touched for that; and when it has ended, nobody says that it is ill.
    world.tiny_docker(["stop", "-t", "0", "web"]).assert().success();
    until("nobody checks it any more", nobody_is_left);
    assert!(world.ps().contains("Exited (137)") && !world.ps().contains("healthy"), "ps: {}", world.ps());
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_nobody_knows_before_the_first_check() {
    let world = World::new();
    web(&world, &["--health-cmd", "true"]);
    assert!(world.ps().contains(" (health: starting)"), "ps: {}", world.ps());
    assert_eq!(health(&world)["status"], "starting", "before the first check");
    world.remove_all();
    // While it begins, what fails does not count; what is well does.
    let flags =
        ["--health-interval", "50ms", "--health-start-interval", "50ms", "--health-start-period", "1h"];
    web(&world, &[&flags[..], &["--health-retries", "1", "--health-cmd", "test -e /tmp/ok"]].concat());
    until("it was checked", || health(&world)["log"].as_array().is_some_and(|log| log.len() >= 3));
    assert_eq!(health(&world)["status"], "starting", "while it begins: {}", health(&world));
    exec(&world, &["touch", "/tmp/ok"]);
    is(&world, "healthy");
    exec(&world, &["rm", "/tmp/ok"]);
    is(&world, "unhealthy");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_a_check_that_takes_too_long_has_failed() {
    let world = World::new();
    let flags = ["--health-interval", "50ms", "--health-timeout", "300ms", "--health-retries", "1"];
    web(&world, &[&flags[..], &["--health-cmd", "echo begun; sleep 1000"]].concat());
    is(&world, "unhealthy");
    let last = health(&world)["log"][0].clone();
    assert_eq!(last["exit_code"], -1, "what came of it: {last}");
    assert!(last["output"].as_str().unwrap().contains("exceeded timeout"), "what is said of it: {last}");
    // With a check under way, it ends as ever, and its check with it.
    world.tiny_docker(["stop", "-t", "0", "web"]).assert().success();
    until("nobody is left", nobody_is_left);
    world.remove_all();
    // One that writes all the time is late as well.
    web(&world, &[&flags[..], &["--health-cmd", "yes & yes & yes"]].concat());
    is(&world, "unhealthy");
    world.remove_all();
    // So it does with nobody there who could end the check.
    web(&world, &["--health-interval", "50ms", "--health-cmd", "touch /tmp/begun; sleep 1000"]);
    until("it is checked", || {
        world.tiny_docker(["exec", "web", "test", "-e", "/tmp/begun"]).output().unwrap().status.success()
    });
    kill(common::supervisor(&world, "web"), Signal::SIGKILL).unwrap();
    until("nobody is left", nobody_is_left);
    world.remove_all();
}

// It has failed, as one that ran and failed: by the next one there may be some again.
#[test]
#[ignore = "privileged: make vm-test"]
fn task3_a_check_for_which_there_is_no_descriptor_has_failed() {
    let world = World::new();
    web(&world, &["--health-interval", "50ms", "--health-retries", "1", "--health-cmd", "true"]);
    is(&world, "healthy");
    let its = common::supervisor(&world, "web");
    let process = Process::from_raw(its.as_raw());
    let before = prlimit(process, Resource::Nofile, getrlimit(Resource::Nofile)).unwrap();
    until("there was none for a check", || {
        // All of them but one, for what comes of it is written into a file. If a check is under
        // way at this moment there are more afterwards: so again.
        let open = |number: &u64| fs::symlink_metadata(format!("/proc/{its}/fd/{number}")).is_ok();
        let free = (0..).filter(|number| !open(number)).nth(1);
        prlimit(process, Resource::Nofile, Rlimit { current: free, maximum: before.maximum }).unwrap();
        health(&world)["log"].to_string().contains("EMFILE")
    });
    prlimit(process, Resource::Nofile, before).unwrap();
    is(&world, "healthy");
    world.tiny_docker(["stop", "-t", "0", "web"]).assert().success();
    assert_eq!(world.inspect("web")["reason"], Value::Null, "it ended without a complaint");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_what_a_check_writes_is_bytes_without_an_end() {
    let world = World::new();
    let check = r"printf '\377\376'; yes | head -c 100000";
    web(&world, &["--health-interval", "50ms", "--health-cmd", check]);
    is(&world, "healthy");
    let output = health(&world)["log"][0]["output"].as_str().unwrap().to_string();
    assert!(output.starts_with("\u{fffd}\u{fffd}y\ny\n"), "what is remembered begins with what was written");
    assert!(output.chars().count() <= 4096, "{} characters are remembered", output.chars().count());
    // One that leaves somebody behind is over when it has ended.
    world.remove_all();
    web(&world, &["--health-interval", "50ms", "--health-cmd", "sleep 1000 & echo left"]);
    is(&world, "healthy");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_the_image_says_how_and_the_user_may_say_more() {
    let world = World::new();
    let mut layout = Layout::new(&world, "layout");
    let second = 1_000_000_000_i64;
    let config = json!({"Healthcheck": {
        "Test": ["CMD", "test", "-e", "/etc/passwd"], "Interval": second / 10, "Timeout": 5 * second, "Retries": 7
    }});
    let manifest = layout.image(&[layout.layer(&tar_of(&busybox()), Packed::Gzip)], config);
    layout.tag("docker.io/lab/checked:v1", &manifest);
    let archive = layout.dir.with_extension("tar");
    fs::write(&archive, tar_of(&layout.dir)).unwrap();
    world.tiny_docker([Path::new("load"), Path::new("-i"), &archive]).assert().success();
    let run = |flags: &[&str]| {
        let words = ["run", "-d", "--net", "none", "--name", "web", "--image", "lab/checked:v1"];
        world.tiny_docker([&words[..], flags, &["sleep", "1000"]].concat()).assert().success();
    };
    run(&[]);
    is(&world, "healthy");
    world.remove_all();
    run(&["--health-cmd", "false", "--health-retries", "1"]);
    is(&world, "unhealthy");
    // Started again, it is checked as before.
    world.tiny_docker(["restart", "-t", "0", "web"]).assert().success();
    is(&world, "unhealthy");
    world.remove_all();
    run(&["--no-healthcheck"]);
    assert_eq!(health(&world), Value::Null, "with --no-healthcheck");
    assert!(!world.ps().contains("health"), "ps: {}", world.ps());
    world.remove_all();
    world.tiny_docker(["rmi", "lab/checked:v1"]).assert().success();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_what_cannot_be_checked_is_said() {
    let world = World::new();
    let rootfs = busybox();
    for (flags, expected) in [
        (&["--health-interval", "5s"][..], "add --health-cmd"),
        (&["--no-healthcheck", "--health-cmd", "true"], "conflicts with --health-*"),
        (&["--health-cmd", "true", "--health-interval", "soon"], "expected a time, such as 30s"),
        (&["--health-cmd", "true", "--health-timeout", "1us"], "at least 1ms"),
        (&["--health-cmd", "true", "--health-retries", "0"], "0 is not in"),
    ] {
        let words =
            [&["run", "--net", "none", "--rootfs", rootfs.to_str().unwrap()], flags, &["true"]].concat();
        let output = world.tiny_docker(words).output().unwrap();
        assert!(!output.status.success() && said(&output).contains(expected), "{flags:?}: {}", said(&output));
    }
    world.tiny_docker(["ps", "-aq"]).assert().success().stdout("");
    world.tiny_docker(["run", "--help"]).assert().success().stdout(contains("--health-cmd"));
}
