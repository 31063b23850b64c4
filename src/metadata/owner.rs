//! Day 4: the owner of a container, and what only it may do: write the record, and
//! remove the container.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use crate::error::{self, Result};
use crate::explain::step;
use crate::metadata::aside::Aside;
use crate::metadata::layout::{BEFORE, DAY, LOCK, LONGEST, RECORD};
use crate::metadata::read::known;
use crate::metadata::record::Record;
use crate::metadata::traces;
use crate::metadata::tree::remove_tree;
use crate::metadata::turn::{self, Turn};

/// Room on the disk for the last record, made before the command starts.
const ROOM: &str = "config.json.room";

/// How much longer a record gets by its end.
const END: u64 = 2048;

/// The right to change one container's record, or to remove it. It ends with this value,
/// or with this process.
#[derive(Debug)]
pub struct Owner {
    /// The container's directory, absolute.
    pub dir: PathBuf,
    lock: File,
}

/// Writes down that this process looks after the container in `dir`: with `-d` that is
/// another one than made it. Both have its lock; the kernel counts them as one holder.
pub fn changes_hands(dir: &Path) -> Result<()> {
    let mut record = known(dir)?.with_context(|| format!("no container in {dir:?}"))?;
    record.owned_by_this_process()?;
    let lock = File::open(dir.join(LOCK)).context("open the lock")?;
    Owner::new(dir.to_owned(), lock).write(&record)
}

impl Owner {
    /// The owner of the container in `dir`: whoever has locked `lock`.
    pub fn new(dir: PathBuf, lock: File) -> Owner {
        Owner { dir, lock }
    }

