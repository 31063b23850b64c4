//! For tests, and in debug builds alone: the runtime dies, by SIGKILL, just
//! before the operation that the test names.

/// Called before every operation. `TINY_DOCKER_DIE_AT=parent:7` kills the parent
/// before its 7th, `child:3` the child before its 3rd.
#[cfg(debug_assertions)]
pub fn moment(who: &str) {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    static PARENT: AtomicU32 = AtomicU32::new(0);
    static CHILD: AtomicU32 = AtomicU32::new(0);

    let Ok(fatal) = std::env::var("TINY_DOCKER_DIE_AT") else { return };
    let count = if who == "child" { &CHILD } else { &PARENT };
    let now = count.fetch_add(1, Relaxed) + 1;
    if fatal == format!("{who}:{now}") {
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
        // PID 1 of a namespace cannot kill itself.
        crate::kernel::exit_now(137)
    }
}

/// Nothing, in what people run.
#[cfg(not(debug_assertions))]
pub fn moment(_who: &str) {}
