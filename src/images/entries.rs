//! Day 12: a tar archive, read entry by entry. (tar(5), pax(1))
//!
//! An entry is a header of 512 bytes, and its data, filled up to a multiple of 512. What a
//! header has no room for stands in entries before it: long names (GNU), and records of any
//! kind (PAX). Whoever wrote the archive chose every byte of it, so nothing here believes a
//! number: what a length says is read in pieces, and there is a limit to each.
//!
//! By hand, because the crate `tar` 0.4 ends a PAX record at the first newline in it. A file
//! capability is binary, and may contain one; and two readers that disagree on where a record
//! ends see two different archives.

use std::io::{BufRead, ErrorKind};

use anyhow::{Context, bail};

use crate::error::Result;
use crate::images::header::{BLOCK, LONGEST_EXTENSION, check_sum, name_of, number, padding, until_nul};
use crate::images::sparse::{self, Sparse};

/// What an entry is, by the letter that its header has for it.
pub mod kind {
    #![allow(missing_docs)]
    pub const FILE: u8 = b'0';
    pub const HARD_LINK: u8 = b'1';
    pub const LINK: u8 = b'2';
    pub const CHARACTERS: u8 = b'3';
    pub const BLOCKS: u8 = b'4';
    pub const DIRECTORY: u8 = b'5';
    pub const FIFO: u8 = b'6';
}

/// One file of the archive, whatever its kind. Names are bytes, not text.
#[derive(Debug, Default)]
pub struct Entry {
    /// See [`kind`]; what a header has no letter for is [`kind::FILE`].
    pub kind: u8,
    /// Its path.
    pub name: Vec<u8>,
    /// Where a link leads.
    pub link: Vec<u8>,
    /// Its permissions, with set-user-ID and its friends; nothing else.
    pub mode: u32,
    /// Its owner and its group.
    pub owner: (u32, u32),
    /// When it was changed: seconds since 1970, and nanoseconds.
    pub time: (i64, u32),
    /// How many bytes of data follow it in the archive.
    pub size: u64,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Its extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where its data belongs, if it has holes.
    pub sparse: Option<Sparse>,
}

/// What PAX and GNU entries say of the entry that follows them.
#[derive(Debug, Default)]
pub struct Extension {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    owner: (Option<u32>, Option<u32>),
    time: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse: sparse::Records,
}

/// The entries of an archive, in their order.
pub struct Entries<R> {
    from: R,
    /// What is still to be read of the present entry's data, and what fills it up.
    data: u64,
    padding: u64,
    /// How many headers there may still be.
    headers: u64,
}

impl<R: BufRead> Entries<R> {
    /// Of the archive `from`; more than `most` headers are an error.
    pub fn new(from: R, most: u64) -> Entries<R> {
        Entries { from, data: 0, padding: 0, headers: most }
    }

    // ANCHOR: next
    /// The next entry; `None`: that was the last.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        let mut extension = Extension::default();
        loop {
            let Some(header) = self.header()? else { return Ok(None) };
            match header[156] {
                b'x' | b'X' => extension.read_records(&self.extension()?)?,
                // For all entries that follow: what git archive says of its commit.
                b'g' => {}
                b'L' => extension.name = Some(until_nul(&self.extension()?).to_vec()),
                b'K' => extension.link = Some(until_nul(&self.extension()?).to_vec()),
                _ => return self.entry(&header, extension).map(Some),
            }
        }
    }
    // ANCHOR_END: next

    /// The next header; `None`: two blocks of zeros, or the end.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>> {
        self.skip()?;
        let mut header = [0; BLOCK];
        if self.from.fill_buf().context("read the next header")?.is_empty() {
            return Ok(None);
        }
        self.read_exact(&mut header)?;
        if header.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        self.headers = self.headers.checked_sub(1).context("it has too many entries")?;
        check_sum(&header)?;
        self.data = number(&header[124..136])?.try_into().context("its size is negative")?;
        self.padding = padding(self.data);
        Ok(Some(header))
    }

    /// All data of the present entry, which stands for the next.
    fn extension(&mut self) -> Result<Vec<u8>> {
        if self.data > LONGEST_EXTENSION {
            bail!("{} bytes are to stand before an entry; expected at most {LONGEST_EXTENSION}", self.data);
        }
        let mut bytes = vec![0; self.data as usize];
        self.read_exact(&mut bytes)?;
        self.data = 0;
        Ok(bytes)
    }

    fn entry(&mut self, header: &[u8; BLOCK], extension: Extension) -> Result<Entry> {
        let is_gnu = &header[257..265] == b"ustar  \0";
        let id = |field: &[u8]| number(field).and_then(|id| owner_of(id.into()));
        let mut entry = Entry {
            kind: if matches!(header[156], 0 | b'7' | b'S') { kind::FILE } else { header[156] },
            name: extension.name.unwrap_or_else(|| name_of(header)),
            link: extension.link.unwrap_or_else(|| until_nul(&header[157..257]).to_vec()),
            mode: (number(&header[100..108])? & 0o7777) as u32,
            owner: (
                extension.owner.0.map_or_else(|| id(&header[108..116]), Ok)?,
                extension.owner.1.map_or_else(|| id(&header[116..124]), Ok)?,
            ),
            time: extension.time.map_or_else(|| number(&header[136..148]).map(|time| (time, 0)), Ok)?,
            xattrs: extension.xattrs,
            ..Entry::default()
        };
        if matches!(entry.kind, kind::CHARACTERS | kind::BLOCKS) {
            let part = |field| anyhow::Ok(u32::try_from(number(field)?)?);
            entry.device = (part(&header[329..337])?, part(&header[337..345])?);
        }
        let size = extension.size.unwrap_or(self.data);
        // Only files have data, whatever a header says: some archivers give a link's target's size.
        let size = if (kind::HARD_LINK..=kind::FIFO).contains(&entry.kind) { 0 } else { size };
        (self.data, self.padding) = (size, padding(size));
        if header[156] == b'S' && is_gnu {
            entry.sparse = Some(sparse::of_gnu(header, |block| self.read_exact(block))?);
        } else if let Some((sparse, name)) = extension.sparse.finish(|| self.block())? {
            entry.sparse = Some(sparse);
            entry.name = name.unwrap_or(entry.name);
        }
        entry.size = self.data;
        checked(entry)
    }

    /// Gives the next bytes of the present entry's data to `take`, at most `most` of them. They
    /// are not copied. Returns how many there were; 0: that was the end.
    pub fn data(&mut self, most: u64, take: impl FnOnce(&[u8]) -> Result<()>) -> Result<usize> {
        let wanted = self.data.min(most);
        if wanted == 0 {
            return Ok(0);
        }
        let found = self.from.fill_buf().context("read the data of an entry")?;
        if found.is_empty() {
            bail!("it ends in the middle of an entry");
        }
        let count = found.len().min(wanted.try_into().unwrap_or(usize::MAX));
        take(&found[..count])?;
        self.from.consume(count);
        self.data -= count as u64;
        Ok(count)
    }

    /// One block of the present entry's data.
    fn block(&mut self) -> Result<[u8; BLOCK]> {
        let mut block = [0; BLOCK];
        self.data = self.data.checked_sub(BLOCK as u64).context("the map of a sparse file has no end")?;
        self.read_exact(&mut block)?;
        Ok(block)
    }

    /// Skips what is left of the present entry.
    fn skip(&mut self) -> Result<()> {
        while self.data(u64::MAX, |_| Ok(()))? > 0 {}
        let mut rest = [0; BLOCK];
        let padding = std::mem::take(&mut self.padding) as usize;
        // Some archives end without it.
        match self.from.read_exact(&mut rest[..padding]) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(()),
            other => other.context("read what fills up a block"),
        }
    }

    fn read_exact(&mut self, bytes: &mut [u8]) -> Result<()> {
        match self.from.read_exact(bytes) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                bail!("it ends in the middle of a header")
            }
            other => other.context("read a header"),
        }
    }

    /// What comes after the last entry.
    pub fn into_rest(self) -> R {
        self.from
    }
}

