//! Day 14: what a question to a name server looks like, and an answer. (RFC 1035, section 4)
//!
//! ```text
//! bytes 0–1  number of the question     4–5  how many questions     8–9    name servers
//!       2–3  flags                      6–7  how many answers       10–11  what else
//! then: the name, as labels that each begin with their length; a zero; type; class
//! ```
//!
//! What is read here comes from a container: any bytes, of any length.

use std::net::Ipv4Addr;

const HEADER: usize = 12;

/// The types and the class that we know something about.
pub const A: u16 = 1;
/// Of a name: who has this address.
pub const PTR: u16 = 12;
const ANY: u16 = 255;
const IN: u16 = 1;

/// How an answer says what is wrong. (RFC 1035, 4.1.1)
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Code {
    /// All is well.
    Fine = 0,
    /// The question cannot be read.
    Malformed = 1,
    /// Whoever could answer did not.
    ServerFailed = 2,
    /// There is no such name.
    NoSuchName = 3,
    /// This server does not do that.
    NotImplemented = 4,
    /// It does, but not for you.
    Refused = 5,
}

/// The most that fits into an answer that nobody said could be longer. (RFC 1035, 2.3.4)
const SHORT: usize = 512;

/// A question, as it came.
#[derive(Debug)]
pub struct Question<'a> {
    /// All of the message.
    message: &'a [u8],
    /// Where the question ends in it.
    end: usize,
    /// The name, with a dot between its labels, and none at its end; `None`: there is a byte in
    /// it that no name of ours has.
    pub name: Option<String>,
    /// Its type.
    pub kind: u16,
    class: u16,
}

// ANCHOR: read
impl<'a> Question<'a> {
    /// Reads a message. The error is what to answer; `None`: nothing, for it is no question.
    pub fn read(message: &'a [u8]) -> Result<Question<'a>, Option<Code>> {
        // ANCHOR: day14_task5_read_solution
        let header = message.get(..HEADER).ok_or(None)?;
        let is_answer = header[2] & 0x80 != 0;
        if is_answer {
            return Err(None);
        }
        let operation = header[2] >> 3 & 0xf;
        if operation != 0 {
            return Err(Some(Code::NotImplemented));
        }
        if header[4..6] != [0, 1] {
            return Err(Some(Code::Malformed));
        }
        let (labels, after) = read_labels(message).ok_or(Some(Code::Malformed))?;
        let rest = message.get(after..after + 4).ok_or(Some(Code::Malformed))?;
        let number = |at: usize| u16::from_be_bytes([rest[at], rest[at + 1]]);
        Ok(Question { message, end: after + 4, name: as_text(&labels), kind: number(0), class: number(2) })
        // ANCHOR_END: day14_task5_read_solution
    }

    /// The name, type and class, as they came.
    pub fn text(&self) -> &'a [u8] {
        &self.message[HEADER..self.end]
    }

    /// Whether it asks for addresses of the internet, of version 4.
    pub fn asks_for_address(&self) -> bool {
        self.class == IN && matches!(self.kind, A | ANY)
    }

    /// The address whose name is asked for: `4.3.2.1.in-addr.arpa`. (RFC 1035, 3.5)
    pub fn asks_for_name_of(&self) -> Option<Ipv4Addr> {
        let name = self.name.as_deref().filter(|_| self.class == IN && self.kind == PTR)?;
        let reversed: Ipv4Addr = name.to_ascii_lowercase().strip_suffix(".in-addr.arpa")?.parse().ok()?;
        let [d, c, b, a] = reversed.octets();
        Some(Ipv4Addr::new(a, b, c, d))
    }

    /// The answer that these are its addresses, as many as fit.
    pub fn addresses(&self, addresses: &[Ipv4Addr]) -> Vec<u8> {
        let room = SHORT.saturating_sub(self.end) / (ABOUT + 4);
        let records = addresses.iter().take(room).map(|address| record(A, &address.octets()));
        let records: Vec<Vec<u8>> = records.collect();
        let mut answer = self.header(Code::Fine, records.len() as u16);
        answer.extend(records.concat());
        answer
    }

    /// The answer that this is the name.
    pub fn name_is(&self, name: &str) -> Vec<u8> {
        let mut labels = Vec::new();
        for label in name.split('.').filter(|label| (1..=63).contains(&label.len())) {
            labels.push(label.len() as u8);
            labels.extend(label.bytes());
        }
        labels.push(0);
        let mut answer = self.header(Code::Fine, 1);
        answer.extend(record(PTR, &labels));
        answer
    }

    /// An answer without anything but `code`.
    pub fn answer(&self, code: Code) -> Vec<u8> {
        self.header(code, 0)
    }

    /// The question again, as an answer: its number, that recursion is available here, and how
    /// many records follow.
    fn header(&self, code: Code, records: u16) -> Vec<u8> {
        let mut answer = self.message[..self.end].to_vec();
        answer[2] = 0x80 | self.message[2] & 0x01;
        answer[3] = 0x80 | code as u8;
        answer[6..8].copy_from_slice(&records.to_be_bytes());
        answer[8..HEADER].fill(0);
        answer
    }
}
// ANCHOR_END: read

