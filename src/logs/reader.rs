//! Day 5: the `logs` command.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, stderr, stdout};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::slice;
use std::thread::sleep;

use anyhow::{Context, bail};
use jiff::Timestamp;
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::error::{self, Result, io_kind};
use crate::explain::step;
use crate::logs::file::{self as log_file, LOG, Stream};
use crate::logs::pump::poll_some;
use crate::logs::since;
use crate::metadata::by_person;
use crate::metadata::pidfd::Process;
use crate::metadata::record::Status;
use crate::metadata::state::State;
use crate::stream;
use crate::wait::A_MOMENT;

const DAY: u8 = 5;

/// Show what a container wrote
#[derive(Debug, clap::Args)]
pub struct ShowLogs {
    #[command(flatten)]
    state: State,

    /// Go on until the container ends
    #[arg(short, long)]
    follow: bool,

    /// Show only the last N lines
    #[arg(short = 'n', long, value_name = "N|all", default_value = "all", value_parser = lines)]
    #[arg(allow_hyphen_values = true)]
    tail: Lines,

    /// Print before each line when it was written
    #[arg(short, long)]
    timestamps: bool,

    /// Show only what was written since: 2026-11-23, 2026-11-23T10:00:00, or 10m ago
    #[arg(long, value_name = "TIME", value_parser = since::since, allow_hyphen_values = true)]
    since: Option<Timestamp>,

    /// Which files its log is in.
    #[arg(skip = ONE_FILE)]
    files: Files,

    /// Its id or name
    container: String,
}

/// Which files a log is in. Here it is in one; day 14 has it go on in others.
#[derive(Debug, Clone, Copy)]
pub struct Files {
    /// Opens the log in the container's directory where the last so many lines begin, or all.
    pub open: fn(&Path, Option<usize>) -> Result<Option<Opened>>,
    /// Opens the file in which the log goes on after this one; `None`: it does not, so far.
    pub next: fn(&Path) -> Result<Option<Opened>>,
}

/// A file of a log.
#[derive(Debug)]
pub struct Opened {
    /// Its path.
    pub path: PathBuf,
    /// It, where it is to be read next.
    pub file: File,
}

const ONE_FILE: Files = Files { open: open_one, next: |_| Ok(None) };

/// Opens a log that is in one file where its last `tail` lines begin, or all of it.
pub fn open_one(dir: &Path, tail: Option<usize>) -> Result<Option<Opened>> {
    let Some(mut opened) = open_file(dir.join(LOG))? else { return Ok(None) };
    if let Some(count) = tail {
        let start = log_file::tail(&opened.file, count).context("find the last lines")?;
        opened.file.seek(SeekFrom::Start(start)).context("find the last lines")?;
    }
    Ok(Some(opened))
}

/// Opens the file `path` to be read from its beginning; `None`: there is none.
pub fn open_file(path: PathBuf) -> Result<Option<Opened>> {
    match File::open(&path) {
        Ok(file) => Ok(Some(Opened { path, file })),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("open {path:?}")),
    }
}

/// (clap would take an `Option` for an option that may be missing.)
#[derive(Debug, Clone, Copy)]
struct Lines(Option<usize>);

fn lines(text: &str) -> std::result::Result<Lines, String> {
    since::lines(text).map(Lines)
}

impl ShowLogs {
    /// The same, of a log that is in `files`.
    pub fn of(mut self, files: Files) -> ShowLogs {
        self.files = files;
        self
    }

    /// What the container `id`, whose log is in `files`, writes from now on, up to its end.
    pub fn from_now_on(state: State, id: &str, files: Files) -> Result<FromNowOn> {
        let (follow, timestamps, since, tail) = (true, false, None, Lines(Some(0)));
        let logs = ShowLogs { state, follow, tail, timestamps, since, files, container: id.into() };
        let reader = logs.reader(id)?.map(|(_, reader)| reader);
        Ok(FromNowOn { logs, reader })
    }

    /// Prints the log: what came from stdout to stdout, the rest to stderr.
    /// Returns the exit code: 1 if the container is unknown.
    pub fn execute(self) -> Result<u8> {
        Ok(error::for_each(slice::from_ref(&self.container), |word| self.show(word)))
    }

    fn show(&self, word: &str) -> Result<()> {
        let Some((id, mut reader)) = self.reader(word)? else { return Ok(()) };
        let shown = if self.follow { self.follow(&id, &mut reader) } else { reader.show_new() };
        match shown {
            // Nobody reads on: `logs | head`.
            Err(error) if is_broken_pipe(&error) => Ok(()),
            shown => shown,
        }
    }

