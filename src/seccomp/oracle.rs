//! Day 16, a test: the program says to each call what its profile says. There are two who know
//! that otherwise: a judge, who reads the profile rule by rule; and seccompiler, another compiler,
//! which is given what was decided about each call.

use std::collections::{BTreeMap, HashMap};

use rustix::thread::CapabilitySet;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};
use serde_json::{Value, json};

use crate::capabilities::sets;

use super::answer::Answer;
use super::attach::USUAL;
use super::bpf::{Instruction, run};
use super::calls::{ALL, Architecture, X32};
use super::compiler::compile;
use super::profile::{Condition, Operator, Profile, Rule};
use super::resolve::{Circumstances, Section};

/// A call.
#[derive(Debug, Clone, Copy)]
struct Call {
    architecture: Architecture,
    number: u32,
    arguments: [u64; 6],
}

impl Call {
    /// As the kernel asks about it.
    fn question(&self) -> [u32; 16] {
        let mut question = [0; 16];
        (question[0], question[1]) = (self.number, self.architecture.audit_number());
        for (at, argument) in self.arguments.iter().enumerate() {
            (question[4 + 2 * at], question[5 + 2 * at]) = (*argument as u32, (*argument >> 32) as u32);
        }
        question
    }
}

/// Numbers that look like chance, and are the same each time.
struct Dice(u64);

impl Dice {
    fn throw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.throw() % limit
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }

    /// An argument: mostly one that is near to where something changes.
    fn argument(&mut self, borders: &[u64]) -> u64 {
        let border = if borders.is_empty() { 0 } else { self.one_of(borders) };
        match self.below(6) {
            0 => self.throw(),
            1 => border.wrapping_sub(1),
            2 => border.wrapping_add(1),
            3 => border ^ (1 << self.below(64)),
            4 => border | self.throw() << 32,
            _ => border,
        }
    }
}

