//! Day 17: containers without root. Ann has ids in /etc/subuid, Bob has none. It takes newuidmap
//! (package uidmap) and slirp4netns.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use common::layout::{Layout, Packed, tar_of};
use common::{HostFile, World, binary, busybox, deadline, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use predicates::prelude::*;
use predicates::str::contains;

const ANN: u32 = 1500;
const BOB: u32 = 1501;
/// What is 1 in Ann's namespace.
const HERS: u32 = 500_000;

/// People on this machine, for as long as this value lives.
struct People {
    // Gone before the world looks what is left.
    _files: [HostFile; 3],
    home: PathBuf,
    world: World,
}

impl People {
    fn new() -> People {
        People::with("ann")
    }

    /// `who`: how Ann is called in /etc/subuid.
    fn with(who: &str) -> People {
        // SAFETY: all tests set the same, and each waits for its turn.
        unsafe { std::env::set_var("TMPDIR", "/var/tmp") };
        let world = World::new();
        let file = |name: &str, text: String| {
            let path = world.dir().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let home = world.dir().join("home");
        fs::create_dir(&home).unwrap();
        fs::create_dir(home.join("run")).unwrap();
        [&home, &home.join("run")].iter().for_each(|dir| chown(dir, Some(ANN), Some(ANN)).unwrap());
        let all = fs::read_to_string("/etc/passwd").unwrap();
        let people =
            format!("ann:x:{ANN}:{ANN}::{0}:/bin/sh\nbob:x:{BOB}:{BOB}::/:/bin/sh\n", home.display());
        let people = file("passwd", all + &people);
        let ids = file("subid", format!("{who}:{HERS}:65536\n"));
        let files = [
            HostFile::replace("/etc/passwd", &people),
            HostFile::replace("/etc/subuid", &ids),
            HostFile::replace("/etc/subgid", &ids),
        ];
        People { _files: files, home, world }
    }

    fn command(&self, uid: u32, words: &[&str]) -> Command {
        let mut command = std::process::Command::new(binary());
        command.args(words).uid(uid).gid(uid).current_dir(&self.home);
        command.env("HOME", &self.home).env("XDG_RUNTIME_DIR", self.home.join("run"));
        command.env_remove("TINY_DOCKER_ROOT").env_remove("XDG_DATA_HOME");
        let mut command = Command::from_std(command);
        command.timeout(deadline());
        command
    }

    fn ann(&self, words: &[&str]) -> Command {
        self.command(ANN, words)
    }

    /// What she reads.
    #[track_caller]
    fn reads(&self, words: &[&str]) -> String {
        let output = self.ann(words).assert().success();
        String::from_utf8(output.get_output().stdout.clone()).unwrap()
    }

    /// Gives her an image, busybox.
    fn give_an_image(&self) {
        let mut layout = Layout::new(&self.world, "layout");
        let layer = layout.layer(&tar_of(&busybox()), Packed::Gzip);
        let manifest = layout.image(&[layer], serde_json::json!({}));
        layout.tag("docker.io/library/base:latest", &manifest);
        let archive = self.home.join("base.tar");
        fs::write(&archive, tar_of(&layout.dir)).unwrap();
        self.ann(&["load", "-i", archive.to_str().unwrap()]).assert().success();
    }
}

impl Drop for People {
    fn drop(&mut self) {
        // Her containers, and then whoever holds her namespaces, which nobody else ends.
        let all = self.ann(&["ps", "-aq"]).output().unwrap();
        for id in String::from_utf8_lossy(&all.stdout).split_whitespace() {
            let _ = self.ann(&["rm", "-f", id]).output();
        }
        let file = fs::read_to_string(self.home.join("run/tiny-docker/namespaces")).unwrap_or_default();
        let holder: serde_json::Value = serde_json::from_str(&file).unwrap_or_default();
        if let Some(pid) = holder["pid"].as_i64() {
            let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
        }
    }
}

fn uid_of(pid: &str) -> u32 {
    let status = fs::read_to_string(Path::new("/proc").join(pid).join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// The process of one of her containers.
fn its_process(people: &People, name: &str) -> String {
    let text = people.reads(&["inspect", name]);
    let all: serde_json::Value = serde_json::from_str(&text).unwrap();
    all[0]["pid"].to_string()
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task6_a_person_with_ids_is_root_inside_and_herself_outside() {
    let people = People::new();
    people.give_an_image();
    let words = ["run", "-d", "--name", "web", "--net", "none", "--image", "base", "sleep", "1000"];
    people.ann(&words).assert().success();
    assert_eq!(people.reads(&["exec", "web", "id", "-u"]), "0\n");
    assert_eq!(uid_of(&its_process(&people, "web")), ANN);
    let words =
        ["run", "-d", "--name", "other", "-u", "1000", "--net", "none", "--image", "base", "sleep", "1000"];
    people.ann(&words).assert().success();
    assert_eq!(uid_of(&its_process(&people, "other")), HERS + 999, "1 is the first of her ids");
    // What it makes belongs to these, on the disk as well.
    people.ann(&["exec", "web", "sh", "-c", "> /file; chown 1000 /file"]).assert().success();
    let state = people.home.join(".local/share/tiny-docker/containers");
    assert!(state.is_dir(), "{state:?}");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task6_a_person_may_be_called_by_number() {
    let people = People::with(&ANN.to_string());
    people.give_an_image();
    let map = ["run", "--rm", "--net", "none", "--image", "base", "cat", "/proc/self/uid_map"];
    let map: Vec<u32> = people.reads(&map).split_whitespace().map(|word| word.parse().unwrap()).collect();
    assert_eq!(map, [0, ANN, 1, 1, HERS, 65536]);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task6_all_commands_see_the_same_containers() {
    let people = People::new();
    people.give_an_image();
    let words = ["run", "-d", "--name", "web", "--net", "none", "--image", "base"];
    people.ann(&[&words[..], &["sh", "-c", "echo hello; exec sleep 1000"]].concat()).assert().success();
    until("it is in the log", || people.reads(&["logs", "web"]) == "hello\n");
    assert!(people.reads(&["ps"]).contains("web"));
    people
        .ann(&["exec", "web", "sh", "-c", "rm -r /etc; mkdir /etc; echo new > /etc/new"])
        .assert()
        .success();
    people.ann(&["commit", "web", "made"]).assert().success();
    people.ann(&["cp", "web:/etc/new", "copy"]).assert().success();
    assert_eq!(fs::read_to_string(people.home.join("copy")).unwrap(), "new\n");
    people.ann(&["stop", "-t", "0", "web"]).assert().success();
    people.ann(&["rm", "web"]).assert().success();
    let run = [
        "run",
        "--rm",
        "--net",
        "none",
        "--image",
        "made",
        "sh",
        "-c",
        "ls /etc | grep -v -e host -e resolv",
    ];
    assert_eq!(people.reads(&run), "new\n", "what was removed stays removed");
    // Root sees none of them.
    assert_eq!(people.world.ps().lines().count(), 1, "{}", people.world.ps());
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task6_her_containers_reach_each_other_and_are_reached_from_the_host() {
    let people = People::new();
    people.give_an_image();
    let serve = "echo hello > /index.html; exec httpd -f -p 80 -h /";
    let words = ["run", "-d", "--name", "web", "-p", "18080:80", "--image", "base", "sh", "-c", serve];
    people.ann(&words).assert().success();
    let address = {
        let all: serde_json::Value = serde_json::from_str(&people.reads(&["inspect", "web"])).unwrap();
        all[0]["address"].as_str().unwrap().to_string()
    };
    let get = |url: String| {
        let words = ["run", "--rm", "--image", "base", "wget", "-q", "-O", "-", &url];
        people.ann(&words).output().unwrap().stdout
    };
    until("one reaches the other", || get(format!("http://{address}/")) == b"hello\n");
    let fetch = || {
        let mut wget = std::process::Command::new(busybox().join("bin/busybox"));
        wget.args(["wget", "-q", "-O", "-", "http://127.0.0.1:18080/"]).output().unwrap().stdout
    };
    until("the host reaches it", || fetch() == b"hello\n");
    people.ann(&["rm", "-f", "web"]).assert().success();
    assert_eq!(fetch(), b"", "the port is closed again");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task6_a_terminal_and_devices_are_there() {
    let people = People::new();
    people.give_an_image();
    let script = "echo x > /dev/null; head -c 3 /dev/zero | wc -c; [ -c /dev/tty ]; ls /dev/pts; > /dev/shm/x; \
        (echo 1 > /proc/sys/kernel/panic) 2>/dev/null || echo refused";
    let words = ["run", "--rm", "--net", "none", "--image", "base", "sh", "-ec", script];
    assert_eq!(people.reads(&words), "3\nptmx\nrefused\n");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task6_who_has_no_ids_is_told_what_is_missing() {
    let people = People::new();
    let expected = contains("CAP_SYS_ADMIN").and(contains("sudo")).and(contains("/etc/subuid"));
    people.command(BOB, &["run", "true"]).assert().code(125).stderr(expected);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task6_what_cannot_be_had_without_root_says_why() {
    let people = People::new();
    people.give_an_image();
    let words = ["run", "--rm", "--net", "none", "--image", "base"];
    let mut auto = people.ann(&[&words[..], &["--userns", "auto", "true"]].concat());
    auto.assert().code(125).stderr(contains("in a user namespace already"));
    // Below 1024 a port takes root.
    let port = ["run", "--rm", "-p", "80:80", "--image", "base", "true"];
    people.ann(&port).assert().code(125).stderr(contains("1024"));
}
