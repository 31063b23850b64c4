//! Day 14: a log that grows no further than it may, and is read all the same.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use common::{World, busybox, said, until};
use nix::sys::signal::{Signal, kill};
use predicates::prelude::PredicateBooleanExt;
use predicates::str::{contains, is_empty};

/// A container called web, without a network.
fn words(verb: &str, flags: &[&str], script: &str) -> Vec<String> {
    let rootfs = busybox();
    let words = [verb, "--net", "none", "--name", "web", "--rootfs", rootfs.to_str().unwrap()];
    [&words[..], flags, &["sh", "-c", script]].concat().into_iter().map(String::from).collect()
}

const SMALL: [&str; 4] = ["--log-opt", "max-size=10k", "--log-opt", "max-file=3"];

/// The container's directory.
fn dir(world: &World) -> PathBuf {
    world.containers().join(world.inspect("web")["id"].as_str().unwrap())
}

/// Its log's files with their numbers, the oldest first.
fn named(world: &World) -> Vec<(u64, fs::DirEntry)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir(world)).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let number = match name.strip_prefix("container.log") {
            Some("") => 0,
            Some(rest) => rest[1..].parse().unwrap(),
            None => continue,
        };
        found.push((number, entry));
    }
    found.sort_by_key(|(number, _)| *number);
    found
}

/// The files of its log, the oldest first: their numbers and lengths.
fn files(world: &World) -> Vec<(u64, u64)> {
    // One that is removed at this moment is none.
    let length = |(number, entry): (u64, fs::DirEntry)| Some((number, entry.metadata().ok()?.len()));
    named(world).into_iter().filter_map(length).collect()
}

/// The number of its log's newest file.
fn newest(world: &World) -> u64 {
    named(world).last().unwrap().0
}

fn numbers(from: u32, to: u32) -> String {
    (from..=to).map(|number| format!("{number}\n")).collect()
}