fn parse(text: &str) -> Profile {
    Profile::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{error:#}"))
}

fn holds(condition: &Condition, call: &Call) -> bool {
    let (mut argument, mut value) = (call.arguments[condition.index as usize], condition.value);
    let mut second = condition.value_two;
    if !call.architecture.is_wide() {
        (argument, value, second) = (argument as u32 as u64, value as u32 as u64, second as u32 as u64);
    }
    match condition.op {
        Operator::NotEqual => argument != value,
        Operator::Less => argument < value,
        Operator::LessOrEqual => argument <= value,
        Operator::Equal => argument == value,
        Operator::GreaterOrEqual => argument >= value,
        Operator::Greater => argument > value,
        Operator::MaskedEqual => argument & value == second,
    }
}

/// Whether a rule is for a container with `capabilities` on the machine `native`. The kernel here
/// is newer than any that a profile asks for.
fn is_there(rule: &Rule, native: Architecture, capabilities: CapabilitySet) -> bool {
    let has =
        |name: &String| CapabilitySet::from_name(&name[4..]).is_some_and(|one| capabilities.contains(one));
    let included = rule.includes.as_ref().is_none_or(|filter| {
        filter.caps.iter().all(has)
            && (filter.arches.is_empty() || filter.arches.iter().any(|name| name == native.machine()))
    });
    let excluded = rule.excludes.as_ref().is_some_and(|filter| {
        filter.caps.iter().any(has) || filter.arches.iter().any(|name| name == native.machine())
    });
    included && !excluded
}

/// Which rules name which call.
type Named<'a> = HashMap<u32, Vec<&'a Rule>>;

/// What a profile says about a call, rule by rule.
struct Judge<'a> {
    profile: &'a Profile,
    native: Architecture,
    /// For each architecture: the newest call that a rule names, and which rules name which call.
    named: Vec<(Architecture, Option<u32>, Named<'a>)>,
}

impl<'a> Judge<'a> {
    fn new(profile: &'a Profile, native: Architecture, capabilities: CapabilitySet) -> Judge<'a> {
        let rules = profile.syscalls.iter().filter(|rule| is_there(rule, native, capabilities));
        let named = ALL.map(|architecture| {
            let (numbers, mut named) = (architecture.numbers(), Named::new());
            for rule in rules.clone() {
                for number in rule.names.iter().filter_map(|name| numbers.get(name.as_str())) {
                    named.entry(*number).or_default().push(rule);
                }
            }
            (architecture, named.keys().max().copied(), named)
        });
        Judge { profile, native, named: named.into() }
    }

    fn answer(&self, call: &Call) -> Answer {
        let (native, default) = (self.native, self.profile.default_answer());
        if !self.profile.knows(native, call.architecture)
            || ![native, native.sibling()].contains(&call.architecture)
        {
            return Answer::KILL_PROCESS;
        }
        let is_lenient = default.lets_it_through() || default.asks_the_tracer();
        if call.architecture == Architecture::X86_64 && call.number >= X32 {
            return if is_lenient && call.number == u32::MAX { default } else { Answer::NO_SUCH_CALL };
        }
        let Some((_, newest, named)) = self.named.iter().find(|(one, ..)| *one == call.architecture) else {
            return default;
        };
        if newest.is_some_and(|newest| call.number > newest) && !is_lenient {
            return Answer::NO_SUCH_CALL;
        }
        let named = named.get(&call.number).into_iter().flatten().filter(|rule| rule.answer() != default);
        let unconditional = named.clone().find(|rule| rule.args.is_empty());
        let first = unconditional.or_else(|| named.clone().find(|rule| fits(rule, call)));
        first.map_or(default, |rule| rule.answer())
    }
}

fn fits(rule: &Rule, call: &Call) -> bool {
    let mut indices: Vec<u32> = rule.args.iter().map(|condition| condition.index).collect();
    indices.sort_unstable();
    indices.dedup();
    if indices.len() == rule.args.len() {
        rule.args.iter().all(|condition| holds(condition, call))
    } else {
        rule.args.iter().any(|condition| holds(condition, call))
    }
}

/// Every number, and some that there are not; for each a few arguments.
fn all_calls(profile: &Profile, dice: &mut Dice) -> Vec<Call> {
    let conditions = profile.syscalls.iter().flat_map(|rule| &rule.args);
    let borders: Vec<u64> = conditions.flat_map(|condition| [condition.value, condition.value_two]).collect();
    let strange = [983_041, 983_045, 983_050, X32 - 1, X32, X32 + 1, X32 + 520, u32::MAX];
    let mut calls = Vec::new();
    for architecture in ALL {
        for number in (0..600).chain(strange) {
            for _ in 0..if borders.is_empty() { 1 } else { 8 } {
                calls.push(Call {
                    architecture,
                    number,
                    arguments: [(); 6].map(|()| dice.argument(&borders)),
                });
            }
        }
    }
    calls
}

fn check(profile: &Profile, capabilities: CapabilitySet, dice: &mut Dice) {
    for native in [Architecture::X86_64, Architecture::Arm64] {
        let program = compile(profile, native, capabilities).unwrap_or_else(|error| panic!("{error:#}"));
        let judge = Judge::new(profile, native, capabilities);
        for call in all_calls(profile, dice) {
            let (answer, _) = run(&program, &call.question());
            let expected = judge.answer(&call);
            assert_eq!(Answer(answer), expected, "{call:?} on {native:?}, under {profile:#?}");
        }
    }
}

#[test]
fn the_usual_profile_means_the_same_as_a_program() {
    let (profile, mut dice) = (parse(USUAL), Dice(1));
    let admin = sets::USUAL | CapabilitySet::SYS_ADMIN;
    for capabilities in [sets::USUAL, CapabilitySet::empty(), CapabilitySet::all(), admin] {
        check(&profile, capabilities, &mut dice);
    }
}

#[test]
fn the_way_to_an_answer_is_short() {
    let profile = parse(USUAL);
    for native in [Architecture::X86_64, Architecture::Arm64] {
        let program = compile(&profile, native, sets::USUAL).unwrap_or_else(|error| panic!("{error:#}"));
        assert!(program.len() < 400, "{native:?}: {} instructions", program.len());
        for number in 0..600 {
            let call = Call { architecture: native, number, arguments: [0; 6] };
            let (_, steps) = run(&program, &call.question());
            assert!(steps < 40, "{native:?}: call {number} takes {steps} instructions");
        }
    }
}

/// A profile, by chance: rules about few calls, so that they meet.
fn any_profile(dice: &mut Dice, actions: &[&str]) -> Value {
    const OPERATORS: [&str; 7] = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
    const NAMES: [&str; 8] =
        ["read", "openat", "socket", "clone", "personality", "mseal", "no_such", "futex_waitv"];
    let rules: Vec<Value> = (0..1 + dice.below(12))
        .map(|_| {
            let args: Vec<Value> = (0..dice.below(4))
                .map(|_| {
                    let value = match dice.below(4) {
                        0 => dice.throw(),
                        1 => dice.below(1 << 32),
                        2 => u64::MAX << dice.below(64),
                        _ => dice.below(64),
                    };
                    let op = format!("SCMP_CMP_{}", dice.one_of(&OPERATORS));
                    json!({"index": dice.below(6), "value": value, "valueTwo": value & dice.throw(), "op": op})
                })
                .collect();
            let names = [dice.one_of(&NAMES), dice.one_of(&NAMES)];
            let action = format!("SCMP_ACT_{}", dice.one_of(actions));
            json!({"names": names, "action": action, "errnoRet": 1 + dice.below(3), "args": args})
        })
        .collect();
    let default = if actions.len() > 1 { dice.one_of(actions) } else { "ERRNO" };
    json!({
        "defaultAction": format!("SCMP_ACT_{default}"), "syscalls": rules,
        "architectures": ["SCMP_ARCH_X86_64", dice.one_of(&["SCMP_ARCH_X86", "SCMP_ARCH_ARM", "SCMP_ARCH_S390"])],
    })
}

#[test]
fn any_profile_means_the_same_as_a_program() {
    let mut dice = Dice(2);
    for _ in 0..40 {
        let text =
            any_profile(&mut dice, &["ALLOW", "ERRNO", "LOG", "KILL_PROCESS", "TRAP", "TRACE"]).to_string();
        check(&parse(&text), sets::USUAL, &mut dice);
    }
}

/// What seccompiler makes of a profile that only allows.
fn by_another_compiler(profile: &Profile, native: Architecture) -> Vec<Instruction> {
    let here = Circumstances::of(profile, native, sets::USUAL).unwrap_or_else(|error| panic!("{error:#}"));
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for (number, verdict) in Section::of(profile, native, &here).verdicts {
        let allowed = verdict.cases.iter().filter(|case| case.answer == Answer::ALLOW);
        let cases: Vec<SeccompRule> = allowed
            .map(|case| {
                let conditions = case.conditions.iter().map(|condition| {
                    let (op, value) = match condition.op {
                        Operator::NotEqual => (SeccompCmpOp::Ne, condition.value),
                        Operator::Less => (SeccompCmpOp::Lt, condition.value),
                        Operator::LessOrEqual => (SeccompCmpOp::Le, condition.value),
                        Operator::Equal => (SeccompCmpOp::Eq, condition.value),
                        Operator::GreaterOrEqual => (SeccompCmpOp::Ge, condition.value),
                        Operator::Greater => (SeccompCmpOp::Gt, condition.value),
                        Operator::MaskedEqual => {
                            (SeccompCmpOp::MaskedEq(condition.value), condition.value_two)
                        }
                    };
                    SeccompCondition::new(condition.index as u8, SeccompCmpArgLen::Qword, op, value)
                });
                let conditions =
                    conditions.collect::<Result<_, _>>().unwrap_or_else(|error| panic!("{error}"));
                SeccompRule::new(conditions).unwrap_or_else(|error| panic!("{error}"))
            })
            .collect();
        if !cases.is_empty() || verdict.otherwise == Answer::ALLOW {
            rules.insert(number.into(), cases);
        }
    }
    let architecture = if native == Architecture::X86_64 { TargetArch::x86_64 } else { TargetArch::aarch64 };
    let filter = SeccompFilter::new(rules, SeccompAction::Errno(1), SeccompAction::Allow, architecture);
    let program: BpfProgram = filter.and_then(TryInto::try_into).unwrap_or_else(|error| panic!("{error}"));
    let instruction = |one: &seccompiler::sock_filter| Instruction {
        code: one.code,
        yes: one.jt,
        no: one.jf,
        number: one.k,
    };
    program.iter().map(instruction).collect()
}

#[test]
fn another_compiler_says_the_same() {
    let mut dice = Dice(3);
    let chance: Vec<Profile> =
        (0..20).map(|_| parse(&any_profile(&mut dice, &["ALLOW"]).to_string())).collect();
    for profile in [&[parse(USUAL)][..], &chance[..]].concat() {
        for native in [Architecture::X86_64, Architecture::Arm64] {
            let ours = compile(&profile, native, sets::USUAL).unwrap_or_else(|error| panic!("{error:#}"));
            let theirs = by_another_compiler(&profile, native);
            for call in all_calls(&profile, &mut dice).iter().filter(|call| call.architecture == native) {
                let (answer, expected) = (run(&ours, &call.question()).0, run(&theirs, &call.question()).0);
                // It knows one refusal alone. What it does not let through, ours does not either.
                let lets_through = |answer: u32| Answer(answer).lets_it_through();
                assert_eq!(lets_through(answer), lets_through(expected), "{call:?}, under {profile:#?}");
            }
        }
    }
}
