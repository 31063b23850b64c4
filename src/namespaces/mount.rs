//! Day 2: mount(2), narrated. On a root of its own the container's mounts are made by
//! descriptor instead: day 3, `rootfs/mount.rs`.

use std::fmt::Debug;

use nix::mount::MsFlags;

use crate::error::Result;
use crate::explain::step;

/// What no kernel file system needs: set-user-ID programs, devices, programs.
pub const HARMLESS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// Mounts a new file system of type `kind` at `target`. `kind` is also what
/// /proc/mounts shows as its device; `options` are the file system's own.
/// (mount(2), "Creating a new mount")
pub fn mount(day: u8, kind: &str, target: &str, flags: MsFlags, options: &str) -> Result<()> {
    let describe = || {
        let words: Vec<String> = option_words(flags)
            .into_iter()
            .chain((!options.is_empty()).then(|| options.to_string()))
            .collect();
        (
            call(kind, target, kind, flags, options),
            format!("mount -t {kind} -o {} {kind} {target}", words.join(",")),
        )
    };
    let options = Some(options).filter(|options| !options.is_empty());
    step(day, describe, || nix::mount::mount(Some(kind), target, Some(kind), flags, options))
}

fn call(source: impl Debug, target: impl Debug, kind: &str, flags: MsFlags, options: &str) -> String {
    let names: Vec<&str> = flags.iter_names().map(|(name, _)| name).collect();
    let flags = if names.is_empty() { "0".into() } else { names.join("|") };
    format!("mount({source:?}, {target:?}, {kind:?}, {flags}, {options:?})")
}

/// `flags` as mount(8) spells them after `-o`.
fn option_words(flags: MsFlags) -> Vec<String> {
    let words = [
        (MsFlags::MS_RDONLY, "ro"),
        (MsFlags::MS_NOSUID, "nosuid"),
        (MsFlags::MS_NODEV, "nodev"),
        (MsFlags::MS_NOEXEC, "noexec"),
    ];
    words.iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, word)| word.to_string()).collect()
}
