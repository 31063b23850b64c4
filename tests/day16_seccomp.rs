//! Day 16: which system calls a container may make.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;

use assert_cmd::assert::Assert;
use common::probe;
use common::{World, busybox, in_the_vm, until};
use predicates::prelude::*;
use predicates::str::contains;
use serde_json::{Value, json};

const STATUS: &str = "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status | tr -d '\\t'";
const FILTERED: &str = "NoNewPrivs:0\nSeccomp:2\n";
const OPEN: &str = "NoNewPrivs:0\nSeccomp:0\n";

/// A run of busybox with `flags`, of `script`.
fn run(world: &World, flags: &[&str], script: &str) -> Assert {
    let rootfs = busybox();
    let words = ["run", "--rm", "--net", "none", "--rootfs", rootfs.to_str().unwrap()];
    world.tiny_docker([&words[..], flags, &["sh", "-c", script]].concat()).assert()
}

/// What the kernel says to `calls` in a container: see [`probe`].
fn probe(world: &World, flags: &[&str], calls: &str) -> Assert {
    let (rootfs, (probe, program)) = (busybox(), probe::flags(calls));
    let words = ["run", "--rm", "--net", "none", "--rootfs", rootfs.to_str().unwrap()];
    let probe: Vec<&str> = probe.iter().map(String::as_str).collect();
    world.tiny_docker([&words[..], &probe, flags, &[&program]].concat()).assert()
}

/// `NUMBER,ARGUMENT,…`
fn call(number: i64, arguments: &[i64]) -> String {
    let words: Vec<String> = std::iter::once(&number).chain(arguments).map(i64::to_string).collect();
    words.join(",")
}

/// Writes a profile that allows all but what `rules` say; the option for it.
fn option(world: &World, name: &str, profile: &Value) -> String {
    let file = world.dir().join(name);
    fs::write(&file, profile.to_string()).unwrap();
    format!("seccomp={}", file.display())
}

fn all_but(world: &World, rules: Value) -> String {
    option(world, "profile.json", &json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}))
}

