//! Whose ids a container's are: as data. The record keeps it, and `run`, `exec`, `cp` and a restart
//! apply the same. (day 17; user_namespaces(7))

use std::sync::OnceLock;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::files;

// ANCHOR: user_namespace
/// The user namespace of a container: which ids of the host its ids are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UserNamespace {
    /// Its users.
    pub uids: Ids,
    /// Its groups.
    pub gids: Ids,
    /// Whether nobody has named them: the runtime has chosen ids that are nobody else's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub auto: bool,
}

/// A range of ids: from 0 inside, from `outside` on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    /// What 0 is on the host.
    pub outside: u32,
    /// How many there are.
    pub count: u32,
}
// ANCHOR_END: user_namespace

impl Ids {
    /// The line that uid_map and gid_map take: inside, outside, count.
    pub fn line(&self) -> String {
        format!("0 {} {}", self.outside, self.count)
    }

    /// What `id`, one of inside, is on the host; `None`: nothing.
    pub fn outside(&self, id: u32) -> Option<u32> {
        (id < self.count).then(|| self.outside.checked_add(id)).flatten()
    }

    /// Whether the two have an id of the host in common.
    pub fn overlaps(&self, other: &Ids) -> bool {
        let end = |ids: &Ids| u64::from(ids.outside) + u64::from(ids.count);
        u64::from(self.outside) < end(other) && u64::from(other.outside) < end(self)
    }
}

/// Looks which ids this process knows. Before anybody asks from a root of their own, whose /proc, if there
/// is one, may say anything.
pub fn look() {
    known();
}

/// Whether this process's ids are not the host's: then it is root, if at all, of less than the host.
pub fn are_not_the_hosts() -> bool {
    // A kernel without user namespaces has no such file.
    known().as_deref().is_some_and(|map| !is_all(map))
}

/// Whether there is one user here, root, and nobody else: what a person without ids of their own can have.
pub fn are_one() -> bool {
    known().as_deref().is_some_and(is_one)
}

/// The map of this process's users.
fn known() -> &'static Option<Vec<u8>> {
    static MAP: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    MAP.get_or_init(|| files::read("/proc/self/uid_map").ok())
}

/// What it takes to have more.
pub const HOW_TO_HAVE_MORE: &str = "expected ids of your own in /etc/subuid and /etc/subgid: usermod \
    --add-subuids 100000-165535 --add-subgids 100000-165535 NAME, as root; and end the process td-namespaces";

/// Why nobody else can be had, where the kernel has said so.
pub fn explain(error: impl Into<anyhow::Error>) -> anyhow::Error {
    let error = error.into();
    let number = error.downcast_ref().and_then(std::io::Error::raw_os_error);
    let is_invalid = error.downcast_ref() == Some(&Errno::EINVAL) || number == Some(Errno::EINVAL as i32);
    if is_invalid && are_one() {
        return error
            .context(format!("without ids of one's own there is only user 0 here; {HOW_TO_HAVE_MORE}"));
    }
    error
}

/// Whether a map has one id.
fn is_one(map: &[u8]) -> bool {
    matches!(words(map).collect::<Vec<_>>()[..], [b"0", _, b"1"])
}

/// Whether a map has all ids, each as what it is.
fn is_all(map: &[u8]) -> bool {
    words(map).eq([&b"0"[..], b"0", b"4294967295"])
}

fn words(map: &[u8]) -> impl Iterator<Item = &[u8]> {
    map.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::{Ids, is_all, is_one};

    #[test]
    fn ranges_that_touch_do_not_overlap() {
        let ids = |outside, count| Ids { outside, count };
        for (one, other, expected) in [
            (ids(0, 10), ids(10, 10), false),
            (ids(0, 11), ids(10, 10), true),
            (ids(10, 1), ids(0, 100), true),
            (ids(u32::MAX, 1), ids(u32::MAX - 1, 2), true),
            (ids(u32::MAX, 1), ids(0, 1), false),
        ] {
            assert_eq!(one.overlaps(&other), expected, "{one:?} {other:?}");
            assert_eq!(other.overlaps(&one), expected, "{other:?} {one:?}");
        }
        assert_eq!(ids(100, 2).outside(1), Some(101));
        assert_eq!(ids(100, 2).outside(2), None);
    }

    #[test]
    fn the_hosts_map_is_the_one_with_all_ids() {
        assert!(is_all(b"         0          0 4294967295\n"));
        assert!(!is_all(b"         0       1000          1\n         1     100000      65536\n"));
        assert!(!is_all(b""), "none yet");
        assert!(is_one(b"         0       1000          1\n"));
        assert!(!is_one(b"         0       1000          1\n         1     100000      65536\n"));
        assert!(!is_one(b"         0          0 4294967295\n") && !is_one(b""));
    }
}
