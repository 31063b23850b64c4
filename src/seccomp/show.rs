//! Day 16: `seccomp show`: the program that the kernel runs before each system call of a
//! container, as people can read it.

use std::collections::HashMap;
use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Context;

use crate::capabilities::sets;
use crate::error::Result;
use crate::metadata::output::print;
use crate::privileges::Privileges;

use super::answer::Answer;
use super::attach::{self, USUAL};
use super::bpf::{
    AND, ARCHITECTURE, ARGUMENTS, GO, IF_AT_LEAST, IF_EQUAL, IF_GREATER, Instruction, LOAD, NUMBER, RETURN,
};
use super::calls::{ALL, Architecture};
use super::profile::Profile;

/// Look at the filters of system calls
#[derive(Debug, clap::Args)]
pub struct SeccompCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    Show(Show),
}

/// Show the program that a profile becomes for a container with these capabilities
#[derive(Debug, clap::Args)]
struct Show {
    /// Add a capability, such as NET_ADMIN, or ALL
    #[arg(long, value_name = "NAME")]
    cap_add: Vec<String>,

    /// Take one away, or ALL
    #[arg(long, value_name = "NAME")]
    cap_drop: Vec<String>,

    /// A profile of Docker's format (without it: the one that containers usually have)
    profile: Option<PathBuf>,
}

impl SeccompCommand {
    /// Prints it. Returns the exit code.
    pub fn execute(self) -> Result<u8> {
        let Action::Show(show) = self.action;
        let privileges = Privileges {
            cap_add: sets::names("--cap-add", &show.cap_add)?,
            cap_drop: sets::names("--cap-drop", &show.cap_drop)?,
            ..Privileges::default()
        };
        let text = match &show.profile {
            Some(file) => attach::read_file(file).with_context(|| format!("{file:?}"))?,
            None => USUAL.into(),
        };
        let profile = Profile::parse(text.as_bytes())?;
        let filter = attach::made_of(&profile, sets::allowed(&privileges))?;
        let program: Vec<Instruction> = filter.program.into_iter().map(Instruction::from_bytes).collect();
        print(&(heading(&profile, program.len())? + &listing(&program)))
    }
}

/// What is to be known before the program.
fn heading(profile: &Profile, length: usize) -> Result<String> {
    let native = Architecture::native()?;
    let known: HashMap<&str, u32> = ALL.into_iter().flat_map(Architecture::numbers).collect();
    let mut heading = format!("# {length} instructions; a call that no rule names: {}\n", profile.default_answer());
    for architecture in ALL.into_iter().filter(|other| [native, native.sibling()].contains(other)) {
        let looked_at = if profile.knows(native, architecture) { "looked at" } else { "the end of the process" };
        let _ = writeln!(heading, "# a call by the numbers of {}: {looked_at}", architecture.machine());
    }
    let names = profile.syscalls.iter().flat_map(|rule| &rule.names);
    let unknown: Vec<&str> = names.map(String::as_str).filter(|name| !known.contains_key(name)).collect();
    if !unknown.is_empty() {
        let _ = writeln!(heading, "# left out, for there are no such calls here: {}", unknown.join(", "));
    }
    Ok(heading)
}

/// What is known where an instruction is run: by whose numbers the call is, and what is loaded.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    architecture: Option<Architecture>,
    loaded: Option<u32>,
}

/// Each instruction in a line, with the name of a call where one is compared.
fn listing(program: &[Instruction]) -> String {
    let mut known = vec![Known::default(); program.len() + 1];
    let mut text = String::new();
    // All jumps lead forward: what is known somewhere is known when it is that line's turn.
    for (at, instruction) in program.iter().enumerate() {
        let mut here = known[at];
        if instruction.code == LOAD {
            here.loaded = Some(instruction.number);
        }
        for (next, holds) in successors(at, *instruction) {
            let named = ALL.into_iter().find(|architecture| architecture.audit_number() == instruction.number);
            let is_it = holds && here.loaded == Some(ARCHITECTURE);
            let architecture = if is_it { named } else { here.architecture };
            if let Some(known) = known.get_mut(next) {
                *known = Known { architecture, ..here };
            }
        }
        let _ = writeln!(text, "{at:4}  {}", words(at, *instruction, here));
    }
    text
}

/// Where it goes on after an instruction, and whether that is because a condition holds.
fn successors(at: usize, Instruction { code, yes, no, number }: Instruction) -> Vec<(usize, bool)> {
    match code {
        RETURN => vec![],
        GO => vec![(at + 1 + number as usize, false)],
        IF_EQUAL | IF_GREATER | IF_AT_LEAST => {
            vec![(at + 1 + usize::from(yes), true), (at + 1 + usize::from(no), false)]
        }
        _ => vec![(at + 1, false)],
    }
}

/// An instruction in words.
fn words(at: usize, instruction: Instruction, known: Known) -> String {
    let Instruction { code, yes, no, number } = instruction;
    let compare = |sign: &str| {
        let (yes, no) = (at + 1 + usize::from(yes), at + 1 + usize::from(no));
        format!("if {sign} {:<24} then {yes:4} else {no:4}", value(number, known))
    };
    match code {
        LOAD => format!("load {}", place(number)),
        AND => format!("and {number:#x}"),
        GO => format!("go to {}", at + 1 + number as usize),
        IF_EQUAL => compare("=="),
        IF_GREATER => compare("> "),
        IF_AT_LEAST => compare(">="),
        RETURN => format!("return {}", Answer(number)),
        _ => format!("{code:#x}"),
    }
}

/// What is compared with, as whoever wrote the profile knows it.
fn value(number: u32, known: Known) -> String {
    match known.loaded {
        Some(ARCHITECTURE) => {
            let named = ALL.into_iter().find(|architecture| architecture.audit_number() == number);
            named.map_or(format!("{number:#x}"), |architecture| architecture.machine().into())
        }
        Some(NUMBER) => {
            let mut calls = known.architecture.into_iter().flat_map(Architecture::calls);
            let name = calls.find(|(one, _)| *one == number).map(|(_, name)| name);
            name.map_or(format!("{number}"), |name| format!("{number} ({name})"))
        }
        _ if number > 0xffff => format!("{number:#x}"),
        _ => format!("{number}"),
    }
}

/// A part of the question.
fn place(offset: u32) -> String {
    match offset {
        NUMBER => "the number of the call".into(),
        ARCHITECTURE => "by whose numbers".into(),
        _ if offset >= ARGUMENTS => {
            let (index, is_second) = ((offset - ARGUMENTS) / 8, offset % 8 == 4);
            let half = if is_second == cfg!(target_endian = "little") { "upper" } else { "lower" };
            format!("argument {index}, the {half} half")
        }
        _ => format!("[{offset}]"),
    }
}
