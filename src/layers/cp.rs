//! Day 11: `cp`, between a container and the host, with Docker's rules. Whoever reads the
//! files packs them, whoever writes them unpacks them, and a pipe is in between: one of the
//! two is a child whose `/` is the container's ([`super::inside`]). (docker-cp(1))

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use anyhow::{Context, bail};
use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat2, readlinkat, statat,
};
use rustix::io::Errno;

use crate::error::{self, COMMAND_FAILED, Result};
use crate::explain::{shell, step};
use crate::kernel;
use crate::layers::inside::{Inside, Place};
use crate::layers::pack::{self, Source, show};
use crate::layers::streams::{Counted, In, Out, Progress, is_broken_pipe};
use crate::layers::tree::{Identity, identity, kind};
use crate::layers::unpack::{First, Owners, Target, TooEarly, unpack};
use crate::metadata::output::human;
use crate::metadata::state::State;
use crate::stream;

use super::DAY;

/// Copy files between a container and the host
///
/// Where SRC or DST is in a container it is written CONTAINER:PATH. A path of the host that
/// has a colon is written with its directory: ./a:b.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Cp {
    #[command(flatten)]
    state: State,

    /// Keep the owners (without it, copies belong to whoever runs this, and in the container to
    /// root)
    #[arg(short, long)]
    archive: bool,

    /// If SRC is a symbolic link, copy what it leads to
    #[arg(short = 'L', long)]
    follow_link: bool,

    /// Do not say what was copied (it is only said on a terminal)
    #[arg(short, long)]
    quiet: bool,

    /// What to copy; -: a tar archive from stdin, to be unpacked in DST
    src: OsString,

    /// Where to; -: as a tar archive to stdout
    dst: OsString,
}

const EXAMPLES: &str = "\
Examples:
  tiny-docker cp web:/etc/nginx .             (makes ./nginx)
  tiny-docker cp site/. web:/srv              (what is in site, into /srv)
  tiny-docker cp web:/var/log - | tar -t      (a tar archive)";

impl Cp {
    /// Copies. Returns the exit code: 1 if not all was copied.
    pub fn execute(self) -> Result<u8> {
        Ok(match self.copy() {
            Ok(()) => 0,
            Err(error) => {
                error::print(&error);
                COMMAND_FAILED
            }
        })
    }

    fn copy(&self) -> Result<()> {
        // What whoever started us has left open is not for the child in the container.
        // (CVE-2024-21626)
        let describe = || ("close_range(3, ~0, 0)".into(), "exec 3>&- 4>&- …".into());
        // SAFETY: none of the runtime's own is open yet.
        step(DAY, describe, || unsafe { kernel::close_inherited_files() })?;
        let (src, dst) = (side(&self.src), side(&self.dst));
        for (name, word) in [("SRC", &self.src), ("DST", &self.dst)] {
            if word.is_empty() {
                bail!("{name} is empty; expected a path, such as web:/etc/hosts or ./hosts");
            }
        }
        let (bytes, to) = match (src, dst) {
            (Side::Container(id, src), Side::Host(dst)) => (self.out_of(&id, src, dst)?, dst),
            (Side::Host(src), Side::Container(id, dst)) => (self.into(&id, src, dst)?, &*self.dst),
            (Side::Container(..), Side::Container(..)) => bail!(
                "both SRC and DST are in a container; expected one of them on the host: copy in two steps, or \
                 tiny-docker cp A:/from - | tiny-docker cp - B:/to"
            ),
            (Side::Host(_), Side::Host(_)) => bail!(
                "neither SRC nor DST is in a container; expected one of them as CONTAINER:PATH, such as \
                 web:/etc/hosts"
            ),
        };
        if self.is_watched() && to != "-" {
            let said = format!("Successfully copied {} to {}\n", human(bytes, 3), to.display());
            let _ = stream::write_all(io::stderr(), said.as_bytes());
        }
        Ok(())
    }

    /// Does a person see what is said of the copy?
    fn is_watched(&self) -> bool {
        !self.quiet && io::stdout().is_terminal()
    }

