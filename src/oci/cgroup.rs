//! Day 18: the cgroup of a bundle: where its engine wants it in the tree. (kernel: admin-guide/cgroup-v2)

use std::fs;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};

use crate::cgroups::place;
use crate::error::{Result, io_kind};
use crate::explain::{shell, step};
use crate::files;
use crate::ids;
use crate::metadata::freezer::is_frozen;
use crate::metadata::traces;

use super::DAY;
use super::resources::Files;

const ROOT: &str = "/sys/fs/cgroup";

/// Where containers are whose bundles do not say where.
const USUAL: &str = "tiny-runc";

/// Who makes a container's cgroup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Driver {
    /// This program, by mkdir(2).
    #[default]
    Files,
    /// systemd, which is asked for a scope.
    Systemd,
    /// Nobody: it stays in that of its caller.
    Nobody,
}

/// Where a container's cgroup is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its directory.
    pub dir: PathBuf,
    /// If systemd makes it: the unit, and the slice that it is in.
    pub scope: Option<(String, String)>,
}

/// Where the container's cgroup is to be; `None`: nowhere. `path` is `cgroupsPath`; for systemd it is
/// `SLICE:PREFIX:NAME`.
pub fn place(driver: Driver, path: Option<&str>, id: &str, needed: bool) -> Result<Option<Place>> {
    if driver == Driver::Nobody {
        return Ok(None);
    }
    if !place::is_usual() {
        if needed {
            bail!(
                "linux.resources: there are no cgroups of version 2 at {ROOT}, and limits need them; boot with systemd.unified_cgroup_hierarchy=1"
            );
        }
        return Ok(None);
    }
    let path = path.filter(|path| !path.is_empty());
    let (inside, scope) = if driver == Driver::Systemd {
        let default = format!(":tiny-runc:{id}");
        let asked = path.unwrap_or(&default);
        let [slice, prefix, name] = asked.split(':').collect::<Vec<_>>()[..] else {
            bail!("linux.cgroupsPath is {asked:?}; expected SLICE:PREFIX:NAME, for systemd makes the cgroup");
        };
        let slice = if slice.is_empty() { "system.slice" } else { slice };
        let unit = if prefix.is_empty() { format!("{name}.scope") } else { format!("{prefix}-{name}.scope") };
        (dir_of(slice) + &unit, Some((unit, slice.to_string())))
    } else {
        (path.map_or(format!("{USUAL}/{id}"), |path| path.trim_start_matches('/').into()), None)
    };
    if Path::new(&inside).components().any(|part| !matches!(part, Component::Normal(_))) {
        bail!("linux.cgroupsPath is {path:?}; expected a path without . and ..");
    }
    Ok(Some(Place { dir: Path::new(ROOT).join(inside), scope }))
}

/// Where systemd has a slice: `a-b.slice` is in `a.slice`. (systemd.slice(5))
fn dir_of(slice: &str) -> String {
    let stem = slice.strip_suffix(".slice").unwrap_or(slice);
    let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]).filter(|at| *at > 0);
    // The uppermost is the root itself: it is called -.slice, and has no directory of its own.
    ends.map(|at| format!("{}.slice/", &stem[..at])).filter(|dir| dir != "-.slice/").collect()
}

/// Whoever makes a container in a cgroup limits all that is in there, and ends it with the container.
pub fn check_that_nobody_is_in(cgroup: &Path) -> Result<()> {
    if cgroup == Path::new(ROOT) || is_frozen(cgroup) || !processes(cgroup).is_empty() {
        bail!(
            "linux.cgroupsPath: {cgroup:?} is the root of all cgroups, has processes in it, or is frozen; expected one of the container's own"
        );
    }
    Ok(())
}

/// Makes `cgroup`. Returns whether it is there: nobody has given a person any cgroups, and where none is
/// `needed`, it goes without.
pub fn make_if_allowed(cgroup: &Path, needed: bool) -> Result<bool> {
    let is_refused = |error: &anyhow::Error| {
        matches!(io_kind(error), Some(ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem))
    };
    match make(cgroup) {
        Err(error) if !needed && ids::are_not_the_hosts() && is_refused(&error) => Ok(false),
        made => made.map(|()| true),
    }
}

