//! Day 18: what is left of a container that has ended.

use crate::error::Result;

use super::spec::Spec;
use super::store::{Status, Stored};
use super::{cgroup, hooks, systemd};

/// Removes what is left of a container that has ended, and calls those who want to know.
pub fn clear(stored: Stored, spec: &Spec) -> Result<()> {
    // First: if that fails, `delete` can be called again.
    remove_cgroup(&stored)?;
    let kept = stored.kept.clone();
    let removed = stored.remove();
    for hook in spec.hooks(|hooks| &hooks.poststop) {
        // One that fails does not keep the others from being called. (runtime.md, "Lifecycle")
        if let Err(error) = hooks::call(std::slice::from_ref(hook), "poststop", &kept, Status::Stopped) {
            crate::error::print(&error);
        }
    }
    removed
}

/// Removes the cgroup of a container that has ended.
fn remove_cgroup(stored: &Stored) -> Result<()> {
    if let Some(unit) = &stored.kept.scope {
        systemd::stop_scope(unit)?;
    }
    stored.kept.cgroup.as_deref().map_or(Ok(()), cgroup::remove)
}
