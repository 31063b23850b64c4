//! Day 8: a network namespace.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use assert_cmd::assert::Assert;
use common::{World, busybox, rootfs};
use predicates::prelude::*;
use predicates::str::contains;

fn run(world: &World, flags: &[&str], script: &str) -> Assert {
    let rootfs = busybox();
    let words = [&["run", "--rootfs", rootfs.to_str().unwrap()], flags, &["sh", "-c", script]].concat();
    world.tiny_docker(words).assert()
}

/// Listens on port 80 of every address, as far as it is let.
const LISTEN: &str = "import socket, time
server = socket.socket()
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
