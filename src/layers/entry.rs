//! Day 11: what an archive says of a file, and what is in it. It may come from anybody.

use std::io::Read;

use anyhow::{Context, bail};
use rustix::fs::makedev;
use tar::{Entry, Header};

use crate::error::Result;
use crate::layers::new_file::NewFile;
use crate::layers::pack::{XATTR, XATTR_IN_HEX};
use crate::layers::sparse;

/// Writes into `file` what is in it. Returns how many bytes that are, holes included.
pub fn contents(entry: &mut Entry<impl Read>, file: &mut NewFile) -> Result<u64> {
    if value_of(entry, sparse::VERSION)?.is_some() {
        bail!(
            "its holes are described in a way that is not understood here; expected an archive without that \
             (no -S), or with tar --sparse-version=0.1"
        );
    }
    let there = entry.size();
    if let Some(map) = value_of(entry, sparse::MAP)? {
        let size = value_of(entry, sparse::SIZE)?.context("a map of its holes, and no size")?;
        let size = String::from_utf8_lossy(&size).parse().context("a size that is no number")?;
        return file.fill_between_holes(entry, &sparse::parse(&map, size, there)?, size);
    }
    let bytes = file.fill(entry)?;
    // The crate takes the end of the stream for the end of the file.
    if bytes != there {
        bail!("{bytes} of its {there} bytes came");
    }
    Ok(bytes)
}

/// What is said under `key` in the records before an entry.
pub fn value_of(entry: &mut Entry<impl Read>, key: &str) -> Result<Option<Vec<u8>>> {
    let Some(records) = entry.pax_extensions()? else { return Ok(None) };
    for record in records {
        let record = record?;
        if record.key_bytes() == key.as_bytes() {
            return Ok(Some(record.value_bytes().to_vec()));
        }
    }
    Ok(None)
}

/// What the file may do, if it is a program. (capabilities(7))
pub fn capability(entry: &mut Entry<impl Read>) -> Result<Option<Vec<u8>>> {
    match value_of(entry, XATTR_IN_HEX)? {
        Some(hex) => {
            let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
            Ok(hex.chunks(2).map(byte).collect())
        }
        None => value_of(entry, XATTR),
    }
}

/// Seconds and nanoseconds of a time such as `1700000000.123`, or `-0.5`: half a second
/// before 1970, which the kernel calls -1 s and 500,000,000 ns.
pub fn time(text: &[u8]) -> Option<(i64, i64)> {
    const SECOND: i128 = 1_000_000_000;
    let text = std::str::from_utf8(text).ok()?;
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let part: i128 = format!("{part:0<9}").get(..9)?.parse().ok()?;
    let whole = whole.parse::<i64>().map(i128::from).ok()? * SECOND;
    let time = if text.starts_with('-') { whole - part } else { whole + part };
    Some((i64::try_from(time.div_euclid(SECOND)).ok()?, time.rem_euclid(SECOND) as i64))
}

/// Which device it is.
pub fn device_number(header: &Header) -> Result<u64> {
    let number = |field: Option<u32>| field.context("a device without a number");
    Ok(makedev(number(header.device_major()?)?, number(header.device_minor()?)?))
}

#[cfg(test)]
mod tests {
    use super::time;

    #[test]
    fn a_time_before_1970_counts_backwards() {
        assert_eq!(time(b"1700000000.123"), Some((1_700_000_000, 123_000_000)));
        assert_eq!(time(b"0"), Some((0, 0)));
        assert_eq!(time(b"-0.5"), Some((-1, 500_000_000)));
        assert_eq!(time(b"-1.000000001"), Some((-2, 999_999_999)));
        // More digits than the kernel has, and what is no time.
        assert_eq!(time(b"1.1234567899"), Some((1, 123_456_789)));
        for text in ["", "x", "1.x", "99999999999999999999", "\u{e9}.\u{e9}"] {
            assert_eq!(time(text.as_bytes()), None, "{text}");
        }
    }
}
