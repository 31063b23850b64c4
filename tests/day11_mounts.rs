//! Day 11: what a container sees of the host: bind mounts, memory, and where they go.
#![allow(clippy::unwrap_used)]

mod common;

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use assert_cmd::assert::Assert;
use common::{World, busybox};
use predicates::prelude::*;
use predicates::str::contains;

/// `script` on `rootfs`. None of these tests needs a network.
fn run_on(world: &World, rootfs: &Path, flags: &[&str], script: &str) -> Assert {
    let words =
        [&["run", "--net", "none", "--rootfs", rootfs.to_str().unwrap()], flags, &["sh", "-c", script]];
    world.tiny_docker(words.concat()).assert()
}

/// `script` on layers: the mount points that it needs are made in the container's own.
fn run(world: &World, flags: &[&str], script: &str) -> Assert {
    let layer = busybox();
    let words = [&["run", "--net", "none", "--layer", layer.to_str().unwrap()], flags, &["sh", "-c", script]];
    world.tiny_docker(words.concat()).assert()
}

/// A directory of the host with a file `name` in it.
fn host_dir(world: &World, dir: &str, name: &str) -> String {
    let dir = world.dir().join(dir);
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join(name), "of the host\n").unwrap();
    dir.to_str().unwrap().to_string()
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_a_directory_of_the_host_is_seen_inside() {
    let world = World::new();
    let dir = host_dir(&world, "www", "index");
    run(&world, &["-v", &format!("{dir}:/srv/www")], "cat /srv/www/index; echo written > /srv/www/new")
        .success()
        .stdout("of the host\n");
    assert_eq!(fs::read_to_string(world.dir().join("www/new")).unwrap(), "written\n");
    // A path that begins with a dot is one from here.
    run(&world, &["-v", "./www:/srv/www:ro"], "cat /srv/www/index; echo > /srv/www/more")
        .failure()
        .stdout("of the host\n")
        .stderr(contains("Read-only file system"));
    // inspect shows it.
    let name = format!("type=bind,source={dir},target=/www,readonly");
    run(&world, &["--name", "web", "--mount", &name], "true").success();
    let mounts = world.inspect("web")["mounts"].clone();
    let expected = serde_json::json!([{"type": "bind", "source": dir, "target": "/www", "read_only": true}]);
    assert_eq!(mounts, expected);
}

