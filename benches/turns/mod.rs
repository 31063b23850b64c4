//! Contenders, each a command that is started again and again: all in turns, so
//! that a machine whose speed drifts is as unfair to one as to the other.

use std::fs;
use std::io::{IsTerminal, stderr};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;

/// The first rounds fill caches, and do not count.
const WARM_UP: usize = 5;

/// A slow machine does fewer rounds: as many as this allows, but not less than LEAST.
const PATIENCE: Duration = Duration::from_secs(30);
const LEAST: usize = 20;

/// What is started, and how long each of its runs took, in ms.
pub struct Contender {
    name: &'static str,
    command: Command,
    times: Vec<f64>,
}

/// The first of them is the floor.
pub struct Turns {
    contenders: Vec<Contender>,
    rounds: usize,
    pause: Duration,
}

impl Turns {
    /// Before each start waits for `pause`, so that nobody pays for what the kernel
    /// still does for whoever was before: it takes a network namespace away later.
    pub fn new(rounds: usize, pause: Duration) -> Turns {
        Turns { contenders: vec![], rounds, pause }
    }

    pub fn add(&mut self, name: &'static str, mut command: Command) {
        command.stdin(Stdio::null());
        self.contenders.push(Contender { name, command, times: vec![] });
    }

    pub fn measure(&mut self) {
        let began = Instant::now();
        for round in 0..WARM_UP + self.rounds {
            if round >= WARM_UP + LEAST && began.elapsed() > PATIENCE {
                self.rounds = round - WARM_UP;
                break;
            }
            if stderr().is_terminal() && round % 10 == 0 {
                eprint!("\rround {round} of {} ", WARM_UP + self.rounds);
            }
            let last = self.contenders.len() - 1;
            for turn in 0..=last {
                // Forwards and backwards in turn, so that each comes after several others: what the kernel
                // still does for a container that has gone, the next one waits for.
                let place = if round % 2 == 0 { turn } else { last - turn };
                let Contender { name, command, times } = &mut self.contenders[place];
                sleep(self.pause);
                let start = Instant::now();
                let status = command.status().unwrap_or_else(|error| panic!("{name}: {error}"));
                let time = start.elapsed();
                assert!(status.success(), "{name}: {status} (is this run by root?)");
                if round >= WARM_UP {
                    times.push(time.as_secs_f64() * 1e3);
                }
            }
        }
        eprint!("\r");
    }

    /// The median of how many times longer `name` took than `other`, round by round.
    pub fn ratio(&self, name: &str, other: &str) -> Option<f64> {
        let times = |name| self.contenders.iter().find(|one| one.name == name).map(|one| &one.times);
        let ratios = times(name)?.iter().zip(times(other)?).map(|(own, others)| own / others);
        Some(at(0.5, ratios.collect()))
    }

    /// The median of `name`, in ms.
    pub fn median(&self, name: &str) -> Option<f64> {
        let found = self.contenders.iter().find(|one| one.name == name)?;
        Some(at(0.5, found.times.clone()))
    }

    /// A line for each: median, the tenth fastest and slowest of a hundred, ratios.
    /// BENCH_JSON=FILE has the same, a JSON object a line, the machine first.
    pub fn report(&self, title: &str) {
        println!("{title}, {} runs each in turn, in ms", self.rounds);
        println!("{:<14} {:>8} {:>8} {:>8} {:>9} {:>8}", "", "median", "10 %", "90 %", "to floor", "to crun");
        let mut lines = machine(title, self.rounds);
        for Contender { name, times, .. } in &self.contenders {
            let [fast, slow] = [0.1, 0.9].map(|share| at(share, times.clone()));
            let median = self.median(name).unwrap();
            let [to_floor, to_crun] = [self.contenders[0].name, "crun"].map(|other| self.ratio(name, other));
            let shown = |ratio: Option<f64>| ratio.map_or("-".into(), |ratio| format!("{ratio:.2}"));
            println!(
                "{name:<14} {median:>8.2} {fast:>8.2} {slow:>8.2} {:>9} {:>8}",
                shown(to_floor),
                shown(to_crun)
            );
            let figures = json!({
                "contender": name, "median_ms": median, "p10_ms": fast, "p90_ms": slow,
                "to_floor": to_floor, "to_crun": to_crun,
            });
            lines += &format!("{figures}\n");
        }
        if let Some(file) = std::env::var_os("BENCH_JSON") {
            fs::write(file, lines).unwrap();
        }
    }

    /// Fails when `variable` is set, and `name` took more than so many times as long as `other`.
    pub fn limit(&self, name: &str, variable: &str, other: &str) {
        let Ok(limit) = std::env::var(variable) else { return };
        let limit: f64 = limit.parse().unwrap_or_else(|_| panic!("{variable}={limit}: expected a number"));
        let ratio = self.ratio(name, other).unwrap_or_else(|| panic!("{other} did not run"));
        assert!(ratio <= limit, "{name} takes {ratio:.2} times as long as {other}; {variable} is {limit}");
    }
}

/// The value that `share` of all are below.
pub fn at(share: f64, mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() as f64 * share) as usize]
}

fn machine(title: &str, rounds: usize) -> String {
    let machine = json!({
        "title": title,
        "rounds": rounds,
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease").unwrap().trim(),
        "cpus": std::thread::available_parallelism().unwrap(),
        "accel": std::env::var("BENCH_ACCEL").ok(),
    });
    format!("{machine}\n")
}
