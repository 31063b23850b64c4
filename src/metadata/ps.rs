//! Day 4: `ps`, `inspect` and `rm`.

use std::fmt::Write as _;
use std::thread::sleep;
use std::time::Instant;

use anyhow::bail;
use jiff::Timestamp;

use crate::error::{self, COMMAND_FAILED, Result};
use crate::metadata::at_once::for_each_at_once;
use crate::metadata::by_person;
use crate::metadata::ending::must_end;
use crate::metadata::output::{Format, columns, print};
use crate::metadata::ports;
use crate::metadata::record::{Record, Status};
use crate::metadata::shown::Shown;
use crate::metadata::state::State;
use crate::metadata::traces::kill_all;
use crate::wait::{A_MOMENT, PATIENCE};

const DAY: u8 = 4;

/// List containers
#[derive(Debug, clap::Args)]
pub struct Ps {
    #[command(flatten)]
    state: State,

    /// Show all of them, not only those that run
    #[arg(short, long)]
    all: bool,

    /// Print the ids, and nothing else
    #[arg(short, long)]
    quiet: bool,

    /// Print commands in full
    #[arg(long)]
    no_trunc: bool,

    /// How to print them; json: one line for each, with what inspect shows
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// Show everything that is remembered about containers, as a JSON array
#[derive(Debug, clap::Args)]
pub struct Inspect {
    #[command(flatten)]
    state: State,

    /// Their ids or names
    #[arg(required = true)]
    containers: Vec<String>,
}

/// Remove containers, and everything that is remembered about them
#[derive(Debug, clap::Args)]
pub struct Rm {
    #[command(flatten)]
    state: State,

    /// Kill those that run
    #[arg(short, long)]
    force: bool,

    /// Their ids or names
    #[arg(required = true)]
    containers: Vec<String>,
}

impl Ps {
    /// Prints the table, or what else the flags ask for. Returns the exit code: 1 if what it
    /// prints lacks something.
    pub fn execute(self) -> Result<u8> {
        self.state.sweep();
        let listing = match self.state.list() {
            Ok(listing) => listing,
            Err(error) => {
                error::print(&error);
                return Ok(COMMAND_FAILED);
            }
        };
        for complaint in &listing.complaints {
            error::say(complaint);
        }
        let (mut records, code) = self.settled(listing.records);
        let runs = |record: &Record| matches!(record.status, Status::Running | Status::Restarting);
        records.retain(|record| self.all || runs(record));
        print(&self.text(&records)?)?;
        Ok(code)
    }

    /// These records as they are in truth, and the exit code. What cannot be told of one is
    /// said, and the rest of it is shown.
    fn settled(&self, records: Vec<Record>) -> (Vec<Record>, u8) {
        let (mut settled, mut code) = (Vec::with_capacity(records.len()), 0);
        for record in records {
            if let Some(why) = &record.unreadable {
                error::say(format_args!("{}: {why}", self.state.dir(&record.id).display()));
                code = COMMAND_FAILED;
            }
            // Nothing is to be looked at, nor copied, of those that have ended: most of them.
            if record.status == Status::Exited {
                settled.push(record);
                continue;
            }
            match self.state.settle(record.clone()) {
                Ok(mut record) => {
                    self.state.look_closer(&mut record);
                    settled.push(record);
                }
                // Removed by somebody since it was listed, or forgotten.
                Err(_) if !self.state.is_there(&record.id) => {}
                Err(error) => {
                    error::print(&error.context(format!("container {}", record.id)));
                    code = COMMAND_FAILED;
                    settled.push(record);
                }
            }
        }
        (settled, code)
    }

