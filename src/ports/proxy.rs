//! Day 13: the copying loop. What reaches a reserved socket is what no rule of the kernel has
//! sent on to the container: what comes to 127.0.0.1, and all of IPv6.
//!
//! One thread serves all ports of a container, and waits for all sockets at once.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::mem::take;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::net::accept_with;
use rustix::process::{Resource, getrlimit};

use crate::error::Result;
use crate::explain::step;
use crate::plan::{Protocol, PublishedPort};
use crate::ports::relay::{
    Connection, FLAGS, Pipes, Progress, connect_to, notice_silence, pass_on_at_once, reset_at_close,
};
use crate::ports::reserve::Reserved;
use crate::ports::udp::{self, Flows};
use crate::ports::watch::{Watch, Who};

use super::DAY;

/// How long to wait after the kernel had no file, or no memory, for a connection.
const A_WHILE: Duration = Duration::from_secs(1);

/// No process needs more files than this for its ports.
const MOST_FILES: usize = 64 << 10;

/// What the runtime has open besides.
const OTHER_FILES: usize = 64;

/// What one connection takes at most: two sockets, and two pipes with two ends.
const FILES_EACH: usize = 6;

/// The loop. It lives until [`Proxy::stop`], or as long as this process.
#[derive(Debug)]
pub struct Proxy {
    stop: OwnedFd,
    /// Until the loop is started: what its thread will have.
    ready: Option<Serving>,
    thread: Option<JoinHandle<Result<()>>>,
}

// ANCHOR: get_ready
/// Gets everything ready for the loop, before the command runs: what arrives at `reserved` will
/// go to the container, which has this address.
pub fn get_ready(reserved: Vec<Reserved>, container: Ipv4Addr) -> Result<Proxy> {
    // ANCHOR: day13_task4_get_ready_solution
    let stop = eventfd(0, EventfdFlags::CLOEXEC).context("eventfd")?;
    let doors = reserved.into_iter().map(|reserved| Door::new(reserved, container)).collect();
    let ready = Some(Serving::new(doors, &stop)?);
    Ok(Proxy { stop, ready, thread: None })
    // ANCHOR_END: day13_task4_get_ready_solution
}
// ANCHOR_END: get_ready

impl Proxy {
    /// Starts the loop, in a thread of its own: the child is there already.
    pub fn serve(&mut self) -> Result<()> {
        let Some(serving) = self.ready.take() else { return Ok(()) };
        let by_hand = by_hand(&serving.doors);
        let describe = || ("a thread: epoll_wait, accept4, connect, splice".into(), by_hand.clone());
        let thread = step(DAY, describe, || thread::Builder::new().spawn(move || serving.run()))?;
        self.thread = Some(thread);
        Ok(())
    }

    /// Ends the loop with all its connections. When this returns the ports are free.
    pub fn stop(self) -> Result<()> {
        let Some(thread) = self.thread else { return Ok(()) };
        rustix::io::write(&self.stop, &1_u64.to_ne_bytes()).context("write to an eventfd")?;
        thread.join().unwrap_or_else(|_| bail!("the copying loop panicked"))
    }
}

/// What a person would use.
fn by_hand(doors: &[Door]) -> String {
    let one = |door: &Door| {
        let (kind, port) = (door.protocol.to_string().to_uppercase(), door.host_port);
        format!("socat {kind}6-LISTEN:{port},fork {kind}:{} &", door.to)
    };
    let more = if doors.len() > 1 { " …" } else { "" };
    doors.first().map_or_else(String::new, |door| one(door) + more)
}

/// A reserved socket, and where what comes to it is to go.
#[derive(Debug)]
struct Door {
    socket: OwnedFd,
    protocol: Protocol,
    host_port: u16,
    to: SocketAddrV4,
}

impl Door {
    fn new(reserved: Reserved, container: Ipv4Addr) -> Door {
        let PublishedPort { protocol, container_port, host_port, .. } = reserved.published;
        let to = SocketAddrV4::new(container, container_port);
        Door { socket: reserved.socket, protocol, host_port, to }
    }
}

/// All that the thread has.
#[derive(Debug)]
struct Serving {
    doors: Vec<Door>,
    watch: Watch,
    connections: HashMap<u64, Connection>,
    /// The number of the next connection.
    next: u64,
    /// How many connections there may be at once.
    room: usize,
    /// The doors at which somebody may wait to be let in.
    waiting: BTreeSet<usize>,
    /// The connections whose turn was over.
    unfinished: BTreeSet<u64>,
    pipes: Pipes,
    flows: Flows,
}

