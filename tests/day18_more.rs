//! Day 18: processors, memory nodes and interfaces of a container: none of it is an exercise.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;

use common::bundle::{Engine, FOREVER, Somebody};
use common::outside::sh;
use common::until;
use nix::sched::CloneFlags;
use predicates::prelude::*;
use predicates::str::contains;
use serde_json::{Value, json};
use tiny_docker_rs::oci::{numa, schedule, spec};

/// Its nice value, its priority among real-time processes, and its policy. (proc_pid_stat(5))
const STAT: &str = "awk '{print $19, $40, $41}'";

/// What is said against a `process.scheduler`; nothing, if that is right.
fn against_scheduler(scheduler: Value) -> String {
    let process = serde_json::from_value(json!({ "scheduler": scheduler })).unwrap();
    schedule::check(&process).err().map(|error| format!("{error:#}")).unwrap_or_default()
}

fn a_scheduler_that_cannot_be_is_an_error_that_says_what_can() {
    for (wrong, words) in [
        (json!({"policy": "FIFO"}), r#"policy: there is no "FIFO"; expected one of SCHED_OTHER, SCHED_FIFO"#),
        (json!({}), r#"there is no ""; expected"#),
        (json!({"policy": "SCHED_ISO"}), r#"policy is "SCHED_ISO"; Linux has none"#),
        (json!({"policy": "SCHED_OTHER", "flags": ["RECLAIM"]}), r#"flags: there is no "RECLAIM"; expected"#),
        (json!({"policy": "SCHED_OTHER", "nice": 20}), "nice is 20; expected -20"),
        (json!({"policy": "SCHED_BATCH", "priority": 1}), "priority is 1 with SCHED_BATCH; expected"),
        (json!({"policy": "SCHED_FIFO"}), "priority is 0 with SCHED_FIFO; expected 1 to 99"),
        (json!({"policy": "SCHED_RR", "priority": 100}), "priority is 100 with SCHED_RR; expected 1 to 99"),
        (json!({"policy": "SCHED_RR", "priority": 1, "runtime": 5}), "are for SCHED_DEADLINE"),
        (json!({"policy": "SCHED_DEADLINE", "runtime": 5000, "deadline": 4000}), "runtime <= deadline"),
        (json!({"policy": "SCHED_DEADLINE", "runtime": 5000, "deadline": 6000, "period": 5500}), "<= period"),
        (json!({"policy": "SCHED_DEADLINE"}), "1024 <= runtime"),
    ] {
        let error = against_scheduler(wrong.clone());
        assert!(error.contains("process.scheduler") && error.contains(words), "{wrong}: {error}");
    }
    for right in [
        json!({"policy": "SCHED_OTHER", "nice": -20, "flags": null}),
        json!({"policy": "SCHED_IDLE"}),
        json!({"policy": "SCHED_FIFO", "priority": 99, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}),
        json!({"policy": "SCHED_FIFO", "flags": ["SCHED_FLAG_KEEP_POLICY", "SCHED_FLAG_KEEP_PARAMS"]}),
        json!({"policy": "SCHED_DEADLINE", "runtime": 5000, "deadline": 6000}),
    ] {
        assert_eq!(against_scheduler(right.clone()), "", "{right}");
    }
}

fn a_list_of_processors_that_cannot_be_is_an_error() {
    let against = |affinity: Value| {
        let process = serde_json::from_value(json!({ "execCPUAffinity": affinity })).unwrap();
        schedule::check(&process).err().map(|error| format!("{error:#}")).unwrap_or_default()
    };
    for which in ["initial", "final"] {
        for wrong in ["one", "3-1", "0,", "0-1024", " 0"] {
            let error = against(json!({ which: wrong }));
            let words = format!("process.execCPUAffinity.{which} is {wrong:?}; expected numbers");
            assert!(error.contains(&words), "{which} {wrong:?}: {error}");
        }
        assert_eq!(against(json!({ which: "0-3,7" })), "");
        assert_eq!(against(json!({ which: "" })), "", "nothing is said");
    }
}

fn a_memory_policy_that_cannot_be_is_an_error_that_says_what_can() {
    let against = |policy: Value| {
        let linux: spec::linux::Linux = serde_json::from_value(json!({ "memoryPolicy": policy })).unwrap();
        numa::check(&linux).err().map(|error| format!("{error:#}")).unwrap_or_default()
    };
    for (wrong, words) in [
        (json!({"mode": "BIND"}), r#"mode: there is no "BIND"; expected one of MPOL_DEFAULT, MPOL_BIND"#),
        (json!({"nodes": "0"}), r#"mode: there is no """#),
        (json!({"mode": "MPOL_BIND"}), "with MPOL_BIND; expected one at least"),
        (json!({"mode": "MPOL_LOCAL", "nodes": "0"}), "with MPOL_LOCAL; expected none"),
        (json!({"mode": "MPOL_BIND", "nodes": "0;1"}), r#"nodes is "0;1"; expected numbers"#),
        (json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["STATIC"]}), r#"flags: there is no "STATIC""#),
        (
            json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]}),
            "expected one of them",
        ),
    ] {
        let error = against(wrong.clone());
        assert!(error.contains("linux.memoryPolicy") && error.contains(words), "{wrong}: {error}");
    }
    for right in [
        json!({}),
        Value::Null,
        json!({"mode": "MPOL_PREFERRED", "nodes": null}),
        json!({"mode": "MPOL_WEIGHTED_INTERLEAVE", "nodes": "0-3,7", "flags": ["MPOL_F_STATIC_NODES"]}),
    ] {
        assert_eq!(against(right.clone()), "", "{right}");
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task8_a_word_that_is_wrong_is_told_before_anything_is_made() {
    let mut engine = Engine::new("true");
    let right = engine.config.clone();
    for (place, wrong, words) in [
        ("/process/scheduler", json!({"policy": "SCHED_ISO"}), "Linux has none"),
        ("/process/execCPUAffinity", json!({"final": "x"}), "execCPUAffinity.final"),
        ("/linux/memoryPolicy", json!({"mode": "x"}), "memoryPolicy.mode"),
        ("/linux/netDevices", json!({"td-none": {}}), r#"there is no interface "td-none""#),
        ("/linux/netDevices", json!({"lo": {"name": "a/b"}}), r#"no interface can be called "a/b""#),
        ("/linux/netDevices", json!({"lo": {"name": "of-sixteen-bytes"}}), "expected 1 to 15 bytes"),
        ("/linux/netDevices", json!({"lo": {"name": "%d%d"}}), "no interface can be called"),
        ("/linux/intelRdt", json!({}), "linux.intelRdt is not supported"),
    ] {
        engine.config = right.clone();
        let (parent, name) = place.rsplit_once('/').unwrap();
        engine.config.pointer_mut(parent).unwrap()[name] = wrong;
        engine.call(&["create", "one"]).code(1).stderr(contains(words));
        assert_eq!(engine.remembered(), 0, "{place}: nothing is left");
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task8_it_gets_a_processor_as_its_scheduler_says() {
    a_scheduler_that_cannot_be_is_an_error_that_says_what_can();
    let mut engine = Engine::new(&format!("{STAT} /proc/self/stat"));
    // Its user could not ask for it: the runtime does, which is root still.
    engine.config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    for (scheduler, expected) in [
        (json!({"policy": "SCHED_OTHER", "nice": -5}), "-5 0 0\n"),
        (json!({"policy": "SCHED_BATCH", "nice": 7}), "7 0 3\n"),
        // With these the nice value is as it was: it does not count.
        (json!({"policy": "SCHED_IDLE"}), " 0 5\n"),
        (json!({"policy": "SCHED_FIFO", "priority": 3}), " 3 1\n"),
        (json!({"policy": "SCHED_RR", "priority": 42}), " 42 2\n"),
    ] {
        engine.config["process"]["scheduler"] = scheduler.clone();
        let said = engine.says();
        assert!(said.ends_with(expected), "{scheduler}: {said}");
    }
    // With this flag its children are as any others.
    engine.has_script(&format!("{STAT} /proc/1/stat; {STAT} /proc/self/stat; true"));
    engine.config["process"]["scheduler"] =
        json!({"policy": "SCHED_FIFO", "priority": 3, "flags": ["SCHED_FLAG_RESET_ON_FORK"]});
    let said = engine.says();
    assert!(said.contains(" 3 1\n") && said.ends_with("\n0 0 0\n"), "one that was made is not: {said}");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task8_one_with_a_deadline_makes_no_process_unless_that_is_reset() {
    let mut engine = Engine::new("exec cat /proc/self/stat");
    let mut deadline = json!({"policy": "SCHED_DEADLINE", "runtime": 10_000_000, "deadline": 100_000_000});
    engine.config["process"]["scheduler"] = deadline.clone();
    let said = engine.says();
    assert_eq!(said.split(' ').nth(40), Some("6"), "{said}");
    engine.has_script("/bin/busybox true; echo it made one");
    engine.call(&["run", "one"]).failure().stderr(contains("fork"));
    deadline["flags"] = json!(["SCHED_FLAG_RESET_ON_FORK"]);
    engine.config["process"]["scheduler"] = deadline;
    assert_eq!(engine.says(), "it made one\n");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task8_exec_has_the_scheduler_that_its_process_says() {
    let engine = Engine::new(FOREVER);
    engine.call(&["create", "one"]).success();
    engine.call(&["start", "one"]).success();
    let mut process = engine.config["process"].clone();
    process["args"] = json!(["sh", "-c", format!("{STAT} /proc/self/stat; {STAT} /proc/1/stat")]);
    process["scheduler"] = json!({"policy": "SCHED_RR", "priority": 2});
    fs::write(engine.path("process.json"), process.to_string()).unwrap();
    let words = ["exec", "--process", "process.json", "one"];
    let asked = engine.call(&words).success();
    let said = String::from_utf8(asked.get_output().stdout.clone()).unwrap();
    assert!(said.contains(" 2 2\n") && said.ends_with(" 0 0\n"), "it alone: {said}");
    process["scheduler"] = json!({"policy": "SCHED_RR"});
    fs::write(engine.path("process.json"), process.to_string()).unwrap();
    engine.call(&words).failure().stderr(contains("expected 1 to 99"));
}

/// The processors on which this test may run: the first and the last of them.
fn processors() -> (String, String) {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
    let ends = |end: Option<&str>| end.unwrap().to_string();
    (ends(list.split([',', '-']).next()), ends(list.split([',', '-']).next_back()))
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task8_exec_runs_on_the_processors_that_it_was_given() {
    a_list_of_processors_that_cannot_be_is_an_error();
    let mut engine = Engine::new("grep Cpus_allowed_list /proc/self/status; while :; do sleep 1; done");
    let (first, last) = processors();
    // Not its own: this is of `exec` alone.
    engine.config["process"]["execCPUAffinity"] = json!({"initial": first, "final": first});
    engine.call(&["create", "one"]).success();
    engine.call(&["start", "one"]).success();
    engine.until_says("output", "\n");
    let own = engine.text("output");
    assert!(own.ends_with(&format!("{last}\n")), "its own: {own}");
    let mut process = engine.config["process"].clone();
    process["args"] = json!(["grep", "Cpus_allowed_list", "/proc/self/status"]);
    let mut on = |affinity: Value| {
        process["execCPUAffinity"] = affinity;
        fs::write(engine.path("process.json"), process.to_string()).unwrap();
        engine.call(&["exec", "--process", "process.json", "one"])
    };
    let only = |number: &str| format!("Cpus_allowed_list:\t{number}\n");
    on(json!({"final": last})).success().stdout(only(&last));
    on(json!({"initial": last, "final": first})).success().stdout(only(&first));
    on(json!({"initial": "", "final": ""})).success().stdout(own);
    on(json!({"initial": "1023"}))
        .failure()
        .stderr(contains("execCPUAffinity.initial").and(contains("1023")));
    on(json!({"final": "1-0"})).failure().stderr(contains("execCPUAffinity.final"));
    // Where it stays without the second list, its cgroup decides. Where it begins is where the runtime is.
    process["execCPUAffinity"] = json!({"initial": last});
    process["args"] = json!(["sleep", "1000"]);
    fs::write(engine.path("process.json"), process.to_string()).unwrap();
    let runtime = engine.begin(&["exec", "--process", "process.json", "one"]);
    let status = || fs::read_to_string(format!("/proc/{}/status", runtime.pid())).unwrap();
    until("the runtime is on that processor", || status().contains(&only(&last)));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task8_its_memory_comes_from_the_nodes_that_its_policy_says() {
    a_memory_policy_that_cannot_be_is_an_error_that_says_what_can();
    let mut engine = Engine::new("exec cat /proc/self/numa_maps");
    engine.config["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "0"});
    if !fs::exists("/proc/self/numa_maps").unwrap() {
        // A kernel without nodes of memory has no such call.
        engine.call(&["run", "one"]).failure().stderr(contains("set_mempolicy(MPOL_BIND"));
        return;
    }
    let says = |engine: &Engine, policy: &str| {
        let said = engine.says();
        assert!(said.lines().all(|line| line.split(' ').nth(1) == Some(policy)), "{policy}: {said}");
    };
    says(&engine, "bind:0");
    engine.config["linux"]["memoryPolicy"] =
        json!({"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]});
    says(&engine, "interleave=static:0");
    engine.config["linux"]["memoryPolicy"] = json!({"mode": "MPOL_LOCAL"});
    says(&engine, "local");
    engine.config["linux"]["memoryPolicy"] = json!({});
    says(&engine, "default");
    engine.config["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "1000"});
    engine.call(&["run", "one"]).failure().stderr(contains("set_mempolicy(MPOL_BIND").and(contains("1000")));
    // One more process in it has it too.
    engine.config["linux"]["memoryPolicy"] = json!({"mode": "MPOL_PREFERRED", "nodes": "0"});
    engine.has_script(FOREVER);
    engine.call(&["create", "one"]).success();
    engine.call(&["start", "one"]).success();
    engine.call(&["exec", "one", "cat", "/proc/self/numa_maps"]).success().stdout(contains(" prefer:0 "));
}

/// An interface of this test's, up and with addresses. It may have gone by the end, so it comes after the
/// engine, which counts what is there.
struct Interface(&'static str);

impl Interface {
    /// A cable whose other end stays here.
    fn new(name: &'static str) -> Interface {
        let it = Interface(name);
        sh(&format!(
            "ip link add {name} type veth peer name {name}-p && ip link set {name} mtu 1400 && \
             ip addr add 192.0.2.7/24 dev {name} && ip addr add 198.51.100.7/32 dev {name} && \
             ip addr add 203.0.113.7/24 scope link dev {name} && \
             ip addr add 192.0.2.8/24 valid_lft 1000 preferred_lft 1000 dev {name} && \
             ip addr add 2001:db8::7/64 nodad dev {name} && ip link set {name}-p up && ip link set {name} up"
        ))
        .unwrap();
        it
    }

    /// What `ip` shows of it, here.
    fn shown(&self) -> String {
        sh(&format!("ip -o addr show dev {}; ip -o link show dev {}", self.0, self.0)).unwrap_or_default()
    }

    /// Whether its other end is here. They go together.
    fn has_peer(&self) -> bool {
        sh(&format!("ip link show dev {}-p", self.0)).is_ok()
    }
}

impl Drop for Interface {
    fn drop(&mut self) {
        let _ = sh(&format!("ip link del {}; ip link del {}-p", self.0, self.0));
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task8_an_interface_moves_into_it_with_its_addresses() {
    let mut engine = Engine::new(
        "ip -o addr show dev inside; ip -o link show dev inside; cat /proc/sys/net/ipv4/conf/inside/forwarding; \
         while :; do sleep 1; done",
    );
    let interface = Interface::new("td-net");
    engine.config["linux"]["netDevices"] = json!({"td-net": {"name": "inside"}});
    // What is set of it is set when it is there.
    engine.config["linux"]["sysctl"] = json!({"net.ipv4.conf.inside.forwarding": "1"});
    engine.call(&["create", "one"]).success();
    assert_eq!(interface.shown(), "", "it is not here any more");
    engine.call(&["start", "one"]).success();
    engine.until_says("output", "\n1\n");
    let said = engine.text("output");
    for address in ["inet 192.0.2.7/24", "inet 198.51.100.7/32", "inet6 2001:db8::7/64"] {
        assert!(said.contains(address), "{address}: {said}");
    }
    // Neither is for all the world, and for good.
    assert!(!said.contains("203.0.113.7") && !said.contains("192.0.2.8"), "{said}");
    assert!(said.contains("mtu 1400") && said.contains(",UP"), "as it was, and up: {said}");
    assert!(interface.has_peer());
    engine.call(&["delete", "--force", "one"]).success();
    until("it ends with the container's namespace", || !interface.has_peer());
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task8_an_interface_keeps_its_name_or_gets_the_first_that_is_free() {
    let mut engine = Engine::new("ip -o link | cut -d: -f2 | cut -d@ -f1 | tr -d '\\n'");
    let _interfaces = [Interface::new("td-one"), Interface::new("td-two")];
    engine.config["linux"]["netDevices"] = json!({"td-one": {"name": "in%d"}, "td-two": {}});
    // Its root could not: the host's does.
    let map = json!([{"containerID": 0, "hostID": 0, "size": 65536}]);
    (engine.config["linux"]["uidMappings"], engine.config["linux"]["gidMappings"]) = (map.clone(), map);
    engine.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    let said = engine.says();
    assert!(said.contains(" in0") && said.contains(" td-two") && !said.contains("td-one"), "{said}");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task8_of_interfaces_that_cannot_all_move_none_has_moved() {
    let mut engine = Engine::new("true");
    let (interface, bridge) = (Interface::new("td-a"), Interface("td-z"));
    sh("ip link add td-z type bridge").unwrap();
    for (devices, words) in [
        (json!({"td-a": {"name": "lo"}}), "one has that name already"),
        (json!({"td-a": {"name": "x"}, "td-z": {"name": "x"}}), "two would be called \"x\""),
        (json!({"td-a": {}, "td-b": {}}), "there is no interface \"td-b\""),
        // A bridge stays where it was made. By then the other one has moved.
        (json!({"td-a": {"name": "x"}, "td-z": {}}), "link set td-z netns"),
    ] {
        engine.config["linux"]["netDevices"] = devices.clone();
        engine.call(&["create", "one"]).code(1).stderr(contains("linux.netDevices").and(contains(words)));
        assert_eq!(engine.remembered(), 0, "{devices}: nothing is left");
        let now = interface.shown();
        for words in ["inet 192.0.2.7/24", "inet 198.51.100.7/32", "inet6 2001:db8::7/64", ",UP", "mtu 1400"]
        {
            assert!(now.contains(words), "{devices}: {words}: {now}");
        }
        assert!(bridge.shown().contains("td-z"), "it is here");
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task8_interfaces_go_into_a_network_that_is_there_and_stay_in_it() {
    let pod = Somebody::with(CloneFlags::CLONE_NEWNET);
    let namespace = pod.namespace("net");
    until("it has its own", || pod.link("net") != common::bundle::own("net"));
    let mut engine = Engine::new("ip -o addr show dev td-pod");
    let interface = Interface::new("td-pod");
    engine.config["linux"]["netDevices"] = json!({"td-pod": {}});
    engine.has_namespaces(&[("mount", None), ("pid", None), ("uts", None)]);
    engine.call(&["create", "one"]).code(1).stderr(contains("needs a namespace of the type network"));
    assert!(interface.shown().contains("192.0.2.7"), "it is here still");
    let network = ("network", Some(&namespace[..]));
    engine.has_namespaces(&[("mount", None), ("pid", None), ("uts", None), network]);
    assert!(engine.says().contains("inet 192.0.2.7/24"), "inside");
    let there = sh(&format!("nsenter --net={namespace} ip -o addr show dev td-pod")).unwrap();
    assert!(there.contains("inet 192.0.2.7/24"), "the network is the pod's: {there}");
    drop(pod);
    until("it ends with that", || !interface.has_peer());
}
