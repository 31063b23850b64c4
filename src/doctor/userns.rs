//! Day 10: what day 17 needs of this machine, beyond what the days before it need.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, bail};

use crate::error::Result;

use super::{Found, fine};

/// How many there may be; 0: none. (namespaces(7), "The /proc/sys/user directory")
const MOST: &str = "/proc/sys/user/max_user_namespaces";

/// Where distributions say that only root may make one: the file, and what it says then.
const RESTRICTIONS: [(&str, &str); 2] = [
    ("/proc/sys/kernel/unprivileged_userns_clone", "0"),
    ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
];

/// What a person without root's rights needs besides ids, and what for.
const PROGRAMS: [(&str, &str); 3] = [
    ("newuidmap", "the package uidmap"),
    ("newgidmap", "the package uidmap"),
    ("slirp4netns", "without it, no way out of the person's network"),
];

/// The kernel makes user namespaces.
pub fn user_namespaces() -> Result<Found> {
    match fs::read_to_string(MOST) {
        Err(error) if error.kind() == ErrorKind::NotFound => bail!("this kernel has none (CONFIG_USER_NS)"),
        text if text.as_ref().is_ok_and(|text| text.trim() == "0") => {
            bail!("{MOST} is 0, so nobody makes any")
        }
        text => text.with_context(|| format!("read {MOST}"))?,
    };
    fine("may be made")
}

/// Whether people without root's rights can run containers.
pub fn without_root() -> Result<Found> {
    let says = |(file, word): &(&str, &str)| fs::read_to_string(file).is_ok_and(|text| text.trim() == *word);
    if let Some((file, word)) = RESTRICTIONS.iter().find(|restriction| says(restriction)) {
        return Ok(Found::Note(
            format!("{file} is {word}: only root makes user namespaces"),
            "change it with sysctl, or run containers as root",
        ));
    }
    let has_entry = |file: &str| fs::read(file).is_ok_and(|text| text.contains(&b':'));
    if !has_entry("/etc/subuid") || !has_entry("/etc/subgid") {
        return Ok(Found::Note(
            "nobody has ids in /etc/subuid and /etc/subgid".into(),
            "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 NAME, or run containers as root",
        ));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there =
        |name: &str| std::env::split_paths(&path).any(|dir: std::path::PathBuf| dir.join(name).is_file());
    match PROGRAMS.iter().find(|(name, _)| !is_there(name) && !Path::new("/usr/bin").join(name).is_file()) {
        Some((name, what)) => Ok(Found::Note(
            format!("{name} is not installed ({what})"),
            "install it, or run containers as root",
        )),
        None => fine("people with ids in /etc/subuid can run containers"),
    }
}
