//! Day 16: what the kernel does with a call: what a filter returns. (seccomp(2))

use std::fmt::{self, Display};

use nix::errno::Errno;
use serde::Deserialize;

// ANCHOR: action
/// What is done with a call, as a profile says it: these are libseccomp's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Action {
    /// The kernel does what was asked for.
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    /// The same, and it is written to the log.
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
    /// The call fails, with an error number of the profile's choice.
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    /// The process gets SIGSYS, and may have a handler for it.
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
    /// Whoever traces the process decides. Without anybody the call fails, with ENOSYS.
    #[serde(rename = "SCMP_ACT_TRACE")]
    Trace,
    /// The process is killed by SIGSYS, with all its threads.
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    /// Only the thread that called is.
    #[serde(rename = "SCMP_ACT_KILL_THREAD", alias = "SCMP_ACT_KILL")]
    KillThread,
    /// Another program decides, which has a descriptor for it.
    #[serde(rename = "SCMP_ACT_NOTIFY")]
    Notify,
}
// ANCHOR_END: action

// ANCHOR: answer
/// What a filter returns: what is to be done in the upper half of it, and in the lower half a
/// number that belongs to it, such as an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer(pub u32);

impl Answer {
    /// The call is made.
    pub const ALLOW: Answer = Answer(0x7fff_0000);
    /// It is as if the kernel had no such call.
    pub const NO_SUCH_CALL: Answer = Answer::error(libc::ENOSYS as u32);
    /// The process ends.
    pub const KILL_PROCESS: Answer = Answer(0x8000_0000);

    /// The call fails with this number.
    pub const fn error(number: u32) -> Answer {
        Answer(0x0005_0000 | number)
    }

    /// The answer that a profile means by `action`, with `number` where it takes one. EPERM is
    /// what everybody means who says none.
    pub fn new(action: Action, number: Option<u32>) -> Answer {
        let number = number.unwrap_or(libc::EPERM as u32);
        match action {
            Action::Allow => Answer::ALLOW,
            Action::Log => Answer(0x7ffc_0000),
            Action::Errno => Answer::error(number),
            Action::Trap => Answer(0x0003_0000),
            Action::Trace => Answer(0x7ff0_0000 | number),
            Action::KillProcess => Answer::KILL_PROCESS,
            Action::KillThread => Answer(0),
            Action::Notify => Answer(0x7fc0_0000),
        }
    }

    /// Whether whoever traces the process decides.
    pub fn asks_the_tracer(self) -> bool {
        self.0 & 0xffff_0000 == 0x7ff0_0000
    }

    /// Whether the call is made.
    pub fn lets_it_through(self) -> bool {
        self == Answer::ALLOW || self == Answer::new(Action::Log, None)
    }
}
// ANCHOR_END: answer

impl Display for Answer {
    /// In few words: `allow`, `EPERM`, `kill the process`.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let number = self.0 & 0xffff;
        match self.0 & 0xffff_0000 {
            0x7fff_0000 => f.write_str("allow"),
            0x7ffc_0000 => f.write_str("allow, and log"),
            0x0005_0000 => match Errno::from_raw(number as i32) {
                Errno::UnknownErrno => write!(f, "error {number}"),
                errno => write!(f, "{errno:?}"),
            },
            0x0003_0000 => f.write_str("SIGSYS"),
            0x7ff0_0000 => f.write_str("ask the tracer"),
            0x7fc0_0000 => f.write_str("ask the listener"),
            0x8000_0000 => f.write_str("kill the process"),
            0 => f.write_str("kill the thread"),
            _ => write!(f, "{:#010x}", self.0),
        }
    }
}
