//! Day 11: files with holes. A hole is read as zeros and takes no room on the disk: the copy
//! of a 100 GB disk image that holds 1 GB takes 1 GB, also on its way. (lseek(2), SEEK_HOLE)

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use tar::{EntryType, GnuExtSparseHeader, GnuSparseHeader, Header};

use crate::error::Result;

/// Where there is something in a file: offsets and lengths.
pub type Map = Vec<(u64, u64)>;

/// In an archive what lies between two holes begins at such a block.
const BLOCK: u64 = 512;

/// Where in `file`, of `size` bytes, there is something; `None`: it has no holes.
pub fn map(file: &File, size: u64) -> Result<Option<Map>> {
    let (mut map, mut at) = (Map::new(), 0);
    while at < size {
        let from = match seek(file, SeekFrom::Data(at)) {
            // Nothing but a hole up to the end.
            Err(Errno::NXIO) => break,
            // A file system that does not know its holes.
            Err(Errno::INVAL) => return Ok(None),
            from => from?,
        };
        let from = from / BLOCK * BLOCK;
        let to = seek(file, SeekFrom::Hole(from))?.next_multiple_of(BLOCK).min(size);
        if from >= size || to <= from {
            break;
        }
        map.push((from, to - from));
        at = to;
    }
    seek(file, SeekFrom::Start(0))?;
    // The map of one without holes is one piece.
    Ok((map != [(0, size)] && size > 0).then_some(map))
}

/// Says in `header` what `map` is of a file of `size` bytes. Returns the blocks that follow
/// the header, where it has no room for all of it. (tar(5), "GNU tar archives")
pub fn describe(map: &Map, size: u64, header: &mut Header) -> Result<Vec<u8>> {
    header.set_entry_type(EntryType::GNUSparse);
    header.set_size(map.iter().map(|(_, length)| length).sum());
    // The last piece says where the file ends.
    let mut pieces = map.iter().copied().chain([(size, 0)]);
    let mut blocks = Vec::new();
    let Some(gnu) = header.as_gnu_mut() else { anyhow::bail!("not a header of GNU tar") };
    gnu.set_real_size(size);
    let mut left = map.len() + 1;
    fill(&mut gnu.sparse, &mut pieces, &mut left);
    gnu.set_is_extended(left > 0);
    while left > 0 {
        let mut block = GnuExtSparseHeader::new();
        fill(block.sparse_mut(), &mut pieces, &mut left);
        block.set_is_extended(left > 0);
        blocks.extend(block.as_bytes());
    }
    Ok(blocks)
}

fn fill(slots: &mut [GnuSparseHeader], pieces: &mut impl Iterator<Item = (u64, u64)>, left: &mut usize) {
    for (slot, (offset, length)) in slots.iter_mut().zip(pieces) {
        slot.set_offset(offset);
        slot.set_length(length);
        *left -= 1;
    }
}

/// What is in a file between its holes.
pub struct Data<'a> {
    file: &'a File,
    pieces: std::slice::Iter<'a, (u64, u64)>,
    piece: (u64, u64),
}

impl<'a> Data<'a> {
    /// What `map` says of `file`.
    pub fn new(file: &'a File, map: &'a Map) -> Data<'a> {
        Data { file, pieces: map.iter(), piece: (0, 0) }
    }
}

impl Read for Data<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        while self.piece.1 == 0 {
            match self.pieces.next() {
                Some(piece) => self.piece = *piece,
                None => return Ok(0),
            }
        }
        let (offset, left) = self.piece;
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(into.len());
        let count = self.file.read_at(&mut into[..most], offset)?;
        if count == 0 && most > 0 {
            return Err(std::io::Error::other("it got shorter while it was copied; try again"));
        }
        self.piece = (offset + count as u64, left - count as u64);
        Ok(count)
    }
}
