//! Day 11: volumes, which outlive the containers that use them.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use assert_cmd::assert::Assert;
use common::{World, busybox, said, until};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, mknod, utimensat};
use nix::sys::time::TimeSpec;
use predicates::prelude::*;
use predicates::str::{contains, is_match};

fn words<'a>(rootfs: &'a Path, flags: &[&'a str], script: &'a str) -> Vec<&'a str> {
    [&["run", "--net", "none", "--rootfs", rootfs.to_str().unwrap()], flags, &["sh", "-c", script]].concat()
}

fn run(world: &World, rootfs: &Path, flags: &[&str], script: &str) -> Assert {
    world.tiny_docker(words(rootfs, flags, script)).assert()
}

/// What `volume` with these words prints.
fn volume(world: &World, words: &[&str]) -> String {
    let output = world.tiny_docker([&["volume"], words].concat()).output().unwrap();
    assert!(output.status.success(), "volume {words:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn data(world: &World, name: &str) -> PathBuf {
    world.dir().join("state/volumes").join(name).join("_data")
}

/// A root file system that has in /data what programs like to ship.
fn rootfs_with_data(world: &World) -> PathBuf {
    let rootfs = world.copy_of_rootfs("rootfs");
    let dir = rootfs.join("data");
    fs::create_dir_all(dir.join("sub/private")).unwrap();
    fs::write(dir.join("file"), "from the image\n").unwrap();
    fs::hard_link(dir.join("file"), dir.join("sub/same")).unwrap();
    symlink("sub/same", dir.join("link")).unwrap();
    symlink("/nowhere", dir.join("dangling")).unwrap();
    mknod(&dir.join("null"), SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), nix::sys::stat::makedev(1, 3))
        .unwrap();
    nix::unistd::mkfifo(&dir.join("fifo"), Mode::from_bits_truncate(0o620)).unwrap();
    fs::write(dir.join("sub/tool"), "#!/bin/sh\n").unwrap();
    let mut sparse = File::create(dir.join("sparse")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    sparse.write_all_at(b"middle", 1 << 39).unwrap();
    sparse.seek(SeekFrom::End(0)).unwrap();
    sparse.write_all(b"end").unwrap();
    for (path, owner, mode) in [
        ("file", 7, 0o640),
        ("sub/tool", 8, 0o4755),
        ("sub/private", 9, 0o000),
        ("sub", 9, 0o2750),
        (".", 70, 0o1770),
    ] {
        std::os::unix::fs::chown(dir.join(path), Some(owner), Some(owner + 1)).unwrap();
        fs::set_permissions(dir.join(path), Permissions::from_mode(mode)).unwrap();
    }
    lchown(dir.join("link"), Some(11), Some(12)).unwrap();
    set_attribute(&dir.join("file"), "trusted.origin", b"image\0\xff");
    // CAP_NET_BIND_SERVICE, as `setcap cap_net_bind_service=ep` writes it. (capabilities(7))
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    set_attribute(&dir.join("sub/tool"), "security.capability", &capability);
    for (path, second) in [("file", 1), ("link", 2), ("sub/private", 3), ("sub", 4), (".", 5)] {
        let time = TimeSpec::new(1_000_000_000 + second, 123_456_789);
        let follow = UtimensatFlags::NoFollowSymlink;
        utimensat(nix::fcntl::AT_FDCWD, &dir.join(path), &time, &time, follow).unwrap();
    }
    rootfs
}

fn set_attribute(path: &Path, name: &str, value: &[u8]) {
    let (path, name) = (c_string(path.to_str().unwrap()), c_string(name));
    // SAFETY: two strings that end with a NUL, and as many bytes as are there.
    let result =
        unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    assert_eq!(result, 0, "{path:?}: {}", std::io::Error::last_os_error());
}

fn attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
    let (path, name) = (c_string(path.to_str().unwrap()), c_string(name));
    let mut value = [0u8; 256];
    // SAFETY: two strings that end with a NUL, and room for as many bytes as it says.
    let length =
        unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    usize::try_from(length).ok().map(|length| value[..length].to_vec())
}

fn c_string(text: &str) -> std::ffi::CString {
    std::ffi::CString::new(text).unwrap()
}

