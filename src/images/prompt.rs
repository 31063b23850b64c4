//! Day 12: asking a person for a name and a password.

use std::fs::File;
use std::io::{IsTerminal, Read, stderr, stdin};

use anyhow::{Context, bail};
use nix::sys::signal::{SigSet, SigmaskHow};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::error::{Failure, Result};
use crate::kernel::ENDING;
use crate::stream;
use crate::wait::readable;

/// No name and no password is longer, in bytes.
const LONGEST: usize = 64 << 10;

/// All that comes from stdin, but for the newline that `echo` puts at its end.
pub fn from_stdin() -> Result<String> {
    let mut text = Vec::new();
    stdin().take(LONGEST as u64 + 1).read_to_end(&mut text).context("read the password from stdin")?;
    if text.len() > LONGEST {
        bail!("--password-stdin: more than {LONGEST} bytes came, which is no password");
    }
    let text = String::from_utf8(text).context("--password-stdin: expected text, UTF-8")?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_string())
}

/// Asks the person at the terminal; what they type is shown only if `shown`.
pub fn ask(question: &str, shown: bool) -> Result<String> {
    if !stdin().is_terminal() {
        bail!("there is no terminal to ask at; say who you are with --username and --password-stdin");
    }
    let terminal = File::open("/dev/tty").context("open /dev/tty")?;
    let _ = stream::write_all(stderr(), question.as_bytes());
    let _quiet = Quiet::new(&terminal)?;
    let mut typed = Vec::new();
    loop {
        let mut key = [0];
        readable(&terminal, None, "what is typed")?;
        let count = (&terminal).read(&mut key).context("read from the terminal")?;
        match key[0] {
            b'\r' | b'\n' => break,
            // Ctrl-D at the beginning of a line is its end of file.
            _ if count == 0 || (key[0] == 0x04 && typed.is_empty()) => bail!("nothing was typed"),
            0x03 => {
                let message = "ended by Ctrl-C".into();
                return Err(Failure { exit_code: 128 + libc::SIGINT as u8, message }.into());
            }
            0x08 | 0x7f => erase(&mut typed, shown),
            // Ctrl-U: the whole line. No other key of this kind is part of a name or a password.
            0x15 => (0..typed.len()).for_each(|_| erase(&mut typed, shown)),
            0x00..0x20 => {}
            byte if typed.len() < LONGEST => {
                typed.push(byte);
                if shown {
                    let _ = stream::write_all(stderr(), &key);
                }
            }
            _ => {}
        }
    }
    let _ = stream::write_all(stderr(), b"\n");
    String::from_utf8(typed).context("expected text, UTF-8")
}

/// Takes the last character back: the bytes of UTF-8 after its first begin with 10.
fn erase(typed: &mut Vec<u8>, shown: bool) {
    while let Some(byte) = typed.pop() {
        if byte & 0xc0 != 0x80 {
            if shown {
                let _ = stream::write_all(stderr(), b"\x08 \x08");
            }
            break;
        }
    }
}

/// While this lives, the terminal shows nothing, and sends no signals: whoever ended us by
/// Ctrl-C would have a terminal that shows nothing any more. And those that others send are held
/// back, for [`readable`] to hear. (termios(3))
struct Quiet<'a> {
    terminal: &'a File,
    before: Termios,
    mask: SigSet,
}

impl Quiet<'_> {
    fn new(terminal: &File) -> Result<Quiet<'_>> {
        let mask =
            SigSet::from_iter(ENDING).thread_swap_mask(SigmaskHow::SIG_BLOCK).context("block signals")?;
        let before = tcgetattr(terminal).context("tcgetattr")?;
        let mut quiet = before.clone();
        quiet.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        tcsetattr(terminal, OptionalActions::Drain, &quiet).context("tcsetattr")?;
        Ok(Quiet { terminal, before, mask })
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, OptionalActions::Drain, &self.before);
        let _ = self.mask.thread_set_mask();
    }
}
