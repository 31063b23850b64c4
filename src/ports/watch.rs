//! Day 13: how one thread waits for many sockets. (epoll(7))

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

/// Whose event it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Who {
    /// The container has ended.
    Stop,
    /// A reserved socket, by its place in the list.
    Door(usize),
    /// The client of a connection, by the connection's number.
    Client(u64),
    /// The server of a connection.
    Server(u64),
    /// The server of a UDP flow, by the flow's number.
    Flow(u64),
}

/// The sockets that are waited for.
#[derive(Debug)]
pub struct Watch(OwnedFd);

impl Watch {
    /// None yet.
    pub fn new() -> io::Result<Watch> {
        Ok(Watch(epoll::create(CreateFlags::CLOEXEC)?))
    }

    /// From here on, tells whenever something has changed about `socket`: it can be read again,
    /// or written again, or has failed. Each change is told once. (epoll(7), "Level-triggered
    /// and edge-triggered") The kernel forgets the socket when it is closed.
    pub fn changes(&self, socket: impl AsFd, who: Who) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
        Ok(epoll::add(&self.0, socket, who.into(), flags)?)
    }

    /// The same, again and again for as long as there is something to read.
    pub fn data(&self, socket: impl AsFd, who: Who) -> io::Result<()> {
        Ok(epoll::add(&self.0, socket, who.into(), EventFlags::IN)?)
    }

    /// Waits, at most for `patience`, until something happens, and returns to whom, and whether
    /// it is an error. What the kernel has more of, the next call returns.
    pub fn wait(&self, patience: Option<Duration>, room: &mut Vec<Event>) -> io::Result<Vec<(Who, bool)>> {
        let timeout = patience
            .map(|time| Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) });
        room.clear();
        match epoll::wait(&self.0, rustix::buffer::spare_capacity(room), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        // (The kernel packs these structs, so their fields have no address.)
        let told = |event: &Event| (Who::from(event.data), { event.flags }.contains(EventFlags::ERR));
        Ok(room.iter().map(told).collect())
    }
}

/// The kernel keeps 64 bits for us: here a kind, and a number.
impl From<Who> for EventData {
    fn from(who: Who) -> EventData {
        let (kind, number) = match who {
            Who::Stop => (0, 0),
            Who::Door(at) => (1, at as u64),
            Who::Client(number) => (2, number),
            Who::Server(number) => (3, number),
            Who::Flow(number) => (4, number),
        };
        EventData::new_u64(number << 3 | kind)
    }
}

impl From<EventData> for Who {
    fn from(data: EventData) -> Who {
        let (kind, number) = (data.u64() & 7, data.u64() >> 3);
        match kind {
            1 => Who::Door(number as usize),
            2 => Who::Client(number),
            3 => Who::Server(number),
            4 => Who::Flow(number),
            _ => Who::Stop,
        }
    }
}
