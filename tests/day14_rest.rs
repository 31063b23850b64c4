//! Day 14: the processes of a container are shown, its limits and its name are changed while it
//! runs, and whoever watches is told.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Running, World, alive, busybox, descendants, pid, said, until};
use nix::sys::signal::{Signal, kill};
use predicates::str::{contains, is_empty};
use serde_json::Value;

/// A container called `name`, in the background, that runs `script`.
fn start(world: &World, name: &str, flags: &[&str], script: &str) -> String {
    let rootfs = busybox();
    let words = ["run", "-d", "--net", "none", "--name", name, "--layer", rootfs.to_str().unwrap()];
    let output = world.tiny_docker([&words[..], flags, &["sh", "-c", script]].concat()).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8(output.stdout).unwrap().trim_end().to_string()
}

/// What is on the disk of a container.
fn record(world: &World, container: &str) -> Value {
    let id = world.inspect(container)["id"].as_str().unwrap().to_string();
    serde_json::from_slice(&fs::read(world.containers().join(id).join("config.json")).unwrap()).unwrap()
}

fn cgroup(id: &str) -> PathBuf {
    format!("/sys/fs/cgroup/tiny-docker-{id}").into()
}

/// What is in a file of a container's cgroup.
fn limit(id: &str, file: &str) -> String {
    fs::read_to_string(cgroup(id).join(file)).unwrap().trim_end().to_string()
}

#[track_caller]
fn refused(world: &World, words: &[&str]) -> String {
    let output = world.tiny_docker(words).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{words:?}: {}", said(&output));
    String::from_utf8(output.stderr).unwrap()
}

