//! Day 18: the OCI runtime, through its command line: its namespaces, the gate, and how a container fares.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Instant;

use common::bundle::{Engine, Somebody, own};
use common::{alive, deadline, until};
use nix::sched::CloneFlags;
use nix::sys::signal::{Signal, kill};
use predicates::prelude::*;
use predicates::str::contains;
use serde_json::{Value, json};

/// What the container says its namespaces are, a line each.
const LINKS: &str = "for name in net uts ipc pid mnt cgroup; do readlink /proc/self/ns/$name; done";

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_what_is_not_written_is_the_runtimes_and_what_is_written_is_new() {
    let mut engine = Engine::new(LINKS);
    engine.has_namespaces(&[("mount", None), ("pid", None), ("ipc", None)]);
    engine.config["hostname"] = Value::Null;
    let said = engine.says();
    for (name, is_new) in
        [("net", false), ("uts", false), ("cgroup", false), ("ipc", true), ("pid", true), ("mnt", true)]
    {
        assert_ne!(
            said.contains(&own(name)),
            is_new,
            "{name}: the test's is {}, and here:\n{said}",
            own(name)
        );
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_a_namespace_with_a_path_is_the_one_that_is_there() {
    let mut engine = Engine::new(LINKS);
    let other =
        Somebody::with(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC);
    let (net, uts, ipc) = (other.namespace("net"), other.namespace("uts"), other.namespace("ipc"));
    until("it has its own", || other.link("ipc") != own("ipc"));
    // An empty path is none.
    let there = [("network", Some(&net[..])), ("uts", Some(&uts[..])), ("ipc", Some(&ipc[..]))];
    engine.has_namespaces(&[&[("mount", None), ("pid", Some(""))], &there[..]].concat());
    let said = engine.says();
    for name in ["net", "uts", "ipc"] {
        assert!(said.contains(&other.link(name)), "{name}: {} in\n{said}", other.link(name));
    }
    assert!(!said.contains(&own("pid")) && !said.contains(&own("mnt")), "those are new:\n{said}");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_in_anothers_pid_namespace_it_is_one_more_process() {
    let mut engine = Engine::new("sleep 1000 & wait");
    let first = engine.begin(&["run", "--pid-file", "pid", "first"]);
    let pid = engine.pid_in("pid");
    let command = || fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    until("its command runs", || command().contains("sleep 1000"));
    let path = format!("/proc/{pid}/ns/pid");
    engine.has_namespaces(&[("mount", None), ("uts", None), ("pid", Some(&path))]);
    engine.has_script("echo I am $$; tr '\\0' ' ' </proc/1/cmdline");
    let said = engine.says();
    assert!(said.contains("sh -c sleep 1000 & wait"), "number 1 is the other's first process: {said}");
    assert!(!said.contains("I am 1\n"), "{said}");
    drop(first);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_its_clocks_are_as_far_ahead_as_is_written() {
    let mut engine = Engine::new("cut -d . -f 1 /proc/uptime");
    engine.has_namespaces(&[("mount", None), ("pid", None), ("uts", None), ("time", None)]);
    engine.config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 100_000, "nanosecs": 0}});
    let here =
        || -> f64 { fs::read_to_string("/proc/uptime").unwrap().split(' ').next().unwrap().parse().unwrap() };
    let before = here();
    let there: f64 = engine.says().trim().parse().unwrap();
    let ahead = before + 99_999.0..here() + 100_001.0;
    assert!(ahead.contains(&there), "{there} is not in {ahead:?}");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_what_makes_no_container_is_an_error_in_words() {
    let mut engine = Engine::new("true");
    let mount = ("mount", None);
    for (kinds, words) in [
        (vec![mount, ("pid", None), ("pid", None)], "two of the type"),
        (vec![mount, ("uts", None), ("uts", Some("/proc/self/ns/uts"))], "two of the type"),
        (vec![mount, ("net", None)], "there is no type"),
        (vec![mount, ("network", Some("/nowhere/net"))], "/nowhere/net"),
        (vec![("uts", None)], "type mount"),
        (vec![mount], "hostname"),
    ] {
        engine.has_namespaces(&kinds);
        engine.call(&["run", "one"]).code(1).stderr(contains(words));
        assert_eq!(engine.remembered(), 0, "{kinds:?}: nothing is left");
    }
    engine.has_namespaces(&[mount, ("uts", None)]);
    engine.config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1, "nanosecs": 0}});
    engine.call(&["run", "one"]).code(1).stderr(contains("timeOffsets"));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_root_of_a_user_namespace_has_the_ids_of_its_maps() {
    let mut engine = Engine::new("id -u; cat /proc/self/uid_map; ls -lnd /etc | awk '{print \"owner\", $3}'");
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    engine.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    engine.config["linux"]["uidMappings"] = map.clone();
    engine.config["linux"]["gidMappings"] = map;
    engine.call(&["run", "one"]).success().stdout(contains("0\n").and(contains("100000      65536")));
    engine.config["linux"]["gidMappings"] = json!([]);
    engine.call(&["run", "one"]).code(1).stderr(contains("gidMappings"));
}

