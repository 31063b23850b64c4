//! Day 11: the overlay is unmounted, and nobody waits for it.
//!
//! With the last process of a mount namespace go its mounts: the kernel unmounts them before that
//! process has ended, for whoever waits for it. To unmount an overlay, it first brings to the disk
//! all that is written on the file system of the upper layer, whoever has written it: nothing of an
//! overlay may be lost after that. (kernel: fs/super.c, generic_shutdown_super; overlayfs "Volatile
//! mount" is how to do without, and then a power cut may take a layer that was whole.) A neighbour
//! who copies a few gigabytes would thus hold up the end of every run.
//!
//! So the runtime keeps the namespace, and the command's end is only that. Afterwards a process
//! that nobody waits for is the last who has it. (namespaces(7): a namespace lives as long as a
//! descriptor that leads to it)

use std::fs::File;
use std::io::stdout;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::CloneFlags;
use nix::unistd::{Pid, pipe2};

use crate::explain::step;
use crate::kernel::{self, Clone};
use crate::metadata::flush;

use super::DAY;

// ANCHOR: keep
/// Keeps the mounts of `child`, whose own layer is in `dir`, until [`let_go`]. `None`: there is
/// nothing to wait for, or they cannot be kept; then they go with the child.
pub fn keep(child: Pid, dir: &Path) -> Option<File> {
    if flush::is_in_memory(dir) {
        return None;
    }
    let path = format!("/proc/{child}/ns/mnt");
    let describe = || (format!("open({path:?})"), format!("exec 3<{path}"));
    step(DAY, describe, || File::open(&path)).ok()
}

/// Has them unmounted by a process of its own. Returns at once.
pub fn let_go(mounts: File) {
    let Ok((until, ours)) = pipe2(OFlag::O_CLOEXEC) else { return };
    let Ok(null) = File::options().read(true).write(true).open("/dev/null") else { return };
    // SAFETY: what runs in the child is system calls and nothing else: other threads of this
    // process may hold locks, that of the allocator for one, which stay locked in there.
    if let Ok(Clone::Child) = unsafe { kernel::clone3(CloneFlags::empty(), None) } {
        flush::leave(&mounts, &until, &null);
        // End of file: the runtime has closed its own descriptor, after `mounts`. Whoever closes
        // the last one waits.
        while nix::unistd::read(stdout(), &mut [0]) == Err(Errno::EINTR) {}
        kernel::exit_now(0)
    }
    drop(mounts);
    drop(ours);
}
// ANCHOR_END: keep
