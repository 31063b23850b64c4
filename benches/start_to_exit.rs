//! `make bench`: from starting the runtime to its exit, with `/bin/true` as the
//! command and day 3's world around it; against the kernel's floor (floor.c,
//! the same kernel work in the least C) and, where it is installed, crun.
//! Needs root, and `make rootfs`.
#![allow(clippy::unwrap_used, missing_docs)]

mod oci;
mod turns;

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use turns::Turns;

fn main() {
    let rootfs = Path::new(env!("CARGO_MANIFEST_DIR")).join("rootfs/busybox");
    assert!(rootfs.is_dir(), "{rootfs:?} is missing: make rootfs");
    let mut turns = Turns::new(1000, Duration::ZERO);
    turns.add("floor", command(oci::compiled_floor(&[]), &[], &rootfs, &["/bin/true"]));
    turns.add(
        "tiny-docker",
        command(env!("CARGO_BIN_EXE_tiny-docker"), &["run", "--rootfs"], &rootfs, &["/bin/true"]),
    );
    // Without cgroups, which are day 7's.
    let bundles = Path::new(env!("CARGO_TARGET_TMPDIR")).join("day3");
    match oci::command("crun", &["--cgroup-manager=disabled"], &bundles, &rootfs, &[]) {
        Ok(crun) => turns.add("crun", crun),
        Err(reason) => eprintln!("crun left out: {reason}"),
    }
    turns.measure();
    turns.report("start to exit of /bin/true in day 3's world");
    turns.limit("tiny-docker", "BENCH_LIMIT", "floor");
}

fn command(program: impl AsRef<OsStr>, before: &[&str], path: &Path, after: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(before).arg(path).args(after);
    command
}
