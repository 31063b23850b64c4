//! Day 4: the record of one container, and the evidence that it is still true.

use std::fs;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, bail};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::files;
use crate::metadata::health::Health;
use crate::metadata::pidfd::Process;
use crate::plan::{Plan, PublishedPort};
use crate::wait::signal_name;

/// Of the records that this program writes, and the newest that it reads.
pub const VERSION: u32 = 1;

// ANCHOR: record
/// What is remembered of a container. ([`Shown`](crate::metadata::shown::Shown) is what `inspect` shows of it.)
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// [`VERSION`], so that a later program can tell what it reads.
    pub version: u32,
    /// 12 hexadecimal digits.
    pub id: String,
    /// From `--name`.
    pub name: Option<String>,
    /// What it is to be: all that is needed to make it again. (Read by [`Record::parse`].)
    #[serde(flatten, skip_deserializing, default = "Plan::nothing")]
    pub plan: Plan,
    /// What it does.
    pub status: Status,
    /// When `run` began.
    pub created_at: Timestamp,
    /// When it was started, if it was made or had ended before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// While it runs: the process id of its command, on the host.
    pub pid: Option<i32>,
    /// When that process started: clock ticks after boot. (proc_pid_stat(5), field 22)
    pub start_time: Option<u64>,
    /// Of which boot. (random(4), boot_id)
    pub boot_id: Option<String>,
    /// In which pid namespace these numbers mean what they say: the inode of its
    /// /proc/PID/ns/pid. (pid_namespaces(7))
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid_namespace: Option<u64>,
    /// Who looks after it, until it has ended: its `run`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Identity>,
    /// What `run` exits with; `None` if nobody saw it end.
    pub exit_code: Option<u8>,
    /// How often its `run` has started it again. (day 14)
    #[serde(default, skip_serializing_if = "is_zero")]
    pub restarts: u32,
    /// If it has: what it exited with the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_exit_code: Option<u8>,
    /// The signal that killed it.
    pub signal: Option<String>,
    /// When it ended; if nobody saw that, when it was found.
    pub finished_at: Option<Timestamp>,
    /// While it runs: its address on the bridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
    /// While it runs: the host's ports that lead to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PublishedPort>,
    /// From day 7 on: whether the kernel killed any of it for want of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_killed: Option<bool>,
    /// Why it ended, in words, where the exit code does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether it is held up, as the kernel says: for whoever shows it. (day 14)
    #[serde(skip)]
    pub paused: bool,
    /// While it runs, and is checked: how it is. For whoever shows it. (day 14)
    #[serde(skip)]
    pub health: Option<Health>,
    /// Why it cannot be read, if it cannot; then the rest is what is known all the same.
    #[serde(skip)]
    pub unreadable: Option<String>,
}
// ANCHOR_END: record

/// A process, by the two signs that tell it from a later one of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// Its number on the host.
    pub pid: i32,
    /// When it started. (proc_pid_stat(5), field 22)
    pub start_time: u64,
}

impl Identity {
    /// This process's.
    pub fn of_this_process() -> Result<Identity> {
        let pid = std::process::id() as i32;
        Identity::of(pid)?.context("there is no /proc/self/stat")
    }

    /// Of the process that has the number `pid`; `None`: none has.
    pub fn of(pid: i32) -> Result<Option<Identity>> {
        Ok(start_time(pid)?.map(|start_time| Identity { pid, start_time }))
    }

    /// Is it this process? For one that has just been made by it, and nobody else.
    pub fn is_this_process(&self) -> bool {
        self.pid as u32 == std::process::id()
    }

    /// A handle on it, if it still runs.
    pub fn process(&self) -> Result<Option<Process>> {
        // First the handle, then the look at the start time: what the handle means can no
        // longer change in between.
        let Some(process) = Process::open(self.pid)? else { return Ok(None) };
        let same = start_time(self.pid)? == Some(self.start_time);
        Ok((same && !process.has_ended(Some(Duration::ZERO))?).then_some(process))
    }
}

/// What of a record is in its container's lock too: so much that the container can be
/// found, stopped and removed when its record cannot be read.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Brief {
    /// From `--name`.
    pub name: Option<String>,
    /// When `run` began.
    pub created_at: Timestamp,
    /// The process id of its command.
    pub pid: Option<i32>,
    /// When that process started.
    pub start_time: Option<u64>,
    /// Of which boot.
    pub boot_id: Option<String>,
    /// Where these numbers mean what they say.
    pub pid_namespace: Option<u64>,
    /// Who looks after it.
    pub owner: Option<Identity>,
}