    /// The id of the container that `word` means, and its log from where it is to be shown.
    fn reader(&self, word: &str) -> Result<Option<(String, Reader)>> {
        let Some((id, log)) = self.open(word)? else { return Ok(None) };
        let reader = Reader {
            log,
            next: None,
            files: self.files,
            rest: Vec::new(),
            timestamps: self.timestamps,
            since: self.since.map(|since| format!("{since:.9}")).unwrap_or_default(),
            in_a_line: [false; 2],
            complained: false,
        };
        Ok(Some((id, reader)))
    }

    /// The id of the container that `word` means, and its log; `None` if it has
    /// written nothing, since it is only about to start.
    fn open(&self, word: &str) -> Result<Option<(String, Opened)>> {
        loop {
            let record = self.state.find(word)?;
            let dir = self.state.dir(&record.id);
            if let Some(log) = (self.files.open)(&dir, self.tail.0)? {
                return Ok(Some((record.id, log)));
            }
            if record.status != Status::Created && dir.join("config.json").exists() {
                let path = dir.join(LOG);
                bail!("container {word} has no log: it was run without day 5, or somebody removed {path:?}");
            }
            if !self.follow || self.state.try_own(&record.id)?.is_some() {
                return Ok(None);
            }
            sleep(A_MOMENT);
        }
    }

    // ANCHOR: follow
    /// Shows what there is, and what comes, until the container has ended.
    ///
    /// The kernel tells of every change: of the log and the record by inotify, of
    /// the process's end by its handle. So nothing is looked at twice in vain, and
    /// nothing waits for a clock. (inotify(7))
    fn follow(&self, id: &str, reader: &mut Reader) -> Result<()> {
        // ANCHOR: day5_task4_follow_solution
        let dir = self.state.dir(id);
        let changes =
            Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).context("inotify_init")?;
        // In the directory there are other files, and the container can write to some. So
        // of all that is written there, only what is written to the log counts.
        let record = AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE;
        for (path, flags) in [(reader.log.path.clone(), AddWatchFlags::IN_MODIFY), (dir, record)] {
            watch(&changes, &path, flags)?;
        }
        loop {
            // First look whether it has ended, then read: whatever it wrote before
            // its end is then there.
            let record = match self.state.read(id) {
                Ok(record) => record,
                // It was removed.
                Err(_) => return reader.show_new(),
            };
            // Its command's; or before and after that, whoever looks after it; or, when nobody does
            // any more, a person's restart, which has noted itself before it ended that.
            let process = match record.process()? {
                None => record.owner.map(|owner| owner.process()).transpose()?.flatten(),
                command => command,
            };
            let process = process.or_else(|| by_person::restarter(&self.state.dir(id)));
            match process {
                // It has ended; or its run was killed.
                None if !matches!(self.state.try_own(id), Ok(None)) => return reader.show_new(),
                // Somebody is about to start it once more; or is in another pid namespace.
                None => sleep(A_MOMENT),
                Some(_) => {}
            }
            let before = reader.log.path.clone();
            reader.show_new()?;
            if reader.log.path == before && process.is_some() {
                wait_for_change(&changes, process.as_ref())?;
            } else {
                // It goes on in another file. Once that is watched it is read again: up to then
                // nothing told of what was written there.
                watch(&changes, &reader.log.path, AddWatchFlags::IN_MODIFY)?;
            }
        }
        // ANCHOR_END: day5_task4_follow_solution
    }
    // ANCHOR_END: follow
}

/// A log that is shown from where it ended at one moment. (day 14)
pub struct FromNowOn {
    logs: ShowLogs,
    reader: Option<Reader>,
}

impl FromNowOn {
    /// Shows it, up to the container's end.
    pub fn show(mut self) -> Result<()> {
        let Some(reader) = &mut self.reader else { return Ok(()) };
        match self.logs.follow(&self.logs.container, reader) {
            Err(error) if is_broken_pipe(&error) => Ok(()),
            shown => shown,
        }
    }
}

/// Has `changes` tell of what happens to `path`. A file that is gone by now is none that anybody
/// writes to: the log goes on in another one. (day 14)
fn watch(changes: &Inotify, path: &Path, flags: AddWatchFlags) -> Result<()> {
    let describe = || (format!("inotify_add_watch({path:?})"), format!("inotifywait -m {}", path.display()));
    match step(DAY, describe, || changes.add_watch(path, flags)) {
        Err(error) if path.exists() => Err(error),
        _ => Ok(()),
    }
}

