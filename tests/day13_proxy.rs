//! Day 13: what the copying loop serves: 127.0.0.1, ::1, and all that no rule sends on.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use common::{Setting, World, busybox, deadline, pid, said, supervisor, until};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd::Pid;

/// Where the loop answers, and the container's port behind it.
const V4: &str = "127.0.0.1:8080";
const V6: &str = "[::1]:8080";
const PUBLISHED: [&str; 2] = ["-p", "8080:80"];
const UDP: [&str; 2] = ["-p", "5353:53/udp"];

/// A container with published ports, in whose network namespace a thread of this test is
/// the server.
struct Published<'a> {
    world: &'a World,
    id: String,
}

impl Published<'_> {
    fn new<'a>(world: &'a World, flags: &[&str]) -> Published<'a> {
        Published { world, id: world.detach(flags, "sleep 1000") }
    }

    /// Runs `serve` on a listener at the container's port 80.
    fn serves<T: Send + 'static>(
        &self,
        serve: impl FnOnce(TcpListener) -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let open = || {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80)).unwrap();
            // accept(2) waits no longer than this, so a failed test does not keep the namespace.
            setsockopt(&listener, ReceiveTimeout, &TimeVal::seconds(deadline().as_secs() as i64)).unwrap();
            listener
        };
        self.inside(open, serve)
    }

    /// Does `then` with what `open` has opened in the container's network namespace: a thread
    /// may be in another one than its process.
    fn inside<S: Send + 'static, T: Send + 'static>(
        &self,
        open: fn() -> S,
        then: impl FnOnce(S) -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let namespace = File::open(format!("/proc/{}/ns/net", pid(self.world, &self.id))).unwrap();
        let (opened, is_open) = channel();
        let server = thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            let socket = open();
            opened.send(()).unwrap();
            then(socket)
        });
        is_open.recv().unwrap_or_else(|_| panic!("the server cannot open its socket"));
        server
    }

    fn supervisor(&self) -> Pid {
        supervisor(self.world, &self.id)
    }

    fn ends(self) {
        self.world.tiny_docker(["rm", "-f", &self.id]).assert().success();
    }
}

fn connect(address: &str) -> TcpStream {
    try_to_connect(address).unwrap_or_else(|error| panic!("connect to {address}: {error}"))
}

/// Where the container has no server, the reset may come before connect(2) has returned.
fn try_to_connect(address: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(deadline())).unwrap();
    stream.set_write_timeout(Some(deadline())).unwrap();
    Ok(stream)
}

/// The next client of a server, which does not wait for anything forever either.
fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(deadline())).unwrap();
    stream.set_write_timeout(Some(deadline())).unwrap();
    stream
}

/// So many bytes, no two blocks of which are the same.
fn data(length: usize) -> Vec<u8> {
    (0..length / 4).flat_map(|number| (number as u32).wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

/// All that comes until the other end has said everything.
fn read_all(mut stream: &TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    stream
        .read_to_end(&mut all)
        .unwrap_or_else(|error| panic!("no end comes after {} bytes: {error}", all.len()));
    all
}

fn open_files(pid: Pid) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

fn threads(pid: Pid) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).unwrap().count()
}

/// A number of /proc/PID/status, in KiB.
fn memory(pid: Pid, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_matches([':', '\t', ' ', 'k', 'B']).parse().unwrap()
}