// What is mounted below a directory that is read-only was writable until Docker 25.
// https://github.com/moby/moby/issues/23499
#[test]
#[ignore = "privileged: make vm-test"]
fn task4_read_only_is_so_all_the_way_down() {
    let world = World::new();
    let dir = host_dir(&world, "outer", "file");
    let inner = world.dir().join("outer/inner");
    fs::create_dir(&inner).unwrap();
    let none = None::<&str>;
    nix::mount::mount(Some("tmpfs"), &inner, Some("tmpfs"), nix::mount::MsFlags::empty(), none).unwrap();
    let outcome = run(&world, &["-v", &format!("{dir}:/x:ro")], "touch /x/inner/new").get_output().clone();
    nix::mount::umount(&inner).unwrap();
    assert!(String::from_utf8_lossy(&outcome.stderr).contains("Read-only file system"), "{outcome:?}");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_a_file_of_the_host_too() {
    let world = World::new();
    let dir = host_dir(&world, "conf", "app.conf");
    let flag = format!("{dir}/app.conf:/etc/app/app.conf");
    run(&world, &["-v", &flag], "cat /etc/app/app.conf; echo changed > /etc/app/app.conf")
        .success()
        .stdout("of the host\n");
    assert_eq!(fs::read_to_string(format!("{dir}/app.conf")).unwrap(), "changed\n");
    // As one mounts Docker's own socket.
    let _listener = UnixListener::bind(world.dir().join("socket")).unwrap();
    run(&world, &["-v", "./socket:/run/app.sock"], "test -S /run/app.sock").success();
    // Nothing waits for the other end of a FIFO, and no device is opened.
    nix::unistd::mkfifo(&world.dir().join("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    run(&world, &["-v", "./fifo:/fifo"], "test -p /fifo").success();
    // A file on a directory, or the other way round.
    run(&world, &["-v", &format!("{dir}/app.conf:/etc")], "true")
        .code(125)
        .stderr(contains("/etc of the rootfs is a directory; expected a file"));
    run(&world, &["-v", &format!("{dir}:/etc/passwd")], "true")
        .code(125)
        .stderr(contains("/etc/passwd of the rootfs is not a directory"));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_v_makes_what_the_host_lacks_and_mount_does_not() {
    let world = World::new();
    let missing = world.dir().join("not/there");
    let mount = format!("type=bind,source={},target=/x", missing.display());
    run(&world, &["--mount", &mount], "true")
        .code(125)
        .stderr(contains("expected a file or a directory of the host").and(contains("No such file")));
    assert!(!missing.exists(), "--mount made {missing:?}");
    run(&world, &["-v", &format!("{}:/x", missing.display())], "touch /x/inside").success();
    assert!(missing.join("inside").exists());
    assert_eq!(fs::metadata(&missing).unwrap().permissions().mode() & 0o7777, 0o755);
    let created = format!("{mount}2,bind-create-src");
    run(&world, &["--mount", &created], "test -d /x2").success();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_mount_takes_what_v_cannot_say() {
    let world = World::new();
    let dir = host_dir(&world, "a,b:c", "file");
    let mount = format!("type=bind,\"source={dir}\",dst=/x");
    run(&world, &["--mount", &mount], "cat /x/file").success().stdout("of the host\n");
    // Neither end need be text.
    let name = OsStr::from_bytes(b"caf\xe9");
    fs::create_dir(world.dir().join(name)).unwrap();
    let flag = [&b"./caf\xe9:/th\xe9"[..]].concat();
    let layer = busybox();
    let mut words: Vec<&OsStr> =
        ["run", "--name", "bytes", "--net", "none", "--layer"].map(OsStr::new).to_vec();
    words.extend([layer.as_os_str(), OsStr::new("-v"), OsStr::from_bytes(&flag)]);
    words.extend(["sh", "-c", "cd /th* && touch inside"].map(OsStr::new));
    world.tiny_docker(words).assert().success();
    assert!(world.dir().join(name).join("inside").exists());
    assert_eq!(world.inspect("bytes")["mounts"][0]["target"], serde_json::json!(b"/th\xe9"));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_memory_with_options() {
    let world = World::new();
    run(
        &world,
        &["--tmpfs", "/run/app:size=1m,mode=1770,uid=3"],
        "stat -c '%a %u %n' /run/app; mount | grep /run/app",
    )
    .success()
    .stdout(contains("1770 3 /run/app").and(contains("size=1024k")).and(contains("nosuid,nodev,noexec")));
    // It is as large as it says, and no larger.
    run(&world, &["--tmpfs", "/t:size=1m"], "dd if=/dev/zero of=/t/big bs=1M count=2")
        .failure()
        .stderr(contains("No space left on device"));
    let script = "cp /bin/busybox /t/true; /t/true; mount | grep ' /t '";
    run(&world, &["--tmpfs", "/t:exec"], script).success().stdout(contains("noexec").not());
    run(&world, &["--tmpfs", "/t"], "cp /bin/busybox /t/true; /t/true").code(126);
    run(&world, &["--tmpfs", "/t:ro"], "touch /t/x").failure().stderr(contains("Read-only file system"));
    let mount = "type=tmpfs,target=/t,tmpfs-size=2m,tmpfs-mode=0700";
    run(&world, &["--mount", mount], "stat -c %a /t; mount | grep ' /t '")
        .success()
        .stdout(contains("700\n").and(contains("size=2048k")));
    run(&world, &["--tmpfs", "/t:size=lots"], "true").code(125).stderr(contains("expected options of tmpfs"));
}

// Docker sorts them, and others did not at first.
// https://github.com/containerd/nerdctl/issues/2254
#[test]
#[ignore = "privileged: make vm-test"]
fn task4_mounts_go_into_each_other_in_any_order() {
    let world = World::new();
    let (outer, inner) = (host_dir(&world, "outer", "o"), host_dir(&world, "inner", "i"));
    let (outer, inner) = (format!("{outer}:/x"), format!("{inner}:/x/y/z"));
    for flags in [["-v", &outer, "-v", &inner], ["-v", &inner, "-v", &outer]] {
        run(&world, &flags, "ls /x /x/y/z").success().stdout("/x:\no\ny\n\n/x/y/z:\ni\n");
    }
    // The mount point was made where it had to be: in the directory of the host.
    assert!(world.dir().join("outer/y/z").is_dir());
    assert!(!world.dir().join("outer/y/z/i").exists());
}

// CVE-2021-30465: runc found the place of a mount by its path, and a link that another
// container had put on the way led out of the root. https://nvd.nist.gov/vuln/detail/CVE-2021-30465
// CVE-2024-45310: what is missing to mount on was made outside by the same way.
// https://nvd.nist.gov/vuln/detail/CVE-2024-45310
#[test]
#[ignore = "privileged: make vm-test"]
fn task4_a_link_cannot_lead_a_mount_out() {
    let world = World::new();
    let rootfs = world.copy_of_rootfs("rootfs");
    let outside = host_dir(&world, "outside", "secret");
    let data = host_dir(&world, "data", "mounted");
    symlink(&outside, rootfs.join("absolute")).unwrap();
    symlink("../../../../../../../..".to_string() + &outside, rootfs.join("relative")).unwrap();
    // As container's path, the same leads to a directory of the container.
    fs::create_dir_all(rootfs.join(outside.trim_start_matches('/'))).unwrap();
    for link in ["/absolute", "/relative", "/absolute/new", "/relative/new/deeper"] {
        let script = format!("cat {link}/mounted; ls {outside}");
        let flags = ["-v", &format!("{data}:{link}")];
        run_on(&world, &rootfs, &flags, &script).success().stdout(contains("of the host"));
    }
    // A link in what is mounted first, by whoever can write there.
    let shared = host_dir(&world, "shared", "file");
    symlink(&outside, world.dir().join("shared/link")).unwrap();
    let nested = ["-v", &format!("{shared}:/x"), "-v", &format!("{data}:/x/link/made")];
    run_on(&world, &rootfs, &nested, "cat /x/link/made/mounted").success().stdout("of the host\n");
    let left: Vec<_> = fs::read_dir(&outside).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["secret"], "something was made outside of the container");
}

/// The same with somebody who exchanges a directory for a link all the time. (What a mount
/// would leave on the host, the end of the test finds.)
#[test]
#[ignore = "privileged: make vm-test"]
fn task4_long_nor_can_a_link_that_comes_and_goes() {
    let world = World::new();
    let outside = host_dir(&world, "outside", "secret");
    let (shared, data) = (host_dir(&world, "shared", "file"), host_dir(&world, "data", "mounted"));
    fs::create_dir(world.dir().join("shared/place")).unwrap();
    symlink(&outside, world.dir().join("shared/link")).unwrap();
    let end = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let dir = File::open(&shared).unwrap();
            while !end.load(Ordering::Relaxed) {
                let flags = nix::fcntl::RenameFlags::RENAME_EXCHANGE;
                nix::fcntl::renameat2(&dir, "place", &dir, "link", flags).unwrap();
            }
        });
        let flags = ["-v", &format!("{shared}:/x"), "-v", &format!("{data}:/x/place")];
        let outputs: Vec<_> = (0..15).map(|_| run(&world, &flags, "true").get_output().clone()).collect();
        end.store(true, Ordering::Relaxed);
        for output in &outputs {
            // The link may be there at that moment, and lead nowhere inside; or there may be a link
            // where a directory was looked at.
            assert!(matches!(output.status.code(), Some(0 | 125)), "{}", common::said(output));
        }
        assert!(outputs.iter().any(|output| output.status.success()), "{}", common::said(&outputs[0]));
    });
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "something was made outside of the container");
    assert!(fs::read_to_string("/proc/self/mountinfo").unwrap().lines().all(|line| !line.contains(&outside)));
}

