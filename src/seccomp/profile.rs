//! Day 16: a profile, as it is written: the format of moby, which Docker and podman read, and the
//! OCI's, which is a part of it. (moby/profiles, `seccomp/seccomp.go`; OCI runtime-spec,
//! config-linux.md, "Seccomp")

use std::fmt::{self, Display};

use anyhow::{Context, bail};
use nix::errno::Errno;
use serde::{Deserialize, Deserializer};

use crate::error::Result;

use super::answer::{Action, Answer};
use super::calls::{ALL, Architecture};

/// More than a profile can need. It is kept in the container's record.
pub const LARGEST: usize = 1 << 20;

/// More than an error number can be: the kernel makes 4095 of all that are more.
const LARGEST_ERROR: u32 = 4095;

/// The process does without a protection against Spectre v4 that would make it slower. Kernels
/// before 5.16 switch it on for whoever has a filter.
pub const SPEC_ALLOW: u32 = 1 << 2;

/// Once a program decides about a call, only SIGKILL interrupts that.
pub const WAIT_KILLABLE: u32 = 1 << 5;

/// How the kernel may take a filter. (seccomp(2))
pub const FLAGS: [(&str, u32); 4] = [
    // All that is refused is written to the kernel's log. Not without being asked for: whoever is
    // refused can ask again, a million times a second. (What kills is, in any case.)
    ("SECCOMP_FILTER_FLAG_LOG", 1 << 1),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", SPEC_ALLOW),
    // For all threads. There is one.
    ("SECCOMP_FILTER_FLAG_TSYNC", 0),
    ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", WAIT_KILLABLE),
];

/// The architectures that there are: those of libseccomp, which all profiles name with
/// `SCMP_ARCH_` before it. (libseccomp, seccomp.h)
const ARCHITECTURES: [&str; 23] = [
    "X86",
    "X86_64",
    "X32",
    "ARM",
    "AARCH64",
    "MIPS",
    "MIPS64",
    "MIPS64N32",
    "MIPSEL",
    "MIPSEL64",
    "MIPSEL64N32",
    "PPC",
    "PPC64",
    "PPC64LE",
    "S390",
    "S390X",
    "PARISC",
    "PARISC64",
    "RISCV64",
    "LOONGARCH64",
    "M68K",
    "SH",
    "SHEB",
];

/// The machines that rules name: as Go does. (moby/profiles, `seccomp/seccomp_linux.go`)
const MACHINES: [&str; 20] = [
    "x86",
    "386",
    "amd64",
    "x32",
    "arm",
    "arm64",
    "mips",
    "mips64",
    "mips64n32",
    "mipsel",
    "mipsel64",
    "mipsel64n32",
    "mipsle",
    "mips64le",
    "ppc",
    "ppc64le",
    "s390",
    "s390x",
    "riscv64",
    "loong64",
];

// ANCHOR: profile
/// A profile. What is no field of it is an error: a misspelt `args` would make a condition go
/// away, and nobody would notice.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Profile {
    /// What is done with a call that no rule names.
    pub default_action: Action,
    /// If that is an error: which.
    pub default_errno_ret: Option<u32>,
    /// The same by its name, as podman has it.
    default_errno: Option<String>,
    /// By whose numbers calls may be made, besides the machine's own.
    #[serde(default, deserialize_with = "or_null")]
    architectures: Vec<String>,
    /// The same for each machine.
    #[serde(default, deserialize_with = "or_null")]
    arch_map: Vec<Machine>,
    /// How the kernel is to take the filter.
    pub flags: Option<Vec<String>>,
    /// The socket of a program that decides about calls.
    pub listener_path: Option<String>,
    /// What is told to it.
    pub listener_metadata: Option<String>,
    /// The rules.
    #[serde(default, deserialize_with = "or_null")]
    pub syscalls: Vec<Rule>,
}

/// For a machine of one architecture: which others it knows.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Machine {
    architecture: String,
    #[serde(default, deserialize_with = "or_null")]
    sub_architectures: Vec<String>,
}

/// A rule: for calls of these names, if all conditions hold, this is done.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// The calls.
    #[serde(default, deserialize_with = "or_null")]
    pub names: Vec<String>,
    /// A single one, in profiles of the first years.
    name: Option<String>,
    /// What is done with them.
    pub action: Action,
    /// If that is an error: which.
    errno_ret: Option<u32>,
    /// The same by its name, as podman has it.
    errno: Option<String>,
    /// What must be so of the arguments.
    #[serde(default, deserialize_with = "or_null")]
    pub args: Vec<Condition>,
    /// For people.
    #[serde(rename = "comment")]
    _comment: Option<String>,
    /// For which containers the rule is there.
    pub includes: Option<Filter>,
    /// For which it is not.
    pub excludes: Option<Filter>,
}

