//! Day 16: the numbers of the system calls. (syscalls(2))
//!
//! A profile has names, and the kernel has numbers. Each architecture has its own, and a kernel
//! of 64 bits runs programs of 32 bits too, which call it by other numbers: on x86-64 open is 2,
//! and for a program of 32 bits 2 is fork.

use std::collections::HashMap;

use anyhow::bail;

use crate::error::Result;

// ANCHOR: architecture
/// By whose numbers a call is made. It is the call that says it, not the machine: a program of 64
/// bits may make one of 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// 64 bits, Intel and AMD.
    X86_64,
    /// 32 bits, as on the 386.
    X86,
    /// 64 bits, ARM.
    Arm64,
    /// 32 bits, ARM.
    Arm,
}
// ANCHOR_END: architecture

/// All of them.
pub const ALL: [Architecture; 4] =
    [Architecture::X86_64, Architecture::X86, Architecture::Arm64, Architecture::Arm];

/// From here on the numbers of x86-64 are those of x32, a third set for programs with pointers of
/// 32 bits. Hardly anybody has such programs, and most kernels do not run them.
pub const X32: u32 = 0x4000_0000;

impl Architecture {
    /// That of this program, and so the one of this machine that counts.
    pub fn native() -> Result<Architecture> {
        if cfg!(target_arch = "x86_64") {
            Ok(Architecture::X86_64)
        } else if cfg!(target_arch = "aarch64") {
            Ok(Architecture::Arm64)
        } else {
            bail!(
                "system calls can be filtered on x86-64 and arm64, and this is {}; expected \
                 --security-opt seccomp=unconfined",
                std::env::consts::ARCH
            )
        }
    }

    /// What the kernel calls it, in the question that it asks a filter. (linux/audit.h)
    pub fn audit_number(self) -> u32 {
        match self {
            Architecture::X86_64 => 0xc000_003e,
            Architecture::X86 => 0x4000_0003,
            Architecture::Arm64 => 0xc000_00b7,
            Architecture::Arm => 0x4000_0028,
        }
    }

    /// What a profile calls it where it lists architectures.
    pub fn name(self) -> &'static str {
        match self {
            Architecture::X86_64 => "SCMP_ARCH_X86_64",
            Architecture::X86 => "SCMP_ARCH_X86",
            Architecture::Arm64 => "SCMP_ARCH_AARCH64",
            Architecture::Arm => "SCMP_ARCH_ARM",
        }
    }

    /// What a profile calls it where it says for which machines a rule is.
    pub fn machine(self) -> &'static str {
        match self {
            Architecture::X86_64 => "amd64",
            Architecture::X86 => "x86",
            Architecture::Arm64 => "arm64",
            Architecture::Arm => "arm",
        }
    }

    /// Whether its numbers, and the arguments of its calls, have 64 bits.
    pub fn is_wide(self) -> bool {
        matches!(self, Architecture::X86_64 | Architecture::Arm64)
    }

    /// The one whose programs the same kernel runs as well.
    pub fn sibling(self) -> Architecture {
        match self {
            Architecture::X86_64 => Architecture::X86,
            Architecture::X86 => Architecture::X86_64,
            Architecture::Arm64 => Architecture::Arm,
            Architecture::Arm => Architecture::Arm64,
        }
    }

    /// The calls that there are, with their numbers, from the lowest on. Linux 7.1.
    pub fn calls(self) -> impl Iterator<Item = (u32, &'static str)> {
        let table = match self {
            Architecture::X86_64 => include_str!("calls/x86-64.txt"),
            Architecture::X86 => include_str!("calls/x86.txt"),
            Architecture::Arm64 => include_str!("calls/arm64.txt"),
            Architecture::Arm => include_str!("calls/arm.txt"),
        };
        // A line is the number of its first call, and the names of those that follow each other.
        table.lines().flat_map(|line| {
            let (first, names) = line.split_once(' ').unwrap_or_default();
            (first.parse::<u32>().unwrap_or(0)..).zip(names.split(' '))
        })
    }

    /// The same, to look up a name.
    pub fn numbers(self) -> HashMap<&'static str, u32> {
        self.calls().map(|(number, name)| (name, number)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{ALL, Architecture};

    #[test]
    fn the_numbers_are_the_kernels() {
        let native = Architecture::native().map(Architecture::numbers).unwrap_or_default();
        for (name, number) in [
            ("read", libc::SYS_read),
            ("openat", libc::SYS_openat),
            ("clone3", libc::SYS_clone3),
            ("seccomp", libc::SYS_seccomp),
            ("execve", libc::SYS_execve),
            ("mount_setattr", libc::SYS_mount_setattr),
            ("futex_waitv", libc::SYS_futex_waitv),
        ] {
            assert_eq!(native.get(name).copied().map(i64::from), Some(number), "{name}");
        }
        for (architecture, name, number) in [
            (Architecture::X86_64, "io_pgetevents", 333),
            (Architecture::X86_64, "mseal", 462),
            (Architecture::X86, "open", 5),
            (Architecture::X86, "socketcall", 102),
            (Architecture::Arm64, "openat", 56),
            (Architecture::Arm64, "clone3", 435),
            (Architecture::Arm, "set_tls", 0xf0005),
        ] {
            assert_eq!(architecture.numbers().get(name), Some(&number), "{architecture:?} {name}");
        }
    }

    #[test]
    fn each_table_goes_up_and_has_each_name_once() {
        for architecture in ALL {
            let numbers: Vec<u32> = architecture.calls().map(|(number, _)| number).collect();
            assert!(numbers.is_sorted_by(|one, next| one < next), "{architecture:?}");
            assert_eq!(architecture.numbers().len(), numbers.len(), "{architecture:?}");
        }
    }
}
