//! Day 15, for day 18: sets of capabilities that somebody else has worked out, to the letter.

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    configure_capability_in_ambient_set, set_capabilities, set_no_new_privs,
};

use crate::container::Container;
use crate::error::Result;
use crate::explain::step;
use crate::privileges::ExactSets;

use super::sets::{until_exec, use_what_is_kept, words};
use super::{DAY, labels, ulimit};

/// Child, as the command's user, before exec: what [`super::sets::give_up_the_rest`] does, in the same order,
/// with these sets.
pub fn give_up_the_rest(container: &Container) -> Result<()> {
    let privileges = &container.plan.privileges;
    use_what_is_kept()?;
    labels::for_the_next_exec(privileges)?;
    ulimit::set(&privileges.ulimits)?;
    set(&privileges.exactly.unwrap_or_default(), until_exec(container))?;
    if privileges.no_new_privileges {
        let describe = || ("prctl(PR_SET_NO_NEW_PRIVS, 1)".into(), "setpriv --no-new-privs …".into());
        step(DAY, describe, || set_no_new_privs(true))?;
    }
    Ok(())
}

/// Sets four of the five sets, without what the kernel would not give, and
/// with what is `kept` up to exec. The bounding set is what it is to be already.
///
/// Root gets at exec what is inheritable or in the bounding set, whatever the others are; anybody else what
/// is ambient. (capabilities(7), "Transformation of capabilities during execve()")
pub fn set(exact: &ExactSets, kept: CapabilitySet) -> Result<()> {
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
