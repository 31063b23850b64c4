//! Day 15: what bounds the command besides capabilities: its limits, its label, and the kernel's
//! parameters that are its own.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use assert_cmd::assert::Assert;
use common::{World, busybox, in_the_vm, said};
use predicates::prelude::*;
use predicates::str::{contains, is_empty, starts_with};

/// What `script` does in a container that is forgotten at its end.
fn run(world: &World, flags: &[&str], script: &str) -> Assert {
    let rootfs = busybox();
    let words = ["run", "--rm", "--net", "none", "--rootfs", rootfs.to_str().unwrap()];
    world.tiny_docker([&words[..], flags, &["sh", "-c", script]].concat()).assert()
}

/// A container called web, which does nothing until it is removed.
fn web(world: &World, flags: &[&str]) {
    let rootfs = busybox();
    let words = ["run", "-d", "--net", "none", "--name", "web", "--rootfs", rootfs.to_str().unwrap()];
    world.tiny_docker([&words[..], flags, &["sleep", "1000"]].concat()).assert().success();
}

fn exec(world: &World, flags: &[&str], script: &str) -> Assert {
    world.tiny_docker([&["exec"], flags, &["web", "sh", "-c", script]].concat()).assert()
}

/// These flags are refused, with these words, and nothing of the container is left.
fn refused(world: &World, flags: &[&str], words: &[&str]) {
    let output = run(world, flags, "echo it ran").get_output().clone();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{flags:?}: {}", said(&output));
    assert_eq!(output.stdout, b"", "{flags:?}: its command has run");
    for word in words {
        assert!(errors.contains(word), "{flags:?}: it does not say {word:?}: {errors}");
    }
    let left = fs::read_dir(world.containers()).into_iter().flatten().count();
    assert_eq!(left, 0, "{flags:?}: something is left in {:?}", world.containers());
}

fn has_apparmor() -> bool {
    let has_it = fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y"));
    assert!(has_it || !in_the_vm(), "the guest's kernel has AppArmor");
    has_it
}

/// What a file of the host's /proc/sys says.
fn of_the_host(file: &str) -> String {
    fs::read_to_string(Path::new("/proc/sys").join(file)).unwrap()
}

