//! Day 6: signals: which one is meant, and which are passed on. (signal(7))

use std::str::FromStr;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpgid, getpgrp};

use crate::error::Result;
use crate::explain::step;
use crate::wait::Arrived;

const DAY: u8 = 6;

// ANCHOR: pass_on
/// Passes a signal that reached this process on to `child`; but not what
/// concerns this process alone, and not what the child got as well: a key such
/// as Ctrl-C goes to all of the terminal's foreground process group.
pub fn pass_on(child: Pid, arrived: Arrived) -> Result<()> {
    // ANCHOR: day6_task1_pass_on_solution
    let Arrived { signal, from_kernel } = arrived;
    let ours_alone = matches!(signal, Signal::SIGCHLD | Signal::SIGPIPE | Signal::SIGURG);
    let has_it_already = from_kernel && getpgid(Some(child)) == Ok(getpgrp());
    if ours_alone || has_it_already {
        return Ok(());
    }
    let describe =
        || (format!("kill({child}, {signal})"), format!("kill -s {} {child}", &signal.as_str()[3..]));
    step(DAY, describe, || kill(child, signal))
    // ANCHOR_END: day6_task1_pass_on_solution
}
// ANCHOR_END: pass_on

// ANCHOR: signal_named
/// The signal that `text` means: a name, with or without SIG, or a number.
pub fn signal_named(text: &str) -> std::result::Result<Signal, String> {
    // ANCHOR: day6_task3_signal_named_solution
    let name = text.to_ascii_uppercase();
    let number = || text.parse().ok().and_then(|number: i32| Signal::try_from(number).ok());
    (Signal::from_str(&format!("SIG{}", name.trim_start_matches("SIG"))).ok().or_else(number)).ok_or(
        "expected a signal's name, such as TERM or SIGTERM, or its number, 1 to 31: kill -l lists them"
            .into(),
    )
    // ANCHOR_END: day6_task3_signal_named_solution
}
// ANCHOR_END: signal_named
