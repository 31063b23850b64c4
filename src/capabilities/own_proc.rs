//! Day 15: a /proc that nobody can have prepared.
//!
//! What is mounted at a container's /proc, and on the files in it, is the container's, or that
//! of another one with the same volume: what is written to /proc/self/attr/exec or to a file of
//! /proc/sys may end up elsewhere, or nowhere. (CVE-2019-16884, CVE-2019-19921, CVE-2025-52881)
//! And there /proc/sys is read-only. So what has to be written is written in a proc file system
//! made for it, which is attached nowhere, and to which no path leads. (fsopen(2))

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use anyhow::Context;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use crate::error::Result;
use crate::explain::step;
use crate::rootfs::mount::{HARMLESS, make};

use super::DAY;

/// A proc file system of this process's pid namespace.
#[derive(Debug)]
pub struct OwnProc(OwnedFd);

impl OwnProc {
    /// A new one. It takes CAP_SYS_ADMIN, and it is gone when this value is.
    pub fn make() -> Result<OwnProc> {
        let describe = || {
            let call = "fsopen(\"proc\"), fsmount(…): a proc file system that is attached nowhere";
            (call.into(), "mount -t proc proc /mnt".into())
        };
        step(DAY, describe, || make("proc", HARMLESS, "")).map(OwnProc)
    }

    /// Opens a file of it. Nothing can be mounted in there, and what is a link is none of the files
    /// that are needed.
    fn open(&self, path: &str, flags: OFlags) -> rustix::io::Result<File> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        openat2(&self.0, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve).map(File::from)
    }

    /// Whether there is such a file: which ones there are depends on the kernel.
    pub fn has(&self, path: &str) -> bool {
        self.open(path, OFlags::PATH).is_ok()
    }

    /// Writes `text` to a file of it, all at once: the kernel takes each write for a whole value.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        self.open(path, OFlags::WRONLY)
            .with_context(|| format!("open /proc/{path}"))?
            .write_all(text.as_bytes())?;
        Ok(())
    }

    /// What a file of it says.
    pub fn read(&self, path: &str) -> Result<String> {
        let mut text = String::new();
        let file = self.open(path, OFlags::RDONLY);
        file.with_context(|| format!("open /proc/{path}"))?.take(1 << 16).read_to_string(&mut text)?;
        Ok(text)
    }
}
