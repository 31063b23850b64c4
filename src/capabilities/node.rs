//! Day 15: what a node of /dev is, and what a process may want with the device behind it.

use std::path::PathBuf;

// ANCHOR: node
/// What kind of device; the numbers are those that the kernel tells the filter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// One that is read and written in blocks, such as a disk: `b`.
    Block = 1,
    /// Any other: `c`.
    Character = 2,
}

/// What a process wants with a device: to make a node for it, to read, to write.
/// (`BPF_DEVCG_ACC_…` of linux/bpf.h)
pub const MKNOD: u32 = 1;
/// See [`MKNOD`].
pub const READ: u32 = 2;
/// See [`MKNOD`].
pub const WRITE: u32 = 4;

/// A node of the container's /dev: a name for a device. What counts is the kind and the two
/// numbers; the kernel knows the device by these. (mknod(2))
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// What it is called on the host.
    pub host: PathBuf,
    /// Its path, below /dev.
    pub target: PathBuf,
    /// Block or character.
    pub kind: Kind,
    /// Which driver.
    pub major: u32,
    /// Which of its devices.
    pub minor: u32,
    /// Who may open it: the twelve bits.
    pub mode: u32,
    /// Whose it is.
    pub uid: u32,
    /// See `uid`.
    pub gid: u32,
    /// What the device filter lets the container do: see [`MKNOD`].
    pub access: u32,
}
// ANCHOR_END: node
