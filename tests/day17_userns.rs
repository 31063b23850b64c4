//! Day 17: user namespaces. Root in a container is nobody outside.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use assert_cmd::assert::Assert;
use common::layout::{Layout, Packed, tar_of};
use common::{AtTerminal, HostFile, World, busybox, pid, said, until};
use predicates::prelude::*;
use predicates::str::{contains, is_empty};
use serde_json::Value;

/// The range that the runtime has for itself.
const OURS: u32 = 0x7000_0000;
const COUNT: u32 = 65536;

/// A run of busybox with layers and `flags`, of `script`.
fn run(world: &World, flags: &[&str], script: &str) -> Assert {
    let base = busybox();
    let words = ["run", "--rm", "--net", "none", "--layer", base.to_str().unwrap()];
    world.tiny_docker([&words[..], flags, &["sh", "-c", script]].concat()).assert()
}

/// The same with `--userns auto`; what it writes.
#[track_caller]
fn says(world: &World, flags: &[&str], script: &str) -> String {
    let output = run(world, &[&["--userns", "auto"], flags].concat(), script).success();
    String::from_utf8(output.get_output().stdout.clone()).unwrap()
}

/// A container called `name` with a user namespace, which runs until it is removed.
fn start(world: &World, name: &str, flags: &[&str], script: &str) {
    let base = busybox();
    let words = ["run", "-d", "--net", "none", "--name", name, "--layer", base.to_str().unwrap()];
    let script = format!("{script}\necho it is ready; sleep 1000");
    let flags = [&["--userns", "auto"], flags].concat();
    world.tiny_docker([&words[..], &flags, &["sh", "-ec", &script]].concat()).assert().success();
    until("its script has run", || {
        let log = world.tiny_docker(["logs", name]).output().unwrap();
        String::from_utf8_lossy(&log.stdout).contains("it is ready")
    });
}

/// What a container has written, on the disk.
fn upper(world: &World, name: &str) -> PathBuf {
    let id = world.inspect(name)["id"].as_str().unwrap().to_string();
    world.containers().join(id).join("layer/upper")
}

/// The first of a container's users, outside.
fn first(world: &World, name: &str) -> u32 {
    let users = world.inspect(name)["user_namespace"].clone();
    assert_eq!(users["uids"], users["gids"], "{users}");
    assert_eq!(users["uids"]["count"], Value::from(COUNT), "{users}");
    u32::try_from(users["uids"]["outside"].as_u64().unwrap()).unwrap()
}

/// The four user ids of a process, as the host sees them.
fn uids_of(pid: i32) -> Vec<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    line.split_whitespace().map(|id| id.parse().unwrap()).collect()
}

