//! Day 15: `--security-opt`: no_new_privs, and the labels of AppArmor and SELinux.
//!
//! Both are kernel modules that ask, whatever a process does: may one with this label do that?
//! Neither root nor a capability is an answer. A process gets its label when it executes a
//! program, and says beforehand which. (kernel: admin-guide/LSM)

use anyhow::{Context, bail};
use nix::unistd::getpid;

use crate::error::Result;
use crate::explain::{shell, step};
use crate::files::{has_apparmor, has_selinux};
use crate::privileges::Privileges;

use super::DAY;
use super::own_proc::OwnProc;

/// The profile of AppArmor that allows all.
const UNCONFINED: &str = "unconfined";

/// The parts of a label of SELinux, in their order: `system_u:system_r:container_t:s0:c1,c2`.
const PARTS: [&str; 4] = ["user", "role", "type", "level"];

/// `--security-opt`.
pub fn parse(typed: &[String], privileges: &mut Privileges) -> Result<()> {
    typed.iter().try_for_each(|option| parse_option(option, privileges))
}

/// `NAME=VALUE`, or `NAME:VALUE`; `None`: it has no value.
pub fn split(option: &str) -> Option<(&str, &str)> {
    option.split_once('=').or_else(|| option.split_once(':'))
}

// ANCHOR: parse_option
/// One of them: `NAME=VALUE`, or as Docker once wrote it `NAME:VALUE`.
fn parse_option(option: &str, privileges: &mut Privileges) -> Result<()> {
    // ANCHOR: day15_task5_parse_option_solution
    match split(option).unwrap_or((option, "")) {
        ("no-new-privileges", "true") => privileges.no_new_privileges = true,
        ("no-new-privileges", "") if option == "no-new-privileges" => privileges.no_new_privileges = true,
        ("no-new-privileges", "false") => privileges.no_new_privileges = false,
        // (It is written to a file of the kernel's, in one line.)
        ("apparmor", profile) if !profile.is_empty() && !profile.contains(['\n', '\0']) => {
            privileges.apparmor = Some(profile.into());
        }
        ("label", "disable") => privileges.label.clear(),
        ("label", part) => {
            let (name, value) = part.split_once(':').unwrap_or_default();
            if !PARTS.contains(&name) || value.is_empty() {
                bail!("--security-opt {option:?}: expected label=disable, or label=PART:VALUE of {PARTS:?}");
            }
            privileges.label.insert(name.into(), value.into());
        }
        ("seccomp", _) => bail!(
            "--security-opt {option:?}: seccomp comes to life on day 16; until then no system call is filtered"
        ),
        _ => bail!(
            "--security-opt {option:?}: expected no-new-privileges, no-new-privileges=false, apparmor=PROFILE, \
             label=user|role|type|level:VALUE, or label=disable"
        ),
    }
    Ok(())
    // ANCHOR_END: day15_task5_parse_option_solution
}
// ANCHOR_END: parse_option

/// Errors where this kernel has no such thing: what confines nothing must not look as if it did.
pub fn check(privileges: &Privileges) -> Result<()> {
    if let Some(profile) = &privileges.apparmor
        && profile != UNCONFINED
        && !has_apparmor()
    {
        bail!(
            "--security-opt apparmor={profile}: this kernel does not have AppArmor, or has it turned off \
             (/sys/module/apparmor/parameters/enabled is not Y); omit it, or boot with apparmor=1 \
             security=apparmor"
        );
    }
    if !privileges.label.is_empty() && !has_selinux() {
        bail!(
            "--security-opt label=…: this kernel does not have SELinux, or has it turned off (nothing is \
             mounted at /sys/fs/selinux); omit it, or boot with security=selinux"
        );
    }
    Ok(())
}

// ANCHOR: for_the_next_exec
/// Child, before exec: which label its next program gets. In a /proc of its own, which is made
/// here and not earlier: the kernel wants this very process both to open the file and to write it.
/// It takes CAP_SYS_ADMIN, which a user who is not root has kept for that.
pub fn for_the_next_exec(privileges: &Privileges) -> Result<()> {
    // ANCHOR: day15_task5_for_the_next_exec_solution
    let profile = privileges.apparmor.as_deref().filter(|profile| *profile != UNCONFINED || has_apparmor());
    if profile.is_none() && privileges.label.is_empty() {
        return Ok(());
    }
    let proc = OwnProc::make()?;
    if let Some(profile) = profile {
        // Since Linux 5.8 AppArmor has files of its own, for it need not be the only such module.
        let own = attribute("apparmor/exec");
        let file = if proc.has(&own) { own } else { attribute("exec") };
        write(&proc, &file, &format!("exec {profile}")).with_context(|| {
            format!(
                "--security-opt apparmor={profile}: expected a profile that is loaded (aa-status): load it with \
                 apparmor_parser"
            )
        })?;
    }
    if !privileges.label.is_empty() {
        let label = label(&proc.read(&attribute("current"))?, privileges)?;
        write(&proc, &attribute("exec"), &label).with_context(|| {
            format!("--security-opt label=…: expected parts of a label that may be had: {label:?}")
        })?;
    }
    Ok(())
    // ANCHOR_END: day15_task5_for_the_next_exec_solution
}
// ANCHOR_END: for_the_next_exec

/// A file of this process's. By its number: /proc/self is a link.
fn attribute(name: &str) -> String {
    format!("{}/attr/{name}", getpid())
}

fn write(proc: &OwnProc, file: &str, text: &str) -> Result<()> {
    let describe = || {
        let call = format!("write {text:?} > /proc/{file}, in a /proc of our own");
        (call, format!("echo {} >/proc/{file}", shell(text)))
    };
    step(DAY, describe, || proc.write(file, text))
}

/// The label `current` with the parts that somebody has given. The last one may have colons itself.
fn label(current: &str, privileges: &Privileges) -> Result<String> {
    let current = current.trim_end_matches(['\0', '\n']);
    let parts: Vec<&str> = current.splitn(PARTS.len(), ':').collect();
    if parts.len() < PARTS.len() - 1 {
        bail!(
            "--security-opt label=…: this process's own label is {current:?}, which has no parts to change"
        );
    }
    let given = |name: &str| privileges.label.get(name).map(String::as_str);
    let parts = PARTS.iter().enumerate().filter_map(|(at, name)| given(name).or(parts.get(at).copied()));
    Ok(parts.collect::<Vec<&str>>().join(":"))
}

#[cfg(test)]
mod tests {
    use super::{label, parse};
    use crate::privileges::Privileges;

    #[test]
    fn a_label_is_the_callers_but_for_the_parts_given() {
        let mut privileges = Privileges::default();
        let options = ["label=type:container_t", "label:level:s0:c1,c2"].map(String::from);
        assert!(parse(&options, &mut privileges).is_ok());
        let own = label("system_u:system_r:kernel_t:s0\0", &privileges).ok();
        assert_eq!(own.as_deref(), Some("system_u:system_r:container_t:s0:c1,c2"));
        // Without levels, as some policies are.
        let own = label("system_u:system_r:kernel_t", &privileges).ok();
        assert_eq!(own.as_deref(), Some("system_u:system_r:container_t:s0:c1,c2"));
        assert!(label("kernel", &privileges).is_err());
    }
}