/// All that can be told of a tree, name by name.
fn tree(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut todo = vec![PathBuf::from(".")];
    while let Some(path) = todo.pop() {
        let full = dir.join(&path);
        let metadata = fs::symlink_metadata(&full).unwrap();
        let facts = (metadata.mode(), metadata.uid(), metadata.gid(), metadata.rdev(), metadata.mtime());
        let nanoseconds = metadata.mtime_nsec();
        let attributes = ["trusted.origin", "security.capability"].map(|name| attribute(&full, name));
        let content = match metadata.file_type() {
            kind if kind.is_dir() => {
                let names = fs::read_dir(&full).unwrap().flatten().map(|entry| path.join(entry.file_name()));
                todo.extend(names);
                String::new()
            }
            kind if kind.is_symlink() => format!("{:?}", fs::read_link(&full).unwrap()),
            kind if kind.is_file() && metadata.size() < 1 << 20 => {
                format!("{:?} {}", fs::read(&full).unwrap(), metadata.nlink())
            }
            _ => format!("{} bytes", metadata.size()),
        };
        found.insert(path, format!("{facts:?} {nanoseconds} {attributes:?} {content}"));
    }
    found
}

/// Asserts that the volume `name` has what `expected` says, and no more.
fn has(world: &World, name: &str, expected: &BTreeMap<PathBuf, String>, when: &str) {
    let found = tree(&data(world, name));
    let differ = |path: &&PathBuf| found.get(*path) != expected.get(*path);
    let differences: Vec<_> = expected.keys().chain(found.keys()).filter(differ).collect();
    if let Some(path) = differences.first() {
        let [found, expected] =
            [&found, expected].map(|tree| tree.get(*path).map_or("nothing", |facts| facts));
        panic!(
            "{when}, the volume is not what the root has at its place: {differences:?} differ; {path:?} is \
             {found}, expected {expected}"
        );
    }
}

// https://github.com/moby/moby/issues/18670
#[test]
#[ignore = "privileged: make vm-test"]
fn task4_an_empty_volume_gets_what_the_root_has() {
    let world = World::new();
    let rootfs = rootfs_with_data(&world);
    let before = tree(&rootfs.join("data"));
    run(&world, &rootfs, &["-v", "data:/data"], "true").success();
    has(&world, "data", &before, "after its first use");
    let (one, other) = (data(&world, "data").join("file"), data(&world, "data").join("sub/same"));
    assert_eq!(fs::metadata(&one).unwrap().ino(), fs::metadata(&other).unwrap().ino(), "one file, two names");
    let sparse = File::open(data(&world, "data").join("sparse")).unwrap();
    assert!(sparse.metadata().unwrap().blocks() < 1000, "the holes were filled");
    let mut middle = [0; 6];
    sparse.read_exact_at(&mut middle, 1 << 39).unwrap();
    assert_eq!(&middle, b"middle");
    // What is written goes into the volume, and the root stays as it is.
    run(&world, &rootfs, &["-v", "data:/data"], "cat /data/link; echo mine > /data/new; rm /data/file")
        .success()
        .stdout("from the image\n");
    assert_eq!(tree(&rootfs.join("data")), before, "the root was written");
    // With layers it is the same.
    let layer = rootfs.to_str().unwrap();
    let script = "cat /data/file; cat /data/new";
    world
        .tiny_docker(["run", "--net", "none", "--layer", layer, "-v", "more:/data", "sh", "-c", script])
        .assert()
        .failure()
        .stdout("from the image\n");
    has(&world, "more", &before, "with layers");
    assert_eq!(tree(&rootfs.join("data")), before, "the layer was written");
    // Nor is read-only an obstacle.
    run(&world, &rootfs, &["--read-only", "-v", "third:/data:ro"], "cat /data/file")
        .success()
        .stdout("from the image\n");
    has(&world, "third", &before, "with a root that is read-only");
}

