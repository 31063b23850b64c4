//! Day 14: `events`: what happens to containers, as it happens. Nobody sends it: whoever wants to
//! know watches the state directory, and nobody else has anything to do for that.
//!
//! The kernel tells that something has changed, and not what: so each container that has changed is
//! looked at, and compared with how it was before ([`seen`](super::seen)). It tells of
//!
//! - the directories of the containers, which come and go by `rename`, and in each the record, and how it is;
//! - the files `cgroup.events` and `memory.events` of each one's cgroup: paused, out of memory;
//! - the end of each one's process. Where its `run` was killed too, nobody else writes that down.
//!
//! So a watcher sees what was done by whomever, and by hand too. It does not see what was undone
//! before it looked: a `pause` and an `unpause` within milliseconds; which code one had that went
//! with `--rm`; a signal that does not end a container. And of what was before it, it knows what
//! the records still say. (inotify(7); kernel: admin-guide/cgroup-v2)

use std::collections::{BTreeMap, BTreeSet};
use std::io::stdout;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use jiff::Timestamp;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

use crate::error::{Result, failed};
use crate::explain::step;
use crate::logs::since::since;
use crate::metadata::layout::{RECORD, is_id, make_private};
use crate::metadata::output::{Format, show};
use crate::metadata::pidfd::Process;
use crate::metadata::record::Status;
use crate::metadata::state::State;
use crate::metadata::{by_person, health, traces};
use crate::wait::A_MOMENT;

use super::DAY;
use super::filter::Filter;
use super::seen::{Event, Seen, between};

/// Show what happens to containers, until Ctrl-C
#[derive(Debug, clap::Args)]
pub struct Events {
    #[command(flatten)]
    state: State,

    /// Also what has happened since then, as far as the records still say it
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Timestamp>,

    /// End then
    #[arg(long, value_name = "TIME", value_parser = since)]
    until: Option<Timestamp>,

    /// Only what matches: container=NAME, event=die, image=NAME; several times: any of one kind
    #[arg(short, long = "filter", value_name = "KEY=VALUE")]
    filters: Vec<Filter>,

    /// How to print them; json: one line for each
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// Whoever watches: what was seen the last time, and who tells of changes.
struct Watcher {
    state: State,
    changes: Inotify,
    /// Of the directory of all containers.
    containers: WatchDescriptor,
    /// Which container each other one is about.
    watched: BTreeMap<WatchDescriptor, String>,
    seen: BTreeMap<String, Seen>,
    /// Those that run.
    processes: BTreeMap<String, Process>,
    /// Those whose process has ended, as long as nobody has written that down.
    ended: BTreeSet<String>,
    /// How long until those are looked at again.
    pause: Duration,
}

impl Events {
    /// Prints them. Returns the exit code.
    pub fn execute(self) -> Result<u8> {
        self.watch().map_err(failed).map(|()| 0)
    }

    fn watch(&self) -> Result<()> {
        let mut watcher = Watcher::new(&self.state)?;
        let mut past = match self.since {
            Some(since) => {
                watcher.seen.values().flat_map(Seen::past).filter(|event| event.time >= since).collect()
            }
            None => vec![],
        };
        past.retain(|event: &Event| self.until.is_none_or(|until| event.time <= until));
        past.sort_by_key(|event| event.time);
        let mut is_read = self.print(&past)?;
        while is_read {
            let left = self.until.map(|until| until.duration_since(Timestamp::now()));
            if left.is_some_and(|left| !left.is_positive()) {
                return Ok(());
            }
            let left = left.map(|left| left.unsigned_abs());
            let Some(changed) = watcher.wait(left)? else { return Ok(()) };
            for id in changed {
                is_read &= self.print(&watcher.look(&id)?)?;
            }
        }
        Ok(())
    }

    /// Returns whether anybody reads it.
    fn print(&self, events: &[Event]) -> Result<bool> {
        let mut text = String::new();
        for event in events.iter().filter(|event| Filter::all_match(&self.filters, event)) {
            text += &if self.format == Format::Json { event.json() } else { event.line() };
        }
        if text.is_empty() { Ok(true) } else { show(&text) }
    }
}

impl Watcher {
    /// Begins to watch, and looks at all that there is: in this order, so nothing is missed.
    fn new(state: &State) -> Result<Watcher> {
        let place = state.path().join("containers");
        make_private(&place)?;
        let changes =
            Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).context("inotify_init")?;
        let flags = AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_MOVED_FROM | AddWatchFlags::IN_ONLYDIR;
        let describe =
            || (format!("inotify_add_watch({place:?})"), format!("inotifywait -m {}", place.display()));
        let containers = step(DAY, describe, || changes.add_watch(&place, flags))?;
        let mut watcher = Watcher {
            state: state.clone(),
            changes,
            containers,
            watched: BTreeMap::new(),
            seen: BTreeMap::new(),
            processes: BTreeMap::new(),
            ended: BTreeSet::new(),
            pause: A_MOMENT,
        };
        for id in watcher.all()? {
            watcher.look(&id)?;
        }
        Ok(watcher)
    }

    /// The ids of all containers, those that were seen and are gone among them.
    fn all(&self) -> Result<BTreeSet<String>> {
        let there = self.state.list()?.records.into_iter().map(|record| record.id);
        Ok(there.chain(self.seen.keys().cloned()).collect())
    }