    fn text(&self, records: &[Record]) -> Result<String> {
        let mut text = String::new();
        match self.format {
            _ if self.quiet => records.iter().for_each(|record| text += &format!("{}\n", record.id)),
            Format::Table => text = table(records, self.no_trunc),
            Format::Json => {
                for record in records {
                    writeln!(text, "{}", serde_json::to_string(&Shown::from(record))?)?;
                }
            }
        }
        Ok(text)
    }
}

impl Inspect {
    /// Prints the array. Returns the exit code: 1 if one of them is unknown.
    pub fn execute(self) -> Result<u8> {
        let mut records = Vec::new();
        let code = error::for_each(&self.containers, |word| {
            let found = self.state.find(word)?;
            let (record, error) = match self.state.settle(found.clone()) {
                Err(error) if !self.state.is_there(&found.id) => return Err(error),
                // Shown all the same.
                Err(error) => (found, Some(error)),
                Ok(mut record) => {
                    self.state.look_closer(&mut record);
                    (record, None)
                }
            };
            let why = record.unreadable.clone();
            records.push(record);
            match (error, why) {
                (Some(error), _) => Err(error),
                (None, Some(why)) => bail!("container {word}: {why}"),
                (None, None) => Ok(()),
            }
        });
        // "None of them is there" is said only by somebody who could look.
        if records.is_empty() && self.state.list().is_err() {
            return Ok(code);
        }
        let shown: Vec<Shown> = records.iter().map(Shown::from).collect();
        print(&(serde_json::to_string_pretty(&shown)? + "\n"))?;
        Ok(code)
    }
}

impl Rm {
    /// The state directory.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The containers that it is about: those that there are.
    pub fn records(&self) -> Vec<Record> {
        self.containers.iter().filter_map(|word| self.state.find(word).ok()).collect()
    }

    /// Prints what it removed. Returns the exit code: 1 if one could not be.
    pub fn execute(self) -> Result<u8> {
        self.state.sweep();
        Ok(for_each_at_once(&self.containers, |word| self.remove(word).map(|()| format!("{word}\n"))))
    }

    fn remove(&self, word: &str) -> Result<()> {
        let record = self.state.find(word)?;
        let id = &record.id;
        if let Some(why) = record.unreadable.as_ref().filter(|_| !self.force) {
            bail!("container {word} cannot be read; tiny-docker rm -f {word} removes it all the same: {why}");
        }
        if self.force {
            by_person::note(&self.state, &record, "rm", libc::SIGKILL)?;
        }
        match self.remove_container(id) {
            // Somebody else was faster: another rm, or `run --rm`.
            Err(_) if !self.state.is_there(id) => Ok(()),
            outcome => outcome,
        }
    }

