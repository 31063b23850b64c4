//! Whose ids a container's are: as data. The record keeps it, and `run`, `exec`, `cp` and a restart
//! apply the same. (day 17; user_namespaces(7))

use serde::{Deserialize, Serialize};

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

#[cfg(test)]
mod tests {
    use super::Ids;

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
}
