//! For tests, and in debug builds alone: the runtime dies, by SIGKILL, or hangs just
//! before the operation that the test names.

/// Called before every operation. `TINY_DOCKER_DIE_AT=parent:7` kills the parent
/// before its 7th, `child:3` the child before its 3rd. With `TINY_DOCKER_HANG_AT` it does
/// not go on from there.
#[cfg(debug_assertions)]
pub fn moment(who: &str) {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    static PARENT: AtomicU32 = AtomicU32::new(0);
    static CHILD: AtomicU32 = AtomicU32::new(0);

    let (fatal, endless) = (std::env::var("TINY_DOCKER_DIE_AT"), std::env::var("TINY_DOCKER_HANG_AT"));
    if fatal.is_err() && endless.is_err() {
        return;
    }
    let count = if who == "child" { &CHILD } else { &PARENT };
    let now = format!("{who}:{}", count.fetch_add(1, Relaxed) + 1);
    while endless.as_ref() == Ok(&now) {
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
    if fatal == Ok(now) {
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
        // PID 1 of a namespace cannot kill itself.
        crate::kernel::exit_now(137)
    }
}

/// Nothing, in what people run.
#[cfg(not(debug_assertions))]
pub fn moment(_who: &str) {}
