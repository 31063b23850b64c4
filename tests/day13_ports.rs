//! Day 13: ports of the host that lead to a container.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use assert_cmd::assert::Assert;
use common::layout::{Layout, Packed, tar_of};
use common::outside::{HOST, OUTSIDE, Outside, sh};
use common::{World, busybox, rootfs, said, supervisor, until};
use nix::sys::signal::{Signal, kill};
use predicates::prelude::*;
use predicates::str::contains;
use serde_json::{Value, json};

/// A server on port 80, of TCP (the web's) and of UDP, that answers with the address of whoever
/// asks.
const WHO: &str = "import socket, threading
def udp():
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(('0.0.0.0', 80))
    while True:
        _, whom = server.recvfrom(512)
        server.sendto(whom[0].encode(), whom)
threading.Thread(target=udp, daemon=True).start()
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(('0.0.0.0', 80))
server.listen(64)
while True:
    stream, whom = server.accept()
    try:
        asked = b''
        # What is closed with something unread in it is reset, and the answer lost.
        while b'\\r\\n\\r\\n' not in asked: asked += stream.recv(4096) or b'\\r\\n\\r\\n'
        stream.sendall(b'HTTP/1.0 200 OK\\r\\n\\r\\n' + whom[0].encode())
    except OSError: pass
    stream.close()";

/// The host's address on the bridge.
const GATEWAY: &str = "10.10.0.1";

/// An answer takes a fraction of this, where the machine is not busy.
const PATIENCE: Duration = Duration::from_secs(20);

fn run(world: &World, flags: &[&str], script: &str) -> Assert {
    let rootfs = busybox();
    let words = [&["run", "--rootfs", rootfs.to_str().unwrap()], flags, &["sh", "-c", script]].concat();
    world.tiny_docker(words).assert()
}

/// Starts [`WHO`] in a container, and waits until it answers the host at the container's own
/// address. The container's id.
fn who(world: &World, flags: &[&str]) -> String {
    let rootfs = rootfs("debian");
    let words = [&["run", "-d", "--rootfs", rootfs.to_str().unwrap()], flags, &["python3", "-c", WHO]];
    let started = world.tiny_docker(words.concat()).output().unwrap();
    assert!(started.status.success(), "{}", said(&started));
    let id = String::from_utf8(started.stdout).unwrap().trim_end().to_string();
    let address = address(world, &id);
    until("the server answers", || ask(&format!("{address}:80")).is_ok());
    id
}

fn address(world: &World, container: &str) -> String {
    let record = world.inspect(container);
    let address = record["address"].as_str();
    address.unwrap_or_else(|| panic!("no address in the record of {container}: {record:#}")).to_string()
}

/// What [`WHO`] answers by TCP.
fn ask(server: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&server.parse::<SocketAddr>().unwrap(), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((_, who)) => Ok(who.to_string()),
        None => Err(io::Error::other(format!("no answer, but {answer:?}"))),
    }
}

/// What [`WHO`] answers by UDP to this socket, asked until it does.
fn ask_udp(socket: &UdpSocket, server: &str) -> String {
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut answer = None;
    until(&format!("{server}/udp answers"), || {
        let mut buffer = [0; 512];
        let _ = socket.send_to(b"?", server);
        answer = socket.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec());
        answer.is_some()
    });
    String::from_utf8(answer.unwrap()).unwrap()
}

/// Other people's firewall, in the table `filter`: it goes with this value.
struct TheirTable;

impl Drop for TheirTable {
    fn drop(&mut self) {
        let _ = sh("nft delete table ip filter");
    }
}

/// A port that nobody has.
fn free_port() -> u16 {
    TcpListener::bind("[::]:0").unwrap().local_addr().unwrap().port()
}

/// Whether a server could have this port now.
fn is_free(port: u16) -> bool {
    TcpListener::bind(("0.0.0.0", port)).is_ok() && UdpSocket::bind(("0.0.0.0", port)).is_ok()
}

