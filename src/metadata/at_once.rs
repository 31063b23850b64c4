//! Day 4: a command for several containers: all of them at once.
//!
//! Each may take as long as `stop -t 10` says, or as a `run` that does not let go. One
//! thread for each, which does nothing but wait, keeps what is done for one of them as
//! simple as if it were alone.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Builder};

use crate::error::{self, COMMAND_FAILED, Result};
use crate::metadata::output::print;

/// How many at most: each opens up to four files, and a process is usually allowed 1,024.
const THREADS: usize = 200;

/// What has come of each so far, and how many of them have been printed.
#[derive(Default)]
struct Outcomes {
    of: Vec<Option<Result<String>>>,
    printed: usize,
    code: u8,
}

// ANCHOR: at_once
/// Does something for each of several containers, at once, and prints what that returns: in
/// the order given, each as soon as it and all before it are done. One that fails is
/// reported, and keeps it from none of the others. Returns the exit code: 1, as Docker's, if
/// one failed.
pub fn for_each_at_once(words: &[String], action: impl Fn(&str) -> Result<String> + Sync) -> u8 {
    let outcomes = Mutex::new(Outcomes { of: words.iter().map(|_| None).collect(), ..Outcomes::default() });
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some((at, word)) =
            Some(next.fetch_add(1, Relaxed)).and_then(|at| Some((at, words.get(at)?)))
        {
            let outcome = action(word);
            let mut outcomes = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
            outcomes.of[at] = Some(outcome);
            outcomes.print_what_is_done();
        }
    };
    thread::scope(|scope| {
        // This thread is one of them. If no other can be had, it does all of it.
        for _ in 1..words.len().min(THREADS) {
            if Builder::new().spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
    outcomes.into_inner().unwrap_or_else(PoisonError::into_inner).code
}
// ANCHOR_END: at_once

impl Outcomes {
    fn print_what_is_done(&mut self) {
        while let Some(outcome) = self.of.get_mut(self.printed).and_then(Option::take) {
            self.printed += 1;
            if let Err(error) = outcome.and_then(|text| print(&text)) {
                error::print(&error);
                self.code = COMMAND_FAILED;
            }
        }
    }
}