/// Sends back what comes, to one client after the other, each in a thread of its own.
fn echo(listener: TcpListener, clients: usize) {
    let threads: Vec<_> = (0..clients)
        .map(|_| {
            let stream = accept(&listener);
            thread::spawn(move || std::io::copy(&mut &stream, &mut &stream))
        })
        .collect();
    for thread in threads {
        let _ = thread.join();
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_a_client_that_has_sent_everything_still_gets_the_whole_answer() {
    let world = World::new();
    let container = Published::new(&world, &PUBLISHED);
    let sent = data(3_000_000);
    for address in [V4, V6, "localhost:8080"] {
        // The server answers only when it has everything: the end of it must have come.
        let server = container.serves(|listener| {
            let mut stream = accept(&listener);
            let received = read_all(&stream);
            stream.write_all(&received).and_then(|()| stream.write_all(b"and that was it"))
        });
        let mut client = connect(address);
        client.write_all(&sent).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let answer = read_all(&client);
        let said = server.join().unwrap();
        assert!(said.is_ok(), "{address}: once its client has said everything, the server answers: {said:?}");
        assert_eq!(answer.len(), sent.len() + 15, "{address}: the length of the answer");
        assert!(answer.starts_with(&sent) && answer.ends_with(b"and that was it"), "{address}: other bytes");
    }
    container.ends();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_a_server_that_has_said_everything_still_hears_its_client() {
    let world = World::new();
    let container = Published::new(&world, &PUBLISHED);
    let sent = data(3_000_000);
    for address in [V4, V6] {
        let server = container.serves(|listener| {
            let mut stream = accept(&listener);
            stream.write_all(b"no more from me").unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            read_all(&stream)
        });
        let mut client = connect(address);
        let heard = read_all(&client);
        assert_eq!(heard, b"no more from me", "{address}");
        client.write_all(&sent).unwrap();
        drop(client);
        assert!(server.join().unwrap() == sent, "{address}: the server got something else");
    }
    container.ends();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_a_slow_reader_holds_up_its_own_sender_and_nobody_else() {
    const ALL: usize = 100 << 20;
    let world = World::new();
    let container = Published::new(&world, &PUBLISHED);
    let runtime = container.supervisor();
    let before = memory(runtime, "VmHWM");
    let (count, sent) = channel();
    let server = container.serves(move |listener| {
        let mut stream = accept(&listener);
        let others = thread::spawn(move || echo(listener, 1));
        let block = data(1 << 20);
        for part in 0..ALL / block.len() {
            stream.write_all(&block).unwrap();
            count.send(part).unwrap();
        }
        drop(stream);
        others.join().unwrap();
    });
    let mut slow = connect(V4);
    // Of two clients that come at once, the container may see the second one first.
    sent.recv_timeout(deadline()).expect("the container sends nothing");
    // What it takes in before its client has read anything is what lies in between: buffers.
    // A second in which nothing goes is no proof, and none is needed: it must never have it all.
    let mut parts = 1;
    while sent.recv_timeout(Duration::from_secs(1)).is_ok() {
        parts += 1;
    }
    assert!(parts < 50, "{parts} MB went, and its client has read nothing of it: who holds them?");
    let mut in_time = connect(V4);
    in_time.write_all(b"quick").unwrap();
    in_time.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&in_time), b"quick", "a client that comes while another one does not read");
    let (expected, mut block, mut length) = (data(1 << 20), vec![0; 1 << 20], 0);
    while length < ALL {
        slow.read_exact(&mut block).unwrap_or_else(|error| panic!("after {length} bytes: {error}"));
        assert!(block == expected, "other bytes than those that were sent, after {length}");
        length += block.len();
        thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(slow.read(&mut block).unwrap(), 0, "more came than was sent");
    server.join().unwrap();
    let grown = memory(runtime, "VmHWM") - before;
    assert!(grown < 4 << 10, "the runtime took {grown} KiB of memory for 100 MB that went through");
    container.ends();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_where_nobody_listens_the_connection_is_reset() {
    let world = World::new();
    let container = Published::new(&world, &PUBLISHED);
    for address in [V4, V6] {
        let outcome = try_to_connect(address).and_then(|mut client| client.read(&mut [0]));
        let is_reset = outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionReset);
        assert!(is_reset, "{address}, where the container has no server: {outcome:?}");
    }
    // It is not forever: the next one is served.
    let server = container.serves(|listener| echo(listener, 1));
    let mut client = connect(V4);
    client.write_all(b"now").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&client), b"now", "once the server listens");
    server.join().unwrap();
    container.ends();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_a_reset_is_passed_on_and_not_taken_for_the_end() {
    let world = World::new();
    let container = Published::new(&world, &PUBLISHED);
    // (A socket that is closed while there is something to read in it resets its connection.)
    let server = container.serves(|listener| {
        let mut stream = accept(&listener);
        stream.write_all(b"half of").unwrap();
        stream.peek(&mut [0]).unwrap();
        drop(stream);
        let mut stream = accept(&listener);
        stream.write_all(b"hello").unwrap();
        stream.read(&mut [0]).map_err(|error| error.kind())
    });
    let mut client = connect(V4);
    let mut part = [0; 7];
    client.read_exact(&mut part).unwrap();
    client.write_all(b"x").unwrap();
    let outcome = client.read(&mut part);
    let is_reset = outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionReset);
    assert!(is_reset, "the server has reset the connection, and the client sees {outcome:?}");
    let client = connect(V4);
    client.peek(&mut [0]).unwrap();
    drop(client);
    let seen = server.join().unwrap();
    assert_eq!(seen, Err(ErrorKind::ConnectionReset), "what the server sees of a client that resets");
    container.ends();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_what_a_server_says_at_its_end_still_arrives() {
    let world = World::new();
    let id = world.detach(&PUBLISHED, "echo hello | nc -l -p 80");
    let mut heard = Vec::new();
    until("the server listens", || {
        // Until then each is reset.
        heard.clear();
        let Ok(mut client) = try_to_connect(V4) else { return false };
        let _ = client.shutdown(Shutdown::Write);
        client.read_to_end(&mut heard).is_ok()
    });
    assert_eq!(String::from_utf8_lossy(&heard), "hello\n", "of a server that ends with its container");
    world.tiny_docker(["rm", "-f", &id]).assert().success();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_500_clients_at_once() {
    let world = World::new();
    let container = Published::new(&world, &PUBLISHED);
    let before = open_files(container.supervisor());
    let server = container.serves(|listener| {
        let mut all: Vec<_> = (0..500).map(|_| accept(&listener)).collect();
        // All are there at the same time; and the first ones are answered last.
        while let Some(mut stream) = all.pop() {
            let mut request = [0; 4];
            stream.read_exact(&mut request).unwrap();
            stream.write_all(&request).unwrap();
        }
    });
    let mut clients: Vec<_> = (0..500).map(|at| connect(if at % 2 == 0 { V4 } else { V6 })).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.write_all(&(number as u32).to_be_bytes()).unwrap();
    }
    for (number, client) in clients.iter().enumerate() {
        let answer = read_all(client);
        assert_eq!(answer, (number as u32).to_be_bytes(), "what client {number} gets");
    }
    server.join().unwrap();
    drop(clients);
    // What it keeps is a few pipes for the next ones.
    until("the runtime has closed their files", || open_files(container.supervisor()) < before + 50);
    container.ends();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_who_finds_no_file_left_waits_for_one() {
    let world = World::new();
    let rootfs = busybox();
    // The runtime may have 120 files, and no more: not even 20 connections with their pipes.
    let script =
        format!("ulimit -n 120 && \"$0\" run -d -p 8080:80 --rootfs {} sleep 1000", rootfs.to_str().unwrap());
    let started = world.called_by(&script).output().unwrap();
    assert!(started.status.success(), "{}", said(&started));
    let id = String::from_utf8(started.stdout).unwrap().trim_end().to_string();
    let container = Published { world: &world, id };
    let server = container.serves(|listener| echo(listener, 60));
    let mut clients: Vec<_> = (0..60).map(|_| connect(V4)).collect();
    // None of them is turned away. The kernel keeps them in the order in which they came.
    for (number, client) in clients.drain(..).enumerate() {
        (&client).write_all(b"let me in").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let answer = read_all(&client);
        assert_eq!(String::from_utf8_lossy(&answer), "let me in", "client {number} of 60");
    }
    server.join().unwrap();
    let limits = fs::read_to_string(format!("/proc/{}/limits", container.supervisor())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert!(files.contains("120"), "the limit that this test has set: {files}");
    container.ends();
}

/// Answers each datagram with what it brings, the last one with `enough`.
fn echo_datagrams(socket: UdpSocket) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).unwrap();
        socket.send_to(&buffer[..length], from).unwrap();
        if &buffer[..length] == b"enough" {
            return;
        }
    }
}

fn open_udp_53() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 53)).unwrap();
    socket.set_read_timeout(Some(deadline())).unwrap();
    socket
}

