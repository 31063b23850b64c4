//! Day 15: which devices the processes of a cgroup may use.
//!
//! Root in a container may make a node for any device, the host's disk too. What keeps it from
//! opening one is a program that the kernel runs before each open and each mknod of a process in
//! the container's cgroup. With cgroups of version 2 no file lists what is allowed: the runtime
//! writes the program, in the machine language of eBPF. Here it is a list of rules, one after the
//! other. (kernel: admin-guide/cgroup-v2, "Device controller"; bpf/standardization/instruction-set)

use std::fmt::{self, Display};
use std::os::fd::{AsFd, OwnedFd};

use anyhow::Context;
use rustix::fs::{FileType, Stat, fstat, major, minor};

use crate::container::Container;
use crate::error::Result;
use crate::explain::step;
use crate::kernel;
use crate::rootfs::mount::Flags;

use super::DAY;
use super::node::{Kind, MKNOD, Node, READ, WRITE};
use super::sets;

// ANCHOR: rule
/// All that a process may want with a device.
const ALL: u32 = MKNOD | READ | WRITE;

/// Allows something. What no rule allows is refused.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    /// With devices of this kind
    pub kind: Kind,
    /// and this major number; `None`: any
    pub major: Option<u32>,
    /// and this minor number; `None`: any
    pub minor: Option<u32>,
    /// this is allowed, or a part of it.
    pub access: u32,
}
// ANCHOR_END: rule

impl Rule {
    const fn character(major: Option<u32>, minor: Option<u32>, access: u32) -> Rule {
        Rule { kind: Kind::Character, major, minor, access }
    }
}

// ANCHOR: usual
/// What every container may, as with Docker. (runc, `libcontainer/specconv/spec_linux.go`,
/// `AllowedDevices`)
const USUAL: [Rule; 11] = [
    // Any node can be made. To open it is another question.
    Rule::character(None, None, MKNOD),
    Rule { kind: Kind::Block, major: None, minor: None, access: MKNOD },
    // null, zero, full, random, urandom
    Rule::character(Some(1), Some(3), ALL),
    Rule::character(Some(1), Some(5), ALL),
    Rule::character(Some(1), Some(7), ALL),
    Rule::character(Some(1), Some(8), ALL),
    Rule::character(Some(1), Some(9), ALL),
    // tty, console, ptmx, and the pseudo-terminals
    Rule::character(Some(5), Some(0), ALL),
    Rule::character(Some(5), Some(1), ALL),
    Rule::character(Some(5), Some(2), ALL),
    Rule::character(Some(136), None, ALL),
];
// ANCHOR_END: usual

// ANCHOR: rules
/// The rules for a container that has `nodes` of the host's, and `console` as its /dev/console.
pub fn rules(nodes: &[Node], console: Option<&OwnedFd>) -> Vec<Rule> {
    // ANCHOR: day15_task3_rules_solution
    let mut rules = USUAL.to_vec();
    for node in nodes {
        let (major, minor) = (Some(node.major), Some(node.minor));
        rules.push(Rule { kind: node.kind, major, minor, access: node.access });
    }
    rules.extend(console.and_then(rule_for_the_console));
    rules
    // ANCHOR_END: day15_task3_rules_solution
}
// ANCHOR_END: rules

/// Without a terminal of its own it may have the caller's, which need not be a pseudo-terminal.
fn rule_for_the_console(console: &OwnedFd) -> Option<Rule> {
    let Stat { st_mode, st_rdev, .. } = fstat(console).ok()?;
    let is_one = FileType::from_raw_mode(st_mode) == FileType::CharacterDevice;
    is_one.then(|| Rule::character(Some(major(st_rdev)), Some(minor(st_rdev)), READ | WRITE))
}

// ANCHOR: instruction
/// An instruction of eBPF. The machine has eleven registers, r0 to r10, of 64 bits each.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Instruction {
    /// What to do.
    code: u8,
    /// With which register,
    target: u8,
    /// and which other one.
    source: u8,
    /// Where: so many bytes from the address in a register, or so many instructions ahead.
    offset: i16,
    /// With which number.
    number: i32,
}

/// What the program returns.
const ANSWER: u8 = 0;
/// Where the question is: `struct bpf_cgroup_dev_ctx`, three numbers of 32 bits. (linux/bpf.h)
const QUESTION: u8 = 1;
/// Its parts, once they are loaded.
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// target = the 32 bits that are `offset` bytes into the question
const fn load(target: u8, offset: i16) -> Instruction {
    Instruction { code: 0x61, target, source: QUESTION, offset, number: 0 }
}

/// target = number
const fn set(target: u8, number: i32) -> Instruction {
    Instruction { code: 0xb7, target, source: 0, offset: 0, number }
}

/// target = target & number
const fn and(target: u8, number: i32) -> Instruction {
    Instruction { code: 0x57, target, source: 0, offset: 0, number }
}

