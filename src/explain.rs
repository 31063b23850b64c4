//! `--explain`: the runtime narrates itself.
//!
//! Every kernel operation of every day goes through [`step`]. The same
//! description is what `--explain` prints before the operation and what an
//! error message begins with after it failed, so neither can forget the other.

use std::ffi::OsStr;
use std::fmt::Display;
use std::fs::File;
use std::io::{Write, stderr};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use anyhow::Context;

use crate::error::Result;

static ON: AtomicBool = AtomicBool::new(false);
static IN_CHILD: AtomicBool = AtomicBool::new(false);
static STDERR: OnceLock<File> = OnceLock::new();

/// From here on, print every [`step`] to stderr.
pub fn turn_on() {
    ON.store(true, Relaxed);
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
    let who = who();
    // One write for the whole line: parent and child share this stderr. That
    // nobody may be reading it is no reason to fail.
    let line = format!("[day {day}] {who:<6}  {call:<48}  # {by_hand}\n");
    let _ = match STDERR.get() {
        Some(mut kept) => kept.write_all(line.as_bytes()),
        None => stderr().write_all(line.as_bytes()),
    };
}

/// `argument` as a person would type it into a shell.
pub fn shell(argument: impl AsRef<OsStr>) -> impl Display {
    let text = argument.as_ref().to_string_lossy().into_owned();
    let plain = |c: char| c.is_alphanumeric() || "-_./=:,+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text } else { format!("$'{}'", text.escape_debug()) }
}

#[cfg(test)]
mod tests {
    use super::shell;

    #[test]
    fn an_argument_is_quoted_only_when_a_shell_would_need_it() {
        assert_eq!(shell("/bin/sh").to_string(), "/bin/sh");
        assert_eq!(shell("a b").to_string(), "$'a b'");
        assert_eq!(shell("a\nb'c").to_string(), "$'a\\nb\\'c'");
        assert_eq!(shell("").to_string(), "$''");
    }
}
