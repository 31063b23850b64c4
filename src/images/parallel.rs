//! Day 12: the same for several things at once, up to the first error.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::error::Result;

/// How many at once: more do not come faster, and registries do not like it.
const AT_ONCE: usize = 4;

// ANCHOR: each
/// Does `action` for each of `items`, several at once. The first error is returned, and ends
/// the others too: they look at `stop` now and then.
pub fn each<T: Sync>(items: &[T], action: impl Fn(&T, &AtomicBool) -> Result<()> + Sync) -> Result<()> {
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let failed = Mutex::new(None);
    let work = || {
        while let Some(item) = items.get(next.fetch_add(1, Relaxed)).filter(|_| !stop.load(Relaxed)) {
            if let Err(error) = action(item, &stop) {
                // Before the others see it: theirs is not the first.
                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                stop.store(true, Relaxed);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..items.len().min(AT_ONCE) {
            // This thread is one of them. If no other can be had, it does all of it.
            if thread::Builder::new().spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}
// ANCHOR_END: each