/// The tables of published ports.
fn tables() -> String {
    let all = sh("nft list tables").unwrap();
    let of_bridges = |line: &&str| !line.contains("tiny-docker-td0");
    all.lines().filter(|line| line.contains("tiny-docker-")).filter(of_bridges).collect()
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_what_is_no_port_is_refused_and_nothing_is_left() {
    let world = World::new();
    for (flag, expected) in [
        ("0", "1 to 65535"),
        ("0:80", "1 to 65535"),
        ("65536:80", "1 to 65535"),
        ("80:65536", "1 to 65535"),
        ("http:80", "1 to 65535"),
        ("8080:", "1 to 65535"),
        ("", "1 to 65535"),
        ("+80:80", "1 to 65535"),
        ("8000-8002:80-81", "3 ports of the host's, and 2 of the container's"),
        ("8002-8000:80-82", "ends before it begins"),
        ("localhost:8080:80", "names are not looked up"),
        ("::1:8080:80", "in brackets: [::1]"),
        ("8080:80/sctp", "tcp and udp"),
        ("192.0.2.77:8080:80", "this host has no address 192.0.2.77"),
        ("[2001:db8::77]:8080:80", "this host has no address 2001:db8::77"),
    ] {
        let refused = run(&world, &["-p", flag], "echo never").code(125).stdout("");
        refused.stderr(contains("-p").and(contains(expected)));
    }
    // One that is fine beside one that is not.
    let port = free_port();
    run(&world, &["-p", &format!("{port}:80"), "-p", "x"], "echo never").code(125).stdout("");
    assert!(is_free(port), "the run that failed has kept port {port}");
    let twice = format!("{port}:80");
    run(&world, &["-p", &twice, "-p", &twice], "echo never")
        .code(125)
        .stderr(contains("by this container itself"));
    assert_eq!(world.ps().lines().count(), 1, "there is a container");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_off_the_bridge_ports_are_discarded_as_docker_does_and_it_says_so() {
    let world = World::new();
    let port = free_port();
    let flag = format!("{port}:80");
    for net in ["host", "none"] {
        let script = "echo here";
        let words = ["--net", net, "-p", &flag];
        run(&world, &words, script)
            .success()
            .stdout("here\n")
            .stderr(contains("published ports are discarded").and(contains("--net bridge")));
    }
    let id = world.detach(&["--net", "none", "-p", &flag], "sleep 1000");
    assert!(is_free(port), "port {port} is bound for a container that nothing leads to");
    world.tiny_docker(["port", &id]).assert().success().stdout("");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_a_port_that_is_taken_is_named_with_whoever_has_it() {
    let world = World::new();
    // By a server on one of the host's addresses, and on all of them.
    for server in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
        let listener = TcpListener::bind(server).unwrap();
        let port = listener.local_addr().unwrap().port();
        let refused = run(&world, &["-p", &format!("{port}:80")], "echo never").code(125).stdout("");
        let process = format!("process {}", std::process::id());
        refused.stderr(
            contains(format!("port {port}/tcp of this host is taken by day13_ports"))
                .and(contains(process))
                .and(contains("Address already in use")),
        );
        // It is still the server's, by all the addresses that it serves.
        let served = thread::spawn(move || listener.accept().unwrap().0.write_all(b"theirs").unwrap());
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "theirs", "what the server that had port {port} first says");
        served.join().unwrap();
    }
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    run(&world, &["-p", &format!("{port}:53/udp")], "echo never")
        .code(125)
        .stderr(contains(format!("port {port}/udp of this host is taken by day13_ports")));
    // And the same number of TCP is another port.
    run(&world, &["-p", &format!("{port}:53")], "echo here").success().stdout("here\n");
    // By a container.
    let port = free_port();
    let flag = format!("{port}:80");
    world.detach(&["-p", &flag], "sleep 1000");
    run(&world, &["-p", &flag], "echo never")
        .code(125)
        .stderr(contains(format!("port {port}/tcp of this host is taken by another container")));
    assert!(!is_free(port), "port {port} is published, and can be bound");
    world.remove_all();
    assert!(is_free(port), "port {port} is bound, and its container is gone");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_of_containers_that_race_for_a_port_one_wins() {
    let world = World::new();
    run(&world, &[], "true").success();
    let rootfs = busybox();
    for _ in 0..3 {
        let port = free_port();
        let flag = format!("{port}:80");
        let words = ["run", "-d", "-p", &flag, "--rootfs", rootfs.to_str().unwrap(), "sleep", "1000"];
        let outputs = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    let output = world.tiny_docker(words).output().unwrap();
                    outputs.lock().unwrap().push(output);
                });
            }
        });
        let outputs = outputs.into_inner().unwrap();
        let (won, lost): (Vec<_>, Vec<_>) = outputs.iter().partition(|output| output.status.success());
        let all = outputs.iter().map(said).collect::<String>();
        assert_eq!(won.len(), 1, "that many of six containers have port {port}: {all}");
        for output in lost {
            assert_eq!(output.status.code(), Some(125), "{}", said(output));
            assert!(said(output).contains("is taken"), "{}", said(output));
        }
        world.remove_all();
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_stopped_its_port_is_free_at_once() {
    let world = World::new();
    let flag = format!("{}:80", free_port());
    // What `stop` has ended has its port no more when `stop` returns: each takes it anew.
    for _ in 0..4 {
        let id = world.detach(&["-p", &flag], "sleep 1000");
        world.tiny_docker(["stop", "-t", "0", &id]).assert().success();
    }
    for _ in 0..3 {
        run(&world, &["-p", &flag], "exit 7").code(7);
    }
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_the_containers_limit_of_open_files_is_what_it_was() {
    let world = World::new();
    let flag = format!("{}:80", free_port());
    let rootfs = busybox();
    let limit = |ports: &str| {
        let script = format!(
            "ulimit -Sn 300; $0 run --rootfs {} {ports} sh -c 'ulimit -Sn; ulimit -Hn'",
            rootfs.display()
        );
        let output = world.called_by(&script).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let without = limit("");
    assert!(without.starts_with("300\n"), "{without}");
    assert_eq!(limit(&format!("-p {flag}")), without, "the limits inside, soft and hard, with -p");
    // And more ports than that can be published.
    assert_eq!(limit("-p 20000-20399:1-400"), without, "the limits inside, with 400 published ports");
}

/// An image in the store, called `name`, that exposes these ports.
fn image(world: &World, name: &str, exposed: Value) {
    let mut layout = Layout::new(world, &format!("layout-of-{name}"));
    let layer = layout.layer(&tar_of(&busybox()), Packed::Gzip);
    let manifest = layout.image(&[layer], json!({"Cmd": ["sleep", "1000"], "ExposedPorts": exposed}));
    layout.tag(&format!("docker.io/lab/{name}:v1"), &manifest);
    let archive = layout.dir.with_extension("tar");
    fs::write(&archive, tar_of(&layout.dir)).unwrap();
    world.tiny_docker([Path::new("load"), Path::new("-i"), &archive]).assert().success();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_the_ports_that_an_image_exposes_are_published() {
    let world = World::new();
    image(&world, "web", json!({"80/tcp": {}, "53/udp": {}, "9000-9001/tcp": {}}));
    let run = |flags: &[&str], image: &str| {
        world.tiny_docker([&["run", "-d"], flags, &["--image", image]].concat()).assert()
    };
    run(&["--name", "web", "-P", "-p", "20080:80"], "lab/web:v1").success();
    let listed = world.tiny_docker(["port", "web"]).assert().success();
    let listed = String::from_utf8_lossy(&listed.get_output().stdout).into_owned();
    let leads: Vec<&str> = listed.lines().filter_map(|line| line.split(" -> ").next()).collect();
    let each_twice = ["80/tcp", "80/tcp", "9000/tcp", "9000/tcp", "9001/tcp", "9001/tcp", "53/udp", "53/udp"];
    assert_eq!(leads, each_twice, "what -P and -p publish, for IPv4 and for IPv6: {listed}");
    assert!(
        listed.contains("80/tcp -> 0.0.0.0:20080\n"),
        "-p says where 80 is, and -P keeps to it: {listed}"
    );
    // Without -P what it exposes is no more than a note.
    run(&["--name", "quiet"], "lab/web:v1").success();
    world.tiny_docker(["port", "quiet"]).assert().success().stdout("");
    // An image is from outside, and may say anything.
    for (number, exposed) in
        ["0/tcp", "99999", "http", "1:80", "127.0.0.1:22:22", "80/sctp", "", "[::]:1:1"].iter().enumerate()
    {
        let name = format!("odd{number}");
        image(&world, &name, json!({ *exposed: {} }));
        run(&["-P"], &format!("lab/{name}:v1"))
            .code(125)
            .stdout("")
            .stderr(contains("-P: the image exposes").and(contains(format!("{exposed:?}"))));
    }
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_the_outside_reaches_it_and_is_seen() {
    let world = World::new();
    let outside = Outside::new();
    let id = who(&world, &["-p", "8080:80", "-p", "8080:80/udp", "-p", &format!("{HOST}:8081:80")]);
    for port in [8080, 8081] {
        let server = format!("{HOST}:{port}");
        let seen = outside.does(|| ask(&server)).unwrap_or_else(|error| error.to_string());
        assert_eq!(seen, OUTSIDE, "whom the container sees, asked at {server} from outside");
    }
    let seen = outside.does(|| ask_udp(&UdpSocket::bind("0.0.0.0:0").unwrap(), &format!("{HOST}:8080")));
    assert_eq!(seen, OUTSIDE, "whom it sees by UDP");
    // What is not published is as closed as before.
    let closed = outside.does(|| ask(&format!("{HOST}:80")));
    assert!(closed.is_err(), "{closed:?}");
    sh(&format!("ip -n outside route add 10.10.0.0/24 via {HOST}")).unwrap();
    let address = address(&world, &id);
    let knock = format!("ip netns exec outside timeout 5 bash -c ': </dev/tcp/{address}/80'");
    assert!(sh(&knock).is_err(), "the outside may not begin at the container's own address");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_the_host_reaches_it_by_all_its_addresses() {
    let world = World::new();
    let _outside = Outside::new();
    who(&world, &["-p", "8080:80"]);
    for (address, expected) in [(HOST, HOST), (GATEWAY, GATEWAY)] {
        let seen = ask(&format!("{address}:8080")).unwrap_or_else(|error| error.to_string());
        assert_eq!(seen, expected, "whom the container sees, asked by the host at {address}");
    }
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_published_at_one_address_it_is_not_at_the_others() {
    let world = World::new();
    let outside = Outside::new();
    who(&world, &["-p", &format!("{HOST}:8080:80"), "-p", "127.0.0.1:8081:80"]);
    assert_eq!(outside.does(|| ask(&format!("{HOST}:8080"))).unwrap_or_default(), OUTSIDE, "at {HOST}:8080");
    for closed in ["127.0.0.1:8080", "10.10.0.1:8080", "192.0.2.1:8081", "10.10.0.1:8081"] {
        let refused = ask(closed).map_err(|error| error.kind());
        assert_eq!(refused, Err(io::ErrorKind::ConnectionRefused), "{closed} is not published");
    }
    let refused = outside.does(|| ask(&format!("{HOST}:8081")).map_err(|error| error.kind()));
    assert_eq!(
        refused,
        Err(io::ErrorKind::ConnectionRefused),
        "{HOST}:8081, published at 127.0.0.1, from outside"
    );
    // And at that address alone it is taken: at another one somebody else can have it.
    let theirs = TcpListener::bind("127.0.0.1:8080").map(drop);
    assert!(theirs.is_ok(), "127.0.0.1:8080 is nobody's: {theirs:?}");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_what_is_for_other_machines_is_left_alone() {
    let world = World::new();
    let outside = Outside::new();
    // A server out there has the port that is published here.
    let listener = outside.does(|| TcpListener::bind("0.0.0.0:8080").unwrap());
    let server = thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 512]);
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\noutside");
        }
    });
    who(&world, &["-p", "8080:80"]);
    let by_host = ask(&format!("{OUTSIDE}:8080")).unwrap_or_else(|error| error.to_string());
    let script = format!("timeout 30 wget -qO- http://{OUTSIDE}:8080/");
    let by_container = run(&world, &[], &script);
    world.remove_all();
    assert_eq!(by_host, "outside", "the host asked a server outside");
    by_container.success().stdout("outside");
    server.join().unwrap();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_a_firewall_that_is_loaded_anew_does_not_close_it() {
    let world = World::new();
    let outside = Outside::new();
    who(&world, &["-p", "8080:80"]);
    sh("nft flush ruleset").unwrap();
    let seen = outside.does(|| ask(&format!("{HOST}:8080"))).unwrap_or_else(|error| error.to_string());
    assert_eq!(seen, OUTSIDE, "after nft flush ruleset");
    world.remove_all();
    assert_eq!(tables(), "", "tables of containers that are gone");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_a_firewall_that_drops_what_it_does_not_know_lets_it_through() {
    let world = World::new();
    let outside = Outside::new();
    // As Docker and ufw leave a host: what is forwarded is dropped, and what comes in as well.
    let theirs = "table ip filter {
        chain FORWARD { type filter hook forward priority filter; policy drop; }
        chain INPUT { type filter hook input priority filter; policy drop; iifname \"lo\" accept; ct state established accept; }
    }";
    sh(&format!("nft -f - <<'END'\n{theirs}\nEND")).unwrap();
    let _theirs = TheirTable;
    who(&world, &["-p", "8080:80"]);
    let seen =
        [outside.does(|| ask(&format!("{HOST}:8080"))), ask(&format!("{HOST}:8080")), ask("127.0.0.1:8080")];
    world.remove_all();
    world.tiny_docker(["network", "rm"]).assert().success();
    let seen = seen.map(|one| one.unwrap_or_else(|error| error.to_string()));
    assert_eq!(seen, [OUTSIDE, HOST, GATEWAY], "whom the container sees: from outside, the host, 127.0.0.1");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_a_thousand_ports_are_one_change() {
    let world = World::new();
    let _outside = Outside::new();
    run(&world, &[], "true").success();
    let changes = |flag: &str| {
        let rootfs = busybox();
        let words = ["--explain", "run", "-p", flag, "--rootfs", rootfs.to_str().unwrap(), "true"];
        let output = world.tiny_docker(words).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        let told = String::from_utf8(output.stderr).unwrap();
        let all = told.lines().filter(|line| line.starts_with("[day ") && !line.contains("bind("));
        all.map(|line| line.split_whitespace().take(4).collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
    };
    // Each port is bound by itself; all else is done once, whatever it is.
    let one = changes("20000:80").len();
    assert_eq!(changes("20000-20999:1-1000").len(), one, "steps of a start with 1,000 ports, but for bind");
    who(&world, &["-p", "20000-20998:1000-1998", "-p", "20999:80"]);
    assert_eq!(ask(&format!("{HOST}:20999")).unwrap_or_default(), HOST, "the last of a thousand");
    assert_eq!(changes("30000:80").len(), one, "steps of a start beside a container with 1,000 ports");
    let listed = world.ps();
    assert!(
        listed.contains("0.0.0.0:20999->80/tcp, 0.0.0.0:20000-20998->1000-1998/tcp"),
        "what ps says of a thousand ports: {listed}"
    );
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_where_the_kernel_takes_no_more_chains_it_is_said_and_nothing_is_left() {
    let world = World::new();
    run(&world, &[], "true").success();
    // Together with day 9's own chain, all that it takes at one hook.
    let chains: String = (1..1024)
        .map(|number| {
            format!("add chain ip filter theirs{number} {{ type nat hook postrouting priority 0; }}\n")
        })
        .collect();
    let _theirs = TheirTable;
    sh(&format!("nft -f - <<'END'\nadd table ip filter\n{chains}END")).unwrap();
    run(&world, &["-p", "8080:80"], "echo never")
        .code(125)
        .stdout("")
        .stderr(contains("Argument list too long").and(contains("1024 chains").and(contains("stop some"))));
    assert!(is_free(8080), "the run that failed has kept its port");
    assert_eq!(tables(), "", "tables of containers that are gone");
    run(&world, &[], "echo here").success().stdout("here\n");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_containers_reach_it_by_the_hosts_address_and_so_does_it_itself() {
    let world = World::new();
    let _outside = Outside::new();
    let id = who(&world, &["--name", "web", "-p", "8080:80"]);
    for address in [HOST, GATEWAY] {
        let script = format!("timeout 15 wget -qO- http://{address}:8080/ || echo no answer");
        run(&world, &[], &script).success().stdout(GATEWAY);
    }
    // Itself: what it sends comes back to it.
    let pid = common::pid(&world, &id);
    for address in [HOST, GATEWAY] {
        let busybox = busybox().join("bin/busybox");
        let inside =
            format!("nsenter -t {pid} -n timeout 15 {} wget -qO- http://{address}:8080/", busybox.display());
        assert_eq!(sh(&inside).unwrap_or_else(|error| error), GATEWAY, "asked by itself at {address}");
    }
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_a_udp_flow_that_is_older_than_the_rule_is_answered() {
    let world = World::new();
    let outside = Outside::new();
    run(&world, &[], "true").success();
    let server = format!("{HOST}:8080");
    let client = outside.does(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    let knock = || (0..3).for_each(|_| drop(client.send_to(b"?", &server)));
    // The kernel remembers where it sent these: to the host, where nobody is.
    knock();
    // The container that dies has it, and the one after it.
    for _ in 0..2 {
        let id = who(&world, &["-p", "8080:80/udp"]);
        assert_eq!(ask_udp(&client, &server), OUTSIDE, "whom the container sees");
        kill(supervisor(&world, &id), Signal::SIGKILL).unwrap();
        until("its port is free", || is_free(8080));
        knock();
    }
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_a_udp_flow_ends_with_its_container() {
    let world = World::new();
    let outside = Outside::new();
    let server = format!("{HOST}:8080");
    let client = outside.does(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    let id = who(&world, &["-p", "8080:80/udp"]);
    assert_eq!(ask_udp(&client, &server), OUTSIDE, "whom the container sees");
    world.tiny_docker(["stop", "-t", "0", &id]).assert().success();
    // Whoever has the port then gets what the same client sends.
    let theirs = UdpSocket::bind("0.0.0.0:8080").unwrap();
    theirs.set_read_timeout(Some(PATIENCE)).unwrap();
    client.send_to(b"hello", &server).unwrap();
    let mut buffer = [0; 16];
    let arrived = theirs.recv(&mut buffer).map(|length| buffer[..length].to_vec());
    assert_eq!(arrived.ok().as_deref(), Some(&b"hello"[..]), "sent to the host after the container's end");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_the_host_reaches_it_at_127_0_0_1_and_at_1() {
    let world = World::new();
    who(&world, &["-p", "8080:80", "-p", "127.0.0.1:8081:80", "-p", "[::1]:8082:80"]);
    for server in ["127.0.0.1:8080", "[::1]:8080", "127.0.0.1:8081", "[::1]:8082"] {
        let seen = ask(server).unwrap_or_else(|error| error.to_string());
        assert_eq!(seen, GATEWAY, "whom the container sees, asked by the host at {server}");
    }
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_by_ipv6_the_outside_reaches_it_and_is_not_seen() {
    let world = World::new();
    let outside = Outside::new();
    // (nodad: at once, and not after a second in which nobody else has said that it is theirs.)
    sh("ip addr add 2001:db8::1/64 dev td-out nodad && ip -n outside addr add 2001:db8::2/64 dev eth0 nodad")
        .unwrap();
    who(&world, &["-p", "8080:80", "-p", "8080:80/udp", "-p", "[2001:db8::1]:8081:80"]);
    for server in ["[2001:db8::1]:8080", "[2001:db8::1]:8081"] {
        let seen = outside.does(|| ask(server)).unwrap_or_else(|error| error.to_string());
        assert_eq!(seen, GATEWAY, "whom the container sees, asked at {server} from outside");
    }
    let seen = outside.does(|| ask_udp(&UdpSocket::bind("[::]:0").unwrap(), "[2001:db8::1]:8080"));
    assert_eq!(seen, GATEWAY, "whom it sees by UDP");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_port_and_ps_say_where_it_is() {
    let world = World::new();
    let flags =
        ["--name", "web", "-p", "20080-20082:80-82", "-p", "127.0.0.1:20053:53/udp", "-p", "20443:443"];
    world.detach(&flags, "sleep 1000");
    let port = |words: &[&str]| world.tiny_docker([&["port"], words].concat()).assert();
    port(&["web"]).success().stdout(
        "80/tcp -> 0.0.0.0:20080\n80/tcp -> [::]:20080\n81/tcp -> 0.0.0.0:20081\n81/tcp -> [::]:20081\n\
         82/tcp -> 0.0.0.0:20082\n82/tcp -> [::]:20082\n443/tcp -> 0.0.0.0:20443\n443/tcp -> [::]:20443\n\
         53/udp -> 127.0.0.1:20053\n",
    );
    port(&["web", "81"]).success().stdout("0.0.0.0:20081\n[::]:20081\n");
    port(&["web", "53/udp"]).success().stdout("127.0.0.1:20053\n");
    for (asked, expected) in [
        ("53", "no public port '53/tcp' published for web"),
        ("80/udp", "no public port '80/udp' published for web"),
        ("0", "1 to 65535"),
        ("http", "1 to 65535"),
        ("80/x", "tcp and udp"),
    ] {
        port(&["web", asked]).code(1).stdout("").stderr(contains(expected));
    }
    port(&["nobody"]).code(1).stdout("").stderr(contains("no such container"));
    let ps = world.ps();
    assert!(ps.lines().next().unwrap().contains("PORTS"), "{ps}");
    let column = "0.0.0.0:20080-20082->80-82/tcp, 0.0.0.0:20443->443/tcp, 127.0.0.1:20053->53/udp, \
                  [::]:20080-20082->80-82/tcp, [::]:20443->443/tcp";
    assert!(ps.contains(column), "{ps}");
    // One that has ended has none.
    world.tiny_docker(["kill", "web"]).assert().success();
    port(&["web"]).success().stdout("");
    assert!(!world.ps().contains("20080"), "{}", world.ps());
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_any_port_that_is_free() {
    let world = World::new();
    let one = |flags: &[&str], asked: &str| {
        let id = world.detach(flags, "sleep 1000");
        let output = world.tiny_docker(["port", &id, asked]).output().unwrap();
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        let port = text.lines().next().and_then(|line| line.rsplit_once(':')?.1.parse::<u16>().ok());
        port.unwrap_or_else(|| panic!("no port: {}", said(&output)))
    };
    let ports: BTreeSet<u16> = (0..3).map(|_| one(&["-p", "80"], "80")).collect();
    assert_eq!(ports.len(), 3, "three containers, each with a port of its own: {ports:?}");
    // Of a range the first that is free.
    let taken = TcpListener::bind("0.0.0.0:20000").unwrap();
    let first = one(&["-p", "20000-20002:80"], "80");
    let second = one(&["-p", "20000-20002:80"], "80");
    assert_eq!((first, second), (20001, 20002), "of 20000 to 20002, of which 20000 is taken");
    run(&world, &["-p", "20000-20002:80"], "echo never")
        .code(125)
        .stderr(contains("the ports 20000 to 20002 are all taken"));
    drop(taken);
    assert_eq!(one(&["-p", "20000-20002:80"], "80"), 20000, "the one that is free again");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_killed_it_leaves_neither_port_nor_rule() {
    let world = World::new();
    let id = who(&world, &["-p", "8080:80", "-p", "8080:80/udp"]);
    assert!(!is_free(8080), "port 8080 is published, and can be bound");
    assert!(tables().contains(&id), "{}", tables());
    // Nobody cleans up: no ps, no run, and no network rm.
    kill(supervisor(&world, &id), Signal::SIGKILL).unwrap();
    until("port 8080 is free", || is_free(8080));
    until("its rules are gone", || tables().is_empty());
    // What is left is its record, which still calls it running: the next command settles it.
    let ps = world.ps();
    assert!(ps.contains("Exited") && !ps.contains("8080"), "{ps}");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_long_killed_at_every_moment_nothing_is_left() {
    let world = World::new();
    let rootfs = busybox();
    let words = [
        "run",
        "-d",
        "-p",
        "8080:80",
        "-p",
        "8080:80/udp",
        "--rootfs",
        rootfs.to_str().unwrap(),
        "sh",
        "-c",
        "exit 7",
    ];
    let moments = world.die_at_every_moment(&words);
    assert!(moments > 75, "{moments}");
    assert!(is_free(8080), "port 8080 is bound, and nobody is left");
    assert_eq!(tables(), "", "tables of containers that are gone");
}
