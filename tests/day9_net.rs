//! Day 9: connect a container to the others, to the host, and to the outside world.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use assert_cmd::assert::Assert;
use common::outside::{self, HOST, OUTSIDE, sh};
use common::{HostFile, World, busybox, rootfs, until};
use nix::sys::signal::Signal;
use predicates::prelude::*;
use predicates::str::contains;
use serde_json::Value;

/// Serves the directory it is in, on port 80.
const SERVE: [&str; 4] = ["python3", "-m", "http.server", "80"];

fn run(world: &World, flags: &[&str], script: &str) -> Assert {
    let rootfs = busybox();
    let words = [&["run", "--rootfs", rootfs.to_str().unwrap()], flags, &["sh", "-c", script]].concat();
    world.tiny_docker(words).assert()
}

/// Starts a web server in a container, and waits until it answers. Its id.
fn web_server(world: &World, flags: &[&str]) -> String {
    let rootfs = rootfs("debian");
    let words = [&["run", "-d", "--rootfs", rootfs.to_str().unwrap(), "-w", "/srv"], flags, &SERVE].concat();
    let started = world.tiny_docker(words).assert().success();
    let id = String::from_utf8_lossy(&started.get_output().stdout).trim_end().to_string();
    let address = address(world, &id);
    until("the server answers", || fetch(&format!("{address}:80")).is_ok());
    id
}

fn address(world: &World, container: &str) -> String {
    let record = world.inspect(container);
    let address = record["address"].as_str();
    address.unwrap_or_else(|| panic!("no address in the record of {container}: {record:#}")).to_string()
}

/// What a web server says, asked by the host.
fn fetch(server: &str) -> std::io::Result<String> {
    // It answers in a fraction of a second, where the machine is not busy.
    let patience = Duration::from_secs(10);
    let mut stream = TcpStream::connect_timeout(&server.parse().unwrap(), patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split_once("\r\n\r\n").unwrap_or_default().1.to_string())
}

/// `ip -json` with `words`.
fn ip(words: &str) -> Value {
    let output = Command::new("ip").arg("-json").args(words.split(' ')).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
}

/// A machine on the other side of the host, and the servers on it.
struct Outside {
    stopped: Arc<AtomicBool>,
    servers: Vec<JoinHandle<()>>,
    _machine: outside::Outside,
}

/// Asks the web server out there, with much more patience than an answer takes. (The -T of
/// a static busybox's wget is a crash.)
const ASK_OUTSIDE: &str =
    "timeout 30 wget -qO- http://192.0.2.2:8000/ || { echo no answer comes back from outside >&2; exit 1; }";

impl Outside {
    fn new() -> Outside {
        let _machine = outside::Outside::new();
        Outside { stopped: Arc::default(), servers: Vec::new(), _machine }
    }

