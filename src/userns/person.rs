//! Day 17: a person who is not root, and whose ids in /etc/subuid and /etc/subgid are theirs to give to
//! containers. (subuid(5))

use std::fs;
use std::io::ErrorKind;

use anyhow::{Context, bail};
use nix::unistd::{Gid, Uid, User, getegid, geteuid};

use crate::error::Result;
use crate::ids::Ids;

use super::ranges::entries;

/// Somebody who is not root.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Person {
    /// Who it is: root inside.
    pub uid: Uid,
    /// See `uid`.
    pub gid: Gid,
    /// Their users and groups, from 1 on inside; `None`: they are root inside, and there is nobody else.
    pub ids: Option<(Ids, Ids)>,
}

impl Person {
    // ANCHOR: who_calls
    /// Who calls. (subuid(5))
    pub fn who_calls() -> Result<Person> {
        let (uid, gid) = (geteuid(), getegid());
        let name = User::from_uid(uid).ok().flatten().map(|user| user.name).unwrap_or_default();
        let read = |path: &str, own: u32| match fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            text => match ids_of(&text.with_context(|| format!("read {path}"))?, &name, uid) {
                Some(ids) => check(&ids, own).with_context(|| path.to_string()).map(|()| Some(ids)),
                None => Ok(None),
            },
        };
        let ids = match (read("/etc/subuid", uid.as_raw())?, read("/etc/subgid", gid.as_raw())?) {
            (Some(uids), Some(gids)) => Some((uids, gids)),
            (None, None) => None,
            _ => bail!(
                "user {name:?} has ids in only one of /etc/subuid and /etc/subgid; expected a line {name}:100000:65536 \
                 in both (usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name})"
            ),
        };
        Ok(Person { uid, gid, ids })
    }
    // ANCHOR_END: who_calls
}

/// Errors for ids that a person cannot give to containers: 0 inside is `own` already, and the host's root is
/// nobody's to give. And terminals are group 5's.
fn check(ids: &Ids, own: u32) -> Result<()> {
    let Ids { outside, count } = ids;
    let has = |id: u32| Ids { outside: id, count: 1 }.overlaps(ids);
    if has(0) || has(own) || *count < 5 || *count == u32::MAX {
        bail!(
            "{outside}:{count} is a range of root's or of your own id, or too small, or has all ids there are; \
             expected 65536 ids that nobody else has, such as 100000:65536"
        );
    }
    Ok(())
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

    use super::{check, ids_of};
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

    #[test]
    fn nobody_gives_root_or_themselves_to_a_container() {
        let is_refused = |outside, count| check(&Ids { outside, count }, 1500).is_err();
        assert!(!is_refused(100_000, 65_536) && !is_refused(1501, 5));
        for (outside, count) in [(0, 10), (1400, 200), (1496, 5), (500_000, 4), (1, u32::MAX)] {
            assert!(is_refused(outside, count), "{outside}:{count}");
        }
    }
}
