//! Day 15: the capabilities of a container: which, and in which of the five sets. (capabilities(7))

use anyhow::bail;
use nix::unistd::geteuid;
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
    set_keep_capabilities, set_no_new_privs,
};

use crate::container::Container;
use crate::error::Result;
use crate::explain::step;
use crate::privileges::{ExactSets, Privileges};

use super::{DAY, labels, ulimit};

// ANCHOR: usual
/// What a container has if nobody asks for anything else: Docker's fourteen.
/// (moby, `oci/caps/defaults.go`)
pub const USUAL: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::AUDIT_WRITE)
    .union(CapabilitySet::SETFCAP);
// ANCHOR_END: usual

/// All of them, in one word.
const ALL: &str = "ALL";

/// Capabilities as people type them, as the kernel's documents write them: `CAP_NET_ADMIN` for
/// `net_admin`. In the order given.
pub fn names(flag: &str, typed: &[String]) -> Result<Vec<String>> {
    typed.iter().map(|word| name(flag, word)).collect()
}

// ANCHOR: name
fn name(flag: &str, word: &str) -> Result<String> {
    // ANCHOR: day15_task1_name_solution
    let upper = word.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if short == ALL {
        return Ok(ALL.into());
    }
    if CapabilitySet::from_name(short).is_some() {
        return Ok(format!("CAP_{short}"));
    }
    let near = near(short);
    let near = if near.is_empty() { String::new() } else { format!("near it: {}; ", near.join(", ")) };
    bail!(
        "{flag} {word:?}: no such capability; {near}expected a name of capabilities(7), with or without CAP_, or ALL"
    )
    // ANCHOR_END: day15_task1_name_solution
}
// ANCHOR_END: name

/// The capabilities whose names look like `word`, the nearest first, at most three.
fn near(word: &str) -> Vec<&'static str> {
    let all = CapabilitySet::all();
    let mut near: Vec<_> = (all.iter_names())
        .map(|(name, _)| (strsim::jaro(name, word), name))
        .filter(|(likeness, _)| *likeness > 0.75)
        .collect();
    near.sort_by(|one, other| other.0.total_cmp(&one.0));
    near.into_iter().take(3).map(|(_, name)| name).collect()
}

// ANCHOR: allowed
/// What the container is to have: the usual ones without the dropped ones, and the added ones. As
/// with Docker `ALL` in one of the lists is where the other one begins.
pub fn allowed(privileges: &Privileges) -> CapabilitySet {
    // ANCHOR: day15_task2_allowed_solution
    let Privileges { privileged, cap_add, cap_drop, .. } = privileges;
    if *privileged {
        return CapabilitySet::all();
    }
    let (added, dropped) = (set_of(cap_add), set_of(cap_drop));
    if cap_add.iter().any(|name| name == ALL) {
        CapabilitySet::all().difference(dropped)
    } else if cap_drop.iter().any(|name| name == ALL) {
        added
    } else {
        USUAL.difference(dropped).union(added)
    }
    // ANCHOR_END: day15_task2_allowed_solution
}
// ANCHOR_END: allowed

/// The same for this container here. Where no filter can keep it from the host's devices, it may
/// not make nodes for them either: with one for the host's disk it would read all files.
pub fn of(container: &Container) -> CapabilitySet {
    let privileges = &container.plan.privileges;
    if let Some(sets) = &privileges.exactly {
        return CapabilitySet::from_bits_truncate(sets.bounding);
    }
    let unbounded = container.parts.unfiltered && !any_device_was_asked_for(privileges);
    allowed(privileges).difference(if unbounded { CapabilitySet::MKNOD } else { CapabilitySet::empty() })
}

/// Whether somebody has asked, in so many words, for what lets it make a node for any device.
pub fn any_device_was_asked_for(privileges: &Privileges) -> bool {
    privileges.privileged || privileges.cap_add.iter().any(|name| name == ALL || name == "CAP_MKNOD")
}

/// Those that are named alone.
pub fn set_of(names: &[String]) -> CapabilitySet {
    let named = names.iter().filter_map(|name| CapabilitySet::from_name(name.strip_prefix("CAP_")?));
    named.fold(CapabilitySet::empty(), CapabilitySet::union)
}

/// Errors for a capability that somebody has asked for by name, and that this process cannot give.
pub fn check(privileges: &Privileges) -> Result<()> {
    let added = set_of(&privileges.cap_add);
    if added.is_empty() {
        return Ok(());
    }
    let missing = added.difference(bounding_set()?);
    if let Some((name, _)) = missing.iter_names().next() {
        bail!(
            "--cap-add {name}: this process may not have it itself, and cannot give it; \
             expected one of its bounding set, which /proc/self/status has as CapBnd"
        );
    }
    Ok(())
}