// CVE-2020-1726: podman copied over what a volume had. https://nvd.nist.gov/vuln/detail/CVE-2020-1726
// And https://github.com/podman-container-tools/podman/issues/12714: Docker copies whenever it is empty.
#[test]
#[ignore = "privileged: make vm-test"]
fn task4_what_a_volume_has_stays() {
    let world = World::new();
    let rootfs = rootfs_with_data(&world);
    volume(&world, &["create", "used"]);
    fs::write(data(&world, "used").join("file"), "precious\n").unwrap();
    run(&world, &rootfs, &["-v", "used:/data"], "ls -A /data; cat /data/file")
        .success()
        .stdout("file\nprecious\n");
    // Elsewhere, where the root has nothing, it stays empty; and is filled when there is something.
    run(&world, &rootfs, &["-v", "late:/opt/nothing"], "ls /opt/nothing").success().stdout("");
    run(&world, &rootfs, &["-v", "late:/data"], "cat /data/file").success().stdout("from the image\n");
    // Not if nobody wants it.
    for flags in [["-v", "none:/data:nocopy"], ["--mount", "source=none,target=/data,volume-nocopy"]] {
        run(&world, &rootfs, &flags, "ls -A /data").success().stdout("");
    }
    // What was removed does not come back while anything is left.
    run(&world, &rootfs, &["-v", "late:/data"], "rm /data/file").success();
    run(&world, &rootfs, &["-v", "late:/data"], "ls /data/file").failure();
}

// CVE-2022-23648: containerd copied what the host has at the place that a volume has in the
// image. https://nvd.nist.gov/vuln/detail/CVE-2022-23648
#[test]
#[ignore = "privileged: make vm-test"]
fn task4_a_volume_gets_nothing_from_the_host() {
    let world = World::new();
    let rootfs = world.copy_of_rootfs("rootfs");
    let secret = world.dir().join("secret");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("key"), "of the host").unwrap();
    let secret = secret.to_str().unwrap();
    symlink(secret, rootfs.join("absolute")).unwrap();
    symlink(format!("../../../../../..{secret}"), rootfs.join("relative")).unwrap();
    symlink("/proc", rootfs.join("kernel")).unwrap();
    for (at, place) in ["/absolute", "/relative", "/kernel", "/dev", "/sys"].iter().enumerate() {
        // Not all of these can be mounted on, and that is fine.
        let _ = run(&world, &rootfs, &["-v", &format!("stolen{at}:{place}")], "true");
    }
    // What the runtime has open at that moment: the directories of volumes, above all.
    let mut flags = Vec::new();
    for number in 3..60 {
        symlink(format!("/proc/self/fd/{number}"), rootfs.join(format!("fd{number}"))).unwrap();
        flags.extend(["-v".to_string(), format!("open{number}:/fd{number}")]);
    }
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    run(&world, &rootfs, &flags, "true").code(125);
    let names = volume(&world, &["ls", "-q"]);
    assert_eq!(names.lines().count(), 5 + 57);
    for name in names.lines() {
        let found: Vec<_> = fs::read_dir(data(&world, name)).unwrap().flatten().collect();
        assert!(found.is_empty(), "the volume {name} got {found:?} from outside of its container's root");
    }
}