    /// Waits until nobody else writes the record, and takes into `record` what others have changed
    /// in it. For as long as what this returns lives, nobody does.
    pub fn turn(&self, record: &mut Record) -> Result<Turn<'_>> {
        let turn = Turn::take(&self.lock)?;
        if let Some(changed) = turn::changed(&self.dir)? {
            record.take_changes_of(changed);
        }
        Ok(turn)
    }

    /// Renames the container's directory to `dir`. Returns whether it did: not if there is one
    /// already.
    pub fn move_to(&self, dir: &Path) -> Result<bool> {
        let describe = || {
            (
                format!("rename({:?}, {dir:?})", self.dir),
                format!("mv -T {} {}", self.dir.display(), dir.display()),
            )
        };
        step(DAY, describe, || match fs::rename(&self.dir, dir) {
            Err(error) if matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists) => {
                Ok(false)
            }
            outcome => outcome.map(|()| true),
        })
    }

    /// The same owner, of what is now called `dir`.
    pub fn at(self, dir: PathBuf) -> Owner {
        Owner { dir, ..self }
    }

    // ANCHOR: write
    /// Replaces the record, as a whole or not at all: a reader gets the old one or the new
    /// one, whole. (rename(2))
    ///
    /// Nothing here waits for the disk: see `flush`.
    pub fn write(&self, record: &Record) -> Result<()> {
        // ANCHOR: day4_task1_write_solution
        let (file, new) = (self.dir.join(RECORD), self.dir.join("config.json.new"));
        let text = json(record)?;
        let describe = || {
            let call = format!("rename(\"config.json.new\", \"config.json\"): {:?}", record.status);
            (call, "mv config.json.new config.json".into())
        };
        let replaced = step(DAY, describe, || {
            // Not emptied first: the room that was made for it would be given back.
            let mut opened =
                OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&new)?;
            opened.write_all(&text)?;
            // What is longer was there before. To set the length that it has would not be nothing
            // to a file system, but a change to be kept in its journal.
            if opened.metadata()?.len() > text.len() as u64 {
                opened.set_len(text.len() as u64)?;
            }
            fs::rename(&new, &file)
        });
        if replaced.is_err() {
            // What is left is half a record, or a whole one that nobody asked for.
            let _ = fs::remove_file(&new);
        }
        replaced
        // ANCHOR_END: day4_task1_write_solution
    }
    // ANCHOR_END: write

    // ANCHOR: end
    /// Replaces the record by the one of the end. The disk may be full by now, filled by the
    /// container: there is room for it. And the record before stays beside it, which is on
    /// the disk already: a power cut takes the new one at most.
    pub fn write_end(&self, record: &Record) -> Result<()> {
        // Neither need be: one was repaired before, and the other was made in another place.
        let _ = fs::hard_link(self.dir.join(RECORD), self.dir.join(BEFORE));
        let _ = fs::rename(self.dir.join(ROOM), self.dir.join("config.json.new"));
        self.write(record)
    }

    /// Writes down that the container has ended, with nobody there who saw it. Showing needs
    /// no writing: on a disk that is full or read-only it is shown all the same. And what
    /// cannot be read stays as it is.
    pub fn repair(&self, record: &Record) {
        if record.unreadable.is_none() {
            let mut record = record.clone();
            // (On a disk that is read-only nobody takes turns.)
            let _turn = self.turn(&mut record);
            let _ = self.write_end(&record);
        }
        if let Err(error) = traces::remove_cgroup_of(&self.dir) {
            error::print(&error.context(format!("container {}", record.id)));
        }
    }

    /// Makes room on the disk for the record of the end: in the file of the first record, which
    /// by this second name stays when the next one takes its place. (link(2), fallocate(2))
    pub fn make_room(&self, record: &Record) -> Result<()> {
        let room = self.dir.join(ROOM);
        // The kernel gives whole blocks anyway.
        let bytes = (json(record)?.len() as u64 + END).next_multiple_of(4096);
        let describe = || {
            let call = format!("link(\"{RECORD}\", \"{ROOM}\"), fallocate({bytes} bytes)");
            (call, format!("ln {RECORD} {ROOM} && fallocate --keep-size --length {bytes} {ROOM}"))
        };
        step(DAY, describe, || {
            // Where there are no hard links, it is a new file.
            let _ = fs::hard_link(self.dir.join(RECORD), &room);
            let opened =
                OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&room)?;
            match fallocate(&opened, FallocateFlags::KEEP_SIZE, 0, bytes) {
                // Not every file system can.
                Err(Errno::OPNOTSUPP) => Ok(()),
                outcome => outcome.map_err(std::io::Error::from),
            }
        })
    }
    // ANCHOR_END: end

    /// Writes into the lock who holds it, and what it is about: what `stop`, `kill` and
    /// `rm` need if the record cannot be read. Once, so that it is never half written over.
    pub fn sign(&self, record: &Record) -> Result<()> {
        let text = serde_json::to_vec(&record.brief())?;
        self.lock.write_all_at(&text, 0).with_context(|| format!("write the lock of {:?}", self.dir))
    }

    /// The same for a container that is started once more: what it says already may be longer.
    pub fn sign_again(&self, record: &Record) -> Result<()> {
        let text = serde_json::to_vec(&record.brief())?;
        let written = self.lock.write_all_at(&text, 0).and_then(|()| self.lock.set_len(text.len() as u64));
        written.with_context(|| format!("write the lock of {:?}", self.dir))
    }

    /// Removes every trace of the container: its name first, in one step. What a process that
    /// is killed meanwhile leaves of it is aside. (rename(2))
    pub fn remove(self) -> Result<()> {
        traces::remove_cgroup_of(&self.dir)?;
        let aside = Aside::open(self.dir.parent().context("the container's directory")?)?;
        let gone = aside.path(self.dir.file_name().unwrap_or_default());
        let describe = || (format!("remove {:?}", self.dir), format!("rm -r {}", self.dir.display()));
        step(DAY, describe, || match fs::rename(&self.dir, &gone) {
            Ok(()) => remove_tree(&gone),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        })
    }
}

/// The record as it is in its file. Filled up with spaces, so that the last one is no shorter
/// than the first, into whose file it goes: cutting off the end of a file that is on its way
/// to the disk is a wait for the disk.
fn json(record: &Record) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(record)?;
    text.resize((text.len() + 1).next_multiple_of(1024) - 1, b' ');
    text.push(b'\n');
    // What is written can be read.
    if text.len() as u64 > LONGEST {
        bail!("the record of this container would have {} bytes, more than {LONGEST}", text.len());
    }
    Ok(text)
}