/// In a container that runs.
fn exec(world: &World, flags: &[&str], script: &str) -> Assert {
    world.tiny_docker([&["exec"], flags, &["web", "sh", "-c", script]].concat()).assert()
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_whoever_runs_in_it_is_under_the_filter() {
    let world = World::new();
    for flags in [
        &[][..],
        &["-u", "app"],
        &["--cap-drop", "ALL"],
        &["--cap-add", "ALL"],
        &["-u", "app", "--cap-drop", "ALL"],
    ] {
        run(&world, flags, STATUS).success().stdout(FILTERED);
    }
    // A child has it too, and nobody gets rid of it.
    run(&world, &[], &format!("sh -c \"{STATUS}\"")).success().stdout(FILTERED);
    // On the host's root as well.
    let words = ["run", "--rm", "--net", "none", "sh", "-c", STATUS];
    world.tiny_docker(words).assert().success().stdout(FILTERED);
    for flags in [&["--security-opt", "seccomp=unconfined"][..], &["--privileged"]] {
        run(&world, flags, STATUS).success().stdout(OPEN);
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_an_init_is_under_it_as_its_command_is() {
    let world = World::new();
    let both = format!("{STATUS}; {}", STATUS.replace("self", "1"));
    for user in [&[][..], &["-u", "app"]] {
        let flags = [&["--init"], user].concat();
        run(&world, &flags, &both).success().stdout(FILTERED.repeat(2));
        let flags = [&flags[..], &["--security-opt", "seccomp=unconfined"]].concat();
        run(&world, &flags, &both).success().stdout(OPEN.repeat(2));
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_no_new_privileges_only_if_somebody_asks_for_it() {
    let world = World::new();
    for user in [&[][..], &["-u", "app"], &["--init"], &["--cap-drop", "ALL"]] {
        let flags = [&["--security-opt", "no-new-privileges"], user].concat();
        run(&world, &flags, STATUS).success().stdout("NoNewPrivs:1\nSeccomp:2\n");
    }
    // What attaching a filter took has not stayed.
    let sets = "grep -E '^Cap(Inh|Prm|Eff|Amb)' /proc/self/status /proc/1/status | tr -d '\\t'";
    for flags in [&[][..], &["-u", "app"], &["--cap-drop", "ALL"], &["--init"]] {
        let without =
            run(&world, &[flags, &["--security-opt", "seccomp=unconfined"]].concat(), sets).success();
        let without = String::from_utf8_lossy(&without.get_output().stdout).into_owned();
        assert!(!without.is_empty(), "{flags:?}");
        run(&world, flags, sets).success().stdout(without);
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_exec_and_a_check_of_its_health_have_the_containers_filter() {
    let world = World::new();
    let test = format!("{STATUS} | tr '\\n' ' '; exit 1");
    let check = ["--health-cmd", test.as_str(), "--health-interval", "500ms", "--health-retries", "1"];
    world.detach(&[&["--net", "none", "--name", "web"][..], &check].concat(), "sleep 1000");
    exec(&world, &[], STATUS).success().stdout(FILTERED);
    exec(&world, &["-u", "app"], STATUS).success().stdout(FILTERED);
    // It may more then, but is asked all the same.
    exec(&world, &["--privileged"], STATUS).success().stdout(FILTERED);
    until("it has been checked", || world.inspect("web")["health"]["log"][0]["output"].is_string());
    let said = world.inspect("web")["health"]["log"][0]["output"].as_str().unwrap_or_default().to_string();
    assert_eq!(said.trim(), "NoNewPrivs:0 Seccomp:2", "the check's own status");
    world.remove_all();
    world.detach(&["--net", "none", "--name", "web", "--security-opt", "seccomp=unconfined"], "sleep 1000");
    exec(&world, &[], STATUS).success().stdout(OPEN);
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_the_profile_stays_the_containers_when_it_starts_again() {
    let world = World::new();
    let rules = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]);
    let (rootfs, option) = (busybox(), all_but(&world, rules));
    let words = [
        "create",
        "--net",
        "none",
        "--name",
        "web",
        "--tmpfs",
        "/tmp",
        "--security-opt",
        &option,
        "--rootfs",
    ];
    let script = "mkdir /tmp/new 2>&1; sleep 1000";
    world
        .tiny_docker([&words[..], &[rootfs.to_str().unwrap(), "sh", "-c", script]].concat())
        .assert()
        .success();
    fs::remove_file(world.dir().join("profile.json")).unwrap();
    let full = "mkdir: can't create directory '/tmp/new': No space left on device\n";
    for start in 1..=2 {
        world.tiny_docker(["start", "web"]).assert().success();
        until("it has tried", || {
            let logs = world.tiny_docker(["logs", "web"]).output().unwrap();
            String::from_utf8_lossy(&logs.stdout) == full.repeat(start)
        });
        exec(&world, &[], "mkdir /tmp/new 2>&1").failure().stdout(full);
        world.tiny_docker(["kill", "web"]).assert().success();
        world.tiny_docker(["wait", "web"]).assert().success();
    }
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_what_is_refused_fails_as_the_profile_says() {
    let world = World::new();
    let calls = [
        call(libc::SYS_getpid, &[]),
        call(libc::SYS_add_key, &[]),
        call(libc::SYS_keyctl, &[]),
        call(libc::SYS_bpf, &[]),
        call(libc::SYS_userfaultfd, &[]),
        call(libc::SYS_io_uring_setup, &[]),
        call(libc::SYS_unshare, &[libc::CLONE_NEWUSER.into()]),
        // As if there were none: then the C library uses clone, whose flags can be looked at.
        call(libc::SYS_clone3, &[]),
        // Of tomorrow.
        call(999, &[]),
        // A socket of the kernel's cryptography, and of a virtual machine.
        call(libc::SYS_socket, &[38, 5, 0]),
        call(libc::SYS_socket, &[40, 1, 0]),
        call(libc::SYS_socket, &[1, 1, 0]),
        call(libc::SYS_personality, &[0xffff_ffff]),
        call(libc::SYS_personality, &[0x004_0000]),
    ];
    let said = "ok\nEPERM\nEPERM\nEPERM\nEPERM\nEPERM\nEPERM\nENOSYS\nENOSYS\nEPERM\nEPERM\nok\nok\nEPERM\n";
    probe(&world, &[], &calls.join(" ")).success().stdout(said);
    probe(&world, &["-u", "app"], &calls.join(" ")).success().stdout(said);
    // Where nothing is filtered the kernel itself has something to say.
    let open = probe(&world, &["--security-opt", "seccomp=unconfined"], &calls[7]);
    open.success().stdout("EINVAL\n");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_a_capability_opens_the_calls_that_it_is_for() {
    let world = World::new();
    let mount = "mkdir -p /tmp/m && mount -t tmpfs tmpfs /tmp/m && echo mounted";
    run(&world, &["--tmpfs", "/tmp", "--cap-add", "SYS_ADMIN"], mount).success().stdout("mounted\n");
    run(&world, &["--tmpfs", "/tmp"], mount).failure();
    let clone3 = call(libc::SYS_clone3, &[]);
    probe(&world, &["--cap-add", "SYS_ADMIN"], &clone3).success().stdout("EINVAL\n");
    // Root's own right, and the call for it.
    run(&world, &["--cap-drop", "ALL"], "chroot / true").failure();
    run(&world, &[], "chroot / true").success();
    // A program that is privileged in what it is allowed is still asked.
    let rules = json!([{"names": ["chroot"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]);
    let option = all_but(&world, rules);
    run(&world, &["--privileged", "--security-opt", &option], "chroot / true 2>&1")
        .failure()
        .stdout(contains("No space left on device"));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_the_arguments_are_looked_at() {
    let world = World::new();
    let condition = |op: &str, value: u64| {
        let args = json!([{"index": 1, "value": value, "valueTwo": 0, "op": format!("SCMP_CMP_{op}")}]);
        json!([{"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28, "args": args}])
    };
    // To nobody: ESRCH, unless it is refused.
    let calls: Vec<String> = (1..=4).map(|signal| call(libc::SYS_kill, &[999_999, signal])).collect();
    for (op, value, refused) in [
        ("NE", 2, "ynyy"),
        ("LT", 2, "ynnn"),
        ("LE", 2, "yynn"),
        ("EQ", 2, "nynn"),
        ("GE", 2, "nyyy"),
        ("GT", 2, "nnyy"),
        ("MASKED_EQ", 1, "nyny"),
    ] {
        let expected: String =
            refused.chars().map(|one| if one == 'y' { "ENOSPC\n" } else { "ESRCH\n" }).collect();
        let option = all_but(&world, condition(op, value));
        probe(&world, &["--security-opt", &option], &calls.join(" ")).success().stdout(expected);
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_a_call_may_be_the_end() {
    let world = World::new();
    for (action, code) in [
        ("KILL_PROCESS", 128 + 31),
        ("KILL_THREAD", 128 + 31),
        ("KILL", 128 + 31),
        // A signal, for which a program may have a handler. This one has none.
        ("TRAP", 128 + 31),
        // Nobody traces it, and mkdir fails.
        ("TRACE", 1),
        ("LOG", 0),
        ("ALLOW", 0),
    ] {
        let rules = json!([{"names": ["mkdir", "mkdirat"], "action": format!("SCMP_ACT_{action}")}]);
        let option = all_but(&world, rules);
        let mut flags = vec!["--tmpfs", "/tmp", "--security-opt", &option];
        // The end of a child is not the end of the container.
        let of_a_child = "mkdir /tmp/new; echo $?; exit 7";
        run(&world, &flags, of_a_child).code(7).stdout(format!("{code}\n"));
        let own = "echo before; exec mkdir /tmp/new";
        run(&world, &flags, own).code(code).stdout("before\n");
        flags.insert(0, "--init");
        run(&world, &flags, own).code(code).stdout("before\n");
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_a_call_by_other_numbers_is_no_way_round() {
    let world = World::new();
    probe(&world, &[], &call(libc::SYS_keyctl, &[])).success().stdout("EPERM\n");
    if !cfg!(target_arch = "x86_64") {
        // Here a program of 64 bits has one set of numbers alone.
        return;
    }
    // getpid and add_key of the 386, which the guest's kernel has.
    let is_there = is_there(&world, "x86:20");
    assert!(is_there || !in_the_vm(), "a call by the 386's numbers");
    if is_there {
        probe(&world, &[], "x86:20 x86:286").success().stdout("ok\nEPERM\n");
        let alone = all_but(&world, json!([]));
        probe(&world, &["--security-opt", &alone], "x86:20").code(128 + 31).stdout("");
        let listed = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"],
            "syscalls": [{"names": ["getpid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]});
        let listed = option(&world, "listed.json", &listed);
        let calls = format!("x86:20 x86:24 {}", call(libc::SYS_getpid, &[]));
        probe(&world, &["--security-opt", &listed], &calls).success().stdout("ENOSPC\nok\nENOSPC\n");
    }
    // Of x32, which most kernels do not run either.
    let x32 = call(0x4000_0000 + libc::SYS_getpid, &[]);
    probe(&world, &[], &x32).success().stdout("ENOSYS\n");
    let open = all_but(&world, json!([]));
    probe(&world, &["--security-opt", &open], &x32).success().stdout("ENOSYS\n");
}

/// Whether this kernel runs programs of 32 bits.
fn is_there(world: &World, call: &str) -> bool {
    let output = probe(world, &["--security-opt", "seccomp=unconfined"], call).get_output().clone();
    String::from_utf8_lossy(&output.stdout) == "ok\n"
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_a_profile_that_forbids_its_start_is_an_error() {
    let world = World::new();
    let rules = json!([{"names": ["execve", "execveat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]);
    let option = all_but(&world, rules);
    for flags in [&[][..], &["--init"]] {
        let flags = [&["--security-opt", &option], flags].concat();
        let output = run(&world, &flags, "echo it ran").failure();
        let is_told = contains("exec").and(contains("not permitted"));
        output.stdout("").stderr(is_told);
    }
    // Killed when it says that it is about to start, or at the start itself: then it counts as one.
    let killed = |name: &str| {
        let option = all_but(&world, json!([{"names": [name], "action": "SCMP_ACT_KILL_PROCESS"}]));
        run(&world, &["--security-opt", &option], "echo it ran").stdout("")
    };
    killed("write").code(125).stderr(contains("SIGSYS").and(contains("seccomp")));
    killed("execve").code(128 + 31);
    assert_eq!(world.ps().lines().count(), 1, "nothing is left: {}", world.ps());
}

/// The runtime has looked for the command before: what it takes for that is none of the profile's.
#[test]
#[ignore = "privileged: make vm-test"]
fn task5_what_its_start_takes_need_not_be_allowed() {
    let world = World::new();
    let names = ["statx", "newfstatat", "stat", "lstat", "access", "faccessat", "faccessat2", "openat"];
    for answer in
        [json!({"action": "SCMP_ACT_KILL_PROCESS"}), json!({"action": "SCMP_ACT_ERRNO", "errnoRet": 2})]
    {
        let mut rule = json!({ "names": names });
        rule.as_object_mut().unwrap().extend(answer.as_object().unwrap().clone());
        let option = all_but(&world, json!([rule]));
        probe(&world, &["--security-opt", &option], &call(libc::SYS_getppid, &[])).success().stdout("ok\n");
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_explain_says_what_is_attached_and_that_it_is_the_last() {
    let world = World::new();
    let rootfs = busybox();
    let words = ["--explain", "run", "--rm", "--net", "none", "--rootfs", rootfs.to_str().unwrap(), "true"];
    let output = world.tiny_docker(words).assert().success();
    let text = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    let steps: Vec<&str> = text.lines().filter(|line| line.starts_with("[day ")).collect();
    let at = steps.iter().position(|line| line.contains("seccomp(SECCOMP_SET_MODE_FILTER"));
    let exec = steps.iter().position(|line| line.contains("execve("));
    assert!(at.is_some(), "{text}");
    assert_eq!(at.map(|at| at + 1), exec, "nothing is between the filter and the exec: {text}");
    let told = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(told.contains("instructions): what no rule names gets: EPERM"), "{text}");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_what_is_refused_can_be_logged() {
    let world = World::new();
    // Only there the kernel's log is this test's own.
    let log = || {
        let output = std::process::Command::new("dmesg").output().unwrap();
        String::from_utf8_lossy(&output.stdout).lines().filter(|line| line.contains("type=1326")).count()
    };
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_LOG"}]});
    let option = option(&world, "log.json", &profile);
    let before = log();
    run(&world, &["--tmpfs", "/tmp", "--security-opt", &option], "mkdir /tmp/new && echo made")
        .success()
        .stdout("made\n");
    if in_the_vm() && Path::new("/proc/sys/kernel/seccomp/actions_logged").exists() {
        until("it is in the kernel's log", || log() > before);
    }
    // And what is merely refused is not: whoever is refused can ask again, and again.
    let before = log();
    let calls = vec![call(libc::SYS_keyctl, &[]); 20].join(" ");
    probe(&world, &[], &calls).success().stdout("EPERM\n".repeat(20));
    assert!(log() <= before || !in_the_vm(), "refused calls are in the kernel's log");
}

/// What ordinary programs ask the kernel for: threads, other processes, shared memory and locks in
/// it, sockets, events, timers, locks of files, extended attributes, another user.
const PYTHON: &str = r#"
import asyncio, fcntl, multiprocessing, os, select, signal, socket, subprocess, tempfile, threading
from multiprocessing import shared_memory
done = []
threads = [threading.Thread(target=done.append, args=[number]) for number in range(8)]
[thread.start() for thread in threads]; [thread.join() for thread in threads]
print("threads", sorted(done))
print("processes", multiprocessing.Pool(2).map(abs, [-1, -2]))
memory = shared_memory.SharedMemory(create=True, size=4096); memory.buf[0] = 7
other = shared_memory.SharedMemory(memory.name); print("memory", other.buf[0])
other.close(); memory.close(); memory.unlink()
print("a program", subprocess.run(["id", "-u"], capture_output=True, user=1000, text=True).stdout.strip())
async def talk():
    server = await asyncio.start_server(lambda reader, writer: (writer.write(b"hello"), writer.close()), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    print("sockets", await reader.read()); writer.close(); server.close()
asyncio.run(talk())
one, two = socket.socketpair(); poll = select.epoll(); poll.register(two, select.EPOLLIN); one.send(b"x")
print("events", len(poll.poll()))
signal.signal(signal.SIGALRM, lambda *_: None); signal.setitimer(signal.ITIMER_REAL, 0.01); signal.pause()
with tempfile.TemporaryFile() as file:
    fcntl.flock(file, fcntl.LOCK_EX); file.write(b"data"); file.flush(); os.fsync(file.fileno())
    print("a file", os.sendfile(os.memfd_create("copy"), file.fileno(), 0, 4))
print("random", len(os.getrandom(8)), "processors", len(os.sched_getaffinity(0)) > 0)
"#;

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_what_people_run_runs_under_the_usual_filter() {
    let world = World::new();
    let debian = common::rootfs("debian");
    let words = ["run", "--rm", "--net", "none", "--tmpfs", "/tmp", "--layer", debian.to_str().unwrap()];
    let run = |command: &[&str]| world.tiny_docker([&words[..], command].concat()).assert().success();
    run(&["python3", "-c", PYTHON]).stdout(
        "threads [0, 1, 2, 3, 4, 5, 6, 7]\nprocesses [1, 2]\nmemory 7\na program 1000\nsockets b'hello'\n\
         events 1\na file 4\nrandom 8 processors True\n",
    );
    // A package, as from a repository; none of it is needed from a network.
    let install = "mkdir -p /tmp/hello/DEBIAN /tmp/hello/srv && cd /tmp && echo there >hello/srv/hello &&
        printf '%s\\n' 'Package: hello' 'Version: 1' 'Architecture: all' 'Maintainer: us' 'Description: none' >hello/DEBIAN/control &&
        dpkg-deb --build hello >&2 && apt-get install --yes ./hello.deb >&2 && cat /srv/hello";
    run(&["sh", "-c", install]).stdout("there\n");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_long_killed_at_any_moment_nothing_is_left() {
    let world = World::new();
    let rootfs = busybox();
    let option = all_but(&world, json!([{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]));
    let words = ["run", "--net", "none", "-u", "app", "--security-opt", &option, "--rootfs"];
    let words = [&words[..], &[rootfs.to_str().unwrap(), "sh", "-c", "exit 7"]].concat();
    assert!(world.die_at_every_moment(&words) > 20, "so many operations are between its start and its end");
}
