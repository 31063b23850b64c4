//! Day 13: one connection that the copying loop serves: two sockets, and two ways between them.
//!
//! ```text
//!             splice          splice
//!   client ───────────▶ pipe ───────────▶ server
//!          ◀─────────── pipe ◀───────────
//! ```
//!
//! splice(2) moves what a socket has received into a pipe, and from the pipe into the other
//! socket, and the bytes themselves stay in the kernel.

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_keepalive, set_socket_linger, set_tcp_nodelay};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, connect, shutdown, socket_with};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};

/// How much is moved at once, in bytes. No way holds more than this.
const BLOCK: usize = 256 << 10;

/// How many blocks of one way are moved before others have their turn.
const TURN: usize = 16;

/// How many pipes that nobody uses are kept.
const SPARE: usize = 16;

/// A socket neither waits for data nor for room, and goes with exec.
pub const FLAGS: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);

/// The pipes that no way uses just now. An idle connection needs none.
#[derive(Debug, Default)]
pub struct Pipes(Vec<Pipe>);

/// Its end to read from, and its end to write into.
type Pipe = (OwnedFd, OwnedFd);

impl Pipes {
    fn take(&mut self) -> rustix::io::Result<Pipe> {
        self.0.pop().map_or_else(|| pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK), Ok)
    }

    /// Takes back a pipe in which nothing is left.
    fn give_back(&mut self, pipe: Pipe) {
        if self.0.len() < SPARE {
            self.0.push(pipe);
        }
    }
}

/// A client's connection, and the one to the container's server that belongs to it.
#[derive(Debug)]
pub struct Connection {
    /// The client's socket and the server's.
    sockets: [OwnedFd; 2],
    /// What comes from the client, and what comes from the server.
    ways: [Way; 2],
    /// Whether the server has answered. Until then nothing is read from the client.
    connected: bool,
}

/// One direction of a connection.
#[derive(Debug, Default)]
struct Way {
    /// The pipe, while something is in it.
    pipe: Option<Pipe>,
    /// How many bytes that is.
    held: usize,
    /// Whether the sender has said that no more will come, and the receiver has been told.
    ended: bool,
}

/// How far a connection has come.
#[derive(Debug, PartialEq)]
pub enum Progress {
    /// It waits for one of its sockets.
    Waits,
    /// Its turn is over, and there may be more to carry.
    MayHaveMore,
    /// Both have said all that they had to say.
    Ended,
}

// ANCHOR: connect_to
/// Begins to connect to the server at `to`. This does not wait for its answer, for everybody
/// else would wait as well: an event of the socket tells. (connect(2), EINPROGRESS)
pub fn connect_to(to: SocketAddrV4) -> io::Result<OwnedFd> {
    // ANCHOR: day13_task4_connect_to_solution
    let server = socket_with(AddressFamily::INET, SocketType::STREAM, FLAGS, None)?;
    pass_on_at_once(&server)?;
    match connect(&server, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(server),
        Err(error) => Err(error.into()),
    }
    // ANCHOR_END: day13_task4_connect_to_solution
}
// ANCHOR_END: connect_to

/// What is written into `socket` is sent at once. Otherwise the kernel keeps a small piece back
/// until the one before has been acknowledged, and so would hold up whoever waits for it. What a
/// listening socket is told, those that it accepts have been told too. (tcp(7), TCP_NODELAY)
pub fn pass_on_at_once(socket: &OwnedFd) -> io::Result<()> {
    Ok(set_tcp_nodelay(socket, true)?)
}

/// From here on, the kernel notices some day if the machine at the other end of `socket`, or of
/// one that it accepts, is gone without a word. (socket(7), SO_KEEPALIVE)
pub fn notice_silence(socket: &OwnedFd) -> io::Result<()> {
    Ok(set_socket_keepalive(socket, true)?)
}

/// From here on, closing `socket` tells whoever is at its other end that something went wrong
/// (ECONNRESET), and that what has come so far is not the whole. (socket(7), SO_LINGER)
pub fn reset_at_close(socket: &OwnedFd) {
    let _ = set_socket_linger(socket, Some(Duration::ZERO));
}

