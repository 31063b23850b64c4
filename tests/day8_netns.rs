//! Day 8: a network namespace.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

use assert_cmd::assert::Assert;
use common::{HostFile, World, binary, busybox, rootfs};
use predicates::prelude::*;
use predicates::str::contains;

fn run(world: &World, flags: &[&str], script: &str) -> Assert {
    let rootfs = busybox();
    let words = [&["run", "--rootfs", rootfs.to_str().unwrap()], flags, &["sh", "-c", script]].concat();
    world.tiny_docker(words).assert()
}

/// Listens on port 80 of every address, as far as it is let. (Connections of whoever had it
/// before may still be closing, for a minute: those do not count.)
const LISTEN: &str = "import socket, time
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
try:
    server.bind(('', 80)); server.listen(); print('listening', flush=True); time.sleep(1000)
except OSError as error:
    print(error.strerror, flush=True)";

fn listener<'a>(rootfs: &'a str, network: &'a str) -> Vec<&'a str> {
    vec!["run", "--net", network, "--rootfs", rootfs, "python3", "-c", LISTEN]
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_none_has_no_interface_but_loopback_and_no_route() {
    let world = World::new();
    let look = "ls /sys/class/net; tail -n +2 /proc/net/route; readlink /proc/self/ns/net";
    let host = fs::read_link("/proc/self/ns/net").unwrap().to_string_lossy().into_owned();
    // The article's word for it too.
    for network in ["none", "isolated"] {
        run(&world, &["--net", network], look)
            .success()
            .stdout(predicates::str::starts_with("lo\nnet:[").and(contains(&host).not()));
    }
    run(&world, &["--network", "none"], "cat /proc/net/dev")
        .success()
        .stdout(contains("lo:").and(contains("dummy").not()));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_host_has_all_that_the_host_has() {
    let world = World::new();
    let host = fs::read_link("/proc/self/ns/net").unwrap();
    let mut interfaces: Vec<_> =
        fs::read_dir("/sys/class/net").unwrap().map(|entry| entry.unwrap().file_name()).collect();
    interfaces.sort();
    let expected: String = interfaces.iter().map(|name| format!("{}\n", name.to_string_lossy())).collect();
    run(&world, &["--net", "host"], "ls /sys/class/net; readlink /proc/self/ns/net")
        .success()
        .stdout(format!("{expected}{}\n", host.display()));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_every_namespace_has_ports_of_its_own() {
    let world = World::new();
    let rootfs = rootfs("debian");
    let rootfs = rootfs.to_str().unwrap();
    let mut host = world.start(listener(rootfs, "host"));
    assert_eq!(host.line(), "listening");
    let mut also_host = world.start(listener(rootfs, "host"));
    assert_eq!(also_host.line(), "Address already in use");
    for _ in 0..2 {
        let mut apart = world.start(listener(rootfs, "none"));
        assert_eq!(apart.line(), "listening");
        apart.ends_with_its_runtime();
    }
    host.ends_with_its_runtime();
    assert_eq!(also_host.ended(), 0);
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_a_socket_without_a_file_is_the_namespaces_too() {
    let world = World::new();
    // An abstract one: no rootfs keeps it out. (unix(7); CVE-2020-15257)
    let address = SocketAddr::from_abstract_name("tiny-docker-test").unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    let rootfs = rootfs("debian");
    let connect =
        "import socket; socket.socket(socket.AF_UNIX).connect('\\0tiny-docker-test'); print('connected')";
    let connect = |network: &str| {
        let words = ["run", "--net", network, "--rootfs", rootfs.to_str().unwrap(), "python3", "-c", connect];
        world.tiny_docker(words).assert()
    };
    connect("host").success().stdout("connected\n");
    connect("none").code(1).stdout("").stderr(contains("Connection refused"));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_the_record_says_which_network() {
    let world = World::new();
    for network in ["none", "host"] {
        run(&world, &["--name", network, "--net", network], "true").success();
        assert_eq!(world.inspect(network)["network"], network);
    }
    run(&world, &["--net", "wifi"], "true").code(2).stderr(contains("possible values: host, none"));
}

// https://github.com/containers/podman/issues/4626
#[test]
#[ignore = "privileged: make vm-test"]
fn task1_its_own_name_and_localhost_are_in_etc_hosts() {
    let world = World::new();
    let host = world.dir().join("hosts");
    fs::write(&host, b"127.0.0.1 localhost\n192.0.2.7 d\xe9j\xe0 # Latin-1, and no end of line").unwrap();
    let _host = HostFile::replace("/etc/hosts", &host);
    for (network, expected) in [
        ("none", &b"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\tbox\n"[..]),
        // The host's network: the host's names, byte by byte, and its own.
        (
            "host",
            b"127.0.0.1 localhost\n192.0.2.7 d\xe9j\xe0 # Latin-1, and no end of line\n127.0.1.1\tbox\n",
        ),
    ] {
        let flags = ["--net", network, "--hostname", "box"];
        run(&world, &flags, "cat /etc/hosts").success().stdout(expected);
        run(&world, &flags, "cat /etc/hostname").success().stdout("box\n");
        run(&world, &[&flags[..], &["--read-only"]].concat(), "cat /etc/hosts").success().stdout(expected);
        run(&world, &[&flags[..], &["--read-only"]].concat(), "echo x >> /etc/hosts").code(1);
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_on_the_hosts_network_the_hosts_name_servers_are_asked() {
    let world = World::new();
    let file = world.dir().join("resolv.conf");
    // 127.0.0.53 is on this network too.
    let text = b"# \xfcber Umwege\nnameserver 127.0.0.53\nsearch example";
    fs::write(&file, text).unwrap();
    let _file = HostFile::replace("/etc/resolv.conf", &file);
    run(&world, &["--net", "host"], "cat /etc/resolv.conf").success().stdout(&text[..]);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_a_host_file_that_is_no_file_holds_nobody_up() {
    let world = World::new();
    let fifo = world.dir().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Nobody will ever write into it.
    let (_names, _hosts) =
        (HostFile::replace("/etc/resolv.conf", &fifo), HostFile::replace("/etc/hosts", &fifo));
    let seen = run(&world, &["--net", "host"], "cat /etc/resolv.conf; cat /etc/hosts");
    seen.success().stdout(contains("127.0.0.1\tlocalhost\n"));
}

// https://github.com/containerd/nerdctl/issues/2684
#[test]
#[ignore = "privileged: make vm-test"]
fn task1_the_files_of_etc_are_for_everybody_whatever_the_umask() {
    let world = World::new();
    let own = world.copy_of_rootfs("own");
    for umask in ["077", "777", "000"] {
        let _ = fs::remove_dir_all(own.join("etc"));
        let script = format!(
            "umask {umask}; exec {} run --net none --rootfs own -w / stat -c %a /etc /etc/hosts /etc/hostname",
            binary().display()
        );
        let mut command = assert_cmd::Command::new("sh");
        command.current_dir(world.dir()).args(["-c", &script]);
        command.assert().success().stdout("755\n644\n644\n");
        // What was made in the rootfs, for containers to come.
        let mode = |path: &str| fs::metadata(own.join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("etc"), mode("etc/hosts")), (0o755, 0o644), "umask {umask}");
    }
    let script = format!(
        "umask 077; exec {} run --net host -u app --rootfs {} cat /etc/hosts",
        binary().display(),
        busybox().display()
    );
    let mut command = assert_cmd::Command::new("sh");
    command.current_dir(world.dir()).args(["-c", &script]).assert().success().stdout(contains("localhost"));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_what_is_written_to_etc_is_kept() {
    let world = World::new();
    let own = world.copy_of_rootfs("own");
    let etc = own.join("etc");
    for name in ["hostname", "hosts", "resolv.conf"] {
        let _ = fs::remove_file(etc.join(name));
    }
    std::os::unix::fs::symlink("../run/systemd/resolve/stub-resolv.conf", etc.join("resolv.conf")).unwrap();
    let run = |flags: &[&str], script: &str| {
        let words = [&["run", "--rootfs", own.to_str().unwrap()], flags, &["sh", "-c", script]].concat();
        world.tiny_docker(words).assert()
    };
    run(&["--net", "none", "--read-only"], "grep localhost /etc/hosts").success();
    run(&["--net", "none"], "echo x > /etc/kept; echo 192.0.2.9 db >> /etc/hosts").success();
    assert_eq!(fs::read_to_string(etc.join("kept")).unwrap(), "x\n");
    // Something to mount on, and nothing of what a container was told or wrote there.
    assert_eq!(fs::read(etc.join("hosts")).unwrap(), b"");
    // A link is covered where it stands, and what it names is not made.
    run(&["--net", "host"], "cat /etc/resolv.conf").success();
    assert!(etc.join("resolv.conf").is_symlink() && !own.join("run").exists());
    // One that leads out of the rootfs leads nowhere.
    fs::rename(&etc, world.dir().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(world.dir().join("elsewhere"), &etc).unwrap();
    fs::remove_file(world.dir().join("elsewhere/hosts")).unwrap();
    run(&["--net", "none"], "true").code(125).stderr(contains("etc"));
    assert!(!world.dir().join("elsewhere/hosts").exists());
    // A directory in the way is named.
    fs::remove_file(&etc).unwrap();
    fs::create_dir_all(etc.join("hosts")).unwrap();
    run(&["--net", "none"], "true").code(125).stderr(contains("/etc/hosts of the rootfs is a directory"));
}

// https://github.com/sosy-lab/benchexec/issues/1067
#[test]
#[ignore = "privileged: make vm-test"]
fn task1_a_rootfs_that_cannot_be_written_gets_them_all_the_same() {
    let world = World::new();
    let own = world.copy_of_rootfs("own");
    for name in ["hostname", "hosts", "resolv.conf"] {
        let _ = fs::remove_file(own.join("etc").join(name));
    }
    let (none, flags) = (None::<&str>, nix::mount::MsFlags::MS_BIND);
    nix::mount::mount(Some(&own), &own, none, flags, none).unwrap();
    let remount = flags | nix::mount::MsFlags::MS_REMOUNT | nix::mount::MsFlags::MS_RDONLY;
    nix::mount::mount(none, &own, none, remount, none).unwrap();
    let words = ["run", "--net", "none", "--rootfs", own.to_str().unwrap(), "sh", "-c"];
    let seen = world.tiny_docker(words.iter().chain(&["cat /etc/hosts; grep app /etc/passwd"])).assert();
    nix::mount::umount(&own).unwrap();
    seen.success().stdout(contains("localhost").and(contains("home/app")));
    assert!(!Path::new(&own).join("etc/hosts").exists());
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_localhost_answers_by_its_name() {
    let world = World::new();
    let ask = "ping -c 1 localhost && ping -c 1 box";
    for network in ["none", "host"] {
        run(&world, &["--net", network, "--hostname", "box"], ask).success();
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_a_container_can_talk_to_itself() {
    let world = World::new();
    run(&world, &["--net", "none"], "ping -c 1 127.0.0.1").success().stdout(contains("1 packets received"));
    let talk = "nc -l -p 8080 -e echo hello & until nc 127.0.0.1 8080; do sleep 0.1; done";
    run(&world, &["--net", "none"], talk).success().stdout("hello\n");
    // On the host's root file system, and for a user who is not root.
    world.tiny_docker(["run", "--net", "none", "ping", "-c", "1", "127.0.0.1"]).assert().success();
    run(&world, &["--net", "none", "-u", "app"], talk).success().stdout("hello\n");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_and_to_nobody_else() {
    let world = World::new();
    run(&world, &["--net", "none"], "ping -c 1 -W 1 192.0.2.1")
        .code(1)
        .stderr(contains("Network is unreachable"));
    // What goes on in there, the host does not see.
    let before = fs::read_to_string("/proc/net/dev").unwrap();
    run(&world, &["--net", "none"], "ping -c 3 -i 0.1 127.0.0.1").success();
    assert_eq!(fs::read_to_string("/proc/net/dev").unwrap(), before);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_long_killed_at_every_moment_no_namespace_is_left() {
    let world = World::new();
    let rootfs = busybox();
    let namespaces = || {
        let links =
            common::processes().filter_map(|(pid, _)| fs::read_link(format!("/proc/{pid}/ns/net")).ok());
        links.collect::<std::collections::BTreeSet<_>>()
    };
    let before = namespaces();
    let moments = world.die_at_every_moment(&[
        "run",
        "--net",
        "none",
        "--rootfs",
        rootfs.to_str().unwrap(),
        "sh",
        "-c",
        "exit 7",
    ]);
    assert!(moments > 55, "{moments}");
    assert_eq!(namespaces(), before);
}