impl Serving {
    fn new(doors: Vec<Door>, stop: &OwnedFd) -> Result<Serving> {
        let watch = Watch::new().context("epoll_create1")?;
        watch.data(stop, Who::Stop).context("epoll_ctl")?;
        for (at, door) in doors.iter().enumerate() {
            if door.protocol == Protocol::Udp {
                udp::tell_where_it_was_sent(&door.socket).context("setsockopt(IP_PKTINFO)")?;
                watch.data(&door.socket, Who::Door(at)).context("epoll_ctl")?;
            } else {
                pass_on_at_once(&door.socket).context("setsockopt(TCP_NODELAY)")?;
                notice_silence(&door.socket).context("setsockopt(SO_KEEPALIVE)")?;
                watch.changes(&door.socket, Who::Door(at)).context("epoll_ctl")?;
            }
        }
        // Already raised, for the reserved ports.
        let files = getrlimit(Resource::Nofile)
            .current
            .map_or(MOST_FILES, |files| files.min(MOST_FILES as u64) as usize);
        let left = files.saturating_sub(doors.len() + OTHER_FILES);
        let flows = if doors.iter().any(|door| door.protocol == Protocol::Udp) {
            udp::AT_MOST.min(left / 4)
        } else {
            0
        };
        Ok(Serving {
            doors,
            watch,
            connections: HashMap::new(),
            next: 0,
            room: ((left - flows) / FILES_EACH).max(1),
            waiting: BTreeSet::new(),
            unfinished: BTreeSet::new(),
            pipes: Pipes::default(),
            flows: Flows::new(flows.max(1)),
        })
    }

    // ANCHOR: run
    fn run(mut self) -> Result<()> {
        let mut room = Vec::with_capacity(256);
        loop {
            for (who, failed) in self.watch.wait(self.patience(), &mut room).context("epoll_wait")? {
                match who {
                    Who::Stop => {
                        self.stop();
                        return Ok(());
                    }
                    Who::Door(at) => self.knocked(at),
                    Who::Client(number) => self.advance(number, |one, pipes| one.go_on(0, failed, pipes)),
                    Who::Server(number) => self.advance(number, |one, pipes| one.go_on(1, failed, pipes)),
                    Who::Flow(number) => self.answer(number),
                }
            }
            for number in take(&mut self.unfinished) {
                self.advance(number, |one, pipes| one.carry([true, true], pipes));
            }
            for at in take(&mut self.waiting) {
                self.let_in(at);
            }
            self.flows.forget_old();
        }
    }
    // ANCHOR_END: run

    /// How long to wait for something to happen; `None`: however long it takes.
    fn patience(&self) -> Option<Duration> {
        if !self.unfinished.is_empty() {
            return Some(Duration::ZERO);
        }
        (!self.waiting.is_empty() || !self.flows.is_empty()).then_some(A_WHILE)
    }

    /// Somebody has come to a door.
    fn knocked(&mut self, at: usize) {
        let Some(door) = self.doors.get(at) else { return };
        if door.protocol == Protocol::Udp {
            self.flows.from_clients(at, &door.socket, door.to, &self.watch);
        } else {
            self.let_in(at);
        }
    }

    // ANCHOR: let_in
    /// Lets in everybody who waits at a door and for whom there is room. The others wait in
    /// the kernel's queue. (listen(2))
    fn let_in(&mut self, at: usize) {
        // ANCHOR: day13_task4_let_in_solution
        while self.connections.len() < self.room {
            let door = &self.doors[at];
            match accept_with(&door.socket, FLAGS) {
                Ok(client) => self.begin(client, door.to),
                Err(Errno::AGAIN) => return,
                // The system has no file left, or no memory.
                Err(_) => break,
            }
        }
        self.waiting.insert(at);
        // ANCHOR_END: day13_task4_let_in_solution
    }
    // ANCHOR_END: let_in

    fn begin(&mut self, client: OwnedFd, to: SocketAddrV4) {
        let number = self.next;
        self.next += 1;
        let outcome = connect_to(to).and_then(|server| {
            self.watch.changes(&client, Who::Client(number))?;
            self.watch.changes(&server, Who::Server(number))?;
            Ok(server)
        });
        match outcome {
            Ok(server) => drop(self.connections.insert(number, Connection::new(client, server))),
            Err(_) => reset_at_close(&client),
        }
    }

    /// Goes on with one connection, if there still is one of that number: it may have ended by
    /// the event before.
    fn advance(
        &mut self,
        number: u64,
        go_on: impl FnOnce(&mut Connection, &mut Pipes) -> io::Result<Progress>,
    ) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        match go_on(connection, &mut self.pipes) {
            Ok(Progress::Waits) => {}
            Ok(Progress::MayHaveMore) => drop(self.unfinished.insert(number)),
            Ok(Progress::Ended) => drop(self.connections.remove(&number)),
            Err(_) => {
                if let Some(connection) = self.connections.remove(&number) {
                    connection.abort();
                }
            }
        }
    }

    fn answer(&mut self, number: u64) {
        let doors = &self.doors;
        self.flows.from_server(number, |at| doors.get(at).map(|door| &door.socket));
    }

    /// The container has ended. What its server has said before that is on its way here.
    fn stop(mut self) {
        for (_, mut connection) in self.connections.drain() {
            let _ = connection.carry([true, true], &mut self.pipes);
            connection.abort();
        }
    }
}
