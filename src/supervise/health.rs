//! Day 14: health checks. That a process runs does not mean that it answers. So a command is
//! executed in the container again and again, and how it ends says whether the container is well.
//!
//! ```text
//!            │ start period │  failures do not count
//! starting ──┼──────────────┼── ok ──► healthy ── as many failures as retries ──► unhealthy ── ok ──► healthy
//! ```
//!
//! It is a thread of the process that looks after the container, and ends with it: nobody is
//! needed besides. Each check is a `tiny-docker exec` ([`probe`](super::probe)), so it is what
//! a person would see who looked.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use jiff::SignedDuration;
use nix::fcntl::OFlag;
use nix::poll::PollFlags;
use nix::unistd::{Pid, pipe2};

use crate::container::{Container, Mechanism};
use crate::error::Result;
use crate::logs::pump::poll_some;
use crate::metadata::freezer::is_paused;
use crate::metadata::health::{Check, Health, HealthStatus};
use crate::plan::HealthCheck;
use crate::supervise::probe;

/// As many of the last checks are remembered.
const REMEMBERED: usize = 5;

/// The flags of day 14 about a container's health.
#[derive(Debug, clap::Args)]
pub struct HealthFlags {
    /// A line for the container's shell: exit code 0 means that the container is well
    #[arg(long, value_name = "LINE")]
    health_cmd: Option<String>,

    /// From one check to the next (without it: 30s)
    #[arg(long, value_name = "TIME", value_parser = time)]
    health_interval: Option<i64>,

    /// How long a check may take (without it: 30s)
    #[arg(long, value_name = "TIME", value_parser = time)]
    health_timeout: Option<i64>,

    /// How many checks must fail, one after the other, until it is unhealthy (without it: 3)
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i64).range(1..))]
    health_retries: Option<i64>,

    /// How long it may take to begin: until then a check that fails does not count
    #[arg(long, value_name = "TIME", value_parser = time)]
    health_start_period: Option<i64>,

    /// From one check to the next while it begins (without it: 5s)
    #[arg(long, value_name = "TIME", value_parser = time)]
    health_start_interval: Option<i64>,

    /// Check nothing, whatever the image says
    #[arg(long)]
    no_healthcheck: bool,

    #[arg(skip)]
    watch: Option<Watch>,
}

/// A time as Go and Docker write it, in nanoseconds: `30s`, `1m30s`, `500ms`.
fn time(text: &str) -> std::result::Result<i64, String> {
    let parsed = text.parse::<SignedDuration>().ok().and_then(|time| i64::try_from(time.as_nanos()).ok());
    match parsed {
        Some(time) if time >= 1_000_000 || time == 0 => Ok(time),
        Some(_) => Err("expected at least 1ms".into()),
        None => Err("expected a time, such as 30s, 500ms or 1m30s".into()),
    }
}

impl HealthFlags {
    fn says_anything(&self) -> bool {
        self.no_healthcheck || self.health_cmd.is_some() || self.numbers().iter().any(Option::is_some)
    }

    /// In the order of a check's fields.
    fn numbers(&self) -> [Option<i64>; 5] {
        [
            self.health_interval,
            self.health_timeout,
            self.health_start_period,
            self.health_start_interval,
            self.health_retries,
        ]
    }

    // ANCHOR: check
    /// The check that is asked for: what the flags do not say, the `image` does. `None`: none.
    fn check(&self, image: Option<HealthCheck>) -> Result<Option<HealthCheck>> {
        // ANCHOR: day14_task3_check_solution
        let any = self.health_cmd.is_some() || self.numbers().iter().any(Option::is_some);
        if self.no_healthcheck && any {
            bail!("--no-healthcheck conflicts with --health-* options; omit one of them");
        }
        let mut check = image.filter(|_| !self.no_healthcheck).unwrap_or_default();
        if let Some(line) = &self.health_cmd {
            check.test = vec!["CMD-SHELL".into(), line.clone()];
        }
        let fields = [
            &mut check.interval,
            &mut check.timeout,
            &mut check.start_period,
            &mut check.start_interval,
            &mut check.retries,
        ];
        for (field, number) in fields.into_iter().zip(self.numbers()) {
            *field = number.unwrap_or(*field);
        }
        match check.test.first().map(String::as_str) {
            None | Some("NONE" | "") if any => {
                bail!("--health-*: there is nothing to check with; add --health-cmd, such as 'pidof nginx'")
            }
            None | Some("NONE" | "") => Ok(None),
            Some(_) => Ok(Some(check)),
        }
        // ANCHOR_END: day14_task3_check_solution
    }
    // ANCHOR_END: check
}

// ANCHOR: mechanism
impl Mechanism for HealthFlags {
    fn prepare(&mut self, container: &mut Container) -> Result<()> {
        let image = container.parts.defaults.health.take();
        // One that is started once more is checked as it was: then neither says anything.
        if image.is_some() || self.says_anything() {
            container.plan.health = self.check(image)?;
        }
        Ok(())
    }

