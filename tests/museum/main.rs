//! The museum of escapes: each famous way out of a container, tried on every day from 3 on.
//!
//! Every exhibit tries for real, as root of a container that the runtime of this build's day has
//! made, and with whatever else its text says. What came of it is a cell of
//! `tests/snapshots/museum.md`: `works`, or `fails: how`. The book shows that table, and
//! `make vm-test UPDATE=1` writes it anew.
//!
//! An attempt may fail for a reason of its own: a tool that is missing, a mistake in it. So each
//! one has a control. It works on day 3, or in a container that is privileged (a column of its own,
//! from day 15 on), or it is done once more by hand, without our runtime, and has to work there.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;

mod attack;
mod calls;
mod devices;
mod files;
mod mounts;
mod network;
mod runtime;
mod table;
mod terminal;

use attack::Outcome;
use common::{World, in_the_vm};

/// The newest day of this build.
pub const DAY: u8 = if cfg!(feature = "day17-userns") {
    17
} else if cfg!(feature = "day16-seccomp") {
    16
} else if cfg!(feature = "day15-capabilities") {
    15
} else if cfg!(feature = "day14-exec") {
    14
} else if cfg!(feature = "day13-ports") {
    13
} else if cfg!(feature = "day12-images") {
    12
} else if cfg!(feature = "day11-layers") {
    11
} else if cfg!(feature = "day9-net") {
    9
} else if cfg!(feature = "day8-netns") {
    8
} else if cfg!(feature = "day7-cgroups") {
    7
} else if cfg!(feature = "day6-stop") {
    6
} else if cfg!(feature = "day5-logs") {
    5
} else if cfg!(feature = "day4-metadata") {
    4
} else {
    3
};

/// What a container of the newest day is asked for: from day 17 on, a root who is nobody outside.
const ASKED_FOR: &[&str] = if cfg!(feature = "day17-userns") { &["--userns", "auto"] } else { &[] };

/// Shows an exhibit: tries `attempt` with the flags that a container of the day has, and, from
/// day 15 on, with `--privileged`; and compares what comes of it with the table.
pub fn exhibit(name: &str, attempt: impl Fn(&World, &[&str]) -> Outcome) {
    assert!(in_the_vm(), "this does to the machine what its name says, and is for the guest: make vm-test");
    let world = World::new();
    let mut cells = vec![(DAY.to_string(), attempt(&world, ASKED_FOR))];
    if DAY >= 15 {
        cells.push((table::PRIVILEGED.to_string(), attempt(&world, &["--privileged"])));
    }
    table::compare(name, &cells);
}
