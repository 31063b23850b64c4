//! Day 15: resource limits. (getrlimit(2))

use std::collections::BTreeMap;

use crate::error::Result;
use crate::privileges::Ulimit;

/// `--ulimit NAME=SOFT[:HARD]`.
pub fn parse(_typed: &[String]) -> Result<BTreeMap<String, Ulimit>> {
    Ok(BTreeMap::new())
}

/// Child: sets them.
pub fn set(_limits: &BTreeMap<String, Ulimit>) -> Result<()> {
    Ok(())
}