/// target = target >> number
const fn shift_right(target: u8, number: i32) -> Instruction {
    Instruction { code: 0x77, target, source: 0, offset: 0, number }
}

/// If target is not number: on to the next rule. How far that is, [`program`] says.
const fn next_unless(target: u8, number: u32) -> Instruction {
    Instruction { code: 0x55, target, source: 0, offset: 0, number: number as i32 }
}

/// If target has any of the bits of number: on to the next rule.
const fn next_if_any(target: u8, number: u32) -> Instruction {
    Instruction { code: 0x45, target, source: 0, offset: 0, number: number as i32 }
}

/// Returns what is in [`ANSWER`]: 1 is yes, 0 is no, and the process gets EPERM.
const EXIT: Instruction = Instruction { code: 0x95, target: 0, source: 0, offset: 0, number: 0 };

impl Instruction {
    /// As the kernel has it in memory.
    fn bytes(self) -> [u8; 8] {
        let registers = if cfg!(target_endian = "little") {
            self.source << 4 | self.target
        } else {
            self.target << 4 | self.source
        };
        let [o1, o2] = self.offset.to_ne_bytes();
        let [n1, n2, n3, n4] = self.number.to_ne_bytes();
        [self.code, registers, o1, o2, n1, n2, n3, n4]
    }
}
// ANCHOR_END: instruction

