//! Day 2: run it inside new Linux namespaces.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use assert_cmd::assert::OutputAssertExt;
use common::{World, alive, until};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use predicates::prelude::*;
use predicates::str::{contains, is_empty};

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_the_command_lives_in_namespaces_of_its_own() {
    let world = World::new();
    for kind in ["uts", "pid", "mnt", "ipc"] {
        let link = format!("/proc/self/ns/{kind}");
        let host = fs::read_link(&link).unwrap();
        let assert = world.tiny_docker(["run", "readlink", &link]).assert().success();
        let container = String::from_utf8_lossy(&assert.get_output().stdout).trim().to_string();
        assert!(container.starts_with(&format!("{kind}:[")), "{container}");
        assert_ne!(Path::new(&container), host, "the same {kind} namespace");
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_every_run_gets_new_ones() {
    let world = World::new();
    let read = || {
        let assert = world.tiny_docker(["run", "readlink", "/proc/self/ns/uts"]).assert().success();
        assert.get_output().stdout.clone()
    };
    // Two at a time: an identifier that is free may be used again.
    let mut first = world.start(["run", "sh", "-c", "readlink /proc/self/ns/uts; exec sleep 1000"]);
    assert_ne!(format!("{}\n", first.line()).as_bytes(), read());
}

// From day 17 on whoever is not root has namespaces, but for a user without a home.
#[test]
#[cfg_attr(feature = "day17-userns", ignore = "privileged: make vm-test")]
fn task1_without_the_capability_the_error_says_which_and_what_to_do() {
    let world = World::new();
    // Where nobody but root may go, so does not the program.
    let program = world.dir().join("tiny-docker");
    fs::copy(common::binary(), &program).unwrap();
    let mut command = Command::new(program);
    command.args(["run", "true"]).current_dir(world.dir());
    command.env("HOME", "/nonexistent").env_remove("XDG_DATA_HOME");
    if geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
    let expected = contains("CAP_SYS_ADMIN").and(contains("sudo")).and(contains("make vm-shell"));
    assert_cmd::Command::from_std(command).assert().code(125).stdout(is_empty()).stderr(expected);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_the_container_has_its_own_hostname_and_the_host_keeps_its() {
    let world = World::new();
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    world.tiny_docker(["run", "--hostname", "web-1", "hostname"]).assert().success().stdout("web-1\n");
    // Set from inside, it stays inside as well.
    let words = [&["run"], common::ALL_OF_ROOT, &["sh", "-c", "hostname other; hostname"]].concat();
    world.tiny_docker(words).assert().success().stdout("other\n");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), host);
    // Without --hostname it is still not the host's.
    world
        .tiny_docker(["run", "hostname"])
        .assert()
        .success()
        .stdout(is_empty().not().and(predicate::ne(host)));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_a_hostname_that_is_none_is_refused() {
    let world = World::new();
    let long = "x".repeat(65);
    for name in ["", "two words", "a/b", "line\nbreak", &long] {
        world
            .tiny_docker(["run", "--hostname", name, "true"])
            .assert()
            .code(125)
            .stderr(contains("--hostname").and(contains("expected 1 to 64")));
    }
    let longest = "x".repeat(64);
    world.tiny_docker(["run", "--hostname", &longest, "hostname"]).assert().success().stdout(longest + "\n");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_a_mount_made_inside_is_not_seen_outside() {
    let world = World::new();
    // As systemd leaves every mount of a host: shared.
    let shared = world.dir().join("shared");
    fs::create_dir(&shared).unwrap();
    mount(Some("tmpfs"), &shared, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    mount(None::<&str>, &shared, None::<&str>, MsFlags::MS_SHARED, None::<&str>).unwrap();
    let inner = shared.join("inner");
    fs::create_dir(&inner).unwrap();

    let script = format!("mount -t tmpfs inside {0} && touch {0}/file && ls {0}", inner.display());
    let words = [&["run"], common::ALL_OF_ROOT, &["sh", "-c", &script]].concat();
    let inside = world.tiny_docker(words).output().unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo");
    umount2(&shared, MntFlags::MNT_DETACH).unwrap();

    assert_eq!(String::from_utf8_lossy(&inside.stdout), "file\n", "{}", common::said(&inside));
    let Ok(mounts) = mounts else {
        panic!("the container's /proc was mounted over the host's: no /proc/self here")
    };
    assert!(!mounts.contains("/shared/inner"), "the container's mount appeared on the host");
}

// https://github.com/containers/bubblewrap/issues/135
#[test]
#[ignore = "privileged: make vm-test"]
fn task3_in_a_chroot_to_a_plain_directory_the_error_says_what_is_missing() {
    let world = World::new();
    let jail = world.dir().join("jail");
    fs::create_dir(&jail).unwrap();
    fs::copy(common::binary(), jail.join("tiny-docker")).unwrap();
    // Later days read something of it.
    let proc = jail.join("proc");
    fs::create_dir(&proc).unwrap();
    mount(Some("/proc"), &proc, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    let mut chroot = assert_cmd::Command::new("chroot");
    chroot.args([jail.as_os_str(), "/tiny-docker".as_ref(), "run".as_ref(), "true".as_ref()]);
    let output = chroot.output();
    umount2(&proc, MntFlags::MNT_DETACH).unwrap();
    let expected = contains("EINVAL").and(contains("/ is not a mount point")).and(contains("mount --bind"));
    output.unwrap().assert().code(125).stdout(is_empty()).stderr(expected);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_proc_shows_the_container_and_nothing_else() {
    let world = World::new();
    let script = r#"cd /proc && for pid in [0-9]*; do read -r name < $pid/comm; echo "$pid $name"; done"#;
    world.tiny_docker(["run", "sh", "-c", script]).assert().success().stdout("1 sh\n");
    world.tiny_docker(["run", "ps", "-o", "pid,comm"]).assert().success().stdout(contains("1 ps"));
    // The host's /proc is still the host's.
    let ourselves = fs::read_link("/proc/self").unwrap();
    assert_eq!(ourselves, Path::new(&std::process::id().to_string()));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_the_command_is_pid_1() {
    let world = World::new();
    world.tiny_docker(["run", "sh", "-c", "echo $$"]).assert().success().stdout("1\n");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_a_signal_that_pid_1_does_not_handle_does_nothing() {
    let world = World::new();
    let mut running = world.start(["run", "sh", "-c", "echo ready; exec sleep 1000"]);
    running.line();
    let command = running.command();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        running.signal_command(signal);
    }
    // Not pending, not about to arrive: dropped when they were sent.
    let status = fs::read_to_string(format!("/proc/{command}/status")).unwrap();
    assert!(status.contains("ShdPnd:\t0000000000000000"), "{status}");
    assert!(alive(command));
    running.signal_command(Signal::SIGKILL);
    assert_eq!(running.ended(), 128 + 9);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_a_signal_that_pid_1_handles_reaches_it() {
    let world = World::new();
    let script = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    let mut running = world.start(["run", "sh", "-c", script]);
    running.line();
    running.signal_command(Signal::SIGTERM);
    assert_eq!(running.ended(), 3);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_an_orphan_becomes_a_child_of_pid_1() {
    let world = World::new();
    // The inner shell starts `sleep` and ends at once.
    let script = r#"orphan=$(sh -c 'sleep 1000 > /dev/null & echo $!')
                    while read -r _ _ _ parent _ < /proc/$orphan/stat && [ "$parent" != 1 ]; do :; done
                    echo "$parent""#;
    world.tiny_docker(["run", "sh", "-c", script]).assert().success().stdout("1\n");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_when_pid_1_ends_all_others_end() {
    let world = World::new();
    let mut running = world.start(["run", "sh", "-c", "sleep 1000 & echo ready; exec sleep 1000"]);
    running.line();
    let others = common::children_of(running.command().as_raw());
    assert_eq!(others.len(), 1);
    running.signal_command(Signal::SIGKILL);
    assert_eq!(running.ended(), 128 + 9);
    until("the other process is gone", || !alive(nix::unistd::Pid::from_raw(others[0])));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_nothing_outlives_a_runtime_that_was_killed() {
    let world = World::new();
    let mut running = world.start(["run", "sh", "-c", "sleep 1000 & echo ready; exec sleep 1000"]);
    running.line();
    let other = nix::unistd::Pid::from_raw(common::children_of(running.command().as_raw())[0]);
    running.ends_with_its_runtime();
    until("its child is gone too", || !alive(other));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_a_command_that_cannot_start_leaves_no_namespace_behind() {
    let world = World::new();
    world.tiny_docker(["run", "no-such-command"]).assert().code(127).stderr(contains("no such command"));
    world.tiny_docker(["run", "/etc"]).assert().code(126).stderr(contains("is a directory"));
}