// What is in /proc tells programs, and the runtime, who they are: a container that mounts
// there can lie to both. CVE-2019-16884 (https://nvd.nist.gov/vuln/detail/CVE-2019-16884),
// CVE-2023-27561 (https://nvd.nist.gov/vuln/detail/CVE-2023-27561)
#[test]
#[ignore = "privileged: make vm-test"]
fn task4_nothing_is_mounted_over_proc() {
    let world = World::new();
    let rootfs = world.copy_of_rootfs("rootfs");
    let dir = host_dir(&world, "fake", "cmdline");
    symlink("/proc", rootfs.join("innocent")).unwrap();
    symlink("/proc/self", rootfs.join("self")).unwrap();
    for target in ["/proc", "/proc/sys", "/proc/self/attr", "/innocent", "/innocent/sys/kernel", "/self/attr"]
    {
        run_on(&world, &rootfs, &["-v", &format!("{dir}:{target}")], "true")
            .code(125)
            .stderr(contains("in /proc, where nothing can be mounted"));
    }
    // As elsewhere, what the host shows there may be seen in another place.
    run_on(&world, &rootfs, &["-v", "/proc:/host/proc:ro"], "test -r /host/proc/1/stat").success();
    // And what this process has open is no place: not a directory of the host, above all.
    symlink("/proc/self/fd/3", rootfs.join("magic")).unwrap();
    run_on(&world, &rootfs, &["-v", &format!("{dir}:/magic/x")], "true").code(125);
}