// ANCHOR: program
/// The program that follows `rules`.
fn program(rules: &[Rule]) -> Vec<Instruction> {
    // ANCHOR: day15_task3_program_solution
    // The first number is both: what is wanted in the upper half, the kind in the lower.
    let mut program = vec![
        load(KIND, 0),
        and(KIND, 0xffff),
        load(ACCESS, 0),
        shift_right(ACCESS, 16),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    for rule in rules {
        program.extend(tests(rule));
        program.extend([set(ANSWER, 1), EXIT]);
    }
    program.extend([set(ANSWER, 0), EXIT]);
    program
    // ANCHOR_END: day15_task3_program_solution
}

/// What must be so for `rule` to allow it. The first test that fails goes on behind the two
/// instructions that say yes.
fn tests(rule: &Rule) -> Vec<Instruction> {
    // ANCHOR: day15_task3_tests_solution
    let mut tests = vec![next_unless(KIND, rule.kind as u32)];
    tests.extend(rule.major.map(|major| next_unless(MAJOR, major)));
    tests.extend(rule.minor.map(|minor| next_unless(MINOR, minor)));
    // Whoever wants to read and write needs both of one rule.
    let refused = ALL & !rule.access;
    if refused != 0 {
        tests.push(next_if_any(ACCESS, refused));
    }
    for (behind, test) in tests.iter_mut().rev().enumerate() {
        test.offset = behind as i16 + 2;
    }
    tests
    // ANCHOR_END: day15_task3_tests_solution
}
// ANCHOR_END: program

// ANCHOR: attach
/// Attaches the program for `rules` to `cgroup`, before anybody is in there. It is in force for
/// whoever is born in there or comes later, as by `exec`, and goes with the cgroup.
pub fn attach(cgroup: &OwnedFd, rules: &[Rule]) -> Result<()> {
    // ANCHOR: day15_task3_attach_solution
    let program: Vec<[u8; 8]> = program(rules).into_iter().map(Instruction::bytes).collect();
    let describe = || {
        let call = format!("bpf(BPF_PROG_LOAD, BPF_PROG_TYPE_CGROUP_DEVICE, {} instructions)", program.len());
        let listed: Vec<String> = rules.iter().map(Rule::to_string).collect();
        (call, format!("bpftool prog load FILE PIN, which allows {}", listed.join(", ")))
    };
    let loaded = step(DAY, describe, || kernel::load_device_program(&program, &mut []))
        .with_context(|| why_not(&program))?;
    let describe = || {
        let call = "bpf(BPF_PROG_ATTACH, BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI)".into();
        (call, "bpftool cgroup attach CGROUP device pinned PIN multi".into())
    };
    step(DAY, describe, || kernel::attach_device_program(cgroup.as_fd(), loaded.as_fd()))
        .context("the container's devices cannot be limited to those that it is to have")
    // ANCHOR_END: day15_task3_attach_solution
}
// ANCHOR_END: attach

/// What the kernel has to say of a program that it did not take: the end of it.
fn why_not(program: &[[u8; 8]]) -> String {
    let mut log = vec![0; 64 << 10];
    // (Once more: to write all that down takes longer than the rest.)
    let _ = kernel::load_device_program(program, &mut log);
    let text = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = text.trim_end_matches('\0').lines().collect();
    let last = &lines[lines.len().saturating_sub(5)..];
    let why = if last.is_empty() { "no more".into() } else { format!("{:?}", last.join("; ")) };
    format!(
        "this kernel did not take the program that limits the container to its devices, and says {why}; \
         it needs CONFIG_CGROUP_BPF, and this process CAP_SYS_ADMIN"
    )
}

/// For a container that has no cgroup, and so no filter: a node in its root opens no device, and
/// [`sets::of`] lets it make none elsewhere. Unless somebody has asked for just that.
pub fn do_without(container: &mut Container) -> Result<()> {
    container.parts.unfiltered = true;
    let Some(root) = &container.parts.root else { return Ok(()) };
    if sets::any_device_was_asked_for(&container.plan.privileges) {
        return Ok(());
    }
    let describe = || {
        let call = "mount_setattr(root, MOUNT_ATTR_NODEV, AT_RECURSIVE)".into();
        (call, "mount -o remount,bind,nodev …".into())
    };
    step(DAY, describe, || kernel::add_mount_flags_below(root.as_fd(), Flags::MOUNT_ATTR_NODEV.bits()))
}

impl Display for Rule {
    /// As Docker and the kernel's older filter write it: `c 1:3 rwm`.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let number = |number: Option<u32>| number.map_or("*".into(), |number| number.to_string());
        let kind = if self.kind == Kind::Block { 'b' } else { 'c' };
        write!(f, "{kind} {}:{} ", number(self.major), number(self.minor))?;
        [(READ, "r"), (WRITE, "w"), (MKNOD, "m")]
            .into_iter()
            .filter(|(bit, _)| self.access & bit != 0)
            .try_for_each(|(_, letter)| f.write_str(letter))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the program says to a question, as the kernel would run it.
    fn answer(program: &[Instruction], question: [u32; 3]) -> u64 {
        let (mut registers, mut at) = ([0_u64; 11], 0);
        loop {
            let Instruction { code, target, offset, number, .. } = program[at];
            let (value, number) = (&mut registers[usize::from(target)], i64::from(number) as u64);
            at += 1;
            let mut jumps = false;
            match code {
                0x61 => *value = question[offset as usize / 4].into(),
                0xb7 => *value = number,
                0x57 => *value &= number,
                0x77 => *value >>= number,
                0x55 => jumps = *value != number,
                0x45 => jumps = *value & number != 0,
                0x95 => return registers[0],
                _ => panic!("no such instruction: {code:#x}"),
            }
            at += if jumps { offset as usize } else { 0 };
        }
    }

    fn is_allowed(rules: &[Rule], kind: Kind, major: u32, minor: u32, access: u32) -> bool {
        answer(&program(rules), [access << 16 | kind as u32, major, minor]) == 1
    }

    #[test]
    fn the_program_follows_the_rules() {
        use Kind::{Block, Character};
        let disk = |access| Rule { kind: Block, major: Some(254), minor: Some(16), access };
        let rules = [&USUAL[..], &[disk(READ)]].concat();
        for (kind, major, minor, access, expected) in [
            (Character, 1, 3, READ | WRITE, true),
            (Character, 1, 9, READ, true),
            (Character, 136, 77, READ | WRITE, true),
            (Character, 1, 1, READ, false),
            (Character, 1, 11, READ, false),
            (Character, 3, 1, READ, false),
            (Character, 137, 0, READ, false),
            (Character, 1, 1, MKNOD, true),
            (Block, 8, 0, MKNOD, true),
            (Block, 8, 0, READ, false),
            (Block, 1, 3, READ, false),
            (Block, 254, 16, READ, true),
            (Block, 254, 16, WRITE, false),
            (Block, 254, 16, READ | WRITE, false),
            // One rule allows the one, another one the other.
            (Block, 254, 16, READ | MKNOD, false),
            (Block, 254, 0, READ, false),
            (Character, 254, 16, READ, false),
        ] {
            let asked = Rule { kind, major: Some(major), minor: Some(minor), access };
            assert_eq!(is_allowed(&rules, kind, major, minor, access), expected, "{asked}");
        }
        assert!(!is_allowed(&[], Character, 1, 3, READ), "no rules allow nothing");
    }

    #[test]
    fn an_instruction_is_eight_bytes() {
        let rule = Rule::character(Some(10), Some(200), READ);
        let block: Vec<_> = tests(&rule).into_iter().map(Instruction::bytes).collect();
        if cfg!(target_endian = "little") {
            assert_eq!(block[0], [0x55, 0x02, 5, 0, 2, 0, 0, 0]);
            assert_eq!(block[1], [0x55, 0x04, 4, 0, 10, 0, 0, 0]);
            assert_eq!(block[2], [0x55, 0x05, 3, 0, 200, 0, 0, 0]);
            assert_eq!(block[3], [0x45, 0x03, 2, 0, 5, 0, 0, 0]);
            assert_eq!(load(MAJOR, 4).bytes(), [0x61, 0x14, 4, 0, 0, 0, 0, 0]);
        }
        assert_eq!(rule.to_string(), "c 10:200 r");
    }
}