// https://github.com/moby/moby/issues/43068
#[test]
#[ignore = "privileged: make vm-test"]
fn task4_two_at_once_copy_once() {
    let world = World::new();
    let rootfs = rootfs_with_data(&world);
    for number in 0..200 {
        let dir = rootfs.join(format!("data/{}", number % 10));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(number.to_string()), vec![b'x'; 4096]).unwrap();
    }
    let before = tree(&rootfs.join("data"));
    let count = format!("{}\n", before.len());
    for round in 0..2 {
        let flag = format!("shared{round}:/data");
        let words = words(&rootfs, &["-v", &flag], "find /data | wc -l");
        let all: Vec<_> = (0..4)
            .map(|_| {
                let mut command = std::process::Command::new(common::binary());
                command.args(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        for one in all {
            let output = one.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", said(&output));
            assert_eq!(String::from_utf8_lossy(&output.stdout), count, "it began with half of a volume");
        }
        has(&world, &format!("shared{round}"), &before, "after four first uses at once");
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_a_disk_that_fills_while_it_copies() {
    let world = World::new();
    let rootfs = rootfs_with_data(&world);
    fs::write(rootfs.join("data/big"), vec![b'x'; 8 << 20]).unwrap();
    let state = world.dir().join("state");
    fs::create_dir(&state).unwrap();
    let (none, size) = (nix::mount::MsFlags::empty(), Some("size=4m"));
    nix::mount::mount(Some("tmpfs"), &state, Some("tmpfs"), none, size).unwrap();
    let failed = world.tiny_docker(words(&rootfs, &["-v", "data:/data"], "true")).output().unwrap();
    let names = |dir: PathBuf| fs::read_dir(dir).into_iter().flatten().flatten().collect::<Vec<_>>();
    let (left, empty) =
        (names(data(&world, "data").with_file_name("")), names(data(&world, "data")).is_empty());
    // Once there is room, it is filled.
    fs::write(rootfs.join("data/big"), "small").unwrap();
    let works = world.tiny_docker(words(&rootfs, &["-v", "data:/data"], "cat /data/big")).output().unwrap();
    nix::mount::umount2(&state, nix::mount::MntFlags::MNT_DETACH).unwrap();
    assert_eq!(failed.status.code(), Some(125), "{}", said(&failed));
    let why = String::from_utf8_lossy(&failed.stderr);
    assert!(why.contains("No space left on device") && why.contains("copy \"/data\""), "{why}");
    assert!(empty, "half a copy is in the volume");
    assert_eq!(left.len(), 2, "expected _data and lock, found {left:?}");
    assert_eq!(String::from_utf8_lossy(&works.stdout), "small", "{}", said(&works));
}

// https://github.com/podman-container-tools/podman/issues/8221
#[test]
#[ignore = "privileged: make vm-test"]
fn task4_one_volume_at_two_places() {
    let world = World::new();
    let rootfs = rootfs_with_data(&world);
    let script = "echo x > /data/new; cat /other/new /other/file";
    run(&world, &rootfs, &["-v", "twice:/data", "-v", "twice:/other"], script)
        .success()
        .stdout("x\nfrom the image\n");
}

/// Whoever copies is killed before each single thing that it does. What is there then is
/// nothing, or on its way; and the next container finds all of it.
#[test]
#[ignore = "privileged: make vm-test"]
fn task4_long_killed_while_it_copies() {
    let world = World::new();
    let rootfs = rootfs_with_data(&world);
    let before = tree(&rootfs.join("data"));
    run(&world, &rootfs, &["-v", "unharmed:/data"], "exit 7").code(7);
    let mut interrupted = 0;
    for moment in 1.. {
        let name = format!("data{moment}");
        let flag = format!("{name}:/data");
        let output = world
            .tiny_docker(words(&rootfs, &["-v", &flag], "exit 7"))
            .env("TINY_DOCKER_DIE_AT", format!("child:{moment}"))
            .output()
            .unwrap();
        world.remove_all();
        if output.status.code() == Some(7) {
            break;
        }
        let dir = data(&world, &name).with_file_name("");
        let is_there = |name: &str| dir.join(name).exists();
        let some = fs::read_dir(dir.join("_data")).into_iter().flatten().count() > 0;
        // Most of what a child does has nothing to do with this.
        if !is_there("copying") && !is_there("copied") && !some {
            let _ = fs::remove_dir_all(dir);
            continue;
        }
        interrupted += 1;
        // What somebody puts there meanwhile is theirs: then nothing is copied.
        let mine = dir.join("_data/mine");
        if moment % 4 == 0 && is_there("copying") && !some {
            fs::write(&mine, "precious").unwrap();
        }
        run(&world, &rootfs, &["-v", &flag], "true").success();
        assert!(!is_there("copying") && !is_there("copied"), "killed at child:{moment}: half a copy is left");
        if mine.exists() {
            assert_eq!(fs::read_to_string(mine).unwrap(), "precious");
            assert_eq!(fs::read_dir(dir.join("_data")).unwrap().count(), 1, "child:{moment}");
        } else {
            has(&world, &name, &before, &format!("killed at child:{moment} and used once more"));
        }
        world.remove_all();
        volume(&world, &["rm", &name]);
        assert!(moment < 300, "it never gets to its end");
    }
    assert!(interrupted > 5, "it was killed only {interrupted} times in the middle of its copy");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_long_a_volume_or_none() {
    let world = World::new();
    let rootfs = busybox();
    let words = words(&rootfs, &["-v", "data:/etc", "-v", "/srv", "--tmpfs", "/tmp"], "exit 7");
    let volumes = world.dir().join("state/volumes");
    world.die_at_every_moment(&words);
    // Each command sweeps what nobody has.
    let names = volume(&world, &["ls", "-q"]);
    assert_eq!(fs::read_dir(world.dir().join("state/aside")).unwrap().count(), 0);
    for entry in fs::read_dir(&volumes).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        assert!(names.contains(&name), "{name} is half a volume");
        assert!(entry.path().join("_data").is_dir() && entry.path().join("lock").is_file(), "{name}");
    }
    // Of those that never started, none is left: one without a name would be forever.
    volume(&world, &["prune", "--all", "--force"]);
    assert_eq!(fs::read_dir(&volumes).unwrap().count(), 0);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_the_volume_commands_speak_as_docker_does() {
    let world = World::new();
    assert_eq!(volume(&world, &["create", "web-data"]), "web-data\n");
    // Once more is no error, and what is in it stays.
    fs::write(data(&world, "web-data").join("file"), "x").unwrap();
    assert_eq!(volume(&world, &["create", "web-data"]), "web-data\n");
    assert!(data(&world, "web-data").join("file").exists());
    let anonymous = volume(&world, &["create"]);
    assert!(is_match("^[0-9a-f]{64}\n$").unwrap().eval(&anonymous), "{anonymous}");
    let anonymous = anonymous.trim_end();
    assert_eq!(
        volume(&world, &["ls"]),
        format!("DRIVER   VOLUME NAME\nlocal    {anonymous}\nlocal    web-data\n")
    );
    assert_eq!(volume(&world, &["ls", "-q"]), format!("{anonymous}\nweb-data\n"));
    let shown: serde_json::Value =
        serde_json::from_str(&volume(&world, &["inspect", "web-data", anonymous])).unwrap();
    assert_eq!(shown[0]["Name"], "web-data");
    assert_eq!(shown[0]["Mountpoint"], data(&world, "web-data").to_str().unwrap());
    assert_eq!(shown[0]["Labels"], serde_json::Value::Null, "this one was given its name");
    assert_eq!(shown[1]["Labels"]["com.docker.volume.anonymous"], "", "this one has no name of its own");
    for (words, expected) in [
        (&["inspect", "nosuch"][..], "no such volume: \"nosuch\""),
        (&["rm", "nosuch"], "no such volume: \"nosuch\""),
        (&["rm", "../containers"], "no such volume"),
        (&["create", "no/such"], "expected a name of 2 to 255"),
        (&["create", "x"], "expected a name of 2 to 255"),
        (&["create", ".hidden"], "expected a name of 2 to 255"),
    ] {
        world.tiny_docker([&["volume"], words].concat()).assert().code(1).stderr(contains(expected));
    }
    world.tiny_docker(["volume", "inspect", "nosuch"]).assert().code(1).stdout("[]\n");
    assert_eq!(volume(&world, &["rm", "--force", "nosuch"]), "nosuch\n");
    // Only those without a name, unless all are meant; and somebody must agree.
    world.tiny_docker(["volume", "prune"]).write_stdin("n\n").assert().code(1).stderr(contains("cancelled"));
    let said = world.tiny_docker(["volume", "prune"]).write_stdin("y\n").assert().success();
    said.stdout(contains(format!("[y/N] Deleted Volumes:\n{anonymous}\n\nTotal reclaimed space: 0B\n")));
    fs::write(data(&world, "web-data").join("file"), vec![0; 12_345]).unwrap();
    let expected = "Deleted Volumes:\nweb-data\n\nTotal reclaimed space: 12.35kB\n";
    assert_eq!(volume(&world, &["prune", "-a", "-f"]), expected);
    assert_eq!(volume(&world, &["ls", "-q"]), "");
    assert_eq!(volume(&world, &["prune", "-f"]), "Total reclaimed space: 0B\n");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_a_volume_in_use_is_not_removed() {
    let world = World::new();
    let rootfs = busybox();
    let id =
        world.detach(&["--net", "none", "--name", "db", "-v", "data:/srv"], "echo x > /srv/file; sleep 1000");
    let refused = || world.tiny_docker(["volume", "rm", "-f", "data"]).assert().code(1);
    refused().stderr(contains("volume data is in use by container db"));
    volume(&world, &["prune", "--all", "--force"]);
    world.tiny_docker(["stop", "-t", "0", &id]).assert().success();
    // One that has ended can be looked into still.
    refused().stderr(contains("volume data is in use by container db"));
    run(&world, &rootfs, &["-v", "data:/srv"], "cat /srv/file").success().stdout("x\n");
    // A record that cannot be read may have it.
    let other = world.containers().join(&id).join("config.json");
    let record = fs::read(&other).unwrap();
    for name in ["config.json", "config.json.before"] {
        fs::write(other.with_file_name(name), "{").unwrap();
    }
    world.tiny_docker(["volume", "create", "free"]).assert().success();
    world
        .tiny_docker(["volume", "rm", "free"])
        .assert()
        .code(1)
        .stderr(contains(&id).and(contains("perhaps")));
    fs::write(&other, record).unwrap();
    world.remove_all();
    assert_eq!(volume(&world, &["rm", "data", "free"]), "data\nfree\n");
    assert_eq!(fs::read_dir(world.dir().join("state/volumes")).unwrap().count(), 0);
}

/// A container that is about to start is in no record yet.
#[test]
#[ignore = "privileged: make vm-test"]
fn task4_long_nor_is_one_that_is_about_to_be_used() {
    let world = World::new();
    let rootfs = busybox();
    for moment in 1.. {
        let mut command = std::process::Command::new(common::binary());
        command.args(words(&rootfs, &["-v", "data:/srv"], "echo x > /srv/file"));
        command.env("TINY_DOCKER_STOP_AT", format!("parent:{moment}"));
        let mut runtime = command.stdout(Stdio::null()).spawn().unwrap();
        let pid = nix::unistd::Pid::from_raw(runtime.id() as i32);
        until("it is held up", || matches!(common::state(pid), 'T' | 'Z'));
        let held_up = common::state(pid) == 'T';
        let is_used = held_up && data(&world, "data").exists();
        let removed = is_used.then(|| world.tiny_docker(["volume", "rm", "data"]).output().unwrap());
        if held_up {
            nix::sys::signal::kill(pid, Signal::SIGCONT).unwrap();
        }
        let status = runtime.wait().unwrap();
        if let Some(removed) = removed {
            let why = String::from_utf8_lossy(&removed.stderr);
            let refused = removed.status.code() == Some(1) && why.contains("volume data is in use by");
            assert!(refused, "a container is about to use it (parent:{moment}): {}", said(&removed));
        }
        assert!(status.success());
        assert!(data(&world, "data").join("file").exists(), "what it wrote is gone");
        world.remove_all();
        volume(&world, &["rm", "data"]);
        if !held_up || moment > 60 {
            return;
        }
    }
}

// https://github.com/moby/moby/issues/25747, https://github.com/moby/moby/issues/34774
#[test]
#[ignore = "privileged: make vm-test"]
fn task4_a_volume_without_a_name_goes_with_its_container() {
    let world = World::new();
    let rootfs = rootfs_with_data(&world);
    let names = || volume(&world, &["ls", "-q"]);
    let flags = ["-v", "/data", "-v", "kept:/kept", "--name", "box"];
    run(&world, &rootfs, &[&["--rm"], &flags[..]].concat(), "cat /data/file")
        .success()
        .stdout("from the image\n");
    assert_eq!(names(), "kept\n");
    // As Docker does, `rm` leaves them, and `rm -v` does not.
    run(&world, &rootfs, &flags, "true").success();
    world.tiny_docker(["rm", "box"]).assert().success();
    assert_eq!(names().lines().count(), 2);
    volume(&world, &["prune", "-f"]);
    run(&world, &rootfs, &flags, "true").success();
    assert_eq!(world.inspect("box")["mounts"][0]["anonymous"], true);
    // Somebody else uses it by now: then it stays, whoever it was made for.
    let name = world.inspect("box")["mounts"][0]["name"].as_str().unwrap().to_string();
    run(&world, &rootfs, &["--name", "heir", "-v", &format!("{name}:/x")], "cat /x/file").success();
    world.tiny_docker(["rm", "-v", "box"]).assert().success().stdout("box\n");
    assert_eq!(names(), format!("{name}\nkept\n"));
    // And to this one it came by its name.
    world.tiny_docker(["rm", "-v", "heir"]).assert().success();
    assert_eq!(names(), format!("{name}\nkept\n"));
    volume(&world, &["rm", &name]);
    // One that does not start leaves none.
    let words = ["run", "--net", "none", "--rootfs", rootfs.to_str().unwrap(), "-v", "/data", "nosuch"];
    world.tiny_docker(words).assert().code(127);
    assert_eq!(names(), "kept\n");
    // In the background it goes by itself too.
    world.detach(&["--net", "none", "--rm", "-v", "/srv"], "true");
    until("it is gone", || names() == "kept\n");
}