fn logs(world: &World, flags: &[&str]) -> String {
    let output = world.tiny_docker([&["logs"], flags, &["web"]].concat()).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "logs {flags:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_a_log_is_kept_in_so_many_files_of_such_a_size() {
    let world = World::new();
    world.tiny_docker(words("run", &SMALL, "seq 3000")).assert().success();
    let files = files(&world);
    let numbers_of: Vec<u64> = files.iter().map(|(number, _)| *number).collect();
    let last = *numbers_of.last().unwrap();
    assert!(last > 5, "3000 entries of 45 bytes are more than five files: {files:?}");
    assert_eq!(numbers_of, [last - 2, last - 1, last], "the files that are kept");
    for (number, length) in &files[..2] {
        assert!((9_900..=10_000).contains(length), "file {number} is as full as lines allow: {files:?}");
    }
    assert!(files[2].1 <= 10_000, "the last file is no larger: {files:?}");
    // What is left is the end, and all of it.
    let shown = logs(&world, &[]);
    let first: u32 = shown.lines().next().unwrap().parse().unwrap();
    assert_eq!(shown, numbers(first, 3000), "what is kept, without a gap");
    for count in [0, 1, 10, 222, 223, 444, 500] {
        let shown = logs(&world, &["--tail", &count.to_string()]);
        assert_eq!(shown, numbers(3001 - count, 3000), "the last {count} lines");
    }
    assert_eq!(logs(&world, &["--since", "1h"]), shown, "all that was written within the hour");
    let inspected = world.inspect("web");
    assert_eq!(inspected["log_options"]["max-size"], "10k", "{inspected}");
    assert_eq!(inspected["log_options"]["max-file"], "3", "{inspected}");
    world.tiny_docker(["rm", "web"]).assert().success();
    assert_eq!(fs::read_dir(world.containers()).unwrap().count(), 0, "what rm leaves");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_bytes_come_out_of_several_files_as_they_went_in() {
    let world = World::new();
    // Lines that are longer than a file, empty ones, bytes that are no text, and no end of line.
    let script =
        r#"head -c 30000 /dev/zero | tr '\0' x; echo; echo; printf '\377\000\r\n'; seq 500; printf end"#;
    let flags = ["--log-opt", "max-size=7k", "--log-opt", "max-file=1000"];
    world.tiny_docker(words("run", &flags, script)).assert().success();
    let expected = [&b"x".repeat(30000)[..], b"\n\n\xff\0\r\n", numbers(1, 500).as_bytes(), b"end"].concat();
    let output = world.tiny_docker(["logs", "web"]).output().unwrap();
    assert!(output.stdout == expected, "what logs shows is what was written: {} bytes", output.stdout.len());
    assert!(files(&world).len() > 3, "it is in several files: {:?}", files(&world));
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_with_one_file_there_is_always_one() {
    let world = World::new();
    world.tiny_docker(words("run", &["--log-opt", "max-size=1k"], "seq 100")).assert().success();
    let files = files(&world);
    assert_eq!(files.len(), 1, "max-file is 1 where nobody says anything else: {files:?}");
    let shown = logs(&world, &[]);
    assert!(shown.ends_with("99\n100\n"), "the newest lines are kept: {shown}");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_a_log_goes_on_where_it_was_when_it_runs_again() {
    let world = World::new();
    let flags = ["--log-opt", "max-size=2k", "--log-opt", "max-file=100"];
    world.tiny_docker(words("run", &flags, "seq 100")).assert().success();
    let before = files(&world);
    world.tiny_docker(["start", "-a", "web"]).assert().success().stdout(numbers(1, 100));
    let after = files(&world);
    assert!(
        after.len() > before.len() && after[..before.len() - 1] == before[..before.len() - 1],
        "{after:?}"
    );
    assert_eq!(logs(&world, &[]), numbers(1, 100).repeat(2), "both lives");
    assert_eq!(logs(&world, &["--tail", "150"]), numbers(51, 100) + &numbers(1, 100), "across both lives");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_follow_goes_from_file_to_file() {
    let world = World::new();
    let flags = ["-d", "--log-opt", "max-size=3k", "--log-opt", "max-file=1000"];
    let script = "while [ ! -e /tmp/go ]; do sleep 0.1; done; i=0; while [ $i -lt 30 ]; do i=$((i+1)); seq $((i*100-99)) $((i*100)); done";
    let root = world.copy_of_rootfs("followed");
    let mut words = words("run", &flags, script);
    let at = words.iter().position(|word| word == "--rootfs").unwrap();
    words[at + 1] = root.to_str().unwrap().into();
    world.tiny_docker(words).assert().success();
    let mut follower = world.start(["logs", "-f", "web"]);
    fs::write(root.join("tmp/go"), "").unwrap();
    assert_eq!(follower.rest(), numbers(1, 3000), "each line once, and in order");
    assert_eq!(follower.ended(), 0, "logs -f ends with the container");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_follow_goes_on_until_it_is_not_started_again() {
    let world = World::new();
    let flags = ["-d", "--restart", "on-failure:2", "--log-opt", "max-size=1k", "--log-opt", "max-file=1000"];
    // The first life waits until somebody reads.
    let root = world.copy_of_rootfs("followed");
    let mut words = words("run", &flags, "while [ ! -e /tmp/go ]; do sleep 0.1; done; seq 50; exit 3");
    let at = words.iter().position(|word| word == "--rootfs").unwrap();
    words[at + 1] = root.to_str().unwrap().into();
    world.tiny_docker(words).assert().success();
    let mut follower = world.start(["logs", "-f", "web"]);
    fs::write(root.join("tmp/go"), "").unwrap();
    assert_eq!(follower.rest(), numbers(1, 50).repeat(3), "all three lives, each line once");
    assert_eq!(follower.ended(), 0, "logs -f ends with the last life");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_a_follower_that_falls_behind_is_told() {
    let world = World::new();
    let flags = ["-d", "--log-opt", "max-size=2k", "--log-opt", "max-file=2"];
    let root = world.copy_of_rootfs("followed");
    let script = "echo first; while [ ! -e /tmp/go ]; do sleep 0.1; done; seq 2000; exec sleep 1000";
    let mut words = words("run", &flags, script);
    let at = words.iter().position(|word| word == "--rootfs").unwrap();
    words[at + 1] = root.to_str().unwrap().into();
    world.tiny_docker(words).assert().success();
    let mut follower = world.start(["logs", "-f", "web"]);
    assert_eq!(follower.line().trim_end(), "first");
    follower.signal_runtime(Signal::SIGSTOP);
    fs::write(root.join("tmp/go"), "").unwrap();
    // Whoever looks meanwhile may fall behind as well, and be told.
    until("all is written", || {
        world.tiny_docker(["logs", "--tail", "1", "web"]).output().unwrap().stdout == b"2000\n"
    });
    follower.signal_runtime(Signal::SIGCONT);
    world.tiny_docker(["kill", "web"]).assert().success();
    let shown = follower.rest();
    assert_eq!(follower.ended(), 0, "{shown}");
    assert!(shown.ends_with("1999\n2000\n"), "it goes on where there is something: {shown}");
    assert!(follower.errors().contains("output is missing here"), "it says that something is missing");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_half_an_entry_of_a_killed_writer_spoils_no_other() {
    let world = World::new();
    world.tiny_docker(words("run", &[], "echo one")).assert().success();
    // As a supervisor leaves it that is killed in the middle of a write.
    let path = dir(&world).join("container.log");
    let half = fs::read_to_string(&path).unwrap().replace("one\n", "half");
    fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(half.as_bytes()).unwrap();
    world.tiny_docker(["start", "-a", "web"]).assert().success().stdout("one\n");
    assert_eq!(logs(&world, &[]), "one\nhalf\none\n", "what is shown");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_a_killed_supervisor_leaves_a_log_that_goes_on() {
    let world = World::new();
    let flags = ["-d", "--log-opt", "max-size=2k", "--log-opt", "max-file=4"];
    world.tiny_docker(words("run", &flags, "i=0; while :; do i=$((i+1)); echo $i; done")).assert().success();
    for life in 0..5 {
        world.tiny_docker(["logs", "--tail", "5", "web"]).assert().success();
        let begun = newest(&world);
        until("it goes from file to file", || newest(&world) > begun + 3);
        kill(common::supervisor(&world, "web"), Signal::SIGKILL).unwrap();
        until("it is gone", || world.inspect("web")["status"] == "exited");
        let numbers: Vec<u64> = files(&world).iter().map(|(number, _)| *number).collect();
        let last = *numbers.last().unwrap();
        let consecutive: Vec<u64> = (last + 1 - numbers.len() as u64..=last).collect();
        assert_eq!(numbers, consecutive, "life {life}: no file is missing in between");
        assert!((3..=5).contains(&numbers.len()), "life {life}: {numbers:?}");
        world.tiny_docker(["logs", "--tail", "5", "web"]).assert().success();
        world.tiny_docker(["start", "web"]).assert().success();
    }
    world.tiny_docker(["kill", "web"]).assert().success();
    assert!(files(&world).len() <= 4, "once it has gone on, as many files as asked for");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_what_cannot_be_kept_is_an_error() {
    let world = World::new();
    for (option, why) in [
        ("max-size", "expected NAME=VALUE"),
        ("max-size=0", "max-size must be a positive number"),
        ("max-size=10x", "expected a size such as 10m"),
        ("max-file=0", "max-file cannot be less than 1"),
        ("max-file=many", "expected how many files"),
        ("compress=true", "unknown log opt"),
    ] {
        let run = world.tiny_docker(words("run", &["--log-opt", option], "echo ran")).assert();
        run.code(125).stdout(is_empty()).stderr(contains(why).and(contains("log")));
    }
    assert!(
        !world.containers().exists() || fs::read_dir(world.containers()).unwrap().count() == 0,
        "what is left"
    );
    // As Docker, it also takes a size without a unit, and one with a "b".
    for size in ["max-size=1000", "max-size=1KB"] {
        world.tiny_docker(words("run", &["--log-opt", size], "seq 100")).assert().success();
        assert!(files(&world)[0].1 <= 1000, "{size}: {:?}", files(&world));
        world.tiny_docker(["rm", "web"]).assert().success();
    }
}