    // ANCHOR: look
    /// Looks at the container `id`. Returns what has happened to it since the last time.
    ///
    /// What is looked at is watched before: a change comes before the look, and is seen, or after
    /// it, and is told.
    fn look(&mut self, id: &str) -> Result<Vec<Event>> {
        // ANCHOR: day14_task4_look_solution
        let dir = self.state.dir(id);
        self.add(&dir, AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_CLOSE_WRITE, id)?;
        if let Ok(Some(cgroup)) = traces::cgroup_of(&dir) {
            for file in ["cgroup.events", "memory.events"] {
                self.add(&cgroup.join(file), AddWatchFlags::IN_MODIFY, id)?;
            }
        }
        let now = Seen::now(&self.state, id);
        let process = now.as_ref().and_then(|now| now.record.process().ok().flatten());
        let runs = now.as_ref().is_some_and(|now| now.record.status == Status::Running);
        match process {
            Some(process) => drop(self.processes.insert(id.into(), process)),
            None => drop(self.processes.remove(id)),
        }
        // It ran, says its record, and has ended: that is to be written down.
        if runs && !self.processes.contains_key(id) && self.ended.insert(id.into()) {
            self.pause = A_MOMENT;
        }
        let events = between(self.seen.get(id), now.as_ref());
        match now {
            Some(now) => drop(self.seen.insert(id.into(), now)),
            None => drop(self.seen.remove(id)),
        }
        Ok(events)
        // ANCHOR_END: day14_task4_look_solution
    }
    // ANCHOR_END: look

    /// What is not there need not be watched: the look will tell.
    fn add(&mut self, path: &Path, flags: AddWatchFlags, id: &str) -> Result<()> {
        match self.changes.add_watch(path, flags) {
            Ok(watch) => drop(self.watched.insert(watch, id.into())),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ENODEV) => {}
            Err(Errno::ENOSPC) => bail!(
                "watch {path:?}: as many things are watched as one user may; allow more: \
                 sysctl fs.inotify.max_user_watches=1000000"
            ),
            Err(error) => return Err(error).with_context(|| format!("watch {path:?}")),
        }
        Ok(())
    }

    /// Waits until something changes. Returns which containers are to be looked at, in order;
    /// `None`: nobody reads any more, or the time is over.
    fn wait(&mut self, patience: Option<Duration>) -> Result<Option<Vec<String>>> {
        let until = patience.and_then(|patience| Instant::now().checked_add(patience));
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let again = (!self.ended.is_empty()).then_some(self.pause);
            let timeout = [left, again].into_iter().flatten().min();
            let timeout =
                timeout.map_or(PollTimeout::NONE, |time| time.try_into().unwrap_or(PollTimeout::MAX));
            let out = stdout();
            let mut fds = vec![
                PollFd::new(self.changes.as_fd(), PollFlags::POLLIN),
                PollFd::new(out.as_fd(), PollFlags::empty()),
            ];
            fds.extend(
                self.processes.values().map(|process| PollFd::new(process.as_fd(), PollFlags::POLLIN)),
            );
            match poll(&mut fds, timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("wait for changes"),
            }
            let is_ready = |fd: &PollFd| fd.revents().is_some_and(|what| !what.is_empty());
            let (is_closed, ready): (bool, Vec<bool>) =
                (is_ready(&fds[1]), fds[2..].iter().map(is_ready).collect());
            drop(fds);
            if is_closed {
                return Ok(None);
            }
            let changed = self.changed(&ready)?;
            if !changed.is_empty() {
                return Ok(Some(changed));
            }
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
        }
    }

    /// Sees to it that the end of those which have ended is written down. Mostly their `run` does
    /// that; but it may have been killed with them, and may not be gone yet.
    fn settle(&mut self) {
        let (state, seen) = (&self.state, &self.seen);
        self.ended.retain(|id| {
            let Ok(record) = state.read(id) else { return false };
            let is_same = seen.get(id).is_some_and(|seen| seen.record.start_time == record.start_time);
            let settled = if is_same { state.settle(record).ok() } else { None };
            settled.is_some_and(|record| record.status == Status::Running)
        });
        self.pause = (self.pause * 2).min(Duration::from_secs(1));
    }

    /// Which containers are to be looked at: those that the kernel tells of, and of the processes
    /// those that are `ready`, which is to have ended.
    fn changed(&mut self, ready: &[bool]) -> Result<Vec<String>> {
        let mut changed = Vec::new();
        let ended =
            self.processes.keys().zip(ready).filter(|(_, is_ready)| **is_ready).map(|(id, _)| id.clone());
        for id in ended.collect::<Vec<_>>() {
            self.processes.remove(&id);
            self.ended.insert(id);
            self.pause = A_MOMENT;
        }
        self.settle();
        let told = match self.changes.read_events() {
            Err(Errno::EAGAIN) => vec![],
            told => told.context("read from inotify")?,
        };
        for event in told {
            let name = event.name.as_deref();
            if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                // More than the kernel remembers. So all of them.
                return self.all().map(|all| all.into_iter().collect());
            }
            let id = match self.watched.get(&event.wd) {
                _ if event.wd == self.containers => {
                    name.filter(|name| is_id(Some(name))).map(|name| name.to_string_lossy().into_owned())
                }
                // Of the other files in its directory, the container writes to some.
                Some(_)
                    if name.is_some_and(|name| {
                        ![RECORD, by_person::NOTE, health::FILE].iter().any(|one| name == *one)
                    }) =>
                {
                    None
                }
                id => id.cloned(),
            };
            if let Some(id) = id.filter(|id| changed.last() != Some(id)) {
                changed.push(id);
            }
            // Its file is gone, and with it the watch.
            if event.mask.contains(AddWatchFlags::IN_IGNORED) {
                self.watched.remove(&event.wd);
            }
        }
        Ok(changed)
    }
}
