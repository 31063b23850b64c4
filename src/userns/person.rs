//! Day 17: a person who is not root, and whose ids in /etc/subuid and /etc/subgid are theirs to give to
//! containers. (subuid(5))

use std::fs;

use anyhow::bail;
use nix::unistd::{Gid, Uid, User, getegid, geteuid};

use crate::error::Result;
use crate::ids::Ids;

use super::ranges::entries;

/// Somebody who is not root, and has ids.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Person {
    /// Who it is: root inside.
    pub uid: Uid,
    /// See `uid`.
    pub gid: Gid,
    /// Their users, from 1 on inside.
    pub uids: Ids,
    /// Their groups.
    pub gids: Ids,
}

impl Person {
    // ANCHOR: who_calls
    /// Who calls; `None`: somebody without ids of their own. (subuid(5))
    pub fn who_calls() -> Result<Option<Person>> {
        let (uid, gid) = (geteuid(), getegid());
        let name = User::from_uid(uid).ok().flatten().map(|user| user.name).unwrap_or_default();
        let uids = ids_of(&fs::read("/etc/subuid").unwrap_or_default(), &name, uid);
        let gids = ids_of(&fs::read("/etc/subgid").unwrap_or_default(), &name, uid);
        match (uids, gids) {
            (Some(uids), Some(gids)) => Ok(Some(Person { uid, gid, uids, gids })),
            (None, None) => Ok(None),
            _ => bail!(
                "user {name:?} has ids in only one of /etc/subuid and /etc/subgid; expected a line {name}:100000:65536 \
                 in both (usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name})"
            ),
        }
    }
    // ANCHOR_END: who_calls
}

/// The first range that `text` has for a user, whom it calls by name or by number.
fn ids_of(text: &[u8], name: &str, uid: Uid) -> Option<Ids> {
    // ANCHOR: day17_task6_ids_of_solution
    let number = uid.to_string();
    let is_theirs = |who: &[u8]| who == number.as_bytes() || (!name.is_empty() && who == name.as_bytes());
    entries(text).into_iter().find(|(who, ids)| is_theirs(who) && ids.count > 0).map(|(_, ids)| ids)
    // ANCHOR_END: day17_task6_ids_of_solution
}

#[cfg(test)]
mod tests {
    use nix::unistd::Uid;

    use super::ids_of;
    use crate::ids::Ids;

    #[test]
    fn a_person_is_called_by_name_or_by_number() {
        let ids = |outside| Some(Ids { outside, count: 65536 });
        let text = b"ann:100000:65536\n1001:200000:65536\nann:300000:65536\n";
        assert_eq!(ids_of(text, "ann", Uid::from_raw(1000)), ids(100_000));
        assert_eq!(ids_of(text, "bob", Uid::from_raw(1001)), ids(200_000));
        assert_eq!(ids_of(text, "", Uid::from_raw(1002)), None);
        assert_eq!(ids_of(b":1:1\n", "", Uid::from_raw(1002)), None);
    }
}