/// As tar wrote directories before it had a letter for them; and with names that can be names.
fn checked(mut entry: Entry) -> Result<Entry> {
    if entry.kind == kind::FILE && entry.name.ends_with(b"/") {
        entry.kind = kind::DIRECTORY;
    }
    for name in [&entry.name, &entry.link] {
        if name.len() > libc::PATH_MAX as usize || name.contains(&0) {
            bail!("a name has {} bytes, or a zero among them; expected a path", name.len());
        }
    }
    Ok(entry)
}

// ANCHOR: records
impl Extension {
    /// Takes up the records of a PAX header: `LENGTH KEY=VALUE\n`, one after the other. The
    /// length counts all of it; a value may contain anything. (pax(1), "pax Extended Header")
    fn read_records(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let (record, rest) = next_record(bytes).context("a PAX record is not LENGTH KEY=VALUE")?;
            let at = record.iter().position(|byte| *byte == b'=').context("a PAX record has no value")?;
            let (key, value) = (&record[..at], &record[at + 1..]);
            let text = || String::from_utf8_lossy(value);
            self.take(key, value).with_context(|| {
                format!("the PAX record {} is {:?}", String::from_utf8_lossy(key), text())
            })?;
            bytes = rest;
        }
        Ok(())
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let digits = || anyhow::Ok(std::str::from_utf8(value)?.parse::<u64>()?);
        match key {
            b"path" => self.name = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(digits()?),
            b"uid" => self.owner.0 = Some(owner_of(digits()?.into())?),
            b"gid" => self.owner.1 = Some(owner_of(digits()?.into())?),
            b"mtime" => self.time = Some(seconds(std::str::from_utf8(value)?)?),
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                } else if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.take(key, value)?;
                }
            }
        }
        Ok(())
    }
}
// ANCHOR_END: records

/// The first record of `bytes`, without its length and its newline, and what follows it.
fn next_record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
    let record = bytes.get(space + 1..length)?;
    Some((record.strip_suffix(b"\n")?, &bytes[length..]))
}

/// Seconds and nanoseconds: `1700000000.123456789`.
fn seconds(text: &str) -> Result<(i64, u32)> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let nanoseconds: u32 = format!("{part:0<9.9}").parse()?;
    let seconds: i64 = whole.parse()?;
    // The part counts away from zero, and the kernel wants it counted upwards.
    Ok(match (text.starts_with('-'), nanoseconds) {
        (true, 1..) => (seconds.checked_sub(1).context("a time before all")?, 1_000_000_000 - nanoseconds),
        _ => (seconds, nanoseconds),
    })
}

/// A user or group id. The largest number is none: to chown(2) it means "leave it as it is".
fn owner_of(id: i128) -> Result<u32> {
    match u32::try_from(id) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => bail!("an owner has the number {id}; expected 0 to {}", u32::MAX - 1),
    }
}
