//! Day 10: what day 17 needs of this machine, beyond what the days before it need.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::unistd::{User, geteuid};
use rustix::fs::getxattr;

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
    let uid = geteuid();
    let name = User::from_uid(uid).ok().flatten().map(|user| user.name).unwrap_or_default();
    let is_the_callers = |line: &&[u8]| {
        let who = line.split(|byte| *byte == b':').next().unwrap_or_default();
        uid.is_root() || who == uid.to_string().as_bytes() || !name.is_empty() && who == name.as_bytes()
    };
    let has_entry = |file: &str| {
        let lines = fs::read(file).unwrap_or_default();
        lines
            .split(|byte| *byte == b'\n')
            .filter(|line| line.contains(&b':'))
            .any(|line| is_the_callers(&line))
    };
    if !has_entry("/etc/subuid") || !has_entry("/etc/subgid") {
        let who = if uid.is_root() { "nobody has" } else { "you have no" };
        return Ok(Found::Note(
            format!("{who} ids in /etc/subuid and /etc/subgid"),
            "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 NAME, or run containers as root",
        ));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/bin".into()]);
    let dirs: Vec<PathBuf> = dirs.collect();
    let found = |name: &str| dirs.iter().map(|dir| dir.join(name)).find(|file| file.is_file());
    for (name, what) in PROGRAMS {
        let Some(file) = found(name) else {
            return Ok(Found::Note(
                format!("{name} is not installed ({what})"),
                "install it, or run containers as root",
            ));
        };
        if name.starts_with("new") && !has_roots_power(&file)? {
            return Ok(Found::Note(
                format!("{} is neither set-user-ID root nor has it a capability", file.display()),
                "install its package again, on a file system that is not mounted nosuid",
            ));
        }
    }
    fine("people with ids in /etc/subuid can run containers")
}

/// Whether whoever starts it gets power of root's by it. (execve(2), capabilities(7) "File capabilities")
fn has_roots_power(program: &Path) -> Result<bool> {
    const SET_USER_ID: u32 = 0o4000;
    let mode = fs::metadata(program).with_context(|| format!("look at {program:?}"))?.mode();
    Ok(mode & SET_USER_ID != 0 || getxattr(program, "security.capability", &mut [0; 64]).is_ok())
}
