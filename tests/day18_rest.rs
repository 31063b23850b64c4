//! Day 18: what engines do with a container, besides: none of it is an exercise.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::thread;

use assert_cmd::assert::OutputAssertExt;
use common::bundle::{Engine, FOREVER, handed_over, hook, running};
use common::{alive, until};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill};
use predicates::prelude::*;
use predicates::str::contains;
use serde_json::{Value, json};

#[test]
#[ignore = "privileged: make vm-test"]
fn task8_run_has_the_commands_exit_code_and_leaves_nothing() {
    let engine = Engine::new("echo it is $(hostname); exit 7");
    engine.call(&["run", "one"]).code(7).stdout("it is tiny-runc\n");
    assert_eq!(engine.remembered(), 0);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task8_run_detach_leaves_it_to_whoever_called() {
    let engine = Engine::new("echo it runs; while [ ! -e /proc/nothere ]; do sleep 1; done");
    engine.call(&["run", "--detach", "--pid-file", "pid", "one"]).success();
    engine.until_says("output", "it runs\n");
    assert_eq!(engine.status("one"), "running");
    assert!(alive(engine.pid_in("pid")), "by this number");
    engine.call(&["delete", "--force", "one"]).success();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task8_delete_force_ends_what_runs_and_what_waits() {
    let engine = Engine::new(FOREVER);
    running(&engine);
    engine.call(&["create", "--pid-file", "other-pid", "other"]).success();
    let pids = [engine.pid_in("pid"), engine.pid_in("other-pid")];
    engine.call(&["delete", "--force", "one"]).success();
    // One that was only created has no command that anybody could miss.
    engine.call(&["delete", "other"]).success();
    until("both have ended", || !pids.into_iter().any(alive));
    assert_eq!(engine.remembered(), 0);
    engine.call(&["delete", "--force", "one"]).success();
    engine.call(&["delete", "one"]).failure().stderr(contains("does not exist"));
    engine.call(&["delete", "--force", "../one"]).code(0);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task8_signals_go_by_name_and_by_number() {
    let mut engine =
        Engine::new("trap 'exit 3' USR1; trap 'echo term' TERM; echo ready; while :; do sleep 0.05; done");
    engine.mount(json!({"destination": "/tmp", "type": "tmpfs"}));
    running(&engine);
    engine.until_says("output", "ready\n");
    engine.call(&["kill", "one"]).success();
    engine.until_says("output", "term\n");
    engine.call(&["kill", "one", "SIGTERM"]).success();
    engine.call(&["kill", "one", "nothing"]).failure();
    engine.call(&["kill", "one", "USR1"]).success();
    engine.becomes("one", "stopped");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task8_exec_is_one_more_process_as_is_asked_for() {
    let mut engine = Engine::new(FOREVER);
    engine.mount(json!({"destination": "/tmp", "type": "tmpfs"}));
    running(&engine);
    engine.call(&["exec", "one", "sh", "-c", "exit 3"]).code(3);
    engine.call(&["exec", "one", "nothere"]).code(127).stderr(contains("executable file not found in $PATH"));
    let words = [
        "exec",
        "--user",
        "1000:50",
        "--cwd",
        "/tmp",
        "--env",
        "ONE=1",
        "one",
        "sh",
        "-c",
        "id -u; id -g; pwd; echo $ONE; cat /proc/1/cmdline",
    ];
    engine.call(&words).success().stdout(contains("1000\n50\n/tmp\n1\nsh").and(contains("sleep 1")));
    let mut process = engine.config["process"].clone();
    process["args"] = json!(["sh", "-c", "echo of a file; umask"]);
    process["user"]["umask"] = json!(0o077);
    fs::write(engine.path("process.json"), process.to_string()).unwrap();
    engine.call(&["exec", "--process", "process.json", "one"]).success().stdout("of a file\n0077\n");
    engine.call(&["exec", "--detach", "--pid-file", "exec-pid", "one", "sleep", "1000"]).success();
    let pid = engine.pid_in("exec-pid");
    assert!(alive(pid), "it runs");
    engine.call(&["kill", "one", "9"]).success();
    until("the end of the first process is that of all", || !alive(pid));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task8_the_processes_of_a_pod_share_what_is_written() {
    // As a kubelet has it: one container that only waits, and another one in its namespaces.
    let mut engine = Engine::new("while :; do sleep 1; done");
    running(&engine);
    let pid = engine.pid_in("pid");
    let of = |name: &str| format!("/proc/{pid}/ns/{name}");
    let (net, ipc, uts) = (of("net"), of("ipc"), of("uts"));
    engine.has_namespaces(&[
        ("pid", None),
        ("mount", None),
        ("network", Some(&net)),
        ("ipc", Some(&ipc)),
        ("uts", Some(&uts)),
    ]);
    engine.has_script("hostname; readlink /proc/self/ns/net; ip link show lo | grep -c UP; echo $$");
    engine.config["hostname"] = json!("of-the-pod");
    let net = fs::read_link(of("net")).unwrap().display().to_string();
    engine.call(&["run", "other"]).success().stdout(format!("of-the-pod\n{net}\n1\n1\n"));
    engine.call(&["exec", "one", "hostname"]).success().stdout("of-the-pod\n");
}

/// What `terminal` shows, up to `words`.
fn shows(terminal: &mut File, words: &str) -> String {
    let (mut said, mut byte) = (vec![], [0]);
    while !String::from_utf8_lossy(&said).contains(words) {
        match terminal.read(&mut byte) {
            Ok(1) => said.push(byte[0]),
            end => panic!("{end:?} after {:?}", String::from_utf8_lossy(&said)),
        }
    }
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task8_its_terminal_goes_over_the_console_socket() {
    let mut engine =
        Engine::new("tty; stty size; read line; echo \"it is $line\"; ls -l /dev/console; sleep 1000");
    engine.config["process"]["terminal"] = json!(true);
    engine.call(&["create", "one"]).code(1).stderr(contains("--console-socket"));
    engine.config["process"]["consoleSize"] = json!({"height": 30, "width": 90});
    for call in ["create", "exec"] {
        let listener = UnixListener::bind(engine.path(call)).unwrap();
        let there = thread::spawn(move || handed_over(&listener).1);
        if call == "create" {
            engine.call(&["create", "--console-socket", call, "one"]).success();
            engine.call(&["start", "one"]).success();
        } else {
            fs::write(engine.path("process.json"), engine.config["process"].to_string()).unwrap();
            let words = ["exec", "--detach", "--process", "process.json", "--console-socket", call, "one"];
            engine.call(&words).success();
        }
        let mut terminal = there.join().unwrap();
        shows(&mut terminal, "/dev/pts/");
        assert!(shows(&mut terminal, "90").contains("30 "), "its size");
        terminal.write_all(b"typed\n").unwrap();
        shows(&mut terminal, "it is typed");
        shows(&mut terminal, "/dev/console");
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task8_a_tmpfs_begins_with_what_the_root_has_there() {
    let mut engine =
        Engine::new("cat /data/file; stat -c %a:%u /data/file; echo more >>/data/file; cat /data/file");
    let root = engine.copy_of_rootfs("rootfs");
    fs::create_dir(root.join("data")).unwrap();
    fs::write(root.join("data/file"), "hello\n").unwrap();
    fs::set_permissions(root.join("data/file"), Permissions::from_mode(0o646)).unwrap();
    std::os::unix::fs::chown(root.join("data/file"), Some(7), Some(7)).unwrap();
    engine.config["root"]["path"] = json!("rootfs");
    engine.mount(json!({"destination": "/data", "type": "tmpfs", "options": ["tmpcopyup"]}));
    assert_eq!(engine.says(), "hello\n646:7\nhello\nmore\n");
    assert_eq!(engine.text("rootfs/data/file"), "hello\n", "the root is as it was");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task8_who_it_is_and_what_it_may_is_as_is_written() {
    let mut engine = Engine::new(
        "grep -e ^CapEff -e ^CapAmb -e ^NoNewPrivs -e ^Groups /proc/self/status; id -u; ulimit -n; umask; pwd; touch /new 2>&1; cat /proc/self/oom_score_adj",
    );
    engine.config["process"]["user"] =
        json!({"uid": 1000, "gid": 1000, "additionalGids": [5, 50], "umask": 0o27});
    let some = json!(["CAP_NET_RAW"]);
    engine.config["process"]["capabilities"] =
        json!({"bounding": some, "permitted": some, "inheritable": some, "effective": some, "ambient": some});
    engine.config["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 20, "hard": 30}]);
    engine.config["process"]["cwd"] = json!("/home");
    engine.config["process"]["oomScoreAdj"] = json!(500);
    let said = engine.says().replace(['\t', ' '], "");
    for line in [
        "CapEff:0000000000002000",
        "CapAmb:0000000000002000",
        "NoNewPrivs:1",
        "1000",
        "20",
        "0027",
        "/home",
        "500",
    ] {
        assert!(said.lines().any(|one| one == line), "{line}: {said}");
    }
    assert!(said.contains("Groups:550") || said.contains("Groups:550\n"), "{said}");
    assert!(said.contains("Read-onlyfilesystem"), "{said}");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task8_a_filter_and_sysctls_are_as_is_written() {
    let mut engine =
        Engine::new("mkdir /tmp/new; chmod 700 /tmp/new; cat /proc/sys/net/ipv4/ip_forward; hostname");
    engine.mount(json!({"destination": "/tmp", "type": "tmpfs"}));
    engine.config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
        "syscalls": [{"names": ["chmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}],
    });
    engine.config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
    engine.call(&["run", "one"]).success().stdout("1\ntiny-runc\n").stderr(contains("not supported"));
    engine.config["linux"]["sysctl"] = json!({"vm.swappiness": "1"});
    engine.call(&["run", "one"]).code(1).stderr(contains("vm.swappiness").and(contains("whole machine")));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task8_files_that_are_passed_on_are_the_ones_that_are_counted() {
    let engine = Engine::new("cat <&3; ls /proc/self/fd | tr '\\n' ' '");
    engine.write();
    fs::write(engine.path("passed"), "hello\n").unwrap();
    // Numbers above those that they get, so none overwrites another.
    let high = |file: File| fcntl(&file, FcntlArg::F_DUPFD_CLOEXEC(10)).unwrap();
    let numbers = [File::open(engine.path("passed")).unwrap(), File::open("/").unwrap()].map(high);
    let mut command = engine.tiny_runc(&["run", "--preserve-fds", "1", "one"]);
    let pass = move || {
        for (to, from) in (3..).zip(numbers) {
            // SAFETY: a system call alone, in the child; what had the number `to` would be closed at exec.
            if unsafe { libc::dup2(from, to) } == -1 {
                return Err(std::io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: system calls alone.
    unsafe { command.pre_exec(pass) };
    let output = command.stdin(Stdio::null()).output().unwrap();
    // The last one is the directory that ls reads.
    output.assert().success().stdout("hello\n0 1 2 3 4 ");
}

/// What create has left, wherever it was killed, `delete --force` removes. The harness looks for the rest.
#[test]
#[ignore = "privileged: make vm-test"]
fn task8_long_whenever_create_is_killed_delete_removes_what_is_left() {
    let mut engine = Engine::new("true");
    let log = engine.path("log");
    engine.config["hooks"] = json!({"createContainer": [hook(&format!("cat >{}", log.display()))]});
    engine.write();
    for who in ["parent", "child"] {
        for moment in 1.. {
            let mut command = engine.tiny_runc(&["create", "one"]);
            command.env("TINY_DOCKER_DIE_AT", format!("{who}:{moment}"));
            let output = engine.left_alone(command);
            let created = output.status.success();
            engine.call(&["delete", "--force", "one"]).success();
            assert_eq!(engine.remembered(), 0, "{who}:{moment}");
            let cgroup = Path::new("/sys/fs/cgroup/tiny-runc/one");
            assert!(!cgroup.exists(), "{who}:{moment}: {cgroup:?} is left");
            until("nobody is left", common::nobody_is_left);
            // It has come to the end without coming to this moment.
            if created {
                break;
            }
            assert!(moment < 500, "{who}:{moment}: it never gets to its end");
        }
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task8_ps_kill_all_and_events_are_about_its_cgroup() {
    let mut engine = Engine::new(
        "trap : TERM; (trap 'echo other' TERM; while :; do sleep 0.05; done) & while :; do sleep 0.05; done",
    );
    engine.has_namespaces(&[("mount", None), ("uts", None), ("cgroup", None)]);
    running(&engine);
    let numbers = || -> Vec<i32> {
        let output = engine.call(&["ps", "--format", "json", "one"]).success();
        serde_json::from_slice(&output.get_output().stdout).unwrap()
    };
    until("both are there", || numbers().len() >= 3);
    assert!(numbers().contains(&engine.pid_in("pid").as_raw()), "{:?}", numbers());
    engine.call(&["ps", "one"]).success().stdout(contains("PID").and(contains("trap")));
    let events = engine.call(&["events", "--stats", "one"]).success();
    let events: Value = serde_json::from_slice(&events.get_output().stdout).unwrap();
    assert_eq!((&events["type"], &events["id"]), (&json!("stats"), &json!("one")));
    assert!(events["data"]["pids"]["current"].as_u64().unwrap() >= 2, "{events}");
    engine.call(&["kill", "--all", "one", "TERM"]).success();
    engine.until_says("output", "other\n");
    // It shares the host's pid namespace: whoever is not killed stays.
    engine.call(&["kill", "--all", "one", "9"]).success();
    engine.becomes("one", "stopped");
    until("all have ended", || numbers().is_empty());
    engine.call(&["events", "--stats", "one"]).failure().stderr(contains("not running"));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task8_delete_force_ends_all_of_its_cgroup() {
    let mut engine = Engine::new("sleep 1000 & echo $! ; wait");
    engine.has_namespaces(&[("mount", None), ("uts", None)]);
    running(&engine);
    engine.until_says("output", "\n");
    let other = nix::unistd::Pid::from_raw(engine.text("output").trim().parse().unwrap());
    // Its first process ends, and one that it has made does not.
    kill(engine.pid_in("pid"), Signal::SIGKILL).unwrap();
    engine.becomes("one", "stopped");
    assert!(alive(other), "it lives on");
    engine.call(&["delete", "--force", "one"]).success();
    until("it has ended too", || !alive(other));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task8_update_changes_the_limits_of_its_cgroup() {
    let mut engine = Engine::new(FOREVER);
    *engine.resources() = json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 50}});
    running(&engine);
    let look = ["exec", "one", "sh", "-c", "cd /sys/fs/cgroup && cat memory.max pids.max cpu.max"];
    engine.call(&look).success().stdout("67108864\n50\nmax 100000\n");
    engine
        .call(&["update", "--memory", "33554432", "--pids-limit", "-1", "--cpu-quota", "50000", "one"])
        .success();
    engine.call(&look).success().stdout("33554432\nmax\n50000 100000\n");
    let mut command = engine.tiny_runc(&["update", "--resources", "-", "one"]);
    let mut call = command.stdin(Stdio::piped()).spawn().unwrap();
    call.stdin.take().unwrap().write_all(br#"{"pids": {"limit": 60}}"#).unwrap();
    assert!(call.wait().unwrap().success(), "from stdin");
    engine.call(&look).success().stdout("33554432\n60\n50000 100000\n");
    engine
        .call(&["update", "--memory", "1000", "--memory-swap", "1", "one"])
        .failure()
        .stderr(contains("together"));
}
