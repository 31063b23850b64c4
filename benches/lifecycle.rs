//! What days 4 to 6 cost: `ps` of 1,000 containers, `run -d`, and a gigabyte of
//! output that is logged. Needs root, and `make rootfs`.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const CONTAINERS: usize = 1000;
const GIB: usize = 1 << 30;

fn main() {
    let rootfs = Path::new(env!("CARGO_MANIFEST_DIR")).join("rootfs/busybox");
    assert!(rootfs.is_dir(), "{rootfs:?} is missing: make rootfs");
    let state = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("lifecycle");
    let _ = std::fs::remove_dir_all(&state);
    let bench = Bench { rootfs, state: state.clone() };
    println!("medians, in ms{:>30} {:>10} {:>8}", "", "to compare", "ratio");
    bench.detached_start();
    bench.listing();
    bench.throughput();
    std::fs::remove_dir_all(state).unwrap();
}

struct Bench {
    rootfs: PathBuf,
    state: PathBuf,
}

impl Bench {
    fn tiny_docker(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tiny-docker"));
        command.env("TINY_DOCKER_ROOT", &self.state).args(words).stdout(Stdio::null());
        command
    }

    fn run(&self, flags: &[&str], command: &[&str]) -> Command {
        let rootfs = ["--rootfs", self.rootfs.to_str().unwrap()];
        self.tiny_docker(&[&["run"], flags, &rootfs[..], command].concat())
    }

    /// In the foreground it waits for the end of the command, in the background
    /// for its start.
    fn detached_start(&self) {
        let (mut foreground, mut detached) = (Vec::new(), Vec::new());
        for _ in 0..CONTAINERS / 2 {
            foreground.push(time(&mut self.run(&[], &["/bin/true"])));
            detached.push(time(&mut self.run(&["-d"], &["/bin/true"])));
        }
        report("run -d, against run, of true", &mut detached, &mut foreground, 1.5);
    }

    fn listing(&self) {
        let containers = self.state.join("containers");
        let count = || std::fs::read_dir(&containers).unwrap().count();
        while count() < CONTAINERS {
            time(&mut self.run(&[], &["/bin/true"]));
        }
        let (mut ps, mut ls) = (Vec::new(), Vec::new());
        for _ in 0..50 {
            ps.push(time(&mut self.tiny_docker(&["ps", "-a"])));
            ls.push(time(Command::new("ls").arg("-R").arg(&containers).stdout(Stdio::null())));
        }
        report(&format!("ps -a of {CONTAINERS}, against ls -R"), &mut ps, &mut ls, 3.0);
        // Of ten runs the fastest: what else the machine does is not ps.
        let best = ps[ps.len() / 10];
        assert!(!limited() || best < Duration::from_millis(20), "ps takes {best:?}, and 20 ms is the limit");
    }

    fn throughput(&self) {
        let out = self.state.join("out");
        for (name, script) in [
            ("1 GiB of zeros", format!("head -c {GIB} /dev/zero")),
            ("1 GiB of lines", format!("yes {} | head -c {GIB}", "x".repeat(79))),
        ] {
            let (mut logged, mut direct) = (Vec::new(), Vec::new());
            for _ in 0..3 {
                logged.push(time(&mut self.run(&["--rm"], &["sh", "-c", &script])));
                // The same program, its stdout a file beside the log.
                direct.push(time(&mut direct_command(&self.rootfs, &script, &out)));
                std::fs::remove_file(&out).unwrap();
            }
            report(&format!("{name}, logged, against a file"), &mut logged, &mut direct, f64::INFINITY);
        }
    }
}

/// The same programs, without a runtime in between.
fn direct_command(rootfs: &Path, script: &str, out: &Path) -> Command {
    let mut command = Command::new(rootfs.join("bin/busybox"));
    command.env("PATH", format!("{0}/bin:{0}/usr/bin", rootfs.display()));
    command.args(["sh", "-c", script]).stdout(std::fs::File::create(out).unwrap());
    command
}

fn time(command: &mut Command) -> Duration {
    let start = Instant::now();
    let status = command.stdin(Stdio::null()).status().unwrap();
    let time = start.elapsed();
    assert!(status.success(), "{command:?}: {status} (is this run by root?)");
    time
}

/// BENCH_LIMIT, of the other bench, makes bounds of these too.
fn limited() -> bool {
    std::env::var_os("BENCH_LIMIT").is_some()
}

fn report(name: &str, own: &mut [Duration], compared: &mut [Duration], limit: f64) {
    own.sort();
    compared.sort();
    let in_ms = |times: &[Duration]| times[times.len() / 2].as_secs_f64() * 1e3;
    let (own, compared) = (in_ms(own), in_ms(compared));
    let ratio = own / compared;
    println!("{name:<36} {own:>8.2} {compared:>10.2} {ratio:>8.2}");
    assert!(!limited() || ratio <= limit, "{name}: {ratio:.2} times, and {limit} is the limit");
}
