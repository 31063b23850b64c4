//! Day 17: containers without root. Ann has ids in /etc/subuid, Bob has none. It takes newuidmap
//! (package uidmap) and slirp4netns.
#![allow(clippy::unwrap_used)]

mod common;

use std::fmt::Write;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use assert_cmd::Command;
use common::layout::{Layout, Packed, tar_of};
use common::{
    HostFile, World, alive, binary, busybox, deadline, descendants, processes, reap_orphans, until,
};
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
    bobs: PathBuf,
    world: World,
}

fn command(uid: u32, home: &Path, words: &[&str]) -> Command {
    let mut command = std::process::Command::new(binary());
    command.args(words).uid(uid).gid(uid).current_dir(home).env("HOME", home);
    command.env_remove("TINY_DOCKER_ROOT").env_remove("XDG_DATA_HOME");
    let mut command = Command::from_std(command);
    command.timeout(deadline());
    command
}

/// Who holds the namespaces of whoever lives there, if anybody does.
fn holder(home: &Path) -> Option<Pid> {
    let file = fs::read(home.join(".local/share/tiny-docker/namespaces")).ok()?;
    let holder: serde_json::Value = serde_json::from_slice(&file).ok()?;
    Some(Pid::from_raw(holder["pid"].as_i64()? as i32)).filter(|pid| alive(*pid))
}

impl People {
    fn new() -> People {
        People::with("ann")
    }

