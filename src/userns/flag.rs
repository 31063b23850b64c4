//! Day 17: what `--userns` says.

use crate::ids::Ids;

/// How many ids a container has, if nobody says it: as many as numbers of 16 bits.
pub const USUAL_COUNT: u32 = 1 << 16;

/// What `--userns` asks for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mode {
    /// Ids that are nobody else's.
    Auto,
    /// No user namespace.
    Host,
    /// These.
    Given {
        /// Its users.
        uids: Ids,
        /// Its groups.
        gids: Ids,
    },
}

const EXPECTED: &str = "expected auto, host, or UID:GID[:COUNT], the ids of the host that 0 is to be and how many \
    follow: 100000:100000:65536";

// ANCHOR: parse
/// `auto`, `host`, or `UID:GID[:COUNT]`.
pub fn parse(text: &str) -> Result<Mode, String> {
    // ANCHOR: day17_task1_parse_solution
    match text {
        "auto" => return Ok(Mode::Auto),
        "host" => return Ok(Mode::Host),
        _ => {}
    }
    let numbers = text.split(':').map(number).collect::<Option<Vec<u32>>>();
    let (uid, gid, count) = match numbers.as_deref() {
        Some([uid, gid]) => (*uid, *gid, USUAL_COUNT),
        Some([uid, gid, count]) => (*uid, *gid, *count),
        _ => return Err(EXPECTED.into()),
    };
    // 4294967295 is -1, which is no id. (setresuid(2))
    let ends = |first: u32| u64::from(first) + u64::from(count) > u64::from(u32::MAX);
    if count == 0 || ends(uid) || ends(gid) {
        return Err(format!("{count} ids from there on are none, or more than there are; {EXPECTED}"));
    }
    if uid == 0 || gid == 0 {
        return Err(format!("root of the host cannot be among them; {EXPECTED}"));
    }
    let ids = |outside| Ids { outside, count };
    Ok(Mode::Given { uids: ids(uid), gids: ids(gid) })
    // ANCHOR_END: day17_task1_parse_solution
}
// ANCHOR_END: parse

/// Digits alone: `+5` is none, which Rust would take for 5.
fn number(word: &str) -> Option<u32> {
    word.parse().ok().filter(|_| word.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::{Mode, parse};
    use crate::ids::Ids;

    #[test]
    fn what_is_typed_is_a_mode() {
        assert_eq!(parse("auto"), Ok(Mode::Auto));
        assert_eq!(parse("host"), Ok(Mode::Host));
        let ids = |outside, count| Ids { outside, count };
        assert_eq!(parse("7:8"), Ok(Mode::Given { uids: ids(7, 65536), gids: ids(8, 65536) }));
        assert_eq!(parse("7:8:9"), Ok(Mode::Given { uids: ids(7, 9), gids: ids(8, 9) }));
        let most = "4294967294:1:1";
        assert_eq!(parse(most), Ok(Mode::Given { uids: ids(4294967294, 1), gids: ids(1, 1) }));
        for text in ["", "none", "1", "1:", ":1", "+1:1", "1:1:0", "0:1", "1:0", "4294967295:1:1", "1:1:1:1"]
        {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