    fn started(&mut self, container: &mut Container, _child: Pid) -> Result<()> {
        let (Some(check), Some(dir)) = (&container.plan.health, &container.parts.dir) else { return Ok(()) };
        self.watch = Some(Watch::begin(check.clone(), dir.clone())?);
        Ok(())
    }

    fn cleanup(&mut self, _container: &mut Container) -> Result<()> {
        self.watch.take().map_or(Ok(()), Watch::end)
    }
}
// ANCHOR_END: mechanism

/// Somebody who checks a container, for as long as it runs.
#[derive(Debug)]
struct Watch {
    thread: JoinHandle<Result<()>>,
    /// Its closing is the end.
    stop: OwnedFd,
}

impl Watch {
    fn begin(check: HealthCheck, dir: PathBuf) -> Result<Watch> {
        let (stopped, stop) = pipe2(OFlag::O_CLOEXEC).context("make a pipe")?;
        // By now: whoever sees the container run sees that it is checked.
        let health = Health::unknown();
        health.write(&dir).with_context(|| format!("write in {dir:?}"))?;
        let thread = thread::Builder::new().spawn(move || watch(&check, &dir, health, &stopped));
        Ok(Watch { thread: thread.context("start a thread")?, stop })
    }

    fn end(self) -> Result<()> {
        drop(self.stop);
        self.thread.join().unwrap_or_else(|_| bail!("the thread that checks the container panicked"))
    }
}

/// Checks again and again, until `stopped` is closed.
fn watch(check: &HealthCheck, dir: &std::path::Path, mut health: Health, stopped: &OwnedFd) -> Result<()> {
    let since = Instant::now();
    loop {
        let begins = since.elapsed() < or(check.start_period, Duration::ZERO);
        let pause = if begins && health.status == HealthStatus::Starting {
            or(check.start_interval, Duration::from_secs(5))
        } else {
            or(check.interval, Duration::from_secs(30))
        };
        let [stop] = poll_some([Some((stopped.as_fd(), PollFlags::POLLIN))], Some(pause))?;
        if !stop.is_empty() {
            return Ok(());
        }
        // It could not answer, and that is not its fault.
        if is_paused(dir) {
            continue;
        }
        let begins = since.elapsed() < or(check.start_period, Duration::ZERO);
        let timeout = or(check.timeout, Duration::from_secs(30));
        let Some(result) = probe::check(dir, &check.test, timeout, stopped) else { return Ok(()) };
        health = after(health, result, begins, u32::try_from(check.retries).unwrap_or(0));
        // On a disk that is full the last one stays.
        let _ = health.write(dir);
    }
}

/// So many nanoseconds; 0: `default`.
fn or(nanoseconds: i64, default: Duration) -> Duration {
    match u64::try_from(nanoseconds) {
        Ok(0) | Err(_) => default,
        Ok(nanoseconds) => Duration::from_nanos(nanoseconds),
    }
}

// ANCHOR: after
/// How the container is after a check with this `result`. `begins`: in its start period.
/// `retries`: how many must fail; 0: three.
fn after(mut health: Health, result: Check, begins: bool, retries: u32) -> Health {
    // ANCHOR: day14_task3_after_solution
    let retries = if retries == 0 { 3 } else { retries };
    if result.exit_code == 0 {
        (health.status, health.failing_streak) = (HealthStatus::Healthy, 0);
    } else if !(begins && health.status == HealthStatus::Starting) {
        health.failing_streak += 1;
        if health.failing_streak >= retries {
            health.status = HealthStatus::Unhealthy;
        }
    }
    health.log.push(result);
    let too_many = health.log.len().saturating_sub(REMEMBERED);
    health.log.drain(..too_many);
    health
    // ANCHOR_END: day14_task3_after_solution
}
// ANCHOR_END: after

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    fn statuses(results: &[(i32, bool)], retries: u32) -> Vec<HealthStatus> {
        let (start, end) = (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH);
        let mut health = Health::unknown();
        let mut statuses = vec![];
        for (exit_code, begins) in results {
            let check = Check { start, end, exit_code: *exit_code, output: String::new() };
            health = after(health, check, *begins, retries);
            statuses.push(health.status);
        }
        assert!(health.log.len() <= REMEMBERED, "{} checks are remembered", health.log.len());
        statuses
    }

    #[test]
    fn a_container_is_unhealthy_after_as_many_failures_as_are_allowed() {
        use HealthStatus::*;
        let failed = (1, false);
        let ok = (0, false);
        assert_eq!(
            statuses(&[failed, failed, failed], 0),
            [Starting, Starting, Unhealthy],
            "three, unless said"
        );
        assert_eq!(statuses(&[ok, failed, ok, failed, failed], 2)[3..], [Healthy, Unhealthy], "in a row");
        assert_eq!(statuses(&[failed, failed, ok], 1), [Unhealthy, Unhealthy, Healthy], "it is well again");
        // While it begins, one that fails does not count; one that is well ends that.
        assert_eq!(
            statuses(&[(1, true), (1, true), failed], 1),
            [Starting, Starting, Unhealthy],
            "it begins"
        );
        assert_eq!(statuses(&[(0, true), (1, true)], 1), [Healthy, Unhealthy], "it has begun");
    }
}