    /// Starts a server out there. What `open` returns serves one who asks, if there is one.
    fn start<Serve: FnMut() + 'static>(&mut self, open: fn() -> Serve) {
        let stopped = self.stopped.clone();
        let (opened, is_open) = channel();
        self.servers.push(thread::spawn(move || {
            outside::enter();
            let mut serve_one = open();
            opened.send(()).unwrap();
            while !stopped.load(Ordering::Relaxed) {
                serve_one();
                thread::sleep(Duration::from_millis(5));
            }
        }));
        is_open.recv().unwrap();
    }

    /// A web server that answers with the address of whoever asks.
    fn serve_who_asks(&mut self) {
        self.start(|| {
            let listener = TcpListener::bind("0.0.0.0:8000").unwrap();
            listener.set_nonblocking(true).unwrap();
            move || {
                let Ok((mut stream, whom)) = listener.accept() else { return };
                stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
                for line in BufReader::new(&stream).lines() {
                    // The request ends with an empty line.
                    if line.is_ok_and(|line| !line.is_empty()) { continue } else { break }
                }
                let _ = write!(stream, "HTTP/1.0 200 OK\r\n\r\n{}", whom.ip());
            }
        });
    }

    /// A name server that knows one name, web.example. (RFC 1035, section 4)
    fn serve_names(&mut self) {
        self.start(|| {
            let server = UdpSocket::bind("0.0.0.0:53").unwrap();
            server.set_nonblocking(true).unwrap();
            move || {
                let mut query = [0; 512];
                let Ok((length, whom)) = server.recv_from(&mut query) else { return };
                // After a header of 12 bytes: the name, which ends with a zero, a type and a class.
                let end = 12 + query[12..length].iter().position(|byte| *byte == 0).unwrap() + 5;
                let question = &query[12..end];
                let is_ours = question.starts_with(b"\x03web\x07example\0");
                let address = is_ours && question.ends_with(&[0, 1, 0, 1]);
                let flags = [0x81, if is_ours { 0x80 } else { 0x83 }];
                let counts = [0, 1, 0, address.into(), 0, 0, 0, 0];
                let mut answer = [&query[..2], &flags, &counts, question].concat();
                if address {
                    // The name of byte 12, type A, class IN, for 60 s, 4 bytes.
                    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 2]);
                }
                server.send_to(&answer, whom).unwrap();
            }
        });
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        for server in self.servers.drain(..) {
            let _ = server.join();
        }
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_the_bridge_is_made_stays_and_is_removed_on_demand() {
    let world = World::new();
    fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
    for _ in 0..2 {
        run(&world, &[], "true").success();
        let bridge = ip("-details address show td0");
        let bridge = &bridge[0];
        assert_eq!(bridge["linkinfo"]["info_kind"], "bridge", "{bridge}");
        assert!(bridge["flags"].as_array().unwrap().contains(&"UP".into()), "{bridge}");
        let v4: Vec<_> =
            bridge["addr_info"].as_array().unwrap().iter().filter(|one| one["family"] == "inet").collect();
        assert_eq!(v4.len(), 1, "td0 has one IPv4 address: {bridge}");
        let address = (v4[0]["local"].as_str(), v4[0]["prefixlen"].as_u64());
        assert_eq!(address, (Some("10.10.0.1"), Some(24)), "td0's address, and the bits of its subnet");
        let forwards = fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
        assert_eq!(forwards, "1\n", "/proc/sys/net/ipv4/ip_forward");
        let deaf = fs::read_to_string("/proc/sys/net/ipv6/conf/td0/disable_ipv6").unwrap();
        assert_eq!(deaf, "1\n", "/proc/sys/net/ipv6/conf/td0/disable_ipv6");
    }
    let id = world.detach(&[], "sleep 1000");
    world.tiny_docker(["network", "rm"]).assert().code(1).stderr(contains("in use").and(contains("ps")));
    world.tiny_docker(["rm", "-f", &id]).assert().success();
    for _ in 0..2 {
        world.tiny_docker(["network", "rm"]).assert().success().stdout("td0\n");
        assert!(!Path::new("/sys/class/net/td0").exists());
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_what_is_not_ours_is_left_alone_and_named() {
    let world = World::new();
    for kind in ["dummy", "bridge"] {
        sh(&format!("ip link add td0 type {kind}")).unwrap();
        let before = ip("address show td0");
        let refused = run(&world, &[], "echo never");
        let kept = world.tiny_docker(["network", "rm"]).assert();
        let after = ip("address show td0");
        let elsewhere = run(&world, &["--bridge", "td1"], "echo here");
        sh("ip link del td0").unwrap();
        world.tiny_docker(["network", "rm", "--bridge", "td1"]).assert().success().stdout("td1\n");
        refused
            .code(125)
            .stdout("")
            .stderr(contains("td0, and it is not ours").and(contains("--bridge td1")));
        kept.code(1).stderr(contains("not ours"));
        assert_eq!(before, after, "td0 was not ours, and was changed");
        elsewhere.success().stdout("here\n");
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_a_host_that_uses_the_subnet_itself_is_told() {
    let world = World::new();
    sh("ip link add td-lan type dummy && ip addr add 10.10.0.77/16 dev td-lan && ip link set td-lan up")
        .unwrap();
    let refused = run(&world, &[], "echo never");
    let td0 = || sh("ip -4 -o address show td0");
    let moved = run(&world, &["--subnet", "10.20.0.0/24"], "true");
    let moved_to = td0();
    // By our mark: for whichever subnet it is.
    world.tiny_docker(["network", "rm"]).assert().success();
    let mut command = world.tiny_docker(["run", "true"]);
    let by_environment = command.env("TINY_DOCKER_SUBNET", "172.30.1.0/29").assert();
    let by_environment_to = td0();
    // What is there for one subnet is not taken for another's.
    let mixed_up = run(&world, &["--subnet", "10.20.0.0/24"], "echo never");
    world.tiny_docker(["network", "rm", "--subnet", "224.0.0.0/16"]).assert().success();
    sh("ip link del td-lan").unwrap();
    refused
        .code(125)
        .stdout("")
        .stderr(contains("10.10.0.0/16").and(contains("td-lan")).and(contains("--subnet 10.20.0.0/24")));
    moved.success();
    assert!(moved_to.as_ref().is_ok_and(|text| text.contains("10.20.0.1/24")), "{moved_to:?}");
    by_environment.success();
    let is_there = by_environment_to.as_ref().is_ok_and(|text| text.contains("172.30.1.1/29"));
    assert!(is_there, "{by_environment_to:?}");
    mixed_up.code(125).stderr(contains("172.30.1.1").and(contains("network rm")));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_a_subnet_that_is_none_is_refused() {
    let world = World::new();
    for (flags, expected) in [
        (["--subnet", "10.10.0.0"], "such as 10.20.0.0/24"),
        (["--subnet", "10.10.0.0/8"], "such as 10.20.0.0/24"),
        (["--subnet", "10.10.0.0/31"], "such as 10.20.0.0/24"),
        (["--subnet", "10.10.0.1/32"], "such as 10.20.0.0/24"),
        (["--subnet", "0.0.0.0/16"], "such as 10.20.0.0/24"),
        (["--subnet", "127.9.0.0/24"], "such as 10.20.0.0/24"),
        (["--subnet", "224.0.0.0/16"], "such as 10.20.0.0/24"),
        (["--subnet", "255.255.255.0/24"], "such as 10.20.0.0/24"),
        (["--bridge", "all"], "choose another"),
        (["--bridge", "default"], "choose another"),
        (["--ip", "10.10.0.1"], "the host's"),
        (["--subnet", "10.10.0.5/24"], "which is 10.10.0.0"),
        (["--subnet", "fd00::/24"], "such as 10.20.0.0/24"),
        (["--bridge", "a/b"], "such as td1"),
        (["--bridge", "much-too-long"], "such as td1"),
    ] {
        run(&world, &flags, "echo never").code(125).stdout("").stderr(contains(expected));
    }
    run(&world, &["--net", "none", "--ip", "10.10.0.9"], "true").code(125).stderr(contains("--net bridge"));
    assert!(!Path::new("/sys/class/net/td0").exists());
    // Nor is there anything that could not be removed.
    world.tiny_docker(["network", "rm"]).assert().success();
    // And one that is one, with room for a single container, is taken.
    let small = ["--subnet", "10.20.0.0/30", "--bridge", "td_-1"];
    run(&world, &small, "echo here").success().stdout("here\n");
    world.tiny_docker([&["network", "rm"], &small[..]].concat()).assert().success().stdout("td_-1\n");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_a_network_that_cannot_be_completed_is_undone() {
    let world = World::new();
    let (file, was) = ("/proc/sys/net/ipv4/ip_forward", "/proc/sys/net");
    fs::write(file, "0").unwrap();
    sh(&format!("mount --bind {was} {was} && mount -o remount,bind,ro {was}")).unwrap();
    let refused = run(&world, &[], "echo never");
    sh(&format!("umount {was}")).unwrap();
    let left = Path::new("/sys/class/net/td0").exists() || sh("nft list table ip tiny-docker-td0").is_ok();
    refused.code(125).stdout("").stderr(contains("ip_forward").and(contains("Read-only file system")));
    assert!(!left, "the run that made td0 failed, and left it");
    // Where all that cannot be written is that of IPv6, there is a network.
    fs::write(file, "1").unwrap();
    let was = "/proc/sys/net/ipv6";
    sh(&format!("mount --bind {was} {was} && mount -o remount,bind,ro {was}")).unwrap();
    let made = run(&world, &[], "true");
    sh(&format!("umount {was}")).unwrap();
    made.success();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_a_run_that_waits_for_the_network_can_be_ended() {
    let world = World::new();
    run(&world, &[], "true").success();
    let lock = File::open(network_dir()).unwrap();
    lock.lock().unwrap();
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143), (Signal::SIGHUP, 129)] {
        // (A record of the last one may be there still.)
        let records = || fs::read_dir(world.containers()).map_or(0, Iterator::count);
        let before = records();
        let mut waiting = world.start(["run", "--rootfs", busybox().to_str().unwrap(), "true"]);
        let sleeps = || common::asleep(waiting.runtime()).as_deref() == Some("tiny-docker");
        until("its record is there, and it waits for the lock", || records() > before && sleeps());
        thread::sleep(Duration::from_millis(300));
        waiting.signal_runtime(signal);
        assert_eq!(waiting.ended(), code, "the exit code of a run that {signal} ended");
    }
    drop(lock);
    run(&world, &[], "true").success();
    world.remove_all();
}

/// Where the network of this network namespace has its lock, and its addresses.
fn network_dir() -> PathBuf {
    let namespace = fs::metadata("/proc/self/ns/net").unwrap().ino();
    Path::new("/run/tiny-docker/net").join(namespace.to_string())
}

/// All that a start promises of what containers share.
fn shared() -> String {
    let about = "ip -4 -o address show td0 up; ip -6 -o address show td0; ip -4 route show dev td0 | sed 's/ linkdown//';
        cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/td0/forwarding /proc/sys/net/ipv6/conf/td0/disable_ipv6;
        nft --stateless list table ip tiny-docker-td0";
    sh(about).unwrap_or_else(|error| panic!("something of it is missing: {error}"))
}

// https://github.com/docker/for-linux/issues/723
#[test]
#[ignore = "privileged: make vm-test"]
fn task1_what_somebody_has_broken_the_next_run_repairs() {
    let world = World::new();
    run(&world, &[], "true").success();
    let whole = shared();
    assert!(whole.contains("10.10.0.1/24") && whole.contains("chain forward"), "{whole}");
    for broken in [
        "ip link set td0 down",
        "ip -4 address flush dev td0",
        "ip link set td0 down; ip -4 address flush dev td0",
        "ip route delete 10.10.0.0/24",
        "echo 0 > /proc/sys/net/ipv4/ip_forward",
        "echo 0 > /proc/sys/net/ipv4/conf/td0/forwarding",
        "echo 0 > /proc/sys/net/ipv6/conf/td0/disable_ipv6",
        "nft flush ruleset",
        "nft flush chain ip tiny-docker-td0 forward",
        "nft flush chain ip tiny-docker-td0 postrouting",
        "nft delete chain ip tiny-docker-td0 forward",
        "nft 'flush chain ip tiny-docker-td0 postrouting; delete chain ip tiny-docker-td0 postrouting'",
        "nft insert rule ip tiny-docker-td0 forward drop",
        "nft 'chain ip tiny-docker-td0 forward { policy drop; }'",
        "nft delete rule ip tiny-docker-td0 forward handle $(nft -a list chain ip tiny-docker-td0 forward | sed -n 's/.*accept # handle //p' | tail -n 1)",
    ] {
        sh(broken).unwrap();
        run(&world, &[], "true").success();
        assert_eq!(shared(), whole, "after: {broken}");
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_every_container_has_an_address_of_its_own() {
    let world = World::new();
    let ids: Vec<String> = (0..3).map(|_| world.detach(&[], "sleep 1000")).collect();
    let addresses: Vec<String> = ids.iter().map(|id| address(&world, id)).collect();
    assert_eq!(addresses, ["10.10.0.2", "10.10.0.3", "10.10.0.4"], "the first three containers");
    let ps = world.ps();
    assert!(ps.lines().next().unwrap().contains("ADDRESS"), "{ps}");
    assert!(ps.lines().any(|line| line.contains(&ids[1]) && line.contains("10.10.0.3")), "{ps}");
    // Who has ended has none; it is free again, and the others keep theirs.
    world.tiny_docker(["kill", &ids[1]]).assert().success();
    assert!(world.inspect(&ids[1]).get("address").is_none(), "it has ended, and has an address");
    let again = world.detach(&["--ip", "10.10.0.3"], "sleep 1000");
    assert_eq!(address(&world, &again), "10.10.0.3", "the address that was asked for");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_addresses_are_given_in_turn() {
    let world = World::new();
    let small = ["--subnet", "10.20.0.0/29"];
    let mut given = Vec::new();
    for _ in 0..7 {
        let id = world.detach(&small, "sleep 1000");
        given.push(address(&world, &id).replace("10.20.0.", ""));
        world.tiny_docker(["rm", "-f", &id]).assert().success();
        // So that it is only the turn that keeps its address from being given again.
        let cables = || fs::read_dir("/sys/class/net/td0/brif").map_or(0, Iterator::count);
        until("the cable is gone", || cables() == 0);
    }
    let given = given.join(" ");
    assert_eq!(given, "2 3 4 5 6 2 3", "each gets the address after the one that was given last");
    // With a new bridge the turn begins anew.
    sh("ip link delete td0").unwrap();
    let id = world.detach(&small, "sleep 1000");
    assert_eq!(address(&world, &id), "10.20.0.2", "the first address on a new bridge");
    world.remove_all();
    world.tiny_docker(["network", "rm"]).assert().success();
}

// https://github.com/moby/moby/issues/11199
#[test]
#[ignore = "privileged: make vm-test"]
fn task2_two_state_directories_share_one_network() {
    let world = World::new();
    let (rootfs, other) = (busybox(), world.dir().join("other"));
    let on = |root: &str, words: &[&str]| {
        let mut command = world.tiny_docker(words);
        if root == "other" {
            command.env("TINY_DOCKER_ROOT", &other);
        }
        let done = command.assert().success();
        String::from_utf8_lossy(&done.get_output().stdout).trim_end().to_string()
    };
    let addresses = Mutex::new(BTreeSet::new());
    at_once(6, 12, |number| {
        let root = ["state", "other"][number % 2];
        let id = on(root, &["run", "-d", "--rootfs", rootfs.to_str().unwrap(), "sleep", "1000"]);
        let record: Value = serde_json::from_str(&on(root, &["inspect", &id])).unwrap();
        addresses.lock().unwrap().insert(record[0]["address"].to_string());
    });
    assert_eq!(addresses.lock().unwrap().len(), 12, "addresses of 12 containers: {addresses:?}");
    let ids = |root: &str| on(root, &["ps", "-q"]).lines().map(str::to_string).collect::<Vec<_>>();
    let remove = |root: &str, ids: &[String]| {
        let words: Vec<&str> = ["rm", "-f"].into_iter().chain(ids.iter().map(String::as_str)).collect();
        on(root, &words);
    };
    remove("state", &ids("state"));
    // Each sees what the other has.
    let others = ids("other");
    let one: Value = serde_json::from_str(&on("other", &["inspect", &others[0]])).unwrap();
    let removed = world.tiny_docker(["network", "rm"]).assert();
    let taken = run(&world, &["--ip", one[0]["address"].as_str().unwrap()], "echo never");
    remove("other", &others);
    removed.code(1).stderr(contains("td0 is in use"));
    taken.code(125).stderr(contains("another container has it"));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_an_address_can_be_asked_for() {
    let world = World::new();
    let id = world.detach(&["--ip", "10.10.0.77"], "sleep 1000");
    assert_eq!(address(&world, &id), "10.10.0.77");
    run(&world, &["--ip", "10.10.0.77"], "echo never")
        .code(125)
        .stdout("")
        .stderr(contains("another container has it"));
    // Also after a bridge was removed that is another one, or none.
    world.tiny_docker(["network", "rm", "--bridge", "td1"]).assert().success();
    run(&world, &["--ip", "10.10.0.77"], "echo never").code(125).stderr(contains("another container has it"));
    for not_ours in ["10.10.0.0", "10.10.0.1", "10.10.0.255", "10.11.0.2"] {
        run(&world, &["--ip", not_ours], "echo never")
            .code(125)
            .stdout("")
            .stderr(contains("an address of 10.10.0.0/24"));
    }
    world.tiny_docker(["rm", "-f", &id]).assert().success();
    // Again and again, at once: what is left of the one before is waited for.
    for _ in 0..5 {
        run(&world, &["--ip", "10.10.0.77"], "ip -4 -o addr show eth0")
            .success()
            .stdout(contains("10.10.0.77/24"));
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_the_container_after_the_last_address_gets_a_clear_error() {
    let world = World::new();
    let small = ["--subnet", "10.20.0.0/28"];
    let ids: Vec<String> = (0..13).map(|_| world.detach(&small, "sleep 1000")).collect();
    let refused = run(&world, &small, "echo never").code(125).stdout("");
    refused.stderr(contains("all 13 addresses of 10.20.0.0/28 are in use").and(contains("--subnet")));
    let freed = address(&world, &ids[5]);
    world.tiny_docker(["rm", "-f", &ids[5]]).assert().success();
    let last = world.detach(&small, "sleep 1000");
    assert_eq!(address(&world, &last), freed);
    world.remove_all();
    world.tiny_docker([&["network", "rm"], &small[..]].concat()).assert().success();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_of_the_usual_subnet_the_254th_container_is_refused() {
    let world = World::new();
    run(&world, &[], "true").success();
    // 253 who have an address, as a container has it: by the lock on its file. As
    // many containers would take minutes here.
    let addresses = network_dir().join("td0");
    let all: Vec<fs::File> = (2..255)
        .map(|number| {
            let file = fs::File::create(addresses.join(format!("10.10.0.{number}"))).unwrap();
            file.try_lock().unwrap();
            file
        })
        .collect();
    let refused = run(&world, &[], "echo never").code(125).stdout("");
    refused.stderr(contains("all 253 addresses of 10.10.0.0/24 are in use"));
    all[99].unlock().unwrap();
    run(&world, &[], "ip -4 -o addr show eth0").success().stdout(contains("10.10.0.101/24"));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_inside_there_is_an_eth0_with_address_and_default_route() {
    let world = World::new();
    let rootfs = rootfs("debian");
    let inside = |words: &[&str]| {
        let words =
            [&["run", "--ip", "10.10.0.2", "--rootfs", rootfs.to_str().unwrap(), "ip", "-json"], words]
                .concat();
        let done = world.tiny_docker(words).assert().success();
        serde_json::from_slice::<Value>(&done.get_output().stdout).unwrap()
    };
    let links = inside(&["-4", "address"]);
    let names: Vec<&str> =
        links.as_array().unwrap().iter().map(|link| link["ifname"].as_str().unwrap()).collect();
    assert_eq!(names, ["lo", "eth0"], "the interfaces of the container");
    let eth0 = &links[1];
    assert!(eth0["flags"].as_array().unwrap().contains(&"UP".into()), "{eth0}");
    let v4 = &eth0["addr_info"][0];
    let v4 = (v4["local"].as_str(), v4["prefixlen"].as_u64());
    assert_eq!(v4, (Some("10.10.0.2"), Some(24)), "eth0's address, and the bits of its subnet");
    let routes = inside(&["route"]);
    let default = routes.as_array().unwrap().iter().find(|route| route["dst"] == "default");
    let default = default.unwrap_or_else(|| panic!("there is no default route inside: {routes}"));
    let leads = (default["gateway"].as_str(), default["dev"].as_str());
    assert_eq!(leads, (Some("10.10.0.1"), Some("eth0")), "where the default route leads");
    // The same address has the same hardware address each time, for the ARP caches of the others.
    let hardware = |links: &Value| links[1]["address"].as_str().map(str::to_string);
    let two = (hardware(&inside(&["link"])), hardware(&inside(&["link"])));
    assert_eq!(two.0, two.1, "the hardware addresses of two containers, each with 10.10.0.2");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_a_web_server_is_reached_by_the_others_and_by_the_host() {
    let world = World::new();
    let web = web_server(&world, &["--name", "web"]);
    let page = fetch(&format!("{}:80", address(&world, &web))).unwrap();
    assert!(page.contains("Directory listing"), "{page}");
    run(&world, &[], "wget -qO- http://10.10.0.2/").success().stdout(page);
    // And by itself, under its own name.
    let id = world.detach(&["--hostname", "box"], "httpd -f -p 80 -h /etc");
    assert_eq!(address(&world, &id), "10.10.0.4");
    run(&world, &[], "until wget -qO- http://10.10.0.4/hostname; do sleep 0.1; done")
        .success()
        .stdout("box\n");
    // Of one with no network it is not seen.
    run(&world, &["--net", "none"], "wget -qO- http://10.10.0.2/").code(1);
    world.remove_all();
}

/// Says, again and again, that it is the router of this Ethernet. (RFC 4861, 4.2)
const ADVERTISE: &str = "import socket, time
link_local = None
while not link_local:
    time.sleep(0.05)
    lines = [line.split() for line in open('/proc/net/if_inet6')]
    # Until nobody has objected to the address it is tentative, 0x40.
    link_local = [line for line in lines if line[5] == 'eth0' and line[3] == '20' and not int(line[4], 16) & 0x40]
everybody = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
everybody.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
while True:
    everybody.sendto(bytes([134, 0, 0, 0, 64, 0, 7, 8]) + bytes(8), ('ff02::1', 0, 0, socket.if_nametoindex('eth0')))
    print('said', flush=True)
    time.sleep(0.1)";

// https://nvd.nist.gov/vuln/detail/CVE-2020-13401
#[test]
#[ignore = "privileged: make vm-test"]
fn task3_a_container_cannot_make_itself_the_hosts_router() {
    let world = World::new();
    let rootfs = rootfs("debian");
    let words =
        ["run", "--ip", "10.10.0.9", "--rootfs", rootfs.to_str().unwrap(), "python3", "-c", ADVERTISE];
    let mut router = world.start(words);
    let taken = || sh("ip -6 route show default").unwrap();
    let mut hear = || (0..5).for_each(|_| assert_eq!(router.line(), "said"));
    hear();
    assert_eq!(taken(), "", "the host's route for IPv6 leads to a container");
    // It is not that nobody heard it: without what keeps it out, it would be believed.
    sh("echo 0 > /proc/sys/net/ipv6/conf/td0/disable_ipv6").unwrap();
    until("the host believes it, on a bridge that is left as the kernel makes it", || {
        taken().contains("td0")
    });
    run(&world, &[], "true").success();
    assert_eq!(taken(), "", "the next run has not repaired it");
    // Nor by the other end of its cable, when somebody takes that out of the bridge.
    sh("ip link set td0-9 nomaster").unwrap();
    (0..20).for_each(|_| hear());
    assert_eq!(taken(), "");
    router.signal_command(Signal::SIGKILL);
    assert_eq!(router.ended(), 137);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_the_cable_goes_when_the_container_ends() {
    let world = World::new();
    let cables = || fs::read_dir("/sys/class/net/td0/brif").unwrap().count();
    // The kernel takes it away with the namespace, a moment after the end.
    let all_gone = || until("the cable is gone", || cables() == 0);
    run(&world, &[], "exit 3").code(3);
    all_gone();
    run(&world, &[], "exec no-such-command").code(127);
    all_gone();
    let id = world.detach(&[], "sleep 1000");
    assert_eq!(cables(), 1);
    world.tiny_docker(["rm", "-f", &id]).assert().success();
    all_gone();
    // A start that fails late, when all is made.
    let rootfs = busybox();
    let words = ["run", "--rootfs", rootfs.to_str().unwrap(), "-u", "nosuch", "true"];
    world.tiny_docker(words).assert().code(125);
    all_gone();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_the_outside_sees_the_host() {
    let world = World::new();
    let mut outside = Outside::new();
    outside.serve_who_asks();
    run(&world, &[], ASK_OUTSIDE).success().stdout(HOST);
    run(&world, &[], &format!("ping -c 1 {OUTSIDE}")).success();
    // Among themselves they have their own addresses.
    let server = world.detach(&["--ip", "10.10.0.54"], "httpd -f -v -p 80 -h /etc");
    let ask = "until wget -qO- http://10.10.0.54/hostname; do sleep 0.1; done";
    run(&world, &["--ip", "10.10.0.55"], ask).success();
    let logs = || String::from_utf8(world.tiny_docker(["logs", &server]).output().unwrap().stderr).unwrap();
    // The answer may be there before the server's word of it is in the log.
    until("who asked is in the log", || logs().contains("10.10.0.55"));
    assert!(!logs().contains(HOST), "{}", logs());
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_the_outside_does_not_get_in() {
    let world = World::new();
    let _outside = Outside::new();
    let server = world.detach(&[], "httpd -f -p 80 -h /etc");
    let server = format!("{}:80", address(&world, &server));
    until("the server answers the host", || fetch(&server).is_ok());
    // A neighbour of the host's who knows the way in.
    sh(&format!("ip -n outside route add 10.10.0.0/24 via {HOST}")).unwrap();
    // Long enough for one that gets in, on a busy machine as well.
    let knock = "ip netns exec outside timeout 5 bash -c ': </dev/tcp/10.10.0.2/80'";
    assert!(sh(knock).is_err(), "the outside may not begin");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_other_peoples_firewalls_are_kept_and_let_us_pass() {
    let world = World::new();
    // As Docker leaves a host, or ufw; with more that is somebody's.
    let theirs = "table ip filter {
        chain FORWARD { type filter hook forward priority filter; policy drop; counter; }
        chain INPUT { type filter hook input priority filter; policy accept; tcp dport 22 counter accept comment \"ssh\"; }
    }
    table inet theirs {
        set friends { type ipv4_addr; elements = { 198.51.100.7, 198.51.100.8 } }
        chain forward { type filter hook forward priority 10; policy drop; ip saddr @friends accept; }
    }";
    sh(&format!("nft -f - <<'END'\n{theirs}\nEND")).unwrap();
    let list = || sh("nft --stateless list ruleset").unwrap();
    let before = list();
    let mut outside = Outside::new();
    outside.serve_who_asks();
    let mut through = Vec::new();
    for _ in 0..2 {
        through.push(run(&world, &[], ASK_OUTSIDE));
    }
    let ours_once = list();
    // A firewall that is loaded again, and knows nothing of us.
    sh(&format!("nft flush ruleset; nft -f - <<'END'\n{theirs}\nEND")).unwrap();
    through.push(run(&world, &[], ASK_OUTSIDE));
    let ours_again = list();
    world.tiny_docker(["network", "rm"]).assert().success();
    let after = list();
    sh("nft delete table ip filter; nft delete table inet theirs").unwrap();
    for one in through {
        one.success().stdout(HOST);
    }
    assert_eq!(ours_once.matches("masquerade").count(), 1, "{ours_once}");
    assert_eq!(ours_once, ours_again);
    assert_eq!(before, after);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_names_are_found() {
    let world = World::new();
    let mut outside = Outside::new();
    outside.serve_who_asks();
    outside.serve_names();
    let rootfs = rootfs("debian");
    let words =
        ["run", "--dns", OUTSIDE, "--hostname", "box", "--rootfs", rootfs.to_str().unwrap(), "python3", "-c"];
    let program = "import socket
print(socket.gethostbyname('web.example'), socket.gethostbyname('box'), socket.gethostbyname('localhost'))
web = socket.create_connection(('web.example', 8000)); web.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')
print(web.makefile().read().split('\\n')[-1])
try: socket.gethostbyname('no.example')
except OSError as error: print(error.strerror)";
    let words = words.iter().chain([&program]);
    world
        .tiny_docker(words)
        .assert()
        .success()
        .stdout(format!("{OUTSIDE} 10.10.0.2 127.0.0.1\n{HOST}\nName or service not known\n"));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_the_hosts_name_servers_are_taken_but_not_its_own_loopback() {
    let world = World::new();
    let host_file = world.dir().join("resolv.conf");
    let mut seen = Vec::new();
    for text in [
        &b"search example\nnameserver 192.0.2.53\noptions ndots:2\n"[..],
        b"nameserver 127.0.0.53\nnameserver 192.0.2.53\n",
        b"nameserver 127.0.0.53\noptions edns0\n",
        // All that is none on the bridge: IPv6, and two more names for oneself.
        b"nameserver 2001:db8::53\nnameserver fe80::1%eth0\nnameserver 0.0.0.0\nnameserver ::1\n",
        // As somebody's editor left it: bytes that are no UTF-8, and no end of the last line.
        b"# \xfcber M\xfcnchen\nnameserver 192.0.2.53",
    ] {
        fs::write(&host_file, text).unwrap();
        let _host = HostFile::replace("/etc/resolv.conf", &host_file);
        seen.push(run(&world, &[], "cat /etc/resolv.conf"));
    }
    let fifo = world.dir().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    {
        let _host = HostFile::replace("/etc/resolv.conf", &fifo);
        seen.push(run(&world, &[], "cat /etc/resolv.conf"));
    }
    let said: Vec<String> = seen
        .into_iter()
        .map(|one| one.success().get_output().stdout.iter().copied().map(char::from).collect())
        .collect();
    assert_eq!(said[0], "search example\nnameserver 192.0.2.53\noptions ndots:2\n");
    assert_eq!(said[1], "nameserver 192.0.2.53\n");
    for none in [&said[2], &said[3], &said[5]] {
        assert!(none.starts_with('#') && none.contains("--dns"), "{none}");
    }
    assert_eq!(said[4], "# \u{fc}ber M\u{fc}nchen\nnameserver 192.0.2.53\n");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_the_files_of_etc_are_the_containers_own() {
    let world = World::new();
    let look = "cat /etc/hostname; grep box /etc/hosts; grep nameserver /etc/resolv.conf";
    let expected = "box\n10.10.0.2\tbox\nnameserver 192.0.2.53\n";
    let flags = ["--hostname", "box", "--ip", "10.10.0.2", "--dns", "192.0.2.53"];
    // In the rootfs these files are empty, and stay it: World looks.
    run(&world, &flags, look).success().stdout(expected);
    run(&world, &[&flags[..], &["-u", "app"]].concat(), look).success().stdout(expected);
    // What is written there is the container's alone, and nothing is with --read-only.
    run(&world, &[], "echo 192.0.2.9 db >>/etc/hosts; tail -n 1 /etc/hosts").stdout("192.0.2.9 db\n");
    for file in ["new", "hosts", "hostname", "resolv.conf"] {
        let script = format!("echo x >>/etc/{file}");
        run(&world, &["--read-only"], &script).code(1).stderr(contains("Read-only"));
    }
    run(&world, &[&flags[..], &["--read-only"]].concat(), look).success().stdout(expected);
    // One that has them, as links too, keeps what it has.
    let own = world.copy_of_rootfs("own");
    for (name, text) in [("hosts", "192.0.2.9 theirs\n"), ("hostname", "theirs\n")] {
        fs::write(own.join("etc").join(name), text).unwrap();
    }
    fs::remove_file(own.join("etc/resolv.conf")).unwrap();
    std::os::unix::fs::symlink("../run/systemd/resolve/stub-resolv.conf", own.join("etc/resolv.conf"))
        .unwrap();
    let words = [&["run", "--rootfs", own.to_str().unwrap()], &flags[..], &["sh", "-c", look]].concat();
    world.tiny_docker(words).assert().success().stdout(expected);
    assert_eq!(fs::read_to_string(own.join("etc/hosts")).unwrap(), "192.0.2.9 theirs\n");
    assert_eq!(fs::read_to_string(own.join("etc/hostname")).unwrap(), "theirs\n");
    assert!(own.join("etc/resolv.conf").is_symlink() && !own.join("run").exists());
    // Where there is nothing to mount on it is made, and nothing else: what is written beside it stays.
    fs::remove_dir_all(own.join("etc")).unwrap();
    let script = format!("{look}; echo x >/etc/kept");
    let words = [&["run", "--rootfs", own.to_str().unwrap()], &flags[..], &["sh", "-c", &script]].concat();
    world.tiny_docker(words).assert().success().stdout(expected);
    assert_eq!(fs::read_to_string(own.join("etc/kept")).unwrap(), "x\n");
    assert_eq!(fs::read(own.join("etc/hosts")).unwrap(), b"");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task6_long_a_hundred_containers_8_at_a_time() {
    let world = World::new();
    let ids = Mutex::new(Vec::new());
    at_once(8, 100, |_| {
        let id = world.detach(&[], "sleep 1000");
        ids.lock().unwrap().push(id);
    });
    let ids = ids.into_inner().unwrap();
    let addresses: BTreeSet<Ipv4Addr> = ids.iter().map(|id| address(&world, id).parse().unwrap()).collect();
    assert_eq!(addresses.len(), 100);
    for address in &addresses {
        sh(&format!("ping -c 1 -W 30 {address}")).unwrap();
    }
    let (first, last) = (addresses.first().unwrap(), addresses.last().unwrap());
    run(&world, &[], &format!("ping -c 1 {first} && ping -c 1 {last}")).success();
    world.remove_all();
    until("no cable is left", || fs::read_dir("/sys/class/net/td0/brif").unwrap().count() == 0);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task6_long_a_hundred_containers_half_of_them_killed_in_their_start() {
    let world = World::new();
    let rootfs = busybox();
    let addresses = Mutex::new(Vec::new());
    at_once(8, 100, |number| {
        let words = ["run", "-d", "--rootfs", rootfs.to_str().unwrap(), "sleep", "1000"];
        let mut command = world.tiny_docker(words);
        if number % 2 == 1 {
            // At another moment each: somewhere in the parent, somewhere in the child.
            let who = ["parent", "child"][number / 2 % 2];
            command.env("TINY_DOCKER_DIE_AT", format!("{who}:{}", 5 + number / 4));
        }
        let output = command.output().unwrap();
        if number % 2 == 0 {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "a run that nobody killed failed: {said}");
            let id = String::from_utf8(output.stdout).unwrap();
            addresses.lock().unwrap().push(address(&world, id.trim_end()));
        }
    });
    let addresses = addresses.into_inner().unwrap();
    assert_eq!(addresses.iter().collect::<BTreeSet<_>>().len(), 50, "{addresses:?}");
    for address in &addresses {
        sh(&format!("ping -c 1 -W 30 {address}")).unwrap();
    }
    world.ps();
    world.remove_all();
    until("the kernel has removed the cables of those that were killed", || {
        fs::read_dir("/sys/class/net/td0/brif").unwrap().count() == 0
    });
    // All of their addresses are free again.
    run(&world, &["--ip", "10.10.0.2"], "true").success();
}

/// Calls `work` with 0 to `count` - 1, `workers` of them at a time.
fn at_once(workers: usize, count: usize, work: impl Fn(usize) + Sync) {
    let next = Mutex::new(0..count);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(number) = { next.lock().unwrap().next() } {
                    work(number);
                }
            });
        }
    });
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task6_long_killed_at_every_moment_nothing_is_left() {
    let world = World::new();
    let rootfs = busybox();
    let words = ["run", "-d", "--memory", "64m", "--rootfs", rootfs.to_str().unwrap(), "sh", "-c", "exit 7"];
    let moments = world.die_at_every_moment(&words);
    assert!(moments > 75, "{moments}");
    until("no cable is left", || fs::read_dir("/sys/class/net/td0/brif").unwrap().count() == 0);
    run(&world, &["--ip", "10.10.0.2"], "true").success();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task6_killed_while_it_makes_the_network_the_next_run_completes_it() {
    let world = World::new();
    let rootfs = busybox();
    let words = [
        "run",
        "--rootfs",
        rootfs.to_str().unwrap(),
        "sh",
        "-c",
        "ping -c 1 10.10.0.1 >/dev/null && echo fine",
    ];
    for moment in 1.. {
        let mut command = world.tiny_docker(words);
        let killed = command.env("TINY_DOCKER_DIE_AT", format!("parent:{moment}")).output().unwrap();
        let output = world.tiny_docker(words).output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "fine\n",
            "killed at {moment}: {}",
            common::said(&output)
        );
        world.tiny_docker(["network", "rm"]).assert().success();
        if killed.status.success() {
            break;
        }
    }
    world.remove_all();
}
