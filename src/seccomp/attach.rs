//! Day 16: which filter a container gets, and how the kernel gets it. (seccomp(2))

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, bail};
use rustix::thread::CapabilitySet;

use crate::capabilities::sets;
use crate::container::{Container, Filter};
use crate::error::Result;
use crate::explain::step;
use crate::kernel;

use super::DAY;
use super::answer::{Action, Answer};
use super::bpf::Instruction;
use super::calls::Architecture;
use super::compiler::compile;
use super::profile::{FLAGS, LARGEST, Profile, SPEC_ALLOW, WAIT_KILLABLE};

/// No filter: any call may be made.
pub const UNCONFINED: &str = "unconfined";

/// The usual profile, as Docker calls it.
const BUILT_IN: &str = "builtin";

// ANCHOR: usual
/// Docker's profile, of June 2026. (moby/profiles, `seccomp/default.json`)
pub const USUAL: &str = include_str!("usual.json");

/// What the compiler makes of it for a container with the usual capabilities: then a start does
/// without reading and compiling it. A test compares, and with TINY_DOCKER_UPDATE=1 writes.
const COMPILED: &[u8] = if cfg!(target_arch = "x86_64") {
    include_bytes!("usual-x86-64.bpf").as_slice()
} else if cfg!(target_arch = "aarch64") {
    include_bytes!("usual-arm64.bpf").as_slice()
} else {
    &[]
};

/// The capabilities that the usual profile asks about. The others change nothing.
const ASKED_ABOUT: CapabilitySet = CapabilitySet::DAC_READ_SEARCH
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::SYS_BOOT)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::SYS_MODULE)
    .union(CapabilitySet::SYS_PACCT)
    .union(CapabilitySet::SYS_PTRACE)
    .union(CapabilitySet::SYS_RAWIO)
    .union(CapabilitySet::SYS_TIME)
    .union(CapabilitySet::SYS_TTY_CONFIG)
    .union(CapabilitySet::SYS_NICE)
    .union(CapabilitySet::SYSLOG)
    .union(CapabilitySet::BPF)
    .union(CapabilitySet::PERFMON);
// ANCHOR_END: usual

/// The profile that `--security-opt seccomp=VALUE` means, as its text, or [`UNCONFINED`]; `None`:
/// the usual one. It goes into the record, for the file may be another one tomorrow.
pub fn read(value: &str) -> Result<Option<String>> {
    match value {
        BUILT_IN => Ok(None),
        UNCONFINED => Ok(Some(UNCONFINED.into())),
        file => read_file(file).map(Some).with_context(|| format!("--security-opt seccomp={file}")),
    }
}

/// The text of the profile that is in `file`. What is wrong with it is an error.
pub fn read_file(file: impl AsRef<Path>) -> Result<String> {
    let mut bytes = Vec::new();
    (File::open(file).and_then(|file| file.take(LARGEST as u64 + 1).read_to_end(&mut bytes)))
        .context("expected a file with a profile in JSON, or unconfined, or builtin")?;
    if bytes.len() > LARGEST {
        bail!("it is too large; expected a profile of at most {LARGEST} bytes");
    }
    check_that_nobody_decides(&Profile::parse(&bytes)?)?;
    Ok(String::from_utf8(bytes)?)
}

/// A profile may leave calls to another program. There is none here.
fn check_that_nobody_decides(profile: &Profile) -> Result<()> {
    if profile.listener_path.is_some() || profile.listener_metadata.is_some() {
        bail!("listenerPath: there is no program here that decides about calls; omit it");
    }
    if profile.default_action == Action::Notify || profile.notifies().next().is_some() {
        bail!("SCMP_ACT_NOTIFY: there is no program here that decides about calls; expected another action");
    }
    Ok(())
}

// ANCHOR: of
/// The filter of `container`; `None`: it has none. A privileged container has none,
/// unless somebody has asked for one.
pub fn filter_of(container: &Container) -> Result<Option<Filter>> {
    // ANCHOR: day16_task5_filter_of_solution
    let privileges = &container.plan.privileges;
    match privileges.seccomp.as_deref() {
        Some(UNCONFINED) => Ok(None),
        None if privileges.privileged => Ok(None),
        None => usual(sets::of(container)).map(Some),
        Some(text) => {
            let profile = Profile::parse(text.as_bytes());
            profile
                .and_then(|profile| made_of(&profile, sets::of(container)))
                .map(Some)
                .context("--security-opt seccomp=…")
        }
    }
    // ANCHOR_END: day16_task5_filter_of_solution
}
// ANCHOR_END: of

/// The usual filter, for a container with `capabilities`.
fn usual(capabilities: CapabilitySet) -> Result<Filter> {
    let is_as_usual = (capabilities & ASKED_ABOUT) == (sets::USUAL & ASKED_ABOUT);
    if is_as_usual && !COMPILED.is_empty() {
        let program = COMPILED.chunks_exact(8).map(|bytes| std::array::from_fn(|at| bytes[at])).collect();
        return Ok(Filter { program, flags: SPEC_ALLOW, otherwise: Answer::error(libc::EPERM as u32).0 });
    }
    made_of(&Profile::parse(USUAL.as_bytes())?, capabilities)
}

