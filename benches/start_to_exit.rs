//! `make bench`: from starting the runtime to its exit, with `/bin/true` as the
//! command and day 3's world around it; against the kernel's floor (floor.c,
//! the same kernel work in the least C) and, where it is installed, crun.
//! Needs root, and `make rootfs`.
#![allow(clippy::unwrap_used, missing_docs)]

mod turns;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use turns::Turns;

fn main() {
    let rootfs = Path::new(env!("CARGO_MANIFEST_DIR")).join("rootfs/busybox");
    assert!(rootfs.is_dir(), "{rootfs:?} is missing: make rootfs");
    let mut turns = Turns::new(1000, Duration::ZERO);
    turns.add("floor", floor(&rootfs));
    turns.add(
        "tiny-docker",
        command(env!("CARGO_BIN_EXE_tiny-docker"), &["run", "--rootfs"], &rootfs, &["/bin/true"]),
    );
    if let Some(crun) = crun(&rootfs) {
        turns.add("crun", crun);
    }
    turns.measure();
    turns.report("start to exit of /bin/true in day 3's world");
    turns.limit("BENCH_LIMIT", "floor");
}

fn floor(rootfs: &Path) -> Command {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/floor.c");
    let program = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("floor");
    let compiled =
        Command::new("cc").args(["-O2", "-static", "-o"]).arg(&program).arg(source).status().unwrap();
    assert!(compiled.success());
    command(program.to_str().unwrap(), &[], rootfs, &["/bin/true"])
}

/// crun with the same world; without cgroups, which are day 7's. `None` where it
/// is not installed, or cannot run.
fn crun(rootfs: &Path) -> Option<Command> {
    let bundle = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("bundle");
    std::fs::create_dir_all(&bundle).unwrap();
    let config = include_str!("bundle.json").replace("ROOTFS", rootfs.to_str().unwrap());
    std::fs::write(bundle.join("config.json"), config).unwrap();
    let mut command =
        command("crun", &["--cgroup-manager=disabled", "run", "--bundle"], &bundle, &["tiny-docker-bench"]);
    match command.output() {
        Ok(output) if output.status.success() => Some(command),
        Ok(output) => {
            eprintln!(
                "crun left out, for it cannot run here: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
            None
        }
        Err(_) => {
            eprintln!("crun left out, for it is not installed");
            None
        }
    }
}

fn command(program: &str, before: &[&str], path: &Path, after: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(before).arg(path).args(after);
    command
}