    /// See [`Progress`].
    fn progress(&self, words: &'static str) -> Progress {
        Progress::new(Some(words).filter(|_| self.is_watched()))
    }

    // ANCHOR: out_of
    /// Copies `src` of the container `id` to `dst` on the host. Returns how many bytes.
    fn out_of(&self, id: &str, src: &OsStr, dst: &OsStr) -> Result<u64> {
        let to_stdout = dst == "-";
        if to_stdout && io::stdout().is_terminal() {
            bail!("stdout is a terminal, and an archive is no text; send it to a file or a program");
        }
        let place = Place::of(&self.state, id)?;
        let (read, write) = pipe2(OFlag::O_CLOEXEC).context("make a pipe")?;
        let mut read = Some(read);
        let inside = Inside::begin(&place, || {
            // The child has copies of both ends: with its own reading end open, it would never
            // hear that nobody reads.
            drop(read.take());
            let out =
                if to_stdout { io::stdout().as_fd().try_clone_to_owned()? } else { write.try_clone()? };
            let source = find(&inner(src), self.follow_link)?;
            send(&source, src, Out(out), to_stdout, &made_for_the_container())
        })?;
        drop(write);
        let outcome = match read.filter(|_| !to_stdout) {
            Some(read) => {
                let describe = || ("unpack the archive".into(), untar(dst));
                let files = |first: &First| destination(dst, first);
                let mut progress = self.progress("Copying from container - ");
                let archive = Counted { stream: File::from(read), progress: &mut progress };
                step(DAY, describe, || unpack(archive, self.owners(false), files))
            }
            None => Ok(0),
        };
        // If the child failed, the archive has ended too early; and its own words say why.
        match (outcome, inside.end()) {
            (Err(error), _) if !error.is::<TooEarly>() => Err(error),
            (_, Err(error)) => Err(error.context(format!("container {id}"))),
            (outcome, Ok(())) => outcome,
        }
    }
    // ANCHOR_END: out_of

    // ANCHOR: into
    /// Copies `src` of the host to `dst` in the container `id`. Returns how many bytes.
    fn into(&self, id: &str, src: &OsStr, dst: &OsStr) -> Result<u64> {
        let from_stdin = src == "-";
        if from_stdin && io::stdin().is_terminal() {
            bail!(
                "stdin is a terminal; expected a tar archive, such as from: tar -c . | tiny-docker cp - {id}:/srv"
            );
        }
        // Before there is a child, for the most frequent mistake.
        let mut source = if from_stdin { None } else { Some(find(src, self.follow_link)?) };
        let place = Place::of(&self.state, id)?;
        let (read, write) = pipe2(OFlag::O_CLOEXEC).context("make a pipe")?;
        let mut write = Some(write);
        let inside = Inside::begin(&place, || {
            // Of what is open here nothing on the host is for the child: neither this end of
            // the pipe nor the directory.
            drop((write.take(), source.take()));
            let archive = if from_stdin { None } else { Some(read.try_clone()?) };
            self.receive(archive, &inner(dst), &place)
        })?;
        drop(read);
        let mut progress = self.progress("Copying to container - ");
        let outcome = match (source, write) {
            (Some(source), Some(write)) => {
                let out = Counted { stream: Out(write), progress: &mut progress };
                send(&source, src, out, false, &[])
            }
            _ => Ok(()),
        };
        match (outcome, inside.end()) {
            // If the child failed, nobody read on; its own words say why.
            (Err(error), Err(_)) if !is_broken_pipe(&error) => Err(error),
            (_, Err(error)) => Err(error.context(format!("container {id}"))),
            (outcome, Ok(())) => outcome.map(|()| progress.count()),
        }
    }
    // ANCHOR_END: into

    /// In the child: unpacks what comes from `archive` (`None`: from stdin) to `dst`.
    fn receive(&self, archive: Option<OwnedFd>, dst: &OsStr, place: &Place) -> Result<()> {
        let is_kept = |target: Target| is_kept(target, dst, &place.memory());
        let owners = self.owners(archive.is_none());
        let describe = || ("unpack the archive".into(), untar(dst));
        let unpacked = step(DAY, describe, || match archive {
            None => unpack(In(io::stdin()), owners, |_| is_kept(directory(dst)?)),
            Some(archive) => unpack(File::from(archive), owners, |first| is_kept(destination(dst, first)?)),
        });
        unpacked.map(drop)
    }

