//! Day 18: what is left of a container that has ended.

use crate::error::Result;
use crate::metadata::traces;

use super::hooks;
use super::spec::Spec;
use super::store::{Status, Stored};

/// Removes what is left of a container that has ended, and calls those who want to know.
pub fn clear(stored: Stored, spec: &Spec) -> Result<()> {
    let removed = remove_cgroup(&stored);
    let kept = stored.kept.clone();
    let forgotten = stored.remove();
    for hook in spec.hooks(|hooks| &hooks.poststop) {
        // One that fails does not keep the others from being called. (runtime.md, "Lifecycle")
        if let Err(error) = hooks::call(std::slice::from_ref(hook), "poststop", &kept, Status::Stopped) {
            crate::error::print(&error);
        }
    }
    removed.and(forgotten)
}

/// Removes the cgroup of a container that has ended.
fn remove_cgroup(stored: &Stored) -> Result<()> {
    match &stored.kept.cgroup {
        Some(cgroup) if cgroup.exists() => traces::remove_cgroup(cgroup),
        _ => Ok(()),
    }
}
