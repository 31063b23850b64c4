//! Day 7: where in the one tree of cgroups a container's may be made.
//!
//! Two rules of the kernel, and one of systemd. A cgroup has only the controllers
//! that its parent hands down, in `cgroup.subtree_control`: they are enabled from
//! the top. A cgroup that hands any down may have no processes of its own, but for
//! the root. And where systemd manages the tree, one keeps out of it but for units
//! that it has delegated. (kernel: admin-guide/cgroup-v2, "Top-down Constraint", "No
//! Internal Process Constraint"; systemd: CGROUP_DELEGATION)

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use libc::CGROUP2_SUPER_MAGIC;
use nix::errno::Errno;
use rustix::fs::{Access, access, statfs};

use crate::error::Result;
use crate::explain::{shell, step};
use crate::files;
use crate::ids;
use crate::wait::PATIENCE;

const DAY: u8 = 7;

/// It is there where systemd is at work. (sd_booted(3))
pub const SYSTEMD: &str = "/run/systemd/system";

/// Those that limits and `stats` need.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

// ANCHOR: find
/// The directory in which a container's cgroup may be made: the root of the tree;
/// or, where systemd manages it, a unit that it has delegated to us.
pub fn place() -> Result<PathBuf> {
    // ANCHOR: day7_task2_place_solution
    let root = find_mount()?;
    if Path::new(SYSTEMD).exists() { delegated_unit(&root) } else { Ok(root) }
    // ANCHOR_END: day7_task2_place_solution
}

/// The directory in which containers get their cgroups, with the controllers that
/// `needed` names handed down to them; the others of ours as well, if possible.
///
/// Errors say what was found, and what to change.
pub fn find(needed: &[&str]) -> Result<PathBuf> {
    // ANCHOR: day7_task2_find_solution
    let place = place()?;
    let available = check_controllers(&place, needed)?;
    let wanted: Vec<&str> =
        CONTROLLERS.into_iter().filter(|name| available.iter().any(|one| one == name)).collect();
    match hand_down(&place, &wanted) {
        // What nobody asked for, nobody misses.
        Err(_) if needed.is_empty() => Ok(place),
        outcome => outcome.map(|()| place),
    }
    // ANCHOR_END: day7_task2_find_solution
}
// ANCHOR_END: find

/// The controllers that `place` has; it is an error if one of `needed` is not among them.
pub fn check_controllers(place: &Path, needed: &[&str]) -> Result<Vec<String>> {
    let available = read_words(&place.join("cgroup.controllers"))?;
    match needed.iter().find(|name| !available.iter().any(|one| one == *name)) {
        Some(missing) => bail!("{}", why_not(missing, place)),
        None => Ok(available),
    }
}

/// Where the cgroup2 file system nearly always is.
const USUAL: &str = "/sys/fs/cgroup";

/// Is it there? One look is faster than a table of mounts.
pub fn is_usual() -> bool {
    statfs(USUAL).is_ok_and(|found| found.f_type == CGROUP2_SUPER_MAGIC)
}

/// Where the one tree begins for us: where the cgroup2 file system is mounted.
fn find_mount() -> Result<PathBuf> {
    let mount = mount()?;
    // Without root: with the cgroup that we are in, if somebody has made it over to us. (day 17)
    if ids::are_not_the_hosts() && !Path::new(SYSTEMD).exists() { ours(&mount) } else { Ok(mount) }
}

/// This process's cgroup, if it may make others in it. (kernel: admin-guide/cgroup-v2, "Delegation")
fn ours(mount: &Path) -> Result<PathBuf> {
    let own = cgroup_of("self")?;
    let dir = mount.join(own.strip_prefix("/").unwrap_or(&own));
    if let Err(errno) = access(&dir, Access::WRITE_OK) {
        bail!(
            "without root, limits take a cgroup that is yours, and {dir:?}, in which this process is, is not ({errno}); \
             as root: mkdir one, chown it and its cgroup.procs and cgroup.subtree_control, and move your shell there"
        );
    }
    Ok(dir)
}

