//! Day 10: what day 16 needs of this machine, beyond what the days before it need.

use anyhow::Context;
use nix::sys::prctl::set_no_new_privs;

use crate::error::Result;
use crate::kernel;

use super::{Found, fine};

/// Of classic BPF: return SECCOMP_RET_ALLOW. Whoever asks it may call anything.
const YES: [[u8; 8]; 1] = [if cfg!(target_endian = "little") {
    [0x06, 0, 0, 0, 0, 0, 0xff, 0x7f]
} else {
    [0, 0x06, 0, 0, 0x7f, 0xff, 0, 0]
}];

/// The kernel takes a filter: that of the thread which asks, and which is about to end.
pub fn call_filter() -> Result<Found> {
    // Then it takes no capability; which there are, has been asked before.
    set_no_new_privs().context("prctl(PR_SET_NO_NEW_PRIVS)")?;
    kernel::attach_call_filter(&YES, 0).context("seccomp(SECCOMP_SET_MODE_FILTER)")?;
    fine("takes our filters")
}
