//! Day 14: the name server over TCP, for answers that are too long for UDP: each message comes
//! after two bytes that say how long it is. (RFC 1035, 4.2.2; RFC 7766)
//!
//! One conversation at a time, each with an end: it is the container's own server, so whoever
//! takes long there keeps nobody else waiting.

use std::collections::VecDeque;
use std::io::{self, Error, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::net::sockopt::socket_error;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

use super::answers::{Answers, Fate, PATIENCE};
use super::message::{Code, refusal};

/// Answers on `listener` until somebody closes the other end of `stopped`.
pub fn serve(listener: &TcpListener, answers: &Answers, stopped: &OwnedFd) -> io::Result<()> {
    loop {
        let wait = Wait { stopped: stopped.as_fd(), until: None };
        wait.until(listener.as_fd(), PollFlags::POLLIN)?;
        let Ok((client, _)) = listener.accept() else { continue };
        // What it did wrong, or did not do in time, is its own concern.
        let _ = converse(client, answers, stopped);
    }
}

/// One question, and its answer.
fn converse(client: TcpStream, answers: &Answers, stopped: &OwnedFd) -> io::Result<()> {
    client.set_nonblocking(true)?;
    let wait = Wait { stopped: stopped.as_fd(), until: Some(Instant::now() + PATIENCE * 2) };
    let message = wait.read_message(&client)?;
    let answer = match answers.fate_of(&message) {
        Fate::Answer(answer) => answer,
        Fate::Ask(servers) => ask(&message, servers, stopped),
    };
    let wait = Wait { stopped: stopped.as_fd(), until: Some(Instant::now() + PATIENCE) };
    answer.map_or(Ok(()), |answer| wait.write_message(&client, &answer))
}

/// What the first of `servers` says that says anything.
fn ask(message: &[u8], servers: VecDeque<SocketAddr>, stopped: &OwnedFd) -> Option<Vec<u8>> {
    let ask_one = |server: SocketAddr| -> io::Result<Vec<u8>> {
        let wait = Wait { stopped: stopped.as_fd(), until: Some(Instant::now() + PATIENCE) };
        let stream = wait.connect(server)?;
        wait.write_message(&stream, message)?;
        let answer = wait.read_message(&stream)?;
        let is_ours = answer.len() >= 12 && answer[..2] == message[..2];
        if is_ours { Ok(answer) } else { Err(ErrorKind::InvalidData.into()) }
    };
    let answered = servers.into_iter().find_map(|server| ask_one(server).ok());
    answered.or_else(|| refusal(message, Code::ServerFailed))
}

/// How long to wait, and what else ends it.
struct Wait<'a> {
    stopped: BorrowedFd<'a>,
    until: Option<Instant>,
}

impl Wait<'_> {
    /// Until `fd` is ready for `events`.
    fn until(&self, fd: BorrowedFd, events: PollFlags) -> io::Result<()> {
        loop {
            let left = self.until.map(|until| until.saturating_duration_since(Instant::now()));
            let timeout = left.map_or(PollTimeout::NONE, |left| left.try_into().unwrap_or(PollTimeout::MAX));
            let mut fds = [PollFd::new(self.stopped, PollFlags::POLLIN), PollFd::new(fd, events)];
            match poll(&mut fds, timeout) {
                Ok(_) if fds[0].any() == Some(true) => return Err(ErrorKind::BrokenPipe.into()),
                Ok(_) if fds[1].any() == Some(true) => return Ok(()),
                Ok(_) if left.is_some_and(|left| left.as_millis() == 0) => {
                    return Err(ErrorKind::TimedOut.into());
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn connect(&self, server: SocketAddr) -> io::Result<TcpStream> {
        let family = if server.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(family, SocketType::STREAM, flags, None)?;
        match connect(&socket, &server) {
            Ok(()) => {}
            Err(rustix::io::Errno::INPROGRESS) => {
                self.until(socket.as_fd(), PollFlags::POLLOUT)?;
                socket_error(&socket)??;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(socket.into())
    }

    fn read_message(&self, stream: &TcpStream) -> io::Result<Vec<u8>> {
        let mut length = [0; 2];
        self.fill(stream, &mut length)?;
        let mut message = vec![0; u16::from_be_bytes(length).into()];
        self.fill(stream, &mut message)?;
        Ok(message)
    }

    fn fill(&self, mut stream: &TcpStream, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            match stream.read(buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => buffer = &mut buffer[count..],
                Err(error) => self.again(error, stream, PollFlags::POLLIN)?,
            }
        }
        Ok(())
    }

    fn write_message(&self, mut stream: &TcpStream, message: &[u8]) -> io::Result<()> {
        let length = u16::try_from(message.len()).map_err(|_| Error::from(ErrorKind::InvalidData))?;
        let all = [&length.to_be_bytes(), message].concat();
        let mut rest = &all[..];
        while !rest.is_empty() {
            match stream.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) => self.again(error, stream, PollFlags::POLLOUT)?,
            }
        }
        Ok(())
    }

    /// After `error`: once `stream` is ready, if that is all that was wrong.
    fn again(&self, error: Error, stream: &TcpStream, events: PollFlags) -> io::Result<()> {
        match error.kind() {
            ErrorKind::WouldBlock => self.until(stream.as_fd(), events),
            ErrorKind::Interrupted => Ok(()),
            _ => Err(error),
        }
    }
}
