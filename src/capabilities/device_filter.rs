//! Day 15: which devices the processes of a cgroup may use.

use std::os::fd::OwnedFd;

use crate::error::Result;

use super::devices::Node;

/// A rule.
#[derive(Debug)]
pub struct Rule {}

/// The rules.
pub fn rules(_nodes: &[Node]) -> Vec<Rule> {
    vec![]
}

/// Attaches.
pub fn attach(_cgroup: &OwnedFd, _rules: &[Rule]) -> Result<()> {
    Ok(())
}