impl Connection {
    /// Of a client, and a server that has been asked to connect.
    pub fn new(client: OwnedFd, server: OwnedFd) -> Connection {
        Connection { sockets: [client, server], ways: Default::default(), connected: false }
    }

    // ANCHOR: go_on
    /// Does what an event of `socket` (0 is the client's, 1 the server's) has made possible.
    /// `failed`: the event is an error.
    pub fn go_on(&mut self, socket: usize, failed: bool, pipes: &mut Pipes) -> io::Result<Progress> {
        // ANCHOR: day13_task4_go_on_solution
        if !self.connected {
            if failed {
                return Err(Errno::CONNREFUSED.into());
            }
            if socket == 0 {
                // What the client has sent is still there when the server has answered.
                return Ok(Progress::Waits);
            }
            self.connected = true;
            return self.carry([true, true], pipes);
        }
        // There may be something to read from this socket, or room again in it.
        let mut wanted = [failed || self.ways[0].held > 0, failed || self.ways[1].held > 0];
        wanted[socket] = true;
        let progress = self.carry(wanted, pipes)?;
        // What came before the error has been carried.
        if failed { Err(Errno::CONNRESET.into()) } else { Ok(progress) }
        // ANCHOR_END: day13_task4_go_on_solution
    }
    // ANCHOR_END: go_on

    /// Carries what can be carried on the ways that are `wanted`.
    pub fn carry(&mut self, wanted: [bool; 2], pipes: &mut Pipes) -> io::Result<Progress> {
        let [client, server] = &self.sockets;
        let [there, back] = &mut self.ways;
        let more = (wanted[0] && there.carry(client, server, pipes)?)
            | (wanted[1] && back.carry(server, client, pipes)?);
        Ok(match more {
            _ if there.ended && back.ended => Progress::Ended,
            true => Progress::MayHaveMore,
            false => Progress::Waits,
        })
    }

    /// Ends both connections as something that went wrong, unless one has been told already
    /// that nothing more will come.
    pub fn abort(self) {
        let [there, back] = &self.ways;
        for (socket, way) in self.sockets.iter().zip([back, there]) {
            if !way.ended {
                reset_at_close(socket);
            }
        }
    }
}

impl Way {
    // ANCHOR: carry
    /// Carries from `from` to `to` until nothing more has come, or nothing more goes in, or the
    /// turn is over. Returns whether it is only that the turn is over.
    fn carry(&mut self, from: &OwnedFd, to: &OwnedFd, pipes: &mut Pipes) -> io::Result<bool> {
        // ANCHOR: day13_task4_carry_solution
        if self.ended {
            return Ok(false);
        }
        let pipe = match self.pipe.take() {
            Some(pipe) => pipe,
            None => pipes.take()?,
        };
        let outcome = self.carry_through(&pipe, from, to);
        if self.held > 0 {
            // Nothing is read before there is room for this. So the sender learns that the
            // receiver is slow: its own window closes, as without us.
            self.pipe = Some(pipe);
        } else {
            pipes.give_back(pipe);
        }
        Ok(outcome?)
        // ANCHOR_END: day13_task4_carry_solution
    }
    // ANCHOR_END: carry

    // ANCHOR: carry_through
    fn carry_through(&mut self, pipe: &Pipe, from: &OwnedFd, to: &OwnedFd) -> rustix::io::Result<bool> {
        // ANCHOR: day13_task4_carry_through_solution
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        for _ in 0..TURN {
            if self.held == 0 {
                self.held = match splice(from, None, &pipe.1, None, BLOCK, flags) {
                    Ok(0) => {
                        // The sender has closed its direction, and this one alone is closed
                        // here: an answer may still come on the other way. (shutdown(2))
                        self.ended = true;
                        shutdown(to, Shutdown::Write)?;
                        return Ok(false);
                    }
                    Ok(count) => count,
                    Err(Errno::AGAIN) => return Ok(false),
                    Err(error) => return Err(error),
                };
            }
            while self.held > 0 {
                match splice(&pipe.0, None, to, None, self.held, flags) {
                    Ok(count) => self.held -= count,
                    Err(Errno::AGAIN) => return Ok(false),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(true)
        // ANCHOR_END: day13_task4_carry_through_solution
    }
    // ANCHOR_END: carry_through
}