/// What a container does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Its command has not started, and if its `run` was killed, never will.
    Created,
    /// Its command runs.
    Running,
    /// Its command has ended.
    Exited,
    /// Its command has ended, and its `run` is about to start it again. (day 14)
    Restarting,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Record {
    /// The record of a container that is about to be made. Its id is given by
    /// [`State::create`](crate::metadata::state::State::create).
    pub fn new(plan: Plan, name: Option<String>) -> Record {
        Record {
            version: VERSION,
            id: String::new(),
            name,
            plan,
            status: Status::Created,
            created_at: Timestamp::now(),
            started_at: None,
            pid: None,
            start_time: None,
            boot_id: None,
            pid_namespace: None,
            owner: None,
            exit_code: None,
            restarts: 0,
            last_exit_code: None,
            signal: None,
            finished_at: None,
            address: None,
            ports: vec![],
            oom_killed: None,
            reason: None,
            paused: false,
            health: None,
            unreadable: None,
        }
    }

    /// The record that is written in `text`. Its plan is read by itself: serde's `flatten` would
    /// first make a tree of all of it, and `ps` of a thousand containers take twice as long.
    pub fn parse(text: &[u8]) -> serde_json::Result<Record> {
        let plan = serde_json::from_slice(text)?;
        Ok(Record { plan, ..serde_json::from_slice(text)? })
    }

    /// What is known of the container `id` whose record cannot be read, and `why`.
    pub fn unreadable(id: String, brief: Brief, why: String) -> Record {
        Record {
            id,
            status: Status::Running,
            created_at: brief.created_at,
            pid: brief.pid,
            start_time: brief.start_time,
            boot_id: brief.boot_id,
            pid_namespace: brief.pid_namespace,
            owner: brief.owner,
            unreadable: Some(why),
            ..Record::new(Plan::nothing(), brief.name)
        }
    }

    /// What the container's lock says of it.
    pub fn brief(&self) -> Brief {
        Brief {
            name: self.name.clone(),
            created_at: self.created_at,
            pid: self.pid,
            start_time: self.start_time,
            boot_id: self.boot_id.clone(),
            pid_namespace: self.pid_namespace,
            owner: self.owner,
        }
    }

    // ANCHOR: started
    /// The command runs, as process `pid`.
    pub fn started(&mut self, pid: i32) -> Result<()> {
        // ANCHOR: day4_task1_started_solution
        self.status = Status::Running;
        self.pid = Some(pid);
        self.start_time = start_time(pid)?;
        self.boot_id = Some(boot_id()?.into());
        Ok(())
        // ANCHOR_END: day4_task1_started_solution
    }
    // ANCHOR_END: started

    // ANCHOR: ended
    /// The command ended with `status`, and `exit_code` is what `run` makes of it.
    pub fn ended(&mut self, status: ExitStatus, exit_code: u8) {
        // ANCHOR: day4_task1_ended_solution
        self.ended_unseen();
        self.exit_code = Some(exit_code);
        self.signal = status.signal().map(signal_name);
        // ANCHOR_END: day4_task1_ended_solution
    }
    // ANCHOR_END: ended

    /// The command has ended, and nobody can say how.
    pub fn ended_unseen(&mut self) {
        self.status = Status::Exited;
        self.finished_at = Some(Timestamp::now());
        (self.pid, self.start_time, self.boot_id, self.address) = (None, None, None, None);
        (self.pid_namespace, self.owner) = (None, None);
        self.ports = vec![];
    }

    /// Its `run` is about to start it again, once it has ended.
    pub fn will_restart(&mut self) -> Result<()> {
        self.status = Status::Restarting;
        self.restarts += 1;
        self.owned_by_this_process()
    }

    /// It is not started again after all: it has ended when and as it did.
    pub fn gave_up(&mut self) {
        self.status = Status::Exited;
        (self.pid_namespace, self.owner) = (None, None);
    }

    /// What others may have changed while it ran counts from here on: see
    /// [`State::change`](crate::metadata::state::State::change).
    pub fn take_changes_of(&mut self, other: Record) {
        self.name = other.name;
        (self.plan.restart, self.plan.limits) = (other.plan.restart, other.plan.limits);
    }

    /// It begins anew: what came of it before counts no more.
    pub fn begins_again(&mut self) {
        self.started_at = Some(Timestamp::now());
        self.last_exit_code = self.exit_code.filter(|_| self.restarts > 0);
        (self.exit_code, self.signal, self.finished_at) = (None, None, None);
        (self.oom_killed, self.reason) = (None, None);
    }

    /// It is made, and nobody looks after it: somebody will start it.
    pub fn is_only_made(&self) -> bool {
        self.status == Status::Created && self.owner.is_none() && self.unreadable.is_none()
    }

    /// From here on this process looks after the container.
    pub fn owned_by_this_process(&mut self) -> Result<()> {
        self.owner = Some(Identity::of_this_process()?);
        self.pid_namespace = Some(pid_namespace()?);
        Ok(())
    }

    /// Fails if its processes cannot be seen from here, whether they run or not: then "I see
    /// none" does not mean "there is none".
    pub fn is_visible(&self) -> Result<()> {
        match self.pid_namespace {
            Some(theirs) if theirs != pid_namespace()? => bail!(
                "container {} belongs to another pid namespace, and from here its process cannot be seen; \
                 use tiny-docker where it was started",
                self.title()
            ),
            _ => Ok(()),
        }
    }

    // ANCHOR: process
    /// The command's process, if it still runs, and if that number still means the
    /// process that the record means.
    ///
    /// A process id alone is no evidence: ids are used again, and after a boot
    /// they begin anew. First the handle, then the look at the start time: what
    /// the handle means can no longer change in between.
    pub fn process(&self) -> Result<Option<Process>> {
        // ANCHOR: day4_task3_process_solution
        let Some(pid) = self.pid.filter(|_| self.status == Status::Running) else { return Ok(None) };
        if self.boot_id.as_deref() != Some(boot_id()?) {
            return Ok(None);
        }
        let Some(process) = Process::open(pid)? else { return Ok(None) };
        let same = self.start_time.is_some() && start_time(pid)? == self.start_time;
        Ok((same && !process.has_ended(Some(Duration::ZERO))?).then_some(process))
        // ANCHOR_END: day4_task3_process_solution
    }
    // ANCHOR_END: process

    /// The words of its command, for people: bytes that are no UTF-8 as �.
    pub fn command(&self) -> Vec<String> {
        self.plan.command.iter().map(|word| word.to_string_lossy().into_owned()).collect()
    }

    /// For messages: the name if it has one, else the id.
    pub fn title(&self) -> &str {
        self.name.as_ref().unwrap_or(&self.id)
    }
}

