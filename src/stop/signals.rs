//! Day 6: signals: which one is meant, and which are passed on. (signal(7))

use std::str::FromStr;

use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpgid, getpgrp};

use crate::error::Result;
use crate::explain::step;
use crate::kernel::send_signal;
use crate::wait::{Arrived, SIGRTMAX, SIGRTMIN, signal_name};

const DAY: u8 = 6;

// ANCHOR: pass_on
/// Passes a signal that reached this process on to `child`; but not what
/// concerns this process alone, and not what the child got as well: a key such
/// as Ctrl-C goes to all of the terminal's foreground process group.
pub fn pass_on(child: Pid, arrived: Arrived) -> Result<()> {
    // ANCHOR: day6_task1_pass_on_solution
    let Arrived { signal, from_kernel } = arrived;
    let ours_alone = matches!(signal, libc::SIGCHLD | libc::SIGPIPE | libc::SIGURG);
    let has_it_already = from_kernel && getpgid(Some(child)) == Ok(getpgrp());
    if ours_alone || has_it_already {
        return Ok(());
    }
    let name = signal_name(signal);
    let describe =
        || (format!("kill({child}, {name})"), format!("kill -s {} {child}", name.trim_start_matches("SIG")));
    step(DAY, describe, || send_signal(child, signal))
    // ANCHOR_END: day6_task1_pass_on_solution
}
// ANCHOR_END: pass_on

// ANCHOR: signal_named
/// The number of the signal that `text` means: a name, with or without SIG, or a number.
pub fn signal_named(text: &str) -> std::result::Result<i32, String> {
    // ANCHOR: day6_task3_signal_named_solution
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let number = if let Some(after) = name.strip_prefix("RTMIN+") {
        digits(after).map(|count| SIGRTMIN.saturating_add(count)).filter(|number| *number <= SIGRTMAX)
    } else if let Some(before) = name.strip_prefix("RTMAX-") {
        digits(before).map(|count| SIGRTMAX - count).filter(|number| *number >= SIGRTMIN)
    } else {
        match name {
            "RTMIN" => Some(SIGRTMIN),
            "RTMAX" => Some(SIGRTMAX),
            "IOT" => Some(libc::SIGABRT),
            "CLD" => Some(libc::SIGCHLD),
            "POLL" => Some(libc::SIGIO),
            "UNUSED" => Some(libc::SIGSYS),
            name => Signal::from_str(&format!("SIG{name}")).ok().map(|signal| signal as i32),
        }
    };
    let number = number.or_else(|| digits(text).filter(|number| (1..=SIGRTMAX).contains(number)));
    number.ok_or_else(|| {
        "expected a signal's name, such as TERM, SIGTERM or RTMIN+1, or its number, 1 to 64: kill -l lists them".into()
    })
    // ANCHOR_END: day6_task3_signal_named_solution
}
// ANCHOR_END: signal_named

/// The number that `text` is; `None` if there is anything in it but digits.
fn digits(text: &str) -> Option<i32> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}
