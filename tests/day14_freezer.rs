//! Day 14: a container is held up by the kernel, and goes on.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use common::layout::{Layout, Packed, tar_of};
use common::{World, alive, busybox, children_of, said, state, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use predicates::prelude::*;
use predicates::str::{contains, is_match};
use serde_json::json;

/// Writes down how far it is, as fast as it can.
const COUNTS: &str = "i=0; while :; do i=$((i+1)); echo $i >/count; done";

/// A container called web that runs `script`.
fn web(world: &World, flags: &[&str], script: &str) -> String {
    let rootfs = busybox();
    let words = ["run", "-d", "--net", "none", "--name", "web", "--layer", rootfs.to_str().unwrap()];
    let output = world.tiny_docker([&words[..], flags, &["sh", "-c", script]].concat()).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8(output.stdout).unwrap().trim_end().to_string()
}

fn file(world: &World, name: &str) -> PathBuf {
    let id = world.inspect("web")["id"].as_str().unwrap().to_string();
    world.containers().join(id).join("layer/upper").join(name)
}

/// How far it is; `None`: it is just writing that down.
fn count(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// It is seen to do something.
fn goes_on(file: &Path) {
    let before = count(file);
    until("it counts on", || count(file).is_some_and(|now| Some(now) != before));
}

fn cgroup(id: &str) -> PathBuf {
    format!("/sys/fs/cgroup/tiny-docker-{id}").into()
}

/// Processor time that a process has used so far. (proc_pid_stat(5), fields 14 and 15)
fn used(pid: Pid) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let rest = stat.rsplit_once(") ").unwrap().1.split(' ').collect::<Vec<_>>();
    rest[11].parse::<u64>().unwrap() + rest[12].parse::<u64>().unwrap()
}

fn is_paused(world: &World) -> bool {
    is_match(r"Up [^)]* \(Paused\)").unwrap().eval(&world.ps())
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_a_paused_container_does_nothing_until_it_goes_on() {
    let world = World::new();
    let id = web(&world, &[], COUNTS);
    let (file, pid) = (file(&world, "count"), common::pid(&world, "web"));
    goes_on(&file);
    world.tiny_docker(["pause", "web"]).assert().success().stdout("web\n");
    let (far, time) = (fs::read_to_string(&file).unwrap(), used(pid));
    assert!(is_paused(&world), "ps says that it is paused: {}", world.ps());
    assert_eq!(world.inspect("web")["paused"], true, "what inspect says");
    // Nobody sends it a signal: nothing is stopped as SIGSTOP would.
    assert_ne!(state(pid), 'T', "the state of a process that is frozen");
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(
        (fs::read_to_string(&file).unwrap(), used(pid)),
        (far, time),
        "what it did while it was paused"
    );
    world.tiny_docker(["pause", "web"]).assert().code(1).stderr(contains("paused already"));
    let exec = world.tiny_docker(["exec", "web", "true"]).assert().code(1);
    exec.stderr(contains("is paused, unpause").or(contains("unpause the container before exec")));
    world.tiny_docker(["unpause", &id[..6]]).assert().success().stdout(format!("{}\n", &id[..6]));
    goes_on(&file);
    assert!(!is_paused(&world), "ps says that it is not paused: {}", world.ps());
    assert_eq!(world.inspect("web")["paused"], serde_json::Value::Null, "what inspect says");
    world.tiny_docker(["exec", "web", "true"]).assert().success();
    world.tiny_docker(["unpause", "web"]).assert().code(1).stderr(contains("is not paused"));
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_pause_returns_when_all_are_held_up() {
    let world = World::new();
    let script = "for i in $(seq 24); do (while :; do :; done) & done; touch /all; wait";
    let id = web(&world, &[], script);
    let all = file(&world, "all");
    until("all of them run", || all.exists());
    // So little of a processor that it takes them a while to come to the kernel at all.
    fs::write(cgroup(&id).join("cpu.max"), "2000 100000").unwrap();
    for _ in 0..2 {
        world.tiny_docker(["pause", "web"]).assert().success();
        let events = fs::read_to_string(cgroup(&id).join("cgroup.events")).unwrap();
        assert!(events.contains("frozen 1\n"), "pause has returned, and not all are held up: {events}");
        world.tiny_docker(["unpause", "web"]).assert().success();
    }
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_what_does_not_run_cannot_be_paused() {
    let world = World::new();
    let rootfs = busybox();
    let words = ["run", "--net", "none", "--name", "web", "--rootfs", rootfs.to_str().unwrap(), "true"];
    world.tiny_docker(words).assert().success();
    for verb in ["pause", "unpause"] {
        world.tiny_docker([verb, "web"]).assert().code(1).stderr(contains("is not running"));
        world.tiny_docker([verb, "nosuch"]).assert().code(1).stderr(contains("no such container"));
    }
    world.remove_all();
    // On a host that shows it no cgroups, a container has none.
    let script = format!(
        "unshare --mount sh -c 'umount -l /sys/fs/cgroup; exec \"$0\" run -d --net none --name web --rootfs {} sleep 1000' \"$0\"",
        rootfs.display()
    );
    world.called_by(&script).assert().success();
    world.tiny_docker(["pause", "web"]).assert().code(1).stderr(contains("has no cgroup"));
    assert!(!is_paused(&world), "it runs: {}", world.ps());
    world.remove_all();
    // And one that runs and has one can be.
    web(&world, &[], "exec sleep 1000");
    world.tiny_docker(["pause", "nosuch", "web"]).assert().code(1).stdout("web\n");
    assert!(is_paused(&world), "one of two that were asked for: {}", world.ps());
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_a_paused_container_can_be_stopped_and_killed() {
    let world = World::new();
    let deaf = "trap 'echo got TERM; exit 3' TERM; trap 'touch /usr1' USR1; touch /ready; while :; do sleep 0.1; done";
    let start = |world: &World| {
        web(world, &[], deaf);
        let ready = file(world, "ready");
        until("it is ready", || ready.exists());
        world.tiny_docker(["pause", "web"]).assert().success();
        common::pid(world, "web")
    };
    // It gets the signal, and the time to act on it.
    start(&world);
    world.tiny_docker(["stop", "-t", "100", "web"]).assert().success().stdout("web\n");
    assert!(world.ps().contains("Exited (3)"), "its own exit: {}", world.ps());
    world.tiny_docker(["logs", "web"]).assert().success().stdout("got TERM\n");
    world.remove_all();
    start(&world);
    world.tiny_docker(["kill", "web"]).assert().success();
    assert!(world.ps().contains("Exited (137)"), "killed: {}", world.ps());
    world.remove_all();
    // As Docker's, also another signal lets it go on.
    start(&world);
    world.tiny_docker(["kill", "-s", "USR1", "web"]).assert().success();
    let seen = file(&world, "usr1");
    until("it acts on the signal", || seen.exists());
    world.tiny_docker(["pause", "web"]).assert().success();
    world.tiny_docker(["rm", "-f", "web"]).assert().success();
    // Its supervisor is killed.
    let pid = start(&world);
    kill(common::supervisor(&world, "web"), Signal::SIGKILL).unwrap();
    until("it has ended with its supervisor", || !alive(pid));
    assert!(world.ps().contains("Exited (unknown)"), "nobody has seen its end: {}", world.ps());
    // What was paused in its last life is not paused in the next.
    world.tiny_docker(["start", "web"]).assert().success();
    assert!(!is_paused(&world), "it runs: {}", world.ps());
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_killed_at_any_moment_pause_leaves_what_can_go_on() {
    let world = World::new();
    let id = web(&world, &[], COUNTS);
    let file = file(&world, "count");
    for moment in 1.. {
        assert!(moment < 50, "it never gets to its end");
        let mut command = world.tiny_docker(["pause", "web"]);
        let output = command.env("TINY_DOCKER_DIE_AT", format!("parent:{moment}")).output().unwrap();
        let place = format!("killed at parent:{moment}: {}", said(&output));
        assert!(output.status.success() || output.status.signal() == Some(9), "{place}");
        let asked = fs::read_to_string(cgroup(&id).join("cgroup.freeze")).unwrap() == "1\n";
        assert_eq!(is_paused(&world), asked, "what ps says, {place}");
        if asked {
            world.tiny_docker(["unpause", "web"]).assert().success();
        }
        goes_on(&file);
        if output.status.success() {
            assert!(asked && moment > 2, "it was paused in the end, {place}");
            break;
        }
    }
    world.remove_all();
}

/// `lab/base`: busybox.
fn base(world: &World) {
    let mut layout = Layout::new(world, "layout");
    let layers = [layout.layer(&tar_of(&busybox()), Packed::Gzip)];
    let manifest = layout.image(&layers, json!({"Cmd": ["sh"]}));
    layout.tag("docker.io/lab/base:latest", &manifest);
    let path = world.dir().join("base.tar");
    fs::write(&path, tar_of(&layout.dir)).unwrap();
    let output = world.tiny_docker([Path::new("load"), Path::new("-i"), &path]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

/// `commit`, held up while it is at work on the container.
fn held_up_commit(world: &World, flags: &[&str]) -> std::process::Child {
    let words = [&["--explain", "commit"], flags, &["web"]].concat();
    let output = world.tiny_docker(&words).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let steps: Vec<&str> = told.lines().filter(|line| line.contains("] parent ")).collect();
    let packing =
        steps.iter().position(|line| line.contains("commit-")).unwrap_or(steps.len().saturating_sub(1));
    let at = steps.iter().position(|line| line.contains("poll(cgroup.events")).unwrap_or(packing) + 2;
    let mut command = std::process::Command::new(common::binary());
    command.arg("commit").args(flags).arg("web").current_dir(world.dir());
    command.env("TINY_DOCKER_STOP_AT", format!("parent:{at}")).stdout(Stdio::null());
    let mut commit = command.spawn().unwrap();
    let pid = Pid::from_raw(commit.id() as i32);
    until("commit is held up", || {
        assert_eq!(commit.try_wait().unwrap(), None, "it ended before it was held up; it does: {told}");
        state(pid) == 'T'
    });
    commit
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_long_commit_holds_the_container_up_meanwhile() {
    let world = World::new();
    base(&world);
    let words = ["run", "-d", "--net", "none", "--name", "web", "--image", "lab/base", "sh", "-c", COUNTS];
    world.tiny_docker(words).assert().success();
    let file = file(&world, "count");
    goes_on(&file);
    let mut commit = held_up_commit(&world, &[]);
    assert!(is_paused(&world), "while an image is made of it: {}", world.ps());
    let pid = Pid::from_raw(commit.id() as i32);
    assert_eq!(children_of(pid.as_raw()).len(), 1, "the guard of what is paused");
    kill(pid, Signal::SIGCONT).unwrap();
    assert!(commit.wait().unwrap().success(), "the image is made");
    assert!(!is_paused(&world), "once the image is made: {}", world.ps());
    goes_on(&file);
    // Whoever is killed in the middle of it does not leave it paused.
    let mut commit = held_up_commit(&world, &[]);
    assert!(is_paused(&world), "while an image is made of it: {}", world.ps());
    commit.kill().unwrap();
    commit.wait().unwrap();
    until("it goes on by itself", || !is_paused(&world));
    goes_on(&file);
    // One that somebody has paused stays so.
    world.tiny_docker(["pause", "web"]).assert().success();
    world.tiny_docker(["commit", "web"]).assert().success();
    assert!(is_paused(&world), "it was paused before: {}", world.ps());
    world.tiny_docker(["unpause", "web"]).assert().success();
    world.tiny_docker(["commit", "--pause=maybe", "web"]).assert().failure().stderr(contains("maybe"));
    let told = world.tiny_docker(["--explain", "commit", "--pause=false", "web"]).output().unwrap();
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(!told.contains("cgroup.freeze"), "nobody asked for a pause: {told}");
    world.remove_all();
}
