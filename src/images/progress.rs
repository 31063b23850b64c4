//! Day 12: how far it is: a bar for each layer on a terminal, lines in a log. As Docker's.

use std::io::{IsTerminal, stderr, stdout};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::termios::tcgetwinsize;

use crate::error;
use crate::stream;

/// How often a terminal is drawn anew: more often nobody sees.
const PAUSE: Duration = Duration::from_millis(100);

/// How wide a bar is, in characters.
const BAR: usize = 30;

/// What is shown of several things that go on at once. What nobody reads any more is no
/// reason to stop.
#[derive(Debug)]
pub struct Progress {
    quiet: bool,
    /// On stderr: stdout is for something else.
    aside: bool,
    terminal: bool,
    board: Mutex<Board>,
}

#[derive(Debug, Default)]
struct Board {
    lines: Vec<Line>,
    /// How many lines of the terminal are ours, to be drawn anew.
    drawn: usize,
    drawn_at: Option<Instant>,
}

#[derive(Debug)]
struct Line {
    id: String,
    doing: &'static str,
    done: u64,
    /// 0: nobody knows.
    total: u64,
}

impl Progress {
    /// `quiet`: nothing is shown but what goes wrong.
    pub fn new(quiet: bool) -> Progress {
        Progress { quiet, aside: false, terminal: stdout().is_terminal(), board: Mutex::default() }
    }

    /// It is shown on stderr: what `run` writes to stdout is its command's.
    pub fn on_stderr() -> Progress {
        Progress { quiet: false, aside: true, terminal: stderr().is_terminal(), board: Mutex::default() }
    }

    /// A line that stays.
    pub fn say(&self, words: &str) {
        if !self.quiet {
            self.with(|board| board.print(self, words));
        }
    }

    /// Something went wrong, and is tried again.
    pub fn note(&self, words: &str) {
        self.with(|board| {
            board.clear(self);
            error::say(words);
            board.draw(self);
        });
    }

    /// A part of it is done: a line in a log. On a terminal its bar says what comes next.
    pub fn part(&self, id: &str, words: &str) {
        if !self.terminal {
            self.say(&format!("{id}: {words}"));
        }
    }

    /// Something new goes on with `id`, of `total` (bytes; 0: nobody knows): on a terminal it
    /// has a bar from now on.
    pub fn now(&self, id: &str, doing: &'static str, total: u64) {
        if self.quiet {
            return;
        }
        self.with(|board| {
            match board.lines.iter_mut().find(|line| line.id == id) {
                Some(line) => (line.doing, line.done, line.total) = (doing, 0, total),
                None => board.lines.push(Line { id: id.into(), doing, done: 0, total }),
            }
            board.draw(self);
        });
    }

    /// So much of it is done.
    pub fn is_at(&self, id: &str, done: u64) {
        if self.quiet || !self.terminal {
            return;
        }
        self.with(|board| {
            board.lines.iter_mut().filter(|line| line.id == id).for_each(|line| line.done = done);
            if board.drawn_at.is_none_or(|then| then.elapsed() >= PAUSE) {
                board.draw(self);
            }
        });
    }

    /// Nothing more goes on with `id`: its bar becomes a line that stays.
    pub fn done(&self, id: &str, words: &str) {
        if self.quiet {
            return;
        }
        self.with(|board| {
            board.lines.retain(|line| line.id != id);
            board.print(self, &format!("{id}: {words}"));
        });
    }

    fn write(&self, text: &str) {
        let _ = match self.aside {
            true => stream::write_all(stderr(), text.as_bytes()),
            false => stream::write_all(stdout(), text.as_bytes()),
        };
    }

    fn with(&self, action: impl FnOnce(&mut Board)) {
        action(&mut self.board.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Board {
    fn print(&mut self, on: &Progress, words: &str) {
        self.clear(on);
        on.write(&format!("{words}\n"));
        self.draw(on);
    }

    /// Back to where our lines begin, and nothing after that.
    fn clear(&mut self, on: &Progress) {
        if self.drawn > 0 {
            on.write(&format!("\x1b[{}A\r\x1b[J", self.drawn));
            self.drawn = 0;
        }
    }

    fn draw(&mut self, on: &Progress) {
        if !on.terminal || on.quiet {
            return;
        }
        let size = if on.aside { tcgetwinsize(stderr()) } else { tcgetwinsize(stdout()) };
        let size = size.ok().map(|size| (size.ws_row as usize, size.ws_col as usize));
        let (rows, columns) = size.filter(|(rows, columns)| *rows > 1 && *columns > 1).unwrap_or((24, 80));
        let mut text = String::new();
        if self.drawn > 0 {
            text.push_str(&format!("\x1b[{}A\r\x1b[J", self.drawn));
        }
        let shown = &self.lines[self.lines.len().saturating_sub(rows - 1)..];
        for line in shown {
            // A line that is as wide as the terminal would be two.
            text.extend(line.show().chars().take(columns - 1));
            text.push('\n');
        }
        self.drawn = shown.len();
        self.drawn_at = Some(Instant::now());
        on.write(&text);
    }
}

impl Line {
    fn show(&self) -> String {
        if self.total == 0 {
            return format!("{}: {}", self.id, self.doing);
        }
        let filled = (self.done.min(self.total) as u128 * BAR as u128 / self.total as u128) as usize;
        let bar = format!("{}>", "=".repeat(filled));
        format!("{}: {:<11} [{bar:<31}] {:>7}/{}", self.id, self.doing, size(self.done), size(self.total))
    }
}

/// A number of bytes for people, as Docker writes it: 1 kB is 1,000.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    // Four digits that count, and no zeros at the end.
    let text = format!(
        "{value:.*}",
        if value < 10.0 {
            3
        } else if value < 100.0 {
            2
        } else {
            1
        }
    );
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::{Line, size};

    #[test]
    fn a_size_is_written_as_docker_does() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (4_263_000, "4.263MB"),
            (73_900_000, "73.9MB"),
            (u64::MAX, "18446744.1TB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn a_bar_is_as_long_as_what_is_done() {
        let line = |done, total| Line { id: "4bcff6".into(), doing: "Downloading", done, total }.show();
        assert!(line(0, 100).contains("[>                              ]"), "{}", line(0, 100));
        assert!(line(100, 100).contains("[==============================>]"), "{}", line(100, 100));
        assert!(line(u64::MAX, 1).len() < 100);
        assert_eq!(line(0, 0), "4bcff6: Downloading");
    }
}
