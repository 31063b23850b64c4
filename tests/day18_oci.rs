//! Day 18: the OCI runtime, through its command line.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use assert_cmd::assert::{Assert, OutputAssertExt};
use common::busybox;
use predicates::prelude::*;
use predicates::str::contains;
use serde_json::{Value, json};

/// A bundle, and a place where containers are remembered.
struct Engine {
    dir: tempfile::TempDir,
    config: Value,
}

impl Engine {
    /// With the configuration that `spec` writes, on busybox, without a terminal.
    fn new(script: &str) -> Engine {
        let dir = tempfile::tempdir().unwrap();
        tiny_runc().args(["spec", "--bundle"]).arg(dir.path()).assert().success();
        let text = fs::read(dir.path().join("config.json")).unwrap();
        let mut config: Value = serde_json::from_slice(&text).unwrap();
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["sh", "-c", script]);
        config["root"]["path"] = json!(busybox());
        Engine { dir, config }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn call(&self, words: &[&str]) -> Assert {
        fs::write(self.path("config.json"), self.config.to_string()).unwrap();
        let mut command = tiny_runc();
        command.arg("--root").arg(self.path("state")).args(words).current_dir(self.dir.path());
        // What a container holds open is not to be waited for.
        let output = fs::File::create(self.path("output")).unwrap();
        if words[0] == "create" {
            command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        }
        command.assert()
    }

    fn status(&self, id: &str) -> String {
        let output = self.call(&["state", id]).success();
        let state: Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
        state["status"].as_str().unwrap().into()
    }

    #[track_caller]
    fn becomes(&self, id: &str, status: &str) {
        let since = Instant::now();
        while self.status(id) != status {
            assert!(since.elapsed() < Duration::from_secs(20), "{id} is {}, not {status}", self.status(id));
            sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.path("state")).into_iter().flatten().flatten() {
            self.call(&["delete", "--force", entry.file_name().to_str().unwrap()]);
        }
    }
}

fn tiny_runc() -> Command {
    Command::new(Path::new(env!("CARGO_BIN_EXE_tiny-runc")))
}

#[test]
fn its_version_has_three_lines_as_callers_of_runc_expect() {
    let lines = contains("tiny-runc version ").and(contains("\nspec: 1."));
    tiny_runc().arg("--version").assert().success().stdout(lines);
}

#[test]
fn features_are_a_document_of_the_specification() {
    let output = tiny_runc().arg("features").assert().success();
    let document: Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
    assert_eq!(document["ociVersionMin"], "1.0.0");
    let options = document["mountOptions"].as_array().unwrap();
    for word in ["rbind", "rro", "tmpcopyup", "idmap", "rshared"] {
        assert!(options.contains(&json!(word)), "{word}");
    }
}

#[test]
fn an_unknown_container_does_not_exist_in_these_words_and_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let mut command = tiny_runc();
    command.arg("--root").arg(dir.path()).arg("--log").arg(&log).args(["--log-format", "json", "state", "x"]);
    command.assert().failure().stderr(contains("does not exist"));
    let line: Value = serde_json::from_slice(&fs::read(&log).unwrap()).unwrap();
    assert_eq!(line["level"], "error");
    assert_eq!(line["msg"], "container x does not exist");
    let mut command = tiny_runc();
    command.arg("--root").arg(dir.path()).args(["delete", "--force", "x"]).assert().success();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn run_has_the_commands_exit_code_and_leaves_nothing() {
    let engine = Engine::new("echo it is $(hostname); exit 7");
    engine.call(&["run", "one"]).code(7).stdout("it is tiny-runc\n");
    assert_eq!(fs::read_dir(engine.path("state")).unwrap().count(), 0);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn a_created_container_waits_for_start_and_ends_without_its_maker() {
    let engine = Engine::new("echo it runs; while [ ! -e /tmp/end ]; do sleep 0.05; done");
    engine.call(&["create", "--pid-file", "pid", "one"]).success();
    assert_eq!(engine.status("one"), "created");
    let pid = fs::read_to_string(engine.path("pid")).unwrap();
    assert!(Path::new("/proc").join(&pid).exists(), "{pid} is its first process");
    engine.call(&["delete", "nobody"]).failure();
    engine.call(&["start", "one"]).success();
    engine.becomes("one", "running");
    engine.call(&["start", "one"]).failure().stderr(contains("it is running"));
    engine.call(&["delete", "one"]).failure().stderr(contains("not stopped"));
    engine.call(&["exec", "one", "sh", "-c", "exit 3"]).code(3);
    engine.call(&["kill", "one", "9"]).success();
    engine.becomes("one", "stopped");
    engine.call(&["kill", "one", "9"]).failure().stderr(contains("container not running"));
    engine.call(&["delete", "one"]).success();
    engine.call(&["state", "one"]).failure().stderr(contains("does not exist"));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn a_missing_command_is_an_error_of_create_in_words_that_engines_know() {
    let mut engine = Engine::new("");
    engine.config["process"]["args"] = json!(["nothere"]);
    engine.call(&["run", "one"]).code(127).stderr(contains("executable file not found in $PATH"));
    engine.config["process"]["args"] = json!(["/etc"]);
    engine.call(&["run", "one"]).code(126).stderr(contains("permission denied"));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn mounts_come_in_their_order_with_their_options() {
    let mut engine = Engine::new("cat /data/file && ! touch /data/other 2>/dev/null && ls /home/..");
    fs::create_dir(engine.path("data")).unwrap();
    fs::write(engine.path("data/file"), "hello\n").unwrap();
    let source = engine.path("data");
    let mounts = engine.config["mounts"].as_array_mut().unwrap();
    mounts.push(json!({"destination": "/tmp", "type": "tmpfs"}));
    mounts.push(
        json!({"destination": "/tmp/data", "type": "bind", "source": source, "options": ["rbind", "ro"]}),
    );
    engine.config["process"]["args"] =
        json!(["sh", "-c", "cat /tmp/data/file; touch /tmp/data/other 2>&1; touch /tmp/mine && echo made"]);
    engine
        .call(&["run", "one"])
        .success()
        .stdout(contains("hello\n").and(contains("Read-only")).and(contains("made")));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn hooks_are_called_in_the_order_of_the_specification() {
    let mut engine = Engine::new("true");
    let log = engine.path("hooks");
    let hook = |name: &str| {
        let script = format!("cat >/dev/null; echo {name} >>{}", log.display());
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}])
    };
    let names = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"];
    engine.config["hooks"] = names.iter().map(|name| (name.to_string(), hook(name))).collect();
    engine.call(&["create", "one"]).success();
    assert_eq!(fs::read_to_string(&log).unwrap(), "prestart\ncreateRuntime\ncreateContainer\n");
    engine.call(&["start", "one"]).success();
    engine.becomes("one", "stopped");
    engine.call(&["delete", "one"]).success();
    assert!(fs::read_to_string(&log).unwrap().ends_with("poststart\npoststop\n"));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn root_of_a_user_namespace_has_the_ids_of_its_maps() {
    let mut engine = Engine::new("id -u; cat /proc/self/uid_map");
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    engine.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    engine.config["linux"]["uidMappings"] = map.clone();
    engine.config["linux"]["gidMappings"] = map;
    engine.call(&["run", "one"]).success().stdout(contains("0\n").and(contains("100000      65536")));
}
