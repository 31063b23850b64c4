//! Day 11: a file that is there as a whole or not at all. It has no name until all of it is
//! written: a copy that is broken off, by a full disk or by SIGKILL, leaves nothing that could
//! be taken for whole. (open(2), O_TMPFILE)
//!
//! Where that cannot be, it has a name aside, which SIGKILL leaves behind: on a file system without such
//! files; and, before Linux 6.10, in a user namespace.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use anyhow::{Context, bail};
use rustix::fs::{AtFlags, Mode, OFlags, linkat, openat, renameat, unlinkat};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::error::Result;
use crate::layers::sparse::Map;

/// A file that is being made.
#[derive(Debug)]
pub struct NewFile {
    file: File,
    /// Its name meanwhile, on a file system on which it needs one, and the directory.
    aside: Option<Aside>,
}

/// A name for a moment. Dropped, it is removed.
#[derive(Debug)]
struct Aside {
    dir: OwnedFd,
    name: CString,
}

impl Aside {
    fn new(dir: &OwnedFd) -> Result<Aside> {
        let mut bytes = [0; 8];
        getrandom(&mut bytes, GetRandomFlags::empty()).context("getrandom")?;
        let name = CString::new(format!(".tiny-docker-cp-{:016x}", u64::from_ne_bytes(bytes)))?;
        Ok(Aside { dir: dir.try_clone().context("dup")?, name })
    }

    fn rename(self, dir: &OwnedFd, name: &CStr) -> rustix::io::Result<()> {
        renameat(&self.dir, &self.name, dir, name)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // After the rename there is none.
        let _ = unlinkat(&self.dir, &self.name, AtFlags::empty());
    }
}

/// Whether this process may give `file` a name. Before Linux 6.10 that takes CAP_DAC_READ_SEARCH over the
/// host, which nobody has in a user namespace: then it is ENOENT, whatever the name. This name is taken.
/// (linkat(2), AT_EMPTY_PATH)
fn can_be_named(file: &OwnedFd, dir: &OwnedFd) -> bool {
    linkat(file, c"", dir, c".", AtFlags::EMPTY_PATH) == Err(Errno::EXIST)
}

impl NewFile {
    /// A file that is to be made in `dir`.
    pub fn begin(dir: &OwnedFd) -> Result<NewFile> {
        let mode = Mode::RUSR | Mode::WUSR;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        match openat(dir, ".", flags | OFlags::TMPFILE, mode) {
            Ok(file) if can_be_named(&file, dir) => Ok(NewFile { file: file.into(), aside: None }),
            // Not every file system has files without a name.
            Ok(_) | Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT) => {
                let aside = Aside::new(dir)?;
                let file = openat(dir, &aside.name, flags | OFlags::CREATE | OFlags::EXCL, mode)?;
                Ok(NewFile { file: file.into(), aside: Some(aside) })
            }
            Err(errno) => Err(errno.into()),
        }
    }

    /// The file, to say more about it.
    pub fn opened(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Writes all that `from` has. Where there are nothing but zeros it leaves a hole. Returns
    /// how many bytes there are.
    pub fn fill(&mut self, from: &mut impl Read) -> Result<u64> {
        const PIECE: usize = 64 << 10;
        static ZEROS: [u8; PIECE] = [0; PIECE];
        let (mut at, mut buffer) = (0, vec![0; PIECE]);
        loop {
            let mut count = 0;
            while count < PIECE {
                match from.read(&mut buffer[count..])? {
                    0 => break,
                    more => count += more,
                }
            }
            let piece = &buffer[..count];
            if piece != &ZEROS[..count] {
                self.file.write_all_at(piece, at)?;
            }
            at += count as u64;
            if count < PIECE {
                break;
            }
        }
        self.file.set_len(at)?;
        Ok(at)
    }

    /// The same of a file with holes, of which `from` has what is between them. Returns its size.
    pub fn fill_between_holes(&mut self, from: &mut impl Read, map: &Map, size: u64) -> Result<u64> {
        let mut buffer = vec![0; 64 << 10];
        for (offset, length) in map {
            let (mut at, end) = (*offset, offset + length);
            while at < end {
                let most = buffer.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
                match from.read(&mut buffer[..most])? {
                    0 => bail!("{} bytes of it did not come", end - at),
                    count => {
                        self.file.write_all_at(&buffer[..count], at)?;
                        at += count as u64;
                    }
                }
            }
        }
        self.file.set_len(size)?;
        Ok(size)
    }

    /// Gives the file its name, `name` in `dir`, in place of what has it. (linkat(2))
    pub fn publish(self, dir: &OwnedFd, name: &CStr) -> Result<()> {
        let outcome = match self.aside {
            Some(aside) => aside.rename(dir, name),
            None => match linkat(&self.file, c"", dir, name, AtFlags::EMPTY_PATH) {
                Err(Errno::EXIST) => {
                    let aside = Aside::new(dir)?;
                    linkat(&self.file, c"", dir, &aside.name, AtFlags::EMPTY_PATH)?;
                    aside.rename(dir, name)
                }
                outcome => outcome,
            },
        };
        outcome.with_context(|| format!("give it the name {name:?}"))
    }
}