// https://github.com/opencontainers/runc/issues/2683 (through a link), and
// https://github.com/opencontainers/runc/issues/5090 (on a link that leads nowhere)
#[test]
#[ignore = "privileged: make vm-test"]
fn task4_a_link_inside_leads_to_where_it_should() {
    let world = World::new();
    let rootfs = world.copy_of_rootfs("rootfs");
    fs::create_dir_all(rootfs.join("real/conf")).unwrap();
    symlink("/real/conf", rootfs.join("conf")).unwrap();
    run_on(&world, &rootfs, &["--tmpfs", "/conf/stack"], "touch /real/conf/stack/x; mount | grep stack")
        .success()
        .stdout(contains("tmpfs on /real/conf/stack"));
    let dir = host_dir(&world, "zone", "Berlin");
    symlink("/usr/share/zoneinfo/nowhere", rootfs.join("etc/localtime")).unwrap();
    run_on(&world, &rootfs, &["-v", &format!("{dir}/Berlin:/etc/localtime")], "cat /etc/localtime")
        .success()
        .stdout("of the host\n");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_a_read_only_root_may_have_a_writable_mount() {
    let world = World::new();
    let dir = host_dir(&world, "data", "file");
    let flags = ["--read-only", "-v", &format!("{dir}:/made/here"), "--tmpfs", "/tmp", "-v", "log:/var/log"];
    let script = "touch /made/here/ok /tmp/ok /var/log/ok && ! touch /made/no && ! touch /no";
    run(&world, &flags, script).success();
    assert!(world.dir().join("data/ok").exists());
    let rootfs = world.copy_of_rootfs("rootfs");
    run_on(&world, &rootfs, &flags, script).success();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_a_hosts_file_of_the_users_own() {
    let world = World::new();
    let dir = host_dir(&world, "etc", "hosts");
    run(&world, &["-v", &format!("{dir}/hosts:/etc/hosts")], "cat /etc/hosts")
        .success()
        .stdout("of the host\n");
    // A user's /dev takes the place of ours, as with Docker.
    run(&world, &["-v", "/dev:/dev"], "test -c /dev/null").success();
    run(&world, &["--tmpfs", "/dev/shm:size=1m"], "mount | grep /dev/shm")
        .success()
        .stdout(contains("size=1024k"));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_what_cannot_be_is_said_before_anything_is_made() {
    let world = World::new();
    let long = format!("{}:/x", "v".repeat(256));
    for (flags, expected) in [
        (vec!["-v", "data:relative"], "expected an absolute path"),
        (vec!["-v", "data:/"], "--rootfs and --layer say what that is"),
        (vec!["-v", "a/b:/x"], "expected a name of 2 to 255"),
        (vec!["-v", &long], "expected a name of 2 to 255"),
        (vec!["-v", "../x/..:/y:rw:z"], "use --mount"),
        (vec!["-v", "data:/x:rslave"], "expected private or rprivate"),
        (vec!["-v", "data:/x", "--tmpfs", "/x/"], "has a mount already"),
        (vec!["--mount", "type=volume,source=data"], "the target is missing"),
        (vec!["--mount", "type=image,source=a,target=/x"], "expected bind, volume or tmpfs"),
        (vec!["--mount", "\"type=bind"], "a quote is not closed"),
        (vec!["--tmpfs", "tmp"], "expected an absolute path"),
        (vec!["-v", "data:/x", "-v", "/dev/null/x:/y"], "the host has nothing at the source of -v"),
    ] {
        run(&world, &flags, "true").code(125).stderr(contains(expected));
        let volumes = world.dir().join("state/volumes");
        assert_eq!(fs::read_dir(volumes).into_iter().flatten().count(), 0, "{flags:?} made a volume");
        assert_eq!(world.ps().lines().count(), 1, "{flags:?} left a container");
    }
    world
        .tiny_docker(["run", "--net", "host", "-v", "/srv:/srv", "true"])
        .assert()
        .code(125)
        .stderr(contains("add --rootfs or --layer"));
}

// A mount point that is missing in what is mounted read-only.
// https://github.com/moby/moby/issues/39587
#[test]
#[ignore = "privileged: make vm-test"]
fn task4_a_mount_in_a_read_only_mount() {
    let world = World::new();
    let (outer, inner) = (host_dir(&world, "outer", "o"), host_dir(&world, "inner", "i"));
    let flags = ["-v", &format!("{outer}:/x:ro"), "-v", &format!("{inner}/i:/x/made/i")];
    run(&world, &flags, "cat /x/o /x/made/i; touch /x/new /x/made/new")
        .failure()
        .stdout("of the host\nof the host\n")
        .stderr(
            contains("/x/new: Read-only file system").and(contains("/x/made/new: Read-only file system")),
        );
    assert_eq!(fs::read_dir(outer).unwrap().count(), 1, "what is read-only was written");
}

/// A place that only root may enter, for a user in the container who is not root.
#[test]
#[ignore = "privileged: make vm-test"]
fn task4_the_way_to_it_on_the_host_does_not_matter() {
    let world = World::new();
    let dir = host_dir(&world, "private/open", "file");
    fs::set_permissions(world.dir().join("private"), Permissions::from_mode(0o700)).unwrap();
    run(&world, &["-u", "1000", "-v", &format!("{dir}:/x")], "cat /x/file").success().stdout("of the host\n");
    // By no `..` either does it lead up.
    run(&world, &["-v", &format!("{dir}:/x")], "ls /x/..").success().stdout(contains("etc\n"));
}
