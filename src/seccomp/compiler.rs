//! Day 16: from what is decided about each call to a program that the kernel runs before each.
//!
//! ```text
//! what is decided      0 1 2 3 4 … 100   101     102 …            a number for each call
//! intervals           [0 … 100: yes]  [101: no] [102 … 132: yes]   a number where it changes
//! the tree                      ≥ 101?
//!                        no ╱          ╲ yes
//!                    allow          ≥ 102? …                       seven questions, not 400
//! ```
//!
//! It runs at every system call of the container, so what counts is how many questions are asked
//! on the way to an answer, and how many instructions the kernel has to check and translate when
//! the filter is attached.

use anyhow::bail;
use rustix::thread::CapabilitySet;

use crate::error::Result;

use super::answer::Answer;
use super::bpf::{
    ARCHITECTURE, ARGUMENTS, Builder, IF_AT_LEAST, IF_EQUAL, IF_GREATER, Instruction, LONGEST, NUMBER, Place,
};
use super::calls::{Architecture, X32};
use super::profile::{Condition, Operator, Profile};
use super::resolve::{Circumstances, Section, Verdict};

// ANCHOR: compile
/// The program for a container with `capabilities` under `profile`, on a machine of the
/// architecture `native`.
pub fn compile(
    profile: &Profile,
    native: Architecture,
    capabilities: CapabilitySet,
) -> Result<Vec<Instruction>> {
    // ANCHOR: day16_task3_compile_solution
    let here = Circumstances::of(profile, native, capabilities)?;
    let mut builder = Builder::default();
    // By the numbers of which architecture? It is the first question, for a call by the numbers of
    // another one would pass for the call that has the number here.
    let mut first = builder.answer(Answer::KILL_PROCESS.0);
    for architecture in [native.sibling(), native] {
        if profile.knows(native, architecture) {
            let section = section(&mut builder, &Section::of(profile, architecture, &here));
            first = builder.branch(IF_EQUAL, architecture.audit_number(), section, first);
        }
    }
    first = builder.load(ARCHITECTURE, first);
    let program = builder.finish(first);
    if program.len() > LONGEST {
        bail!(
            "as a program for the kernel it has {} instructions; expected a profile that makes at most {LONGEST}: \
             fewer rules with args",
            program.len()
        );
    }
    Ok(program)
    // ANCHOR_END: day16_task3_compile_solution
}

/// The part of the program that is about the calls of one architecture.
fn section(builder: &mut Builder, section: &Section) -> Place {
    let intervals = intervals(section);
    let tree = tree(builder, section.architecture, &intervals);
    builder.load(NUMBER, tree)
}
// ANCHOR_END: compile

// ANCHOR: intervals
/// Calls whose numbers follow each other, and about which the same is decided: from `first` on, up
/// to the next interval.
#[derive(Debug, PartialEq, Eq)]
struct Interval {
    first: u32,
    verdict: Verdict,
}

/// What `section` says, as intervals: as few as there can be. The first one begins at 0, and the
/// last one has no end.
fn intervals(section: &Section) -> Vec<Interval> {
    // ANCHOR: day16_task3_intervals_solution
    let mut intervals: Vec<Interval> = Vec::new();
    let mut add = |first: u32, verdict: &Verdict| {
        if intervals.last().is_none_or(|last| last.verdict != *verdict) {
            intervals.push(Interval { first, verdict: verdict.clone() });
        }
    };
    let default = Verdict::always(section.default);
    let mut next = 0;
    for (number, verdict) in &section.verdicts {
        if *number > next {
            add(next, &default);
        }
        add(*number, verdict);
        next = number + 1;
    }
    let newer = section.last.map_or(0, |last| last + 1);
    if newer > next {
        add(next, &default);
    }
    add(newer, &section.of_what_is_newer());
    // A call by a number of x32 is another call, which no rule knows of.
    if section.architecture == Architecture::X86_64 {
        add(X32, &Verdict::always(Answer::NO_SUCH_CALL));
        // -1 is none: a tracer writes it over the number of a call that is not to be made, and then
        // the filter is asked again.
        if section.is_lenient() {
            add(u32::MAX, &default);
        }
    }
    intervals
    // ANCHOR_END: day16_task3_intervals_solution
}
// ANCHOR_END: intervals

// ANCHOR: tree
/// The questions that lead from a number to the interval that it is in: is it in the upper half of
/// them, or in the lower one? And so on, in that half.
fn tree(builder: &mut Builder, architecture: Architecture, intervals: &[Interval]) -> Place {
    // ANCHOR: day16_task3_tree_solution
    if let [only] = intervals {
        return verdict(builder, architecture, &only.verdict);
    }
    let (lower, upper) = intervals.split_at(intervals.len() / 2);
    let border = upper[0].first;
    let upper = tree(builder, architecture, upper);
    let lower = tree(builder, architecture, lower);
    builder.branch(IF_AT_LEAST, border, upper, lower)
    // ANCHOR_END: day16_task3_tree_solution
}
// ANCHOR_END: tree