fn mount() -> Result<PathBuf> {
    if is_usual() {
        return Ok(USUAL.into());
    }
    let table = table_of_mounts()?;
    match (mounted(&table, "cgroup2", None), mounted(&table, "cgroup", None)) {
        (Some(mount), _) => Ok(mount),
        (None, Some(v1)) => bail!(
            "this host has cgroups of version 1 only (at {}), and limits need version 2; \
             boot it with the kernel parameter systemd.unified_cgroup_hierarchy=1, or use the lab's VM",
            v1.display()
        ),
        (None, None) => bail!(
            "no cgroup file system is mounted, and limits need one: mount -t cgroup2 cgroup2 /sys/fs/cgroup"
        ),
    }
}

fn table_of_mounts() -> Result<Vec<u8>> {
    files::read("/proc/self/mountinfo").context("read /proc/self/mountinfo")
}

/// Where in `table` a file system of type `kind` is mounted, with `option` among its own
/// options if that is asked for. (proc_pid_mountinfo(5): the fifth field is the place; after a field
/// that is "-" come the type, the source and those options)
fn mounted(table: &[u8], kind: &str, option: Option<&str>) -> Option<PathBuf> {
    table.split(|byte| *byte == b'\n').find_map(|line| {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let dash = fields.iter().position(|field| *field == b"-")?;
        let is_kind = fields.get(dash + 1) == Some(&kind.as_bytes());
        let options = fields.get(dash + 3)?.split(|byte| *byte == b',');
        let has_option = option.is_none_or(|option| options.into_iter().any(|one| one == option.as_bytes()));
        (is_kind && has_option).then(|| unescape(fields[4]))
    })
}

/// A path as the table of mounts has it: what would end a field in there is written as a
/// backslash and three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| byte == b'\\').and_then(|digits| str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(escaped) => {
                path.push(escaped);
                rest = &after[3..];
            }
            None => {
                path.push(byte);
                rest = after;
            }
        }
    }
    OsString::from_vec(path).into()
}

// ANCHOR: delegated
/// The unit of systemd that this process runs in, if systemd has handed it over
/// ("delegated") to us. Its mark is an extended attribute of the directory.
fn delegated_unit(root: &Path) -> Result<PathBuf> {
    let own = cgroup_of("self")?;
    let is_unit = |dir: &&Path| dir.extension().is_some_and(|kind| kind == "scope" || kind == "service");
    // The innermost: further out may lie a user's own systemd, and what is in there
    // is that one's.
    let Some(unit) = own.ancestors().find(is_unit) else {
        bail!(
            "systemd manages this host's cgroups, and put this process into {own:?}, which is no unit of ours; {}",
            systemd_run()
        );
    };
    let dir = root.join(unit.strip_prefix("/").unwrap_or(unit));
    let marked = |name: &str| {
        let mut value = [0; 8];
        rustix::fs::getxattr(&dir, name, &mut value).is_ok_and(|count| count > 0 && value[0] == b'1')
    };
    if !marked("trusted.delegate") && !marked("user.delegate") {
        bail!(
            "systemd manages this host's cgroups, and {unit:?}, in which this process is, is not delegated to it; {}",
            systemd_run()
        );
    }
    Ok(dir)
}
// ANCHOR_END: delegated

/// How to get one. A person has a systemd of their own to ask.
fn systemd_run() -> String {
    let whose = if ids::are_not_the_hosts() { "--user " } else { "" };
    format!(
        "ask it for a place: systemd-run {whose}--scope -p Delegate=yes tiny-docker run … (or a shell, for several)"
    )
}