    /// Whose the copies are. What is in an archive of the user's own is for the archive to say.
    fn owners(&self, from_stdin: bool) -> Owners {
        if self.archive || from_stdin { Owners::Archived } else { Owners::Ours }
    }
}

/// Packs `source`, which was called `path`.
fn send(
    source: &Source,
    path: &OsStr,
    out: impl Write,
    to_stdout: bool,
    left_empty: &[Identity],
) -> Result<()> {
    let describe = || ("pack the archive".into(), tar(path));
    match step(DAY, describe, || pack::pack(source, out, to_stdout, left_empty)) {
        Err(error) if to_stdout && is_broken_pipe(&error) => {
            bail!("whoever reads the archive has stopped: not all of it was written")
        }
        outcome => outcome,
    }
}

/// What a shell does to write the archive.
fn tar(src: &OsStr) -> String {
    format!("tar -c {}", shell(src))
}

/// And to unpack it.
fn untar(dst: &OsStr) -> String {
    format!("tar -x -C {}", shell(dst))
}

/// Where one of the two paths is.
enum Side<'a> {
    Host(&'a OsStr),
    Container(String, &'a OsStr),
}

// ANCHOR: side
/// As Docker tells them apart: before the first colon is a container, unless the word begins
/// with a slash or a dot.
fn side(word: &OsStr) -> Side<'_> {
    // ANCHOR: day11_task5_side_solution
    let bytes = word.as_bytes();
    match bytes.iter().position(|byte| *byte == b':') {
        Some(at) if at > 0 && !bytes.starts_with(b"/") && !bytes.starts_with(b".") => {
            let id = String::from_utf8_lossy(&bytes[..at]).into_owned();
            Side::Container(id, OsStr::from_bytes(&bytes[at + 1..]))
        }
        _ => Side::Host(word),
    }
    // ANCHOR_END: day11_task5_side_solution
}
// ANCHOR_END: side

/// `path` in a container: from its `/`, however it is written.
fn inner(path: &OsStr) -> OsString {
    let start = path.as_bytes().iter().position(|byte| *byte != b'/').unwrap_or(path.len());
    OsString::from_vec([b"/", &path.as_bytes()[start..]].concat())
}

/// The two parts of a path: the directory, and the last name in it; and whether it says by a
/// slash at its end that it is a directory. The name is `.` where there is none, and where it
/// is `..`.
fn split(path: &[u8]) -> (Vec<u8>, Vec<u8>, bool) {
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
    let (bare, slash) = (&path[..end], end < path.len());
    let at = bare.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    match &bare[at..] {
        b"" | b"." | b".." => {
            (if path.is_empty() { b".".to_vec() } else { path.to_vec() }, b".".to_vec(), true)
        }
        name if at == 0 => (b".".to_vec(), name.to_vec(), slash),
        name => (bare[..at].to_vec(), name.to_vec(), slash),
    }
}

// ANCHOR: find
/// Opens what is to be packed: in the child, where every path is the container's, or on the
/// host.
fn find(path: &OsStr, follow: bool) -> Result<Source> {
    let (dir, base, slash) = split(path.as_bytes());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = open(&dir, flags).with_context(|| format!("open the directory of {path:?}"))?;
    let name = CString::new(base.clone())?;
    // A slash at the end asks for what a link leads to.
    let follow = follow || slash;
    let nofollow = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
    let found = match statat(&dir, &name, nofollow) {
        Err(Errno::NOENT) => bail!("there is no {path:?}: {}", io::Error::from(Errno::NOENT)),
        found => found.with_context(|| format!("look at {path:?}"))?,
    };
    if slash && kind(&found) != FileType::Directory {
        bail!("{path:?} is not a directory, and ends with a slash as one; expected it without the slash");
    }
    Ok(Source { dir, name, base, follow })
}
// ANCHOR_END: find