/// Waits until something changes; if meanwhile nobody reads any more, that is an error.
fn wait_for_change(changes: &Inotify, process: Option<&Process>) -> Result<()> {
    let out = stdout();
    let [_, _, reader] = poll_some(
        [
            Some((changes.as_fd(), PollFlags::POLLIN)),
            process.map(|process| (process.as_fd(), PollFlags::POLLIN)),
            Some((out.as_fd(), PollFlags::empty())),
        ],
        None,
    )?;
    if reader.intersects(PollFlags::POLLERR | PollFlags::POLLHUP) {
        return Err(io::Error::from(ErrorKind::BrokenPipe).into());
    }
    match changes.read_events() {
        Ok(_) | Err(Errno::EAGAIN) => Ok(()),
        Err(error) => Err(error).context("read from inotify"),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    io_kind(error) == Some(ErrorKind::BrokenPipe)
}

/// A log that is being read.
struct Reader {
    log: Opened,
    /// The file in which it goes on: once this one is read up to its end.
    next: Option<Opened>,
    files: Files,
    /// The beginning of an entry whose end is not there yet.
    rest: Vec<u8>,
    timestamps: bool,
    /// The time of the first entry to show.
    since: String,
    /// For stdout and stderr: was the last entry shown only a piece?
    in_a_line: [bool; 2],
    complained: bool,
}

impl Reader {
    /// Shows what was added to the log since the last call.
    fn show_new(&mut self) -> Result<()> {
        // Somebody may have emptied it: begin anew.
        let length = self.log.file.metadata().context("look at the log")?.len();
        if length < self.log.file.stream_position().context("look at the log")? {
            self.log.file.rewind().context("go back in the log")?;
            self.rest.clear();
        }
        let mut buffer = vec![0; 256 << 10];
        loop {
            let count = self.log.file.read(&mut buffer).context("read the log")?;
            if count == 0 {
                if self.goes_on()? {
                    continue;
                }
                return Ok(());
            }
            let new = &buffer[..count];
            let Some(last) = new.iter().rposition(|byte| *byte == b'\n') else {
                self.rest.extend_from_slice(new);
                continue;
            };
            let mut text = std::mem::replace(&mut self.rest, new[last + 1..].to_vec());
            text.extend_from_slice(&new[..=last]);
            self.show(&text)?;
        }
    }

    /// At the end of a file: is there more to read? What was written here before the log went on
    /// elsewhere may have come since the last look, so the next file is only then taken up when
    /// this one has been read to its end once more.
    fn goes_on(&mut self) -> Result<bool> {
        if let Some(next) = self.next.take() {
            self.log = next;
            self.rest.clear();
            return Ok(true);
        }
        self.next = (self.files.next)(&self.log.path)?;
        Ok(self.next.is_some())
    }

    // ANCHOR: show
    /// Shows these entries, each on the stream that it was written to.
    fn show(&mut self, text: &[u8]) -> Result<()> {
        // ANCHOR: day5_task2_show_solution
        // What goes to one stream goes there in one write, up to the next change.
        let (mut pending, mut to) = (Vec::with_capacity(text.len()), Stream::Stdout);
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            let Some(entry) = log_file::parse(line) else {
                if !std::mem::replace(&mut self.complained, true) {
                    error::say(format_args!("{LOG} has lines that are no entries; skipped"));
                }
                continue;
            };
            if entry.time < self.since.as_str() {
                continue;
            }
            if entry.stream != to {
                write_to(to, &mut pending)?;
                to = entry.stream;
            }
            let in_a_line = &mut self.in_a_line[usize::from(to == Stream::Stderr)];
            if self.timestamps && !*in_a_line {
                pending.extend_from_slice(entry.time.as_bytes());
                pending.push(b' ');
            }
            pending.extend_from_slice(entry.content);
            if entry.full {
                pending.push(b'\n');
            }
            *in_a_line = !entry.full;
        }
        write_to(to, &mut pending)
        // ANCHOR_END: day5_task2_show_solution
    }
    // ANCHOR_END: show
}

fn write_to(to: Stream, pending: &mut Vec<u8>) -> Result<()> {
    let written = match to {
        Stream::Stdout => stream::write_all(stdout(), pending),
        Stream::Stderr => stream::write_all(stderr(), pending),
    };
    pending.clear();
    written.with_context(|| format!("write to {}", to.name()))
}