/// Somebody who is root in a user namespace, and owns a network.
fn somebody_with_users() -> Somebody {
    let other = Somebody::with(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET);
    until("it has its own", || other.link("net") != own("net"));
    for name in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{}/{name}", other.pid()), "0 100000 65536\n").unwrap();
    }
    other
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_users_that_are_there_are_joined_last() {
    let mut engine =
        Engine::new("id -u; cat /proc/self/uid_map; readlink /proc/self/ns/net; readlink /proc/self/ns/user");
    let other = somebody_with_users();
    let (user, net) = (other.namespace("user"), other.namespace("net"));
    // Another network than the user namespace's own: the host's root alone may join it.
    let network = Somebody::with(CloneFlags::CLONE_NEWNET);
    until("it has its own", || network.link("net") != own("net"));
    let hosts = network.namespace("net");
    for (net, link) in [(&net, other.link("net")), (&hosts, network.link("net"))] {
        engine.has_namespaces(&[
            ("user", Some(&user)),
            ("mount", None),
            ("pid", None),
            ("uts", None),
            ("network", Some(net)),
        ]);
        // A sysfs shows a network, and is its owner's to mount.
        engine.config["mounts"] =
            json!([{"destination": "/proc", "type": "proc"}, {"destination": "/dev", "type": "tmpfs"}]);
        engine.config["linux"]["maskedPaths"] = json!([]);
        engine.config["linux"]["readonlyPaths"] = json!([]);
        let said = engine.says();
        assert!(said.starts_with("0\n"), "root: {said}");
        assert!(said.contains("100000") && said.contains(&other.link("user")), "{said}");
        assert!(said.contains(&link), "{link}: {said}");
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_its_cgroup_is_the_root_that_it_sees() {
    let mut engine = Engine::new("cat /proc/self/cgroup");
    assert_eq!(engine.says(), "0::/\n");
    engine.has_namespaces(&[("mount", None), ("uts", None), ("pid", None)]);
    engine.config["linux"]["cgroupsPath"] = json!("/tiny-runc-test/one");
    assert_eq!(engine.says(), "0::/tiny-runc-test/one\n");
    let _ = fs::remove_dir("/sys/fs/cgroup/tiny-runc-test");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_a_created_container_waits_until_it_is_started() {
    let engine = Engine::new("echo it runs");
    engine.call(&["create", "--pid-file", "pid", "one"]).success();
    let pid = engine.pid_in("pid");
    assert!(alive(pid), "{pid} is its first process");
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let parent: u32 = stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().parse().unwrap();
    assert_eq!(parent, std::process::id(), "nobody of ours stays: its parent is its engine");
    assert_eq!(engine.text("output"), "", "its command has not run");
    engine.call(&["start", "one"]).success();
    engine.until_says("output", "it runs\n");
    until("it has ended", || !alive(pid));
    engine.call(&["start", "one"]).failure();
    engine.call(&["delete", "one"]).success();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_whoever_opens_the_gate_without_a_word_does_not_start_it() {
    let engine = Engine::new("echo it runs");
    engine.call(&["create", "--pid-file", "pid", "one"]).success();
    let pid = engine.pid_in("pid");
    let gate = engine.path("state/one/start");
    for _ in 0..3 {
        // As a `start` that is killed before it has written.
        let opened = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&gate);
        assert!(opened.is_ok(), "somebody still waits at the gate: {opened:?}");
        drop(opened);
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert!(alive(pid), "it still waits");
    assert_eq!(engine.text("output"), "", "its command has not run");
    engine.call(&["start", "one"]).success();
    engine.until_says("output", "it runs\n");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_one_that_ended_while_it_waited_cannot_be_started() {
    let engine = Engine::new("echo it runs");
    engine.call(&["create", "--pid-file", "pid", "one"]).success();
    let pid = engine.pid_in("pid");
    kill(pid, Signal::SIGKILL).unwrap();
    until("it has ended", || !alive(pid));
    let since = Instant::now();
    engine.call(&["start", "one"]).code(1).stderr(contains("does not wait").or(contains("stopped")));
    assert!(since.elapsed() < deadline() / 2, "nobody waits for somebody who is not there");
    engine.call(&["delete", "one"]).success();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_two_that_wait_are_started_one_by_one() {
    let engine = Engine::new("echo $HOSTNAME runs >>/tmp/log; cat /tmp/log");
    let mut engine = engine;
    engine.mount(json!({"destination": "/tmp", "type": "bind", "source": ".", "options": ["bind"]}));
    for id in ["one", "other"] {
        engine.config["process"]["env"] = json!([format!("HOSTNAME={id}"), "PATH=/bin:/usr/bin"]);
        engine.call(&["create", id]).success();
    }
    engine.call(&["create", "one"]).failure().stderr(contains("exists already"));
    engine.call(&["start", "other"]).success();
    engine.until_says("log", "other runs\n");
    assert_eq!(engine.text("log"), "other runs\n", "one waits");
    engine.call(&["start", "one"]).success();
    engine.until_says("log", "other runs\none runs\n");
    engine.call(&["delete", "--force", "one"]).success();
    engine.call(&["delete", "--force", "other"]).success();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_it_is_created_then_running_then_stopped() {
    let engine = Engine::new("echo it runs; while [ ! -e /tmp/end ]; do sleep 0.05; done");
    engine.call(&["create", "--pid-file", "pid", "one"]).success();
    assert_eq!(engine.status("one"), "created");
    engine.call(&["exec", "one", "true"]).failure().stderr(contains("not running, but created"));
    engine.call(&["start", "one"]).success();
    engine.becomes("one", "running");
    engine.call(&["start", "one"]).failure().stderr(contains("it is running"));
    engine.call(&["delete", "one"]).failure().stderr(contains("not stopped"));
    engine.call(&["kill", "one", "9"]).success();
    engine.becomes("one", "stopped");
    engine.call(&["kill", "one", "9"]).failure().stderr(contains("container not running"));
    engine.call(&["start", "one"]).failure().stderr(contains("it is stopped"));
    engine.call(&["delete", "one"]).success();
    engine.call(&["state", "one"]).failure().stderr(contains("does not exist"));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_nothing_about_it_is_written_down() {
    let engine = Engine::new("while :; do sleep 1; done");
    engine.call(&["create", "--pid-file", "pid", "one"]).success();
    let before = engine.text("state/one/state.json");
    engine.call(&["start", "one"]).success();
    engine.becomes("one", "running");
    // Nobody of ours sees it end.
    kill(engine.pid_in("pid"), Signal::SIGKILL).unwrap();
    engine.becomes("one", "stopped");
    assert_eq!(engine.text("state/one/state.json"), before, "what is remembered");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_another_process_with_its_number_is_not_it() {
    let engine = Engine::new("true");
    engine.call(&["create", "one"]).success();
    let file = engine.path("state/one/state.json");
    let text = fs::read(&file).unwrap();
    let kept: Value = serde_json::from_slice(&text).unwrap();
    let start_time = kept["process"]["start_time"].as_u64().unwrap();
    for (place, value) in
        [("/process/start_time", json!(start_time + 1)), ("/boot_id", json!("another boot"))]
    {
        let mut other = kept.clone();
        *other.pointer_mut(place).unwrap() = value;
        fs::write(&file, other.to_string()).unwrap();
        assert_eq!(engine.status("one"), "stopped", "{place}");
        engine.call(&["kill", "one"]).failure().stderr(contains("not running"));
    }
    fs::write(&file, text).unwrap();
    assert_eq!(engine.status("one"), "created", "it waits still");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_its_state_is_a_document_of_the_specification() {
    let mut engine = Engine::new("true");
    engine.config["annotations"] = json!({"org.example": "a value"});
    engine.call(&["create", "--pid-file", "pid", "one"]).success();
    let state = engine.state("one");
    let pid = engine.pid_in("pid").as_raw();
    let bundle = fs::canonicalize(engine.path(".")).unwrap();
    assert_eq!(
        (&state["id"], &state["pid"], &state["status"]),
        (&json!("one"), &json!(pid), &json!("created"))
    );
    assert_eq!((&state["bundle"], &state["annotations"]["org.example"]), (&json!(bundle), &json!("a value")));
    let read: oci_spec::runtime::State = serde_json::from_value(state).unwrap();
    assert_eq!(read.version(), "1.3.0");
    let list = engine.call(&["list", "--format", "json"]).success();
    let list: Value = serde_json::from_slice(&list.get_output().stdout).unwrap();
    assert_eq!((list.as_array().unwrap().len(), &list[0]["status"]), (1, &json!("created")));
    engine.call(&["start", "one"]).success();
    engine.becomes("one", "stopped");
    assert_eq!(engine.state("one")["pid"], 0, "one that has ended has no number");
    engine.call(&["list"]).success().stdout(contains("stopped"));
    engine.call(&["list", "-q"]).success().stdout("one\n");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_one_that_is_held_up_in_its_cgroup_is_paused() {
    let engine = Engine::new("while :; do sleep 0.05; done");
    engine.call(&["create", "one"]).success();
    engine.call(&["start", "one"]).success();
    engine.becomes("one", "running");
    engine.call(&["pause", "one"]).success();
    assert_eq!(engine.status("one"), "paused");
    engine.call(&["exec", "one", "true"]).failure().stderr(contains("paused"));
    engine.call(&["resume", "one"]).success();
    engine.becomes("one", "running");
    engine.call(&["pause", "one"]).success();
    engine.call(&["kill", "one", "9"]).success();
    engine.becomes("one", "stopped");
}
