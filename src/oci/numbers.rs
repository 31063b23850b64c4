//! Day 18: words and lists of config.json, as the numbers that the kernel takes.

use std::collections::BTreeSet;

use anyhow::Context;

use crate::error::Result;

/// Processors and memory nodes have numbers below this one: so many has the C library's `cpu_set_t`, and so
/// many nodes has the kernel at most. (CPU_SET(3); Linux, `CONFIG_NODES_SHIFT`)
pub const MOST: usize = 1024;

/// The names in `table`.
pub fn names<T, const N: usize>(table: &[(&'static str, T); N]) -> [&'static str; N] {
    table.each_ref().map(|(name, _)| *name)
}

/// What `word` means, by `table`. Errors: it is not in there; `what` is the field that has it.
pub fn of_word<T: Copy, const N: usize>(what: &str, table: &[(&'static str, T); N], word: &str) -> Result<T> {
    let found = table.iter().find(|(name, _)| *name == word);
    let value = found.map(|(_, value)| *value);
    value
        .with_context(|| format!("{what}: there is no {word:?}; expected one of {}", names(table).join(", ")))
}

/// All of `words` in one number, in which each is a bit. Errors: as [`of_word`].
pub fn of_flags<const N: usize>(
    what: &str,
    table: &[(&'static str, i32); N],
    words: &[String],
) -> Result<i32> {
    words.iter().try_fold(0, |flags, word| Ok(flags | of_word(what, table, word)?))
}

/// The numbers of a list such as `0-3,7`; an empty one has none. Errors: it is no such list, or has a
/// number that is not below [`MOST`].
pub fn of_list(what: &str, list: &str) -> Result<BTreeSet<usize>> {
    if list.is_empty() {
        return Ok(BTreeSet::new());
    }
    let below = |text| range(text).filter(|(_, last)| *last < MOST).map(|(first, last)| first..=last);
    let numbers = list.split(',').map(below).collect::<Option<Vec<_>>>();
    let numbers = numbers.with_context(|| {
        format!("{what} is {list:?}; expected numbers and ranges, all below {MOST}, such as 0-3,7")
    })?;
    Ok(numbers.into_iter().flatten().collect())
}

/// A part of such a list: its first number, and its last.
pub fn range(text: &str) -> Option<(usize, usize)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some((number(first)?, number(last)?)).filter(|(first, last)| first <= last)
}

/// Digits alone: no `+`, and no blanks.
fn number(text: &str) -> Option<usize> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_numbers_and_ranges() {
        let numbers = |list: &str| of_list("it", list).map(|set| set.into_iter().collect::<Vec<_>>());
        assert_eq!(numbers("0-3,7").unwrap_or_default(), [0, 1, 2, 3, 7]);
        assert_eq!(numbers("2,1,1-2").unwrap_or_default(), [1, 2], "each once");
        assert_eq!(numbers("").unwrap_or_default(), [0; 0]);
        assert_eq!(numbers("1023").unwrap_or_default(), [1023]);
        for wrong in ["3-1", "1,", ",", "a", "+1", " 1", "0-", "-1", "0-1-2", "1024", "0-1024", "0x1"] {
            let error = numbers(wrong).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(&format!("it is {wrong:?}; expected")), "{wrong}: {error}");
        }
    }
}
