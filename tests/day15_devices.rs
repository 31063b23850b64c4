//! Day 15: the devices that a container may use, and those of the host that it is given.
#![allow(clippy::unwrap_used)]

mod common;

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use assert_cmd::assert::Assert;
use common::{World, busybox, in_the_vm, pid, said, until};
use nix::sys::stat::{Mode, SFlag, major, makedev, minor, mknod};
use predicates::prelude::*;
use predicates::str::{contains, is_empty};

const REFUSED: &str = "Operation not permitted";

/// To open the kernel's log takes a capability, besides what is tried here.
const LOG: [&str; 2] = ["--cap-add", "SYSLOG"];

fn run<S: AsRef<OsStr>>(world: &World, flags: &[S], script: &str) -> Assert {
    let rootfs = busybox();
    let mut words: Vec<&OsStr> = ["run", "--net", "none", "--rootfs"].map(OsStr::new).to_vec();
    words.push(rootfs.as_os_str());
    words.extend(LOG.map(OsStr::new));
    words.extend(flags.iter().map(AsRef::as_ref));
    words.extend(["sh", "-c", script].map(OsStr::new));
    world.tiny_docker(words).assert()
}

const NONE: [&str; 0] = [];

/// A disk of the host's. In the guest it is the one that the tests came on.
fn disk() -> &'static str {
    if in_the_vm() { "/dev/vdb" } else { "/dev/loop0" }
}

/// What mknod is to be told of it.
fn number_of_the_disk() -> String {
    let number = fs::metadata(disk()).unwrap().rdev();
    format!("b {} {}", major(number), minor(number))
}

