//! Day 6: stop a running container.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use assert_cmd::assert::Assert;
use common::{AtTerminal, World, alive, busybox, is_pending, pid, processes, state, supervisor, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use predicates::prelude::*;
use predicates::str::{contains, is_empty};
use serde_json::Value;

fn words(flags: &[&str], script: &str) -> Vec<String> {
    let rootfs = busybox();
    let words = [&["run", "--rootfs", rootfs.to_str().unwrap()], flags, &["sh", "-c", script]].concat();
    words.into_iter().map(String::from).collect()
}

fn tiny_docker(world: &World, words: &[&str]) -> Assert {
    world.tiny_docker(words).assert()
}

/// Starts a container in the background, and waits for its first line of output.
fn detach(world: &World, flags: &[&str], script: &str) -> String {
    let id = world.detach(flags, script);
    let log = world.containers().join(&id).join("container.log");
    until("it is ready", || log.metadata().unwrap().len() > 0);
    id
}

/// Ends on SIGTERM, with the code 3, after a last word.
const GRACEFUL: &str = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
/// Ends on no signal but SIGKILL: PID 1 with no handler.
const DEAF: &str = "echo ready; exec sleep 1000";

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_run_passes_signals_on() {
    let world = World::new();
    use Signal::*;
    let script =
        "for signal in HUP INT QUIT USR1 USR2 TERM WINCH CONT ALRM; do trap \"echo $signal\" $signal; done
                  echo ready; while :; do sleep 0.02; done";
    let mut running = world.start(words(&[], script));
    assert_eq!(running.line(), "ready");
    for signal in [SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGTERM, SIGWINCH, SIGCONT, SIGALRM] {
        running.signal_runtime(signal);
        assert_eq!(format!("SIG{}", running.line()), signal.as_str());
    }
    running.signal_command(SIGKILL);
    assert_eq!(running.ended(), 137);

    let mut running = world.start(words(&[], GRACEFUL));
    assert_eq!(running.line(), "ready");
    running.signal_runtime(SIGTERM);
    assert_eq!(running.line(), "bye");
    assert_eq!(running.ended(), 3);
}

// https://github.com/moby/moby/issues/36219
#[test]
#[ignore = "privileged: make vm-test"]
fn task1_run_passes_real_time_signals_on() {
    let world = World::new();
    real_time_signals_arrive(&world, &[]);
}

fn real_time_signals_arrive(world: &World, flags: &[&str]) {
    let script = "for signal in 34 35 50 64; do trap \"echo $signal\" $signal; done
                  echo ready; while :; do sleep 0.02; done";
    let mut running = world.start(words(flags, script));
    assert_eq!(running.line(), "ready");
    for number in [34, 35, 50, 64] {
        send(running.runtime(), number);
        assert_eq!(running.line(), number.to_string(), "{flags:?}");
    }
    running.signal_command(Signal::SIGKILL);
    assert_eq!(running.ended(), 137);
}

/// Sends a signal by its number: nix has no names for real-time signals.
fn send(pid: Pid, number: i32) {
    // SAFETY: plain integers.
    assert_eq!(unsafe { libc::kill(pid.as_raw(), number) }, 0);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_a_stopped_runtime_goes_on_and_says_so_to_the_command() {
    let world = World::new();
    let script = "trap 'echo stop' TSTP; trap 'echo go on' CONT; echo ready; while :; do sleep 0.02; done";
    let mut running = world.start(words(&[], script));
    assert_eq!(running.line(), "ready");
    let now = || state(running.runtime());
    running.signal_runtime(Signal::SIGTSTP);
    until("the runtime is stopped", || {
        assert_ne!(now(), 'Z', "it has ended");
        now() == 'T'
    });
    // A SIGCONT discards a SIGTSTP that still waits to be taken. (signal(7))
    until("the command has taken SIGTSTP", || !is_pending(running.command(), Signal::SIGTSTP));
    running.signal_runtime(Signal::SIGCONT);
    until("the runtime goes on", || now() != 'T');
    // Both at once, as far as it can tell: the order is the shell's own.
    let told: BTreeSet<String> = [running.line(), running.line()].into();
    assert_eq!(told, ["stop", "go on"].map(String::from).into());
    running.signal_command(Signal::SIGKILL);
    assert_eq!(running.ended(), 137);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_ctrl_c_arrives_once() {
    let world = World::new();
    // Runtime and command are in the terminal's foreground: it sends SIGINT to both.
    ctrl_c_arrives_once(&world, &["--name", "web"]);
    // With a terminal of its own the command gets none but what is passed on.
    ctrl_c_arrives_once(&world, &["--name", "web", "-t"]);
}

fn ctrl_c_arrives_once(world: &World, flags: &[&str]) {
    // Where it is can be seen from outside, also while the runtime shows nothing.
    let script = "trap 'echo interrupted; cd /tmp' INT; trap 'echo no more' USR1; echo ready
                  while :; do sleep 0.05; done";
    let mut user = AtTerminal::start(words(flags, script));
    user.shows("ready");
    // The runtime is held back, so that its signal could not fall together with
    // the terminal's.
    let runtime = Pid::from_raw(user.program.id() as i32);
    kill(runtime, Signal::SIGSTOP).unwrap();
    until("the runtime is stopped", || state(runtime) == 'T');
    user.types("\x03");
    until("Ctrl-C has reached the runtime", || is_pending(runtime, Signal::SIGINT));
    if !flags.contains(&"-t") {
        let mut command = common::children_of(runtime.as_raw())[0];
        if flags.contains(&"--init") {
            command = common::children_of(command)[0];
        }
        let place = format!("/proc/{command}/cwd");
        until("Ctrl-C has reached the command", || fs::read_link(&place).unwrap().ends_with("tmp"));
    }
    kill(runtime, Signal::SIGCONT).unwrap();
    user.shows("interrupted");
    // The runtime passes on one signal after the other, and the lowest number first: what
    // it makes of its SIGINT has arrived when this one does.
    kill(runtime, Signal::SIGUSR1).unwrap();
    user.shows("no more");
    tiny_docker(world, &["logs", "web"]).stdout(contains("interrupted").count(1));
    tiny_docker(world, &["rm", "-f", "web"]).success();
    assert_eq!(user.ended(), 137);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_stop_gives_the_command_time_to_end() {
    let world = World::new();
    let id = detach(&world, &["--name", "web"], GRACEFUL);
    tiny_docker(&world, &["stop", "web"]).success().stdout("web\n").stderr(is_empty());
    // It has been written down by the time stop returns.
    let record = world.inspect(&id);
    assert_eq!((&record["status"], &record["exit_code"]), (&"exited".into(), &3.into()));
    tiny_docker(&world, &["logs", "web"]).stdout("ready\nbye\n");
    // What is stopped already is stopped.
    tiny_docker(&world, &["stop", "web"]).success().stdout("web\n");
    assert_eq!(world.inspect(&id)["exit_code"], 3);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_stop_kills_what_does_not_end_in_time() {
    let world = World::new();
    for (flag, at_least) in [("-t=1", 1.0), ("--timeout=0", 0.0)] {
        let id = detach(&world, &[], DEAF);
        let start = Instant::now();
        tiny_docker(&world, &["stop", flag, &id]).success();
        let took = start.elapsed().as_secs_f64();
        // Without the flag it waits for 10 s. With it, all but the waiting takes a fraction
        // of a second: a machine may be busy as it likes.
        assert!((at_least..10.0).contains(&took), "{flag}: {took} s");
        let record = world.inspect(&id);
        assert_eq!((&record["exit_code"], &record["signal"]), (&137.into(), &"SIGKILL".into()));
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_of_several_each_is_stopped_or_reported() {
    let world = World::new();
    detach(&world, &["--name", "one"], GRACEFUL);
    detach(&world, &["--name", "two"], GRACEFUL);
    let assert = tiny_docker(&world, &["stop", "one", "nosuch", "two"]).code(1);
    assert.stdout("one\ntwo\n").stderr(contains("no such container: \"nosuch\""));
    tiny_docker(&world, &["ps", "-q"]).stdout(is_empty());
    tiny_docker(&world, &["stop"]).code(2);
    tiny_docker(&world, &["stop", "-t", "soon", "one"]).code(2).stderr(contains("soon"));
}

// https://github.com/moby/moby/issues/24724
#[test]
#[ignore = "privileged: make vm-test"]
fn task2_several_are_stopped_at_once() {
    let world = World::new();
    let names = ["one", "two", "three"];
    for name in names {
        detach(&world, &["--name", name], DEAF);
    }
    tiny_docker(&world, &["stop", "-t", "4", "one", "two", "three"]).success().stdout("one\ntwo\nthree\n");
    // One after the other they would end four seconds apart.
    let mut ends = names.map(|name| {
        let end = world.inspect(name)["finished_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        end.as_millisecond()
    });
    ends.sort();
    assert!(ends[2] - ends[0] < 3500, "they ended at {ends:?}");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_one_that_keeps_us_waiting_keeps_none_of_the_others_waiting() {
    let world = World::new();
    for command in [&["stop"][..], &["kill"], &["rm", "-f"]] {
        // Its `run` sees nothing of its end as long as it is stopped.
        let mut held = world.start(words(&["--name", "held"], GRACEFUL));
        held.line();
        held.signal_runtime(Signal::SIGSTOP);
        detach(&world, &["--name", "two"], GRACEFUL);
        let second = pid(&world, "two");
        let mut waiting = world.start([command, &["held", "nosuch", "two"]].concat());
        until("two has ended, though it is not the first", || !alive(second));
        held.signal_runtime(Signal::SIGCONT);
        // In the order given, all the same.
        assert_eq!((waiting.line(), waiting.line()), ("held".into(), "two".into()), "{command:?}");
        assert_eq!(waiting.ended(), 1, "{command:?}");
        held.ended();
        world.remove_all();
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_a_timeout_of_any_length_is_waited_for() {
    let world = World::new();
    // The last one is the longest that fits; and a negative one is as long as it takes.
    for timeout in ["-1", "-9223372036854775808", "4294967296", "9223372036854775807"] {
        let id = detach(&world, &[], GRACEFUL);
        tiny_docker(&world, &["stop", "-t", timeout, &id]).success().stderr(is_empty());
        assert_eq!(world.inspect(&id)["exit_code"], 3, "{timeout}");
    }
    let id = detach(&world, &[], GRACEFUL);
    tiny_docker(&world, &["stop", "-t", "9223372036854775808", &id]).code(2);
    assert_eq!(world.inspect(&id)["status"], "running", "nothing was done");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_long_a_run_that_is_held_up_is_not_waited_for_without_end() {
    let world = World::new();
    let mut held = world.held_up("held", &[]);
    let run = held.runtime().to_string();
    thread::scope(|scope| {
        for command in [&["stop", "-t", "1"][..], &["kill"], &["kill", "-s", "TERM"]] {
            let (world, run) = (&world, &run);
            scope.spawn(move || {
                tiny_docker(world, &[command, &["held"]].concat())
                    .code(1)
                    .stderr(contains("held is about to start").and(contains(run)));
            });
        }
    });
    // What waits can be told to end; wait itself waits for as long as it takes.
    for command in ["wait", "stop", "kill"] {
        let mut waiting = world.start([command, "held"]);
        until("it waits", || common::asleep(waiting.runtime()).as_deref() == Some("tiny-docker"));
        waiting.signal_runtime(Signal::SIGINT);
        assert_eq!(waiting.ended(), -2, "{command}");
    }
    let mut waiting = world.start(["wait", "held"]);
    held.signal_runtime(Signal::SIGCONT);
    assert_eq!(waiting.line(), "0");
    assert_eq!((waiting.ended(), held.ended()), (0, 0));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_long_what_cannot_die_yet_is_named() {
    let world = World::new();
    detach(&world, &["--name", "web"], "sleep 1000 & echo ready; exec sleep 1000");
    let command = pid(&world, "web");
    // Traced by this test, which does not fetch its exit code yet: so PID 1 of its namespace
    // cannot end either. (pid_namespaces(7))
    let traced = Pid::from_raw(common::children_of(command.as_raw())[0]);
    // SAFETY: takes no pointer but null.
    assert_eq!(unsafe { libc::ptrace(libc::PTRACE_SEIZE, traced.as_raw(), 0, 0) }, 0);
    let us = nix::unistd::gettid();
    thread::scope(|scope| {
        for command in [&["stop", "-t", "0"][..], &["kill"], &["rm", "-f"]] {
            let world = &world;
            scope.spawn(move || {
                let what = contains("got SIGKILL")
                    .and(contains(format!("process {traced}")))
                    .and(contains(format!("traced by process {us}")));
                tiny_docker(world, &[command, &["web"]].concat()).code(1).stderr(what);
            });
        }
    });
    nix::sys::wait::waitpid(traced, Some(nix::sys::wait::WaitPidFlag::__WALL)).unwrap();
    until("it has ended", || !alive(command));
    tiny_docker(&world, &["rm", "-f", "web"]).success();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_a_foreground_run_can_be_stopped_too() {
    let world = World::new();
    let mut running = world.start(words(&["--name", "web"], GRACEFUL));
    running.line();
    tiny_docker(&world, &["stop", "web"]).success();
    assert_eq!(running.ended(), 3);
    assert_eq!(world.inspect("web")["exit_code"], 3);
    // And one that forgets itself.
    let mut running = world.start(words(&["--name", "gone", "--rm"], GRACEFUL));
    running.line();
    tiny_docker(&world, &["stop", "gone"]).success();
    assert_eq!(running.ended(), 3);
    tiny_docker(&world, &["inspect", "gone"]).code(1);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_kill_sends_the_signal_that_is_named() {
    let world = World::new();
    let script = "trap 'echo usr1' USR1; trap 'echo hup' HUP; trap 'echo int' INT; echo ready; while :; do sleep 0.02; done";
    let id = detach(&world, &["--name", "web"], script);
    let mut expected = "ready\n".to_string();
    for (name, line) in [
        ("USR1", "usr1"),
        ("SIGUSR1", "usr1"),
        ("usr1", "usr1"),
        ("10", "usr1"),
        ("HUP", "hup"),
        ("2", "int"),
    ] {
        tiny_docker(&world, &["kill", "-s", name, "web"]).success().stdout("web\n");
        expected += &format!("{line}\n");
        until(name, || world.tiny_docker(["logs", "web"]).output().unwrap().stdout == expected.as_bytes());
    }
    for name in
        ["NOSUCH", "0", "-1", "65", "99999999999", "", "SIG", "SIGSIG", "SIGSIGUSR1", "RTMIN-1", "RTMAX+1"]
    {
        tiny_docker(&world, &["kill", &format!("--signal={name}"), "web"])
            .code(2)
            .stderr(contains("such as TERM"));
    }
    tiny_docker(&world, &["kill", "web"]).success();
    let record = world.inspect(&id);
    assert_eq!((&record["exit_code"], &record["signal"]), (&137.into(), &"SIGKILL".into()));
    tiny_docker(&world, &["kill", "web"]).code(1).stderr(contains("web is not running"));
}

// https://github.com/opencontainers/runc/issues/1766
#[test]
#[ignore = "privileged: make vm-test"]
fn task3_kill_knows_real_time_signals_and_old_names() {
    let world = World::new();
    let script = "for number in 6 29 31 34 35 49 50 63 64; do trap \"echo $number\" $number; done
                  echo ready; while :; do sleep 0.02; done";
    let id = detach(&world, &["--name", "web"], script);
    let mut expected = "ready\n".to_string();
    for (name, number) in [
        ("34", 34),
        ("RTMIN", 34),
        ("SIGRTMIN+1", 35),
        ("rtmin+15", 49),
        ("RTMAX-14", 50),
        ("sigrtmax-1", 63),
        ("RTMAX", 64),
        ("RTMIN+30", 64),
        ("IOT", 6),
        ("POLL", 29),
        ("UNUSED", 31),
    ] {
        tiny_docker(&world, &["kill", "-s", name, "web"]).success().stdout("web\n");
        expected += &format!("{number}\n");
        until(name, || world.tiny_docker(["logs", "web"]).output().unwrap().stdout == expected.as_bytes());
    }
    // A shell gets one at each end of a child.
    tiny_docker(&world, &["kill", "-s", "SIGCLD", "web"]).success();
    for name in ["RTMIN+31", "RTMAX-31", "RTMIN1", "RTMIN+", "RTMIN+-1", "RT", "SIG9", "1e1", " 9", "+9"] {
        tiny_docker(&world, &["kill", &format!("--signal={name}"), "web"])
            .code(2)
            .stderr(contains("such as TERM"));
    }
    tiny_docker(&world, &["kill", &id]).success();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_wait_prints_the_exit_codes() {
    let world = World::new();
    world.detach(&["--name", "seven"], "exit 7");
    world.detach(&["--name", "slow"], "sleep 0.5; exit 8");
    detach(&world, &["--name", "deaf"], DEAF);
    tiny_docker(&world, &["wait", "slow", "seven"]).success().stdout("8\n7\n");
    let mut waiting = world.start(["wait", "deaf"]);
    tiny_docker(&world, &["kill", "deaf"]).success();
    assert_eq!(waiting.line(), "137");
    assert_eq!(waiting.ended(), 0);
    // One that nobody shall remember.
    detach(&world, &["--rm", "--name", "gone"], DEAF);
    let mut waiting = world.start(["wait", "gone"]);
    until("it waits", || common::asleep(waiting.runtime()).as_deref() == Some("tiny-docker"));
    tiny_docker(&world, &["kill", "gone"]).success();
    assert_eq!(waiting.ended(), 1);
    tiny_docker(&world, &["wait", "nosuch", "seven"])
        .code(1)
        .stdout("7\n")
        .stderr(contains("no such container"));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_init_passes_signals_on_and_reaps_what_is_left_to_it() {
    let world = World::new();
    // As PID 1, sleep would be deaf. It ends at once of what it has no handler for.
    let id = detach(&world, &["--init"], "echo ready; exec sleep 1000");
    tiny_docker(&world, &["stop", "-t", "60", &id]).success();
    // By SIGTERM: it did not take those 60 seconds, after which it would be SIGKILL.
    assert_eq!(world.inspect(&id)["exit_code"], 128 + 15);
    // Orphans: their parent is gone, and they end. In 30 seconds and more they are reaped,
    // or never.
    let script = "orphans=$(for i in 1 2 3 4 5; do sh -c 'sleep 0.1 >/dev/null & echo $!'; done)
                  tries=0; for orphan in $orphans; do
                      while [ -e /proc/$orphan ] && [ $tries -lt 300 ]; do tries=$((tries + 1)); sleep 0.1; done
                  done
                  grep -l '^State:.Z' /proc/[0-9]*/status | wc -l; cat /proc/1/comm; echo $$";
    let id = world.detach(&["--init"], script);
    tiny_docker(&world, &["wait", &id]).stdout("0\n");
    tiny_docker(&world, &["logs", &id]).stdout("0\ntiny-docker\n2\n");
    // Without it they stay, as PID 1 here reaps nobody.
    let python = common::rootfs("debian");
    let orphan = "import os, sys, time
read, write = os.pipe()
if os.fork() == 0:
    orphan = os.fork()
    if orphan == 0: time.sleep(0.2)
    else: os.write(write, b'%d' % orphan)
    os._exit(0)
os.wait()
orphan = int(os.read(read, 9))
def state():
    try: return open(f'/proc/{orphan}/stat').read().rsplit(') ')[1][0]
    except OSError: return 'reaped'
start = time.monotonic()
while state() != sys.argv[1] and time.monotonic() < start + 30: time.sleep(0.01)
print(state())";
    for (flags, expected) in [(&[][..], "Z"), (&["--init"], "reaped")] {
        let program = ["python3", "-c", orphan, expected];
        let words = [&["run", "--rootfs", python.to_str().unwrap()], flags, &program].concat();
        tiny_docker(&world, &words).success().stdout(format!("{expected}\n"));
    }
}

// https://nvd.nist.gov/vuln/detail/CVE-2019-5736 began with a /proc/PID/exe that was the host's.
#[test]
#[ignore = "privileged: make vm-test"]
fn task4_init_shows_the_container_nothing_of_the_host() {
    let world = World::new();
    // A program that is gone from the disk once it runs, as after an upgrade.
    let program = world.dir().join("replaced");
    fs::copy(common::binary(), &program).unwrap();
    // It names itself a moment after the exec, and that is not waited for.
    let script =
        "until [ $(cat /proc/1/comm) = tiny-docker ]; do :; done; tr '\\0' '\\n' </proc/1/environ; echo --
                  tr '\\0' ' ' </proc/1/cmdline; cat /proc/1/comm; echo --
                  readlink /proc/1/exe; for change in 'echo x >>' 'cp /bin/busybox'; do
                      eval \"$change /proc/1/exe\" 2>/dev/null && echo changed; done
                  for fd in $(ls /proc/1/fd); do echo $(readlink /proc/1/fd/$fd); done; echo --; env";
    for flags in [&["--init"][..], &["--init", "-t"], &["--init", "-u", "app"]] {
        let mut shell = std::process::Command::new("bash");
        let run = "exec 9<replaced; rm replaced; exec /proc/self/fd/9 \"$@\"";
        fs::copy(common::binary(), &program).unwrap();
        shell.args(["-c", run, "bash"]).args(words(flags, script)).current_dir(world.dir());
        let output = shell.env("AWS_SECRET", "of-the-host").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap().replace('\r', "");
        let parts: Vec<&str> = text.split("--\n").collect();
        let [environment, title, files, own] = parts[..] else {
            panic!("{flags:?}: {text}\n{}", String::from_utf8_lossy(&output.stderr))
        };
        assert!(!text.contains("of-the-host") && !text.contains("replaced"), "{flags:?}: {text}");
        // What the command has, PID 1 has, and nothing else.
        let names = |text: &str| {
            text.lines().map(|line| line.split('=').next().unwrap().to_string()).collect::<BTreeSet<_>>()
        };
        // (The last two: which variant of the program days/prove.sh tries.)
        let others = ["PWD", "SHLVL", "OLDPWD", "_", "TINY_DOCKER_STAGE", "TINY_DOCKER_WRONG"];
        let others = others.map(String::from).into();
        assert_eq!(&names(environment) - &others, &names(own) - &others, "{flags:?}: {text}");
        assert_eq!(title, "tiny-docker init 2 tiny-docker\n", "{flags:?}");
        let (exe, open) = files.split_once('\n').unwrap();
        assert!(exe.contains("memfd:"), "{flags:?}: /proc/1/exe is {exe}");
        assert!(!open.contains("changed"), "{flags:?}: the program of PID 1 can be changed: {files}");
        // Its own signalfd, and the streams that are the command's as well.
        let known = |file: &str| {
            ["pipe:", "/dev/", "anon_inode:", "socket:"].iter().any(|kind| file.starts_with(kind))
        };
        assert!(open.lines().all(known), "{flags:?}: {files}");
    }
    // Nobody needs it as a command, and as one it would never end.
    tiny_docker(&world, &["init", "2"]).code(125).stderr(contains("run --init"));
    tiny_docker(&world, &["--help"]).success().stdout(contains("init").not());
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_init_passes_real_time_signals_on_and_they_end_what_has_no_handler() {
    let world = World::new();
    real_time_signals_arrive(&world, &["--init"]);
    let mut running = world.start(words(&["--init"], "echo ready; exec sleep 1000"));
    assert_eq!(running.line(), "ready");
    send(running.runtime(), 40);
    assert_eq!(running.ended(), 128 + 40);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_with_init_every_exit_code_is_the_commands() {
    let world = World::new();
    let run = |script: &str| world.tiny_docker(words(&["--init", "--rm"], script)).assert();
    for code in [0, 1, 2, 125, 126, 127, 128, 255] {
        run(&format!("exit {code}")).code(code);
    }
    run("kill -9 $$").code(137);
    run("kill -TERM $$").code(143);
    // Real-time signals have numbers from 34 on.
    run("kill -36 $$").code(128 + 36);
    let orphan = "orphan=$(sh -c 'sh -c \"kill -36 \\$\\$\" >/dev/null & echo $!')";
    run(&format!("{orphan}; while [ -e /proc/$orphan ]; do sleep 0.1; done; exit 3")).code(3);
    let rootfs = busybox();
    let run = |words: &[&str]| {
        tiny_docker(&world, &[&["run", "--init", "--rootfs", rootfs.to_str().unwrap()], words].concat())
    };
    run(&["no-such-command"]).code(127).stderr(contains("no such command"));
    run(&["/etc"]).code(126);
    run(&["-u", "app", "sh", "-c", "id -u; grep Uid /proc/1/status"])
        .success()
        .stdout("1000\nUid:\t1000\t1000\t1000\t1000\n");
    run(&["-t", "tty"]).success().stdout("/dev/pts/0\r\n");
}

// https://github.com/moby/moby/issues/25450
#[test]
#[ignore = "privileged: make vm-test"]
fn task4_with_init_a_terminal_has_its_size_and_hangs_up() {
    let world = World::new();
    for _ in 0..5 {
        let mut user = AtTerminal::start(words(&["-it", "--init", "--rm"], "exec stty size"));
        user.shows("33 111");
        assert_eq!(user.ended(), 0);
    }
    let command = words(&["-t", "--init", "--name", "web"], "").join(" ").replace("sh -c ", "yes");
    let script = format!("timeout 100 {} {command} | head -n 1", common::binary().display());
    let output = std::process::Command::new("bash").args(["-c", &script]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "y\r\n", "{}", common::said(&output));
    assert_eq!(world.inspect("web")["status"], "exited");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_with_init_ctrl_c_arrives_once_and_ends_what_has_no_handler() {
    let world = World::new();
    ctrl_c_arrives_once(&world, &["--name", "web", "--init"]);
    let mut user = AtTerminal::start(words(&["--init"], "echo ready; exec sleep 1000"));
    user.shows("ready");
    user.types("\x03");
    assert_eq!(user.ended(), 130);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_a_killed_supervisor_takes_its_container_with_it() {
    let world = World::new();
    for flags in [&[][..], &["--init"]] {
        let id = detach(&world, flags, "sleep 1000 & echo ready; exec sleep 1000");
        let (command, supervisor) = (pid(&world, &id), supervisor(&world, &id));
        kill(supervisor, Signal::SIGKILL).unwrap();
        until("the container is gone", || !alive(command));
        // The kernel may still be closing what the supervisor's threads had open, its lock above all.
        until("ps says that nobody saw its end", || world.ps().contains("Exited (unknown)"));
        tiny_docker(&world, &["stop", &id]).success();
        tiny_docker(&world, &["kill", &id]).code(1);
        tiny_docker(&world, &["wait", &id]).code(1).stderr(contains("nobody saw how"));
        tiny_docker(&world, &["rm", &id]).success();
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_after_the_machine_was_killed_nothing_runs() {
    let world = World::new();
    let id = detach(&world, &["--name", "web"], DEAF);
    let config = world.containers().join(&id).join("config.json");
    let running = fs::read_to_string(&config).unwrap();
    tiny_docker(&world, &["kill", "web"]).success();
    // As the disk is after a power cut: the record of another boot, half a record
    // beside it, and a log that ends in the middle of an entry. The number means
    // somebody who is alive.
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let mut record: Value =
        serde_json::from_str(&running.replace(boot_id.trim(), "6f1c2b3e-0000-0000-0000-000000000000"))
            .unwrap();
    record["pid"] = std::process::id().into();
    fs::write(&config, record.to_string()).unwrap();
    fs::write(config.with_extension("json.new"), "{\"version\": 1, \"id").unwrap();
    let log = config.with_file_name("container.log");
    fs::write(&log, fs::read_to_string(&log).unwrap() + "2026-11-23T10:00:00.0000").unwrap();

    assert!(world.ps().contains("Exited (unknown)"), "{}", world.ps());
    tiny_docker(&world, &["logs", "-f", "web"]).success().stdout("ready\n");
    tiny_docker(&world, &["stop", "web"]).success();
    assert!(!config.with_extension("json.new").exists());
    tiny_docker(&world, &["rm", "web"]).success();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_long_killed_at_every_moment_nothing_untrue_is_left() {
    let world = World::new();
    let rootfs = busybox();
    let moments = world.die_at_every_moment(&[
        "run",
        "-d",
        "--init",
        "--name",
        "web",
        "--rootfs",
        rootfs.to_str().unwrap(),
        "sh",
        "-c",
        "echo ready; exit 7",
    ]);
    assert!(moments > 50, "{moments}");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_the_articles_session() {
    let world = World::new();
    world.copy_of_rootfs("rootfs/alpine");
    let script =
        "trap 'echo stopping; exit 0' TERM; i=0; while :; do i=$((i+1)); echo line $i; sleep 0.1; done";
    let run = ["run", "-d", "--rootfs", "./rootfs/alpine", "/bin/sh", "-c", script];
    let output = world.tiny_docker(run).output().unwrap();
    let id = String::from_utf8(output.stdout).unwrap().trim().to_string();
    tiny_docker(&world, &["ps"])
        .success()
        .stdout(contains(&id).and(contains("Up ")).and(contains("\"/bin/sh -c trap")));
    until("it has written", || {
        world.tiny_docker(["logs", &id]).output().unwrap().stdout.starts_with(b"line 1\nline 2\n")
    });
    let mut follow = world.start(["logs", "-f", &id]);
    assert_eq!((follow.line(), follow.line()), ("line 1".into(), "line 2".into()));
    tiny_docker(&world, &["stop", &id]).success().stdout(format!("{id}\n"));
    assert_eq!(follow.ended(), 0);
    tiny_docker(&world, &["ps"]).success().stdout(contains(&id).not());
    tiny_docker(&world, &["ps", "-a"]).success().stdout(contains(&id).and(contains("Exited (0)")));
    tiny_docker(&world, &["logs", &id]).stdout(predicates::str::ends_with("stopping\n"));
    tiny_docker(&world, &["rm", &id]).success();
    assert_eq!(fs::read_dir(world.containers()).unwrap().count(), 0);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_long_300_containers_at_once() {
    let world = World::new();
    let ids = Mutex::new(Vec::new());
    let next = Mutex::new(0..300);
    // More than a bridge has addresses for; day 9 has a test of a full one.
    let flags: &[&str] = if cfg!(feature = "day8-netns") { &["--net", "host"] } else { &[] };
    // Each waits until all are there: so they end, and are recorded, at once. Meanwhile they do
    // nothing: 300 that start a program every few seconds are too much for a slow machine.
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(number) = { next.lock().unwrap().next() } {
                    let script = format!(
                        "trap 'exit {0}' TERM; echo out {number}; echo err {number} >&2; sleep 1000 & wait",
                        number % 256
                    );
                    let id = world.detach(flags, &script);
                    ids.lock().unwrap().push((number, id));
                }
            });
        }
    });
    let ids = ids.into_inner().unwrap();
    assert_eq!(ids.iter().map(|(_, id)| id).collect::<BTreeSet<_>>().len(), 300);
    let listed = world.tiny_docker(["ps", "-q"]).output().unwrap().stdout;
    assert_eq!(listed.iter().filter(|byte| **byte == b'\n').count(), 300);
    for (_, id) in &ids {
        let log = world.containers().join(id).join("container.log");
        until("it is ready", || fs::read(&log).unwrap().iter().filter(|byte| **byte == b'\n').count() == 2);
        kill(pid_on_disk(&world, id), Signal::SIGTERM).unwrap();
    }
    let words = ["wait".to_string()].into_iter().chain(ids.iter().map(|(_, id)| id.clone()));
    let codes: String = ids.iter().map(|(number, _)| format!("{}\n", number % 256)).collect();
    world.tiny_docker(words).assert().success().stdout(codes);
    for (number, id) in &ids {
        let log = fs::read_to_string(world.containers().join(id).join("container.log")).unwrap();
        let entries: BTreeSet<&str> = log.lines().map(|line| &line[31..]).collect();
        let expected = [format!("stdout F out {number}"), format!("stderr F err {number}")];
        assert_eq!(entries, expected.iter().map(String::as_str).collect());
    }
    world.remove_all();
}

fn pid_on_disk(world: &World, id: &str) -> Pid {
    let text = fs::read(world.containers().join(id).join("config.json")).unwrap();
    let record: Value = serde_json::from_slice(&text).unwrap();
    Pid::from_raw(record["pid"].as_i64().unwrap() as i32)
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_200_random_operations_at_once_leave_the_state_true() {
    let world = World::new();
    thread::scope(|scope| {
        for thread in 0..8u64 {
            let world = &world;
            scope.spawn(move || {
                let mut random = Random(0x9e37_79b9 + thread);
                for _ in 0..25 {
                    operate(world, &mut random);
                }
            });
        }
    });
    // Nobody is at work any more but containers and those that look after them.
    let ps = world.tiny_docker(["ps", "-a", "--format", "json"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&ps.stderr), "");
    let records: Vec<Value> = String::from_utf8(ps.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let mut names = BTreeSet::new();
    let mut known = BTreeSet::new();
    for record in &records {
        if let Some(name) = record["name"].as_str() {
            assert!(names.insert(name), "{name} is the name of two");
        }
        match record["status"].as_str().unwrap() {
            "running" => known.extend(record["pid"].as_i64()),
            "exited" => assert!(record["pid"].is_null() && record["finished_at"].is_string(), "{record}"),
            other => panic!("{other}: nobody is about to start"),
        }
    }
    // On the disk as in ps, with no half record beside one.
    let dirs: Vec<_> = fs::read_dir(world.containers()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(dirs.len(), records.len());
    assert!(!dirs.iter().any(|dir| dir.join("config.json.new").exists()));
    // No PID 1 of a container that ps does not know.
    for pid in common::descendants() {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let ids = status.lines().find(|line| line.starts_with("NSpid:")).unwrap_or_default();
        let state = status.lines().find(|line| line.starts_with("State:")).unwrap_or_default();
        if ids.split_whitespace().count() == 3 && ids.ends_with("\t1") && !state.contains('Z') {
            assert!(known.contains(&(pid as i64)), "{pid} runs, and ps does not know it");
        }
    }
    world.remove_all();
}

/// One thing that a person might do, or that might happen to them.
fn operate(world: &World, random: &mut Random) {
    let name = format!("name{}", random.below(6));
    let rootfs = busybox();
    let script = ["exit 3", "sleep 0.2; exit 4", GRACEFUL, DEAF][random.below(4)];
    let run = ["run", "-d", "--name", &name, "--rootfs", rootfs.to_str().unwrap()];
    let words: Vec<&str> = match random.below(12) {
        0..=3 => [&run[..], &[["--rm", "--init", "-t", "-i"][random.below(4)], "sh", "-c", script]].concat(),
        4 => [&run[..], &["no-such-command"]].concat(),
        5 => vec!["stop", "-t", "0", &name],
        6 => vec!["kill", "-s", ["TERM", "KILL"][random.below(2)], &name],
        7 => vec!["rm", &name],
        8 => vec!["rm", "-f", &name],
        9 => vec!["ps", "-a"],
        10 => vec!["logs", &name],
        _ => {
            // A supervisor dies.
            let pid = world.tiny_docker(["inspect", &name]).output().unwrap().stdout;
            let array: Value = serde_json::from_slice(&pid).unwrap();
            if let Some(pid) = array[0]["pid"].as_i64()
                && let Some((_, parent)) = processes().find(|(one, _)| *one as i64 == pid)
                && fs::read_to_string(format!("/proc/{parent}/comm")).unwrap_or_default() == "tiny-docker\n"
            {
                let _ = kill(Pid::from_raw(parent), Signal::SIGKILL);
            }
            return;
        }
    };
    let output = world.tiny_docker(&words).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    // It works, or is refused for a reason that such a race may have.
    let reasons = [
        "no such container",
        "is running",
        "is not running",
        "is taken",
        "no such command",
        "about to start",
        "such process",
        "supervisor was killed",
        "before its command ran",
    ];
    let fine = output.status.success() || reasons.iter().any(|reason| stderr.contains(reason));
    assert!(
        fine && !stderr.contains("panicked") && !stderr.contains("skipped"),
        "{words:?}: {}",
        common::said(&output)
    );
}

/// Numbers that are random enough, and the same each time. (xorshift)
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) as usize % end
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_what_cannot_be_seen_is_neither_stopped_nor_gone() {
    let world = World::new();
    let id = detach(&world, &["--name", "web"], "echo ready; exec sleep 1000");
    // In another pid namespace there is no process of the number that the record has.
    for command in ["stop", "kill", "wait"] {
        let mut elsewhere = std::process::Command::new("unshare");
        elsewhere.args(["--pid", "--fork", "--mount-proc"]).arg(common::binary()).args([command, "web"]);
        let output = elsewhere.output().unwrap();
        assert_eq!(
            (output.status.code(), output.stdout.len()),
            (Some(1), 0),
            "{command}: {}",
            common::said(&output)
        );
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("pid namespace"), "{command}: {said}");
    }
    assert_eq!(world.inspect(&id)["status"], "running");
    tiny_docker(&world, &["rm", "-f", "web"]).success();
}
