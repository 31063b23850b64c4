//! Day 14: a container that has ended is started again, unless a person has ended it.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::random::Dice;
use common::{World, alive, busybox, descendants, nobody_is_left, reap_orphans, said, supervisor, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use predicates::str::{contains, is_empty};
use serde_json::Value;

/// `run` with `flags`, of a container called `name`.
fn words(name: &str, flags: &[&str], script: &str) -> Vec<String> {
    let rootfs = busybox();
    let words = ["run", "--net", "none", "--name", name, "--rootfs", rootfs.to_str().unwrap()];
    [&words[..], flags, &["sh", "-c", script]].concat().into_iter().map(String::from).collect()
}

fn always(world: &World, name: &str, script: &str) {
    world.tiny_docker(words(name, &["-d", "--restart", "always"], script)).assert().success();
}

fn status(world: &World, name: &str) -> String {
    world.inspect(name)["status"].as_str().unwrap().to_string()
}

/// The container's process, once it has another than `before`.
fn next_process(world: &World, name: &str, before: Option<Pid>) -> Pid {
    let mut found = None;
    until("it is started again", || {
        let record = world.inspect(name);
        found = record["pid"].as_i64().map(|pid| Pid::from_raw(pid as i32));
        record["status"] == "running" && found.is_some() && found != before
    });
    found.unwrap()
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_it_is_started_again_whatever_it_exits_with() {
    let world = World::new();
    for (name, script, code) in [("ok", "echo life", 0), ("fails", "echo life; exit 3", 3)] {
        always(&world, name, script);
        let expected = format!("Restarting ({code}) ");
        until("ps says that it is about to be started again", || world.ps().contains(&expected));
        // It is what it should be: so it is among those that run.
        world.tiny_docker(["ps"]).assert().success().stdout(contains(name));
        until("it has had four lives", || world.inspect(name)["restart_count"].as_u64() >= Some(3));
        let logs = world.tiny_docker(["logs", name]).output().unwrap();
        assert!(logs.stdout.starts_with(b"life\nlife\nlife\n"), "its log: {}", said(&logs));
        assert_eq!(world.inspect(name)["restart"], "always", "inspect says the policy");
        world.tiny_docker(["stop", name]).assert().success();
    }
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_on_failure_is_for_failures_and_may_be_counted() {
    let world = World::new();
    for (policy, script, lives, code) in [
        ("on-failure:2", "echo life; exit 4", 3, 4),
        ("on-failure:2", "echo life", 1, 0),
        ("on-failure", "echo life", 1, 0),
    ] {
        let output = world.tiny_docker(words("web", &["--restart", policy], script)).output().unwrap();
        let expected = "life\n".repeat(lives);
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{policy}: {}", said(&output));
        assert_eq!(output.status.code(), Some(code), "{policy}: {}", said(&output));
        assert_eq!(world.inspect("web")["restart_count"], lives - 1, "{policy}: its restarts");
        assert_eq!(status(&world, "web"), "exited", "{policy}");
        world.tiny_docker(["rm", "web"]).assert().success();
    }
    // As often as it happens: a person has to end it, here by a signal to what looks after it.
    let mut running = world.start(words("web", &["--restart", "on-failure"], "echo life; exit 5"));
    for life in 1..5 {
        assert_eq!(running.line(), "life", "life {life}");
    }
    running.signal_runtime(Signal::SIGTERM);
    assert!(matches!(running.ended(), 5 | 143), "SIGTERM ends it");
    assert_eq!(status(&world, "web"), "exited", "after SIGTERM");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_what_is_no_policy_is_said_and_nothing_is_made() {
    let world = World::new();
    for (policy, expected) in [
        ("sometimes", "expected no, on-failure"),
        ("always:3", "only on-failure takes a number"),
        ("on-failure:x", "expected how often at most"),
        ("on-failure:-1", "expected how often at most"),
        ("on-failure:", "expected how often at most"),
        ("", "expected no, on-failure"),
    ] {
        let flag = format!("--restart={policy}");
        let output = world.tiny_docker(words("web", &[&flag], "true")).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(expected), "{flag}: {}", said(&output));
    }
    world
        .tiny_docker(words("web", &["--restart", "always", "--rm"], "true"))
        .assert()
        .code(125)
        .stderr(contains("cannot specify both --restart and --rm"));
    world.tiny_docker(words("web", &["--restart", "no", "--rm"], "exit 3")).assert().code(3);
    // What cannot start at all is an error of run, and is not tried again.
    let no_command = [&words("web", &["--restart", "always"], "")[..9], &["nosuch".to_string()]].concat();
    world.tiny_docker(no_command).assert().code(127);
    world.tiny_docker(["ps", "-aq"]).assert().success().stdout(is_empty());
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_what_a_person_has_ended_stays_ended() {
    let world = World::new();
    for end in [&["stop", "-t", "0"][..], &["kill"], &["kill", "-s", "TERM"]] {
        always(&world, "web", "trap 'exit 9' TERM; while :; do sleep 0.1; done");
        world.tiny_docker(["exec", "web", "true"]).assert().success();
        world.tiny_docker([end, &["web"]].concat()).assert().success();
        until("nobody looks after it any more", nobody_is_left);
        assert_eq!(status(&world, "web"), "exited", "after {end:?}");
        assert_eq!(world.inspect("web")["restart_count"], 0, "after {end:?}");
        // That holds up to the next start, and no longer.
        world.tiny_docker(["start", "web"]).assert().success();
        let first = next_process(&world, "web", None);
        kill(first, Signal::SIGKILL).unwrap();
        next_process(&world, "web", Some(first));
        world.tiny_docker(["rm", "-f", "web"]).assert().success();
        until("nobody is left", nobody_is_left);
    }
    // A signal that means something else to it is none that ends it.
    always(&world, "web", "trap 'echo reads its settings' HUP; echo up; while :; do sleep 0.1; done");
    until("it is up", || world.tiny_docker(["logs", "web"]).output().unwrap().stdout == b"up\n");
    world.tiny_docker(["kill", "-s", "HUP", "web"]).assert().success();
    let first = common::pid(&world, "web");
    kill(first, Signal::SIGKILL).unwrap();
    next_process(&world, "web", Some(first));
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_one_that_is_restarted_by_hand_looks_after_itself_again() {
    let world = World::new();
    always(&world, "web", "exec sleep 1000");
    let first = common::pid(&world, "web");
    world.tiny_docker(["restart", "-t", "0", "web"]).assert().success().stdout("web\n");
    let second = next_process(&world, "web", Some(first));
    kill(second, Signal::SIGKILL).unwrap();
    next_process(&world, "web", Some(second));
    assert_eq!(world.inspect("web")["restart_count"], 1, "restarts since a person started it");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_one_that_waits_can_be_removed_and_stopped() {
    let world = World::new();
    for end in [&["rm", "-f"][..], &["stop"], &["kill"]] {
        always(&world, "web", "exit 3");
        until("it waits", || status(&world, "web") == "restarting");
        // By then it may run, for a moment: then it is refused as one that runs.
        let refused = world.tiny_docker(["rm", "web"]).output().unwrap();
        assert_eq!(refused.status.code(), Some(1), "rm of one that is to run: {}", said(&refused));
        world.tiny_docker([end, &["web"]].concat()).assert().success();
        until("nobody looks after it any more", nobody_is_left);
        let ps = world.ps();
        // With its own code, or by the signal if it ran at that moment.
        assert_eq!(ps.contains("Exited ("), end[0] != "rm", "after {end:?}: {ps}");
        world.remove_all();
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_long_one_that_waits_is_woken() {
    let world = World::new();
    always(&world, "web", "exit 3");
    // It waits for 12.8 s now: longer than stop has patience with it.
    until("it has waited seven times", || world.inspect("web")["restart_count"].as_u64() == Some(8));
    world.tiny_docker(["stop", "web"]).assert().success();
    assert_eq!(status(&world, "web"), "exited", "after stop");
    until("nobody looks after it any more", nobody_is_left);
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_long_one_that_waits_is_started_at_once_by_a_person() {
    let world = World::new();
    let rootfs = world.copy_of_rootfs("rootfs");
    let script = "[ -e /tmp/go ] || exit 3; exec sleep 1000";
    let mut words = words("web", &["-d", "--restart", "always"], script);
    let at = words.iter().position(|word| word == "--rootfs").unwrap();
    words[at + 1] = rootfs.to_str().unwrap().into();
    world.tiny_docker(words).assert().success();
    // It is woken, and fails as before: that was a life, and it waits again.
    until("it has waited five times", || world.inspect("web")["restart_count"].as_u64() == Some(6));
    world.tiny_docker(["start", "web"]).assert().success().stdout("web\n");
    until("it has failed once more", || world.inspect("web")["restart_count"].as_u64() == Some(7));
    // It waits for 6.4 s, and then for 12.8 s: longer than start has patience with it.
    until("it has waited once more", || world.inspect("web")["restart_count"].as_u64() == Some(8));
    std::fs::write(rootfs.join("tmp/go"), "").unwrap();
    world.tiny_docker(["start", "web"]).assert().success().stdout("web\n");
    let first = common::pid(&world, "web");
    assert_eq!(world.inspect("web")["restart_count"], 8, "the same process looks after it");
    // And still does. To start one that runs is nothing.
    kill(first, Signal::SIGKILL).unwrap();
    next_process(&world, "web", Some(first));
    world.tiny_docker(["start", "web"]).assert().success().stdout("web\n");
    // A person who stops it and starts it means what came last.
    world.tiny_docker(["stop", "-t", "0", "web"]).assert().success();
    world.tiny_docker(["start", "web"]).assert().success().stdout("web\n");
    common::pid(&world, "web");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_without_its_supervisor_it_is_what_it_is() {
    let world = World::new();
    always(&world, "runs", "exec sleep 1000");
    let its = supervisor(&world, "runs");
    kill(its, Signal::SIGKILL).unwrap();
    until("it has ended with it", nobody_is_left);
    assert!(world.ps().contains("Exited (unknown)"), "nobody saw its end: {}", world.ps());
    world.tiny_docker(["start", "runs"]).assert().success();
    next_process(&world, "runs", None);
    // The same while it waits.
    always(&world, "waits", "exit 3");
    until("it waits", || status(&world, "waits") == "restarting");
    let owner = || -> Option<Pid> {
        let id = world.inspect("waits")["id"].as_str()?.to_string();
        let text = std::fs::read(world.containers().join(id).join("config.json")).ok()?;
        let record: Value = serde_json::from_slice(&text).ok()?;
        Some(Pid::from_raw(record["owner"]["pid"].as_i64()? as i32))
    };
    kill(owner().unwrap(), Signal::SIGKILL).unwrap();
    until("it is said to have ended", || {
        reap_orphans();
        status(&world, "waits") == "exited"
    });
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_wait_tells_how_each_life_ended() {
    let world = World::new();
    always(&world, "web", "trap 'exit 6' USR1; echo up; while :; do sleep 0.1; done");
    for life in 1..4 {
        until("it is up", || {
            let logs = world.tiny_docker(["logs", "web"]).output().unwrap();
            logs.stdout == "up\n".repeat(life).as_bytes()
        });
        let process = common::pid(&world, "web");
        let mut waits = world.start(["wait", "web"]);
        // It has the handle by then, or looks at the container when that runs again.
        until("wait waits", || common::asleep(waits.runtime()).is_some());
        kill(process, Signal::SIGUSR1).unwrap();
        let mut said = None;
        until("it is up again", || {
            said = said.take().or_else(|| (!alive(waits.runtime())).then(|| waits.rest()));
            said.is_some()
        });
        assert_eq!(said.as_deref(), Some("6\n"), "what wait says of life {life}");
    }
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_in_the_foreground_each_life_has_its_streams() {
    let world = World::new();
    let script = "read -r line; echo got $line; [ $line = end ] || exit 1";
    let output = world
        .tiny_docker(words("web", &["--restart", "on-failure"], script))
        .write_stdin("one\ntwo\nend\n")
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "got one\ngot two\ngot end\n", "{}", said(&output));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    world.tiny_docker(["logs", "web"]).assert().success().stdout("got one\ngot two\ngot end\n");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_its_address_and_its_ports_are_taken_anew() {
    let world = World::new();
    let rootfs = busybox();
    let script = "ulimit -n; hostname -i; exec sleep 1000";
    let flags = ["run", "-d", "--name", "web", "-p", "127.0.0.1:8080:80", "--restart", "always"];
    let command = ["--rootfs", rootfs.to_str().unwrap(), "sh", "-c", script];
    world.tiny_docker([&flags[..], &command].concat()).assert().success();
    let lines = |count: usize| {
        let mut text = String::new();
        until("it has spoken", || {
            text = String::from_utf8(world.tiny_docker(["logs", "web"]).output().unwrap().stdout).unwrap();
            text.lines().count() == count
        });
        text.lines().map(str::to_string).collect::<Vec<_>>()
    };
    let first = lines(2);
    let process = common::pid(&world, "web");
    kill(process, Signal::SIGKILL).unwrap();
    next_process(&world, "web", Some(process));
    let both = lines(4);
    assert_eq!(both[2], first[0], "how many open files it may have, the second time");
    world.tiny_docker(["port", "web"]).assert().success().stdout(contains("127.0.0.1:8080"));
    let taken =
        world.tiny_docker([&flags[..3], &["other"], &flags[4..6], &command].concat()).output().unwrap();
    assert_eq!(taken.status.code(), Some(125), "the port is its own: {}", said(&taken));
    world.tiny_docker(["stop", "-t", "0", "web"]).assert().success();
    std::net::TcpListener::bind("127.0.0.1:8080").unwrap();
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_long_killed_at_any_moment_it_leaves_nothing_untrue() {
    let world = World::new();
    let words = words("web", &["--restart", "on-failure:1"], "exit 7");
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let moments = world.die_at_every_moment(&words);
    assert!(moments > 40, "only {moments} moments of two lives");
}

/// How many, and for how long. Where QEMU emulates, every start costs a hundred times as much, and
/// it would be the starting that is measured: so there are fewer there.
fn how_many() -> (usize, Duration) {
    if common::in_the_vm() { (40, Duration::from_secs(30)) } else { (200, Duration::from_secs(60)) }
}

/// The port that is published for a container, of every fourth one, which then has a cable, an
/// address and rules as well. In the guest: a machine that people use gets no bridge.
fn port_of(number: usize) -> Option<u16> {
    (common::in_the_vm() && number.is_multiple_of(4)).then_some(9000 + number as u16)
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_long_two_hundred_are_killed_at_random_and_each_runs_once() {
    let world = World::new();
    let (count, time) = how_many();
    let names: Vec<String> = (0..count).map(|number| format!("web-{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        let mut words = words(name, &["-d", "--restart", "always"], "exec sleep 1000");
        if let Some(port) = port_of(number) {
            // Instead of --net none.
            words.splice(1..3, ["--publish".into(), format!("127.0.0.1:{port}:80")]);
        }
        world.tiny_docker(words).assert().success();
    }
    // What has become of each: as long as it is killed by its pid it comes back.
    let mut ended: BTreeMap<&str, &str> = BTreeMap::new();
    let seed = std::process::id();
    println!("the dice begin with {seed}");
    let (mut dice, since) = (Dice::new(u64::from(seed)), Instant::now());
    while since.elapsed() < time {
        let name = names[dice.roll(count as u64) as usize].as_str();
        let record = world.inspect(name);
        let Some(pid) = record["pid"].as_i64().map(|pid| Pid::from_raw(pid as i32)) else { continue };
        match dice.roll(20) {
            0 => {
                let killed = world.tiny_docker(["kill", name]).output().unwrap();
                assert!(
                    killed.status.success() || ended.contains_key(name),
                    "kill {name}: {}",
                    said(&killed)
                );
                ended.entry(name).or_insert("by a person");
            }
            1 => {
                let parent = common::processes().find(|(one, _)| *one == pid.as_raw());
                let Some((_, parent)) = parent else { continue };
                if parent != std::process::id() as i32 && kill(Pid::from_raw(parent), Signal::SIGKILL).is_ok()
                {
                    ended.entry(name).or_insert("with its supervisor");
                }
            }
            _ => drop(kill(pid, Signal::SIGKILL)),
        }
        reap_orphans();
    }
    for name in &names {
        let expected = if ended.contains_key(name.as_str()) { "exited" } else { "running" };
        until(&format!("{name} is {expected}"), || {
            reap_orphans();
            status(&world, name) == expected
        });
    }
    // Each that runs has one process, and one that looks after it; nobody else is there.
    let runs = count - ended.len();
    until("each runs once", || {
        reap_orphans();
        descendants().into_iter().filter(|pid| alive(Pid::from_raw(*pid))).count() == 2 * runs
    });
    assert!(ended.len() < count, "all were ended: {ended:?}");
    let is_free = |port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
    for (number, name) in names.iter().enumerate() {
        if let Some(port) = port_of(number) {
            assert_eq!(is_free(port), ended.contains_key(name.as_str()), "is port {port} of {name} free?");
        }
    }
    world.remove_all();
    assert!((0..count).filter_map(port_of).all(is_free), "all ports are free");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_one_that_cannot_be_started_again_is_tried_again() {
    let world = World::new();
    let rootfs = world.copy_of_rootfs("rootfs");
    let words = ["run", "-d", "--net", "none", "--name", "web", "--restart", "always", "--rootfs"];
    let command = [rootfs.to_str().unwrap(), "sleep", "1000"];
    world.tiny_docker([&words[..], &command].concat()).assert().success();
    let first = common::pid(&world, "web");
    let elsewhere = world.dir().join("elsewhere");
    std::fs::rename(&rootfs, &elsewhere).unwrap();
    kill(first, Signal::SIGKILL).unwrap();
    until("it has been tried twice", || world.inspect("web")["restart_count"].as_u64() >= Some(3));
    std::fs::rename(&elsewhere, &rootfs).unwrap();
    next_process(&world, "web", Some(first));
    world.remove_all();
}
