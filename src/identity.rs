//! Whose the command is: the user that it runs as, and its standard streams. The child sees
//! to both right before it becomes the command.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::fstat;
use nix::sys::statfs::{FsType, fstatfs};
use nix::unistd::{Gid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, fchown, setgid, setgroups, setuid};

use crate::error::Result;
use crate::explain::{self, step};
use crate::files;
use crate::ids;

/// The three kinds of ids that decide what a process may do. (credentials(7))
#[derive(Debug, PartialEq)]
pub struct User {
    /// User id.
    pub uid: Uid,
    /// Primary group id.
    pub gid: Gid,
    /// Supplementary group ids, all of them.
    pub groups: Vec<Gid>,
}

/// Makes `stdio` the standard streams of this process, and so of the command.
pub fn hand_over(stdio: &[Option<OwnedFd>; 3], user: Option<&User>) -> Result<()> {
    explain::keep_stderr();
    for (number, stream) in stdio.iter().enumerate() {
        let Some(stream) = stream else { continue };
        let (name, by_hand) = [("stdin", "exec <…"), ("stdout", "exec >…"), ("stderr", "exec 2>…")][number];
        let describe = || (format!("dup2(its {name}, {number})"), by_hand.into());
        step(5, describe, || match number {
            0 => dup2_stdin(stream),
            1 => dup2_stdout(stream),
            _ => dup2_stderr(stream),
        })?;
    }
    user.map_or(Ok(()), |user| make_over(stdio, user))
}

/// Makes the standard streams over to `user`. Whoever opens /dev/stdin by that name
/// opens the file behind it anew, and then its owner and its mode count.
///
/// That goes for what has no other name: a pipe from `|`, and what was made for this
/// container. A file, a named pipe or a terminal of the host stays whose it is, for its
/// new owner would be whoever has that number on the host; and what is for everybody,
/// /dev/null above all, needs no owner. A socket cannot be opened by name at all.
fn make_over(stdio: &[Option<OwnedFd>; 3], user: &User) -> Result<()> {
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let streams = [(stdin.as_fd(), "stdin"), (stdout.as_fd(), "stdout"), (stderr.as_fd(), "stderr")];
    for ((stream, name), made) in streams.into_iter().zip(stdio) {
        make_one_over(stream, name, made.is_some(), (user.uid, None));
    }
    Ok(())
}

/// The same before they are the standard streams of anybody. To a group as well: root of a user namespace
/// has power over what is of a user *and* a group that it knows. (day 17)
pub fn make_over_before(stdio: &[Option<OwnedFd>; 3], to: (Uid, Gid)) {
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let streams = [(stdin.as_fd(), "stdin"), (stdout.as_fd(), "stdout"), (stderr.as_fd(), "stderr")];
    for ((own, name), made) in streams.into_iter().zip(stdio) {
        make_one_over(made.as_ref().map_or(own, AsFd::as_fd), name, made.is_some(), (to.0, Some(to.1)));
    }
}

/// One of them. `made`: for this container.
fn make_one_over(stream: BorrowedFd, name: &str, made: bool, (to, group): (Uid, Option<Gid>)) {
    // A stream that is closed needs nothing.
    let Ok(found) = fstat(stream) else { return };
    let is_theirs = found.st_uid == to.as_raw() && group.is_none_or(|group| found.st_gid == group.as_raw());
    if is_theirs || found.st_mode & 0o006 != 0 {
        return;
    }
    if made || is_unnamed_pipe(stream) {
        let describe = || (format!("fchown({name}, {to})"), format!("chown {to} /dev/{name}"));
        // Without it the stream works too, but for that name.
        let _ = step(3, describe, || fchown(stream, Some(to), group));
    }
}

/// Whether this is a pipe that lies in the kernel's own file system of pipes, where
/// nothing has a name. (pipe(7))
fn is_unnamed_pipe(stream: BorrowedFd) -> bool {
    const PIPEFS: FsType = FsType(0x5049_5045);
    fstatfs(stream).is_ok_and(|found| found.filesystem_type() == PIPEFS)
}

/// Makes this process root of the user namespace that it is in. Who it was before is nobody in there.
/// (day 17; user_namespaces(7))
pub fn become_root_inside() -> Result<()> {
    let describe = || {
        let by_hand = "setpriv --clear-groups --regid=0 --reuid=0 …";
        ("setgroups([]), setgid(0), setuid(0)".into(), by_hand.into())
    };
    step(17, describe, || {
        set_groups(&[], || files::read("/proc/self/setgroups").is_ok_and(|says| says == b"deny\n"))?;
        setgid(Gid::from_raw(0))?;
        setuid(Uid::from_raw(0))
    })
}

/// The same in the user namespace `users`, which it joins. (day 17; setns(2))
pub fn join_users(users: &OwnedFd) -> Result<()> {
    let describe = || {
        let call = "setns(/proc/PID/ns/user of its process, CLONE_NEWUSER)";
        (call.into(), "nsenter --target PID --user".into())
    };
    step(17, describe, || setns(users, CloneFlags::CLONE_NEWUSER))?;
    become_root_inside()
}

/// Gives up this process's identity for `user`'s. Groups first: whoever is no
/// longer root may not change them.
pub fn assume(user: &User) -> Result<()> {
    let describe = || {
        let User { uid, gid, groups } = user;
        let list: Vec<String> = groups.iter().map(Gid::to_string).collect();
        let by_hand = match list.as_slice() {
            [] => format!("setpriv --reuid={uid} --regid={gid} --clear-groups"),
            list => format!("setpriv --reuid={uid} --regid={gid} --groups={}", list.join(",")),
        };
        (format!("setgroups([{}]), setgid({gid}), setuid({uid})", list.join(", ")), by_hand)
    };
    step(3, describe, || {
        set_groups(&user.groups, ids::are_one)?;
        setgid(user.gid)?;
        setuid(user.uid)
    })
    .map_err(ids::explain)
}

/// Whoever has made a namespace of one id had to give this call up for all in it. The groups that are kept
/// instead have no number here. (day 17; user_namespaces(7), "The /proc/pid/setgroups file")
fn set_groups(groups: &[Gid], is_given_up: impl FnOnce() -> bool) -> nix::Result<()> {
    match setgroups(groups) {
        Err(Errno::EPERM) if is_given_up() => Ok(()),
        done => done,
    }
}
