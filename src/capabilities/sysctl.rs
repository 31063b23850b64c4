//! Day 15: kernel parameters that a container has for itself. (sysctl(8); namespaces(7))

use std::collections::BTreeMap;

use crate::container::Container;
use crate::error::Result;
use crate::plan::Plan;

/// `--sysctl NAME=VALUE`.
pub fn parse(_typed: &[String]) -> Result<BTreeMap<String, String>> {
    Ok(BTreeMap::new())
}

/// Errors for one that is not the container's own.
pub fn check(_plan: &Plan) -> Result<()> {
    Ok(())
}

/// Child: sets them.
pub fn set(_container: &mut Container) -> Result<()> {
    Ok(())
}