/// The cgroup of version 2 of `process`, a number or `self`, seen from this process's cgroup namespace.
/// (cgroups(7))
pub fn cgroup_of(process: &str) -> Result<PathBuf> {
    let file = format!("/proc/{process}/cgroup");
    let text = files::read(&file).with_context(|| format!("read {file}"))?;
    let path = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"0::"));
    let path = path.with_context(|| format!("{file} has no line 0::, for version 2"))?;
    Ok(OsString::from_vec(path.to_vec()).into())
}

// ANCHOR: hand_down
/// Hands `controllers` down to the children of `dir`.
fn hand_down(dir: &Path, controllers: &[&str]) -> Result<()> {
    // ANCHOR: day7_task2_hand_down_solution
    let file = dir.join("cgroup.subtree_control");
    let already = read_words(&file)?;
    let missing: Vec<String> = controllers
        .iter()
        .filter(|name| !already.iter().any(|one| one == *name))
        .map(|name| format!("+{name}"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let words = missing.join(" ");
    let describe =
        || (format!("write {words} > {}", file.display()), format!("echo {words} > {}", shell(&file)));
    let write = || files::write(&file, &words);
    step(DAY, describe, || match write() {
        Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => {
            move_into_a_leaf(dir).and_then(|()| write())
        }
        outcome => outcome,
    })
    // ANCHOR_END: day7_task2_hand_down_solution
}
// ANCHOR_END: hand_down

/// Moves the processes of `dir`, us among them, into a child of it: only then may
/// it hand anything down. They are ours: in a delegated unit, or in the container
/// in which we run.
fn move_into_a_leaf(dir: &Path) -> std::io::Result<()> {
    let leaf = dir.join("tiny-docker.runtime");
    if !leaf.is_dir() {
        fs::create_dir(&leaf)?;
    }
    // Those that fork meanwhile leave a child behind: until there is none.
    let start = Instant::now();
    loop {
        let processes = fs::read_to_string(dir.join("cgroup.procs"))?;
        if processes.is_empty() {
            return Ok(());
        }
        // A process of another pid namespace has no number here, and is said to be 0.
        if processes.lines().any(|pid| pid == "0") || start.elapsed() > PATIENCE {
            return Err(Errno::EBUSY.into());
        }
        for pid in processes.lines() {
            match files::write(leaf.join("cgroup.procs"), pid) {
                // It has ended.
                Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => {}
                outcome => outcome?,
            }
        }
    }
}

/// Why `dir` has no controller `name`, as far as can be found out.
fn why_not(name: &str, dir: &Path) -> String {
    let v1 = table_of_mounts().ok().and_then(|table| mounted(&table, "cgroup", Some(name)));
    match v1 {
        Some(place) => format!(
            "the controller {name:?} is in use by cgroup version 1, at {}, and limits need it in version 2; \
             boot with systemd.unified_cgroup_hierarchy=1, or use the lab's VM",
            place.display()
        ),
        _ => format!(
            "{} has no controller {name:?} (it has what its cgroup.controllers names); \
             enable it in cgroup.subtree_control of the cgroup above, or boot without cgroup_disable={name}",
            dir.display()
        ),
    }
}

/// The words in `file`, one of the kernel's lists of controllers.
fn read_words(file: &Path) -> Result<Vec<String>> {
    let text = files::read(file).with_context(|| format!("read {file:?}"))?;
    Ok(String::from_utf8_lossy(&text).split_whitespace().map(str::to_string).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::unescape;

    #[test]
    fn a_path_in_the_table_of_mounts_is_bytes() {
        for (field, path) in [
            (&b"/sys/fs/cgroup"[..], &b"/sys/fs/cgroup"[..]),
            (b"/a\\040b\\011c\\012d\\134e", b"/a b\tc\nd\\e"),
            (b"/caf\xe9", b"/caf\xe9"),
            // Nothing the kernel writes, and nothing to panic at.
            (b"/a\\04", b"/a\\04"),
            (b"/a\\999", b"/a\\999"),
        ] {
            assert_eq!(unescape(field).as_os_str().as_bytes(), path);
        }
    }
}