/// The filter that `profile` is for a container with `capabilities`.
pub fn made_of(profile: &Profile, capabilities: CapabilitySet) -> Result<Filter> {
    let program = compile(profile, Architecture::native()?, capabilities)?;
    let program = program.into_iter().map(Instruction::bytes).collect();
    Ok(Filter { program, flags: flags(profile), otherwise: profile.default_answer().0 })
}

/// How the kernel is to take the filter. If a profile does not say it, it is as with runc.
fn flags(profile: &Profile) -> u32 {
    let Some(names) = &profile.flags else { return SPEC_ALLOW };
    let named = FLAGS.iter().filter(|(name, _)| names.iter().any(|one| one == name));
    let flags = named.fold(0, |flags, (_, flag)| flags | flag);
    // Without somebody who decides about calls the kernel does not take it.
    if profile.notifies().next().is_none() { flags & !WAIT_KILLABLE } else { flags }
}

// ANCHOR: attach
/// Child, the last of all before exec: from here on each of its system calls is asked about. What
/// it needs itself until then is under the filter already: to tell that it is about to start
/// (write), and execve. So the command has been found, and all is in memory that execve takes.
///
/// The kernel lets two kinds of processes do that: those that can gain no privileges any more
/// (no_new_privs), for a filter could make a set-user-ID program believe in what has not happened;
/// and those with CAP_SYS_ADMIN. The first one would change what the command can do: no `sudo`,
/// no `ping` with a capability in its file. So this process still has CAP_SYS_ADMIN. It goes with
/// the exec that follows: root then has what is in the bounding set, and anybody else nothing.
/// (seccomp(2), capabilities(7))
pub fn attach(container: &Container) -> Result<()> {
    // ANCHOR: day16_task5_attach_solution
    let Some(filter) = &container.parts.filter else { return Ok(()) };
    let describe = || {
        let named = FLAGS.iter().filter(|(_, flag)| filter.flags & flag != 0).map(|(name, _)| *name);
        let flags = named.collect::<Vec<_>>().join("|");
        let flags = if flags.is_empty() { "0" } else { &flags };
        let call = format!(
            "seccomp(SECCOMP_SET_MODE_FILTER, {flags}, {} instructions): what no rule names gets: {}",
            filter.program.len(),
            Answer(filter.otherwise)
        );
        (call, "systemd-run --property SystemCallFilter=@system-service …".into())
    };
    step(DAY, describe, || kernel::attach_call_filter(&filter.program, filter.flags)).map_err(explained)
    // ANCHOR_END: day16_task5_attach_solution
}
// ANCHOR_END: attach

/// `error` of [`attach`] with what it means here.
pub fn explained(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
        Some(libc::EINVAL) => error.context(
            "the kernel does not take this program: a jump leads beyond its end, no answer is there, or it does \
             not know the flags; or it has no such filters (CONFIG_SECCOMP_FILTER). Without one: \
             --security-opt seccomp=unconfined",
        ),
        Some(libc::ENOSYS) => error.context(
            "this kernel has no filters for system calls (CONFIG_SECCOMP); expected --security-opt \
             seccomp=unconfined, which goes without",
        ),
        Some(libc::ENOMEM) => {
            error.context("there are too many filters, one within the other: the caller's are asked too")
        }
        Some(libc::EACCES) => error.context(
            "to attach a filter takes CAP_SYS_ADMIN, which the caller does not have, or --security-opt no-new-privileges",
        ),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the compiler makes of the usual profile is in the two files.
    #[test]
    fn the_usual_program_is_what_the_compiler_makes_of_the_usual_profile() {
        let profile = Profile::parse(USUAL.as_bytes()).unwrap_or_else(|error| panic!("{error:#}"));
        for (native, file, there) in [
            (Architecture::X86_64, "usual-x86-64.bpf", include_bytes!("usual-x86-64.bpf").as_slice()),
            (Architecture::Arm64, "usual-arm64.bpf", include_bytes!("usual-arm64.bpf").as_slice()),
        ] {
            let program = compile(&profile, native, sets::USUAL).unwrap_or_else(|error| panic!("{error:#}"));
            let bytes: Vec<u8> = program.into_iter().flat_map(Instruction::bytes).collect();
            if there != bytes && std::env::var_os("TINY_DOCKER_UPDATE").is_some() {
                let path = format!("{}/src/seccomp/{file}", env!("CARGO_MANIFEST_DIR"));
                std::fs::write(&path, &bytes).unwrap_or_else(|error| panic!("{error}"));
                continue;
            }
            assert!(there == bytes, "{file} is another program: TINY_DOCKER_UPDATE=1 writes it");
        }
    }

    #[test]
    fn no_other_capability_changes_the_usual_program() {
        let profile = Profile::parse(USUAL.as_bytes()).unwrap_or_else(|error| panic!("{error:#}"));
        let asked: CapabilitySet = (profile.syscalls.iter())
            .flat_map(|rule| rule.includes.iter().chain(&rule.excludes))
            .flat_map(|filter| &filter.caps)
            .filter_map(|name| CapabilitySet::from_name(name.strip_prefix("CAP_")?))
            .fold(CapabilitySet::empty(), CapabilitySet::union);
        assert_eq!(asked, ASKED_ABOUT);
    }
}