// ANCHOR: start_time
/// Field 22 of /proc/PID/stat. `None` when there is no such process; any other error is one:
/// "I cannot tell" is not "it is gone".
fn start_time(pid: i32) -> Result<Option<u64>> {
    // ANCHOR: day4_task1_start_time_solution
    let file = format!("/proc/{pid}/stat");
    let stat = match files::read(&file) {
        // ESRCH: it has ended since the file was opened.
        Err(error) if error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH) => {
            return Ok(None);
        }
        stat => stat.with_context(|| format!("read {file}"))?,
    };
    // The second field is the program's name in parentheses. A program chooses
    // its name, and may call itself ") Z 1 1": count from the last parenthesis.
    let name_ends = stat.iter().rposition(|byte| *byte == b')').context("a name in parentheses")?;
    let rest = std::str::from_utf8(&stat[name_ends + 1..])?;
    let field =
        rest.split_ascii_whitespace().nth(22 - 3).with_context(|| format!("{file} has no field 22"))?;
    Ok(Some(field.parse().with_context(|| format!("field 22 of {file}"))?))
    // ANCHOR_END: day4_task1_start_time_solution
}
// ANCHOR_END: start_time

/// Another one after each boot. (random(4))
pub fn boot_id() -> Result<&'static str> {
    static BOOT_ID: OnceLock<String> = OnceLock::new();
    if let Some(id) = BOOT_ID.get() {
        return Ok(id);
    }
    let id = files::read("/proc/sys/kernel/random/boot_id").context("read the boot id")?;
    Ok(BOOT_ID.get_or_init(|| String::from_utf8_lossy(&id).trim().to_string()))
}

/// The pid namespace in which this process, and so this command, sees others.
fn pid_namespace() -> Result<u64> {
    let file = "/proc/self/ns/pid";
    Ok(fs::metadata(file).with_context(|| format!("look at {file}"))?.ino())
}
