//! Day 18: hooks, and what is hidden from a container.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::bundle::{Engine, hook};
use common::deadline;
use predicates::prelude::*;
use predicates::str::contains;
use serde_json::{Value, json};
use tiny_docker_rs::oci::devices;

/// One that writes a line to a file of the bundle.
fn note(engine: &Engine, line: &str) -> Value {
    hook(&format!("cat >/dev/null; echo {line} >>{}", engine.path("log").display()))
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_hooks_are_called_in_the_order_of_the_specification() {
    let mut engine = Engine::new("true");
    let names = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"];
    engine.config["hooks"] =
        names.iter().map(|name| (name.to_string(), json!([note(&engine, name)]))).collect();
    engine.call(&["create", "one"]).success();
    assert_eq!(engine.text("log"), "prestart\ncreateRuntime\ncreateContainer\n", "by create");
    engine.call(&["start", "one"]).success();
    engine.becomes("one", "stopped");
    engine.call(&["delete", "one"]).success();
    assert!(engine.text("log").ends_with("createContainer\npoststart\npoststop\n"), "{}", engine.text("log"));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_a_hook_has_the_state_on_its_stdin_and_its_own_words_and_environment() {
    let mut engine = Engine::new("true");
    let dir = engine.path("").display().to_string();
    let script = format!("cat >{dir}/state-of-hook; echo \"$0 $1 $ONE $TINY_DOCKER_ROOT\" >{dir}/log");
    let it =
        json!({"path": "/bin/sh", "args": ["its name", "-c", script, "zero", "first"], "env": ["ONE=1"]});
    engine.config["hooks"] = json!({"createRuntime": [it], "poststop": [hook(&format!("cat >{dir}/last"))]});
    engine.call(&["create", "--pid-file", "pid", "one"]).success();
    let state: Value = serde_json::from_str(&engine.text("state-of-hook")).unwrap();
    assert_eq!((&state["id"], &state["status"]), (&json!("one"), &json!("creating")), "{state}");
    assert_eq!(state["pid"], engine.pid_in("pid").as_raw(), "{state}");
    assert_eq!(
        engine.text("log"),
        "zero first 1 \n",
        "its arguments, and nothing of the runtime's environment"
    );
    engine.call(&["delete", "one"]).success();
    let state: Value = serde_json::from_str(&engine.text("last")).unwrap();
    assert_eq!((&state["id"], &state["status"]), (&json!("one"), &json!("stopped")), "{state}");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_where_a_hook_fails_there_is_no_container() {
    let mut engine = Engine::new("echo it runs");
    for moment in ["prestart", "createRuntime", "createContainer"] {
        let hooks = json!([note(&engine, "before"), hook("exit 3"), note(&engine, "after")]);
        engine.config["hooks"] = json!({moment: hooks});
        let told = contains(moment).and(contains("exit status: 3"));
        engine.call(&["create", "one"]).code(1).stderr(told);
        assert_eq!(engine.remembered(), 0, "{moment}: nothing is left");
        assert_eq!(engine.text("log"), "before\n", "{moment}: the rest are not called");
        fs::remove_file(engine.path("log")).unwrap();
    }
    engine.config["hooks"] = json!({"createRuntime": [{"path": "/nowhere/hook"}]});
    engine
        .call(&["run", "one"])
        .code(1)
        .stdout("")
        .stderr(contains("/nowhere/hook").and(contains("No such file")));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_a_hook_that_takes_longer_than_it_may_is_killed() {
    let mut engine = Engine::new("true");
    let mut slow = hook("exec sleep 1000");
    slow["timeout"] = json!(1);
    engine.config["hooks"] = json!({"createRuntime": [slow]});
    let since = Instant::now();
    let mut call = engine.begin(&["create", "one"]);
    while call.ended().is_none() {
        assert!(since.elapsed() < deadline() / 2, "it still waits for a hook that may take 1 s");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(call.ended(), Some(1), "then it is an error");
    assert!(since.elapsed() >= Duration::from_secs(1), "it has the time that it may take");
    assert_eq!(engine.remembered(), 0, "nothing is left");
    // One that is quick enough is none.
    let mut quick = note(&engine, "quick");
    quick["timeout"] = json!(60);
    engine.config["hooks"] = json!({"createRuntime": [quick]});
    engine.call(&["run", "one"]).success();
    assert_eq!(engine.text("log"), "quick\n");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_one_that_does_not_read_its_stdin_is_no_error() {
    let mut engine = Engine::new("true");
    engine.config["annotations"] = json!({"long": "x".repeat(1 << 17)});
    engine.config["hooks"] = json!({"createRuntime": [hook("exec <&-; exit 0")]});
    engine.call(&["run", "one"]).success();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_start_container_is_called_inside_by_start() {
    let mut engine = Engine::new("echo the command; cat /tmp/log");
    engine.mount(json!({"destination": "/tmp", "type": "tmpfs"}));
    let script = "cat >/tmp/state; echo the hook on $(hostname) >/tmp/log; id -u >>/tmp/log";
    engine.config["hooks"] = json!({"startContainer": [hook(script)]});
    engine.config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    engine.call(&["create", "one"]).success();
    assert_eq!(engine.text("output"), "");
    engine.call(&["start", "one"]).success();
    engine.until_says("output", "the command\nthe hook on tiny-runc\n1000\n");
    engine.call(&["delete", "--force", "one"]).success();
    // It is part of the start: one that fails is why there is no command.
    engine.config["hooks"] = json!({"startContainer": [hook("exit 4")]});
    engine.call(&["create", "one"]).success();
    engine.call(&["start", "one"]).code(1).stderr(contains("startContainer").and(contains("exit status: 4")));
    engine.becomes("one", "stopped");
    assert_eq!(engine.text("output"), "", "its command has not run");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_hooks_see_the_root_with_its_mounts_and_mount_more_in_it() {
    let mut engine = Engine::new("cat /tmp/file /more/file; umask");
    let root = engine.copy_of_rootfs("rootfs");
    fs::create_dir(root.join("more")).unwrap();
    engine.config["root"]["path"] = json!("rootfs");
    engine.mount(json!({"destination": "/tmp", "type": "tmpfs"}));
    let root = root.display();
    // On the host one sees it by way of the container's process.
    let on_the_host = format!(
        r#"cd /proc/$(sed -E 's/.*"pid":([0-9]+).*/\1/')/root/{root} && test -e proc/uptime && umask >tmp/file"#
    );
    let inside = format!(
        "cat >/dev/null; cat {root}/tmp/file >&2; test -e {root}/proc/uptime && mount -t tmpfs none {root}/more && \
         echo inside >{root}/more/file"
    );
    engine.config["hooks"] =
        json!({"createRuntime": [hook(&on_the_host)], "createContainer": [hook(&inside)]});
    let said = engine.call(&["run", "one"]).success().stdout("0022\ninside\n0022\n");
    said.stderr(contains("0022"));
    assert_eq!(
        fs::read_dir(engine.path("rootfs/more")).unwrap().count(),
        0,
        "on the host nothing is mounted"
    );
}

/// A root file system with things that are to be hidden.
fn with_secrets(script: &str) -> Engine {
    let mut engine = Engine::new(script);
    let root = engine.copy_of_rootfs("rootfs");
    for dir in ["hidden", "other-hidden", "shown"] {
        fs::create_dir(root.join(dir)).unwrap();
        fs::write(root.join(dir).join("file"), "secret\n").unwrap();
    }
    for file in ["one", "two", "three"] {
        fs::write(root.join(file), "secret\n").unwrap();
    }
    std::os::unix::fs::symlink("/three", root.join("link")).unwrap();
    engine.config["root"] = json!({"path": "rootfs", "readonly": false});
    engine
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task6_of_what_is_hidden_nothing_can_be_read_or_written() {
    let script = "cat /one /two /three; ls -A /hidden /other-hidden; cat /shown/file; echo x >/one; \
        (echo x >/hidden/new) 2>/dev/null && echo written; [ -e /nothere ] || echo still not there";
    let mut engine = with_secrets(script);
    let paths = ["/one", "/hidden", "/nothere", "/two", "/other-hidden", "/link", "/shown/file/below"];
    engine.config["linux"]["maskedPaths"] = json!(paths);
    let said = engine.says();
    let expected = "/hidden:\n\n/other-hidden:\nsecret\nstill not there\n";
    assert_eq!(said, expected, "/shown/file alone is to be seen");
    assert_eq!(engine.text("rootfs/one"), "secret\n", "the file itself is as it was");
    assert!(!engine.path("rootfs/hidden/new").exists(), "and so is the directory");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task6_hidden_is_hidden_from_whoever_is_root_inside_too() {
    let mut engine = with_secrets(
        "umount /one 2>/dev/null; umount /hidden 2>/dev/null; cat /one; ls -A /hidden; head -c 4 /proc/kcore | wc -c",
    );
    let paths = engine.config["linux"]["maskedPaths"].as_array_mut().unwrap();
    paths.extend([json!("/one"), json!("/hidden")]);
    assert_eq!(engine.says(), "0\n");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task6_read_only_is_read_only_with_all_that_is_mounted_below() {
    let script = "for dir in /shown /shown/below; do touch $dir/new 2>&1; done; touch /hidden/new && echo made; cat /shown/file";
    let mut engine = with_secrets(script);
    engine.mount(json!({"destination": "/shown/below", "type": "tmpfs"}));
    engine.config["linux"]["readonlyPaths"] = json!(["/shown", "/nothere"]);
    let said = engine.says();
    assert_eq!(said.matches("Read-only").count(), 2, "{said}");
    assert!(said.ends_with("made\nsecret\n"), "{said}");
}

/// The rules of the device program, in words; `None`: all devices are allowed.
fn rules(asked: Value) -> Result<Option<Vec<String>>, String> {
    let asked: Vec<_> = serde_json::from_value(asked).unwrap();
    let rules = devices::rules(&asked).map_err(|error| error.to_string())?;
    Ok(rules.map(|rules| rules.iter().map(|rule| rule.to_string()).collect()))
}

#[test]
fn task6_of_two_rules_about_a_device_the_later_one_counts() {
    let none = json!({"allow": false, "access": "rwm"});
    let one = |allow: bool, minor: i64, access: &str| json!({"allow": allow, "type": "c", "major": 10, "minor": minor, "access": access});
    let of = |asked: &[Value]| -> Vec<String> {
        let all = rules(asked.into()).unwrap().unwrap();
        all.into_iter().filter(|rule| rule.starts_with("c 10:")).collect()
    };
    assert_eq!(of(&[none.clone(), one(true, 229, "rw")]), ["c 10:229 rw"], "allowed");
    assert_eq!(
        of(&[none.clone(), one(true, 229, "rw"), one(false, 229, "w")]),
        ["c 10:229 r"],
        "w is taken away"
    );
    assert!(
        of(&[none.clone(), one(true, 229, "rw"), one(false, 229, "rwm")]).is_empty(),
        "all of it is taken away"
    );
    assert_eq!(
        of(&[none.clone(), one(true, 229, "rw"), one(true, 200, "rw"), one(false, -1, "w")]),
        ["c 10:229 r", "c 10:200 r"],
        "of all minor numbers"
    );
    assert_eq!(
        of(&[none.clone(), one(false, 229, "w"), one(true, 229, "w")]),
        ["c 10:229 w"],
        "denied, then allowed"
    );
    let block = json!({"allow": false, "type": "b", "major": 10, "minor": 229, "access": "rwm"});
    assert_eq!(
        of(&[none.clone(), one(true, 229, "rw"), block]),
        ["c 10:229 rw"],
        "a block device is another one"
    );
    assert_eq!(rules(json!([{"allow": true, "access": "rwm"}])), Ok(None), "all are allowed");
    assert_eq!(
        rules(json!([{"allow": true, "access": "rwm"}, none])).unwrap().unwrap().len(),
        11,
        "those that every container has"
    );
}

#[test]
fn task6_a_hole_in_what_is_allowed_is_an_error() {
    let none = json!({"allow": false, "access": "rwm"});
    let hole = json!({"allow": false, "type": "c", "major": 10, "minor": 1, "access": "w"});
    let all_of_10 = json!({"allow": true, "type": "c", "major": 10, "access": "rw"});
    let error = rules(json!([none, all_of_10, hole])).expect_err("a rule with a hole");
    assert!(error.contains("linux.resources.devices denies c 10:1 w"), "{error}");
    let error = rules(json!([{"allow": true, "access": "rwm"}, hole])).expect_err("all but one");
    assert!(error.contains("together with others"), "{error}");
    // What it does not have, nobody needs to take away.
    let read = json!({"allow": true, "type": "c", "major": 10, "access": "r"});
    assert!(rules(json!([none, read, hole])).is_ok(), "it may not write anyway");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task6_a_device_that_is_denied_cannot_be_opened_in_its_cgroup() {
    let script = "for name in tun fuse other; do (: </dev/$name) 2>&1 | grep -q 'not permitted' && echo $name; done; true";
    let mut engine = Engine::new(script);
    let node = |path: &str, major: i64, minor: i64| json!({"path": path, "type": "c", "major": major, "minor": minor});
    // The last one is another name of /dev/zero.
    engine.config["linux"]["devices"] =
        json!([node("/dev/tun", 10, 200), node("/dev/fuse", 10, 229), node("/dev/other", 1, 5)]);
    let rules = engine.resources()["devices"].as_array_mut().unwrap();
    rules.push(json!({"allow": true, "type": "c", "major": 10, "minor": 200, "access": "rw"}));
    assert_eq!(engine.says(), "fuse\n", "which of them may not be opened");
}