    // ANCHOR: rm
    fn remove_container(&self, id: &str) -> Result<()> {
        // ANCHOR: day4_task4_remove_container_solution
        let mut since = Instant::now();
        loop {
            let record = self.state.read(id)?;
            let title = record.title();
            match record.process()? {
                Some(process) if self.force => {
                    kill_all(DAY, &self.state.dir(id), &process)?;
                    must_end(title, &process)?;
                    since = Instant::now();
                }
                Some(_) => bail!(
                    "container {title} is running; stop it first, or have it killed: tiny-docker rm -f {title}"
                ),
                None => {
                    if let Some(owner) = self.state.try_own(id)? {
                        return owner.remove();
                    }
                    record.is_visible()?;
                    match record.status {
                        // Something holds up its `run`, before the start or after the end.
                        _ if self.force && since.elapsed() > PATIENCE => {
                            return self.state.take_over(&record)?.remove();
                        }
                        _ if self.force => sleep(A_MOMENT),
                        Status::Restarting => bail!(
                            "container {title} is about to be started again; stop it first, or: tiny-docker rm -f {title}"
                        ),
                        // (Whoever has only made one lets go of it at once.)
                        Status::Created if !record.is_only_made() => bail!(
                            "container {title} is about to start; try again, or: tiny-docker rm -f {title}"
                        ),
                        // Not before its owner has seen the end, and let go.
                        _ => return self.state.own(id)?.remove(),
                    }
                }
            }
        }
        // ANCHOR_END: day4_task4_remove_container_solution
    }
    // ANCHOR_END: rm
}

fn table(records: &[Record], no_trunc: bool) -> String {
    let mut head = vec!["CONTAINER ID", "NAME", "PID", "STATUS", "CREATED", "COMMAND"];
    let now = Timestamp::now();
    let mut rows: Vec<Vec<String>> = records
        .iter()
        .map(|record| {
            vec![
                record.id.clone(),
                record.name.clone().unwrap_or_default(),
                record.pid.map(|pid| pid.to_string()).unwrap_or_default(),
                if unknown(record) { "Unreadable".into() } else { status(record, now) + more(record) },
                format!("{} ago", since(record.created_at, now)),
                command(record, no_trunc),
            ]
        })
        .collect();
    // From day 9 on there are some that have one.
    if records.iter().any(|record| record.address.is_some()) {
        head.insert(5, "ADDRESS");
        for (row, record) in rows.iter_mut().zip(records) {
            row.insert(5, record.address.map(|address| address.to_string()).unwrap_or_default());
        }
    }
    // From day 13 on some have them.
    if records.iter().any(|record| !record.ports.is_empty()) {
        let command = head.len() - 1;
        head.insert(command, "PORTS");
        for (row, record) in rows.iter_mut().zip(records) {
            row.insert(command, ports::column(&record.ports));
        }
    }
    // From day 12 on some have one.
    if records.iter().any(|record| record.plan.image.is_some()) {
        head.insert(1, "IMAGE");
        for (row, record) in rows.iter_mut().zip(records) {
            let name = record.plan.image.as_ref().map(|image| image.name.clone());
            row.insert(1, name.unwrap_or_default());
        }
    }
    columns(&head, &rows)
}

/// Is it unknown what the container does?
fn unknown(record: &Record) -> bool {
    record.unreadable.is_some() && record.status != Status::Running
}

// ANCHOR: status
/// The status in Docker's words.
fn status(record: &Record, now: Timestamp) -> String {
    // ANCHOR: day4_task2_status_solution
    let code = record.exit_code.map_or("unknown".to_string(), |code| code.to_string());
    match (record.status, record.finished_at) {
        (Status::Created, _) => "Created".into(),
        (Status::Running, _) => {
            format!("Up {}", since(record.started_at.unwrap_or(record.created_at), now))
        }
        (Status::Exited, Some(at)) => format!("Exited ({code}) {} ago", since(at, now)),
        (Status::Restarting, at) => {
            format!("Restarting ({code}) {} ago", since(at.unwrap_or(record.created_at), now))
        }
        (Status::Exited, None) => format!("Exited ({code})"),
    }
    // ANCHOR_END: day4_task2_status_solution
}
// ANCHOR_END: status

/// What there is to say of one that runs, besides.
fn more(record: &Record) -> &'static str {
    match &record.health {
        _ if record.paused => " (Paused)",
        Some(health) => health.status.in_words(),
        None => "",
    }
}

/// The time from `then` to `now` as Docker says it: one unit, rounded down.
pub fn since(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs().max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match () {
        () if seconds < 1 => "Less than a second".into(),
        () if seconds < 2 => "1 second".into(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes < 2 => "About a minute".into(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours < 2 => "About an hour".into(),
        () if hours < 48 => format!("{hours} hours"),
        () if days < 14 => format!("{days} days"),
        () if days < 60 => format!("{} weeks", days / 7),
        () if days < 730 => format!("{} months", days / 30),
        () => format!("{} years", days / 365),
    }
}

/// The command in quotes, on one line whatever is in it; its first 20
/// characters, unless `no_trunc`.
fn command(record: &Record, no_trunc: bool) -> String {
    let text = record.command().join(" ");
    let short: String = text.chars().take(19).collect();
    if no_trunc || text.chars().count() <= 20 { format!("{text:?}") } else { format!("{:?}", short + "…") }
}

#[cfg(test)]
mod tests {
    use super::since;
    use jiff::Timestamp;

    #[test]
    fn times_are_said_as_docker_says_them() {
        let then = Timestamp::UNIX_EPOCH;
        for (seconds, expected) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (180, "3 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (86400 * 3, "3 days"),
            (86400 * 21, "3 weeks"),
            (86400 * 90, "3 months"),
            (86400 * 800, "2 years"),
        ] {
            let now = Timestamp::from_second(seconds).unwrap();
            assert_eq!(since(then, now), expected);
        }
        // A clock that was set back.
        assert_eq!(since(Timestamp::from_second(9).unwrap(), then), "Less than a second");
    }
}
