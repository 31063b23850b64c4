//! Day 18: what must not happen: to a neighbour, to the host, to what somebody else still waits for.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::thread;

use assert_cmd::assert::OutputAssertExt;
use common::bundle::{Engine, handed_over, hook, running};
use common::{alive, until};
use predicates::prelude::*;
use predicates::str::contains;
use serde_json::{Value, json};
use tiny_docker_rs::oci::devices;

#[test]
fn task8_a_number_that_no_device_has_is_an_error() {
    let rule = |major: i64| {
        json!([
            {"allow": true, "type": "c", "major": major, "minor": 3, "access": "r"},
            {"allow": false, "type": "b", "major": 7, "minor": 0, "access": "r"},
        ])
    };
    for (major, is_fine) in [(1, true), (-1, true), (-2, false), (1 << 32, false)] {
        let rules = devices::rules(&serde_json::from_value::<Vec<_>>(rule(major)).unwrap());
        assert_eq!(rules.is_ok(), is_fine, "{major}: {rules:?}");
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task8_one_that_somebody_waits_for_can_be_changed_and_ended() {
    let engine = Engine::new("echo up; exec sleep 1000");
    let mut run = engine.begin(&["run", "--pid-file", "pid", "one"]);
    engine.until_says("output", "up");
    engine.call(&["update", "--pids-limit", "50", "one"]).success();
    engine.call(&["pause", "one"]).success();
    engine.call(&["resume", "one"]).success();
    engine.call(&["delete", "--force", "one"]).success();
    assert!(!alive(engine.pid_in("pid")), "it has ended");
    until("who waited for it has ended", || run.ended().is_some());
    assert_eq!(engine.remembered(), 0, "nothing is left");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task8_delete_force_ends_one_that_is_being_made() {
    let mut engine = Engine::new("true");
    let log = engine.path("log");
    let script = format!("cat >/dev/null; echo $$ >{}; exec sleep 1000", log.display());
    engine.config["hooks"] = json!({"createRuntime": [hook(&script)]});
    let mut create = engine.begin(&["create", "--pid-file", "pid", "one"]);
    until("its hook runs", || engine.text("log").ends_with('\n'));
    let pid = engine.pid_in("pid");
    engine.call(&["delete", "--force", "one"]).success();
    assert!(!alive(pid), "its first process has ended");
    until("who made it has ended", || create.ended().is_some());
    assert_eq!((create.ended(), engine.remembered()), (Some(1), 0), "nothing is left");
    let hook = nix::unistd::Pid::from_raw(engine.text("log").trim().parse().unwrap());
    until("its hook has ended with it", || !alive(hook));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task8_what_is_half_made_is_none() {
    let mut engine = Engine::new("echo it runs");
    let process = engine.config["process"].take();
    engine.call(&["create", "one"]).code(1).stderr(contains("no process"));
    assert_eq!(engine.remembered(), 0, "nothing is left");
    // As a `create` leaves it that was killed before it wrote anything.
    fs::create_dir_all(engine.path("state/one")).unwrap();
    engine.call(&["state", "one"]).code(1).stderr(contains("container one does not exist"));
    engine.call(&["delete", "one"]).code(1).stderr(contains("does not exist"));
    assert_eq!(engine.remembered(), 0, "that is gone");
    engine.config["process"] = process;
    assert_eq!(engine.says(), "it runs\n", "its name is free");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task8_a_cgroup_in_which_somebody_is_is_taken_by_nobody_else() {
    let mut engine = Engine::new("exec sleep 1000");
    engine.config["linux"]["cgroupsPath"] = json!("/tiny-runc-test/shared");
    running(&engine);
    engine.call(&["create", "two"]).code(1).stderr(contains("cgroupsPath").and(contains("shared")));
    assert_eq!((engine.status("one"), engine.remembered()), ("running".into(), 1), "it goes on");
    engine.config["linux"]["cgroupsPath"] = json!("/");
    engine.call(&["create", "two"]).code(1).stderr(contains("root of all cgroups"));
    engine.call(&["delete", "--force", "one"]).success();
    let _ = fs::remove_dir("/sys/fs/cgroup/tiny-runc-test");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task8_exec_goes_where_the_first_process_has_gone() {
    let mut engine = Engine::new(
        "cd /sys/fs/cgroup && mkdir in && echo $$ >in/cgroup.procs && echo +pids >cgroup.subtree_control && \
         echo divided; exec sleep 1000",
    );
    let mounts = engine.config["mounts"].as_array_mut().unwrap();
    let cgroups = mounts.iter_mut().find(|mount| mount["type"] == "cgroup").unwrap();
    cgroups["options"] = json!(["nosuid", "noexec", "nodev"]);
    running(&engine);
    engine.until_says("output", "divided");
    engine.call(&["exec", "one", "cat", "/proc/self/cgroup"]).success().stdout("0::/in\n");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task8_neighbours_in_a_pid_namespace_cannot_look_into_one_that_waits() {
    let mut engine = Engine::new("exec sleep 1000");
    running(&engine);
    let pids = format!("/proc/{}/ns/pid", engine.pid_in("pid"));
    engine.has_namespaces(&[("pid", Some(&pids)), ("mount", None)]);
    engine.config["hostname"] = Value::Null;
    engine.call(&["create", "two"]).success();
    engine.call(&["exec", "one", "cat", "/proc/2/maps"]).code(1).stderr(contains("ermission denied"));
    let script = "for file in /proc/2/fd/*; do timeout 1 sh -c 'echo -n ! >$0' $file; done 2>/dev/null; true";
    engine.call(&["exec", "one", "sh", "-c", script]).success();
    assert_eq!(engine.status("two"), "created");
    // Without an end of its own for all of them, SIGKILL is for each of them.
    engine.call(&["start", "two"]).success();
    engine.call(&["exec", "--detach", "--pid-file", "more", "two", "sleep", "1000"]).success();
    engine.call(&["kill", "two", "KILL"]).success();
    let more = engine.pid_in("more");
    until("all of it has ended", || {
        common::reap_orphans();
        !alive(more)
    });
    assert_eq!(engine.status("one"), "running");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task8_files_for_somebody_else_are_not_passed_on() {
    let engine = Engine::new("ls /proc/self/fd; echo LISTEN_FDS=$LISTEN_FDS");
    engine.write();
    let run = engine.tiny_runc(&["run", "one"]);
    let words: Vec<_> = [run.get_program()].into_iter().chain(run.get_args()).collect();
    for (its_own, said) in [(false, "0\n1\n2\n3\nLISTEN_FDS=\n"), (true, "0\n1\n2\n3\n4\nLISTEN_FDS=1\n")] {
        let pid = if its_own { "$$" } else { "1" };
        let script = format!("exec 3</; export LISTEN_FDS=1 LISTEN_PID={pid}; exec \"$@\"");
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &script, "sh"]).args(&words).current_dir(engine.path(""));
        command.output().unwrap().assert().success().stdout(said);
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task8_the_images_links_lead_proc_nowhere() {
    let mut engine = Engine::new("true");
    let root = engine.copy_of_rootfs("rootfs");
    engine.config["root"]["path"] = json!("rootfs");
    fs::remove_dir(root.join("proc")).unwrap();
    fs::create_dir_all(root.join("var/elsewhere")).unwrap();
    symlink("var/elsewhere", root.join("proc")).unwrap();
    engine.call(&["run", "one"]).code(1).stderr(contains("/proc").and(contains("is a link")));
    assert_eq!(engine.remembered(), 0, "nothing is left");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task8_what_a_process_file_does_not_say_is_as_with_the_container() {
    let mut engine = Engine::new("exec sleep 1000");
    engine.config["process"]["user"] = json!({"uid": 1000, "gid": 1001});
    running(&engine);
    engine.call(&["exec", "--user", "7", "one", "id", "-G"]).success().stdout("1001\n");
    engine.call(&["exec", "--user", "7:8", "one", "id", "-G"]).success().stdout("8\n");
    let script = "ulimit -n; grep CapBnd /proc/self/status";
    let process = json!({"cwd": "/", "args": ["sh", "-c", script], "user": {"uid": 0, "gid": 0},
        "env": ["PATH=/bin"]});
    fs::write(engine.path("process.json"), process.to_string()).unwrap();
    let its = engine.call(&["exec", "--user", "0", "one", "sh", "-c", script]).success();
    let its = String::from_utf8(its.get_output().stdout.clone()).unwrap();
    assert!(its.starts_with("1024\n") && its.ends_with("20000420\n"), "{its}");
    engine.call(&["exec", "--process", "process.json", "one"]).success().stdout(its);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task8_update_leaves_what_it_is_not_asked_about() {
    let mut engine = Engine::new("exec sleep 1000");
    *engine.resources() = json!({"cpu": {"quota": 50_000, "period": 200_000}, "pids": {"limit": 50}});
    running(&engine);
    let limits = || {
        let words = ["exec", "one", "sh", "-c", "cd /sys/fs/cgroup && cat cpu.max pids.max memory.max"];
        let said = engine.call(&words).success();
        String::from_utf8(said.get_output().stdout.clone()).unwrap()
    };
    engine.call(&["update", "--cpu-period", "100000", "one"]).success();
    assert_eq!(limits(), "50000 100000\n50\nmax\n", "a period keeps the quota");
    engine.call(&["update", "--cpu-quota", "30000", "--memory", "100M", "one"]).success();
    assert_eq!(limits(), "30000 100000\n50\n104857600\n", "a quota keeps the period");
    fs::write(engine.path("none.json"), r#"{"pids": {"limit": 0}, "memory": {"limit": -1}}"#).unwrap();
    engine.call(&["update", "--resources", "none.json", "one"]).success();
    assert_eq!(limits(), "30000 100000\n50\nmax\n", "0 says nothing, -1 is no limit");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task8_a_bind_mount_has_no_options_of_a_file_system() {
    let mut engine = Engine::new("true");
    engine.mount(
        json!({"destination": "/tmp", "type": "bind", "source": "/", "options": ["bind", "readonly"]}),
    );
    engine.call(&["run", "one"]).code(1).stderr(contains("/tmp").and(contains("readonly")));
    assert_eq!(engine.remembered(), 0, "nothing is left");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task8_nothing_is_made_in_the_hosts_dev() {
    let mut engine = Engine::new("test -c /dev/null && echo null");
    let mounts = engine.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    engine.mount(json!({"destination": "/dev", "type": "bind", "source": "/dev", "options": ["rbind"]}));
    engine.config["linux"]["devices"] =
        json!([{"path": "/dev/of-the-test", "type": "c", "major": 1, "minor": 3, "fileMode": 438}]);
    assert_eq!(engine.says(), "null\n");
    assert!(!fs::exists("/dev/of-the-test").unwrap(), "a device of the bundle's on the host");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task8_a_terminal_lies_over_a_console_that_is_there() {
    let mut engine = Engine::new("ls -l /dev/console >/tmp/console && cat /tmp/console; sleep 1000");
    engine.mount(json!({"destination": "/tmp", "type": "tmpfs"}));
    engine.config["process"]["terminal"] = json!(true);
    engine.config["linux"]["devices"] =
        json!([{"path": "/dev/console", "type": "c", "major": 5, "minor": 1, "fileMode": 384}]);
    let listener = UnixListener::bind(engine.path("socket")).unwrap();
    let there = thread::spawn(move || handed_over(&listener).1);
    engine.call(&["create", "--console-socket", "socket", "one"]).success();
    let _terminal = there.join().unwrap();
    engine.call(&["start", "one"]).success();
    engine.call(&["exec", "one", "stat", "-c", "%t", "/dev/console"]).success().stdout("88\n");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task8_after_a_poststart_that_fails_it_does_not_go_on() {
    let mut engine = Engine::new("exec sleep 1000");
    engine.config["hooks"] = json!({"poststart": [hook("cat >/dev/null; exit 5")]});
    engine.call(&["create", "one"]).success();
    engine.call(&["start", "one"]).code(1).stderr(contains("poststart").and(contains("exit status: 5")));
    assert_eq!(engine.status("one"), "stopped");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task8_one_that_is_paused_before_its_start_is_resumed_first() {
    let engine = Engine::new("echo it runs; exec sleep 1000");
    engine.call(&["create", "one"]).success();
    engine.call(&["pause", "one"]).success();
    engine.call(&["start", "one"]).code(1).stderr(contains("paused").and(contains("resume")));
    engine.call(&["resume", "one"]).success();
    engine.call(&["start", "one"]).success();
    engine.becomes("one", "running");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task8_numbers_may_be_as_large_as_they_like() {
    let mut engine = Engine::new("echo it runs");
    engine.call(&["run", "--preserve-fds", "4294967295", "one"]).code(2).stderr(contains("preserve-fds"));
    let mut patient = hook("cat >/dev/null");
    patient["timeout"] = json!(i64::MAX);
    engine.config["hooks"] = json!({"createRuntime": [patient]});
    assert_eq!(engine.says(), "it runs\n");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task8_it_goes_on_without_whoever_has_started_it() {
    let mut engine = Engine::new("echo it runs; exec sleep 1000");
    engine.mount(json!({"destination": "/tmp", "type": "tmpfs"}));
    // The hook goes on when it is told to.
    let script = "cat >/dev/null; mkfifo /tmp/gate; echo >/tmp/here; read line </tmp/gate";
    engine.config["hooks"] = json!({"startContainer": [hook(script)]});
    engine.call(&["create", "--pid-file", "pid", "one"]).success();
    let start = engine.begin(&["start", "one"]);
    let inside = |name: &str| format!("/proc/{}/root/tmp/{name}", engine.pid_in("pid"));
    until("the hook runs", || fs::exists(inside("here")).unwrap());
    drop(start);
    fs::write(inside("gate"), "go on\n").unwrap();
    engine.becomes("one", "running");
}