#[test]
fn task1_what_is_no_mode_is_an_error_in_words() {
    let world = World::on_disk();
    for (mode, word) in [
        ("yes", "expected auto, host"),
        ("", "expected auto, host"),
        ("1000", "UID:GID"),
        ("0:100000", "root of the host"),
        ("100000:0", "root of the host"),
        ("1:1:0", "expected"),
        ("4294967290:1:65536", "expected"),
        ("4294967295:1:1", "expected"),
        ("1:1:1:1", "expected"),
        ("+1:1", "expected"),
    ] {
        world.tiny_docker(["run", "--userns", mode, "true"]).assert().code(2).stderr(contains(word));
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_host_is_none_and_so_is_nothing() {
    let world = World::on_disk();
    let map = "cat /proc/self/uid_map | tr -s ' '";
    run(&world, &["--userns", "host"], map).success().stdout(contains("0 0 4294967295"));
    run(&world, &[], map).success().stdout(contains("0 0 4294967295"));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_ids_that_somebody_names_are_those() {
    let world = World::on_disk();
    let script = "cat /proc/self/uid_map /proc/self/gid_map | tr -s ' ' && id -u && id -g";
    run(&world, &["--userns", "300000:400000:7"], script)
        .success()
        .stdout(" 0 300000 7\n 0 400000 7\n0\n0\n");
    run(&world, &["--userns", "300000:400000"], script).success().stdout(contains(" 0 400000 65536\n"));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_the_environment_says_what_is_usual_and_a_flag_says_otherwise() {
    let world = World::on_disk();
    let base = busybox();
    let words = ["run", "--rm", "--net", "none", "--layer", base.to_str().unwrap()];
    let map = ["cat", "/proc/self/uid_map"];
    let mut usual = world.tiny_docker([&words[..], &map].concat());
    usual.env("TINY_DOCKER_USERNS", "300000:300000").assert().success().stdout(contains("300000"));
    let mut other = world.tiny_docker([&words[..], &["--userns", "host"], &map].concat());
    other.env("TINY_DOCKER_USERNS", "300000:300000").assert().success().stdout(contains("4294967295"));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_what_is_roots_of_the_host_cannot_be_had() {
    let world = World::on_disk();
    let ids = ["--userns", "300000:300000"];
    run(&world, &[&ids[..], &["--privileged"]].concat(), "true")
        .code(125)
        .stderr(contains("--privileged").and(contains("--userns host")));
    let base = busybox();
    let words = ["run", "--net", "host", "--layer", base.to_str().unwrap()];
    world
        .tiny_docker([&words[..], &ids, &["true"]].concat())
        .assert()
        .code(125)
        .stderr(contains("--net host").and(contains("--userns host")));
    run(&world, &["--userns", "300000:300000:5"], "true").code(125).stderr(contains("group 5"));
    assert_eq!(world.ps().lines().count(), 1, "nothing was made: {}", world.ps());
}

/// Makes a container called `name` that does not run.
fn create(world: &World, name: &str) -> Assert {
    let base = busybox();
    let words = ["create", "--name", name, "--userns", "auto", "--layer", base.to_str().unwrap(), "true"];
    world.tiny_docker(words).assert()
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_no_two_containers_have_an_id_in_common() {
    let world = World::on_disk();
    for name in ["one", "other", "third"] {
        create(&world, name).success();
    }
    let (one, other, third) = (first(&world, "one"), first(&world, "other"), first(&world, "third"));
    for (one, other) in [(one, other), (other, third), (third, one)] {
        assert!(one.abs_diff(other) >= COUNT, "{one} and {other}");
        assert!(one >= OURS && other >= OURS, "{one} and {other}");
    }
    // Given back when it is removed.
    world.tiny_docker(["rm", "other"]).assert().success();
    create(&world, "fourth").success();
    assert_eq!(first(&world, "fourth"), other, "it is free again");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_containers_of_other_state_directories_have_others() {
    let world = World::on_disk();
    start(&world, "one", &[], "");
    let other = world.dir().join("other-state");
    let base = busybox();
    let words = ["run", "--rm", "--net", "none", "--userns", "auto", "--layer", base.to_str().unwrap()];
    let root = ["--root", other.to_str().unwrap()];
    let map =
        world.tiny_docker([&root[..], &words, &["cat", "/proc/self/uid_map"]].concat()).assert().success();
    let map = String::from_utf8_lossy(&map.get_output().stdout).into_owned();
    let outside: u32 = map.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(outside.abs_diff(first(&world, "one")) >= COUNT, "{map}");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_a_container_that_is_started_again_is_the_same_user() {
    let world = World::on_disk();
    start(&world, "web", &[], "[ -e /ready ] || echo mine > /file");
    let before = first(&world, "web");
    world.tiny_docker(["stop", "-t", "0", "web"]).assert().success();
    world.tiny_docker(["start", "web"]).env("TINY_DOCKER_USERNS", "host").assert().success();
    assert_eq!(first(&world, "web"), before);
    assert_eq!(uids_of(pid(&world, "web").as_raw()), [before; 4]);
    let look = ["exec", "web", "stat", "-c", "%u:%g", "/file"];
    world.tiny_docker(look).assert().success().stdout("0:0\n");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_the_ranges_of_the_user_containers_are_what_there_is() {
    let world = World::on_disk();
    let file = |name: &str, text: &str| {
        let path = world.dir().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let users = file("subuid", "ann:500001:65536\ncontainers:434464:196608\n");
    let groups = file("subgid", "containers:900000:131072\n");
    let (_users, _groups) =
        (HostFile::replace("/etc/subuid", &users), HostFile::replace("/etc/subgid", &groups));
    // The second of three would be ann's in part, and so would be the third.
    create(&world, "one").success();
    let users = world.inspect("one")["user_namespace"].clone();
    assert_eq!((&users["uids"]["outside"], &users["gids"]["outside"]), (&434_464.into(), &900_000.into()));
    create(&world, "none").code(125).stderr(contains("are in use").and(contains("subuid")));
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_root_inside_is_nobody_outside() {
    let world = World::on_disk();
    start(&world, "web", &[], "[ $(id -u):$(id -g) = 0:0 ]; [ \"$(id -G)\" = 0 ]");
    let outside = first(&world, "web");
    assert_eq!(uids_of(pid(&world, "web").as_raw()), [outside; 4]);
    let status = fs::read_to_string(format!("/proc/{}/status", pid(&world, "web"))).unwrap();
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap();
    assert_eq!(groups.trim().replace(&outside.to_string(), ""), "", "no group of the caller's: {groups}");
    // And a user inside is the one who is as far from root outside.
    world.tiny_docker(["exec", "-d", "-u", "1000", "web", "sleep", "999"]).assert().success();
    let sleeps = || {
        let all =
            fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let numbers = all.filter_map(|name| name.parse::<i32>().ok());
        let its = numbers.filter(|pid| {
            fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| words.starts_with(b"sleep\x00999"))
        });
        its.map(uids_of).next()
    };
    until("it sleeps", || sleeps().is_some());
    assert_eq!(sleeps(), Some(vec![outside + 1000; 4]));
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_its_power_ends_where_its_namespaces_end() {
    let world = World::on_disk();
    let all = ["--cap-add", "ALL", "--security-opt", "seccomp=unconfined"];
    // Its own: mounts, host name, loopback. The machine's: its clock, its devices, its kernel.
    let script = "mount -t tmpfs none /tmp && hostname other && ip link set lo down && echo its own; \
        mknod /node b 8 0 || echo no device; date -s 2001-01-01 2>&1 | grep -q 'not permitted' && echo no clock; \
        (echo 1 > /proc/sys/kernel/panic) || echo no kernel; mount -o remount,rw /proc/sys; \
        (echo 1 > /proc/sys/kernel/panic) || echo still no kernel";
    let said = says(&world, &all, script);
    assert_eq!(said, "its own\nno device\nno clock\nno kernel\nstill no kernel\n");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_capabilities_and_filter_are_what_they_are_without() {
    let world = World::on_disk();
    let look = "grep -e ^Cap -e ^Seccomp: -e ^NoNew /proc/self/status";
    for flags in [&[][..], &["--cap-drop", "ALL"], &["--cap-add", "NET_ADMIN"], &["-u", "1000"], &["--init"]]
    {
        let with = says(&world, flags, look);
        let without = run(&world, flags, look).success();
        assert_eq!(with, String::from_utf8_lossy(&without.get_output().stdout), "{flags:?}");
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_on_the_hosts_own_root_as_well() {
    let world = World::on_disk();
    let words = ["run", "--rm", "--net", "none", "--userns", "auto", "sh", "-c"];
    let script =
        "id -u; ls -lnd / | awk '{print $3}'; [ -w / ] || echo not its own; ls /proc/1/fd >/dev/null";
    world.tiny_docker([&words[..], &[script]].concat()).assert().success().stdout("0\n65534\nnot its own\n");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_long_whenever_the_runtime_is_killed_all_is_undone() {
    let world = World::on_disk();
    let base = busybox();
    let words = ["run", "--net", "none", "--userns", "auto", "--layer", base.to_str().unwrap()];
    world.die_at_every_moment(&[&words[..], &["sh", "-c", "exit 7"]].concat());
    // One that ends well removes what those who were killed have left in /run.
    assert_eq!(says(&world, &[], "id -u"), "0\n");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_on_the_disk_ids_begin_at_0_whatever_they_are_outside() {
    let world = World::on_disk();
    let script = "echo new > /new; chown 1000:1001 /new; echo more >> /etc/passwd; mkdir /made; ln -s x /link; \
        chown -h 5:6 /link; cp /bin/busybox /suid; chown 7 /suid; chmod 4755 /suid";
    start(&world, "web", &[], script);
    assert!(first(&world, "web") >= OURS);
    let upper = upper(&world, "web");
    let facts = |name: &str| {
        let found = fs::symlink_metadata(upper.join(name)).unwrap();
        (found.uid(), found.gid(), found.mode() & 0o7777)
    };
    assert_eq!(facts("new"), (1000, 1001, 0o644));
    assert_eq!(facts("etc/passwd").0, 0, "a file of a layer below, changed");
    assert_eq!(facts("made"), (0, 0, 0o755));
    assert_eq!(facts("suid"), (7, 0, 0o4755));
    assert_eq!((facts("link").0, facts("link").1), (5, 6));
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_what_is_removed_and_made_again_is_as_in_any_layer() {
    let world = World::on_disk();
    let layer = world.copy_of_rootfs("layer");
    fs::create_dir(layer.join("dir")).unwrap();
    fs::write(layer.join("dir/below"), "").unwrap();
    fs::write(layer.join("file"), "").unwrap();
    let words =
        ["run", "--net", "none", "--userns", "auto", "--name", "web", "--layer", layer.to_str().unwrap()];
    let script = "rm /file; rm -r /dir; mkdir /dir; > /dir/above; ls /dir; [ ! -e /file ]";
    world.tiny_docker([&words[..], &["sh", "-ec", script]].concat()).assert().success().stdout("above\n");
    let diff = world.tiny_docker(["diff", "web"]).output().unwrap();
    let text = String::from_utf8_lossy(&diff.stdout).into_owned();
    for line in ["D /file", "A /dir/above", "D /dir/below"] {
        assert!(text.lines().any(|one| one == line), "{line}: {}", said(&diff));
    }
    assert!(layer.join("dir/below").exists() && layer.join("file").exists(), "the layer is as it was");
    // And without a user namespace it is the same container.
    world.tiny_docker(["cp", "web:/dir/above", "."]).assert().success();
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_a_root_file_system_of_ones_own_is_mapped_too() {
    let world = World::on_disk();
    let rootfs = world.copy_of_rootfs("rootfs");
    chown(rootfs.join("etc/group"), Some(3), Some(4)).unwrap();
    let words = ["run", "--rm", "--net", "none", "--userns", "auto", "--rootfs", rootfs.to_str().unwrap()];
    let script = "stat -c %u:%g / /etc/group; echo new > /new; chown 8:9 /new";
    world.tiny_docker([&words[..], &["sh", "-ec", script]].concat()).assert().success().stdout("0:0\n3:4\n");
    let found = fs::metadata(rootfs.join("new")).unwrap();
    assert_eq!((found.uid(), found.gid()), (8, 9));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_where_files_cannot_be_shown_as_somebody_elses_they_are_copied() {
    let world = World::on_disk();
    let lower = world.copy_of_rootfs("lower");
    chown(lower.join("etc/group"), Some(3), Some(4)).unwrap();
    fs::hard_link(lower.join("etc/group"), lower.join("etc/again")).unwrap();
    fs::copy(lower.join("bin/busybox"), lower.join("suid")).unwrap();
    fs::set_permissions(lower.join("suid"), Permissions::from_mode(0o4755)).unwrap();
    // No overlay can be shown so.
    let merged = world.dir().join("merged");
    let dirs = ["upper", "work", "merged"].map(|name| world.dir().join(name));
    dirs.iter().for_each(|dir| fs::create_dir(dir).unwrap());
    let options =
        format!("lowerdir={},upperdir={},workdir={}", lower.display(), dirs[0].display(), dirs[1].display());
    let (overlay, flags) = (Some("overlay"), nix::mount::MsFlags::empty());
    nix::mount::mount(overlay, &merged, overlay, flags, Some(&options[..])).unwrap();
    let _mounted = Mounted(&merged);
    let words =
        ["run", "--net", "none", "--userns", "auto", "--name", "web", "--layer", merged.to_str().unwrap()];
    let script = "stat -c %u:%g /; stat -c '%u:%g %a' /etc/group /etc/again /suid; > /new; stat -c %u /new";
    let expected = "0:0\n3:4 644\n3:4 644\n0:0 4755\n0\n";
    let first = world.tiny_docker([&words[..], &["sh", "-ec", script]].concat()).assert().success();
    first.stdout(expected).stderr(contains("a copy"));
    // Once for each container.
    let again = world.tiny_docker(["start", "-a", "web"]).assert().success();
    again.stdout(expected).stderr(contains("a copy").not());
    // In a low range, what is shifted twice has a number as well.
    let low = ["run", "--rm", "--net", "none", "--userns", "1000:1000", "--layer", merged.to_str().unwrap()];
    let stat = ["stat", "-c", "%u:%g", "/etc/group", "/etc/again"];
    world.tiny_docker([&low[..], &stat].concat()).assert().success().stdout("3:4\n3:4\n");
    world.remove_all();
}

/// A mount, for as long as this value lives.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = nix::mount::umount(self.0);
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_a_volume_is_everybodys_who_has_it() {
    let world = World::on_disk();
    // Its first use copies what is there. (day 11)
    let volume = ["-v", "data:/etc"];
    start(&world, "one", &volume, "echo one > /etc/one; chown 1000 /etc/one");
    start(
        &world,
        "other",
        &volume,
        "[ $(stat -c %u /etc/one) = 1000 ]; echo other >> /etc/one; [ -e /etc/passwd ]",
    );
    assert_ne!(first(&world, "one"), first(&world, "other"));
    let look = "stat -c %u /etc/one /etc/passwd; cat /etc/one";
    run(&world, &volume, look).success().stdout("1000\n0\none\nother\n");
    world.remove_all();
    world.tiny_docker(["volume", "rm", "data"]).assert().success();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_a_directory_of_the_host_is_not() {
    let world = World::on_disk();
    let dir = world.dir().join("hosts");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("file"), "secret\n").unwrap();
    fs::set_permissions(dir.join("file"), Permissions::from_mode(0o600)).unwrap();
    let volume = format!("{}:/hosts", dir.display());
    let script = "stat -c %u /hosts/file; cat /hosts/file 2>/dev/null || echo refused; \
        (> /hosts/new) 2>/dev/null || echo refused; chown 0 /hosts/file 2>/dev/null || echo refused";
    let text = says(&world, &["-v", &volume], script);
    assert_eq!(text, "65534\nrefused\nrefused\nrefused\n");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_memory_and_the_files_of_etc_are_roots_inside() {
    let world = World::on_disk();
    let flags = ["--tmpfs", "/memory", "--tmpfs", "/its:uid=1000,gid=1001,mode=700"];
    let script = "stat -c %u:%g /memory /its /dev /dev/shm /etc/hosts /etc/hostname; > /memory/file; \
        echo 127.0.0.1 more >> /etc/hosts; stat -c %u /memory/file; > /dev/shm/file";
    let expected = "0:0\n1000:1001\n0:0\n0:0\n0:0\n0:0\n0\n";
    assert_eq!(says(&world, &flags, &format!("set -e; {script}")), expected);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_devices_are_the_hosts_and_work() {
    let world = World::on_disk();
    let script = "set -e; echo x > /dev/null; head -c 3 /dev/zero | wc -c; head -c 3 /dev/urandom | wc -c; \
        [ -c /dev/full ]; [ -c /dev/tty ]; [ -c /dev/random ]; ls /dev/pts; cat /proc/kcore | wc -c";
    assert_eq!(says(&world, &[], script), "3\n3\nptmx\n0\n");
    let text = says(&world, &["--device", "/dev/zero:/dev/a/zero:r"], "head -c 3 /dev/a/zero | wc -c");
    assert_eq!(text, "3\n");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_a_terminal_is_its_own() {
    let _world = World::on_disk();
    let base = busybox();
    let words =
        ["run", "--rm", "-it", "--net", "none", "--userns", "auto", "--layer", base.to_str().unwrap()];
    let mut terminal = AtTerminal::start([&words[..], &["sh"]].concat());
    terminal.types("stat -c 'owner %u' $(tty); echo hel'lo' > /dev/tty; exit 3\n");
    terminal.shows("owner 0");
    terminal.shows("hello");
    assert_eq!(terminal.ended(), 3);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_streams_can_be_opened_by_name() {
    let world = World::on_disk();
    let script = "echo out > /dev/stdout; echo err > /dev/stderr; cat /dev/stdin";
    let base = busybox();
    let words = ["run", "--rm", "--net", "none", "--userns", "auto", "--layer", base.to_str().unwrap()];
    for user in ["0", "1000"] {
        let mut command = world.tiny_docker([&words[..], &["-u", user, "sh", "-c", script]].concat());
        command.write_stdin("in\n").assert().success().stdout("out\nin\n").stderr("err\n");
    }
    start(&world, "web", &[], "");
    let mut exec = world.tiny_docker(["exec", "-i", "web", "sh", "-c", script]);
    exec.write_stdin("in\n").assert().success().stdout("out\nin\n").stderr("err\n");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_exec_is_in_there_too() {
    let world = World::on_disk();
    start(&world, "web", &["--health-cmd", "[ $(id -u) = 0 ] && > /checked", "--health-interval", "1s"], "");
    let script = "id -u; [ $(readlink /proc/1/ns/user) = $(readlink /proc/self/ns/user) ] && echo the same; \
        > /made; stat -c %u /made";
    let exec = world.tiny_docker(["exec", "web", "sh", "-c", script]).assert().success();
    exec.stdout("0\nthe same\n0\n").stderr(is_empty());
    assert_eq!(fs::metadata(upper(&world, "web").join("made")).unwrap().uid(), 0);
    let own = fs::read_link("/proc/self/ns/user").unwrap();
    let other = world.tiny_docker(["exec", "-u", "1000", "web", "readlink", "/proc/self/ns/user"]).assert();
    other.success().stdout(contains(own.to_str().unwrap()).not());
    until("it is checked", || upper(&world, "web").join("checked").exists());
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_files_are_copied_in_and_out_with_the_ids_of_inside() {
    let world = World::on_disk();
    start(&world, "web", &[], "echo out > /out; chown 1000:1001 /out; mkdir /memory");
    fs::write(world.dir().join("in"), "in\n").unwrap();
    let owner = |what: &str| {
        let output = world.tiny_docker(["cp", "-a", &format!("web:{what}"), "copy"]).assert().success();
        drop(output);
        let found = fs::metadata(world.dir().join("copy")).unwrap();
        fs::remove_file(world.dir().join("copy")).unwrap();
        (found.uid(), found.gid())
    };
    for state in ["running", "ended"] {
        assert_eq!(owner("/out"), (1000, 1001), "{state}");
        world.tiny_docker(["cp", "in", &format!("web:/{state}")]).assert().success();
        assert_eq!(fs::metadata(upper(&world, "web").join(state)).unwrap().uid(), 0, "{state}");
        world.tiny_docker(["stop", "-t", "0", "web"]).assert().success();
    }
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_what_takes_power_over_the_host_its_parent_gives() {
    let world = World::on_disk();
    let flags = ["--oom-score-adj", "-500", "--ulimit", "nofile=1000:600000", "--ulimit", "memlock=-1"];
    let script = "cat /proc/self/oom_score_adj; ulimit -Sn; ulimit -Hn; ulimit -l";
    assert_eq!(says(&world, &flags, script), "-500\n1000\n600000\nunlimited\n");
    let flags = ["--sysctl", "net.ipv4.ip_default_ttl=42"];
    assert_eq!(says(&world, &flags, "cat /proc/sys/net/ipv4/ip_default_ttl"), "42\n");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_it_is_connected_as_any_other() {
    let world = World::on_disk();
    let base = busybox();
    let words = ["run", "--rm", "--userns", "auto", "--layer", base.to_str().unwrap(), "sh", "-c"];
    let script = "gateway=$(ip route | awk '/default/ {print $3}'); ping -c 1 -W 60 $gateway >/dev/null && \
        ls /sys/class/net | tr '\\n' ' '";
    world.tiny_docker([&words[..], &[script]].concat()).assert().success().stdout("eth0 lo ");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_its_image_has_ids_from_0_as_all_have() {
    let world = World::on_disk();
    let mut layout = Layout::new(&world, "layout");
    let layer = layout.layer(&tar_of(&busybox()), Packed::Gzip);
    let manifest = layout.image(&[layer], serde_json::json!({}));
    layout.tag("docker.io/library/base:latest", &manifest);
    let archive = world.dir().join("base.tar");
    fs::write(&archive, tar_of(&layout.dir)).unwrap();
    world.tiny_docker(["load", "-i", archive.to_str().unwrap()]).assert().success();
    let script = "echo new > /new; chown 1000 /new; rm /bin/arch; stat -c %u /";
    let words =
        ["run", "--net", "none", "--userns", "auto", "--name", "web", "--image", "base", "sh", "-c", script];
    world.tiny_docker(words).assert().success().stdout("0\n");
    world.tiny_docker(["commit", "web", "made"]).assert().success();
    let look = ["stat", "-c", "%u", "/new", "/bin/busybox"];
    for mode in ["host", "auto"] {
        let words = ["run", "--rm", "--net", "none", "--userns", mode, "--image", "made"];
        world.tiny_docker([&words[..], &look].concat()).assert().success().stdout("1000\n0\n");
    }
    world.remove_all();
    world.tiny_docker(["rmi", "made", "base"]).assert().success();
}
