//! Day 16: what a profile says, and for which container; and the program that it becomes.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fs;

use assert_cmd::assert::Assert;
use common::{World, busybox};
use predicates::prelude::*;
use predicates::str::{contains, is_empty};
use serde_json::{Value, json};

/// What the kernel is to do: the upper halves of a filter's answers. (linux/seccomp.h)
const ALLOW: u32 = 0x7fff_0000;
const LOG: u32 = 0x7ffc_0000;
const ERRNO: u32 = 0x0005_0000;
const TRAP: u32 = 0x0003_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
const KILL_THREAD: u32 = 0;
const ENOSYS: u32 = ERRNO | 38;

/// A profile: what is done by default, and rules.
fn profile(default: &str, rules: Value) -> Value {
    json!({ "defaultAction": default, "syscalls": rules })
}

/// Writes `profile` into a file of this test's.
fn write(world: &World, profile: impl ToString) -> String {
    let file = world.dir().join("profile.json");
    fs::write(&file, profile.to_string()).unwrap();
    file.to_str().unwrap().into()
}

/// A run under `profile`.
fn run(world: &World, profile: impl ToString) -> Assert {
    let (rootfs, option) = (busybox(), format!("seccomp={}", write(world, profile)));
    let words = ["run", "--rm", "--net", "none", "--security-opt", &option];
    let words = [&words[..], &["--rootfs", rootfs.to_str().unwrap(), "sh", "-c", "echo it ran"]].concat();
    world.tiny_docker(words).assert()
}

/// What is decided about each call of this machine's own numbers, as `seccomp show --calls` says it.
fn decided(world: &World, flags: &[&str], profile: impl ToString) -> BTreeMap<String, String> {
    let file = write(world, profile);
    let output = world.tiny_docker([&["seccomp", "show", "--calls"], flags, &[&file]].concat()).assert();
    of_this_machine(&String::from_utf8_lossy(&output.success().get_output().stdout))
}

fn of_this_machine(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter(|line| !line.starts_with('#')).skip(1);
    let own = lines.take_while(|line| !line.starts_with('['));
    own.filter_map(|line| line.split_once(": ")).map(|(name, what)| (name.into(), what.into())).collect()
}

/// The program that `profile` becomes: its instructions.
fn program(world: &World, profile: impl ToString) -> Vec<[u8; 8]> {
    let file = write(world, profile);
    let output = world.tiny_docker(["seccomp", "show", "--bytes", &file]).assert().success();
    let bytes = output.get_output().stdout.clone();
    assert_eq!(bytes.len() % 8, 0, "an instruction has eight bytes, and these are {}", bytes.len());
    bytes.chunks_exact(8).map(|chunk| chunk.try_into().unwrap()).collect()
}

/// What a program answers to a call, as the kernel's machine would run it, and how many
/// instructions that takes. (kernel: networking/filter)
fn answer(program: &[[u8; 8]], architecture: u32, number: u32, arguments: [u64; 6]) -> (u32, usize) {
    let mut question = vec![number, architecture, 0, 0];
    question.extend(arguments.iter().flat_map(|argument| [*argument as u32, (*argument >> 32) as u32]));
    let (mut register, mut at, mut steps) = (0, 0, 0);
    loop {
        let [c1, c2, yes, no, n1, n2, n3, n4] = program[at];
        let number = u32::from_ne_bytes([n1, n2, n3, n4]);
        (at, steps) = (at + 1, steps + 1);
        let holds = match u16::from_ne_bytes([c1, c2]) {
            0x20 => {
                register = question[number as usize / 4];
                continue;
            }
            0x54 => {
                register &= number;
                continue;
            }
            0x05 => {
                at += number as usize;
                continue;
            }
            0x15 => register == number,
            0x25 => register > number,
            0x35 => register >= number,
            0x45 => register & number != 0,
            0x06 => return (number, steps),
            code => panic!("instruction {}: {code:#x} is none that this program needs", at - 1),
        };
        at += usize::from(if holds { yes } else { no });
    }
}

