//! Day 14: what /proc says of one process, in the columns that `ps -f` has. (proc_pid_stat(5))
//!
//! A process chooses its own words. They are shown as text, whatever bytes they are, and nothing
//! in them reaches the terminal as a command to it.

use anyhow::Context;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use nix::unistd::{Uid, User};

use crate::error::Result;
use crate::files;

/// The columns of [`Facts::row`].
pub const HEAD: [&str; 8] = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"];

/// In which /proc counts time, to the second. (sysconf(3), _SC_CLK_TCK: 100 on every machine that
/// this program is for)
const TICKS: u64 = 100;

/// One process.
#[derive(Debug)]
pub struct Facts {
    pid: i32,
    /// Its parent's number; 0: it has none that is seen from here.
    pub parent: i32,
    uid: Option<u32>,
    terminal: u32,
    /// Processor time, in ticks.
    used: u64,
    /// When it started, in ticks since the boot.
    started: u64,
    command: String,
}

/// What time it is.
#[derive(Debug)]
pub struct Clock {
    now: Timestamp,
    /// Ticks since the boot.
    up: u64,
}

impl Clock {
    /// At this moment. (proc_uptime(5))
    pub fn read() -> Result<Clock> {
        let text = files::read("/proc/uptime").context("read /proc/uptime")?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let seconds = text.split(' ').next().and_then(|number| number.parse::<f64>().ok());
        let up = (seconds.context("/proc/uptime has no number")? * TICKS as f64) as u64;
        Ok(Clock { now: Timestamp::now(), up })
    }
}

impl Facts {
    /// What is known of the process `pid`; `None`: it has ended.
    pub fn of(pid: i32) -> Option<Facts> {
        let stat = files::read(format!("/proc/{pid}/stat")).ok()?;
        // The second field is its name in parentheses, and may itself have some.
        let (begins, ends) =
            (stat.iter().position(|byte| *byte == b'(')?, stat.iter().rposition(|byte| *byte == b')')?);
        let rest = String::from_utf8_lossy(&stat[ends + 1..]).into_owned();
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<u64>().ok());
        let is_dead = matches!(fields.first(), Some(&"Z" | &"X"));
        Some(Facts {
            pid,
            parent: field(4)? as i32,
            uid: uid_of(pid),
            terminal: field(7)? as u32,
            used: field(14)? + field(15)?,
            started: field(22)?,
            command: command(pid, stat.get(begins + 1..ends)?, is_dead),
        })
    }

    /// Its line of the table.
    pub fn row(&self, clock: &Clock) -> Vec<String> {
        let lived = clock.up.saturating_sub(self.started).max(1);
        vec![
            self.uid.map(user_name).unwrap_or("?".into()),
            self.pid.to_string(),
            self.parent.to_string(),
            (self.used * 100 / lived).min(99).to_string(),
            start(clock, lived),
            terminal(self.terminal),
            time(self.used / TICKS),
            self.command.clone(),
        ]
    }
}

/// Whose rights it has. (proc_pid_status(5), "Uid": the second is the effective one)
fn uid_of(pid: i32) -> Option<u32> {
    let status = files::read(format!("/proc/{pid}/status")).ok()?;
    let line = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"Uid:"))?;
    String::from_utf8_lossy(line).split_whitespace().nth(1)?.parse().ok()
}

fn user_name(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}

/// When it started: of today the time, else the day, or the year.
fn start(clock: &Clock, lived: u64) -> String {
    let zone = TimeZone::system();
    let ago = SignedDuration::from_millis((lived * 1000 / TICKS) as i64);
    let (now, then) = (clock.now, clock.now.checked_sub(ago).unwrap_or(clock.now));
    let (now, then) = (zone.to_datetime(now), zone.to_datetime(then));
    let format = match () {
        () if now.year() != then.year() => "%Y",
        () if now.date() != then.date() => "%b%d",
        () => "%H:%M",
    };
    then.strftime(format).to_string()
}

/// The name of the terminal with this device number. (proc_pid_stat(5), field 7)
fn terminal(number: u32) -> String {
    let (major, minor) = (number >> 8 & 0xfff, number & 0xff | number >> 12 & 0xfff00);
    match (major, minor) {
        (136..=143, _) => format!("pts/{}", (major - 136) * 256 + minor),
        (4, 0..=63) => format!("tty{minor}"),
        (5, 1) => "console".into(),
        _ => "?".into(),
    }
}

/// Processor time as ps says it: `[DD-]HH:MM:SS`.
fn time(seconds: u64) -> String {
    let days = match seconds / 86400 {
        0 => String::new(),
        days => format!("{days}-"),
    };
    format!("{days}{:02}:{:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
}

/// Its words; of one that has none, its name in brackets.
fn command(pid: i32, name: &[u8], is_dead: bool) -> String {
    let words = files::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<u8> = words.iter().map(|byte| if *byte == 0 { b' ' } else { *byte }).collect();
    let words = harmless(words.trim_ascii_end());
    match (words.is_empty(), is_dead) {
        (false, _) => words,
        (true, false) => format!("[{}]", harmless(name)),
        (true, true) => format!("[{}] <defunct>", harmless(name)),
    }
}

/// As text, and each character that is none to be shown as a question mark.
fn harmless(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::{harmless, terminal, time};

    #[test]
    fn a_process_is_shown_as_ps_shows_it() {
        for (seconds, text) in [(0, "00:00:00"), (3599, "00:59:59"), (90_061, "1-01:01:01")] {
            assert_eq!(time(seconds), text);
        }
        for (number, text) in
            [(0, "?"), (0x8800, "pts/0"), (0x8803, "pts/3"), (0x0401, "tty1"), (0x0501, "console")]
        {
            assert_eq!(terminal(number), text);
        }
        assert_eq!(harmless(b"sh -c \x1b[2J\n\xff"), "sh -c ?[2J?\u{fffd}");
    }
}
