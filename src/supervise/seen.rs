//! Day 14: what one look at a container tells, and what must have happened between two of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::json;

use crate::files;
use crate::metadata::health::HealthStatus;
use crate::metadata::record::{Record, Status};
use crate::metadata::state::State;
use crate::metadata::{by_person, traces};

/// A container, as it is at one moment.
#[derive(Debug, Clone)]
pub struct Seen {
    /// What is remembered of it.
    pub record: Record,
    /// How often the kernel has killed one of its processes for want of memory.
    oom_kills: u64,
    /// By which command a person has ended it, and with which signal.
    ended_by: Option<(String, i32)>,
}

/// Something that happened to a container.
#[derive(Debug)]
pub struct Event {
    /// When; or when it was seen.
    pub time: Timestamp,
    /// What, in Docker's words.
    pub action: String,
    /// To which one.
    pub id: String,
    /// What else is known of it.
    pub attributes: BTreeMap<String, String>,
}

impl Seen {
    /// The container `id` at this moment; `None`: there is none, or nobody can tell.
    pub fn now(state: &State, id: &str) -> Option<Seen> {
        let mut record = state.read(id).ok()?;
        state.look_closer(&mut record);
        let cgroup = traces::cgroup_of(&state.dir(id)).ok().flatten();
        let events =
            cgroup.and_then(|cgroup| files::read(cgroup.join("memory.events")).ok()).unwrap_or_default();
        let kills = String::from_utf8_lossy(&events)
            .lines()
            .find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok());
        let ended_by = by_person::by_what(&state.dir(id));
        Some(Seen { record, oom_kills: kills.unwrap_or(0), ended_by })
    }

    /// By which one run of it is told from the next; `None`: it does not run.
    fn life(&self) -> Option<(Option<i32>, Option<u64>)> {
        let record = &self.record;
        (record.status == Status::Running).then_some((record.pid, record.start_time))
    }

    /// How it is; `None`: nobody checks it, or nobody knows yet.
    fn health(&self) -> Option<&'static str> {
        match self.record.health.as_ref()?.status {
            HealthStatus::Starting => None,
            HealthStatus::Healthy => Some("healthy"),
            HealthStatus::Unhealthy => Some("unhealthy"),
        }
    }

    /// When its last life began.
    fn began(&self) -> Option<Timestamp> {
        let record = &self.record;
        (record.status != Status::Created).then(|| record.started_at.unwrap_or(record.created_at))
    }

    fn event(&self, action: &str, time: Timestamp) -> Event {
        let record = &self.record;
        let mut attributes = BTreeMap::new();
        attributes.extend(record.plan.labels.clone());
        attributes.extend(record.plan.image.as_ref().map(|image| ("image".into(), image.name.clone())));
        attributes.extend(record.name.clone().map(|name| ("name".into(), name)));
        Event { time, action: action.into(), id: record.id.clone(), attributes }
    }

    /// What its record says of its past: when it was made, was started the last time, and ended.
    pub fn past(&self) -> Vec<Event> {
        let record = &self.record;
        let mut past = vec![self.event("create", record.created_at)];
        past.extend(self.began().map(|time| self.event("start", time)));
        past.extend(record.finished_at.map(|time| self.died(time)));
        past
    }

    fn died(&self, time: Timestamp) -> Event {
        let code = self.record.exit_code.or(self.record.last_exit_code);
        let died = self.event("die", time);
        match code.filter(|_| self.record.status != Status::Created) {
            Some(code) => died.with("exitCode", code),
            None => died,
        }
    }
}

impl Event {
    fn with(mut self, name: &str, value: impl ToString) -> Event {
        self.attributes.insert(name.into(), value.to_string());
        self
    }

    /// As Docker prints it for people. What a name or a label contains stays on the line.
    pub fn line(&self) -> String {
        let mut text = format!("{:.9} container {} {}", self.time, self.action, self.id);
        let attributes: Vec<String> =
            self.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if !attributes.is_empty() {
            let _ = write!(text, " ({})", attributes.join(", "));
        }
        text.chars().map(|c| if c.is_control() { '?' } else { c }).chain(['\n']).collect()
    }

    /// As Docker prints it for programs. `status`, `id` and `from` say once more what is in `Action`
    /// and `Actor`: they were there before those, and programs read them.
    pub fn json(&self) -> String {
        let mut event = json!({
            "status": self.action,
            "id": self.id,
            "Type": "container",
            "Action": self.action,
            "Actor": { "ID": self.id, "Attributes": self.attributes },
            "scope": "local",
            "time": self.time.as_second(),
            "timeNano": self.time.as_nanosecond() as i64,
        });
        if let Some(image) = self.attributes.get("image") {
            event["from"] = json!(image);
        }
        format!("{event}\n")
    }
}

/// What happened to a container between two looks at it (`None`: it was not there), in order. What
/// happened and was undone in between, nobody can tell.
pub fn between(before: Option<&Seen>, now: Option<&Seen>) -> Vec<Event> {
    let time = Timestamp::now();
    match (before, now) {
        (None, None) => vec![],
        (Some(before), Some(now)) => changes(before, now, time),
        (None, Some(now)) => {
            let mut made = now.clone();
            (made.record.status, made.record.paused, made.record.health) = (Status::Created, false, None);
            (made.record.started_at, made.oom_kills, made.ended_by) = (None, 0, None);
            let mut events = vec![now.event("create", time)];
            events.extend(changes(&made, now, time));
            events
        }
        // With --rm its end is not written down any more.
        (Some(before), None) => {
            let died = before.life().map(|_| before.event("die", time));
            died.into_iter().chain([before.event("destroy", time)]).collect()
        }
    }
}

// ANCHOR: changes
/// The same of one that was there and is there: one life may have ended between the two looks, and
/// another begun; or a whole life lie between them.
fn changes(before: &Seen, now: &Seen, time: Timestamp) -> Vec<Event> {
    // ANCHOR: day14_task4_changes_solution
    let (lived, lives) = (before.life().is_some(), now.life().is_some());
    let same_life = lived && before.life() == now.life();
    let missed = !lived && !lives && before.began() != now.began();
    let ended = missed || (lived && !same_life);
    let mut events = Vec::new();
    let mut happened = |it_did: bool, event: Event| events.extend(it_did.then_some(event));

    let old_name = before.record.name.as_ref().unwrap_or(&before.record.id);
    happened(before.record.name != now.record.name, now.event("rename", time).with("oldName", old_name));
    happened(missed, now.event("start", time));
    let (command, signal) = now.ended_by.clone().unwrap_or_default();
    let was_told = now.ended_by.is_some() && before.ended_by.is_none() && (lived || missed);
    happened(was_told, now.event("kill", time).with("signal", signal));
    let by_the_end = ended && now.record.oom_killed == Some(true) && before.oom_kills == 0;
    happened(by_the_end || (same_life && now.oom_kills > before.oom_kills), now.event("oom", time));
    happened(ended, now.died(time));
    happened(ended && command == "stop", now.event("stop", time));
    happened(lives && !same_life, now.event("start", time));
    let was_paused = same_life && before.record.paused;
    happened(now.record.paused && !was_paused, now.event("pause", time));
    happened(was_paused && !now.record.paused, now.event("unpause", time));
    let health = now.health().filter(|new| Some(*new) != before.health().filter(|_| same_life));
    happened(health.is_some(), now.event(&format!("health_status: {}", health.unwrap_or_default()), time));
    events
    // ANCHOR_END: day14_task4_changes_solution
}
// ANCHOR_END: changes
