//! Day 15: `--security-opt`: no_new_privs, and the labels of AppArmor and SELinux.

use crate::error::Result;
use crate::privileges::Privileges;

/// `--security-opt`.
pub fn parse(_typed: &[String], _privileges: &mut Privileges) -> Result<()> {
    Ok(())
}

/// Errors where this kernel has no such thing.
pub fn check(_privileges: &Privileges) -> Result<()> {
    Ok(())
}

/// Child.
pub fn for_the_next_exec(_privileges: &Privileges) -> Result<()> {
    Ok(())
}
