//! `--explain`: the runtime narrates itself.
//!
//! Every kernel operation of every day goes through [`step`]. The same
//! description is what `--explain` prints before the operation and what an
//! error message begins with after it failed, so neither can forget the other.

use std::ffi::OsStr;
use std::fmt::Display;
use std::fs::File;
use std::io::stderr;
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use anyhow::Context;

use crate::error::Result;
use crate::stream;

static ON: AtomicBool = AtomicBool::new(false);
static IN_CHILD: AtomicBool = AtomicBool::new(false);
static STDERR: OnceLock<File> = OnceLock::new();

/// From here on, print every [`step`] to stderr.
pub fn turn_on() {
    ON.store(true, Relaxed);
}

/// Whether that was asked for: a process that goes on as another one passes it on.
pub fn is_on() -> bool {
    ON.load(Relaxed)
}

/// From here on, this process is the child: its lines say so.
pub fn in_child() {
    IN_CHILD.store(true, Relaxed);
}

/// Before stderr becomes the command's: what is still to tell goes where the
/// rest went. (The copy is closed at exec.)
pub fn keep_stderr() {
    if ON.load(Relaxed)
        && let Ok(copy) = stderr().as_fd().try_clone_to_owned()
    {
        let _ = STDERR.set(copy.into());
    }
}

// ANCHOR: step
/// Does one kernel operation: narrates it when `--explain` is on, and names it
/// when it fails.
///
/// `describe` gives the call with its real arguments, and the shell command
/// that does the same by hand. It only runs when one of the two is needed, so
/// that a narration that nobody asked for costs nothing.
pub fn step<T, E>(
    day: u8,
    describe: impl Fn() -> (String, String),
    operation: impl FnOnce() -> std::result::Result<T, E>,
) -> Result<T>
where
    std::result::Result<T, E>: Context<T, E>,
{
    crate::fault::moment(who());
    if ON.load(Relaxed) {
        let (call, by_hand) = describe();
        narrate(day, &call, &by_hand);
    }
    operation().with_context(|| describe().0)
}
// ANCHOR_END: step

fn who() -> &'static str {
    if IN_CHILD.load(Relaxed) { "child" } else { "parent" }
}

fn narrate(day: u8, call: &str, by_hand: &str) {
    // One write for both lines: parent and child share this stderr. If nothing reads
    // it any more, that is no reason to fail.
    let text = narration(day, who(), call, by_hand);
    let _ = match STDERR.get() {
        Some(kept) => stream::write_all(kept, text.as_bytes()),
        None => stream::write_all(stderr(), text.as_bytes()),
    };
}

/// What is narrated of one operation: the call, and under it what a shell does instead.
/// Neither is wider than a page of the book, or than a terminal of 100 columns, unless
/// a single word is.
pub fn narration(day: u8, who: &str, call: &str, by_hand: &str) -> String {
    format!("[day {day}] {who:<6}  {}\n{:16}# {}\n", folded(call), "", folded(by_hand))
}

/// `text`, broken at spaces where it would be too wide. What follows is indented deeper.
fn folded(text: &str) -> String {
    const WIDTH: usize = 80;
    let (mut folded, mut width) = (String::new(), 0);
    for word in text.split(' ') {
        if width > 0 && width + 1 + word.chars().count() > WIDTH {
            folded.push_str("\n                    ");
            width = 4;
        } else if width > 0 {
            folded.push(' ');
            width += 1;
        }
        folded.push_str(word);
        width += word.chars().count();
    }
    folded
}

/// `argument` as a person would type it into a shell.
pub fn shell(argument: impl AsRef<OsStr>) -> impl Display {
    let text = argument.as_ref().to_string_lossy().into_owned();
    let plain = |c: char| c.is_alphanumeric() || "-_./=:,+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text } else { format!("$'{}'", text.escape_debug()) }
}

#[cfg(test)]
mod tests {
    use super::{narration, shell};

    #[test]
    fn what_is_told_of_one_operation_fits_a_terminal() {
        let words = ["word"; 40].join(" ");
        let text = narration(3, "child", &words, "by hand");
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
        let told: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(told.join(" "), format!("[day 3] child {words} # by hand"));
    }

    #[test]
    fn an_argument_is_quoted_only_when_a_shell_would_need_it() {
        assert_eq!(shell("/bin/sh").to_string(), "/bin/sh");
        assert_eq!(shell("a b").to_string(), "$'a b'");
        assert_eq!(shell("a\nb'c").to_string(), "$'a\\nb\\'c'");
        assert_eq!(shell("").to_string(), "$''");
    }
}
