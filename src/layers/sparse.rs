//! Day 11: files with holes. A hole is read as zeros and takes no room on the disk: the copy
//! of a 100 GB disk image that holds 1 GB takes 1 GB, also on its way. (lseek(2), SEEK_HOLE)
//!
//! An archive has only what is between the holes, and says before it where that goes, as GNU
//! tar does. (GNU tar, "Storing Sparse Files", PAX format, version 0.1)

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use anyhow::{Context, bail};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use crate::error::Result;

/// Before a file with holes: how large it is.
pub const SIZE: &str = "GNU.sparse.size";
/// How many pieces there are.
const COUNT: &str = "GNU.sparse.numblocks";
/// Where they go: offset, length, offset, length.
pub const MAP: &str = "GNU.sparse.map";
/// What the file is called, if its entry has another name.
pub const NAME: &str = "GNU.sparse.name";
/// Of another version, in which the map is in the contents.
pub const VERSION: &str = "GNU.sparse.major";

/// Where there is something in a file: offsets and lengths.
pub type Map = Vec<(u64, u64)>;

/// Others expect a piece to begin with a block of the archive.
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
            from => from? / BLOCK * BLOCK,
        };
        if from >= size {
            break;
        }
        let to = seek(file, SeekFrom::Hole(from.max(at)))?.next_multiple_of(BLOCK).min(size);
        map.push((from, to - from));
        at = to;
    }
    seek(file, SeekFrom::Start(0))?;
    // The map of one without holes is one piece.
    Ok((map != [(0, size)] && size > 0).then_some(map))
}

/// How many bytes there are between the holes.
pub fn length(map: &Map) -> u64 {
    map.iter().map(|(_, length)| length).sum()
}

/// What is written before a file of `size` bytes with this map.
pub fn describe(map: &Map, size: u64) -> [(&'static str, Vec<u8>); 3] {
    // The last piece, which is empty, is where the file ends.
    let pieces = map.iter().copied().chain([(size, 0)]);
    let text: Vec<String> = pieces.map(|(offset, length)| format!("{offset},{length}")).collect();
    [
        (SIZE, size.to_string().into_bytes()),
        (COUNT, text.len().to_string().into_bytes()),
        (MAP, text.join(",").into_bytes()),
    ]
}

/// What [`describe`] has written: of a file of `size` bytes, of which `length` are there. It
/// may come from anybody.
pub fn parse(text: &[u8], size: u64, length_there: u64) -> Result<Map> {
    let text = std::str::from_utf8(text).context("a map of its holes that is no text")?;
    let numbers: Vec<u64> = text
        .split(',')
        .map(str::parse)
        .collect::<std::result::Result<_, _>>()
        .context("a map of its holes with something else than numbers in it")?;
    let map: Map = numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    let mut end = 0u64;
    for (offset, length) in &map {
        let fits = offset.checked_add(*length).is_some_and(|end| end <= size);
        if *offset < end || !fits {
            bail!("a map of its holes in which pieces overlap, or are beyond its end");
        }
        end = offset + length;
    }
    if length(&map) != length_there {
        bail!("a map of its holes for {} bytes, and {length_there} bytes", length(&map));
    }
    Ok(map)
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
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
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
            return Err(io::Error::other("it got shorter while it was copied; try again"));
        }
        self.piece = (offset + count as u64, left - count as u64);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::{describe, parse};

    #[test]
    fn what_is_written_of_holes_is_read_again_and_nonsense_is_not() {
        let map = vec![(0, 512), (4096, 100)];
        let [_, _, (_, text)] = describe(&map, 5000);
        assert_eq!(text, b"0,512,4096,100,5000,0");
        assert_eq!(parse(&text, 5000, 612).unwrap()[..2], map);
        for (text, size, there) in [
            ("0,512,4096,100", 4100, 612),
            ("0,512,100,100", 5000, 612),
            ("4096,100,0,512", 5000, 612),
            ("0,512", 5000, 511),
            ("18446744073709551615,2", 5000, 2),
            ("0,x", 5000, 0),
            ("", 5000, 0),
        ] {
            assert!(parse(text.as_bytes(), size, there).is_err(), "{text}");
        }
    }
}