/// What this process, and whatever it executes, can have at most. The kernel says EINVAL to the
/// first number that is no capability of its own.
fn bounding_set() -> Result<CapabilitySet> {
    let mut found = CapabilitySet::empty();
    for capability in (0..u64::BITS).map(|number| CapabilitySet::from_bits_retain(1 << number)) {
        match capability_is_in_bounding_set(capability) {
            Ok(true) => found |= capability,
            Ok(false) => {}
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

// ANCHOR: bound
/// Child, still root: takes out of its bounding set what the container is not to have. No exec
/// brings it back: not as root, not by a set-user-ID program, not by one with capabilities in
/// its file.
pub fn bound(container: &Container) -> Result<()> {
    // ANCHOR: day15_task2_bound_solution
    let (own, to_be_had) = (bounding_set()?, of(container));
    let too_much = own.difference(to_be_had);
    let describe = || {
        let left = own.intersection(to_be_had);
        let call = format!("prctl(PR_CAPBSET_DROP, …): all but {}", words(left));
        let kept: String = left.iter_names().map(|(name, _)| format!(",+{}", name.to_lowercase())).collect();
        (call, format!("setpriv --bounding-set -all{kept} …"))
    };
    if !too_much.is_empty() {
        step(DAY, describe, || too_much.iter().try_for_each(remove_capability_from_bounding_set))?;
    }
    // Changing to a user who is not root loses all of them, and the last step may need one.
    if needs_power_at_the_end(container) {
        let describe = || ("prctl(PR_SET_KEEPCAPS, 1)".into(), "capsh --keep=1 -- …".into());
        step(DAY, describe, || set_keep_capabilities(true))?;
    }
    Ok(())
    // ANCHOR_END: day15_task2_bound_solution
}
// ANCHOR_END: bound

// ANCHOR: give_up
/// Child, as the command's user, before exec: its label and its limits, and then the four other
/// sets. In this order: to raise a limit takes a capability, and to write a label takes a file
/// more than a limit may leave.
pub fn give_up_the_rest(container: &Container) -> Result<()> {
    let privileges = &container.plan.privileges;
    if needs_power_at_the_end(container) {
        use_what_is_kept()?;
    }
    labels::for_the_next_exec(privileges)?;
    ulimit::set(&privileges.ulimits)?;
    match &privileges.exactly {
        None => set_the_sets(of(container), until_exec(container))?,
        Some(exact) => set_exactly(exact, until_exec(container))?,
    }
    if privileges.no_new_privileges {
        let describe = || ("prctl(PR_SET_NO_NEW_PRIVS, 1)".into(), "setpriv --no-new-privs …".into());
        step(DAY, describe, || set_no_new_privs(true))?;
    }
    Ok(())
}

/// Whether one of the last steps, as the command's user, takes a capability.
fn needs_power_at_the_end(container: &Container) -> bool {
    container.plan.privileges.needs_power_at_the_end() || !until_exec(container).is_empty()
}

/// What is kept up to exec, which then takes it: root's new sets are what is in the bounding set,
/// and anybody else's are empty. On day 16 attaching a filter takes it.
fn until_exec(container: &Container) -> CapabilitySet {
    let takes_it = container.parts.filter.is_some() && !container.plan.privileges.no_new_privileges;
    if takes_it { CapabilitySet::SYS_ADMIN } else { CapabilitySet::empty() }
}

/// What [`bound`] has kept is permitted, but setuid(2) to a user who is not root has made none of
/// it effective. (capabilities(7), "Effect of user ID changes on capabilities")
fn use_what_is_kept() -> Result<()> {
    let mut sets = capabilities(None)?;
    if sets.effective == sets.permitted {
        return Ok(());
    }
    sets.effective = sets.permitted;
    let describe = || ("capset(effective: all that are permitted)".into(), "no shell can do that".into());
    step(DAY, describe, || set_capabilities(None, sets))
}

/// Of `allowed` root has all, permitted and effective; anybody else none, as after an exec; and
/// both have what is `kept` up to there. What a command could hand on, inheritable and ambient,
/// nobody has. (Docker since 20.10.14, CVE-2022-24769)
fn set_the_sets(allowed: CapabilitySet, kept: CapabilitySet) -> Result<()> {
    // ANCHOR: day15_task2_set_the_sets_solution
    let own = if geteuid().is_root() { allowed } else { CapabilitySet::empty() };
    // The kernel gives nobody what is not permitted already.
    let permitted = capabilities(None)?.permitted.intersection(own.union(kept));
    let sets = CapabilitySets { effective: permitted, permitted, inheritable: CapabilitySet::empty() };
    let describe = || {
        let by_hand = "setpriv --inh-caps=-all --ambient-caps=-all …";
        (format!("capset(permitted, effective: {}; inheritable: none)", words(permitted)), by_hand.into())
    };
    step(DAY, describe, || set_capabilities(None, sets))
    // ANCHOR_END: day15_task2_set_the_sets_solution
}
// ANCHOR_END: give_up

/// Sets four of the five sets, without what the kernel would not give, and
/// with what is `kept` up to exec. The bounding set is what it is to be already.
///
/// Root gets at exec what is inheritable or in the bounding set, whatever the others are; anybody else what
/// is ambient. (capabilities(7), "Transformation of capabilities during execve()")
fn set_exactly(exact: &ExactSets, kept: CapabilitySet) -> Result<()> {
    let may = capabilities(None)?.permitted;
    let set = |bits: u64| CapabilitySet::from_bits_truncate(bits).intersection(may);
    let permitted = set(exact.permitted).union(kept.intersection(may));
    let effective = set(exact.effective).union(kept).intersection(permitted);
    let inheritable = set(exact.inheritable);
    let describe = || {
        let call = format!(
            "capset(permitted: {}; effective: {}; inheritable: {})",
            words(permitted),
            words(effective),
            words(inheritable)
        );
        (call, "capsh --inh=… --user=… -- …".into())
    };
    step(DAY, describe, || set_capabilities(None, CapabilitySets { effective, permitted, inheritable }))?;
    // The kernel lets only what is both permitted and inheritable be ambient.
    let ambient = set(exact.ambient).intersection(permitted).intersection(inheritable);
    let describe = || {
        let call = format!("prctl(PR_CAP_AMBIENT, …): {}", words(ambient));
        (call, "setpriv --ambient-caps=… …".into())
    };
    step(DAY, describe, || {
        clear_ambient_capability_set()?;
        ambient.iter().try_for_each(|capability| configure_capability_in_ambient_set(capability, true))
    })
}

/// `set` as a list: `CAP_CHOWN, CAP_KILL`.
fn words(set: CapabilitySet) -> String {
    let names: Vec<String> = set.iter_names().map(|(name, _)| format!("CAP_{name}")).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}