/// Makes a file in the container, which ends because of it: maybe before `exec` has.
fn touch(world: &World, name: &str, file: &str) {
    let touched = world.tiny_docker(["exec", name, "touch", file]).output().unwrap();
    assert!(matches!(touched.status.code(), Some(0 | 137)), "exec touch {file}: {}", said(&touched));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_top_shows_all_processes_of_the_container_and_no_others() {
    let world = World::new();
    start(&world, "other", &[], "exec sleep 999");
    // Of its own words, of its own namespaces, and one that somebody has put in there.
    let script = "sleep 1001 & unshare -p -f sh -c 'sleep 1002 & sleep 1003' & exec sleep 1000";
    start(&world, "web", common::ALL_OF_ROOT, script);
    world.tiny_docker(["exec", "-d", "web", "sh", "-c", "sleep 1004; :", "\x1b[2Jclear"]).assert().success();
    let top = |words: &[&str]| {
        let output = world.tiny_docker([&["top", "web"], words].concat()).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let all = ["sleep 1000", "sleep 1001", "sleep 1002", "sleep 1003", "sleep 1004"];
    let shows = |text: &str, words: &str| text.lines().any(|line| line.rsplit("   ").next() == Some(words));
    let missing = || -> Vec<&str> {
        let text = top(&[]);
        all.into_iter().filter(|words| !shows(&text, words)).collect()
    };
    // All of them run as soon as the last one does.
    let rest = ["sleep 1002", "sleep 1003"];
    until("the others run", || missing().iter().all(|words| rest.contains(words)));
    let runs = |words: &str| {
        let of = |pid: i32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        descendants().into_iter().any(|pid| of(pid) == format!("{words}\0").replace(' ', "\0").into_bytes())
    };
    until("those of another namespace run", || rest.iter().all(|words| runs(words)));
    assert_eq!(missing(), [""; 0], "what runs in the container, and top does not show");
    let text = top(&[]);
    let head: Vec<&str> = text.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(head, ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"], "{text}");
    assert!(!text.contains("sleep 999"), "the other container's: {text}");
    assert!(!text.contains('\x1b'), "what a process is called is a command to the terminal: {text:?}");
    let fields = |words: &str| -> Vec<String> {
        let line = text.lines().find(|line| line.ends_with(words)).unwrap();
        line.split_whitespace().map(str::to_string).collect()
    };
    let first = fields("sleep 1000");
    assert_eq!(first[1], pid(&world, "web").to_string(), "the number on the host: {text}");
    assert_eq!(fields("sleep 1001")[2], first[1], "its parent: {text}");
    let (user, shown) = (Command::new("id").arg("-un").output().unwrap().stdout, first[0].clone());
    assert_eq!(shown.as_bytes(), user.trim_ascii_end(), "the user on the host: {text}");
    assert!(first[4].contains(':') && first[5] == "?" && first[6] == "00:00:00", "the rest of it: {text}");
    // Every line is one of its processes.
    let numbers: Vec<i32> =
        text.lines().skip(1).map(|line| line.split_whitespace().nth(1).unwrap().parse().unwrap()).collect();
    let ours = descendants();
    assert!(numbers.iter().all(|number| ours.contains(number)), "processes that are not the test's: {text}");
    // With options it is ps(1) that shows them.
    let text = top(&["-o", "pid,args"]);
    assert_eq!(
        text.lines().next().unwrap().split_whitespace().collect::<Vec<_>>(),
        ["PID", "COMMAND"],
        "{text}"
    );
    assert_eq!(text.lines().count(), 1 + numbers.len(), "as many as without options: {text}");
    assert!(refused(&world, &["top", "web", "-o", "args"]).contains("PID"), "nothing tells them apart");
    assert!(refused(&world, &["top", "web", "--nosuch"]).contains("ps:"), "what ps says");
    let kept = pid(&world, "web");
    world.tiny_docker(["kill", "web"]).assert().success();
    until("it has ended", || !alive(kept));
    assert!(refused(&world, &["top", "web"]).contains("is not running"), "of one that has ended");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_update_changes_the_limits_of_one_that_runs() {
    let world = World::new();
    let id = start(&world, "web", &["-m", "64m", "--pids-limit", "50"], "exec sleep 1000");
    let words = ["update", "-m", "128m", "--cpus", "0.5", "--pids-limit", "2", "web"];
    world.tiny_docker(words).assert().success().stdout("web\n");
    let kept = [("memory.max", "134217728"), ("cpu.max", "50000 100000"), ("pids.max", "2")];
    for (file, value) in kept {
        assert_eq!(limit(&id, file), value, "{file}");
    }
    // The kernel keeps it.
    let output = world.tiny_docker(["exec", "web", "sh", "-c", "sleep 0 & sleep 0 & wait"]).output().unwrap();
    assert!(!output.status.success(), "three processes where two are allowed: {}", said(&output));
    // So it is in its next life.
    world.tiny_docker(["restart", "-t", "0", "web"]).assert().success();
    for (file, value) in kept {
        assert_eq!(limit(&id, file), value, "{file}, started again");
    }
    // And without: no limit.
    world.tiny_docker(["update", "-m", "0", "--cpus", "0", "--pids-limit", "-1", "web"]).assert().success();
    for (file, value) in [("memory.max", "max"), ("cpu.max", "max 100000"), ("pids.max", "max")] {
        assert_eq!(limit(&id, file), value, "{file}, without a limit");
    }
    assert_eq!(record(&world, "web")["limits"], serde_json::json!([]), "its record, without limits");
    // One that has ended has them when it is started.
    world.tiny_docker(["kill", "web"]).assert().success();
    world.tiny_docker(["update", "--pids-limit", "9", "web"]).assert().success();
    world.tiny_docker(["start", "web"]).assert().success();
    assert_eq!(limit(&id, "pids.max"), "9", "started with another limit");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_an_update_that_is_refused_changes_nothing() {
    let world = World::new();
    let script = "dd if=/dev/zero of=/dev/shm/held bs=1M count=40 2>/dev/null; touch /full; exec sleep 1000";
    let id = start(&world, "web", &["-m", "64m", "--pids-limit", "50"], script);
    let before = record(&world, "web");
    let is_as_before = |why: &str| {
        assert_eq!(limit(&id, "memory.max"), "67108864", "memory, {why}");
        assert_eq!(limit(&id, "pids.max"), "50", "processes, {why}");
        assert_eq!(record(&world, "web"), before, "the record, {why}");
    };
    for (flags, says) in [
        (&["-m", "96m", "--pids-limit", "many"][..], "--pids-limit"),
        (&["-m", "96m", "--cpus", "half"], "--cpus"),
        (&["--pids-limit", "9", "-m", "1m"], "at least 6m"),
        (&["-m", "96m", "--memory-swap", "80m"], "--memory-swap"),
        (&[], "nothing to change"),
    ] {
        let words = [&["update"], flags, &["web"]].concat();
        let said = refused(&world, &words);
        assert!(said.contains(says), "{flags:?}: {said}");
        is_as_before(says);
    }
    // What it needs it cannot do without: the kernel would kill it.
    let full = world.containers().join(&id).join("layer/upper/full");
    until("it holds 40 MiB", || full.exists());
    let before = record(&world, "web");
    let said = refused(&world, &["update", "--pids-limit", "9", "-m", "16m", "web"]);
    assert!(said.contains("needs") && said.contains("16777216"), "{said}");
    assert_eq!(
        (limit(&id, "memory.max").as_str(), limit(&id, "pids.max").as_str()),
        ("67108864", "50"),
        "{said}"
    );
    assert_eq!(record(&world, "web"), before, "its record: {said}");
    // The kernel refuses the last of three: the first ones get back what was there.
    let last = cgroup(&id).join("pids.max");
    let mount = Command::new("mount").args(["--bind", "/proc/version"]).arg(&last).status().unwrap();
    assert!(mount.success(), "something else is at {last:?}");
    let output = world
        .tiny_docker(["update", "-m", "96m", "--cpus", "0.5", "--pids-limit", "9", "web"])
        .output()
        .unwrap();
    assert!(Command::new("umount").arg(&last).status().unwrap().success(), "{last:?} is itself again");
    assert_eq!(output.status.code(), Some(1), "{}", self::said(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("pids.max"), "{}", self::said(&output));
    assert_eq!(limit(&id, "memory.max"), "67108864", "memory, when the kernel refused another one");
    assert_eq!(limit(&id, "cpu.max"), "max 100000", "the processor, when the kernel refused another one");
    assert_eq!(record(&world, "web"), before, "its record, when the kernel refused one");
    // Memory and swap together were said: then one of them alone leaves the sum.
    start(&world, "swap", &["-m", "64m", "--memory-swap", "96m"], "exec sleep 1000");
    world.tiny_docker(["update", "-m", "80m", "swap"]).assert().success();
    let limits = record(&world, "swap")["limits"].clone();
    assert_eq!(
        limits,
        serde_json::json!([["memory.max", "83886080"], ["memory.swap.max", "16777216"]]),
        "the sum"
    );
    assert!(
        refused(&world, &["update", "-m", "128m", "swap"]).contains("--memory-swap"),
        "more than the sum"
    );
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_update_changes_when_it_is_started_again() {
    let world = World::new();
    start(&world, "web", &[], "echo life; while [ ! -e /end ]; do sleep 0.05; done; rm /end; exit 3");
    world.tiny_docker(["update", "--restart", "on-failure:1", "web"]).assert().success().stdout("web\n");
    assert_eq!(world.inspect("web")["restart"], "on-failure:1", "what inspect says");
    for _ in 0..2 {
        touch(&world, "web", "/end");
        until("it has ended", || {
            let ended = world.inspect("web");
            ended["restart_count"] == 1 && ended["status"] != "restarting"
        });
    }
    until("it has ended for good", || world.ps().contains("Exited (3)"));
    world.tiny_docker(["logs", "web"]).assert().success().stdout("life\nlife\n");
    world
        .tiny_docker(["update", "--restart", "nosuch", "web"])
        .assert()
        .failure()
        .stderr(contains("unless-stopped"));
    world.remove_all();
}

/// The same for two of them, and with --rm: it is refused.
#[test]
#[ignore = "privileged: make vm-test"]
fn task4_update_of_several_does_what_it_can() {
    let world = World::new();
    start(&world, "web", &["--rm"], "exec sleep 1000");
    start(&world, "box", &[], "exec sleep 1000");
    let output =
        world.tiny_docker(["update", "--restart", "always", "web", "nosuch", "box"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert_eq!(output.stdout, b"box\n", "those that were changed: {}", said(&output));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("--rm") && text.contains("no such container"), "{text}");
    assert_eq!(world.inspect("box")["restart"], "always", "what inspect says");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_rename_is_what_it_is_called_from_then_on() {
    let world = World::new();
    let id = start(&world, "web", &[], "while [ ! -e /end ]; do sleep 0.05; done; exit 3");
    start(&world, "other", &[], "exec sleep 1000");
    world.tiny_docker(["rename", "web", "site"]).assert().success().stdout(is_empty()).stderr(is_empty());
    assert_eq!(world.inspect(&id)["name"], "site", "what inspect says");
    assert!(refused(&world, &["inspect", "web"]).contains("no such container"), "its old name");
    let before = record(&world, "site");
    for (name, says) in [
        ("other", "is taken by container"),
        ("site", "already"),
        ("a", "two or more"),
        ("../evil", "two or more"),
    ] {
        let said = refused(&world, &["rename", "site", name]);
        assert!(said.contains(says), "{name}: {said}");
        assert_eq!(record(&world, "site"), before, "its record, {said}");
    }
    assert!(refused(&world, &["rename", "nosuch", "new"]).contains("no such container"), "nobody");
    // Whoever looks after it has known it by the old name.
    touch(&world, "site", "/end");
    until("it has ended", || world.ps().contains("Exited (3)"));
    assert_eq!(world.inspect(&id)["name"], "site", "once it has ended");
    // The old name is free, and the new one is not.
    let words = |name| ["run", "--net", "none", "--name", name, "true"];
    world.tiny_docker(words("web")).assert().success();
    world.tiny_docker(words("site")).assert().code(125).stderr(contains("is taken"));
    // Of one that has ended, and started again.
    world.tiny_docker(["rename", &id[..6], "page"]).assert().success();
    world.tiny_docker(["start", "page"]).assert().success();
    assert_eq!(world.inspect(&id)["name"], "page", "in its next life");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_one_name_goes_to_one_container() {
    let world = World::new();
    let rootfs = busybox();
    let names: Vec<String> = (0..8).map(|number| format!("web{number}")).collect();
    for name in &names {
        let words = ["create", "--net", "none", "--name", name, "--layer", rootfs.to_str().unwrap(), "true"];
        world.tiny_docker(words).assert().success();
    }
    let mut renames: Vec<Running> = names.iter().map(|name| world.start(["rename", name, "one"])).collect();
    let codes: Vec<i32> = renames.iter_mut().map(Running::ended).collect();
    assert_eq!(codes.iter().filter(|code| **code == 0).count(), 1, "those that got the name: {codes:?}");
    assert_eq!(world.ps().split_whitespace().filter(|word| *word == "one").count(), 1, "{}", world.ps());
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_killed_at_any_moment_rename_has_been_or_has_not() {
    let world = World::new();
    let id = start(&world, "web", &[], "exec sleep 1000");
    let mut moments = 0;
    for moment in 1.. {
        assert!(moment < 100, "it never gets to its end");
        let mut command = world.tiny_docker(["rename", &id, "site"]);
        let output = command.env("TINY_DOCKER_DIE_AT", format!("parent:{moment}")).output().unwrap();
        let name = world.inspect(&id)["name"].as_str().unwrap().to_string();
        let place = format!("killed at parent:{moment}: {}", said(&output));
        assert!(output.status.success() || output.status.signal() == Some(9), "{place}");
        assert!(["web", "site"].contains(&name.as_str()), "it is called {name:?}, {place}");
        if output.status.success() {
            assert_eq!(name, "site", "{place}");
            break;
        }
        moments += 1;
        if name == "site" {
            world.tiny_docker(["rename", &id, "web"]).assert().success();
        }
    }
    assert!(moments > 0, "rename does something that can be interrupted");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_on_its_networks_it_is_found_by_its_new_name() {
    let world = World::new();
    let rootfs = busybox();
    world.tiny_docker(["network", "create", "lab"]).assert().success();
    let run = |name: &str| {
        let words = ["run", "-d", "--net", "lab", "--name", name, "--rootfs", rootfs.to_str().unwrap()];
        world.tiny_docker([&words[..], &["sleep", "1000"]].concat()).assert().success();
    };
    run("web");
    run("client");
    let finds = |name: &str| {
        let output = world.tiny_docker(["exec", "client", "nslookup", name]).output().unwrap();
        output.status.success()
    };
    assert!(finds("web") && !finds("site"), "by its first name");
    world.tiny_docker(["rename", "web", "site"]).assert().success();
    assert!(finds("site"), "by its new name, at once");
    assert!(!finds("web"), "by the old one, which nobody has");
    world.remove_all();
    world.tiny_docker(["network", "rm", "lab"]).assert().success();
}

/// `events`, which watches already.
fn watch(world: &World, flags: &[&str]) -> Running {
    let rootfs = busybox();
    let words = ["create", "--net", "none", "--name", "marker", "--layer", rootfs.to_str().unwrap(), "true"];
    world.tiny_docker(words).assert().success();
    let mut running = world.start([&["events", "--since", "1h", "--format", "json"], flags].concat());
    // What there was it has read once it watches.
    let first = event(&mut running);
    assert_eq!((first.0.as_str(), first.1.as_str()), ("create", "marker"), "the past");
    world.tiny_docker(["rm", "marker"]).assert().success();
    running
}

/// What happened, to which one, and all that is known of it.
fn event(running: &mut Running) -> (String, String, Value) {
    let line = running.line();
    let event: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
    assert_eq!(event["Type"], "container", "{line}");
    let before = (&event["status"], &event["id"]);
    assert_eq!(before, (&event["Action"], &event["Actor"]["ID"]), "what older programs read: {line}");
    let attributes = event["Actor"]["Attributes"].clone();
    let name = attributes["name"].as_str().unwrap_or_default().to_string();
    (event["Action"].as_str().unwrap().into(), name, attributes)
}

/// The next events of the container `name` are these.
#[track_caller]
fn happens(running: &mut Running, name: &str, actions: &[&str]) -> Value {
    let mut last = Value::Null;
    for action in actions {
        let mut found = event(running);
        while found.1 != name {
            assert_eq!(found.1, "marker", "{} of {}: expected {action} of {name}", found.0, found.1);
            found = event(running);
        }
        assert_eq!(found.0, *action, "what happens next to {name}: {}", found.2);
        last = found.2;
    }
    last
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_events_tells_what_happens_as_it_happens() {
    let world = World::new();
    let mut events = watch(&world, &[]);
    let script = "trap 'exit 4' TERM; [ -e /end ] && exit 3; touch /end; while :; do sleep 0.05; done";
    let id = start(&world, "web", &["--label", "team=lab"], script);
    let attributes = happens(&mut events, "web", &["create", "start"]);
    assert_eq!(attributes["team"], "lab", "its label");
    let end = world.containers().join(&id).join("layer/upper/end");
    until("it is ready", || end.exists());
    world.tiny_docker(["stop", "web"]).assert().success();
    let told = happens(&mut events, "web", &["kill"]);
    assert_eq!(told["signal"], "15", "{told}");
    let died = happens(&mut events, "web", &["die"]);
    assert_eq!(died["exitCode"], "4", "{died}");
    happens(&mut events, "web", &["stop"]);
    world.tiny_docker(["start", "-a", "web"]).assert().code(3);
    let died = happens(&mut events, "web", &["start", "die"]);
    assert_eq!(died["exitCode"], "3", "{died}");
    world.tiny_docker(["rename", "web", "site"]).assert().success();
    assert_eq!(happens(&mut events, "site", &["rename"])["oldName"], "web");
    world.tiny_docker(["rm", "site"]).assert().success();
    happens(&mut events, "site", &["destroy"]);
    // Whoever is asked whether it is well.
    let flags = ["--health-cmd", "[ -e /well ]", "--health-interval", "50ms", "--health-retries", "1"];
    start(&world, "well", &flags, "exec sleep 1000");
    happens(&mut events, "well", &["create", "start", "health_status: unhealthy"]);
    world.tiny_docker(["exec", "well", "touch", "/well"]).assert().success();
    happens(&mut events, "well", &["health_status: healthy"]);
    world.tiny_docker(["kill", "well"]).assert().success();
    happens(&mut events, "well", &["kill", "die"]);
    world.tiny_docker(["rm", "well"]).assert().success();
    happens(&mut events, "well", &["destroy"]);
    // Killed, with whoever looks after it: nobody writes that down but whoever finds it.
    start(&world, "dead", &[], "exec sleep 1000");
    happens(&mut events, "dead", &["create", "start"]);
    kill(common::supervisor(&world, "dead"), Signal::SIGKILL).unwrap();
    let died = happens(&mut events, "dead", &["die"]);
    assert_eq!(died["exitCode"], Value::Null, "nobody knows: {died}");
    world.tiny_docker(["rm", "-f", "dead"]).assert().success();
    happens(&mut events, "dead", &["destroy"]);
    // Nobody reads any more.
    events.close_output();
    assert_eq!(events.ended(), 0, "events ends when nobody reads it");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_events_tells_what_the_kernel_does() {
    let world = World::new();
    let script =
        "while [ ! -e /go ]; do sleep 0.05; done; dd if=/dev/zero of=/dev/shm/x bs=1M count=60; exit 5";
    let mut events = watch(&world, &[]);
    start(&world, "web", &["-m", "64m"], script);
    world.tiny_docker(["update", "-m", "16m", "web"]).assert().success();
    happens(&mut events, "web", &["create", "start"]);
    world.tiny_docker(["pause", "web"]).assert().success();
    happens(&mut events, "web", &["pause"]);
    world.tiny_docker(["unpause", "web"]).assert().success();
    happens(&mut events, "web", &["unpause"]);
    // By hand, too.
    let id = world.inspect("web")["id"].as_str().unwrap().to_string();
    fs::write(cgroup(&id).join("cgroup.freeze"), "1").unwrap();
    happens(&mut events, "web", &["pause"]);
    fs::write(cgroup(&id).join("cgroup.freeze"), "0").unwrap();
    happens(&mut events, "web", &["unpause"]);
    touch(&world, "web", "/go");
    happens(&mut events, "web", &["oom"]);
    // What was written to memory is still there, so another one may have been killed too.
    while event(&mut events).0 != "die" {}
    // The limit that it has run out of is the new one.
    let reason = world.inspect("web")["reason"].clone();
    assert!(reason.as_str().is_some_and(|words| words.contains("limit of 16777216 bytes")), "why: {reason}");
    drop(events);
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_events_shows_what_is_asked_for() {
    let world = World::new();
    world.tiny_docker(["run", "--net", "none", "--name", "web", "sh", "-c", "exit 3"]).assert().code(3);
    world.tiny_docker(["run", "--net", "none", "--name", "box", "true"]).assert().success();
    let past = |flags: &[&str]| {
        let words = [&["events", "--since", "1h", "--until", "0s"], flags].concat();
        let output = world.tiny_docker(words).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let actions = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split(' ').nth(2).unwrap().to_string()).collect()
    };
    let id = world.inspect("web")["id"].as_str().unwrap().to_string();
    let all = past(&[]);
    assert_eq!(actions(&all), ["create", "start", "die", "create", "start", "die"], "{all}");
    assert!(
        all.lines().nth(2).unwrap().ends_with(&format!("container die {id} (exitCode=3, name=web)")),
        "{all}"
    );
    let web = past(&["--filter", "container=web"]);
    assert_eq!(actions(&web), ["create", "start", "die"], "of web alone: {web}");
    let some = past(&["-f", "container=box", "-f", "event=die", "-f", "event=create"]);
    assert_eq!(actions(&some), ["create", "die"], "of box, two of three: {some}");
    let none = past(&["-f", "image=nosuch"]);
    assert_eq!(none, "", "of an image that nobody has");
    let words = ["events", "--since", "1h", "--until", "30m"];
    world.tiny_docker(words).assert().success().stdout(is_empty());
    for bad in ["nosuch=x", "container", "container="] {
        world
            .tiny_docker(["events", "-f", bad])
            .assert()
            .failure()
            .stderr(contains("expected container=NAME"));
    }
    // On a machine that has never had a container, there is nothing, and it waits for the first.
    let root = world.dir().join("new");
    world
        .tiny_docker([Path::new("--root"), &root, Path::new("events"), Path::new("--until"), Path::new("0s")])
        .assert()
        .success()
        .stdout(is_empty());
    world.remove_all();
}
