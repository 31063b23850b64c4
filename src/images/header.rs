//! Day 12: the header of an entry of a tar archive, and what its fields are written like. (tar(5))

use anyhow::{Context, bail};

use crate::error::Result;

/// What headers and data are counted in, in bytes.
pub const BLOCK: usize = 512;

/// The most that stands before an entry, in bytes: names, records, the map of a sparse file.
pub const LONGEST_EXTENSION: u64 = 1 << 20;

/// A number in a header: octal digits; or, if the first bit is set, the bits of it.
pub fn number(field: &[u8]) -> Result<i64> {
    if field[0] & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let start = if negative { -1i128 } else { 0 };
        let first = i128::from(field[0] & 0x3f) | if negative { !0x3f } else { 0 };
        let fold = |value: i128, byte: &u8| value.checked_mul(256).map(|value| value | i128::from(*byte));
        let value = field[1..].iter().try_fold(first.max(start << 7), fold);
        return Ok(value.context("a number is too long")?.try_into()?);
    }
    let text = field.split(|byte| *byte == 0).next().unwrap_or_default().trim_ascii();
    if text.is_empty() {
        return Ok(0);
    }
    let text = std::str::from_utf8(text).context("a number is no digits")?;
    i64::from_str_radix(text, 8).with_context(|| format!("{text:?} is no octal number"))
}

/// Every header carries the sum of its bytes, with the sum itself counted as spaces. Some
/// archivers took them for signed.
pub fn check_sum(header: &[u8; BLOCK]) -> Result<()> {
    let bytes =
        header.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { b' ' } else { *byte });
    let (unsigned, signed) = bytes.fold((0, 0), |(unsigned, signed), byte| {
        (unsigned + i64::from(byte), signed + i64::from(byte as i8))
    });
    let said = number(&header[148..156])?;
    if said != unsigned && said != signed {
        bail!(
            "a header's sum is {said}, and its bytes' {unsigned}: this is no tar archive, or a damaged one"
        );
    }
    Ok(())
}

/// The name in a header: POSIX has two fields for it.
pub fn name_of(header: &[u8; BLOCK]) -> Vec<u8> {
    let (name, prefix) = (until_nul(&header[..100]), until_nul(&header[345..500]));
    if &header[257..263] == b"ustar\0" && !prefix.is_empty() {
        return [prefix, b"/", name].concat();
    }
    name.to_vec()
}

/// `bytes` up to the first zero.
pub fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// How many bytes follow data of `size` bytes, up to a whole block.
pub fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}
