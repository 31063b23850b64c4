//! Day 17: which ids are nobody's, and whose they are for now.
//!
//! All ids of all machines are 32 bits, and who has which is a matter of agreement. A person's are
//! in /etc/subuid and /etc/subgid; those of podman's `--userns=auto` are there too, under the name
//! `containers`. Where that name has none, ours are from a range that systemd's list of ranges
//! leaves free. (subuid(5); systemd.io/UIDS-GIDS)
//!
//! A range is a container's as long as there is a record that says so. Until its record is there,
//! and for containers of other state directories while they run, a locked file says it: as with
//! day 9's addresses, the kernel drops the lock when whoever holds it dies. (flock(2))

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::error::Result;
use crate::explain::step;
use crate::ids::Ids;
use crate::metadata::layout::open_to_lock;
use crate::metadata::state::{State, is_still};
use crate::net::lock::make_private;
use crate::wait;

use super::DAY;
use super::flag::USUAL_COUNT;

/// As wide as the ids are: the machine's, and gone when it boots again.
const RUN: &str = "/run/tiny-docker/ids";

/// Whoever has its turn reads two directories. Longer than this takes only who is stopped (Ctrl-Z).
const PATIENCE: Duration = Duration::from_secs(60);

/// Whose ranges in /etc/subuid are for containers, if there are any.
const NAME: &[u8] = b"containers";

/// Ours, if there are none.
const OURS: Ids = Ids { outside: 0x7000_0000, count: 4096 * USUAL_COUNT - (1 << 20) };

/// The right to ids. It ends with this value, or with this process.
#[derive(Debug)]
pub struct Lease {
    /// Users.
    pub uids: Ids,
    /// Groups.
    pub gids: Ids,
    /// Nobody else has it while this file is locked.
    path: PathBuf,
    _lock: File,
}

impl Drop for Lease {
    /// The file goes while it is still locked: whoever has opened it meanwhile looks whether it is there.
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        remove_if_empty();
    }
}

// ANCHOR: lease
/// Ids that are nobody else's: `wanted` if they are free, or else the first that are. `own`: the
/// container that is to get them; what its own record says does not stand in its way.
pub fn lease(state: &State, own: Option<&str>, wanted: Option<Ids>) -> Result<Lease> {
    // ANCHOR: day17_task2_lease_solution
    let (uids, gids) = (blocks("/etc/subuid")?, blocks("/etc/subgid")?);
    let _turn = take_turn()?;
    sweep();
    let all = || uids.iter().zip(&gids);
    let first = all().filter(|(uids, _)| wanted == Some(**uids));
    let before = taken(state, own)?;
    for (uids, gids) in first.chain(all()) {
        let overlaps = |(users, groups): &(Ids, Ids)| users.overlaps(uids) || groups.overlaps(gids);
        if before.iter().any(overlaps) {
            continue;
        }
        let Some(lease) = try_lease(*uids, *gids)? else { continue };
        // Whoever had it a moment ago may have written its record since.
        if !taken(state, own)?.iter().any(overlaps) {
            return Ok(lease);
        }
    }
    bail!(
        "--userns auto: all {} ranges of {USUAL_COUNT} ids are in use; remove a container, or have more for the \
         user `containers` in /etc/subuid and /etc/subgid (containers:2147483648:1073741824)",
        all().count()
    )
    // ANCHOR_END: day17_task2_lease_solution
}
// ANCHOR_END: lease

/// What containers of this state directory have, `own` excepted.
fn taken(state: &State, own: Option<&str>) -> Result<Vec<(Ids, Ids)>> {
    let records = state.list()?.records.into_iter().filter(|record| Some(&record.id[..]) != own);
    Ok(records
        .filter_map(|record| record.plan.user_namespace)
        .map(|users| (users.uids, users.gids))
        .collect())
}

/// `None`: somebody has it.
fn try_lease(uids: Ids, gids: Ids) -> Result<Option<Lease>> {
    let path = Path::new(RUN).join(uids.outside.to_string());
    let Some(lock) = try_lock(&path)? else { return Ok(None) };
    let describe =
        || (format!("flock({path:?}): the ids are ours"), format!("flock -n {} …", path.display()));
    step(DAY, describe, || Ok::<_, std::io::Error>(()))?;
    Ok(Some(Lease { uids, gids, path, _lock: lock }))
}

/// The same of its file.
fn try_lock(path: &Path) -> Result<Option<File>> {
    loop {
        let lock = match open_to_lock(path) {
            // The first one makes the directory, and the last one removes it.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                make_private(Path::new(RUN))?;
                continue;
            }
            lock => lock.with_context(|| format!("open {path:?}"))?,
        };
        match lock.try_lock() {
            // Unless whoever had it has removed it meanwhile.
            Ok(()) if is_still(&lock, path)? => return Ok(Some(lock)),
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error).with_context(|| format!("lock {path:?}")),
        }
    }
}