const FILES: &str = "echo $(ulimit -Sn) $(ulimit -Hn)";
const NO_CAPABILITY: &str = "grep CapEff /proc/self/status";
const NO_NEW: &str = "grep NoNewPrivs /proc/self/status";

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_limits_are_those_that_were_asked_for() {
    let world = World::new();
    let flags =
        ["--ulimit", "nofile=100:200", "--ulimit", "core=0", "--ulimit", "stack=-1", "--ulimit", "cpu=7"];
    let script = format!("{FILES}; ulimit -c; ulimit -Hc; ulimit -s; ulimit -Ht; sh -c '{FILES}'");
    run(&world, &flags, &script).success().stdout("100 200\n0\n0\nunlimited\n7\n100 200\n");
    // The last one of two counts, and those that nobody names are the caller's.
    let script = "ulimit -n 77; \"$0\" run --rm --net none --ulimit core=1 --rootfs \"$1\" sh -c 'ulimit -n'";
    world.called_by(script).arg(busybox()).assert().success().stdout("77\n");
    let limits = "grep -E 'core|sigpending|pending' /proc/self/limits";
    run(
        &world,
        &["--ulimit", "core=1", "--ulimit", "core=2048:4096", "--ulimit", "sigpending=5:unlimited"],
        limits,
    )
    .success()
    .stdout(predicates::str::is_match("core file size +2048 +4096 ").unwrap())
    .stdout(predicates::str::is_match("pending signals +5 +unlimited ").unwrap());
    // All of Docker's names; only of open files there cannot be so many.
    let names = "core cpu data fsize locks memlock msgqueue nice nproc rss rtprio rttime sigpending stack";
    let all: Vec<String> = names.split(' ').map(|name| format!("--ulimit={name}=100000000")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let counted = "grep -cE ' 100000000 +100000000 ' /proc/self/limits";
    run(&world, &all, counted).success().stdout("14\n");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_a_limit_may_be_above_the_callers_for_any_user() {
    let world = World::new();
    let call = "ulimit -n 64; \"$0\" run --rm --net none --ulimit nofile=1000:2000 --rootfs \"$1\"";
    for user in ["", "-u app", "-u app --init", "--cap-drop ALL"] {
        let script = format!("{call} {user} sh -c '{FILES}; {NO_CAPABILITY}'");
        let root = !user.contains("app") && !user.contains("ALL");
        let none = contains("CapEff:\t0000000000000000");
        let output = world.called_by(&script).arg(busybox()).assert().success();
        let output = output.stdout(starts_with("1000 2000\n"));
        // And what it took for that is gone.
        if root {
            output.stdout(none.not())
        } else {
            output.stdout(none)
        };
    }
    // What it may not have at all: only root with a capability may go above what is hard.
    run(&world, &["--ulimit", "nofile=100:200"], "ulimit -n 300 2>/dev/null || ulimit -n")
        .success()
        .stdout("100\n");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_the_runtime_is_not_held_back_by_the_commands_limits() {
    let world = World::new();
    // No more file than the three that it has; and nothing that it writes has any room.
    let flags =
        ["--ulimit", "nofile=3", "--ulimit", "fsize=0", "--ulimit", "nproc=1", "--ulimit", "memlock=0"];
    run(&world, &[&flags[..], &["-u", "app"]].concat(), "ulimit -n; ulimit -f").success().stdout("3\n0\n");
    web(&world, &[&flags[..], &["-u", "app", "--security-opt", "apparmor=unconfined"]].concat());
    exec(&world, &[], "ulimit -n").success().stdout("3\n");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_exec_and_the_next_life_have_the_same_limits() {
    let world = World::new();
    web(&world, &["--ulimit", "nofile=100:200", "--ulimit", "core=0"]);
    let limits = format!("{FILES}; ulimit -Hc");
    for user in [&[][..], &["-u", "app"]] {
        exec(&world, user, &limits).success().stdout("100 200\n0\n");
    }
    world.tiny_docker(["restart", "--time", "0", "web"]).assert().success();
    exec(&world, &[], &limits).success().stdout("100 200\n0\n");
    let its = common::pid(&world, "web");
    let of_the_first = fs::read_to_string(format!("/proc/{its}/limits")).unwrap();
    assert!(
        predicates::str::is_match("open files +100 +200 ").unwrap().eval(&of_the_first),
        "the limits of its first process after a restart: {of_the_first}"
    );
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_what_is_no_limit_is_refused() {
    let world = World::new();
    for (text, words) in [
        ("files=100", &["--ulimit", "files", "nofile"][..]),
        ("nofile", &["--ulimit", "NAME=SOFT"]),
        ("nofile=many", &["--ulimit", "many", "-1"]),
        ("nofile=-2", &["--ulimit", "-2"]),
        ("nofile=200:100", &["--ulimit", "SOFT", "HARD", "100"]),
        ("nofile=-1:100", &["--ulimit", "SOFT", "HARD", "100"]),
    ] {
        refused(&world, &["--ulimit", text], words);
    }
    // More than the kernel lets anybody have: that is found out when it is set.
    let too_many = format!("nofile={}0", of_the_host("fs/nr_open").trim());
    refused(&world, &["--ulimit", &too_many], &["--ulimit nofile", "fs/nr_open", "Operation not permitted"]);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_kernel_parameters_are_the_containers_own() {
    let world = World::new();
    let files =
        ["net/ipv4/ip_unprivileged_port_start", "kernel/shmmax", "kernel/msgmni", "fs/mqueue/msg_max"];
    let before = files.map(of_the_host);
    let flags = [
        "--sysctl=net.ipv4.ip_unprivileged_port_start=7",
        "--sysctl=kernel.shmmax=1",
        "--sysctl=kernel.shmmax=12345678",
        "--sysctl",
        "kernel/msgmni=77",
        "--sysctl=fs.mqueue.msg_max=5",
    ];
    let script = format!("cd /proc/sys; cat {}; : >kernel/shmmax", files.join(" "));
    run(&world, &flags, &script).failure().stdout("7\n12345678\n77\n5\n").stderr(contains("Read-only"));
    web(&world, &[&flags[..], &["-u", "app", "--read-only"]].concat());
    exec(&world, &[], &format!("cd /proc/sys; cat {}", files.join(" ")))
        .success()
        .stdout("7\n12345678\n77\n5\n");
    assert_eq!(files.map(of_the_host), before, "the host's own");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_a_container_that_is_made_first_keeps_its_kernel_parameters() {
    let world = World::new();
    let rootfs = busybox();
    let words = ["create", "--net", "none", "--name", "web", "--rootfs", rootfs.to_str().unwrap()];
    let flags = ["--sysctl", "kernel.shmmax=4096", "--sysctl", "net.ipv4.ip_default_ttl=42"];
    world.tiny_docker([&words[..], &flags, &["sleep", "1000"]].concat()).assert().success();
    world.tiny_docker(["start", "web"]).assert().success();
    let script = "cat /proc/sys/kernel/shmmax /proc/sys/net/ipv4/ip_default_ttl";
    exec(&world, &[], script).success().stdout("4096\n42\n");
    world.tiny_docker(["restart", "--time", "0", "web"]).assert().success();
    exec(&world, &[], script).success().stdout("4096\n42\n");
    world.remove_all();
    // What could never be set is not even made.
    let words = ["create", "--rootfs", rootfs.to_str().unwrap(), "--sysctl", "vm.swappiness=1", "true"];
    world.tiny_docker(words).assert().failure().stderr(contains("vm.swappiness"));
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_a_parameter_of_its_interface_is_set_once_that_is_there() {
    let world = World::new();
    let rootfs = busybox();
    let words = ["run", "--rm", "--net", "bridge", "--rootfs", rootfs.to_str().unwrap()];
    let flags =
        ["--sysctl", "net.ipv4.conf.eth0.log_martians=1", "--sysctl", "net/ipv4/conf/lo/log_martians=1"];
    let script = "cd /proc/sys/net/ipv4/conf; cat eth0/log_martians lo/log_martians";
    let words = [&words[..], &flags, &["sh", "-c", script]].concat();
    world.tiny_docker(words).assert().success().stdout("1\n1\n");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_parameters_of_the_whole_machine_are_refused() {
    let world = World::new();
    let files = ["vm/swappiness", "kernel/panic", "kernel/core_pattern", "net/ipv4/ip_default_ttl"];
    let before = files.map(of_the_host);
    for name in
        ["vm.swappiness", "kernel.panic", "kernel/core_pattern", "user.max_pid_namespaces", "kernel.shm"]
    {
        let dotted = name.replace('/', ".");
        refused(&world, &["--sysctl", &format!("{name}=1")], &["--sysctl", &dotted, "whole machine"]);
    }
    refused(&world, &["--sysctl", "kernel.hostname=web"], &["kernel.hostname", "--hostname"]);
    for text in ["net.ipv4", "net..ip_forward=1", "net/../kernel/panic=1", "=1", "net.//.kernel.panic=1"] {
        refused(&world, &["--sysctl", text], &["--sysctl"]);
    }
    // With the host's network its parameters are the host's.
    let rootfs = busybox();
    let words = ["run", "--rm", "--net", "host", "--rootfs", rootfs.to_str().unwrap()];
    let flags = ["--sysctl", "net.ipv4.ip_default_ttl=42", "true"];
    let run = world.tiny_docker([&words[..], &flags].concat()).assert();
    run.code(125).stderr(contains("net.ipv4.ip_default_ttl").and(contains("--net host")));
    let flags = ["--sysctl", "kernel.shmmax=4096", "cat", "/proc/sys/kernel/shmmax"];
    world.tiny_docker([&words[..], &flags].concat()).assert().success().stdout("4096\n");
    // What there is not, and what it cannot be: the kernel says it.
    refused(&world, &["--sysctl", "net.ipv4.nosuch=1"], &["sys/net/ipv4/nosuch", "No such file"]);
    refused(
        &world,
        &["--sysctl", "net.ipv4.ip_default_ttl=many"],
        &["ip_default_ttl", "many", "Invalid argument"],
    );
    assert_eq!(files.map(of_the_host), before, "the host's own");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_who_is_killed_first_when_memory_is_short() {
    let world = World::new();
    let both = "cat /proc/self/oom_score_adj; sh -c 'cat /proc/self/oom_score_adj'";
    run(&world, &[], both).success().stdout("0\n0\n");
    for value in ["500", "-500", "0", "1000", "-1000"] {
        for more in [&[][..], &["-u", "app"], &["--init"]] {
            let flags = [&["--oom-score-adj", value], more].concat();
            run(&world, &flags, both).success().stdout(format!("{value}\n{value}\n"));
        }
    }
    web(&world, &["--oom-score-adj", "-300"]);
    for more in [&[][..], &["-u", "app"]] {
        exec(&world, more, both).success().stdout("-300\n-300\n");
    }
    world.tiny_docker(["restart", "--time", "0", "web"]).assert().success();
    exec(&world, &[], "cat /proc/1/oom_score_adj").success().stdout("-300\n");
    world.remove_all();
    for value in ["1001", "-1001", "much"] {
        let output = run(&world, &["--oom-score-adj", value], "echo it ran").get_output().clone();
        let errors = String::from_utf8_lossy(&output.stderr);
        let is_refused = !output.status.success() && output.stdout.is_empty();
        assert!(is_refused && errors.contains("--oom-score-adj"), "{value}: {}", said(&output));
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_shared_memory_is_as_large_as_was_asked_for() {
    let world = World::new();
    let size = "busybox df -k /dev/shm | grep -o 'shm\\|[0-9]* ' | grep -m 1 '[0-9]'";
    run(&world, &[], size).success().stdout("65536 \n");
    for (typed, kibibytes) in
        [("0", "65536 \n"), ("128m", "131072 \n"), ("1048576", "1024 \n"), ("1.5m", "1536 \n")]
    {
        run(&world, &["--shm-size", typed], size).success().stdout(kibibytes);
    }
    // No byte more fits in; and it still is memory for everybody, and for no programs.
    let script = "busybox head -c 1048576 /dev/zero >/dev/shm/full && ! echo more >/dev/shm/more; \
        grep -o ' /dev/shm .*' /proc/mounts";
    run(&world, &["--shm-size", "1m", "-u", "app", "--read-only"], script)
        .success()
        .stdout(contains("nosuid,nodev,noexec").and(contains("size=1024k")))
        .stderr(contains("No space left on device"));
    web(&world, &["--shm-size", "2m"]);
    exec(&world, &[], size).success().stdout("2048 \n");
    world.remove_all();
    refused(&world, &["--shm-size", "large"], &["--shm-size", "large"]);
    let on_the_host = world.tiny_docker(["run", "--net", "none", "--shm-size", "1m", "true"]).assert();
    on_the_host.code(125).stderr(contains("--shm-size").and(contains("--rootfs")));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_it_is_in_more_groups() {
    let world = World::new();
    let groups = "grep Groups: /proc/self/status";
    // (The kernel sorts them.)
    for (flags, numbers) in [
        (&["--group-add", "staff"][..], "50 "),
        (&["--group-add", "4711", "--group-add", "nogroup"], "4711 65534 "),
        // Docker's too: a group is added to those that the user has, and none is twice.
        (&["-u", "app", "--group-add", "4711"], "50 4711 "),
        (&["-u", "app", "--group-add", "staff"], "50 "),
        (&["-u", "app:app", "--group-add", "60"], "60 "),
        (&["-u", "app", "--group-add", "60", "--init"], "50 60 "),
    ] {
        run(&world, flags, groups).success().stdout(format!("Groups:\t{numbers}\n"));
    }
    web(&world, &["--group-add", "4711"]);
    exec(&world, &[], groups).success().stdout("Groups:\t4711 \n");
    exec(&world, &["-u", "app"], groups).success().stdout("Groups:\t50 4711 \n");
    world.remove_all();
    refused(&world, &["--group-add", "wheel"], &["--group-add", "wheel", "/etc/group"]);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_no_new_privileges_is_said_for_every_process() {
    let world = World::new();
    run(&world, &[], NO_NEW).success().stdout("NoNewPrivs:\t0\n");
    run(&world, &["--security-opt", "no-new-privileges:false"], NO_NEW).success().stdout("NoNewPrivs:\t0\n");
    let both = format!("{NO_NEW}; grep NoNewPrivs /proc/1/status");
    for option in ["no-new-privileges", "no-new-privileges:true", "no-new-privileges=true"] {
        for more in [&[][..], &["-u", "app"], &["--init"], &["--ulimit", "nofile=64", "-u", "app"]] {
            let flags = [&["--security-opt", option], more].concat();
            run(&world, &flags, &both).success().stdout("NoNewPrivs:\t1\nNoNewPrivs:\t1\n");
        }
    }
    web(&world, &["--security-opt", "no-new-privileges"]);
    for more in [&[][..], &["-u", "app"], &["--privileged"]] {
        exec(&world, more, NO_NEW).success().stdout("NoNewPrivs:\t1\n");
    }
    world.remove_all();
    for option in
        ["no-new-privileges=perhaps", "no-new-privileges:", "nonsense", "apparmor=", "label=colour:red"]
    {
        refused(&world, &["--security-opt", option], &["--security-opt", option, "expected"]);
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_with_no_new_privileges_a_set_user_id_program_gains_nothing() {
    let world = World::new();
    let rootfs = world.copy_of_rootfs("rootfs");
    // A set-user-ID su, of which root needs no password.
    let su = rootfs.join("bin/busybox");
    fs::set_permissions(&su, fs::Permissions::from_mode(0o4755)).unwrap();
    let passwd = fs::read_to_string(rootfs.join("etc/passwd")).unwrap();
    fs::write(rootfs.join("etc/passwd"), passwd.replace("root:x:", "root::")).unwrap();
    fs::write(rootfs.join("etc/shadow"), "root::1:0:99999:7:::\n").unwrap();
    let script = "busybox su root -c 'busybox id -u'";
    // As a layer: the test's directory may be on a mount where the bit does not count.
    let on_a_layer = |flags: &[&str]| {
        let words = ["run", "--net", "none", "-u", "app", "--layer", rootfs.to_str().unwrap()];
        world.tiny_docker([&words[..], flags, &["sh", "-c", script]].concat()).assert()
    };
    on_a_layer(&[]).success().stdout("0\n");
    on_a_layer(&["--security-opt", "no-new-privileges"]).failure().stdout(is_empty());
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_a_label_is_one_that_the_kernel_has() {
    let world = World::new();
    run(&world, &["--security-opt", "apparmor=unconfined"], "echo ran").success().stdout("ran\n");
    run(&world, &["--security-opt", "label=disable"], "echo ran").success().stdout("ran\n");
    let profile = "apparmor=tiny-docker-nosuch";
    let flags = ["--security-opt", profile];
    if has_apparmor() {
        refused(&world, &flags, &[profile, "attr/apparmor/exec", "No such file", "apparmor_parser"]);
        refused(&world, &[&flags[..], &["-u", "app"]].concat(), &[profile, "No such file"]);
    } else {
        refused(&world, &flags, &[profile, "does not have AppArmor"]);
    }
    if !Path::new("/sys/fs/selinux/status").exists() {
        refused(&world, &["--security-opt", "label=type:container_t"], &["label", "does not have SELinux"]);
    }
}

/// A profile of AppArmor that is loaded for as long as this value lives. It confines nothing; but
/// what has it says so.
struct Profile {
    name: &'static str,
    mounted: bool,
}

const POLICY: &str = "/sys/kernel/security/apparmor";

impl Profile {
    fn load(name: &'static str) -> Profile {
        let mounted = !Path::new(POLICY).exists();
        if mounted {
            let (kind, none) = (Some("securityfs"), None::<&str>);
            nix::mount::mount(kind, "/sys/kernel/security", kind, nix::mount::MsFlags::empty(), none)
                .unwrap();
        }
        fs::write(format!("{POLICY}/.replace"), Profile::compiled(name)).unwrap();
        Profile { name, mounted }
    }

    /// What apparmor_parser makes of `profile NAME flags=(unconfined) {}`.
    /// (linux/security/apparmor/policy_unpack.c)
    fn compiled(name: &str) -> Vec<u8> {
        const UNCONFINED: u32 = 3;
        let string = |code: u8, text: &str| {
            let length = (text.len() as u16 + 1).to_le_bytes();
            [&[code], &length[..], text.as_bytes(), &[0]].concat()
        };
        let number = |value: u32| [&[2], &value.to_le_bytes()[..]].concat();
        let (named, open, close) = (|text| string(4, text), vec![7], vec![8]);
        [
            [named("version"), number(5)].concat(),
            [named("profile"), open.clone(), string(5, name)].concat(),
            [named("flags"), open, number(0), number(UNCONFINED), number(0), close.clone()].concat(),
            // The capabilities: allowed, audited, not audited, and none.
            number(u32::MAX).into_iter().chain(number(0)).chain(number(0)).chain(number(0)).collect(),
            close,
        ]
        .concat()
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        let _ = fs::write(format!("{POLICY}/.remove"), self.name);
        if self.mounted {
            let _ = nix::mount::umount("/sys/kernel/security");
        }
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_every_process_has_the_profile() {
    let world = World::new();
    if !has_apparmor() {
        refused(&world, &["--security-opt", "apparmor=tiny"], &["does not have AppArmor"]);
        return;
    }
    let _profile = Profile::load("tiny-docker-test");
    let flags = ["--security-opt", "apparmor=tiny-docker-test"];
    let label = "cat /proc/self/attr/current; cat /proc/1/attr/current";
    let has_it = "tiny-docker-test (unconfined)\n".repeat(2);
    run(&world, &[], label).success().stdout("unconfined\nunconfined\n");
    for more in [&[][..], &["-u", "app"], &["--init"], &["--security-opt", "no-new-privileges", "-u", "app"]]
    {
        run(&world, &[&flags[..], more].concat(), label).success().stdout(has_it.clone());
    }
    web(&world, &[&flags[..], &["--ulimit", "nofile=4"]].concat());
    for more in [&[][..], &["-u", "app"]] {
        exec(&world, more, "exec cat /proc/self/attr/current")
            .success()
            .stdout("tiny-docker-test (unconfined)\n");
    }
    world.remove_all();
}
