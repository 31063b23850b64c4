//! Day 16: from a profile to what it says for one container on one machine: a number, and what is
//! decided about the call of that number.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use anyhow::Context;
use rustix::thread::CapabilitySet;

use crate::error::Result;
use crate::files;

use super::answer::Answer;
use super::calls::Architecture;
use super::profile::{Condition, Filter, KernelVersion, Profile, Rule, kernel_version, running_kernel};

// ANCHOR: verdict
/// What is decided about a call: the answer of the first case whose conditions all hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The cases. Often there is none.
    pub cases: Vec<Case>,
    /// The answer in any other case.
    pub otherwise: Answer,
}

/// One case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// What must be so of the call's arguments, all of it.
    pub conditions: Vec<Condition>,
    /// What is done then.
    pub answer: Answer,
}

/// What a profile says about the calls of one architecture.
#[derive(Debug)]
pub struct Section {
    /// Whose numbers they are.
    pub architecture: Architecture,
    /// What is decided about the calls that a rule names and treats otherwise than the rest.
    pub verdicts: BTreeMap<u32, Verdict>,
    /// What is decided about the rest.
    pub default: Answer,
    /// The highest number that any rule has; `None`: no rule names a call of these.
    pub last: Option<u32>,
}
// ANCHOR_END: verdict

/// What a profile's rules ask about: where the container is, and what it may.
#[derive(Debug)]
pub struct Circumstances {
    /// The machine.
    pub native: Architecture,
    /// The kernel's version, if a rule wants to know it.
    kernel: Option<KernelVersion>,
    /// What the container can have.
    capabilities: CapabilitySet,
}

impl Circumstances {
    /// Those of a container with `capabilities` on a machine of the architecture `native`.
    pub fn of(profile: &Profile, native: Architecture, capabilities: CapabilitySet) -> Result<Circumstances> {
        let mut filters = profile.syscalls.iter().flat_map(|rule| rule.includes.iter().chain(&rule.excludes));
        let wanted = filters.any(|filter| filter.min_kernel.is_some());
        let kernel = wanted.then(this_kernel).transpose()?;
        Ok(Circumstances { native, kernel, capabilities })
    }

    fn has(&self, capability: &str) -> bool {
        let named = capability.strip_prefix("CAP_").and_then(CapabilitySet::from_name);
        named.is_some_and(|named| self.capabilities.contains(named))
    }

    fn is_at_least(&self, version: &str) -> bool {
        kernel_version(version).is_ok_and(|version| self.kernel >= Some(version))
    }
}

fn this_kernel() -> Result<KernelVersion> {
    let release = files::read("/proc/sys/kernel/osrelease").context("read the kernel's version")?;
    running_kernel(&String::from_utf8_lossy(&release))
}

// ANCHOR: counts
/// Whether `rule` is there for this container. What it includes must all be so: the machine is one
/// of those named, and the container has every capability. One of what it excludes is enough to
/// exclude it. (moby/profiles, `seccomp/seccomp_linux.go`)
fn counts(rule: &Rule, here: &Circumstances) -> bool {
    // ANCHOR: day16_task2_counts_solution
    let (includes, excludes) =
        (rule.includes.clone().unwrap_or_default(), rule.excludes.clone().unwrap_or_default());
    let is_here = |arches: &[String]| arches.iter().any(|name| name == here.native.machine());
    let is_new_enough = |filter: &Filter| {
        filter
            .min_kernel
            .as_deref()
            .filter(|version| !version.is_empty())
            .map(|version| here.is_at_least(version))
    };
    let is_excluded = is_here(&excludes.arches)
        || excludes.caps.iter().any(|name| here.has(name))
        || is_new_enough(&excludes) == Some(true);
    let is_included = (includes.arches.is_empty() || is_here(&includes.arches))
        && includes.caps.iter().all(|name| here.has(name))
        && is_new_enough(&includes) != Some(false);
    is_included && !is_excluded
    // ANCHOR_END: day16_task2_counts_solution
}
// ANCHOR_END: counts

// ANCHOR: section
impl Section {
    /// What `profile` says about the calls of `architecture`. A name that is no call of it is left
    /// out: a profile is written for many machines, and for kernels to come.
    pub fn of(profile: &Profile, architecture: Architecture, here: &Circumstances) -> Section {
        // ANCHOR: day16_task2_of_solution
        let (numbers, default) = (architecture.numbers(), profile.default_answer());
        let mut section = Section { architecture, verdicts: BTreeMap::new(), default, last: None };
        for rule in profile.syscalls.iter().filter(|rule| counts(rule, here)) {
            for number in rule.names.iter().filter_map(|name| numbers.get(name.as_str()).copied()) {
                section.last = section.last.max(Some(number));
                // As with runc it says nothing, and does not stand in the way of a rule that does.
                if rule.answer() != default {
                    section.add(number, rule);
                }
            }
        }
        section
        // ANCHOR_END: day16_task2_of_solution
    }

    /// Adds what `rule` says about the call `number`. A rule without conditions wins over all that
    /// have some, and of two such rules the first one: so it is with libseccomp. Of those with
    /// conditions the first one counts whose conditions hold.
    fn add(&mut self, number: u32, rule: &Rule) {
        // ANCHOR: day16_task2_add_solution
        let cases = cases(rule);
        match self.verdicts.entry(number) {
            Entry::Occupied(mut entry) if cases.is_empty() && !entry.get().cases.is_empty() => {
                entry.insert(Verdict::always(rule.answer()));
            }
            Entry::Occupied(entry) if entry.get().cases.is_empty() => {}
            Entry::Occupied(mut entry) => entry.get_mut().cases.extend(cases),
            Entry::Vacant(entry) if cases.is_empty() => {
                entry.insert(Verdict::always(rule.answer()));
            }
            Entry::Vacant(entry) => {
                entry.insert(Verdict { cases, otherwise: self.default });
            }
        }
        // ANCHOR_END: day16_task2_add_solution
    }

    /// Whether what no rule names is made, or may be. (A tracer may know what it is.)
    pub fn is_lenient(&self) -> bool {
        self.default.lets_it_through() || self.default.asks_the_tracer()
    }

    /// What is decided about the calls that are newer than the profile: its highest number is that
    /// of the newest call its author knew. Programs try a new call, and if there is no such call
    /// (ENOSYS), they use an old one; with EPERM they fail. (runc, `patchbpf/enosys_linux.go`)
    pub fn of_what_is_newer(&self) -> Verdict {
        let is_lenient = self.is_lenient() || self.last.is_none();
        Verdict::always(if is_lenient { self.default } else { Answer::NO_SUCH_CALL })
    }
}
// ANCHOR_END: section

impl Verdict {
    /// One that asks nothing else.
    pub fn always(otherwise: Answer) -> Verdict {
        Verdict { cases: vec![], otherwise }
    }
}

/// The cases that `rule` is. It is one; but if it has two conditions on the same argument, each
/// of them is enough. So it is with runc and crun, for libseccomp could once not do otherwise.
fn cases(rule: &Rule) -> Vec<Case> {
    let case = |conditions: Vec<Condition>| Case { conditions, answer: rule.answer() };
    let mut indices: Vec<u32> = rule.args.iter().map(|condition| condition.index).collect();
    indices.sort_unstable();
    match rule.args.len() {
        0 => vec![],
        _ if indices.windows(2).any(|two| two[0] == two[1]) => {
            rule.args.iter().map(|condition| case(vec![*condition])).collect()
        }
        _ => vec![case(rule.args.clone())],
    }
}
