//! Day 16: `seccomp show`: what a profile says for a container, and the program that the kernel
//! runs before each of its system calls, as people can read it.

use std::collections::HashMap;
use std::fmt::Write;
use std::io::stdout;
use std::path::PathBuf;

use anyhow::Context;
use rustix::thread::CapabilitySet;

use crate::capabilities::sets;
use crate::error::{Result, failed};
use crate::metadata::output::print;
use crate::privileges::Privileges;
use crate::stream;

use super::answer::Answer;
use super::attach::{self, USUAL};
use super::bpf::{
    AND, ARCHITECTURE, ARGUMENTS, GO, IF_AT_LEAST, IF_EQUAL, IF_GREATER, Instruction, LOAD, NUMBER, RETURN,
};
use super::calls::{ALL, Architecture, X32};
use super::profile::{Condition, Operator, Profile};
use super::resolve::{Case, Circumstances, Section};

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

    /// Show what is decided about each call, and no program
    #[arg(long)]
    calls: bool,

    /// Write the program as the kernel takes it, such as for bwrap --seccomp
    #[arg(long, conflicts_with = "calls")]
    bytes: bool,

    /// A profile of Docker's format (without it: the one that containers usually have)
    profile: Option<PathBuf>,
}

impl SeccompCommand {
    /// Does it. Returns the exit code.
    pub fn execute(self) -> Result<u8> {
        let Action::Show(show) = self.action;
        show.execute().map_err(failed)
    }
}

impl Show {
    fn execute(self) -> Result<u8> {
        let privileges = Privileges {
            cap_add: sets::names("--cap-add", &self.cap_add)?,
            cap_drop: sets::names("--cap-drop", &self.cap_drop)?,
            ..Privileges::default()
        };
        let text = match &self.profile {
            Some(file) => attach::read_file(file).with_context(|| format!("{file:?}"))?,
            None => USUAL.into(),
        };
        let profile = Profile::parse(text.as_bytes())?;
        let capabilities = sets::allowed(&privileges);
        if self.calls {
            return print(&(heading(&profile)? + &decided(&profile, capabilities)?));
        }
        let program = attach::made_of(&profile, capabilities)?.program;
        if self.bytes {
            stream::write_all(stdout(), &program.concat()).context("write the program")?;
            return Ok(0);
        }
        let program: Vec<Instruction> = program.into_iter().map(Instruction::from_bytes).collect();
        print(&format!("# {} instructions\n{}{}", program.len(), heading(&profile)?, listing(&program)))
    }
}

/// What is decided about each call, a line for each.
fn decided(profile: &Profile, capabilities: CapabilitySet) -> Result<String> {
    let native = Architecture::native()?;
    let here = Circumstances::of(profile, native, capabilities)?;
    let mut text = String::new();
    for architecture in [native, native.sibling()].into_iter().filter(|other| profile.knows(native, *other)) {
        let section = Section::of(profile, architecture, &here);
        let names: HashMap<u32, &str> = architecture.calls().collect();
        let name = |number: &u32| names.get(number).copied().unwrap_or_default();
        let _ = writeln!(text, "[{}]", architecture.machine());
        for (number, verdict) in &section.verdicts {
            let cases: String = verdict.cases.iter().map(|case| format!("{}; ", in_words(case))).collect();
            let _ = writeln!(text, "{}: {cases}{}", name(number), verdict.otherwise);
        }
        if let Some(last) = section.last {
            let _ = writeln!(text, "newer than {}: {}", name(&last), section.of_what_is_newer().otherwise);
        }
        let _ = writeln!(text, "any other: {}", section.default);
    }
    Ok(text)
}

/// `allow if argument 0 == 8 and argument 1 & 0x7e020000 == 0`
fn in_words(case: &Case) -> String {
    let condition = |Condition { index, value, value_two, op }: &Condition| match op {
        Operator::MaskedEqual => format!("argument {index} & {value:#x} == {value_two:#x}"),
        _ => format!("argument {index} {op} {value}"),
    };
    let conditions: Vec<String> = case.conditions.iter().map(condition).collect();
    format!("{} if {}", case.answer, conditions.join(" and "))
}

/// What is to be known before all else.
fn heading(profile: &Profile) -> Result<String> {
    let native = Architecture::native()?;
    let known: HashMap<&str, u32> =
        [native, native.sibling()].into_iter().flat_map(Architecture::numbers).collect();
    let mut heading = format!("# a call that no rule names: {}\n", profile.default_answer());
    for architecture in [native, native.sibling()] {
        let looked_at =
            if profile.knows(native, architecture) { "looked at" } else { "the end of the process" };
        let _ = writeln!(heading, "# a call by the numbers of {}: {looked_at}", architecture.machine());
    }
    let names = profile.syscalls.iter().flat_map(|rule| &rule.names);
    let unknown = names.filter(|name| !known.contains_key(name.as_str()));
    let unknown: Vec<String> = unknown.map(|name| name.escape_debug().to_string()).collect();
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
            let named =
                ALL.into_iter().find(|architecture| architecture.audit_number() == instruction.number);
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
            match name {
                Some(name) => format!("{number} ({name})"),
                None if number == u32::MAX => format!("{number:#x} (-1)"),
                None if number >= X32 => format!("{number:#x} (x32)"),
                None => number.to_string(),
            }
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