/// What the kernel calls this machine. (linux/audit.h)
const OWN: u32 = if cfg!(target_arch = "x86_64") { 0xc000_003e } else { 0xc000_00b7 };
/// And the one whose programs of 32 bits it runs.
const SIBLING: (u32, &str) = if cfg!(target_arch = "x86_64") {
    (0x4000_0003, "SCMP_ARCH_X86")
} else {
    (0x4000_0028, "SCMP_ARCH_ARM")
};

fn number(call: i64) -> u32 {
    u32::try_from(call).unwrap()
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_what_is_no_profile_is_an_error_that_says_where() {
    let world = World::new();
    let rule = |rule: Value| profile("SCMP_ACT_ALLOW", json!([rule])).to_string();
    let argument = |index: u32, op: &str| {
        rule(
            json!({"names": ["dup"], "action": "SCMP_ACT_ALLOW", "args": [{"index": index, "value": 1, "op": op}]}),
        )
    };
    for (text, named) in [
        ("".to_string(), "line 1"),
        ("{".into(), "line 1"),
        ("[]".into(), "line 1"),
        ("{}".into(), "defaultAction"),
        (profile("SCMP_ACT_PERHAPS", json!([])).to_string(), "SCMP_ACT_PERHAPS"),
        (rule(json!({"names": ["dup"], "action": "ALLOW"})), "`ALLOW`"),
        (rule(json!({"names": ["dup"]})), "action"),
        (rule(json!({"names": [], "action": "SCMP_ACT_ALLOW"})), "syscalls[0]"),
        (rule(json!({"action": "SCMP_ACT_ALLOW"})), "syscalls[0]"),
        (rule(json!({"names": ["dup"], "name": "dup2", "action": "SCMP_ACT_ALLOW"})), "name, names"),
        // A misspelt condition would be none.
        (rule(json!({"names": ["dup"], "action": "SCMP_ACT_ALLOW", "arg": []})), "`arg`"),
        (argument(6, "SCMP_CMP_EQ"), "syscalls[0] (dup): args[0].index"),
        (argument(0, "SCMP_CMP_LIKE"), "SCMP_CMP_LIKE"),
        (rule(json!({"names": ["dup"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4096})), "errnoRet: 4096"),
        (rule(json!({"names": ["dup"], "action": "SCMP_ACT_ERRNO", "errno": "EWHAT"})), "EWHAT"),
        (
            rule(json!({"names": ["dup"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "four"}})),
            "includes: minKernel",
        ),
        // What is misspelt would hold for nobody.
        (
            rule(json!({"names": ["dup"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["SYS_CHROOT"]}})),
            "excludes: caps: \"SYS_CHROOT\"",
        ),
        (
            rule(json!({"names": ["dup"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["x86_64"]}})),
            "includes: arches: \"x86_64\"",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_46"]}).to_string(),
            "SCMP_ARCH_X86_46",
        ),
        (json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_LOG"]}).to_string(), "SECCOMP_LOG"),
        // Of a number and a name the name counts, as with podman.
        (
            rule(json!({"names": ["dup"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "errno": "EWHAT"})),
            "EWHAT",
        ),
        // Nobody is there who could decide.
        (rule(json!({"names": ["dup"], "action": "SCMP_ACT_NOTIFY"})), "SCMP_ACT_NOTIFY"),
        (json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/x"}).to_string(), "listenerPath"),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"],
                "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": []}]})
            .to_string(),
            "architectures, archMap",
        ),
        (json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["amd64"]}).to_string(), "\"amd64\""),
    ] {
        run(&world, &text)
            .code(125)
            .stdout(is_empty())
            .stderr(contains("--security-opt seccomp=").and(contains("profile.json")).and(contains(named)));
    }
    assert_eq!(world.ps().lines().count(), 1, "nothing was made: {}", world.ps());
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_a_file_that_is_missing_or_too_large_is_an_error() {
    let world = World::new();
    let rootfs = busybox();
    let words = |option: &str| {
        ["create", "--security-opt", option, "--rootfs", rootfs.to_str().unwrap(), "true"].map(String::from)
    };
    let missing = world.tiny_docker(words("seccomp=nosuch.json")).assert();
    missing.code(125).stderr(contains("seccomp=nosuch.json").and(contains("unconfined")));
    let large = profile("SCMP_ACT_ALLOW", json!([])).to_string() + &" ".repeat(2 << 20);
    let option = format!("seccomp={}", write(&world, large));
    world.tiny_docker(words(&option)).assert().code(125).stderr(contains("too large"));
    assert_eq!(world.ps().lines().count(), 1, "nothing was made: {}", world.ps());
    // Long it may be.
    let long = profile("SCMP_ACT_ALLOW", json!([])).to_string() + &" ".repeat(512 << 10);
    let option = format!("seccomp={}", write(&world, long));
    world.tiny_docker(words(&option)).assert().success();
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_what_docker_podman_and_the_oci_write_is_read() {
    let world = World::new();
    for text in [
        profile("SCMP_ACT_ALLOW", json!([])),
        json!({"defaultAction": "SCMP_ACT_ALLOW"}),
        json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": null, "archMap": null, "syscalls": null}),
        // The first years.
        profile("SCMP_ACT_ALLOW", json!([{"name": "add_key", "action": "SCMP_ACT_ERRNO", "args": null}])),
        // podman
        json!({
            "defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 38, "defaultErrno": "ENOSYS",
            "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
            "syscalls": [{
                "names": ["add_key"], "action": "SCMP_ACT_ERRNO", "args": [], "comment": "", "includes": {},
                "excludes": {}, "errnoRet": 1, "errno": "EPERM"
            }],
        }),
        // OCI
        json!({
            "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_S390X"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC"],
            "syscalls": [{
                "names": ["add_key", "a_call_of_tomorrow"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5,
                "args": [{"index": 0, "value": 1, "valueTwo": 0, "op": "SCMP_CMP_NE"}]
            }],
        }),
    ] {
        run(&world, &text).success().stdout("it ran\n");
    }
    // Docker's words for what is no file.
    let rootfs = busybox();
    for option in ["seccomp=unconfined", "seccomp:unconfined", "seccomp=builtin"] {
        let words = ["run", "--rm", "--net", "none", "--security-opt", option, "--rootfs"];
        world.tiny_docker([&words[..], &[rootfs.to_str().unwrap(), "true"]].concat()).assert().success();
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_the_record_keeps_the_profile_itself() {
    let world = World::new();
    let text = profile("SCMP_ACT_ALLOW", json!([{"names": ["add_key"], "action": "SCMP_ACT_ERRNO"}]));
    let (rootfs, option) = (busybox(), format!("seccomp={}", write(&world, &text)));
    let words =
        ["create", "--name", "web", "--security-opt", &option, "--rootfs", rootfs.to_str().unwrap(), "true"];
    world.tiny_docker(words).assert().success();
    // Whatever becomes of the file.
    fs::write(world.dir().join("profile.json"), "{}").unwrap();
    let kept = world.inspect("web")["privileges"]["seccomp"].as_str().unwrap_or_default().to_string();
    assert_eq!(serde_json::from_str::<Value>(&kept).ok(), Some(text), "{kept}");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_a_rule_is_for_those_that_it_includes_and_does_not_exclude() {
    let world = World::new();
    let machine = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    for (filters, flags, is_there) in [
        (json!({}), "", true),
        (json!({"includes": {}, "excludes": {}}), "", true),
        (json!({"includes": {"caps": ["CAP_CHOWN"]}}), "", true),
        (json!({"includes": {"caps": ["CAP_SYS_ADMIN"]}}), "", false),
        (json!({"includes": {"caps": ["CAP_SYS_ADMIN"]}}), "--cap-add SYS_ADMIN", true),
        (json!({"includes": {"caps": ["CAP_CHOWN"]}}), "--cap-drop ALL", false),
        // All of them.
        (json!({"includes": {"caps": ["CAP_CHOWN", "CAP_SYS_TIME"]}}), "", false),
        (json!({"includes": {"caps": ["CAP_CHOWN", "CAP_SYS_TIME"]}}), "--cap-add SYS_TIME", true),
        (json!({"includes": {"caps": ["CAP_OF_TOMORROW"]}}), "--cap-add ALL", false),
        (json!({"includes": {"arches": [machine]}}), "", true),
        (json!({"includes": {"arches": ["s390x", machine]}}), "", true),
        (json!({"includes": {"arches": ["s390x"]}}), "", false),
        (json!({"includes": {"minKernel": "4.8"}}), "", true),
        (json!({"includes": {"minKernel": "99.0"}}), "", false),
        (json!({"includes": {"minKernel": ""}}), "", true),
        (json!({"includes": {"caps": ["CAP_CHOWN"], "arches": ["s390x"]}}), "", false),
        // One of them is enough.
        (json!({"excludes": {"caps": ["CAP_SYS_TIME", "CAP_CHOWN"]}}), "", false),
        (json!({"excludes": {"caps": ["CAP_SYS_TIME"]}}), "", true),
        (json!({"excludes": {"caps": ["CAP_SYS_TIME"]}}), "--cap-add SYS_TIME", false),
        (json!({"excludes": {"arches": [machine]}}), "", false),
        (json!({"excludes": {"arches": ["s390x"]}}), "", true),
        (json!({"excludes": {"minKernel": "4.8"}}), "", false),
        (json!({"excludes": {"minKernel": "99.0"}}), "", true),
        (json!({"includes": {"caps": ["CAP_CHOWN"]}, "excludes": {"caps": ["CAP_CHOWN"]}}), "", false),
    ] {
        let mut rule = json!({"names": ["add_key"], "action": "SCMP_ACT_ALLOW"});
        rule.as_object_mut().unwrap().extend(filters.as_object().unwrap().clone());
        let flags: Vec<&str> = flags.split_whitespace().collect();
        let decided = decided(&world, &flags, profile("SCMP_ACT_ERRNO", json!([rule])));
        let expected = is_there.then_some("allow");
        assert_eq!(decided.get("add_key").map(String::as_str), expected, "{filters}, {flags:?}: {decided:?}");
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_which_of_several_rules_for_a_call_counts() {
    let world = World::new();
    let condition = |index: u32, value: u64| json!({"index": index, "value": value, "op": "SCMP_CMP_EQ"});
    let rule = |action: &str, error: u32, args: &[Value]| json!({"names": ["dup"], "action": format!("SCMP_ACT_{action}"), "errnoRet": error, "args": args});
    for (rules, expected) in [
        // What says the same as the default says nothing, and is in nobody's way.
        (vec![rule("ERRNO", 1, &[])], None),
        (
            vec![rule("ERRNO", 1, &[]), rule("ALLOW", 0, &[condition(0, 3)])],
            Some("allow if argument 0 == 3; EPERM"),
        ),
        (vec![rule("ERRNO", 2, &[])], Some("ENOENT")),
        // Without conditions the first one counts, also after one that has some.
        (vec![rule("ALLOW", 0, &[]), rule("ERRNO", 2, &[])], Some("allow")),
        (vec![rule("ALLOW", 0, &[]), rule("ERRNO", 2, &[condition(0, 3)])], Some("allow")),
        (vec![rule("ERRNO", 2, &[condition(0, 3)]), rule("ALLOW", 0, &[])], Some("allow")),
        // With conditions they are asked one after the other.
        (
            vec![rule("ALLOW", 0, &[condition(0, 3)]), rule("ERRNO", 2, &[condition(1, 4)])],
            Some("allow if argument 0 == 3; ENOENT if argument 1 == 4; EPERM"),
        ),
        (
            vec![rule("LOG", 0, &[condition(0, 3), condition(1, 4)])],
            Some("allow, and log if argument 0 == 3 and argument 1 == 4; EPERM"),
        ),
        // Two on one argument: one is enough, as with runc.
        (
            vec![rule("ALLOW", 0, &[condition(0, 3), condition(0, 4)])],
            Some("allow if argument 0 == 3; allow if argument 0 == 4; EPERM"),
        ),
    ] {
        let decided = decided(&world, &[], profile("SCMP_ACT_ERRNO", json!(rules)));
        assert_eq!(decided.get("dup").map(String::as_str), expected, "{rules:?}: {decided:?}");
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_the_usual_profile_is_dockers() {
    let world = World::new();
    let of = |flags: &[&str]| {
        let output = world.tiny_docker([&["seccomp", "show", "--calls"], flags].concat()).assert().success();
        of_this_machine(&String::from_utf8_lossy(&output.get_output().stdout))
    };
    let usual = of(&[]);
    for allowed in
        ["read", "openat", "execve", "ptrace", "chroot", "seccomp", "mseal", "landlock_create_ruleset"]
    {
        assert_eq!(usual.get(allowed).map(String::as_str), Some("allow"), "{allowed}");
    }
    for refused in
        ["add_key", "keyctl", "bpf", "io_uring_setup", "userfaultfd", "mount", "setns", "unshare", "reboot"]
    {
        assert_eq!(usual.get(refused), None, "{refused}");
    }
    for (name, expected) in [
        ("clone3", "ENOSYS"),
        ("clone", "allow if argument 0 & 0x7e020000 == 0x0; EPERM"),
        ("socket", "allow if argument 0 < 38; allow if argument 0 == 39; allow if argument 0 > 40; EPERM"),
        ("any other", "EPERM"),
        ("newer than removexattrat", "ENOSYS"),
    ] {
        assert_eq!(usual.get(name).map(String::as_str), Some(expected), "{name}: {usual:?}");
    }
    // What a capability opens is open for who has it.
    let admin = of(&["--cap-add", "SYS_ADMIN"]);
    for allowed in ["mount", "setns", "unshare", "clone", "clone3", "bpf"] {
        assert_eq!(admin.get(allowed).map(String::as_str), Some("allow"), "with SYS_ADMIN: {allowed}");
    }
    assert_eq!(admin.get("reboot"), None, "SYS_ADMIN is not SYS_BOOT");
    assert_eq!(of(&["--cap-drop", "ALL"]).get("chroot"), None, "without SYS_CHROOT");
    let modules = of(&["--cap-add", "SYS_MODULE"]);
    assert_eq!(modules.get("finit_module").map(String::as_str), Some("allow"), "with SYS_MODULE");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_each_number_gets_its_answer() {
    let world = World::new();
    let names = |action: &str, error: u32, names: &[&str]| json!({"names": names, "action": format!("SCMP_ACT_{action}"), "errnoRet": error});
    let rules = json!([
        names("ALLOW", 0, &["read", "write", "dup", "statx", "openat"]),
        names("ERRNO", 5, &["close"]),
        names("LOG", 0, &["getpid"]),
        names("TRAP", 0, &["getcwd"]),
        names("KILL_THREAD", 0, &["fchdir"]),
        names("KILL", 0, &["chroot"]),
        names("KILL_PROCESS", 0, &["reboot"]),
        names("TRACE", 7, &["sync"]),
    ]);
    let program = program(&world, profile("SCMP_ACT_ERRNO", rules));
    let expected: BTreeMap<u32, u32> = [
        (libc::SYS_read, ALLOW),
        (libc::SYS_write, ALLOW),
        (libc::SYS_dup, ALLOW),
        (libc::SYS_statx, ALLOW),
        (libc::SYS_openat, ALLOW),
        (libc::SYS_close, ERRNO | 5),
        (libc::SYS_getpid, LOG),
        (libc::SYS_getcwd, TRAP),
        (libc::SYS_fchdir, KILL_THREAD),
        (libc::SYS_chroot, KILL_THREAD),
        (libc::SYS_reboot, KILL_PROCESS),
        (libc::SYS_sync, 0x7ff0_0007),
    ]
    .map(|(call, answer)| (number(call), answer))
    .into();
    let newest = number(libc::SYS_statx);
    for number in 0..600 {
        let other = if number > newest { ENOSYS } else { ERRNO | 1 };
        let expected = expected.get(&number).copied().unwrap_or(other);
        let (found, _) = answer(&program, OWN, number, [7; 6]);
        assert_eq!(found, expected, "call {number}: {found:#x}, not {expected:#x}");
    }
    assert_eq!(answer(&program, OWN, u32::MAX, [0; 6]).0, ENOSYS, "the largest number");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_what_is_newer_than_a_profile_does_not_exist() {
    let world = World::new();
    let rule = |action: &str, name: &str| json!([{"names": [name], "action": action}]);
    let newer = number(libc::SYS_openat) + 1;
    for (default, action, expected) in [
        ("SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW", ENOSYS),
        ("SCMP_ACT_KILL_PROCESS", "SCMP_ACT_ALLOW", ENOSYS),
        // A rule that says nothing new has told what its author knew.
        ("SCMP_ACT_ERRNO", "SCMP_ACT_ERRNO", ENOSYS),
        ("SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", ALLOW),
        ("SCMP_ACT_LOG", "SCMP_ACT_ERRNO", LOG),
        // As with runc: who traces may know what it is.
        ("SCMP_ACT_TRACE", "SCMP_ACT_ERRNO", 0x7ff0_0001),
    ] {
        let program = program(&world, profile(default, rule(action, "openat")));
        assert_eq!(answer(&program, OWN, newer, [0; 6]).0, expected, "{default}, {action}");
    }
    // Nobody knows what the author of this one knew.
    let program = program(&world, profile("SCMP_ACT_ERRNO", rule("SCMP_ACT_ALLOW", "a_call_of_tomorrow")));
    assert_eq!(answer(&program, OWN, newer, [0; 6]).0, ERRNO | 1, "no rule names a call that there is");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_whose_numbers_they_are_is_asked_first() {
    let world = World::new();
    let rules = json!([{"names": ["getpid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5}]);
    let (sibling, name) = SIBLING;
    // Of the 386 and of 32-bit ARM alike.
    let (own_number, sibling_number) = (number(libc::SYS_getpid), 20);
    let alone = program(&world, profile("SCMP_ACT_ALLOW", rules.clone()));
    let both = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": [name], "syscalls": rules});
    let both = program(&world, both);
    let machines = json!([
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
    ]);
    let mapped = json!({"defaultAction": "SCMP_ACT_ALLOW", "archMap": machines, "syscalls": rules});
    let mapped = program(&world, mapped);
    for (what, program, in_there) in
        [("alone", &alone, KILL_PROCESS), ("listed", &both, ERRNO | 5), ("mapped", &mapped, ERRNO | 5)]
    {
        assert_eq!(answer(program, OWN, own_number, [0; 6]).0, ERRNO | 5, "{what}: its own");
        assert_eq!(answer(program, sibling, sibling_number, [0; 6]).0, in_there, "{what}: of 32 bits");
        let other = if in_there == KILL_PROCESS { KILL_PROCESS } else { ALLOW };
        assert_eq!(answer(program, sibling, own_number, [0; 6]).0, other, "{what}: another call of 32 bits");
        assert_eq!(answer(program, 0x8000_0016, 20, [0; 6]).0, KILL_PROCESS, "{what}: an s390's");
    }
    // A third set of numbers, for the same name of an architecture.
    if cfg!(target_arch = "x86_64") {
        for number in [0x4000_0000, 0x4000_0000 + own_number, 0x4000_0208, 0x7fff_ffff] {
            assert_eq!(answer(&both, OWN, number, [0; 6]).0, ENOSYS, "{number:#x} of x32");
        }
        // That is none of them: with it a tracer says that a call is not to be made.
        assert_eq!(answer(&both, OWN, u32::MAX, [0; 6]).0, ALLOW, "-1");
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_the_way_through_a_large_program_is_short() {
    let world = World::new();
    let usual = world.tiny_docker(["seccomp", "show", "--bytes"]).assert().success();
    let usual: Vec<[u8; 8]> =
        usual.get_output().stdout.chunks_exact(8).map(|chunk| chunk.try_into().unwrap()).collect();
    assert!(usual.len() < 700, "the usual program has {} instructions", usual.len());
    let steps = (0..500).map(|number| answer(&usual, OWN, number, [0; 6]).1).max().unwrap_or_default();
    assert!(steps <= 40, "a call takes {steps} instructions: that is no tree");
    // Every second call: nothing is merged, and a jump on a condition reaches no further than 255.
    let text = world.tiny_docker(["seccomp", "show", "--calls"]).assert().success();
    let names = of_this_machine(&String::from_utf8_lossy(&text.get_output().stdout));
    let names: Vec<&String> = names.keys().filter(|name| !name.contains(' ')).collect();
    assert!(names.len() > 200, "{names:?}");
    let rules: Vec<Value> = (names.iter().enumerate())
        .map(|(at, name)| json!({"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": 1 + at % 100}))
        .collect();
    let program = program(&world, profile("SCMP_ACT_KILL_PROCESS", json!(rules)));
    assert!(program.len() > 512, "so many answers take more than {} instructions", program.len());
    for (at, name) in
        names.iter().enumerate().filter(|(_, name)| ["read", "openat", "statx"].contains(&name.as_str()))
    {
        let call = match name.as_str() {
            "read" => libc::SYS_read,
            "openat" => libc::SYS_openat,
            _ => libc::SYS_statx,
        };
        let (found, steps) = answer(&program, OWN, number(call), [0; 6]);
        assert_eq!(found, ERRNO | (1 + at as u32 % 100), "{name}");
        assert!(steps <= 40, "{name} takes {steps} instructions");
    }
}

/// A condition, and for which arguments it holds.
fn holds(op: &str, argument: u64, value: u64, second: u64) -> bool {
    match op {
        "NE" => argument != value,
        "LT" => argument < value,
        "LE" => argument <= value,
        "EQ" => argument == value,
        "GE" => argument >= value,
        "GT" => argument > value,
        _ => argument & value == second,
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_arguments_of_64_bits_are_compared_in_all_seven_ways() {
    let world = World::new();
    let numbers = [
        0,
        1,
        2,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_fffe,
        0xffff_ffff,
        0x1_0000_0000,
        0x1_0000_0001,
        0x1_ffff_ffff,
        0x2_0000_0000,
        0x7fff_ffff_ffff_ffff,
        0x8000_0000_0000_0000,
        0xffff_ffff_0000_0000,
        u64::MAX - 1,
        u64::MAX,
    ];
    // One rule for each way and each value, on a call of its own: as many as there are.
    let ways = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
    for (index, value) in numbers.into_iter().enumerate().map(|(at, value)| (at % 6, value)) {
        let second = value & 0x8000_0001_ffff_0001;
        for op in ways {
            let args =
                json!([{"index": index, "value": value, "valueTwo": second, "op": format!("SCMP_CMP_{op}")}]);
            let rules = json!([{"names": ["dup"], "action": "SCMP_ACT_ALLOW", "args": args}]);
            let program = program(&world, profile("SCMP_ACT_ERRNO", rules));
            for argument in numbers.into_iter().chain([value & second, value ^ 1 << 40, value ^ 4]) {
                let mut arguments = [0x1234_5678_9abc_def0; 6];
                arguments[index] = argument;
                let (found, _) = answer(&program, OWN, number(libc::SYS_dup), arguments);
                let expected = if holds(op, argument, value, second) { ALLOW } else { ERRNO | 1 };
                assert_eq!(found, expected, "argument {index}: {argument:#x} {op} {value:#x} ({second:#x})");
            }
        }
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_all_conditions_of_a_rule_must_hold_and_one_rule_is_enough() {
    let world = World::new();
    let condition = |index: u32, op: &str, value: u64| json!({"index": index, "value": value, "op": format!("SCMP_CMP_{op}")});
    let rule = |action: &str, error: u32, args: &[Value]| json!({"names": ["dup"], "action": format!("SCMP_ACT_{action}"), "errnoRet": error, "args": args});
    let rules = json!([
        rule("ALLOW", 0, &[condition(0, "EQ", 1), condition(1, "GT", 10), condition(2, "NE", 5)]),
        rule("ERRNO", 2, &[condition(0, "EQ", 1)]),
        rule("KILL_PROCESS", 0, &[condition(1, "LT", 3)]),
        rule("LOG", 0, &[condition(5, "EQ", 1), condition(5, "EQ", 2)]),
    ]);
    let program = program(&world, profile("SCMP_ACT_ERRNO", rules));
    for (arguments, expected) in [
        ([1, 11, 0, 0, 0, 0], ALLOW),
        ([1, 10, 0, 0, 0, 0], ERRNO | 2),
        ([1, 11, 5, 0, 0, 0], ERRNO | 2),
        ([1, 2, 0, 0, 0, 0], ERRNO | 2),
        ([2, 2, 0, 0, 0, 0], KILL_PROCESS),
        ([2, 3, 0, 0, 0, 0], ERRNO | 1),
        ([2, 3, 0, 0, 0, 1], LOG),
        ([2, 3, 0, 0, 0, 2], LOG),
        ([2, 3, 0, 0, 0, 3], ERRNO | 1),
        ([1 | 1 << 32, 11, 0, 0, 0, 0], ERRNO | 1),
    ] {
        let (found, _) = answer(&program, OWN, number(libc::SYS_dup), arguments);
        assert_eq!(found, expected, "{arguments:?}: {found:#x}, not {expected:#x}");
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_many_rules_make_one_long_way_that_is_gone_to_its_end() {
    let world = World::new();
    let rules: Vec<Value> = (0..200_u64)
        .map(|value| {
            let args = json!([{"index": 1, "value": value << 31, "op": "SCMP_CMP_EQ"}]);
            json!({"names": ["dup"], "action": "SCMP_ACT_ERRNO", "errnoRet": 2 + value, "args": args})
        })
        .collect();
    let whole = program(&world, profile("SCMP_ACT_ERRNO", json!(rules)));
    for value in (0..200).chain([200, 255]) {
        let expected = ERRNO | if value < 200 { 2 + value as u32 } else { 1 };
        let (found, _) = answer(&whole, OWN, number(libc::SYS_dup), [0, value << 31, 0, 0, 0, 0]);
        assert_eq!(found, expected, "rule {value}");
    }
    // The kernel takes 4096 instructions, and says of one more no more than EINVAL.
    let many: Vec<Value> = (0..10).flat_map(|_| rules.clone()).collect();
    let file = write(&world, profile("SCMP_ACT_ERRNO", json!(many)));
    world.tiny_docker(["seccomp", "show", &file]).assert().code(1).stderr(contains("4096"));
}
