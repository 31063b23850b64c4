//! Day 14: a log in several files, when things go wrong: a disk that is full, a supervisor that is
//! killed, a person who restarts the container while somebody follows.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use common::{World, busybox, nobody_is_left, said, until};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A container called web, without a network, whose log's files have room for four short lines.
fn words(verb: &str, flags: &[&str], script: &str) -> Vec<String> {
    let rootfs = busybox();
    let words = [verb, "--net", "none", "--name", "web", "--log-opt", "max-size=180", "--rootfs"];
    let command = ["sh", "-c", script];
    [&words[..], &[rootfs.to_str().unwrap()], flags, &command]
        .concat()
        .into_iter()
        .map(String::from)
        .collect()
}

/// A disk of this test's own for the state, of 4 MiB.
struct Disk(PathBuf);

impl Disk {
    fn new(world: &World) -> Disk {
        let dir = world.dir().join("state");
        fs::create_dir(&dir).unwrap();
        mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), Some("size=4m,nr_inodes=100")).unwrap();
        Disk(dir)
    }

    /// Fills it up to the last byte.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("fill");
        let mut file = File::create(&path).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

fn logs(world: &World) -> (String, String) {
    let output = world.tiny_docker(["logs", "web"]).output().unwrap();
    assert!(output.status.success(), "logs: {}", said(&output));
    (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn numbers(from: u32, to: u32) -> String {
    (from..=to).map(|number| format!("{number}\n")).collect()
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_on_a_full_disk_the_command_goes_on_and_the_log_says_what_it_lacks() {
    let world = World::new();
    let disk = Disk::new(&world);
    let script = "seq 4; read x; echo lost; echo lost; read x; echo end; exit 3";
    let flags = ["-i", "--log-opt", "max-file=100"];
    let mut running = world.start(words("run", &flags, script));
    let mut stdin = running.stdin();
    for number in 1..=4 {
        assert_eq!(running.line(), number.to_string());
    }
    // By now its file is full as well: the next line goes into another one, and that has no room.
    let fill = disk.fill();
    stdin.write_all(b"\n").unwrap();
    assert_eq!((running.line(), running.line()), ("lost".into(), "lost".into()), "what the caller gets");
    fs::remove_file(fill).unwrap();
    stdin.write_all(b"\n").unwrap();
    assert_eq!(running.line(), "end");
    assert_eq!(running.ended(), 3, "the command's own exit code");
    let told = running.errors();
    assert_eq!(told.matches("the log has a gap").count(), 1, "it is said once: {told}");
    let (out, err) = logs(&world);
    assert_eq!(out, numbers(1, 4) + "end\n", "all that had room");
    assert_eq!(err, "tiny-docker: 10 bytes of output are missing here\n", "what had none");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_where_no_other_file_can_be_made_the_log_grows() {
    let world = World::new();
    let disk = Disk::new(&world);
    let flags = ["-i", "--log-opt", "max-file=100"];
    let mut running = world.start(words("run", &flags, "seq 4; read x; seq 5 20; exit 3"));
    let mut stdin = running.stdin();
    for number in 1..=4 {
        assert_eq!(running.line(), number.to_string());
    }
    // Names are used up before bytes are.
    let full = disk.0.join("full");
    fs::create_dir(&full).unwrap();
    let taken = (0..).take_while(|number| File::create(full.join(number.to_string())).is_ok()).count();
    assert!(taken < 100, "the disk has no more files than it says");
    stdin.write_all(b"\n").unwrap();
    assert_eq!(running.rest(), numbers(5, 20), "what the caller gets");
    assert_eq!(running.ended(), 3, "the command's own exit code");
    let told = running.errors();
    assert_eq!(told.matches("grows beyond its max-size").count(), 1, "it is said once: {told}");
    assert!(told.contains("No space left on device"), "and why: {told}");
    assert_eq!(logs(&world), (numbers(1, 20), String::new()), "nothing is missing");
    fs::remove_dir_all(full).unwrap();
    world.remove_all();
}

/// How many operations of the runtime come before each one that has to do with going on in another
/// file, as --explain tells.
fn moments(world: &World, words: &[String]) -> Vec<usize> {
    let explained = [&["--explain".to_string()], words].concat();
    let output = world.tiny_docker(explained).output().unwrap();
    let told = String::from_utf8(output.stderr.clone()).unwrap();
    let operations = told.lines().filter(|line| line.starts_with("[day") && line.contains("] parent "));
    let found = operations.enumerate().filter(|(_, line)| line.contains("/container.log"));
    let found: Vec<usize> = found.map(|(before, _)| before).collect();
    assert!(found.len() > 4, "{found:?}: {}", said(&output));
    found
}

/// What is in the container's directory, without the numbers of the log's files.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> =
        entries.map(|name| name.trim_end_matches(|c: char| c.is_ascii_digit()).to_string()).collect();
    names.sort();
    names.dedup();
    names
}

/// How many files its log has.
fn files(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    entries.filter(|name| name.starts_with("container.log")).count()
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_long_killed_at_any_moment_of_going_on_it_keeps_whole_lines() {
    let world = World::new();
    for keep in [1, 2] {
        let flags = ["--log-opt", &format!("max-file={keep}")];
        // Before and after, the runtime does much else at once. In between it has nothing else to do.
        let words = words("run", &flags, "sleep 0.3; seq 14; sleep 0.3; exit 7");
        let moments = moments(&world, &words);
        let usual = names(&dir(&world));
        world.remove_all();
        for moment in moments[0] + 1..=moments[moments.len() - 1] + 2 {
            let place = format!("max-file={keep}, killed at parent:{moment}");
            let mut run = world.tiny_docker(&words);
            let killed = run.env("TINY_DOCKER_DIE_AT", format!("parent:{moment}")).output().unwrap();
            until("nobody is left", nobody_is_left);
            let (kept, complaints) = logs(&world);
            assert_eq!(complaints, "", "{place}");
            // A file is full after each fourth line.
            let last = *[4, 8, 12, 14]
                .iter()
                .find(|last| kept.ends_with(&format!("\n{last}\n")))
                .unwrap_or_else(|| panic!("{place}: {kept:?}"));
            let first = last + 1 - kept.lines().count() as u32;
            assert_eq!(kept, numbers(first, last), "{place}: {}", said(&killed));
            // Whoever goes on after it: each line once, in order, and no more files than there may be.
            world.tiny_docker(["start", "-a", "web"]).assert().code(7).stdout(numbers(1, 14));
            let (all, complaints) = logs(&world);
            assert_eq!(complaints, "", "{place}");
            let whole = kept + &numbers(1, 14);
            assert!(whole.ends_with(&all) && all.ends_with("13\n14\n"), "{place}: {all}");
            assert_eq!(names(&dir(&world)), usual, "{place}: what is in its directory");
            assert!(files(&dir(&world)) <= keep, "{place}: more files than asked for");
            world.remove_all();
        }
    }
}

/// The container's directory.
fn dir(world: &World) -> PathBuf {
    world.containers().join(world.inspect("web")["id"].as_str().unwrap())
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_follow_goes_on_when_a_person_restarts_it() {
    let world = World::new();
    let flags = ["-d", "--log-opt", "max-file=100"];
    let script = "trap 'seq 20 30; exit' TERM; seq 10; while :; do sleep 0.1; done";
    world.tiny_docker(words("run", &flags, script)).assert().success();
    let mut follower = world.start(["logs", "-f", "web"]);
    let mut read = |from: u32, to: u32, what: &str| {
        for number in from..=to {
            assert_eq!(follower.line(), number.to_string(), "{what}");
        }
    };
    read(1, 10, "the first life");
    for _ in 0..3 {
        world.tiny_docker(["restart", "web"]).assert().success();
        read(20, 30, "the end of a life");
        read(1, 10, "the next life");
    }
    // What is stopped is over, although it may be started.
    world.tiny_docker(["stop", "web"]).assert().success();
    read(20, 30, "the end of the last life");
    assert_eq!(follower.rest(), "", "nothing comes after that");
    assert_eq!(follower.ended(), 0, "logs -f ends");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_follow_ends_when_a_restart_fails() {
    let world = World::new();
    let rootfs = world.copy_of_rootfs("rootfs");
    let mut words = words("run", &["-d"], "echo up; exec sleep 1000");
    let at = words.iter().position(|word| word == "--rootfs").unwrap();
    words[at + 1] = rootfs.to_str().unwrap().into();
    world.tiny_docker(words).assert().success();
    let mut follower = world.start(["logs", "-f", "web"]);
    assert_eq!(follower.line(), "up");
    fs::rename(&rootfs, world.dir().join("elsewhere")).unwrap();
    world.tiny_docker(["restart", "-t", "0", "web"]).assert().failure();
    assert_eq!(follower.rest(), "", "nothing comes any more");
    assert_eq!(follower.ended(), 0, "logs -f ends");
    world.remove_all();
}