/// The first bytes of a device, in digits.
fn beginning(device: &str) -> String {
    let mut bytes = [0; 512];
    File::open(device).unwrap().read_exact(&mut bytes).unwrap();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Prints the same of a device in the container.
fn print_beginning(device: &str) -> String {
    format!("head -c 512 {device} | od -v -A n -t x1 | tr -d ' \\n'")
}

/// A node of the test's own; a character device.
fn node(path: PathBuf, (major, minor): (u64, u64), mode: u32, owner: (u32, u32)) -> PathBuf {
    mknod(&path, SFlag::S_IFCHR, Mode::empty(), makedev(major, minor)).unwrap();
    chown(&path, Some(owner.0), Some(owner.1)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

/// `--device` with a path of the host's, and what is to come behind it.
fn device(host: &Path, rest: &str) -> [OsString; 2] {
    ["--device".into(), [host.as_os_str(), OsStr::new(rest)].into_iter().collect()]
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_a_node_for_the_hosts_disk_opens_nothing() {
    let world = World::new();
    let script = format!("mknod /dev/disk {} && echo made; head -c 512 /dev/disk", number_of_the_disk());
    run(&world, &NONE, &script).failure().stdout("made\n").stderr(contains(REFUSED));
    // Nor can it be written, nor be opened by somebody who asks for both.
    for open in [">", ">>", "<>"] {
        let script = format!("mknod /dev/disk {} && true {open}/dev/disk", number_of_the_disk());
        run(&world, &NONE, &script).failure().stderr(contains(REFUSED));
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_what_every_program_needs_can_be_used() {
    let world = World::new();
    let script = "echo lost >/dev/null; cat /dev/null; head -c 3 /dev/zero | wc -c; \
        for one in random urandom full; do head -c 5 /dev/$one | wc -c; done; \
        echo much >/dev/full || echo full";
    run(&world, &NONE, script).success().stdout("3\n5\n5\n5\nfull\n");
    let script =
        "tty; echo told >/dev/tty; true <>/dev/ptmx && echo another; true <>/dev/console && echo console";
    run(&world, &["-t"], script).success().stdout("/dev/pts/0\r\ntold\r\nanother\r\nconsole\r\n");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_any_node_can_be_made_but_not_opened() {
    let world = World::new();
    // As an image's installer may do, anywhere. (What 1:3 is here, it is everywhere.)
    let rootfs = busybox();
    let on_a_layer = |flags: &[&str], script: &str| {
        let words = ["run", "--net", "none", "--layer", rootfs.to_str().unwrap()];
        world.tiny_docker([&words[..], &LOG, flags, &["sh", "-c", script]].concat()).assert()
    };
    let script = "mknod /null c 1 3 && echo x >/null && mknod /log c 1 11 && mknod /ram b 1 3 && echo made; \
        for one in /log /ram; do true <$one && echo $one is open; done; true";
    let refused = contains(format!("/log: {REFUSED}")).and(contains(format!("/ram: {REFUSED}")));
    on_a_layer(&[], script).success().stdout("made\n").stderr(refused);
    // And who may make none, makes none.
    on_a_layer(&["--cap-drop", "MKNOD"], "mknod /zero c 1 5").failure().stderr(contains(REFUSED));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_exec_is_in_the_filter_too() {
    let world = World::new();
    world.detach(&["--net", "none", "--name", "web"], "sleep 1000");
    let script = format!("mknod /dev/disk {} && echo made; head -c 512 /dev/disk", number_of_the_disk());
    let refused = world.tiny_docker(["exec", "web", "sh", "-c", &script]).assert();
    refused.failure().stdout("made\n").stderr(contains(REFUSED));
    // All capabilities open no device: it is the container that may not.
    let all = world.tiny_docker(["exec", "--privileged", "web", "head", "-c", "512", "/dev/disk"]).assert();
    all.failure().stdout(is_empty()).stderr(contains(REFUSED));
    world.tiny_docker(["exec", "web", "head", "-c", "1", "/dev/zero"]).assert().success().stdout("\0");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_cgroups_within_the_containers_are_no_way_around() {
    let world = World::new();
    let script = format!(
        "mknod /dev/disk {}; until grep -q below /proc/self/cgroup; do sleep 0.05; done; \
         head -c 1 /dev/zero | wc -c; true </dev/disk || echo refused; sleep 1000",
        number_of_the_disk()
    );
    let id = world.detach(&["--net", "none"], &script);
    let below = Path::new("/sys/fs/cgroup").join(format!("tiny-docker-{id}/below"));
    fs::create_dir(&below).unwrap();
    fs::write(below.join("cgroup.procs"), pid(&world, &id).to_string()).unwrap();
    let mut told = String::new();
    until("it has tried both", || {
        told = said(&world.tiny_docker(["logs", &id]).output().unwrap());
        // Each stream comes by a way of its own.
        (told.contains("refused") && told.contains(REFUSED)) || told.lines().count() > 3
    });
    assert!(told.contains("1\n") && told.contains("refused") && told.contains(REFUSED), "{told}");
    world.remove_all();
}

/// How many programs of eBPF the kernel has. (bpf(2), BPF_PROG_GET_NEXT_ID)
fn programs() -> usize {
    const GET_NEXT_ID: i32 = 11;
    // The one behind this one; which that is; no flags.
    let mut question = [0_u32; 3];
    let mut count = 0;
    loop {
        // SAFETY: the kernel reads three numbers, and writes the second.
        let found = unsafe { libc::syscall(libc::SYS_bpf, GET_NEXT_ID, question.as_mut_ptr(), 12) };
        if found == -1 {
            return count;
        }
        (question[0], count) = (question[1], count + 1);
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_the_filter_goes_with_the_container() {
    let world = World::new();
    // Those of earlier tests may be about to go: the kernel does that when it has the time.
    let before = programs();
    let id = world.detach(&["--net", "none"], "sleep 1000");
    let with = programs();
    assert!(with > 0, "the container has a filter, and the kernel has no program ({before} before)");
    world.tiny_docker(["rm", "-f", &id]).assert().success();
    until("the filter is gone", || programs() < with);
    // One that never comes to run its command leaves none either.
    let without = programs();
    let rootfs = busybox();
    let words = ["run", "--net", "none", "--rootfs", rootfs.to_str().unwrap(), "/nosuch"];
    world.tiny_docker(words).assert().code(127);
    until("the other filter is gone", || programs() <= without);
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_a_device_has_the_hosts_number_mode_and_owner() {
    let world = World::new();
    let host = node(world.dir().join("log"), (1, 11), 0o642, (12, 34));
    let show = "stat -c '%F %t:%T %a %u:%g'";
    let expected = "character special file 1:b 642 12:34\n";
    run(
        &world,
        &device(&host, ":/dev/kernel/log"),
        &format!("{show} /dev/kernel/log; true </dev/kernel/log"),
    )
    .success()
    .stdout(expected)
    .stderr(is_empty());
    // Through a link as well, and by a path that is relative to where somebody stands.
    symlink("log", world.dir().join("link")).unwrap();
    run(&world, &["--device", "link:/dev/log"], &format!("{show} /dev/log")).success().stdout(expected);
    // Without a name for the container it is the host's.
    run(&world, &["--device", "/dev/kmsg", "--device", "/dev/null"], "stat -c %t:%T /dev/kmsg /dev/null")
        .success()
        .stdout("1:b\n1:3\n");
    // As with Docker, what follows need not be a name for the container.
    run(&world, &["--device", "/dev/kmsg:r"], "true </dev/kmsg && echo read; true >/dev/kmsg")
        .failure()
        .stdout("read\n")
        .stderr(contains(REFUSED));
    // The directory that had to be made is one that all may enter, as /dev itself.
    run(&world, &device(&host, ":/dev/kernel/log"), "stat -c %a /dev/kernel").success().stdout("755\n");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_a_disk_that_may_be_read_cannot_be_written() {
    let world = World::new();
    let (disk, expected) = (disk(), beginning(disk()));
    let open = |how: &str| format!("(true {how}/dev/disk) && echo open");
    for (access, reads, writes) in
        [("", true, true), (":r", true, false), (":w", false, true), (":m", false, false)]
    {
        let flags = ["--device".to_string(), format!("{disk}:/dev/disk{access}")];
        let is_open = |allowed| if allowed { "open\n" } else { "" };
        for (how, allowed) in [("<", reads), (">>", writes), ("<>", reads && writes)] {
            let outcome = run(&world, &flags, &open(how)).stdout(is_open(allowed));
            outcome.stderr(contains(REFUSED).count(usize::from(!allowed)));
        }
        if reads {
            run(&world, &flags, &print_beginning("/dev/disk")).success().stdout(expected.clone());
        }
    }
    // `exec` may what the container may, and a second container nothing of it.
    let flag = format!("{disk}:/dev/disk:r");
    world.detach(&["--net", "none", "--name", "web", "--device", &flag], "sleep 1000");
    let read = ["exec", "web", "sh", "-c", &print_beginning("/dev/disk")];
    world.tiny_docker(read).assert().success().stdout(expected);
    world
        .tiny_docker(["exec", "web", "sh", "-c", "true >/dev/disk"])
        .assert()
        .failure()
        .stderr(contains(REFUSED));
    run(&world, &NONE, "ls /dev/disk").failure();
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_a_directory_is_all_devices_in_it() {
    let world = World::new();
    let dir = world.dir().join("many");
    fs::create_dir_all(dir.join("below/deeper")).unwrap();
    fs::create_dir(dir.join("empty")).unwrap();
    node(dir.join("log"), (1, 11), 0o600, (0, 0));
    node(dir.join("below/deeper/zero"), (1, 5), 0o666, (0, 0));
    // A name is bytes.
    node(dir.join(OsStr::from_bytes(b"caf\xe9")), (1, 7), 0o600, (0, 0));
    File::create(dir.join("file")).unwrap();
    symlink("/dev/kmsg", dir.join("link")).unwrap();
    let script =
        "cd /dev/all; find . ! -type d -exec stat -c '%n %t:%T' {} + | LC_ALL=C sort; true <log && echo open";
    let printed = run(&world, &device(&dir, ":/dev/all:r"), script).success().get_output().stdout.clone();
    let expected = b"./below/deeper/zero 1:5\n./caf\xe9 1:7\n./log 1:b\nopen\n".to_vec();
    let (printed, expected) = (OsString::from_vec(printed), OsString::from_vec(expected));
    assert_eq!(printed, expected, "what is in there, and whether the log can be opened");
    // What the whole directory may, each of them may, and no more.
    run(&world, &device(&dir, ":/dev/all:r"), "true >/dev/all/log").failure().stderr(contains(REFUSED));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_what_is_no_device_is_said_before_anything_is_made() {
    let world = World::new();
    fs::create_dir(world.dir().join("empty")).unwrap();
    File::create(world.dir().join("file")).unwrap();
    for (flag, words) in [
        ("/dev/nosuch", "/dev/nosuch"),
        ("file:/dev/file", "not a device"),
        ("empty:/dev/empty", "0 devices"),
        ("/dev/kmsg:/kmsg", "below the container's /dev"),
        ("/dev/kmsg:/dev/../kmsg", "below the container's /dev"),
        ("/dev/kmsg:/dev", "below the container's /dev"),
        ("file", "below the container's /dev"),
        ("/dev/kmsg:/dev/kmsg:rx", "r, w and m"),
        ("/dev/kmsg:/dev/kmsg:r:w", "colons"),
        (":/dev/kmsg", "empty"),
    ] {
        let outcome = run(&world, &["--device", flag], "echo it runs").code(125).stdout(is_empty());
        outcome.stderr(contains("--device").and(contains(words)));
        assert_eq!(world.ps().lines().count(), 1, "--device {flag} leaves a container");
    }
    let words = ["run", "--net", "none", "--device", "/dev/kmsg", "true"];
    world
        .tiny_docker(words)
        .assert()
        .code(125)
        .stderr(contains("--device is for a container with its own /"));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_a_place_that_is_taken_stays_as_it_is() {
    let world = World::new();
    let volume = world.dir().join("volume");
    fs::create_dir(&volume).unwrap();
    let mount = format!("{}:/dev/volume", volume.display());
    for (flag, words) in [
        ("/dev/kmsg:/dev/null", "something else is there"),
        ("/dev/kmsg:/dev/stdin", "something else is there"),
        ("/dev/kmsg:/dev/shm", "something else is there"),
        ("/dev/kmsg:/dev/shm/kmsg", "mounted"),
        ("/dev/kmsg:/dev/volume/kmsg", "mounted"),
        ("/dev/kmsg:/dev/volume/more/kmsg", "mounted"),
        ("/dev/kmsg:/dev/fd/kmsg", "not a directory"),
        ("/dev/kmsg:/dev/null/kmsg", "not a directory"),
    ] {
        let outcome = run(&world, &["--device", flag, "-v", &mount], "echo it runs").failure();
        outcome.stdout(is_empty()).stderr(contains(words));
        assert_eq!(world.ps().lines().count(), 1, "--device {flag} leaves a container");
    }
    assert_eq!(fs::read_dir(&volume).unwrap().count(), 0, "there is a node in a directory of the host's");
    let two = ["--device", "/dev/kmsg:/dev/one", "--device", "/dev/zero:/dev/one"];
    run(&world, &two, "true").code(125).stderr(contains("two devices"));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_at_each_start_the_device_is_looked_up_anew() {
    let world = World::new();
    let host = node(world.dir().join("stick"), (1, 7), 0o600, (0, 0));
    let rootfs = busybox();
    let script = "stat -c %t:%T /dev/stick; true </dev/stick && echo open";
    let words = ["create", "--net", "none", "--name", "web", "--rootfs", rootfs.to_str().unwrap()];
    let words = [&words[..], &LOG, &["--device", "stick:/dev/stick:r", "sh", "-c", script]].concat();
    world.tiny_docker(words).assert().success();
    // Unplugged, and plugged in again: now it is another one, with another number.
    fs::remove_file(&host).unwrap();
    node(host.clone(), (1, 11), 0o600, (0, 0));
    // The directory that somebody starts it from is another one than it was made in.
    world.tiny_docker(["start", "-a", "web"]).current_dir("/").assert().success().stdout("1:b\nopen\n");
    fs::remove_file(&host).unwrap();
    let gone = world.tiny_docker(["start", "-a", "web"]).assert().failure();
    gone.stdout(is_empty()).stderr(contains("--device").and(contains("stick")));
    node(host, (1, 7), 0o600, (0, 0));
    world.tiny_docker(["start", "-a", "web"]).assert().success().stdout("1:7\nopen\n");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_privileged_has_all_devices_of_the_host() {
    let world = World::new();
    let (disk, expected) = (disk(), beginning(disk()));
    run(&world, &["--privileged"], &print_beginning(disk)).success().stdout(expected);
    // Also the host's files, by mounting the disk; and a device that it makes a node for itself.
    run(&world, &["--privileged"], "mknod /dev/own c 1 11 && true </dev/own").success().stderr(is_empty());
    // Its own are still its own.
    let script = "stat -c '%n %F' /dev/ptmx /dev/fd /dev/null; ls -A /dev/shm /dev/pts";
    run(&world, &["--privileged"], script).success().stdout(
        "/dev/ptmx symbolic link\n/dev/fd symbolic link\n/dev/null character special file\n\
         /dev/pts:\nptmx\n\n/dev/shm:\n",
    );
    let here = fs::metadata("/dev/kmsg").unwrap();
    let expected = format!("{:o} {}:{}\n", here.mode() & 0o7777, here.uid(), here.gid());
    run(&world, &["--privileged"], "stat -c '%a %u:%g' /dev/kmsg").success().stdout(expected);
}
