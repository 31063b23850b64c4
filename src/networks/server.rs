//! Day 14: the name server of one container: threads of the process that looks after it.
//!
//! They answer for the containers on its networks. What else is asked they pass on to the
//! servers that the host asks; also to one on the host's own loopback, such as
//! systemd-resolved, which the container could not reach, and they can.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::pipe2;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::error::Result;

use super::answers::{Answers, Fate, PATIENCE};
use super::inside::Sockets;
use super::message::{Code, Question, refusal};
use super::tcp;

/// So many questions are on their way at a time; then the oldest fails.
const MOST: usize = 64;

/// The longest message over UDP.
const LONGEST: usize = 1 << 16;

/// It ends with this value, and at once.
#[derive(Debug)]
pub struct Server {
    /// The other end of the pipe at which the threads look.
    stop: Option<OwnedFd>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Begins to answer.
    pub fn start(sockets: Sockets, answers: Answers) -> Result<Server> {
        let (stopped, stop) = pipe2(OFlag::O_CLOEXEC).context("make a pipe")?;
        let (stopped, answers) = (Arc::new(stopped), Arc::new(answers));
        let mut server = Server { stop: Some(stop), threads: Vec::new() };
        sockets.udp.set_nonblocking(true).context("fcntl(O_NONBLOCK)")?;
        sockets.tcp.set_nonblocking(true).context("fcntl(O_NONBLOCK)")?;
        let Sockets { udp, tcp } = sockets;
        let (its_stop, its_answers) = (stopped.clone(), answers.clone());
        // What goes wrong there is between the container and its own name server.
        server.spawn(move || drop(tcp::serve(&tcp, &its_answers, &its_stop)))?;
        server.spawn(move || {
            let _ = Udp { socket: udp, answers, asked: VecDeque::new() }.serve(&stopped);
        })?;
        Ok(server)
    }

    fn spawn(&mut self, work: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread = thread::Builder::new().name("names".into()).spawn(work);
        self.threads.push(thread.context("start a thread")?);
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// The thread that answers over UDP.
struct Udp {
    socket: UdpSocket,
    answers: Arc<Answers>,
    asked: VecDeque<Asked>,
}

/// A question that was passed on.
struct Asked {
    /// Connected to the server that was asked, so that nobody else can answer.
    socket: UdpSocket,
    /// Whoever asked us.
    whom: SocketAddr,
    /// The question, as it came.
    message: Vec<u8>,
    /// Its number, as we pass it on: another one for each, that nobody can guess. (RFC 5452)
    number: [u8; 2],
    /// Who else may know.
    others: VecDeque<SocketAddr>,
    until: Instant,
}

impl Udp {
    /// Until somebody closes the other end of `stopped`.
    fn serve(mut self, stopped: &OwnedFd) -> io::Result<()> {
        loop {
            let ready = self.wait(stopped)?;
            if ready[0] {
                return Ok(());
            }
            // From the last to the first: what is removed moves none that is still to come.
            for at in (0..self.asked.len()).rev() {
                let expired = Instant::now() >= self.asked[at].until;
                if ready[2 + at] || expired {
                    self.hear(at, expired);
                }
            }
            if ready[1] {
                self.take_questions();
            }
        }
    }

    /// Which of these can be read: the pipe, the socket, and one for each question that was
    /// passed on.
    fn wait(&self, stopped: &OwnedFd) -> io::Result<Vec<bool>> {
        let until = self.asked.iter().map(|asked| asked.until).min();
        // Rounded up: a wait that ends a moment too early is followed by many more.
        let left =
            until.map(|until| until.saturating_duration_since(Instant::now()) + Duration::from_millis(1));
        let timeout = left.map_or(PollTimeout::NONE, |left| left.try_into().unwrap_or(PollTimeout::MAX));
        let sockets = self.asked.iter().map(|asked| asked.socket.as_fd());
        let all = [stopped.as_fd(), self.socket.as_fd()].into_iter().chain(sockets);
        let mut fds: Vec<PollFd> = all.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        match poll(&mut fds, timeout) {
            Ok(_) => Ok(fds.iter().map(|fd| fd.any() == Some(true)).collect()),
            Err(nix::errno::Errno::EINTR) => Ok(vec![false; fds.len()]),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes what has come, but not more than that others get their turn too.
    fn take_questions(&mut self) {
        let mut buffer = vec![0; LONGEST];
        for _ in 0..MOST {
            let Ok((length, whom)) = self.socket.recv_from(&mut buffer) else { return };
            let message = &buffer[..length];
            match self.answers.fate_of(message) {
                Fate::Answer(answer) => self.send(answer, whom),
                Fate::Ask(servers) => self.ask(message.to_vec(), whom, servers),
            }
        }
    }

    /// Where the container's buffer is full, or it has no such port any more, nobody can be told.
    fn send(&self, answer: Option<Vec<u8>>, whom: SocketAddr) {
        if let Some(answer) = answer {
            let _ = self.socket.send_to(&answer, whom);
        }
    }

    /// Passes `message` on to the first of `servers` that can be sent to.
    fn ask(&mut self, message: Vec<u8>, whom: SocketAddr, mut servers: VecDeque<SocketAddr>) {
        while let Some(server) = servers.pop_front() {
            if let Ok((socket, number)) = pass_on(&message, server) {
                if self.asked.len() == MOST
                    && let Some(oldest) = self.asked.pop_front()
                {
                    self.send(failure(&oldest.message), oldest.whom);
                }
                let until = Instant::now() + PATIENCE;
                self.asked.push_back(Asked { socket, whom, message, number, others: servers, until });
                return;
            }
        }
        self.send(failure(&message), whom);
    }

    /// The answer to the question `at` has come, or its time has `expired`.
    fn hear(&mut self, at: usize, expired: bool) {
        let mut buffer = vec![0; LONGEST];
        let asked = &self.asked[at];
        match asked.socket.recv(&mut buffer) {
            Ok(length) if answers(&buffer[..length], &asked.message, asked.number) => {
                buffer.truncate(length);
                buffer[..2].copy_from_slice(&asked.message[..2]);
                let whom = asked.whom;
                self.asked.remove(at);
                self.send(Some(buffer), whom);
            }
            // Something else: what was asked for may still come.
            Ok(_) if !expired => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock && !expired => {}
            // It takes too long, or it cannot be reached: the next one.
            _ => {
                if let Some(asked) = self.asked.remove(at) {
                    self.ask(asked.message, asked.whom, asked.others);
                }
            }
        }
    }
}

/// Sends `message` to `server`, under a number of our own.
fn pass_on(message: &[u8], server: SocketAddr) -> io::Result<(UdpSocket, [u8; 2])> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.set_nonblocking(true)?;
    let mut number = [0; 2];
    getrandom(&mut number, GetRandomFlags::empty())?;
    socket.send(&[&number, &message[2..]].concat())?;
    Ok((socket, number))
}

/// Whether `answer` is one to `question`, which was passed on under `number`.
fn answers(answer: &[u8], question: &[u8], number: [u8; 2]) -> bool {
    // Twelve bytes of header; the question is repeated behind it.
    let name = Question::read(question).map(|read| read.text().len()).unwrap_or(0);
    answer.len() >= 12 + name
        && answer[..2] == number
        && answer[2] & 0x80 != 0
        && answer[12..12 + name].eq_ignore_ascii_case(&question[12..12 + name])
}

fn failure(message: &[u8]) -> Option<Vec<u8>> {
    refusal(message, Code::ServerFailed)
}
