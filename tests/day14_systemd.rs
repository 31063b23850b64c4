//! Day 14: a unit by which systemd keeps a container running.
#![allow(clippy::unwrap_used)]

mod common;

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

use common::{World, busybox, said, until};
use predicates::prelude::PredicateBooleanExt;
use predicates::str::{contains, is_empty};

/// Makes a container called web, without a network.
fn create(world: &World, flags: &[&str], script: &str) {
    let rootfs = busybox();
    let words = ["create", "--net", "none", "--name", "web", "--rootfs", rootfs.to_str().unwrap()];
    world.tiny_docker([&words[..], flags, &["sh", "-c", script]].concat()).assert().success();
}

fn unit(world: &World) -> String {
    let output = world.tiny_docker(["systemd", "web"]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// What `unit` sets `name` to.
fn setting<'a>(unit: &'a str, name: &str) -> Option<&'a str> {
    unit.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

/// The words of a command line in a unit, as systemd reads them: in quotes a backslash begins what
/// stands for another character, and `%%` is a percent sign. (systemd.syntax(7))
fn words_of(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        match c {
            '"' => quoted = !quoted,
            '\\' if quoted => match rest.next().unwrap() {
                'x' => {
                    let digits: String = rest.by_ref().take(2).collect();
                    word.push(u8::from_str_radix(&digits, 16).unwrap() as char);
                }
                c => word.push(c),
            },
            '%' => {
                assert_eq!(rest.next(), Some('%'), "systemd takes this for a specifier: {line}");
                word.push('%');
            }
            ' ' if !quoted => words.push(std::mem::take(&mut word)),
            c => word.push(c),
        }
    }
    words.push(word);
    words
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_a_policy_is_said_in_systemds_words() {
    let world = World::new();
    create(&world, &[], "true");
    for (policy, restart, interval, burst) in [
        ("no", "no", "0", None),
        ("always", "always", "0", None),
        ("unless-stopped", "always", "0", None),
        ("on-failure", "on-failure", "0", None),
        ("on-failure:3", "on-failure", "infinity", Some("4")),
    ] {
        world.tiny_docker(["update", "--restart", policy, "web"]).assert().success();
        let unit = unit(&world);
        assert_eq!(setting(&unit, "Restart"), Some(restart), "{policy}: {unit}");
        assert_eq!(setting(&unit, "StartLimitIntervalSec"), Some(interval), "{policy}: {unit}");
        assert_eq!(setting(&unit, "StartLimitBurst"), burst, "{policy}: {unit}");
    }
    let unit = unit(&world);
    let id = world.inspect("web")["id"].as_str().unwrap().to_string();
    let command = setting(&unit, "ExecStart").unwrap();
    assert!(command.ends_with(&format!(" start --attach --by-systemd {id}")), "by its id: {command}");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_systemd_takes_the_unit_whatever_the_paths_are_called() {
    let world = World::new();
    let names =
        ["plain", "a b", "100%h", "$HOME ${x}", "\"quoted\" 'too'", "back\\slash", "new\nline", "é; b"];
    let mut files = Vec::new();
    for (number, name) in names.into_iter().enumerate() {
        let root = world.dir().join(name);
        let rootfs = busybox();
        let words =
            ["--root", root.to_str().unwrap(), "create", "--net", "none", "--name", "web", "--rootfs"];
        let rest = [rootfs.to_str().unwrap(), "--restart", "on-failure:3", "true"];
        world.tiny_docker([&words[..], &rest[..]].concat()).assert().success();
        let words = ["--root", root.to_str().unwrap(), "systemd", "web"];
        let made = world.tiny_docker(words).output().unwrap();
        let unit = String::from_utf8_lossy(&made.stdout).into_owned();
        for command in ["ExecStart", "ExecStop"] {
            let line = setting(&unit, command).unwrap_or_else(|| panic!("no {command}: {}", said(&made)));
            // The colon says that `$` begins no variable.
            let words = line.trim_start_matches('-').strip_prefix(":\"");
            let words =
                words_of(&format!("\"{}", words.unwrap_or_else(|| panic!("{command} of {name:?}: {line}"))));
            let path = fs::canonicalize(&root).unwrap();
            let expected = ["--root", path.to_str().unwrap()];
            assert_eq!(words[1..3], expected, "what systemd reads in {command} of {name:?}: {line}");
        }
        files.push(world.dir().join(format!("web-{number}.service")));
        fs::write(&files[number], &made.stdout).unwrap();
        world.tiny_docker(["--root", root.to_str().unwrap(), "rm", "web"]).assert().success();
        fs::remove_dir_all(&root).unwrap();
    }
    // It makes a directory in /run: one that is gone with its mount namespace.
    let script = "mount -t tmpfs run /run && exec systemd-analyze verify \"$@\"";
    let mut verify = Command::new("unshare");
    let verify = verify.args(["--mount", "sh", "-c", script, "sh"]).args(&files).output().unwrap();
    let told = said(&verify);
    let about_them: Vec<&str> = told.lines().filter(|line| line.contains("web-")).collect();
    assert!(verify.status.success() && about_them.is_empty(), "{names:?}: {told}");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_started_by_systemd_its_own_policy_does_nothing() {
    let world = World::new();
    create(&world, &["--restart", "always"], "echo life; exit 3");
    let start = world.tiny_docker(["start", "--attach", "--by-systemd", "web"]).assert();
    start
        .code(3)
        .stdout("life\n")
        .stderr(contains("systemd's to start again").and(contains("--restart always")));
    let shown = world.inspect("web");
    assert_eq!((&shown["status"], &shown["restart_count"]), (&"exited".into(), &0.into()), "{shown}");
    assert_eq!(shown["restart"], "always", "the policy stays what it is: {shown}");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_systemd_hears_that_a_person_ended_it() {
    let world = World::new();
    create(&world, &["--restart", "always"], "trap 'exit 5' TERM; echo up; while :; do sleep 0.1; done");
    let prevented = "RestartPreventExitStatus=199";
    assert!(unit(&world).contains(prevented), "{}", unit(&world));
    let mut start = world.start(["start", "--attach", "--by-systemd", "web"]);
    assert_eq!(start.line().trim_end(), "up");
    // A second one would be the other owner.
    let second = world.tiny_docker(["start", "--attach", "--by-systemd", "web"]).assert();
    second.code(1).stdout(is_empty()).stderr(contains("runs already"));
    world.tiny_docker(["stop", "web"]).assert().success();
    assert_eq!(start.ended(), 199, "what systemd hears of a stop");
    until("it has ended", || world.inspect("web")["status"] == "exited");
    assert_eq!(world.inspect("web")["exit_code"], 5, "what people hear");
    let id = world.inspect("web")["id"].as_str().unwrap().to_string();
    world.tiny_docker(["rm", "web"]).assert().success();
    // One that is not there any more is not tried forever.
    world.tiny_docker(["start", "--attach", "--by-systemd", &id]).assert().code(199);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_what_systemd_could_not_run_gets_no_unit() {
    let world = World::new();
    create(&world, &["-it"], "true");
    world.tiny_docker(["systemd", "web"]).assert().code(1).stdout(is_empty()).stderr(contains("-it"));
    world.tiny_docker(["rm", "web"]).assert().success();
    create(&world, &["--rm"], "true");
    world.tiny_docker(["systemd", "web"]).assert().code(1).stdout(is_empty()).stderr(contains("--rm"));
    world.tiny_docker(["rm", "web"]).assert().success();
    // A terminal alone is no obstacle: nobody types, and what is drawn is in the log.
    create(&world, &["-t"], "true");
    assert!(unit(&world).contains("[Service]"), "with a terminal: {}", unit(&world));
    world.tiny_docker(["rm", "web"]).assert().success();
    world
        .tiny_docker(["systemd", "web"])
        .assert()
        .code(1)
        .stdout(is_empty())
        .stderr(contains("no such container"));
}

/// A machine of its own as far as systemd can tell: systemd is PID 1 of namespaces, with the units
/// that the test enables and no others. Its /etc and the test's directory, and so the containers in
/// it, outlive it, as a disk does.
struct Machine {
    cgroup: PathBuf,
    /// Whose child is systemd.
    outside: Child,
}

impl Machine {
    /// Boots the one whose /etc has, other than the guest's, what is in `etc` of the test's directory.
    fn boot(world: &World) -> Machine {
        let cgroup = PathBuf::from("/sys/fs/cgroup/tiny-docker-machine");
        fs::create_dir(&cgroup).unwrap();
        // What it mounts stays in its mount namespace, and its /run is empty, as after each boot.
        let boot = format!(
            "umount /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup && \
             mount -t tmpfs -o mode=755 run /run && \
             cd '{}' && mount -t overlay -o lowerdir=/etc,upperdir=etc,workdir=work etc /etc && cd / && \
             exec env -i container=test PATH=\"$PATH\" /lib/systemd/systemd --system \
             --unit=multi-user.target --show-status=no --log-target=null",
            world.dir().display()
        );
        // Its cgroups begin with the one that it is in by then. (cgroup_namespaces(7))
        let script = "echo 0 >\"$0/cgroup.procs\" && exec unshare --cgroup sh -c \"$1\"";
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "sh", "-c", script]);
        command.arg(&cgroup).arg(boot).stdin(Stdio::null());
        let mut machine = Machine { cgroup, outside: command.spawn().unwrap() };
        until("systemd has booted", || {
            assert_eq!(machine.outside.try_wait().unwrap(), None, "systemd has ended");
            let state = machine.does(&["systemctl", "is-system-running"]);
            matches!(text(&state), "running" | "degraded")
        });
        machine
    }

    /// Its PID 1, seen from outside.
    fn init(&self) -> Option<i32> {
        let outside = self.outside.id() as i32;
        common::processes().find(|(_, parent)| *parent == outside).map(|(pid, _)| pid)
    }

    /// What a program does in there.
    fn does<S: AsRef<OsStr>>(&self, words: &[S]) -> Output {
        let mut command = Command::new("nsenter");
        let target = self.init().unwrap_or(0).to_string();
        command
            .args(["--pid", "--mount", "--cgroup", "--target", &target, "--"])
            .args(words)
            .output()
            .unwrap()
    }

    fn tiny_docker(&self, words: &[&str]) -> String {
        let program = common::binary().to_str().unwrap();
        let output = self.does(&[&[program], words].concat());
        assert!(output.status.success(), "tiny-docker {words:?}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn systemctl(&self, words: &[&str]) {
        let output = self.does(&[&["systemctl"], words].concat());
        assert!(output.status.success(), "systemctl {words:?}: {}", said(&output));
    }

    /// What systemd says of the unit.
    fn unit(&self, property: &str) -> String {
        let shown = self.does(&["systemctl", "show", "--value", "--property", property, "web.service"]);
        assert!(shown.status.success(), "{property}: {}", said(&shown));
        text(&shown).to_string()
    }

    fn record(&self) -> serde_json::Value {
        let array: serde_json::Value = serde_json::from_str(&self.tiny_docker(&["inspect", "web"])).unwrap();
        array[0].clone()
    }

    /// The container's process, once it runs and has another than `before`.
    fn process(&self, before: Option<i64>) -> i64 {
        let mut found = None;
        until("the container runs", || {
            let record = self.record();
            found = record["pid"].as_i64().filter(|_| record["status"] == "running");
            found.is_some() && found != before
        });
        found.unwrap()
    }

    /// The same, once it has said in so many lives that it is up.
    fn is_up(&self, lives: usize, before: Option<i64>) -> i64 {
        let process = self.process(before);
        until("it is up", || self.tiny_docker(&["logs", "web"]) == "up\n".repeat(lives));
        process
    }

    /// Waits until the container has ended and the unit too, as far as systemd is concerned for
    /// good: between two lives a unit is "activating".
    fn has_ended(&self, state: &str) {
        until(&format!("the unit is {state}"), || self.unit("ActiveState") == state);
        assert_eq!(self.record()["status"], "exited", "its container");
    }

    /// Switched off by a person, who waits until all units have stopped.
    fn shut_down(mut self) {
        // What halts a systemd that is a container's. (systemd(1), "SIGRTMIN+4")
        let signal = format!("-{}", nix::libc::SIGRTMIN() + 4);
        let sent = Command::new("kill").args([&signal, &self.init().unwrap().to_string()]).status().unwrap();
        assert!(sent.success(), "kill {signal}");
        until("it has shut down", || self.outside.try_wait().unwrap().is_some());
    }

    /// Its power is cut: no process in there does anything any more.
    fn loses_power(self) {
        drop(self);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for words in [&["systemctl", "status", "--no-pager", "web"][..], &["systemctl", "list-jobs"]] {
                eprintln!("{words:?}: {}", said(&self.does(words)));
            }
        }
        // With PID 1 the kernel ends all others of its namespace. (pid_namespaces(7))
        let _ = fs::write(self.cgroup.join("cgroup.kill"), "1");
        let _ = self.outside.wait();
        // The kernel may need a moment to see that nobody is in there.
        let since = Instant::now();
        while self.cgroup.exists() && since.elapsed() < common::deadline() / 4 {
            let mut find = Command::new("find");
            let _ = find
                .arg(&self.cgroup)
                .args(["-depth", "-type", "d", "-delete"])
                .stderr(Stdio::null())
                .status();
        }
    }
}

fn text(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap().trim_end()
}

/// Makes a container that a person can end at once, and its unit; boots a machine that has it.
fn machine_with(world: &World, policy: &str, script: &str) -> Machine {
    create(world, &["--restart", policy], script);
    let etc = world.dir().join("etc");
    fs::create_dir(world.dir().join("work")).unwrap();
    fs::create_dir_all(etc.join("systemd/system")).unwrap();
    fs::write(etc.join("systemd/system/web.service"), unit(world)).unwrap();
    // One that has none takes this for its first boot, and enables all units. (machine-id(5))
    fs::write(etc.join("machine-id"), format!("{:032x}\n", 14)).unwrap();
    Machine::boot(world)
}

const UNTIL_TOLD: &str = "trap 'exit 5' TERM; echo up; while :; do sleep 0.1; done";

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_long_systemd_and_nobody_else_starts_it_again() {
    let world = World::new();
    let machine = machine_with(&world, "always", UNTIL_TOLD);
    machine.systemctl(&["enable", "--now", "web"]);
    let mut process = machine.is_up(1, None);
    let cgroup = text(&machine.does(&["cat", &format!("/proc/{process}/cgroup")])).to_string();
    assert!(cgroup.contains("/system.slice/web.service/"), "it is within the unit's cgroup: {cgroup}");
    // The container's process is killed, then the one that looks after it.
    for restarts in 1..=4 {
        let (whose, pid) = match restarts % 2 {
            0 => ("its supervisor", machine.unit("MainPID")),
            _ => ("its process", process.to_string()),
        };
        machine.does(&["kill", "-KILL", &pid]);
        process = machine.is_up(restarts + 1, Some(process));
        assert_eq!(machine.unit("NRestarts"), restarts.to_string(), "after {whose} was killed");
        let record = machine.record();
        assert_eq!(record["restart_count"], 0, "it was not started by its own policy: {record}");
        until("one process looks after it", || {
            text(&machine.does(&["pgrep", "-f", "--", "--by-systemd"])) == machine.unit("MainPID")
        });
    }
    machine.tiny_docker(&["rm", "-f", "web"]);
    until("the unit has ended", || machine.unit("ActiveState") == "inactive");
    assert_eq!(machine.unit("NRestarts"), "4", "one that was removed is not tried again");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_long_what_a_person_has_stopped_stays_stopped_up_to_the_next_boot() {
    let world = World::new();
    let machine = machine_with(&world, "always", UNTIL_TOLD);
    machine.systemctl(&["enable", "--now", "web"]);
    machine.is_up(1, None);
    machine.tiny_docker(&["stop", "web"]);
    machine.has_ended("inactive");
    assert_eq!(machine.unit("NRestarts"), "0", "systemd leaves it as it is");
    assert_eq!(machine.unit("Result"), "success", "and nothing has failed");
    machine.loses_power();

    let machine = Machine::boot(&world);
    let process = machine.is_up(2, None);
    machine.systemctl(&["stop", "web"]);
    machine.has_ended("inactive");
    machine.systemctl(&["start", "web"]);
    machine.is_up(3, Some(process));
    // Nobody sees the end of what runs then.
    machine.loses_power();

    let machine = Machine::boot(&world);
    machine.is_up(4, None);
    machine.systemctl(&["disable", "web"]);
    machine.shut_down();
    assert_eq!(world.inspect("web")["exit_code"], 5, "one that was shut down could end by itself");
    let machine = Machine::boot(&world);
    assert_eq!(machine.unit("ActiveState"), "inactive", "one that is disabled is not started");
    drop(machine);
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_long_systemd_gives_up_after_as_many_restarts_as_the_policy_says() {
    let world = World::new();
    let machine = machine_with(&world, "on-failure:2", "echo life; exit 3");
    machine.systemctl(&["enable", "--now", "web"]);
    machine.has_ended("failed");
    assert_eq!(machine.tiny_docker(&["logs", "web"]), "life\n".repeat(3), "its lives");
    assert_eq!(machine.record()["exit_code"], 3, "how the last one ended");
    drop(machine);
    world.remove_all();
}
