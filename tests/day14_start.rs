//! Day 14: a container that is made first and started later, and one that runs once more.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use common::{AtTerminal, World, alive, busybox, said, until};
use nix::sys::signal::Signal;
use predicates::str::{contains, is_empty, is_match};
use serde_json::Value;

/// `verb`, which is run or create, with `flags`, of a container called web.
fn words(verb: &str, flags: &[&str], script: &str) -> Vec<String> {
    let rootfs = busybox();
    let words = [verb, "--net", "none", "--name", "web", "--layer", rootfs.to_str().unwrap()];
    [&words[..], flags, &["sh", "-c", script]].concat().into_iter().map(String::from).collect()
}

/// What is on the disk of the container web.
fn record(world: &World) -> Value {
    let id = world.inspect("web")["id"].as_str().unwrap().to_string();
    let text = fs::read(world.containers().join(id).join("config.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// The same, without what changes from one life to the next.
fn plan(world: &World) -> Value {
    let mut record = record(world);
    let object = record.as_object_mut().unwrap();
    for name in [
        "status",
        "pid",
        "start_time",
        "started_at",
        "boot_id",
        "exit_code",
        "finished_at",
        "oom_killed",
        "owner",
        "pid_namespace",
        "address",
        "reason",
        "signal",
    ] {
        object.remove(name);
    }
    record
}

fn layer(world: &World) -> PathBuf {
    let id = world.inspect("web")["id"].as_str().unwrap().to_string();
    world.containers().join(id).join("layer/upper")
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_start_a_of_one_that_runs_attaches_to_it() {
    let world = World::new();
    let script = "until test -e /tmp/go; do echo tick; sleep 0.05; done; exit 5";
    world.tiny_docker(words("run", &["-d"], script)).assert().success();
    let mut attached = world.start(["start", "-a", "web"]);
    assert_eq!(attached.line(), "tick", "what it writes is shown");
    // It ends because of that, maybe before `exec` has.
    let touched = world.tiny_docker(["exec", "web", "touch", "/tmp/go"]).output().unwrap();
    assert!(matches!(touched.status.code(), Some(0 | 137)), "exec touch: {}", said(&touched));
    assert_eq!(attached.ended(), 5, "what it exited with");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_create_makes_it_and_start_runs_it() {
    let world = World::new();
    let id = is_match("^[0-9a-f]{12}\n$").unwrap();
    world.tiny_docker(words("create", &[], "echo hello; exit 3")).assert().success().stdout(id);
    world.tiny_docker(["ps", "-a"]).assert().success().stdout(contains("Created"));
    world.tiny_docker(["ps", "-q"]).assert().success().stdout(is_empty());
    // Nobody forgets it, although nobody looks after it.
    world.tiny_docker(["inspect", "web"]).assert().success().stdout(contains("\"created\""));
    let again = world.tiny_docker(words("create", &[], "true")).output().unwrap();
    assert_eq!(again.status.code(), Some(125), "the name is taken: {}", said(&again));
    world.tiny_docker(["start", "-a", "web"]).assert().code(3).stdout("hello\n");
    world.tiny_docker(["ps", "-a"]).assert().success().stdout(contains("Exited (3)"));
    world.tiny_docker(["rm", "web"]).assert().success();
    // One that was never started is removed like any other.
    world.tiny_docker(words("create", &[], "true")).assert().success();
    world.tiny_docker(["rm", "web"]).assert().success();
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_what_it_wrote_is_there_when_it_runs_again() {
    let world = World::new();
    let script = "echo life >>/lives; cat /lives; echo said";
    world.tiny_docker(words("run", &[], script)).assert().success().stdout("life\nsaid\n");
    world.tiny_docker(["start", "-a", "web"]).assert().success().stdout("life\nlife\nsaid\n");
    world.tiny_docker(["start", "-a", "web"]).assert().success().stdout("life\nlife\nlife\nsaid\n");
    assert_eq!(fs::read_to_string(layer(&world).join("lives")).unwrap(), "life\n".repeat(3), "its layer");
    // Its log has all of its lives.
    world.tiny_docker(["logs", "web"]).assert().success().stdout(contains("said").count(3));
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_all_that_it_is_to_be_it_is_again() {
    let world = World::new();
    let flags = [
        "--hostname",
        "box",
        "-u",
        "app",
        "-w",
        "/tmp",
        "-e",
        "A=a b=c",
        "-e",
        "EMPTY=",
        "--tmpfs",
        "/mnt:size=1m",
        "-v",
        "data:/srv",
        "-v",
        "/anonymous",
        "--read-only",
        "--init",
        "--label",
        "team=web",
    ];
    let script = "hostname; id -un; pwd; echo $A; [ ${EMPTY+x} ] && echo empty; grep -v overlay /proc/mounts; touch /x";
    let first = world.tiny_docker(words("run", &flags, script)).output().unwrap();
    let before = plan(&world);
    let second = world.tiny_docker(["start", "-a", "web"]).output().unwrap();
    assert_eq!(said(&first), said(&second), "what it sees, the second time");
    assert!(
        String::from_utf8_lossy(&first.stdout).starts_with("box\napp\n/tmp\na b=c\nempty\n"),
        "{}",
        said(&first)
    );
    assert_eq!(before, plan(&world), "its record, the second time");
    world.remove_all();
    world.tiny_docker(["volume", "rm", "data"]).assert().success();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_in_the_background_start_returns_when_it_runs() {
    let world = World::new();
    world.tiny_docker(words("create", &[], "echo up; exec sleep 1000")).assert().success();
    world.tiny_docker(["start", "web"]).assert().success().stdout("web\n");
    world.tiny_docker(["ps"]).assert().success().stdout(contains("Up "));
    let first = common::pid(&world, "web");
    // It runs already: that is what was asked for.
    world.tiny_docker(["start", "web"]).assert().success().stdout("web\n");
    assert_eq!(common::pid(&world, "web"), first, "the process of a container that runs already");
    world.tiny_docker(["restart", "-t", "0", "web"]).assert().success().stdout("web\n");
    until("the first process is gone", || !alive(first));
    assert_ne!(common::pid(&world, "web"), first, "the process after the restart");
    world.tiny_docker(["exec", "web", "true"]).assert().success();
    until("it has spoken twice", || {
        let logs = world.tiny_docker(["logs", "web"]).output().unwrap();
        logs.stdout == b"up\nup\n"
    });
    // What the last end was is not said of the life that is.
    assert_eq!(world.inspect("web")["exit_code"], Value::Null, "the exit code of one that runs");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_several_are_started_at_once() {
    let world = World::new();
    let rootfs = busybox();
    for name in ["one", "two"] {
        let words =
            ["create", "--net", "none", "--name", name, "--layer", rootfs.to_str().unwrap(), "sleep", "1000"];
        world.tiny_docker(words).assert().success();
    }
    world
        .tiny_docker(["start", "one", "nosuch", "two"])
        .assert()
        .code(1)
        .stdout("one\ntwo\n")
        .stderr(contains("nosuch"));
    world.tiny_docker(["ps"]).assert().success().stdout(contains("Up ").count(2));
    world.tiny_docker(["restart", "-t", "0", "one", "two"]).assert().success();
    world.tiny_docker(["ps"]).assert().success().stdout(contains("Up ").count(2));
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_one_that_cannot_start_stays_as_it_was() {
    let world = World::new();
    let rootfs = world.copy_of_rootfs("rootfs");
    let words =
        ["run", "--net", "none", "--name", "web", "-v", "/data", "--rootfs", rootfs.to_str().unwrap()];
    let script = ["sh", "-c", "echo mine >>/data/file; exit 5"];
    world.tiny_docker([&words[..], &script[..]].concat()).assert().code(5);
    let before = record(&world);
    // The same container, and nothing to start it from.
    fs::rename(&rootfs, world.dir().join("elsewhere")).unwrap();
    world.tiny_docker(["start", "web"]).assert().code(1).stderr(contains("rootfs"));
    fs::create_dir(&rootfs).unwrap();
    let output = world.tiny_docker(["start", "-a", "web"]).output().unwrap();
    assert_ne!(output.status.code(), Some(5), "there is no shell: {}", said(&output));
    assert_eq!(record(&world), before, "its record after two starts that failed");
    fs::remove_dir_all(&rootfs).unwrap();
    fs::rename(world.dir().join("elsewhere"), &rootfs).unwrap();
    // What it wrote to its volume is still there.
    world.tiny_docker(["start", "-a", "web"]).assert().code(5);
    let volume = world.inspect("web")["mounts"][0]["source"].as_str().unwrap().to_string();
    assert_eq!(fs::read_to_string(PathBuf::from(volume).join("file")).unwrap(), "mine\nmine\n", "its volume");
    world.tiny_docker(["rm", "-v", "web"]).assert().success();
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_long_killed_at_any_moment_of_its_start_it_can_be_started() {
    let world = World::new();
    world.tiny_docker(words("create", &[], "exit 7")).assert().success();
    let before = plan(&world);
    let mut moments = 0;
    for who in ["parent", "child"] {
        for moment in 1.. {
            assert!(moment < 200, "it never gets to its end");
            let mut command = world.tiny_docker(["start", "-a", "web"]);
            let output = command.env("TINY_DOCKER_DIE_AT", format!("{who}:{moment}")).output().unwrap();
            until("nobody is left", || {
                common::descendants().iter().all(|pid| !alive(nix::unistd::Pid::from_raw(*pid)))
            });
            let place = format!("killed at {who}:{moment}: {}", said(&output));
            assert_ne!(output.status.code(), Some(101), "it panics, {place}");
            let ps = world.ps();
            assert!(ps.contains("web") && !ps.contains("Up "), "{place}: {ps}");
            assert_eq!(plan(&world), before, "{place}");
            if output.status.code() == Some(7) {
                break;
            }
            moments += 1;
        }
    }
    assert!(moments > 20, "only {moments} moments were tried");
    world.tiny_docker(["start", "-a", "web"]).assert().code(7);
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_create_that_is_killed_leaves_nothing_half_made() {
    let world = World::new();
    for moment in 1.. {
        assert!(moment < 100, "it never gets to its end");
        let mut command = world.tiny_docker(words("create", &["-v", "/data"], "exit 7"));
        let output = command.env("TINY_DOCKER_DIE_AT", format!("parent:{moment}")).output().unwrap();
        let ps = world.ps();
        if output.status.success() {
            assert!(ps.contains("Created"), "{ps}");
            break;
        }
        // It is there as a whole, or not at all.
        if ps.contains("web") {
            world.tiny_docker(["start", "-a", "web"]).assert().code(7);
        }
        world.remove_all();
    }
    world.tiny_docker(["start", "-a", "web"]).assert().code(7);
    world.tiny_docker(["rm", "-v", "web"]).assert().success();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_attach_is_once_more_at_the_terminal() {
    let world = World::new();
    world.tiny_docker(words("create", &["-it"], "exec sh")).assert().success();
    world.tiny_docker(["start", "web"]).assert().success();
    for life in ["first", "second"] {
        let mut user = AtTerminal::start(["attach", "web"]);
        until("the terminal is raw", || !user.echoes());
        user.types(&format!("stty size; echo {life} $((6*7))\r"));
        user.shows("33 111\r\n");
        user.shows(&format!("{life} 42\r\n"));
        // In two pieces, as fingers do it.
        user.types("\x10");
        user.types("\x11");
        assert_eq!(user.ended(), 0, "ctrl-p ctrl-q leaves it");
        until("the terminal is given back", || user.echoes());
    }
    world.tiny_docker(["ps"]).assert().success().stdout(contains("Up "));
    let mut user = AtTerminal::start(["attach", "--detach-keys", "x,y", "web"]);
    until("the terminal is raw", || !user.echoes());
    // Half of the keys is no key to leave by, and what is typed arrives.
    user.types("echo 1x2 $((6*7))\r");
    user.shows("1x2 42\r\n");
    user.types("exit 5\r");
    assert_eq!(user.ended(), 5, "attach ends as the container does");
    world.tiny_docker(["attach", "web"]).assert().code(1).stderr(contains("is not running"));
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_attach_shows_what_comes_and_passes_on_what_is_typed() {
    let world = World::new();
    let script = "trap 'echo got TERM; exit 3' TERM; echo before; \
        while read line; do echo got $line; [ $line = end ] && exit 4; done; echo no more";
    world.tiny_docker(words("run", &["-d", "-i"], script)).assert().success();
    let logs = || world.tiny_docker(["logs", "web"]).assert().success().get_output().stdout.clone();
    until("it has spoken", || logs() == b"before\n");
    let mut attached = world.start(["attach", "web"]);
    let mut stdin = attached.stdin();
    stdin.write_all(b"one\n").unwrap();
    // Nothing of what was there before.
    assert_eq!(attached.line(), "got one", "what comes once it is attached");
    // Whoever is killed takes nothing along.
    attached.signal_runtime(Signal::SIGKILL);
    assert_eq!(attached.ended(), -9);
    world.tiny_docker(["ps"]).assert().success().stdout(contains("Up "));
    let mut attached = world.start(["attach", "web"]);
    attached.stdin().write_all(b"end\n").unwrap();
    assert_eq!(attached.line(), "got end", "what comes once it is attached");
    assert_eq!(attached.ended(), 4, "attach ends as the container does");
    world.remove_all();
}