// ANCHOR: verdict
/// The questions about the arguments of a call: those of the first case, then those of the next.
/// As all here, from the last one to the first.
fn verdict(builder: &mut Builder, architecture: Architecture, verdict: &Verdict) -> Place {
    // ANCHOR: day16_task4_verdict_solution
    let otherwise = builder.answer(verdict.otherwise.0);
    verdict.cases.iter().rev().fold(otherwise, |next, case| {
        let answer = builder.answer(case.answer.0);
        case.conditions.iter().rev().fold(answer, |yes, condition| {
            if architecture.is_wide() {
                wide(builder, condition, yes, next)
            } else {
                narrow(builder, condition, yes, next)
            }
        })
    })
    // ANCHOR_END: day16_task4_verdict_solution
}
// ANCHOR_END: verdict

/// Where the halves of an argument are. The register has 32 bits.
fn halves(condition: &Condition) -> (u32, u32) {
    let argument = ARGUMENTS + 8 * condition.index;
    if cfg!(target_endian = "little") { (argument, argument + 4) } else { (argument + 4, argument) }
}

// ANCHOR: wide
/// Asks whether `condition` holds for an argument of 64 bits, and goes on at `yes` or `no`. Of
/// greater and less the upper half decides, unless it is equal: then the lower one does.
fn wide(builder: &mut Builder, condition: &Condition, yes: Place, no: Place) -> Place {
    // ANCHOR: day16_task4_wide_solution
    use Operator::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, MaskedEqual, NotEqual};
    let Condition { value, value_two, op, .. } = *condition;
    let (low_at, high_at) = halves(condition);
    let (low, high) = (value as u32, (value >> 32) as u32);
    let is_equal = |builder: &mut Builder, yes: Place, no: Place| {
        let below = builder.branch(IF_EQUAL, low, yes, no);
        let below = builder.load(low_at, below);
        let above = builder.branch(IF_EQUAL, high, below, no);
        builder.load(high_at, above)
    };
    let is_greater = |builder: &mut Builder, question: u16, yes: Place, no: Place| {
        let below = builder.branch(question, low, yes, no);
        let below = builder.load(low_at, below);
        let equal = builder.branch(IF_EQUAL, high, below, no);
        let above = builder.branch(IF_GREATER, high, yes, equal);
        builder.load(high_at, above)
    };
    match op {
        Equal => is_equal(builder, yes, no),
        NotEqual => is_equal(builder, no, yes),
        Greater => is_greater(builder, IF_GREATER, yes, no),
        LessOrEqual => is_greater(builder, IF_GREATER, no, yes),
        GreaterOrEqual => is_greater(builder, IF_AT_LEAST, yes, no),
        Less => is_greater(builder, IF_AT_LEAST, no, yes),
        MaskedEqual => {
            let below = masked(builder, low_at, low, value_two as u32, yes, no);
            masked(builder, high_at, high, (value_two >> 32) as u32, below, no)
        }
    }
    // ANCHOR_END: day16_task4_wide_solution
}
// ANCHOR_END: wide

/// Whether of the half of an argument that is at `at` the bits of `mask` are those of `value`.
fn masked(builder: &mut Builder, at: u32, mask: u32, value: u32, yes: Place, no: Place) -> Place {
    if (mask, value) == (0, 0) {
        return yes;
    }
    let equal = builder.branch(IF_EQUAL, value, yes, no);
    let bits = if mask == u32::MAX { equal } else { builder.and(mask, equal) };
    builder.load(at, bits)
}

/// The same as [`wide`] for an argument of 32 bits. The program that calls has no more.
fn narrow(builder: &mut Builder, condition: &Condition, yes: Place, no: Place) -> Place {
    use Operator::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, MaskedEqual, NotEqual};
    let Condition { value, value_two, op, .. } = *condition;
    let ((at, _), value) = (halves(condition), value as u32);
    let (question, yes, no) = match op {
        MaskedEqual => return masked(builder, at, value, value_two as u32, yes, no),
        Equal => (IF_EQUAL, yes, no),
        NotEqual => (IF_EQUAL, no, yes),
        Greater => (IF_GREATER, yes, no),
        LessOrEqual => (IF_GREATER, no, yes),
        GreaterOrEqual => (IF_AT_LEAST, yes, no),
        Less => (IF_AT_LEAST, no, yes),
    };
    let branch = builder.branch(question, value, yes, no);
    builder.load(at, branch)
}