/// A client of UDP. It takes answers from the address that it sends to, and from no other.
fn udp_client(to: &str) -> UdpSocket {
    let local = if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(local).unwrap();
    socket.connect(to).unwrap_or_else(|error| panic!("{to}: {error}"));
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    socket
}

/// What comes back for `request`. A datagram may get lost on the way: then it is sent again.
fn ask(client: &UdpSocket, request: &[u8]) -> Vec<u8> {
    let start = Instant::now();
    let mut answer = vec![0; 64 << 10];
    while start.elapsed() < deadline() {
        client.send(request).unwrap();
        if let Ok(length) = client.recv(&mut answer) {
            answer.truncate(length);
            return answer;
        }
    }
    panic!("no answer comes to {:?} from {:?}", client.local_addr(), client.peer_addr());
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_datagrams_come_back_from_the_address_that_they_were_sent_to() {
    let world = World::new();
    let container = Published::new(&world, &UDP);
    let server = container.inside(open_udp_53, echo_datagrams);
    // All of 127.0.0.0/8 is this host.
    for address in ["127.0.0.1:5353", "127.0.0.2:5353", "[::1]:5353"] {
        let clients = [udp_client(address), udp_client(address)];
        for client in &clients {
            for request in [b"hello".to_vec(), Vec::new(), data(60_000)] {
                let answer = ask(client, &request);
                assert!(answer == request, "{address}: {} bytes for {}", answer.len(), request.len());
            }
        }
        // Each gets its own.
        clients[0].send(b"first").unwrap();
        clients[1].send(b"second").unwrap();
        assert_eq!(ask(&clients[1], b"second"), b"second", "{address}");
        assert_eq!(ask(&clients[0], b"first"), b"first", "{address}");
    }
    ask(&udp_client("127.0.0.1:5353"), b"enough");
    server.join().unwrap();
    container.ends();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_long_flows_of_datagrams_are_bounded_and_forgotten() {
    const CLIENTS: usize = 1200;
    let world = World::new();
    let patience = "/proc/sys/net/netfilter/nf_conntrack_udp_timeout_stream";
    // It is there once something asks for connections to be tracked.
    world.tiny_docker(["run", "--rootfs", busybox().to_str().unwrap(), "true"]).assert().success();
    let short = Setting::set(patience, "20");
    let container = Published::new(&world, &UDP);
    let runtime = container.supervisor();
    let before = open_files(runtime);
    let server = container.inside(open_udp_53, echo_datagrams);
    for _ in 0..CLIENTS {
        ask(&udp_client("127.0.0.1:5353"), b"hello");
    }
    let most = open_files(runtime) - before;
    drop(short);
    assert!(most <= 1024, "the runtime keeps {most} files for {CLIENTS} clients of UDP");
    until("the runtime has forgotten those that are silent", || open_files(runtime) == before);
    // And goes on.
    ask(&udp_client("127.0.0.1:5353"), b"enough");
    server.join().unwrap();
    container.ends();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_a_killed_runtime_leaves_its_port_free() {
    let world = World::new();
    let container = Published::new(&world, &PUBLISHED);
    let server = container.serves(|listener| {
        let stream = accept(&listener);
        let _ = (&stream).read(&mut [0]);
    });
    let client = connect(V4);
    kill(container.supervisor(), Signal::SIGKILL).unwrap();
    // The kernel closes what it had open.
    let _ = (&client).read(&mut [0]);
    drop(client);
    server.join().unwrap();
    until("ps has seen it", || !world.ps().contains("Up "));
    for address in ["0.0.0.0:8080", "[::]:8080"] {
        TcpListener::bind(address).unwrap_or_else(|error| panic!("{address} is not free: {error}"));
    }
    // And another one can have it.
    let next = Published::new(&world, &PUBLISHED);
    let server = next.serves(|listener| echo(listener, 1));
    let client = connect(V4);
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&client), b"");
    server.join().unwrap();
    next.ends();
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_one_thread_serves_all_ports_and_without_ports_there_is_none() {
    let world = World::new();
    let none = Published::new(&world, &[]);
    let many: Vec<String> = (8080..8100).map(|port| format!("{port}:80")).collect();
    let flags: Vec<&str> = many.iter().flat_map(|port| ["-p", port]).collect();
    let all = Published::new(&world, &flags);
    // (`run -d` returns when the command runs, and that is a moment earlier.)
    until("one thread more serves 20 ports", || threads(all.supervisor()) == threads(none.supervisor()) + 1);
    let server = all.serves(|listener| echo(listener, 20));
    for port in 8080..8100 {
        let mut client = connect(&format!("127.0.0.1:{port}"));
        client.write_all(b"here").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(&client), b"here", "port {port}");
    }
    server.join().unwrap();
    none.ends();
    all.ends();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_a_host_without_ipv6_addresses_publishes_on_ipv4() {
    let world = World::new();
    let _none = Setting::set("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
    let container = Published::new(&world, &["-p", "8080:80"]);
    let server = container.serves(|listener| echo(listener, 1));
    let mut client = connect(V4);
    client.write_all(b"four").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&client), b"four", "over IPv4");
    server.join().unwrap();
    container.ends();
}
