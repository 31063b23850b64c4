//! Day 4: remember what was started.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use assert_cmd::assert::Assert;
use common::{Running, World, busybox, until};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use predicates::prelude::*;
use predicates::str::{contains, is_empty, is_match};
use serde_json::{Value, json};

/// Runs `script` with the flags `flags` on the shared root file system.
fn run(world: &World, flags: &[&str], script: &str) -> Assert {
    world.tiny_docker(words(flags, script)).assert()
}

/// The same, left running; it must write a line when it is ready.
fn start(world: &World, flags: &[&str], script: &str) -> Running {
    let mut running = world.start(words(flags, script));
    running.line();
    running
}

fn words(flags: &[&str], script: &str) -> Vec<String> {
    let rootfs = busybox();
    let words = [&["run", "--rootfs", rootfs.to_str().unwrap()], flags, &["sh", "-c", script]].concat();
    words.into_iter().map(String::from).collect()
}

/// The directories of all containers, in no order.
fn dirs(world: &World) -> Vec<PathBuf> {
    fs::read_dir(world.containers()).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
}

/// The one container that there is: its directory, and its record as it is on the disk.
fn the_record(world: &World) -> (PathBuf, Value) {
    let dirs = dirs(world);
    assert_eq!(dirs.len(), 1, "{dirs:?}");
    let text = fs::read(dirs[0].join("config.json")).unwrap();
    (dirs[0].clone(), serde_json::from_slice(&text).unwrap())
}

/// Plants a record as if a container of this id had been run, with what `change` says.
fn plant(world: &World, id: &str, change: Value) -> PathBuf {
    let mut record = json!({
        "version": 1, "id": id, "name": null, "command": ["sh"], "hostname": null, "rootfs": null,
        "status": "exited", "created_at": "2026-05-12T10:00:00Z", "pid": null, "start_time": null,
        "boot_id": null, "exit_code": 0, "signal": null, "finished_at": "2026-05-12T10:00:01Z",
    });
    record.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    let dir = world.containers().join(id);
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("config.json"), record.to_string()).unwrap();
    dir
}