    /// `who`: how Ann is called in /etc/subuid.
    fn with(who: &str) -> People {
        let world = World::on_disk();
        let file = |name: &str, text: String| {
            let path = world.dir().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let mut all = fs::read_to_string("/etc/passwd").unwrap();
        let [home, bobs] = [("ann", ANN), ("bob", BOB)].map(|(name, id)| {
            let home = world.dir().join(name);
            fs::create_dir(&home).unwrap();
            chown(&home, Some(id), Some(id)).unwrap();
            writeln!(all, "{name}:x:{id}:{id}::{}:/bin/sh", home.display()).unwrap();
            home
        });
        let people = file("passwd", all);
        let ids = file("subid", format!("{who}:{HERS}:65536\n"));
        let files = [
            HostFile::replace("/etc/passwd", &people),
            HostFile::replace("/etc/subuid", &ids),
            HostFile::replace("/etc/subgid", &ids),
        ];
        People { _files: files, home, bobs, world }
    }

    fn ann(&self, words: &[&str]) -> Command {
        command(ANN, &self.home, words)
    }

    fn bob(&self, words: &[&str]) -> Command {
        command(BOB, &self.bobs, words)
    }

    /// What she reads.
    #[track_caller]
    fn reads(&self, words: &[&str]) -> String {
        let output = self.ann(words).assert().success();
        String::from_utf8(output.get_output().stdout.clone()).unwrap()
    }

    /// Gives her an image, busybox.
    fn give_an_image(&self) {
        let archive = self.image_of(&busybox(), "base");
        self.ann(&["load", "-i", archive.to_str().unwrap()]).assert().success();
    }

    /// An archive of an image with the files of `dir`.
    fn image_of(&self, dir: &Path, name: &str) -> PathBuf {
        let mut layout = Layout::new(&self.world, name);
        let layer = layout.layer(&tar_of(dir), Packed::Gzip);
        let manifest = layout.image(&[layer], serde_json::json!({}));
        layout.tag(&format!("docker.io/library/{name}:latest"), &manifest);
        let archive = self.world.dir().join(format!("{name}.tar"));
        fs::write(&archive, tar_of(&layout.dir)).unwrap();
        archive
    }
}

impl Drop for People {
    fn drop(&mut self) {
        // Their containers, and then whoever holds their namespaces, which nobody else ends.
        for (uid, home) in [(ANN, &self.home), (BOB, &self.bobs)] {
            let Ok(all) = command(uid, home, &["ps", "-aq"]).output() else { continue };
            for id in String::from_utf8_lossy(&all.stdout).split_whitespace() {
                let _ = command(uid, home, &["rm", "-f", id]).output();
            }
            holder(home).map(|pid| kill(pid, Signal::SIGKILL));
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
    let id = serde_json::from_str::<serde_json::Value>(&people.reads(&["inspect", "web"])).unwrap();
    let id = id[0]["id"].as_str().unwrap().to_string();
    let state = people.home.join(".local/share/tiny-docker/containers").join(id);
    let file = fs::metadata(state.join("layer/upper/file")).unwrap();
    assert_eq!((file.uid(), file.gid()), (HERS + 999, ANN));
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
        .ann(&["exec", "web", "sh", "-c", "rm -r /home; mkdir /home; echo new > /home/new"])
        .assert()
        .success();
    people.ann(&["commit", "web", "made"]).assert().success();
    people.ann(&["cp", "web:/home/new", "copy"]).assert().success();
    assert_eq!(fs::read_to_string(people.home.join("copy")).unwrap(), "new\n");
    people.ann(&["stop", "-t", "0", "web"]).assert().success();
    // Once it has ended as well: in and out.
    people.ann(&["cp", "copy", "web:/home/again"]).assert().success();
    people.ann(&["cp", "web:/home/again", "again"]).assert().success();
    assert_eq!(fs::read_to_string(people.home.join("again")).unwrap(), "new\n");
    people.ann(&["rm", "web"]).assert().success();
    let run = ["run", "--rm", "--net", "none", "--image", "made", "ls", "/home"];
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
fn task6_who_has_no_ids_is_alone_inside() {
    let people = People::new();
    let base = busybox();
    let rootfs = ["run", "--rm", "--net", "none", "--rootfs", base.to_str().unwrap()];
    let map = people.bob(&[&rootfs[..], &["cat", "/proc/self/uid_map"]].concat()).assert().success();
    // It is said once, when the namespaces are made.
    let map = map.stderr(contains("one user").and(contains("--add-subuids")));
    let map = String::from_utf8(map.get_output().stdout.clone()).unwrap();
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "1501", "1"]);
    let script = "id -u; id -g; ls -ld /dev/pts/ptmx | wc -l; echo x > /dev/null";
    people
        .bob(&[&rootfs[..], &["sh", "-ec", script]].concat())
        .assert()
        .success()
        .stdout("0\n0\n1\n")
        .stderr("");
    // An image whose files are all root's, and all that one does with it.
    let all_roots = people.world.copy_of_rootfs("all-roots");
    chown(all_roots.join("home/app"), Some(0), Some(0)).unwrap();
    let archive = people.image_of(&all_roots, "base");
    people.bob(&["load", "-i", archive.to_str().unwrap()]).assert().success();
    let words = ["run", "-d", "--name", "web", "--net", "none", "--image", "base"];
    people.bob(&[&words[..], &["sh", "-c", "echo hello; exec sleep 1000"]].concat()).assert().success();
    until("it is in the log", || people.bob(&["logs", "web"]).output().unwrap().stdout == b"hello\n");
    people.bob(&["exec", "web", "sh", "-c", "id -u"]).assert().success().stdout("0\n");
    people.bob(&["stop", "-t", "0", "web"]).assert().success();
    people.bob(&["rm", "web"]).assert().success();
    // What it does not do says why.
    let why = || contains("only user 0").and(contains("/etc/subuid"));
    let user = [&rootfs[..4], &["-u", "1000"], &rootfs[4..], &["true"]].concat();
    people.bob(&user).assert().code(125).stderr(why());
    let with_others = people.world.copy_of_rootfs("with-others");
    chown(with_others.join("etc/group"), Some(3), Some(4)).unwrap();
    let archive = people.image_of(&with_others, "others");
    people.bob(&["load", "-i", archive.to_str().unwrap()]).assert().code(1).stderr(why());
    // Without a place for containers it is as it was before.
    let nowhere = contains("CAP_SYS_ADMIN").and(contains("sudo"));
    people.bob(&["run", "true"]).env("HOME", "/nonexistent").assert().code(125).stderr(nowhere);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task6_a_command_that_only_reads_makes_no_namespaces() {
    let people = People::new();
    assert_eq!(people.reads(&["ps", "-a"]).lines().count(), 1);
    people.ann(&["inspect", "web"]).assert().failure().stderr(contains("no such container"));
    assert_eq!(holder(&people.home), None);
    people.give_an_image();
    assert!(holder(&people.home).is_some());
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task6_whoever_is_killed_leaves_namespaces_that_are_known_or_none() {
    let people = People::new();
    let base = busybox();
    let words = ["run", "--rm", "--net", "none", "--rootfs", base.to_str().unwrap(), "true"];
    people.ann(&words).assert().success();
    kill(holder(&people.home).unwrap(), Signal::SIGKILL).unwrap();
    let mut known = 0;
    for moment in 1..=12 {
        let _ = people.ann(&words).env("TINY_DOCKER_DIE_AT", format!("parent:{moment}")).output().unwrap();
        if let Some(pid) = holder(&people.home) {
            known += 1;
            kill(pid, Signal::SIGKILL).unwrap();
        }
        until("nobody is left", || {
            reap_orphans();
            descendants().is_empty()
        });
    }
    assert!(0 < known && known < 12, "{known} of 12 were written down");
    people.ann(&words).assert().success();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task6_nobody_keeps_what_the_caller_has_open() {
    let people = People::new();
    let base = busybox();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let words = ["run", "--rm", "--net", "none", "--rootfs", base.to_str().unwrap(), "true"];
    let mut program = std::process::Command::new("sh");
    program.args(["-c", "exec 9>&0 0</dev/null; exec \"$0\" \"$@\""]).arg(binary()).args(words);
    program.stdin(writer).uid(ANN).gid(ANN).env("HOME", &people.home).current_dir(&people.home);
    program.env_remove("TINY_DOCKER_ROOT").env_remove("XDG_DATA_HOME");
    assert!(program.status().unwrap().success());
    // The command keeps its own end until it goes.
    drop(program);
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    assert!(holder(&people.home).is_some(), "and the namespaces are there all the while");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task6_a_port_has_an_address_and_is_free_again_whoever_is_killed() {
    let people = People::new();
    people.give_an_image();
    let serve = "echo hello > /index.html; exec httpd -f -p 80 -h /";
    let publish = |port: &'static str| {
        ["run", "-d", "--name", "web", "-p", port, "--image", "base", "sh", "-c", serve].to_vec()
    };
    let fetch = |url: &str| {
        let mut wget = std::process::Command::new(busybox().join("bin/busybox"));
        wget.args(["wget", "-q", "-O", "-", url]).output().unwrap().stdout
    };
    people.ann(&publish("127.0.0.1:18081:80")).assert().success();
    assert_eq!(people.reads(&["port", "web"]), "80/tcp -> 127.0.0.1:18081\n");
    until("the host reaches it", || fetch("http://127.0.0.1:18081/") == b"hello\n");
    assert_eq!(fetch("http://127.0.0.2:18081/"), b"", "another address is not published");
    // Its owner is killed, who would have closed the port.
    let command: i32 = its_process(&people, "web").parse().unwrap();
    let (_, owner) = processes().find(|(pid, _)| *pid == command).unwrap();
    kill(Pid::from_raw(owner), Signal::SIGKILL).unwrap();
    people.ann(&["rm", "-f", "web"]).assert().success();
    people.ann(&publish("127.0.0.1:18081:80")).assert().success();
    until("the host reaches it again", || fetch("http://127.0.0.1:18081/") == b"hello\n");
    people.ann(&["rm", "-f", "web"]).assert().success();
    let ipv6 = ["run", "--rm", "-p", "[::1]:18081:80", "--image", "base", "true"];
    people.ann(&ipv6).assert().code(125).stderr(contains("IPv4"));
}

/// A cgroup that root has made over to Ann. (kernel: admin-guide/cgroup-v2, "Delegation")
struct Hers(PathBuf);

impl Hers {
    fn new() -> Hers {
        let dir = PathBuf::from("/sys/fs/cgroup/anns");
        fs::create_dir(&dir).unwrap();
        let files = ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"];
        files.iter().for_each(|name| chown(dir.join(name), Some(ANN), Some(ANN)).unwrap());
        Hers(dir)
    }
}

impl Drop for Hers {
    fn drop(&mut self) {
        for dir in [self.0.join("tiny-docker.runtime"), self.0.clone()] {
            let start = Instant::now();
            while dir.exists() && fs::remove_dir(&dir).is_err() && start.elapsed() < deadline() / 10 {
                let all = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
                all.lines().filter_map(|pid| pid.parse().ok()).for_each(|pid| {
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                });
                reap_orphans();
            }
        }
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task6_limits_take_a_cgroup_of_ones_own() {
    let people = People::new();
    people.give_an_image();
    let words = ["run", "--rm", "--net", "none", "--memory", "64m", "--image", "base"];
    let refused = people.ann(&[&words[..], &["true"]].concat()).assert().code(125);
    refused.stderr(contains("without root").and(contains("cgroup that is yours")));
    let hers = Hers::new();
    let mut inside = std::process::Command::new("sh");
    let script = "echo $$ > /sys/fs/cgroup/anns/cgroup.procs; exec setpriv --reuid=$0 --regid=$0 --clear-groups \"$@\"";
    inside.args(["-c", script, &ANN.to_string()]).arg(binary()).args(words);
    inside.args(["sh", "-c", "cat /sys/fs/cgroup/memory.max; head -c 100m /dev/zero | tail"]);
    inside.env("HOME", &people.home).current_dir(&people.home);
    inside.env_remove("TINY_DOCKER_ROOT").env_remove("XDG_DATA_HOME");
    let limited = Command::from_std(inside).timeout(deadline()).assert();
    limited.code(137).stdout("67108864\n").stderr(contains("64m"));
    assert_eq!(fs::read_dir(&hers.0).unwrap().flatten().filter(|entry| entry.path().is_dir()).count(), 1);
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
