//! Day 14: what the name server of one container answers, and whom else it asks.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use crate::error::Result;
use crate::netns::etc::host_file;

use super::message::{Code, Question, refusal};
use super::names::Names;

/// How long one other server has for its answer: so that the next one can still be asked before
/// whoever asked us gives up. (resolv.conf(5), "timeout": 5 s)
pub const PATIENCE: Duration = Duration::from_secs(2);

/// What the server knows, and whom else it asks.
#[derive(Debug)]
pub struct Answers {
    names: Names,
    /// From `--dns`; none: whomever the host asks.
    dns: Vec<IpAddr>,
    turn: AtomicUsize,
}

/// What becomes of a question.
pub enum Fate {
    /// This is the answer; `None`: there is none.
    Answer(Option<Vec<u8>>),
    /// One of these servers may know.
    Ask(VecDeque<SocketAddr>),
}

impl Answers {
    /// For a container that asks `dns` for what is not known here.
    pub fn new(names: Names, dns: Vec<IpAddr>) -> Answers {
        Answers { names, dns, turn: AtomicUsize::new(0) }
    }

    // ANCHOR: fate
    /// The answer to `message`, or whom to ask.
    pub fn fate_of(&self, message: &[u8]) -> Fate {
        let question = match Question::read(message) {
            Ok(question) => question,
            Err(code) => return Fate::Answer(code.and_then(|code| refusal(message, code))),
        };
        // "Cannot tell" is not "there is none".
        self.decide(&question).unwrap_or_else(|_| Fate::Answer(Some(question.answer(Code::ServerFailed))))
    }

    fn decide(&self, question: &Question) -> Result<Fate> {
        // ANCHOR: day14_task5_decide_solution
        let found = question.name.as_deref().map(|name| self.names.addresses(name)).transpose()?.flatten();
        if let Some(mut addresses) = found {
            if !question.asks_for_address() {
                // The name exists, but it has nothing of this type: of IPv6, for one.
                return Ok(Fate::Answer(Some(question.answer(Code::Fine))));
            }
            // Where several are called so, each is first in its turn.
            let turn = self.turn.fetch_add(1, Relaxed) % addresses.len();
            addresses.rotate_left(turn);
            return Ok(Fate::Answer(Some(question.addresses(&addresses))));
        }
        let asked_for = question.asks_for_name_of();
        if let Some(name) = asked_for.map(|address| self.names.name_of(address)).transpose()?.flatten() {
            return Ok(Fate::Answer(Some(question.name_is(&name))));
        }
        if !self.names.may_ask_outside()? {
            return Ok(Fate::Answer(Some(question.answer(Code::NoSuchName))));
        }
        Ok(Fate::Ask(self.servers()?))
        // ANCHOR_END: day14_task5_decide_solution
    }
    // ANCHOR_END: fate

    /// Whom the host asks at this moment: it may have moved to another network since.
    fn servers(&self) -> Result<VecDeque<SocketAddr>> {
        let port = |address: IpAddr| SocketAddr::new(address, 53);
        if !self.dns.is_empty() {
            return Ok(self.dns.iter().copied().map(port).collect());
        }
        let text = host_file("/etc/resolv.conf")?;
        let lines = text.split(|byte| *byte == b'\n').map(String::from_utf8_lossy);
        let server = |line: &str| {
            let mut words = line.split_whitespace();
            (words.next() == Some("nameserver")).then(|| words.next())?.and_then(|word| word.parse().ok())
        };
        // Three are as many as any resolver asks. (resolv.conf(5), MAXNS)
        Ok(lines.filter_map(|line| server(&line)).take(3).map(port).collect())
    }
}
