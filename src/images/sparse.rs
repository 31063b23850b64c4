//! Day 12: files with holes in a tar archive. GNU tar writes only their data, and a map of
//! where that belongs: in four formats. (GNU tar manual, "Sparse Formats")

use anyhow::{Context, bail};

use crate::error::Result;
use crate::images::header::{BLOCK, LONGEST_EXTENSION, number};

/// Where the data of a file with holes belongs.
#[derive(Debug, Default, PartialEq)]
pub struct Sparse {
    /// The size of the file, in bytes.
    pub size: u64,
    /// Where each piece of data begins, and its length, in ascending order.
    pub map: Vec<(u64, u64)>,
}

impl Sparse {
    fn checked(self) -> Result<Sparse> {
        let mut end = 0;
        for (offset, length) in &self.map {
            if *offset < end {
                bail!("pieces of a sparse file lie over each other");
            }
            end = offset.checked_add(*length).context("a piece of a sparse file ends beyond all")?;
        }
        if end > self.size {
            bail!("a sparse file of {} bytes has data up to {end}", self.size);
        }
        Ok(self)
    }
}

/// The oldest: in the header, and in blocks that follow it.
pub fn of_gnu(header: &[u8; BLOCK], mut read: impl FnMut(&mut [u8]) -> Result<()>) -> Result<Sparse> {
    let size = number(&header[483..495])?.try_into().context("its size is negative")?;
    let mut map = vec![];
    let (mut pieces, mut goes_on) = (header[386..482].to_vec(), header[482] != 0);
    loop {
        for piece in pieces.chunks_exact(24).filter(|piece| piece[0] != 0) {
            map.push((number(&piece[..12])?.try_into()?, number(&piece[12..])?.try_into()?));
        }
        if !goes_on {
            return Sparse { size, map }.checked();
        }
        if map.len() as u64 * 24 > LONGEST_EXTENSION {
            bail!("a sparse file has more than {} pieces", map.len());
        }
        let mut block = [0; BLOCK];
        read(&mut block)?;
        (pieces, goes_on) = (block[..504].to_vec(), block[504] != 0);
    }
}

/// The PAX records that say it.
#[derive(Debug, Default)]
pub struct Records {
    is_first: bool,
    name: Option<Vec<u8>>,
    size: Option<u64>,
    numbers: Vec<u64>,
}

impl Records {
    /// Takes up the record `GNU.sparse.KEY=VALUE`.
    pub fn take(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let text = || anyhow::Ok(std::str::from_utf8(value)?);
        match key {
            b"major" => self.is_first = text()? == "1",
            b"name" => self.name = Some(value.to_vec()),
            b"size" | b"realsize" => self.size = Some(text()?.parse()?),
            // Format 0.0 has a record for each number, 0.1 one for all.
            b"offset" | b"numbytes" => self.numbers.push(text()?.parse()?),
            b"map" => {
                self.numbers = text()?.split(',').map(str::parse).collect::<std::result::Result<_, _>>()?
            }
            _ => {}
        }
        Ok(())
    }

    /// The map, and the true name; `None`: the file has no holes. In format 1.0 the map is the
    /// beginning of the data, which `block` reads.
    pub fn finish(
        self,
        block: impl FnMut() -> Result<[u8; BLOCK]>,
    ) -> Result<Option<(Sparse, Option<Vec<u8>>)>> {
        let Some(size) = self.size else { return Ok(None) };
        let numbers = if self.is_first { read_map(block)? } else { self.numbers };
        let map = numbers.chunks(2).map(|pair| match pair {
            [offset, length] => Ok((*offset, *length)),
            _ => bail!("the map of a sparse file has an odd number of numbers"),
        });
        let map = map.collect::<Result<_>>()?;
        Ok(Some((Sparse { size, map }.checked()?, self.name)))
    }
}

/// Decimal numbers, one a line, filled up to whole blocks: how many pieces, and their places.
fn read_map(mut block: impl FnMut() -> Result<[u8; BLOCK]>) -> Result<Vec<u64>> {
    let (mut numbers, mut line, mut wanted) = (vec![], String::new(), None);
    loop {
        for byte in block()? {
            match byte {
                _ if wanted == Some(numbers.len() as u64) => {}
                b'0'..=b'9' if line.len() < 20 => line.push(byte.into()),
                b'\n' => {
                    let number: u64 = line.parse().context("the map of a sparse file lacks a number")?;
                    line.clear();
                    match wanted {
                        None => wanted = Some(number.checked_mul(2).context("too many pieces")?),
                        Some(_) => numbers.push(number),
                    }
                }
                _ => bail!("the map of a sparse file is no list of numbers"),
            }
        }
        if wanted == Some(numbers.len() as u64) {
            return Ok(numbers);
        }
        if numbers.len() as u64 * 12 > LONGEST_EXTENSION {
            bail!("a sparse file has more than {} pieces", numbers.len() / 2);
        }
    }
}
