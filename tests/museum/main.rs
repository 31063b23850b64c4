//! The museum of escapes: each famous way out of a container, tried on every day from 3 on.
//!
//! Every exhibit tries for real, as root of a container that the runtime of this build's day has
//! made, and with whatever else its text says. What came of it is a cell of
//! `tests/snapshots/museum.md`: `works`, or `fails: how`. The book shows that table, and a summary
//! of it; `make vm-test UPDATE=1` writes them anew.
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
use common::{DAY, World, in_the_vm};

/// What a container of the newest day is asked for: from day 17 on, a root who is nobody outside.
const ASKED_FOR: &[&str] = if cfg!(feature = "day17-userns") { &["--userns", "auto"] } else { &[] };

/// All of root's power, and no filter, in that user namespace: what holds then is the namespace alone.
const ALL_OF_NOBODYS: &[&str] =
    &["--userns", "auto", "--cap-add", "ALL", "--security-opt", "seccomp=unconfined"];

/// Shows an exhibit: tries `attempt` with the flags that a container of the day has; from day 15 on
/// with `--privileged` too, and from day 17 on as a root who is nobody and may do everything. Compares
/// what comes of it with the table.
pub fn exhibit(name: &str, attempt: impl Fn(&World, &[&str]) -> Outcome) {
    assert!(in_the_vm(), "this does to the machine what its name says, and is for the guest: make vm-test");
    let world = World::on_disk();
    // Day 18 is another program, and changes nothing of this one: it has day 17's column.
    let mut cells = vec![(DAY.min(17).to_string(), attempt(&world, ASKED_FOR))];
    if DAY >= 15 {
        cells.push((table::PRIVILEGED.to_string(), attempt(&world, &["--privileged"])));
    }
    if DAY >= 17 {
        cells.push((table::NOBODY.to_string(), attempt(&world, ALL_OF_NOBODYS)));
    }
    table::compare(name, &cells);
}