/// Makes `cgroup`, and those above it, each with all controllers that there are.
fn make(cgroup: &Path) -> Result<()> {
    // The last container of those above may end in between, and take them away: see `remove`.
    let is_gone = |error: &anyhow::Error| io_kind(error) == Some(ErrorKind::NotFound);
    make_all(cgroup).or_else(|error| if is_gone(&error) { make_all(cgroup) } else { Err(error) })
}

fn make_all(cgroup: &Path) -> Result<()> {
    let mut above: Vec<&Path> = cgroup.ancestors().skip(1).take_while(|dir| dir.starts_with(ROOT)).collect();
    above.reverse();
    for dir in above {
        match fs::create_dir(dir) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => made.with_context(|| format!("make the cgroup {dir:?}"))?,
        }
        let controllers = files::read(dir.join("cgroup.controllers")).unwrap_or_default();
        for name in String::from_utf8_lossy(&controllers).split_whitespace() {
            // Which are needed, the limits will say: one without its controller has no file.
            let _ = files::write(dir.join("cgroup.subtree_control"), &format!("+{name}"));
        }
    }
    let describe = || (format!("mkdir({cgroup:?})"), format!("mkdir -p {}", shell(cgroup)));
    step(DAY, describe, || match fs::create_dir(cgroup) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => made,
    })
}

/// Removes `cgroup`, and the one above if that is ours and nobody is in it any more.
pub fn remove(cgroup: &Path) -> Result<()> {
    if cgroup.exists() {
        traces::remove_cgroup(cgroup)?;
    }
    let usual = Path::new(ROOT).join(USUAL);
    if cgroup.parent() == Some(&usual) {
        // While another container is in there, that fails.
        let _ = fs::remove_dir(usual);
    }
    Ok(())
}

/// Writes limits.
pub fn limit(cgroup: &Path, limits: &Files) -> Result<()> {
    for (name, value) in limits {
        let file = cgroup.join(name);
        let describe =
            || (format!("write {value} > {}", file.display()), format!("echo {value} > {}", shell(&file)));
        step(DAY, describe, || match files::write(&file, value) {
            // A kernel that counts no swap.
            Err(error) if error.kind() == ErrorKind::NotFound && name == "memory.swap.max" => Ok(()),
            written => written,
        })?;
    }
    Ok(())
}

/// Where one more process of the container belongs whose cgroup is `cgroup`, and its first process `first`. A
/// container that has cgroups of its own, with a systemd in it above all, has no process in the uppermost one,
/// and the kernel lets nobody in. (cgroup-v2, "No Internal Process Constraint")
pub fn of_first(cgroup: &Path, first: i32) -> PathBuf {
    let divides = files::read(cgroup.join("cgroup.subtree_control")).is_ok_and(|names| !names.is_empty());
    let path = divides.then(|| place::cgroup_of(&first.to_string()).ok()).flatten();
    let its = path.and_then(|path| Some(Path::new(ROOT).join(path.strip_prefix("/").ok()?)));
    its.filter(|its| its.starts_with(cgroup)).unwrap_or_else(|| cgroup.into())
}

/// The processes in `cgroup` and those below it.
pub fn processes(cgroup: &Path) -> Vec<i32> {
    let text = files::read(cgroup.join("cgroup.procs")).unwrap_or_default();
    let mut all: Vec<i32> =
        String::from_utf8_lossy(&text).lines().filter_map(|line| line.parse().ok()).collect();
    let below = fs::read_dir(cgroup).into_iter().flatten().flatten().map(|entry| entry.path());
    below.filter(|path| path.is_dir()).for_each(|dir| all.extend(processes(&dir)));
    all
}

#[cfg(test)]
mod tests {
    use super::dir_of;

    #[test]
    fn a_slice_is_where_systemd_has_it() {
        assert_eq!(dir_of("machine.slice"), "machine.slice/");
        assert_eq!(dir_of("a-b-c.slice"), "a.slice/a-b.slice/a-b-c.slice/");
        assert_eq!(dir_of("-.slice"), "");
    }
}