/// What must be so of an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Condition {
    /// Which, from 0 to 5.
    pub index: u32,
    /// What it is compared with; with [`Operator::MaskedEqual`] which of its bits are looked at.
    pub value: u64,
    /// Only for [`Operator::MaskedEqual`]: what these bits must be.
    #[serde(default)]
    pub value_two: u64,
    /// How it is compared. All numbers are without a sign.
    pub op: Operator,
}

/// How an argument is compared with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[allow(missing_docs)]
pub enum Operator {
    #[serde(rename = "SCMP_CMP_NE")]
    NotEqual,
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    #[serde(rename = "SCMP_CMP_LE")]
    LessOrEqual,
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    #[serde(rename = "SCMP_CMP_GE")]
    GreaterOrEqual,
    #[serde(rename = "SCMP_CMP_GT")]
    Greater,
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}

/// Containers. What is empty or missing says nothing.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Filter {
    /// Those that have these capabilities.
    #[serde(default, deserialize_with = "or_null")]
    pub caps: Vec<String>,
    /// Those on these machines.
    #[serde(default, deserialize_with = "or_null")]
    pub arches: Vec<String>,
    /// Those on this version of the kernel, or a later one: `4.8`.
    pub min_kernel: Option<String>,
}
// ANCHOR_END: profile

/// Programs that write a profile write `null` for an empty list.
fn or_null<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> std::result::Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

// ANCHOR: parse
impl Profile {
    /// The profile that is written in `text`. An error says where in it something is wrong.
    pub fn parse(text: &[u8]) -> Result<Profile> {
        // ANCHOR: day16_task1_parse_solution
        let mut profile: Profile = serde_json::from_slice(text).context("it is no profile")?;
        if !profile.architectures.is_empty() && !profile.arch_map.is_empty() {
            bail!("architectures, archMap: expected one of them, not both");
        }
        let (action, name) = (profile.default_action, profile.default_errno.as_deref());
        profile.default_errno_ret =
            error_number(action, profile.default_errno_ret, name).context("defaultErrnoRet")?;
        for (at, rule) in profile.syscalls.iter_mut().enumerate() {
            rule.complete().with_context(|| format!("syscalls[{at}] ({})", rule.title()))?;
        }
        profile.all_architectures().try_for_each(|name| check_architecture(name))?;
        profile.flags.iter().flatten().try_for_each(|name| check_flag(name))?;
        Ok(profile)
        // ANCHOR_END: day16_task1_parse_solution
    }
}
// ANCHOR_END: parse

impl Profile {
    /// What is done with a call that no rule names.
    pub fn default_answer(&self) -> Answer {
        Answer::new(self.default_action, self.default_errno_ret)
    }

    /// The calls that a program decides about, by the rules.
    pub fn notifies(&self) -> impl Iterator<Item = &String> {
        self.syscalls.iter().filter(|rule| rule.action == Action::Notify).flat_map(|rule| &rule.names)
    }

    /// Whether a call by the numbers of `other` is looked at, on a machine of the architecture
    /// `native`. Otherwise it is the end of the process.
    pub fn knows(&self, native: Architecture, other: Architecture) -> bool {
        let here = self.arch_map.iter().filter(|machine| machine.architecture == native.name());
        let mut listed = here.flat_map(|machine| &machine.sub_architectures).chain(&self.architectures);
        native == other || listed.any(|name| name == other.name())
    }

    fn all_architectures(&self) -> impl Iterator<Item = &String> {
        let mapped = self
            .arch_map
            .iter()
            .flat_map(|machine| [&machine.architecture].into_iter().chain(&machine.sub_architectures));
        self.architectures.iter().chain(mapped)
    }
}