/// Field 22 of /proc/PID/stat.
fn start_time(pid: i64) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.split(' ').nth(22 - 3).unwrap().parse().unwrap()
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim().to_string()
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_every_run_gets_an_id_and_a_record() {
    let world = World::new();
    run(&world, &["--hostname", "box", "--name", "web-1"], "exit 3").code(3);
    let (dir, record) = the_record(&world);
    let id = record["id"].as_str().unwrap();
    assert!(is_match("^[0-9a-f]{12}$").unwrap().eval(id), "{id}");
    assert!(dir.ends_with(id));
    assert_eq!(record["name"], "web-1");
    assert_eq!(record["command"], json!(["sh", "-c", "exit 3"]));
    assert_eq!(record["hostname"], "box");
    assert_eq!(record["rootfs"], *fs::canonicalize(busybox()).unwrap().to_string_lossy());
    assert_eq!((&record["status"], &record["exit_code"]), (&json!("exited"), &json!(3)));
    assert_eq!((&record["pid"], &record["signal"]), (&Value::Null, &Value::Null));
    assert!(record["finished_at"].as_str().unwrap() >= record["created_at"].as_str().unwrap());
    // Commands hold secrets.
    assert_eq!(fs::metadata(dir.join("config.json")).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(world.containers()).unwrap().mode() & 0o777, 0o700);

    run(&world, &[], "true").success();
    let ids: BTreeSet<PathBuf> = dirs(&world).into_iter().collect();
    assert_eq!(ids.len(), 2);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_the_record_says_what_happens_while_it_happens() {
    let world = World::new();
    let mut running = start(&world, &[], "echo ready; exec sleep 1000");
    let (_, record) = the_record(&world);
    let pid = running.command().as_raw() as i64;
    assert_eq!((&record["status"], &record["pid"]), (&json!("running"), &json!(pid)));
    assert_eq!(record["start_time"], start_time(pid));
    assert_eq!(record["boot_id"], boot_id());
    assert_eq!((&record["exit_code"], &record["finished_at"]), (&Value::Null, &Value::Null));
    running.signal_command(Signal::SIGKILL);
    assert_eq!(running.ended(), 137);
    let (_, record) = the_record(&world);
    assert_eq!((&record["status"], &record["exit_code"]), (&json!("exited"), &json!(137)));
    assert_eq!((&record["signal"], &record["pid"]), (&json!("SIGKILL"), &Value::Null));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_names_follow_dockers_rules() {
    let world = World::new();
    for name in ["", "x", "-web", ".web", "_web", "web 1", "web/1", "caf\u{e9}", "web\n"] {
        let flag = format!("--name={name}");
        run(&world, &[&flag], "true").code(125).stderr(contains("--name").and(contains("such as web-1")));
    }
    for name in ["web", "Web_1.x-y", "0a", &"x".repeat(200)] {
        run(&world, &["--rm", "--name", name], "true").success().stderr(is_empty());
    }
    assert_eq!(dirs(&world).len(), 0);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_a_run_that_does_not_begin_leaves_no_record() {
    let world = World::new();
    let rootfs = busybox();
    let run = |word: &str| world.tiny_docker(["run", "--rootfs", rootfs.to_str().unwrap(), word]).assert();
    run("no-such-command").code(127);
    run("/etc").code(126);
    world.tiny_docker(["run", "--rootfs", "no/such/dir", "true"]).assert().code(125);
    world
        .tiny_docker(["run", "--rootfs", rootfs.to_str().unwrap(), "-u", "nosuch", "true"])
        .assert()
        .code(125);
    assert_eq!(dirs(&world).len(), 0);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_a_record_is_never_half_written() {
    let world = World::new();
    // Somebody who has opened the record when the next one is written reads the old
    // one to its end: another file has taken the name.
    let mut running = start(&world, &[], "echo ready; exec sleep 1000");
    let mut opened = fs::File::open(the_record(&world).0.join("config.json")).unwrap();
    running.signal_command(Signal::SIGKILL);
    assert_eq!(running.ended(), 137);
    let mut text = String::new();
    opened.read_to_string(&mut text).unwrap();
    let whole: Value = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("half a record was read: {error}: {text:?}"));
    assert_eq!(whole["status"], "running", "the record changed under somebody who was reading it");

    // And at no moment is there anything but a whole one.
    // Long, so that writing it takes a while.
    let script = format!("true {}", "x".repeat(100_000));
    let read = AtomicU32::new(0);
    thread::scope(|scope| {
        // Until it was read often enough while it was written, whoever is faster.
        let writer = scope.spawn(|| {
            for _ in (0..200).take_while(|run| *run < 20 || read.load(Relaxed) <= 20) {
                run(&world, &[], &script).success();
            }
        });
        while !writer.is_finished() {
            for dir in dirs(&world) {
                if let Ok(text) = fs::read(dir.join("config.json")) {
                    let whole = serde_json::from_slice::<Value>(&text);
                    assert!(
                        whole.is_ok(),
                        "somebody who reads the record at the wrong moment finds half of it: {whole:?}"
                    );
                    read.fetch_add(1, Relaxed);
                }
            }
        }
    });
    assert!(read.load(Relaxed) > 20);
    for dir in dirs(&world) {
        let names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(!names.iter().any(|name| name.to_string_lossy().contains("new")), "{names:?}");
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_a_second_signal_ends_a_cleanup_that_hangs() {
    let world = World::new();
    // What is made only once is there from now on: the next two runs do the same.
    run(&world, &[], "true").success();
    let explained =
        world.tiny_docker([vec!["--explain".into()], words(&[], "true")].concat()).output().unwrap();
    let narration = String::from_utf8(explained.stderr).unwrap();
    let mut operations = narration.lines().filter(|line| line.contains(" parent "));
    let reaped = 1 + operations.position(|line| line.contains("waitid")).unwrap();

    let hang = format!("parent:{}", reaped + 1);
    let mut running = world.start_with([("TINY_DOCKER_HANG_AT", &hang)], words(&[], "echo ready"));
    running.line();
    let runtime = running.runtime();
    until("it cleans up", || common::catches(runtime, Signal::SIGTERM));
    // It is ending already, so the first one changes nothing.
    running.signal_runtime(Signal::SIGINT);
    until("the first signal has arrived", || !common::catches(runtime, Signal::SIGTERM));
    assert!(common::alive(runtime), "the first signal has ended the cleanup");
    running.signal_runtime(Signal::SIGTERM);
    assert_eq!(running.ended(), -(Signal::SIGTERM as i32), "minus the signal that killed it");
    assert!(!world.ps().contains("Up "), "{}", world.ps());
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_run_rm_forgets() {
    let world = World::new();
    run(&world, &["--rm"], "exit 3").code(3);
    assert_eq!(dirs(&world).len(), 0);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_ps_lists_those_that_run_and_with_a_all() {
    let world = World::new();
    world
        .tiny_docker(["ps"])
        .assert()
        .success()
        .stderr(is_empty())
        .stdout(is_match("^CONTAINER ID   NAME   PID   STATUS   CREATED   COMMAND\n$").unwrap());
    run(&world, &["--name", "done"], "exit 3").code(3);
    let mut running = start(&world, &["--name", "web"], "echo ready; exec sleep 1000");
    let pid = running.command();
    let row = |name: &str, rest: &str| is_match(format!("(?m)^[0-9a-f]{{12}}   {name} +{rest}$")).unwrap();
    let up = format!(
        r#"{pid} +Up (Less than a second|1 second|\d+ seconds)   +.* ago +[\d.]* *"sh -c echo ready; e…""#
    );
    // On later days there is an address before the command.
    let exited = r#"Exited \(3\) .* ago   +.* ago +"sh -c exit 3""#;
    let ps = |flags: &[&str]| world.tiny_docker(["ps"].iter().chain(flags)).assert().success();
    ps(&[]).stdout(row("web", &up).and(contains("done").not()));
    ps(&["-a"]).stdout(row("web", &up).and(row("done", exited)));
    // The newest first.
    ps(&["--all"]).stdout(is_match("(?s)web.*done").unwrap());
    ps(&["--no-trunc"]).stdout(contains("\"sh -c echo ready; exec sleep 1000\"\n"));
    let id = world.inspect("web")["id"].as_str().unwrap().to_string();
    ps(&["-q"]).stdout(format!("{id}\n"));
    let json = String::from_utf8(ps(&["-a", "--format", "json"]).get_output().stdout.clone()).unwrap();
    let lines: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[0]["name"], &lines[1]["exit_code"]), (2, &json!("web"), &json!(3)));
    world.tiny_docker(["ps", "--format", "xml"]).assert().code(2).stderr(contains("table, json"));
    running.signal_command(Signal::SIGKILL);
    running.ended();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_inspect_shows_all_that_is_remembered() {
    let world = World::new();
    run(&world, &["--name", "one"], "exit 1").code(1);
    run(&world, &["--name", "two"], "exit 2").code(2);
    let assert = world.tiny_docker(["inspect", "two", "nosuch", "one"]).assert().code(1);
    let array: Value = serde_json::from_slice(&assert.get_output().stdout).unwrap();
    assert_eq!(array.as_array().unwrap().len(), 2);
    assert_eq!((&array[0]["exit_code"], &array[1]["exit_code"]), (&json!(2), &json!(1)));
    assert.stderr(contains("no such container: \"nosuch\"").and(contains("ps -a")));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_an_id_its_beginning_or_a_name_will_do() {
    let world = World::new();
    plant(&world, "aaaa00000000", json!({"exit_code": 1}));
    plant(&world, "aaab00000000", json!({"exit_code": 2}));
    // A name that looks like the beginning of an id comes first, as with Docker.
    plant(&world, "bbbb00000000", json!({"exit_code": 3, "name": "aaab"}));
    plant(&world, "cccc00000000", json!({"exit_code": 4, "name": "bbbb00000000"}));
    for (word, code) in
        [("aaaa00000000", 1), ("aaaa", 1), ("aaab0", 2), ("aaab", 3), ("b", 3), ("bbbb00000000", 3), ("c", 4)]
    {
        assert_eq!(world.inspect(word)["exit_code"], code, "{word}");
    }
    let several = contains("several containers").and(contains("more digits"));
    world.tiny_docker(["inspect", "aaa"]).assert().code(1).stderr(several);
    for word in ["", "d", "aaaa000000000", "../containers/aaaa00000000", "AAAA"] {
        world.tiny_docker(["inspect", word]).assert().code(1).stderr(contains("no such container"));
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_a_name_is_one_containers() {
    let world = World::new();
    run(&world, &["--name", "web"], "true").success();
    let id = world.inspect("web")["id"].as_str().unwrap().to_string();
    let taken = contains("\"web\" is taken").and(contains(id)).and(contains("tiny-docker rm web"));
    run(&world, &["--name", "web"], "true").code(125).stderr(taken);
    // Of several at the same time, one gets it.
    let codes: Vec<Option<i32>> = thread::scope(|scope| {
        let runs: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| run(&world, &["--name", "db"], "true").get_output().status.code()))
            .collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    assert_eq!(codes.iter().filter(|code| **code == Some(0)).count(), 1, "{codes:?}");
    assert_eq!(codes.iter().filter(|code| **code == Some(125)).count(), 7, "{codes:?}");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_garbage_is_named_listed_and_left_alone() {
    let world = World::new();
    run(&world, &["--name", "good"], "true").success();
    let garbage = |id: &str| {
        let dir = world.containers().join(id);
        fs::create_dir(&dir).unwrap();
        dir.join("config.json")
    };
    fs::write(garbage("000000000001"), r#"{"version": 1, "id": "0000000"#).unwrap();
    fs::write(garbage("000000000002"), "").unwrap();
    fs::write(garbage("000000000003"), "\u{0}\u{ff}").unwrap();
    nix::unistd::mkfifo(&garbage("000000000004"), Mode::S_IRWXU).unwrap();
    fs::create_dir(garbage("000000000005")).unwrap();
    symlink("../../../elsewhere", garbage("000000000006")).unwrap();
    // Somebody else's, however well it is written.
    let foreign = plant(&world, "000000000007", json!({})).join("config.json");
    std::os::unix::fs::chown(&foreign, Some(65534), None).unwrap();
    plant(&world, "000000000008", json!({"version": 2}));
    plant(&world, "000000000009", json!({"version": 7, "status": {"since": "the future"}}));
    plant(&world, "00000000000a", json!({"id": "00000000000b"}));
    plant(&world, "00000000000c", json!({"status": "asleep"}));
    garbage("00000000000d");
    fs::create_dir(world.containers().join("lost+found")).unwrap();
    fs::write(world.containers().join("notes.txt"), "mine").unwrap();
    // A name need not be UTF-8.
    fs::create_dir(world.containers().join(OsStr::from_bytes(b"caf\xe9"))).unwrap();
    let before = tree(&world.containers());

    // A listing that lacks something does not exit with 0.
    let assert = world.tiny_docker(["ps", "-a"]).assert().code(1);
    let stderr = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    for name in (1..=0xd)
        .filter(|n| *n != 0xb)
        .map(|n| format!("{n:012x}"))
        .chain(["lost+found".into(), "notes.txt".into()])
    {
        let path = world.containers().join(name);
        assert_eq!(stderr.matches(&format!("{}: ", path.display())).count(), 1, "{path:?} in\n{stderr}");
    }
    for words in ["use the newer one", "belongs to user 65534", "caf\u{fffd}: not a container"] {
        assert!(stderr.contains(words), "expected {words:?} of one of them in:\n{stderr}");
    }
    // The good one, and the twelve that have the name of a container.
    let stdout = String::from_utf8_lossy(&assert.get_output().stdout).into_owned();
    assert_eq!(
        (stdout.lines().count(), stdout.matches(" Unreadable ").count()),
        (1 + 1 + 12, 12),
        "{stdout}"
    );
    world.tiny_docker(["inspect", "000000000001"]).assert().code(1).stdout(contains("no record"));
    assert_eq!(world.inspect("good")["exit_code"], 0);
    run(&world, &["--rm", "--name", "another"], "true").success();
    assert_eq!(tree(&world.containers()), before);
}

/// Every path below `dir`, with its kind, size, owner and time.
fn tree(dir: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap()) {
        let metadata = entry.metadata().unwrap();
        let facts = (metadata.mode(), metadata.size(), metadata.uid(), metadata.mtime_nsec());
        found.insert(format!("{:?} {facts:?}", entry.path()));
        if metadata.is_dir() {
            found.extend(tree(&entry.path()));
        }
    }
    found
}

// https://github.com/moby/moby/issues/12195, https://github.com/docker/cli/issues/4338
#[test]
fn task2_what_cannot_be_printed_is_an_error() {
    let world = World::new();
    plant(&world, "000000000001", json!({}));
    for words in [&["ps", "-a"][..], &["ps", "-aq"], &["inspect", "000000000001"], &["--help"]] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = Command::new(common::binary()).args(words).stdout(full).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{words:?} > /dev/full: {said}");
        assert!(said.contains("No space left on device"), "{words:?} > /dev/full: {said}");
        // That nobody reads it is no error.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Command::new(common::binary()).args(words).stdout(writer).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{words:?}: {}", common::said(&output));
    }
}

// https://github.com/travis-ci/travis-ci/issues/4704
#[test]
fn task2_a_slow_reader_of_a_pipe_that_does_not_block_gets_all() {
    let world = World::new();
    for number in 0..100 {
        plant(&world, &format!("{number:012x}"), json!({ "command": ["x".repeat(3000)] }));
    }
    let (shown, code) = common::through_a_non_blocking_pipe(["ps", "-a", "--no-trunc"]);
    assert_eq!((shown.len() > 300_000, code), (true, 0), "{} bytes", shown.len());
    let all = world.tiny_docker(["ps", "-a", "--no-trunc"]).output().unwrap().stdout;
    assert_eq!(shown.len(), all.len());
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_a_state_directory_that_cannot_be_is_an_error() {
    let world = World::new();
    let file = world.dir().join("file");
    fs::write(&file, "").unwrap();
    for root in [file.to_str().unwrap(), "/proc/no/such"] {
        world.tiny_docker(["--root", root, "run", "true"]).assert().code(125).stderr(contains(root));
    }
    // Before the subcommand or after it, relative or not; and ps makes nothing.
    let root = world.dir().join("elsewhere");
    world.tiny_docker(["ps", "-a", "--root", "elsewhere"]).assert().success();
    assert!(!root.exists());
    world.tiny_docker(["run", "--root", "elsewhere", "--name", "here", "true"]).assert().success();
    world
        .tiny_docker(["--root", root.to_str().unwrap(), "ps", "-a"])
        .assert()
        .success()
        .stdout(contains("here"));
    assert_eq!(fs::metadata(root).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_a_number_used_again_is_another_process() {
    let world = World::new();
    // This very process has the pid that the record names, and did not start then.
    let us = std::process::id() as i64;
    let running = json!({"status": "running", "pid": us, "start_time": start_time(us) - 1, "boot_id": boot_id(), "exit_code": null, "finished_at": null});
    plant(&world, "aaaa00000000", running);
    world.tiny_docker(["ps"]).assert().success().stdout(contains("aaaa").not());
    let repaired = world.inspect("aaaa");
    assert_eq!((&repaired["status"], &repaired["exit_code"]), (&json!("exited"), &Value::Null));
    assert!(repaired["finished_at"].is_string());
    assert!(world.ps().contains("Exited (unknown)"), "{}", world.ps());
    // Repaired on the disk as well.
    assert_eq!(the_record(&world).1["status"], "exited");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_after_a_boot_nothing_runs_any_more() {
    let world = World::new();
    let us = std::process::id() as i64;
    let running = json!({"status": "running", "pid": us, "start_time": start_time(us), "exit_code": null,
        "boot_id": "00000000-0000-0000-0000-000000000000", "finished_at": null});
    plant(&world, "aaaa00000000", running);
    assert!(world.ps().contains("Exited (unknown)"), "{}", world.ps());
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_a_program_chooses_its_name_and_deceives_nobody() {
    let world = World::new();
    // proc_pid_stat(5) has it in parentheses, and it may contain some.
    let program = world.dir().join("x) Z 1 (y");
    fs::write(&program, "#!/bin/sh\necho ready\nread x\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let mut liar = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    liar.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
    let pid = liar.id() as i64;
    assert!(fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains("(x) Z 1 (y)"));
    let running = json!({"status": "running", "pid": pid, "start_time": start_time(pid), "boot_id": boot_id(),
        "exit_code": null, "finished_at": null});
    plant(&world, "aaaa00000000", running);
    let ps = world.ps();
    let record = world.inspect("aaaa");
    liar.kill().unwrap();
    liar.wait().unwrap();
    assert!(
        ps.contains("Up "),
        "expected: Up, for its process is there, by the name (x) Z 1 (y); but ps says\n{ps}"
    );
    assert_eq!(record["status"], "running");
    assert_eq!(world.inspect("aaaa")["status"], "exited");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_an_owners_last_word_stands() {
    let world = World::new();
    let mut ended = Command::new("true").spawn().unwrap();
    ended.wait().unwrap();
    let running = json!({"status": "running", "pid": ended.id(), "start_time": 1, "boot_id": boot_id(),
        "exit_code": null, "finished_at": null});
    let dir = plant(&world, "aaaa00000000", running);
    // This test is the owner, which has seen the command end.
    let owner = fs::File::create(dir.join("lock")).unwrap();
    owner.lock().unwrap();
    // ps has read the record; and it takes long until it asks for the lock.
    let mut slow = Command::new("strace");
    slow.args(["-qq", "-o", "/dev/null", "-e", "inject=flock:delay_enter=3000000"]);
    let mut ps = slow.arg(common::binary()).args(["ps", "-a"]).stdout(Stdio::null()).spawn().unwrap();
    // The number of the system call in which it is. (proc_pid_syscall(5))
    let flock = format!("{} ", nix::libc::SYS_flock);
    until("ps asks for the lock", || {
        assert!(ps.try_wait().unwrap().is_none(), "ps has ended, and did not ask for the lock");
        common::children_of(ps.id() as i32).iter().any(|pid| {
            fs::read_to_string(format!("/proc/{pid}/syscall")).is_ok_and(|call| call.starts_with(&flock))
        })
    });
    plant(&world, "aaaa00000000", json!({"exit_code": 7}));
    drop(owner);
    assert!(ps.wait().unwrap().success());
    assert_eq!(
        world.inspect("aaaa")["exit_code"],
        7,
        "the owner wrote the exit code 7 before it let go of the lock; ps must not overwrite that"
    );
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_when_run_was_killed_ps_tells_the_truth() {
    let world = World::new();
    let running = start(&world, &["--name", "web"], "echo ready; exec sleep 1000");
    assert_eq!(world.inspect("web")["status"], "running");
    running.ends_with_its_runtime();
    assert!(world.ps().contains("Exited (unknown)"), "{}", world.ps());
    assert_eq!(world.inspect("web")["exit_code"], Value::Null);
}

/// Runs `flags` and `script` with SIGKILL before the `moment`th thing that the runtime does.
fn killed_at(world: &World, moment: u32) -> bool {
    let mut command = world.tiny_docker(["run", "sh", "-c", "exit 7"]);
    let output = command.env("TINY_DOCKER_DIE_AT", format!("parent:{moment}")).output().unwrap();
    output.status.code().is_none()
}

// A run that is killed before its first record left a directory without one, and each ps from
// then on printed a line for it.
#[test]
#[ignore = "privileged: make vm-test"]
fn task4_a_killed_run_leaves_a_container_or_none() {
    let world = World::new();
    let (mut killed, mut aside) = (0, 0);
    let left = |dir: PathBuf| fs::read_dir(dir).into_iter().flatten().count();
    // Unharmed, it is there.
    world.tiny_docker(["run", "sh", "-c", "exit 7"]).assert().code(7);
    world.tiny_docker(["ps", "-a"]).assert().success().stdout(contains("Exited (7)"));
    world.remove_all();
    for moment in 1..200 {
        if !killed_at(&world, moment) {
            break;
        }
        killed += 1;
        for dir in dirs(&world) {
            let text = fs::read(dir.join("config.json")).unwrap_or_default();
            let whole = serde_json::from_slice::<Value>(&text);
            assert!(
                whole.is_ok(),
                "killed at its moment {moment}, it left {dir:?} without a record: {whole:?}"
            );
        }
        aside += left(world.containers().join("../aside"));
        // What is left goes by itself, and without a word.
        let ps = world.tiny_docker(["ps", "-aq"]).assert().success().stderr(is_empty());
        assert_eq!(left(world.containers().join("../aside")), 0, "killed at its moment {moment}");
        let shown = world.ps();
        assert!(!shown.contains("Created"), "nobody can start it any more, so it is forgotten: {shown}");
        let ids = String::from_utf8(ps.get_output().stdout.clone()).unwrap();
        let words: Vec<&str> = ["rm", "-f"].into_iter().chain(ids.lines()).collect();
        if words.len() > 2 {
            world.tiny_docker(words).assert().success();
        }
        assert_eq!(dirs(&world).len(), 0, "killed at its moment {moment}");
    }
    assert!(killed > 10, "{killed}");
    assert!(aside > 0, "it is made in one place, and renamed to another");
}

// The same by the clock, wherever it is by then.
#[test]
#[ignore = "privileged: make vm-test"]
fn task4_a_run_that_is_killed_early_is_forgotten() {
    let world = World::new();
    world.tiny_docker(["run", "true"]).assert().success();
    for round in 0..40 {
        let mut run = Command::new(common::binary()).args(["run", "true"]).spawn().unwrap();
        thread::sleep(std::time::Duration::from_micros(300 * round));
        run.kill().unwrap();
        run.wait().unwrap();
    }
    until("none of them is about to start", || {
        world.tiny_docker(["ps", "-a"]).assert().success().stderr(is_empty());
        !world.ps().contains("Created")
    });
    world.remove_all();
}

/// The calls of `tiny-docker` with `words` that wait for a disk, end a process or open a file:
/// who, and what; in order. The state directory is on a disk.
fn disk_calls(world: &World, words: &[&str]) -> Vec<(String, String)> {
    let (state, trace) = (tempfile::tempdir_in("/var/tmp").unwrap(), world.dir().join("trace"));
    let calls = "trace=execve,exit_group,?open,openat,sync,syncfs,fsync,fdatasync,?sync_file_range,msync,io_uring_setup";
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-e", "signal=none", "-e", calls, "-o"]).arg(&trace);
    // It follows whoever flushes, and so it ends after that.
    let status = strace.arg(common::binary()).arg("--root").arg(state.path()).args(words).status().unwrap();
    assert_eq!(status.code(), Some(3));
    let split = |line: &str| {
        let (pid, call) = line.split_once(' ').unwrap();
        (pid.to_string(), call.trim().to_string())
    };
    fs::read_to_string(trace).unwrap().lines().map(split).collect()
}

fn is_flush(call: &str) -> bool {
    let flushes = ["sync", "fsync", "fdatasync", "sync_file_range", "msync", "io_uring"];
    flushes.iter().any(|name| call.starts_with(name)) || call.contains("O_SYNC") || call.contains("O_DSYNC")
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_nobody_waits_for_the_disk() {
    let world = World::new();
    // Another process flushes, a moment after the end. Where a run takes longer than that moment,
    // its flush may come first; but not each time.
    until("a run ends, and one flush comes after it", || {
        let calls = disk_calls(&world, &["run", "sh", "-c", "exit 3"]);
        let run = calls[0].0.clone();
        let end = calls.iter().position(|(who, call)| *who == run && call.starts_with("exit_group"));
        let waited = calls.iter().find(|(who, call)| *who == run && is_flush(call));
        assert_eq!(waited, None, "between Enter and the prompt somebody waits for the disk");
        let flush = calls.iter().position(|(_, call)| is_flush(call));
        assert!(flush.is_some(), "how it ended never comes to the disk: {calls:?}");
        flush > end && calls.iter().filter(|(_, call)| is_flush(call)).count() == 1
    });

    // While it runs a flush is begun as well, by somebody else than run and the command.
    until("of a run that lasts there is one flush before its end", || {
        let calls = disk_calls(&world, &["run", "sh", "-c", "sleep 2; exit 3"]);
        let run = calls[0].0.clone();
        let end = calls.iter().position(|(who, call)| *who == run && call.starts_with("exit_group")).unwrap();
        let flushes: Vec<_> = calls[..end].iter().filter(|(_, call)| is_flush(call)).collect();
        assert!(!flushes.is_empty(), "that it runs does not come to the disk: {calls:?}");
        assert!(flushes.iter().all(|(who, _)| *who != run), "run itself waits for the disk: {calls:?}");
        flushes.len() == 1
    });
}

// https://github.com/moby/moby/issues/10178
#[test]
#[ignore = "privileged: make vm-test"]
fn task3_a_full_disk_takes_no_exit_code() {
    let world = World::new();
    let state = SmallDisk::mount(&world);
    let fill = format!("head -c 10000000 /dev/zero >{}/filled 2>&-; exit 3", state.0.display());
    world.tiny_docker(["run", "--name", "web", "sh", "-c", &fill]).assert().code(3);
    let ps = world.tiny_docker(["ps", "-a"]).assert().success().stderr(is_empty());
    ps.stdout(contains("Exited (3)"));
    // Nothing can be begun now, and nothing is left of the attempt.
    let late = world.tiny_docker(["run", "--name", "late", "true"]).assert();
    late.code(125).stderr(contains("No space left"));
    assert_eq!((dirs(&world).len(), fs::read_dir(state.0.join("aside")).unwrap().count()), (1, 0));

    // Showing needs no writing.
    let record = dirs(&world)[0].join("config.json");
    let running = fs::read_to_string(&record).unwrap().replace("\"exited\"", "\"running\"");
    fs::remove_file(state.0.join("filled")).unwrap();
    fs::write(&record, running).unwrap();
    state.remount_read_only();
    let ps = world.tiny_docker(["ps", "-a"]).assert().success().stderr(is_empty());
    ps.stdout(contains("Exited ("));
    world.tiny_docker(["inspect", "web"]).assert().success();
}

/// A state directory with room for 256 KiB.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(world: &World) -> SmallDisk {
        let dir = world.dir().join("state");
        fs::create_dir(&dir).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(&dir);
        assert!(mount.status().unwrap().success());
        SmallDisk(dir)
    }

    fn remount_read_only(&self) {
        let mut mount = Command::new("mount");
        assert!(mount.args(["-o", "remount,ro"]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

// https://github.com/clearcontainers/runtime/issues/891
// https://github.com/kata-containers/runtime/issues/386
#[test]
#[ignore = "privileged: make vm-test"]
fn task4_a_command_of_any_length_is_listed_and_removed() {
    let world = World::new();
    let mut words = words(&["--name", "web"], "echo ready; exec sleep 1000");
    words.extend((100_001..180_001).map(|number| number.to_string()));
    let mut running = world.start(words);
    running.line();
    let ps = world.tiny_docker(["ps"]).assert().success().stderr(is_empty());
    assert!(String::from_utf8_lossy(&ps.get_output().stdout).contains("Up "), "{ps}");
    run(&world, &["--name", "web"], "true").code(125).stderr(contains("\"web\" is taken"));
    world.tiny_docker(["rm", "-f", "web"]).assert().success().stdout("web\n");
    assert_eq!(running.ended(), 137);
    assert_eq!(dirs(&world).len(), 0);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_a_record_that_cannot_be_read_is_still_a_container() {
    let world = World::new();
    let damages: [fn(&Path); 6] = [
        |record| fs::write(record, "garbage").unwrap(),
        |record| fs::write(record, "").unwrap(),
        |record| fs::write(record, [0; 500]).unwrap(),
        |record| fs::write(record, r#"{"version": 7, "since": "the future"}"#).unwrap(),
        |record| fs::File::options().write(true).open(record).unwrap().set_len(1 << 40).unwrap(),
        |record| {
            fs::remove_file(record).unwrap();
            nix::unistd::mkfifo(record, Mode::S_IRWXU).unwrap();
        },
    ];
    for damage in damages {
        let mut running = start(&world, &["--name", "web"], "echo ready; exec sleep 1000");
        let (dir, record) = the_record(&world);
        damage(&dir.join("config.json"));
        let ps = world.tiny_docker(["ps"]).assert().code(1).stderr(contains("config.json"));
        let row = format!("web    {} ", record["pid"]);
        let row = ps.stdout(contains(row.trim_end()).and(contains("Up ")));
        drop(row);
        let shown = world.tiny_docker(["inspect", "web"]).assert().code(1);
        let shown: Value = serde_json::from_slice(&shown.get_output().stdout).unwrap();
        assert_eq!((&shown[0]["id"], &shown[0]["pid"]), (&record["id"], &record["pid"]));
        run(&world, &["--name", "web"], "true").code(125).stderr(contains("\"web\" is taken"));
        world.tiny_docker(["rm", "web"]).assert().code(1).stderr(contains("rm -f web"));
        world.tiny_docker(["rm", "-f", "web"]).assert().success().stderr(is_empty());
        assert_eq!(running.ended(), 137);
        assert_eq!(dirs(&world).len(), 0);
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_of_a_torn_record_the_one_before_is_shown() {
    let world = World::new();
    for (name, torn, size) in [("empty", 0, 0), ("half", 300, 300), ("zeros", 0, 900), ("both", 300, 900)] {
        run(&world, &["--name", name], "exit 3").code(3);
        let id = world.inspect(name)["id"].as_str().unwrap().to_string();
        let file = world.containers().join(id).join("config.json");
        let text = fs::read(&file).unwrap();
        // As after a power cut: what is not there, or is zero, did not reach the disk.
        fs::write(&file, &text[..torn]).unwrap();
        fs::File::options().write(true).open(&file).unwrap().set_len(size).unwrap();
        let ps = world.tiny_docker(["ps", "-a"]).assert().success().stderr(is_empty());
        ps.stdout(is_match(format!("{name} .*Exited .unknown.")).unwrap());
        assert_eq!(world.inspect(name)["command"], json!(["sh", "-c", "exit 3"]));
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_an_empty_variable_counts_as_unset() {
    let world = World::new();
    plant(&world, "aaaa00000000", json!({}));
    world.tiny_docker(["ps", "-a"]).assert().success().stdout(contains("aaaa"));
    let mut ps = world.tiny_docker(["ps", "-a"]);
    ps.env("TINY_DOCKER_ROOT", "").assert().success().stdout(contains("aaaa").not());
    world.tiny_docker(["ps", "--root", ""]).assert().code(2);
}

/// Plants a record of a process that runs, without anybody who looks after it.
fn plant_running(world: &World) -> (std::process::Child, PathBuf) {
    let alive = Command::new("sleep").arg("1000").spawn().unwrap();
    let pid = alive.id() as i64;
    let running = json!({"status": "running", "pid": pid, "start_time": start_time(pid), "boot_id": boot_id(),
        "exit_code": null, "finished_at": null});
    (alive, plant(world, "aaaa00000000", running))
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_what_cannot_be_told_is_not_gone() {
    let world = World::new();
    let (mut alive, _dir) = plant_running(&world);
    // As if it had no file descriptor left when it asks for the process's start time.
    let mut few = Command::new("strace");
    few.args(["-qq", "-o", "/dev/null", "-e", "inject=openat:error=EMFILE", "-P"]);
    few.arg(format!("/proc/{}/stat", alive.id())).arg(common::binary());
    let output = few.args(["inspect", "aaaa00000000"]).output().unwrap();
    let mut none = Command::new("prlimit");
    none.arg("--nofile=3:3").arg(common::binary());
    let nothing = none.args(["inspect", "aaaa00000000"]).output().unwrap();
    let record = the_record(&world).1;
    alive.kill().unwrap();
    alive.wait().unwrap();
    assert_eq!(record["status"], "running", "it could not tell, and took it for ended: {output:?}");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let (shown, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(shown.contains("aaaa00000000") && said.contains("Too many open files"), "{output:?}");
    assert_eq!((nothing.status.code(), nothing.stdout.as_slice()), (Some(1), &b""[..]), "{nothing:?}");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_what_cannot_be_seen_is_not_removed() {
    let world = World::new();
    let mut running = start(&world, &["--name", "web"], "echo ready; exec sleep 1000");
    // From another pid namespace there is no process of that number.
    let elsewhere = |words: &[&str]| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--pid", "--fork", "--mount-proc"]).arg(common::binary()).args(words).output().unwrap()
    };
    let began = std::time::Instant::now();
    let output = elsewhere(&["rm", "-f", "web"]);
    assert_eq!(output.status.code(), Some(1), "{}", common::said(&output));
    assert!(
        contains("pid namespace").eval(&String::from_utf8_lossy(&output.stderr)),
        "{}",
        common::said(&output)
    );
    assert!(began.elapsed() < common::deadline() / 12, "it waited for nothing");
    assert!(contains("Up ").eval(&String::from_utf8_lossy(&elsewhere(&["ps"]).stdout)));
    assert_eq!(world.inspect("web")["status"], "running");
    running.signal_command(Signal::SIGKILL);
    running.ended();

    // And if it cannot be told whether it runs.
    let (mut alive, dir) = plant_running(&world);
    let mut few = Command::new("prlimit");
    let output = few.arg("--nofile=4:4").arg(common::binary()).args(["rm", "aaaa00000000"]).output().unwrap();
    assert!(dir.exists(), "rm removed what runs: {}", common::said(&output));
    assert_eq!(output.status.code(), Some(1), "{}", common::said(&output));
    alive.kill().unwrap();
    alive.wait().unwrap();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_rm_removes_what_does_not_run() {
    let world = World::new();
    run(&world, &["--name", "one"], "true").success();
    run(&world, &["--name", "two"], "true").success();
    let assert = world.tiny_docker(["rm", "one", "nosuch", "two"]).assert();
    assert.code(1).stdout("one\ntwo\n").stderr(contains("no such container: \"nosuch\""));
    assert_eq!(dirs(&world).len(), 0);
    world.tiny_docker(["rm", "one"]).assert().code(1);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_rm_refuses_what_runs_and_f_kills_it() {
    let world = World::new();
    let mut running = start(&world, &["--name", "web"], "echo ready; exec sleep 1000");
    let refused = contains("web is running").and(contains("rm -f web"));
    world.tiny_docker(["rm", "web"]).assert().code(1).stdout(is_empty()).stderr(refused);
    assert_eq!(world.inspect("web")["status"], "running");
    world.tiny_docker(["rm", "-f", "web"]).assert().success().stdout("web\n");
    assert_eq!(running.ended(), 137);
    assert_eq!(dirs(&world).len(), 0);
    // Of another process that has its number today, nothing happens: it is us.
    let running =
        json!({"status": "running", "pid": std::process::id(), "start_time": 1, "boot_id": boot_id()});
    plant(&world, "aaaa00000000", running);
    world.tiny_docker(["rm", "-f", "aaaa"]).assert().success();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_long_rm_f_ends_a_run_that_is_held_up() {
    let world = World::new();
    // Before the start of its command, and after the end.
    let mut before = world.held_up("before", &[]);
    let rootfs = busybox();
    let words = ["run", "--name", "after", "--rootfs", rootfs.to_str().unwrap()];
    let mut after = world.start([&words[..], &["sh", "-c", "echo ready; exec sleep 1000"]].concat());
    after.line();
    after.signal_runtime(Signal::SIGSTOP);
    world.tiny_docker(["rm", "before"]).assert().code(1).stderr(contains("about to start"));
    // In the order given, and at once: neither waits for the other.
    world.tiny_docker(["rm", "-f", "before", "after"]).assert().success().stdout("before\nafter\n");
    assert_eq!((before.ended(), after.ended()), (-9, -9));
    assert_eq!(fs::read_dir(world.containers()).unwrap().count(), 0);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_rm_removes_what_cannot_be_read_only_by_force() {
    let world = World::new();
    let dir = world.containers().join("0123456789ab");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("config.json"), "{").unwrap();
    world.tiny_docker(["rm", "0123456789ab"]).assert().code(1).stderr(contains("rm -f 0123456789ab"));
    assert!(dir.exists());
    world.tiny_docker(["rm", "-f", "0123456789ab"]).assert().success();
    assert!(!dir.exists());
    let foreign = world.containers().join("notes");
    fs::create_dir(&foreign).unwrap();
    world.tiny_docker(["rm", "-f", "notes", "../containers"]).assert().code(1);
    assert!(foreign.exists());
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_long_killed_at_every_moment_a_run_leaves_nothing_untrue() {
    let world = World::new();
    let rootfs = busybox();
    let moments = world.die_at_every_moment(&[
        "run",
        "--name",
        "web",
        "--rootfs",
        rootfs.to_str().unwrap(),
        "-u",
        "app",
        "sh",
        "-c",
        "exit 7",
    ]);
    // That it dies at all: it does some 50 things on the way.
    assert!(moments > 40, "{moments}");
}
