//! Day 5: terminals. The container's is a pseudo-terminal: a pair of ends, of
//! which the command has the one that behaves like a terminal, and the runtime
//! the other, where a person would sit. (pty(7))

use std::io::{stderr, stdin, stdout};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::CloneFlags;
use nix::sys::signal::SigSet;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{dup2_stdout, pipe2};
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, makedev, openat};
use rustix::process::{ioctl_tiocsctty, setsid};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

use crate::error::Result;
use crate::explain::step;
use crate::kernel::{self, Clone};
use crate::logs::rights;
use crate::rootfs::devices::make_console;
use crate::rootfs::mount::{Dir, take_open};

const DAY: u8 = 5;

// ANCHOR: open
/// Child, in its mount namespace: opens a new pseudo-terminal of the devpts in `dev`,
/// which is the container's own /dev (`None`: it has the host's), and makes it this
/// process's terminal, as large as the user's if it `has_user`. Returns the runtime's
/// end and the command's.
///
/// A session has at most one controlling terminal, the one whose Ctrl-C it gets,
/// and only the leader of a session that has none can take it. (tty_ioctl(4))
pub fn open(dev: Option<Dir>, has_user: bool) -> Result<(OwnedFd, OwnedFd)> {
    // ANCHOR: day5_task5_open_solution
    let open = || match &dev {
        Some(dev) => openat(dev, dev.name_of("/dev/pts/ptmx"), PTMX, Mode::empty()),
        None => openat(CWD, "/dev/ptmx", PTMX, Mode::empty()),
    };
    let ours = step(DAY, || (r#"open("/dev/pts/ptmx")"#.into(), "script -qc … /dev/null".into()), open)?;
    unlockpt(&ours).context("unlockpt")?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let theirs = ioctl_tiocgptpeer(&ours, flags).context("ioctl(TIOCGPTPEER)")?;
    let describe = || ("setsid(), ioctl(TIOCSCTTY)".into(), "setsid --ctty".into());
    step(DAY, describe, || {
        setsid()?;
        ioctl_tiocsctty(&theirs)
    })?;
    // Now, and not when the parent gets to it: the command may ask first of all.
    if has_user {
        copy_size(&ours);
    }
    // Where programs look for it that have no other name for it.
    if let Some(dev) = &dev {
        make_console(dev, take_open(DAY, theirs.as_fd(), "the terminal")?)?;
    }
    Ok((ours, theirs))
    // ANCHOR_END: day5_task5_open_solution
}
// ANCHOR_END: open

/// Is it a pseudo-terminal? What runs in a container may have put something else in its place,
/// and the runtime is about to read from it. (pts(4): character device 5, 2)
pub fn check(ours: &OwnedFd) -> Result<()> {
    let found = fstat(ours).context("look at the terminal")?;
    if FileType::from_raw_mode(found.st_mode) != FileType::CharacterDevice || found.st_rdev != makedev(5, 2) {
        bail!("the container's /dev/ptmx makes no terminals: somebody in it has replaced it; omit -t");
    }
    Ok(())
}

/// How the master of a new pseudo-terminal is opened.
const PTMX: OFlags = OFlags::RDWR.union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// Sends an open file to the process at the other end of `socket`, which gets a
/// descriptor of its own for it. (unix(7), SCM_RIGHTS)
pub fn send(socket: &UnixStream, file: BorrowedFd) -> Result<()> {
    let describe = || ("sendmsg(SCM_RIGHTS): the terminal, to the runtime".into(), "(no shell can)".into());
    step(DAY, describe, || rights::send(socket, &[file]))
}

/// Takes what [`send`] sent.
pub fn receive(socket: &UnixStream) -> Result<OwnedFd> {
    let files = rights::receive(socket).context("receive the terminal")?;
    files.into_iter().next().context("the container sent no terminal")
}

// ANCHOR: raw
/// The user's terminal in raw mode: every key goes to the container as it is
/// typed, Ctrl-C too, and nothing is echoed here. (termios(3), "Raw mode")
///
/// Dropping it gives the terminal back as it was; and so does the end of this
/// process, whatever that is. A guard sees to it, a process that does nothing but
/// wait for this one.
#[derive(Debug)]
pub struct RawMode {
    guard: OwnedFd,
    release: Option<OwnedFd>,
}

impl RawMode {
    /// Puts the terminal that is stdin into raw mode. This process must have one
    /// thread.
    pub fn enter() -> Result<RawMode> {
        // ANCHOR: day5_task5_enter_solution
        let before = tcgetattr(stdin()).context("tcgetattr")?;
        let (released, release) = pipe2(OFlag::O_CLOEXEC).context("make a pipe")?;
        let describe =
            || ("clone3(no flags): a guard for the terminal".into(), "trap 'stty sane' EXIT".into());
        // SAFETY: the pumps, this process's other threads, are not started yet.
        let guard = match step(DAY, describe, || unsafe { kernel::clone3(CloneFlags::empty(), None) })? {
            Clone::Child => give_back(released, &before),
            Clone::Parent(_, guard) => guard,
        };
        let mut raw = before.clone();
        raw.make_raw();
        step(
            DAY,
            || ("tcsetattr(stdin, raw)".into(), "stty raw -echo".into()),
            || tcsetattr(stdin(), OptionalActions::Now, &raw),
        )?;
        Ok(RawMode { guard, release: Some(release) })
        // ANCHOR_END: day5_task5_enter_solution
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        self.release = None;
        let _ = waitid(Id::PIDFd(self.guard.as_fd()), WaitPidFlag::WEXITED);
    }
}

/// The guard. It waits for the end of a pipe, which the kernel makes when it
/// closes the files of whoever holds the other end, also after SIGKILL.
fn give_back(released: OwnedFd, before: &Termios) -> ! {
    // Nothing else stays open here, least of all the container's lock.
    let _ = dup2_stdout(&released);
    // SAFETY: this process ends with exit_now, and uses none of them until then.
    let _ = unsafe { kernel::close_inherited_files() };
    // By then the shell may have the terminal again, and this process be in the
    // background: it is not to be stopped for what it does there. (SIGTTOU)
    let _ = SigSet::all().thread_block();
    while nix::unistd::read(stdout(), &mut [0]) == Err(Errno::EINTR) {}
    let _ = tcsetattr(stdin(), OptionalActions::Now, before);
    kernel::exit_now(0)
}
// ANCHOR_END: raw

// ANCHOR: copy_size
/// Makes `terminal` as large as the user's, if there is one. The kernel tells its
/// programs by SIGWINCH. A container whose terminal has no size is better than none, so
/// nothing here is an error. (tty_ioctl(4), TIOCSWINSZ)
pub fn copy_size(terminal: impl AsFd) {
    let sizes = [tcgetwinsize(stdin()), tcgetwinsize(stdout()), tcgetwinsize(stderr())];
    if let Some(size) = sizes.into_iter().find_map(|size| size.ok()) {
        let describe = || {
            (
                format!("ioctl(TIOCSWINSZ, {}x{})", size.ws_col, size.ws_row),
                format!("stty rows {} cols {}", size.ws_row, size.ws_col),
            )
        };
        let _ = step(DAY, describe, || tcsetwinsize(terminal, size));
    }
}
// ANCHOR_END: copy_size