fn open(path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
}

/// The directories that are the runtime's work and not the container's: the kernel's /proc and
/// /sys, and /dev. Of what contains them they are copied empty.
fn made_for_the_container() -> Vec<Identity> {
    let root = statat(CWD, "/", AtFlags::empty());
    let found = ["/proc", "/sys", "/dev"].map(|path| statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW));
    let is_mount = |dir: &Stat| root.as_ref().is_ok_and(|root| root.st_dev != dir.st_dev);
    found.into_iter().flatten().filter(is_mount).map(|dir| identity(&dir)).collect()
}

// ANCHOR: destination
/// Docker's rules: where a copy goes that is called `path`, and what it is called there.
/// (docker-cp(1), "DESCRIPTION")
fn destination(path: &OsStr, first: &First) -> Result<Target> {
    // ANCHOR: day11_task5_destination_solution
    let (_, _, wants_directory) = split(path.as_bytes());
    match open(path.as_bytes(), OFlags::PATH | OFlags::CLOEXEC) {
        Ok(found) => match kind(&fstat(&found)?) {
            FileType::Directory => {
                // What is in a directory, or the thing itself by its own name.
                let name = if first.base == b"." { vec![] } else { first.base.clone() };
                return Ok(Target { top: found, renamed: Some((first.base.clone(), name)) });
            }
            _ if first.is_dir => {
                bail!("{path:?} is a file, and a directory cannot be copied onto it; name another place")
            }
            FileType::RegularFile => {}
            _ => bail!("{path:?} is neither a directory nor a file; expected one of them, or a new name"),
        },
        Err(Errno::NOENT) if wants_directory && !first.is_dir => {
            bail!(
                "there is no directory {path:?}; make it first, or omit the slash to make a file of that name"
            )
        }
        Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno).with_context(|| format!("open {path:?}")),
    }
    let (dir, name) = behind_links(path)?;
    Ok(Target { top: dir, renamed: Some((first.base.clone(), name)) })
    // ANCHOR_END: day11_task5_destination_solution
}
// ANCHOR_END: destination

/// The directory and the name that `path` means in the end, if it is a link or a chain of
/// them: that name need not be there.
fn behind_links(path: &OsStr) -> Result<(OwnedFd, Vec<u8>)> {
    /// As many as the kernel follows. (path_resolution(7))
    const MOST: usize = 40;
    let (mut at, mut rest) = (None::<OwnedFd>, path.as_bytes().to_vec());
    for _ in 0..MOST {
        let (dir, name, _) = split(&rest);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let from = at.as_ref().map_or(CWD, |at| at.as_fd());
        let opened = match openat2(from, &dir, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS) {
            Err(Errno::NOENT) => {
                bail!("there is no directory {}, in which {path:?} is to be made; make it first", show(&dir))
            }
            opened => opened.with_context(|| format!("open {}", show(&dir)))?,
        };
        match readlinkat(&opened, &name[..], vec![]) {
            Ok(target) => rest = target.into_bytes(),
            // No link, or nothing.
            Err(Errno::INVAL | Errno::NOENT) => return Ok((opened, name)),
            Err(errno) => return Err(errno).with_context(|| format!("look at {path:?}")),
        }
        at = Some(opened);
    }
    bail!("{path:?} is a link to a link, and so on for more than {MOST} times")
}

/// `target`, unless that is memory of a container that has ended: see [`Place::memory`].
fn is_kept(target: Target, path: &OsStr, memory: &[u64]) -> Result<Target> {
    if memory.contains(&fstat(&target.top)?.st_dev) {
        bail!(
            "{path:?} is in memory, which the container no longer has; expected a place on a disk, or a container \
             that runs"
        );
    }
    Ok(target)
}

/// The directory `path`, into which an archive is unpacked as it is.
fn directory(path: &OsStr) -> Result<Target> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = open(path.as_bytes(), flags)
        .with_context(|| format!("open {path:?}; expected a directory, in which the archive is unpacked"))?;
    Ok(Target { top, renamed: None })
}