impl Rule {
    /// Checks what a parser of JSON cannot know, and brings old ways to write it to the new one.
    fn complete(&mut self) -> Result<()> {
        if let Some(name) = self.name.take().filter(|name| !name.is_empty()) {
            if !self.names.is_empty() {
                bail!("name, names: expected one of them, not both");
            }
            self.names = vec![name];
        }
        if self.names.iter().all(String::is_empty) {
            bail!("names: expected the name of at least one system call");
        }
        self.errno_ret =
            error_number(self.action, self.errno_ret, self.errno.as_deref()).context("errnoRet")?;
        for (at, condition) in self.args.iter().enumerate() {
            if condition.index > 5 {
                bail!(
                    "args[{at}].index is {}; expected 0 to 5: no call has more than six arguments",
                    condition.index
                );
            }
        }
        for (what, filter) in [("includes", &self.includes), ("excludes", &self.excludes)] {
            filter.as_ref().map_or(Ok(()), Filter::check).context(what)?;
        }
        Ok(())
    }

    /// What is done with its calls.
    pub fn answer(&self) -> Answer {
        Answer::new(self.action, self.errno_ret)
    }

    /// For messages.
    fn title(&self) -> String {
        let name = self.name.iter().chain(&self.names).next();
        name.map_or("without a name".into(), |name| name.escape_debug().to_string())
    }
}

impl Filter {
    /// What is misspelt would hold for no container, or for all.
    fn check(&self) -> Result<()> {
        if let Some(name) = self.caps.iter().find(|name| !name.starts_with("CAP_")) {
            bail!("caps: {name:?}: expected names such as CAP_SYS_ADMIN");
        }
        if let Some(name) = self.arches.iter().find(|name| !MACHINES.contains(&name.as_str())) {
            bail!("arches: {name:?}: expected names such as amd64, x86, arm64");
        }
        match self.min_kernel.as_deref() {
            None | Some("") => Ok(()),
            Some(version) => kernel_version(version).map(drop).context("minKernel"),
        }
    }
}

fn check_architecture(name: &str) -> Result<()> {
    if !name.strip_prefix("SCMP_ARCH_").is_some_and(|name| ARCHITECTURES.contains(&name)) {
        let ours: Vec<&str> = ALL.iter().map(|architecture| architecture.name()).collect();
        bail!("architecture {name:?}: expected names such as {}", ours.join(", "));
    }
    Ok(())
}

fn check_flag(name: &str) -> Result<()> {
    if !FLAGS.iter().any(|(flag, _)| *flag == name) {
        bail!("flags: {name:?}: expected {}", FLAGS.map(|(flag, _)| flag).join(", "));
    }
    Ok(())
}

/// What belongs to `action`, given as a number or, as with podman, by an error's name: then the
/// name counts. For a tracer it is no error, but any 16 bits.
fn error_number(action: Action, number: Option<u32>, name: Option<&str>) -> Result<Option<u32>> {
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        let largest = if action == Action::Trace { 0xffff } else { LARGEST_ERROR };
        if let Some(number) = number.filter(|number| *number > largest) {
            bail!("{number} is no error number; expected at most {largest}");
        }
        return Ok(number);
    };
    // Errors with two names. (errno(3))
    let name = match name {
        "EWOULDBLOCK" => "EAGAIN",
        "EDEADLOCK" => "EDEADLK",
        "ENOTSUP" => "EOPNOTSUPP",
        name => name,
    };
    let found = (1..=LARGEST_ERROR).find(|number| format!("{:?}", Errno::from_raw(*number as i32)) == name);
    Ok(Some(
        found.with_context(|| {
            format!("{name:?} is no error's name; expected one of errno(3), such as EPERM")
        })?,
    ))
}

/// A version of the kernel, as far as a profile has it: `6.1` of `6.1.0-49-amd64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion(u64, u64);

/// The version that `text` is: two numbers.
pub fn kernel_version(text: &str) -> Result<KernelVersion> {
    let number = |word: &str| word.parse::<u64>().ok();
    let parts = text.split_once('.').and_then(|(one, other)| Some((number(one)?, number(other)?)));
    let (kernel, major) = parts.with_context(|| format!("{text:?}: expected two numbers, such as 4.8"))?;
    Ok(KernelVersion(kernel, major))
}

/// The version that this kernel says it is of.
pub fn running_kernel(release: &str) -> Result<KernelVersion> {
    let end = release.match_indices(|c: char| !c.is_ascii_digit()).nth(1).map_or(release.len(), |(at, _)| at);
    kernel_version(release[..end].trim()).context("the kernel's version")
}

impl Display for Operator {
    /// As a programmer writes it.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Operator::NotEqual => "!=",
            Operator::Less => "<",
            Operator::LessOrEqual => "<=",
            Operator::Equal | Operator::MaskedEqual => "==",
            Operator::GreaterOrEqual => ">=",
            Operator::Greater => ">",
        })
    }
}