/// What to answer to a message that cannot be read as a question: its number, and `code`.
pub fn refusal(message: &[u8], code: Code) -> Option<Vec<u8>> {
    let number = message.get(..2)?;
    Some([number, &[0x80, 0x80 | code as u8, 0, 0, 0, 0, 0, 0, 0, 0]].concat())
}

/// The bytes of a record before its data.
const ABOUT: usize = 12;

/// A record about the name of the question, which begins at byte 12. It may be used for this
/// question, and not be kept: what is true now may not be true in a second. (RFC 1035, 3.2.1)
fn record(kind: u16, data: &[u8]) -> Vec<u8> {
    let time_to_live = 0_u32.to_be_bytes();
    let (kind, class, length) = (kind.to_be_bytes(), IN.to_be_bytes(), (data.len() as u16).to_be_bytes());
    [&[0xc0, HEADER as u8], &kind[..], &class, &time_to_live, &length, data].concat()
}

/// The labels of the name that begins at byte 12, and where it ends. A question has no name
/// before its own that it could point to. (RFC 1035, 4.1.4)
fn read_labels(message: &[u8]) -> Option<(Vec<&[u8]>, usize)> {
    let (mut labels, mut at) = (Vec::new(), HEADER);
    loop {
        match usize::from(*message.get(at)?) {
            0 => return Some((labels, at + 1)),
            // All of a name, with its lengths, has at most 255 bytes.
            length @ 1..=63 if at + length < HEADER + 255 => {
                labels.push(message.get(at + 1..at + 1 + length)?);
                at += 1 + length;
            }
            _ => return None,
        }
    }
}

fn as_text(labels: &[&[u8]]) -> Option<String> {
    let is_fine = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-".contains(byte);
    let fine = labels.iter().all(|label| label.iter().all(is_fine));
    let words: Vec<_> = labels.iter().map(|label| String::from_utf8_lossy(label)).collect();
    fine.then(|| words.join("."))
}

#[cfg(test)]
mod tests {
    use super::{Code, Question, refusal};

    const HEAD: [u8; 12] = [7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];

    fn question(name: &[u8], kind: u8) -> Vec<u8> {
        [&HEAD, name, &[0, kind, 0, 1]].concat()
    }

    #[test]
    fn a_question_is_answered_with_its_number_and_its_name() {
        let message = question(b"\x02Db\x04back\0", 1);
        let read = Question::read(&message).unwrap();
        assert_eq!((read.name.as_deref(), read.asks_for_address()), (Some("Db.back"), true));
        let answer = read.addresses(&["10.1.2.3".parse().unwrap()]);
        assert_eq!(answer[..12], [7, 9, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        assert_eq!(answer[12..message.len()], message[12..]);
        assert_eq!(answer[message.len()..], [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 10, 1, 2, 3]);
        let many = read.addresses(&["10.1.2.3".parse().unwrap(); 200]);
        assert!(many.len() <= 512 && many.len() > 480, "{}", many.len());
        assert_eq!(usize::from(many[7]), (many.len() - message.len()) / 16, "as many as are counted");
    }

    #[test]
    fn an_address_is_read_backwards() {
        let message = question(b"\x013\x012\x011\x0210\x07in-addr\x04ARPA\0", 12);
        let read = Question::read(&message).unwrap();
        assert_eq!(read.asks_for_name_of().unwrap().to_string(), "10.1.2.3");
        let answer = read.name_is("db.back");
        assert!(answer.ends_with(b"\0\x09\x02db\x04back\0"), "{answer:?}");
    }

    #[test]
    fn what_is_no_question_is_no_question() {
        let cut = question(b"\x02db\0", 1);
        for length in 0..12 {
            assert_eq!(Question::read(&cut[..length]).unwrap_err(), None, "{length} bytes");
        }
        for length in 12..cut.len() {
            assert_eq!(Question::read(&cut[..length]).unwrap_err(), Some(Code::Malformed), "{length} bytes");
        }
        let mut answer = cut.clone();
        answer[2] = 0x81;
        assert_eq!(Question::read(&answer).unwrap_err(), None, "an answer is answered by nobody");
        let mut update = cut.clone();
        update[2] = 5 << 3;
        assert_eq!(Question::read(&update).unwrap_err(), Some(Code::NotImplemented));
        for name in [&b"\xc0\x0c"[..], b"\x40", &[63; 300]] {
            assert_eq!(Question::read(&question(name, 1)).unwrap_err(), Some(Code::Malformed), "{name:?}");
        }
        // Bytes that no name of ours has, a dot among them.
        for name in [&b"\x02d.\0"[..], b"\x02\xff\0\0", b"\x02d \0"] {
            assert_eq!(Question::read(&question(name, 1)).unwrap().name, None, "{name:?}");
        }
        assert_eq!(refusal(&[1], Code::Malformed), None);
        assert_eq!(refusal(&cut, Code::Malformed).unwrap()[..4], [7, 9, 0x80, 0x81]);
    }
}
