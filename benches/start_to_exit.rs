//! `make bench`: from starting the runtime to its exit, with `/bin/true` as the
//! command and day 3's world around it; against the kernel's floor (floor.c,
//! the same kernel work in the least C) and, where it is installed, crun.
//!
//! All run in turns, so that a machine whose speed drifts is as unfair to one
//! as to the other. Needs root, and `make rootfs`.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{IsTerminal, Write, stderr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: usize = 1000;

fn main() {
    let rootfs = Path::new(env!("CARGO_MANIFEST_DIR")).join("rootfs/busybox");
    assert!(rootfs.is_dir(), "{rootfs:?} is missing: make rootfs");
    let mut contenders = vec![
        ("the kernel's floor", floor(&rootfs)),
        (
            "tiny-docker",
            command(env!("CARGO_BIN_EXE_tiny-docker"), &["run", "--rootfs"], &rootfs, &["/bin/true"]),
        ),
    ];
    contenders.extend(crun(&rootfs).map(|command| ("crun", command)));

    let mut times = vec![Vec::with_capacity(ROUNDS); contenders.len()];
    for round in 0..ROUNDS + 10 {
        if stderr().is_terminal() && round % 50 == 0 {
            eprint!("\r{round}/{ROUNDS} ");
        }
        for ((name, command), times) in contenders.iter_mut().zip(&mut times) {
            let start = Instant::now();
            let status = command.status().unwrap();
            let time = start.elapsed();
            assert!(status.success(), "{name}: {status} (is this run by root?)");
            // The first rounds fill caches.
            if round >= 10 {
                times.push(time);
            }
        }
    }
    report(&contenders, &times);
}

/// A line for each: median, the tenth fastest and slowest of a hundred, and
/// the median of its ratios to the floor, round by round.
fn report(contenders: &[(&str, Command)], times: &[Vec<Duration>]) {
    println!("\rstart to exit of /bin/true, {ROUNDS} runs each in turn, in ms");
    println!("{:<20} {:>8} {:>8} {:>8} {:>10}", "", "median", "10 %", "90 %", "to floor");
    for ((name, _), own) in contenders.iter().zip(times) {
        let in_ms = |time: &Duration| time.as_secs_f64() * 1e3;
        let mut ms: Vec<f64> = own.iter().map(in_ms).collect();
        let mut ratios: Vec<f64> = own.iter().zip(&times[0]).map(|(a, b)| in_ms(a) / in_ms(b)).collect();
        ms.sort_by(f64::total_cmp);
        ratios.sort_by(f64::total_cmp);
        let at = |share: f64| ms[(ROUNDS as f64 * share) as usize];
        let ratio = ratios[ROUNDS / 2];
        println!("{name:<20} {:>8.3} {:>8.3} {:>8.3} {ratio:>10.2}", at(0.5), at(0.1), at(0.9));
        // BENCH_LIMIT=1.35 makes a bound of it.
        let limit = std::env::var("BENCH_LIMIT").ok().filter(|_| *name == "tiny-docker");
        if let Some(limit) = limit {
            assert!(ratio <= limit.parse().unwrap(), "{ratio:.2} times the floor, and {limit} is the limit");
        }
    }
    std::io::stdout().flush().unwrap();
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
    command.args(before).arg(path).args(after).stdin(Stdio::null());
    command
}