/// Whoever looks for ids does it alone: `sweep` locks what nobody has, and to others that would be taken.
struct Turn {
    _lock: File,
}

impl Drop for Turn {
    /// Whoever has found none leaves nothing.
    fn drop(&mut self) {
        remove_if_empty();
    }
}

fn take_turn() -> Result<Turn> {
    loop {
        make_private(Path::new(RUN))?;
        let turn = match File::open(RUN) {
            // Whoever had the last turn has removed it meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            turn => turn.with_context(|| format!("open {RUN}"))?,
        };
        wait::lock(&turn, false, Some(PATIENCE), &format!("the lock on the ids of containers ({RUN})"))?;
        if is_still(&turn, Path::new(RUN))? {
            return Ok(Turn { _lock: turn });
        }
    }
}

/// Removes what those have left behind who were killed.
fn sweep() {
    let files = fs::read_dir(RUN).into_iter().flatten().flatten().map(|entry| entry.path());
    for path in files {
        if let Ok(Some(_lock)) = try_lock(&path) {
            let _ = fs::remove_file(&path);
        }
    }
}

/// The directory of the leases, and the one above it.
fn remove_if_empty() {
    let _ = Path::new(RUN).ancestors().take(2).try_for_each(fs::remove_dir);
}

// ANCHOR: blocks
/// The ranges that containers may have, by the file `path`: subuid(5) or subgid(5).
fn blocks(path: &str) -> Result<Vec<Ids>> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => vec![],
        text => text.with_context(|| format!("read {path}"))?,
    };
    Ok(blocks_of(&text))
}

/// The same by its text. What others have is not ours.
fn blocks_of(text: &[u8]) -> Vec<Ids> {
    // ANCHOR: day17_task2_blocks_of_solution
    let entries = entries(text);
    let (own, others): (Vec<_>, Vec<_>) = entries.into_iter().partition(|(name, _)| *name == NAME);
    let of_containers: Vec<Ids> = own.into_iter().map(|(_, ids)| ids).collect();
    let ranges = if of_containers.is_empty() { vec![OURS] } else { of_containers };
    let blocks = ranges.iter().flat_map(|range| {
        let numbers = 0..range.count / USUAL_COUNT;
        numbers.map(|number| Ids { outside: range.outside + number * USUAL_COUNT, count: USUAL_COUNT })
    });
    let mut free: Vec<Ids> = vec![];
    for block in blocks {
        let is_somebodys = others.iter().map(|(_, ids)| ids).chain(&free).any(|ids| ids.overlaps(&block));
        // User 0 is root, whoever it is said to be for.
        if block.outside != 0 && !is_somebodys {
            free.push(block);
        }
    }
    free
    // ANCHOR_END: day17_task2_blocks_of_solution
}
// ANCHOR_END: blocks

/// The lines `NAME:FIRST:COUNT`. Others mean nothing.
pub fn entries(text: &[u8]) -> Vec<(&[u8], Ids)> {
    let number = |word: &[u8]| std::str::from_utf8(word).ok()?.parse::<u32>().ok();
    let entry = |line: &'_ [u8]| -> Option<Ids> {
        let mut fields = line.split(|byte| *byte == b':').skip(1);
        let (outside, count) = (number(fields.next()?)?, number(fields.next()?)?);
        (fields.next().is_none() && outside.checked_add(count).is_some()).then_some(Ids { outside, count })
    };
    let name = |line: &'_ [u8]| line.iter().position(|byte| *byte == b':').unwrap_or(0);
    let lines = text.split(|byte| *byte == b'\n');
    lines.filter_map(|line| Some((&line[..name(line)], entry(line)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::{OURS, blocks_of};
    use crate::ids::Ids;

    #[test]
    fn ranges_are_those_of_containers_or_ours_and_never_somebody_elses() {
        let block = |outside| Ids { outside, count: 65536 };
        assert_eq!(blocks_of(b"")[0], block(OURS.outside));
        assert_eq!(blocks_of(b"ann:100000:65536\n").len(), blocks_of(b"").len(), "far away");
        let others = blocks_of(b"ann:1879048192:65536\nbob:1879113730:1\n# a comment\nx:y:z\n");
        assert_eq!(others[0], block(1_879_048_192 + 2 * 65536), "theirs are left out");
        let own = blocks_of(b"ann:100000:65536\ncontainers:200000:131072\ncontainers:1000:65535\n");
        assert_eq!(own, [block(200_000), block(265_536)]);
        assert_eq!(blocks_of(b"containers:0:131072\n"), [block(65_536)], "not the host's root");
        let twice = blocks_of(b"containers:100000:65536\ncontainers:130000:65536\n");
        assert_eq!(twice, [block(100_000)], "two lines with ids in common are one container's");
        assert_eq!(blocks_of(b"containers:100000:131072\nann:100000:65536\n"), [block(165_536)]);
        assert!(blocks_of(b"containers:4294967295:65536\n").len() > 1, "no range: as if it were not there");
    }
}
