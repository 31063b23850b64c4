//! Day 14: a command in a container that runs.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;

use assert_cmd::assert::Assert;
use common::{AtTerminal, World, alive, asleep, busybox, descendants, nobody_is_left, said, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use predicates::prelude::*;
use predicates::str::{contains, is_empty};

/// A container called web, which does nothing until it is removed.
fn web(world: &World, flags: &[&str]) {
    web_on(world, &busybox(), flags);
}

fn web_on(world: &World, rootfs: &Path, flags: &[&str]) {
    let words = ["run", "-d", "--net", "none", "--name", "web", "--rootfs", rootfs.to_str().unwrap()];
    world.tiny_docker([&words[..], flags, &["sleep", "1000"]].concat()).assert().success();
}

fn exec(world: &World, flags: &[&str], command: &[&str]) -> Assert {
    world.tiny_docker([&["exec"], flags, &["web"], command].concat()).assert()
}

/// The container's process, seen from here.
fn its_process(world: &World) -> Pid {
    common::pid(world, "web")
}

/// Processes in the container's pid namespace, seen from here.
fn inside(world: &World) -> Vec<Pid> {
    let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let its = namespace(its_process(world).as_raw());
    assert!(its.is_some(), "the container's process has a pid namespace");
    descendants().into_iter().filter(|pid| namespace(*pid) == its).map(Pid::from_raw).collect()
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_the_command_is_in_the_containers_namespaces() {
    let world = World::new();
    web(&world, &["--hostname", "box"]);
    let script = "for kind in cgroup ipc mnt net pid uts; do \
        [ $(readlink /proc/1/ns/$kind) = $(readlink /proc/self/ns/$kind) ] || echo another $kind; done; \
        hostname; cat /proc/1/cmdline | tr '\\0' ' '";
    let script = script.replace("| tr '\\0' ' '", "");
    exec(&world, &[], &["sh", "-c", &script]).success().stdout("box\nsleep\x001000\0").stderr(is_empty());
    // And the host's are none of them.
    let own = fs::read_link("/proc/self/ns/mnt").unwrap();
    exec(&world, &[], &["readlink", "/proc/self/ns/mnt"])
        .success()
        .stdout(contains(own.to_str().unwrap()).not());
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_exit_codes_are_those_of_the_command() {
    let world = World::new();
    web(&world, &[]);
    for (command, code) in [
        (&["true"][..], 0),
        (&["sh", "-c", "exit 7"], 7),
        (&["sh", "-c", "kill -9 $$"], 137),
        (&["sh", "-c", "kill -TERM $$"], 143),
        (&["nosuch"], 127),
        (&["/bin/nosuch"], 127),
        (&["/etc"], 126),
        (&["/etc/passwd"], 126),
    ] {
        let output = world.tiny_docker([&["exec", "web"], command].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{command:?}: {}", said(&output));
    }
    exec(&world, &["-w", "/nosuch"], &["true"]).code(126).stderr(contains("/nosuch"));
    exec(&world, &["-w", "tmp"], &["true"]).code(1).stderr(contains("not an absolute path"));
    exec(&world, &["-u", "nobodyatall"], &["true"]).code(126).stderr(contains("no user"));
    exec(&world, &["-e", "=x"], &["true"]).code(1).stderr(contains("NAME=VALUE"));
    // The container did not notice any of it.
    world.tiny_docker(["ps"]).assert().stdout(contains("Up "));
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_only_a_container_that_runs_can_be_entered() {
    let world = World::new();
    world.tiny_docker(["exec", "web", "true"]).assert().code(1).stderr(contains("no such container"));
    let rootfs = busybox();
    let words = ["run", "--net", "none", "--name", "web", "--rootfs", rootfs.to_str().unwrap(), "true"];
    world.tiny_docker(words).assert().success();
    exec(&world, &[], &["true"]).code(1).stderr(contains("is not running"));
    exec(&world, &["-d"], &["true"]).code(1).stderr(contains("is not running"));
    world.remove_all();
    // Killed, and nobody has seen it end.
    web(&world, &[]);
    let runtime = common::supervisor(&world, "web");
    let process = its_process(&world);
    kill(runtime, Signal::SIGKILL).unwrap();
    until("it is gone", || !alive(process));
    exec(&world, &[], &["true"]).code(1).stderr(contains("is not running"));
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_nobody_enters_what_is_not_yet_a_container() {
    let world = World::new();
    // Its first process still is the runtime, with all of the host in sight.
    let rootfs = busybox();
    let words = ["run", "--net", "none", "--name", "web", "--rootfs", rootfs.to_str().unwrap()];
    let words = [&words[..], &["sleep", "1000"]].concat();
    let mut run = world.start_with([("TINY_DOCKER_HANG_AT", "child:3")], words);
    until("ps says that it runs", || world.ps().contains("Up "));
    let mut entered = world.start(["exec", "web", "cat", "/etc/passwd"]);
    until("exec waits", || {
        assert!(alive(entered.runtime()), "exec does not wait until there is a container to enter");
        asleep(entered.runtime()).as_deref() == Some("tiny-docker")
    });
    world.tiny_docker(["rm", "-f", "web"]).assert().success();
    assert_eq!(entered.rest(), "", "what exec has shown of the host");
    assert_eq!(entered.ended(), 1, "there was no container to enter");
    assert_ne!(run.ended(), 0, "the run of a container that is removed by force");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_user_environment_and_directory_are_the_containers() {
    let world = World::new();
    web(&world, &["-u", "app", "-w", "/tmp", "-e", "A=container", "-e", "B=container"]);
    let script = "id -u; id -g; pwd; echo $A $B $C $HOME $HOSTNAME".replace("id -u; id -g; ", "");
    let ids = "grep -E '^(Uid|Gid):' /proc/self/status";
    exec(&world, &["-e", "B=exec", "-e", "C=exec"], &["sh", "-c", &script])
        .success()
        .stdout("/tmp\ncontainer exec exec /home/app tiny-container\n");
    exec(&world, &[], &["sh", "-c", ids])
        .success()
        .stdout("Uid:\t1000\t1000\t1000\t1000\nGid:\t1000\t1000\t1000\t1000\n");
    exec(&world, &["-u", "0", "-w", "/etc"], &["sh", "-c", "pwd; echo $HOME; echo $A"])
        .success()
        .stdout("/etc\n/root\ncontainer\n");
    exec(&world, &["-u", "4711:42"], &["sh", "-c", ids])
        .success()
        .stdout("Uid:\t4711\t4711\t4711\t4711\nGid:\t42\t42\t42\t42\n");
    // A name alone takes the host's value; and the host's own are not the container's.
    let mut command = world.tiny_docker(["exec", "-e", "TOKEN", "web", "sh", "-c", "echo $TOKEN $SECRET"]);
    command.env("TOKEN", "mine").env("SECRET", "host").assert().success().stdout("mine\n");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_streams_pass_through_byte_by_byte() {
    let world = World::new();
    web(&world, &[]);
    let bytes: Vec<u8> = (0..=255u8).cycle().take(300_000).collect();
    let mut command = world.tiny_docker(["exec", "-i", "web", "cat"]);
    let output = command.write_stdin(bytes.clone()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let count = output.stdout.len();
    assert!(output.status.success() && output.stdout == bytes, "{count} bytes came back; stderr: {errors}");
    // Without -i nothing of our stdin is read: a loop of a script reads its own lines.
    world
        .called_by("printf 'one\\ntwo\\n' | while read word; do \"$0\" exec web cat; echo $word; done")
        .assert()
        .success()
        .stdout("one\ntwo\n");
    exec(&world, &[], &["sh", "-c", "echo out; echo err >&2"]).success().stdout("out\n").stderr("err\n");
    // Whoever reads no further ends the command, as it would without us.
    world.called_by("\"$0\" exec web yes | head -n 1").assert().success().stdout("y\n");
    // It is no part of the container's log.
    world.tiny_docker(["logs", "web"]).assert().success().stdout(is_empty());
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_a_terminal_is_one_to_work_at() {
    let world = World::new();
    web(&world, &[]);
    let mut user = AtTerminal::start(["exec", "-it", "web", "sh"]);
    user.types("stty size; echo $((6*7))\r");
    user.shows("33 111\r\n42\r\n");
    assert!(!user.echoes(), "raw mode: the container's terminal echoes, and not ours as well");
    user.types("sh -c 'echo going; exec sleep 1000'\r");
    user.shows("going\r\n");
    user.types("\x03");
    user.types("echo still $((40+2))\r");
    user.shows("still 42\r\n");
    user.resize(50, 120);
    user.types("stty size\r");
    user.shows("50 120\r\n");
    user.types("exit 5\r");
    assert_eq!(user.ended(), 5, "exec ends as its command");
    assert!(user.echoes(), "the terminal is given back");
    let words = world.tiny_docker(["exec", "-it", "web", "true"]).output().unwrap();
    assert!(words.status.code() == Some(1), "stdin is no terminal: {}", said(&words));
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_without_t_the_users_terminal_stays_the_users() {
    let world = World::new();
    web(&world, &[]);
    // Neither by a descriptor nor by its name: whoever holds a terminal can type into it.
    let script = "for fd in 0 1 2; do [ -t $fd ] && echo terminal $fd; done; \
        (: </dev/tty) 2>/dev/null && echo has /dev/tty; read line; echo got $line; echo over >&2; exit 4";
    let mut user = AtTerminal::start(["exec", "-i", "web", "sh", "-c", script]);
    user.types("hello\r");
    user.shows("got hello");
    user.shows("over");
    assert_eq!(user.ended(), 4, "exec ends as its command");
    let screen = format!("{:?}", user.screen());
    assert!(
        !screen.contains("terminal") && !screen.contains("has"),
        "it holds the user's terminal: {screen}"
    );
    // Ctrl-D is the end of what is typed.
    let mut user = AtTerminal::start(["exec", "-i", "web", "cat"]);
    user.types("hello\r");
    user.shows("hello\r\nhello");
    user.types("\x04");
    assert_eq!(user.ended(), 0, "the end of the typing is the end of its stdin");
    // And Ctrl-C reaches it.
    let mut user = AtTerminal::start(["exec", "web", "sh", "-c", "echo going; exec sleep 1000"]);
    user.shows("going");
    user.types("\x03");
    assert_eq!(user.ended(), 130, "Ctrl-C ends it");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_signals_are_passed_on() {
    let world = World::new();
    web(&world, &[]);
    let script = "trap 'echo got it; exit 3' TERM; echo ready; while :; do sleep 0.1; done";
    let mut entered = world.start(["exec", "web", "sh", "-c", script]);
    assert_eq!(entered.line(), "ready", "the first line of the command");
    // The line comes from the command itself: who started it may not have heard yet that it runs.
    // Then it lets go of its stdout.
    let stdout = format!("/proc/{}/fd/1", entered.runtime());
    until("exec knows that it runs", || {
        fs::read_link(&stdout).is_ok_and(|file| file == Path::new("/dev/null"))
    });
    entered.signal_runtime(Signal::SIGTERM);
    assert_eq!(entered.line(), "got it", "the signal has reached it");
    assert_eq!(entered.ended(), 3, "exec ends as its command");
    // One that is killed takes its command along, and not the container.
    let mut entered = world.start(["exec", "web", "sh", "-c", "echo ready; exec sleep 1000"]);
    assert_eq!(entered.line(), "ready", "the first line of the command");
    entered.ends_with_its_runtime();
    // An orphan whose parent was outside: its new parent is this test.
    common::reap_orphans();
    world.tiny_docker(["ps"]).assert().stdout(contains("Up "));
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_it_ends_with_its_container() {
    let world = World::new();
    web(&world, &[]);
    let mut entered = world.start(["exec", "web", "sh", "-c", "echo ready; exec sleep 1000"]);
    assert_eq!(entered.line(), "ready", "the first line of the command");
    exec(&world, &["-d"], &["sleep", "1000"]).success();
    world.tiny_docker(["rm", "-f", "web"]).assert().success();
    assert_eq!(entered.ended(), 137, "the kernel has killed it");
    until("nobody is left", nobody_is_left);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_in_the_background_it_says_nothing_and_goes_on() {
    let world = World::new();
    web(&world, &[]);
    let script = "echo out; echo err >&2; sleep 1000";
    exec(&world, &["-d"], &["sh", "-c", script]).success().stdout(is_empty()).stderr(is_empty());
    exec(&world, &[], &["ps"]).success().stdout(contains("sleep 1000").count(2));
    // What cannot start is told to whoever asked for it.
    exec(&world, &["-d"], &["nosuch"]).code(127).stderr(contains("nosuch"));
    // One that has ended leaves nobody behind.
    exec(&world, &["-d"], &["true"]).success();
    let zombies = "grep -l '^State:.Z' /proc/[0-9]*/status; true";
    exec(&world, &[], &["sh", "-c", zombies]).success().stdout(is_empty());
    exec(&world, &["-dt"], &["sh", "-c", "echo drawn; sleep 2000"]).success().stdout(is_empty());
    exec(&world, &[], &["ps"]).success().stdout(contains("sleep 2000"));
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_it_is_born_within_the_containers_limits() {
    let world = World::new();
    web(&world, &["--pids-limit", "4"]);
    // One of them is its own.
    for _ in 0..3 {
        exec(&world, &["-d"], &["sleep", "1000"]).success();
    }
    exec(&world, &[], &["true"])
        .code(126)
        .stderr(contains("CLONE_INTO_CGROUP").and(contains("temporarily unavailable")));
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_killed_at_any_moment_it_leaves_the_container_alone() {
    let world = World::new();
    web(&world, &[]);
    let its = its_process(&world);
    let mut moments = 0;
    for who in ["parent", "child"] {
        for moment in 1.. {
            assert!(moment < 100, "it never gets to its end");
            let mut command = world.tiny_docker(["exec", "web", "sh", "-c", "exit 7"]);
            let output = command.env("TINY_DOCKER_DIE_AT", format!("{who}:{moment}")).output().unwrap();
            if output.status.code() == Some(7) {
                break;
            }
            moments += 1;
            until("nobody but the container is left inside", || {
                common::reap_orphans();
                inside(&world) == [its]
            });
            assert!(alive(its), "killed at {who}:{moment}, it took the container along: {}", said(&output));
            exec(&world, &[], &["true"]).success();
        }
    }
    assert!(moments > 10, "only {moments} moments were tried");
    world.remove_all();
}
