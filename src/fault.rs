//! For tests, and in debug builds alone: just before the operation that the test names,
//! the runtime dies by SIGKILL, hangs, or is held up by SIGSTOP.

/// Called before every operation. `TINY_DOCKER_DIE_AT=parent:7` kills the parent
/// before its 7th, `child:3` the child before its 3rd. With `TINY_DOCKER_HANG_AT` it does
/// not go on from there, and with `TINY_DOCKER_STOP_AT` only when it gets SIGCONT.
#[cfg(debug_assertions)]
pub fn moment(who: &str) {
    use nix::sys::signal::{Signal, raise};
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    static PARENT: AtomicU32 = AtomicU32::new(0);
    static CHILD: AtomicU32 = AtomicU32::new(0);

    let count = if who == "child" { &CHILD } else { &PARENT };
    let now = format!("{who}:{}", count.fetch_add(1, Relaxed) + 1);
    let is_asked_to = |what: &str| std::env::var(what).as_ref() == Ok(&now);
    while is_asked_to("TINY_DOCKER_HANG_AT") {
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
    if is_asked_to("TINY_DOCKER_STOP_AT") {
        let _ = raise(Signal::SIGSTOP);
    }
    if is_asked_to("TINY_DOCKER_DIE_AT") {
        let _ = raise(Signal::SIGKILL);
        // PID 1 of a namespace cannot kill itself.
        crate::kernel::exit_now(137)
    }
}

/// Nothing, in what people run.
#[cfg(not(debug_assertions))]
pub fn moment(_who: &str) {}
