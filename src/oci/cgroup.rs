//! Day 18: the cgroup of a bundle: where its engine wants it in the tree. (kernel: admin-guide/cgroup-v2)

use std::fs::{self, File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::cgroups::place;
use crate::error::Result;
use crate::explain::{shell, step};
use crate::files;

use super::DAY;
use super::resources::Files;

const ROOT: &str = "/sys/fs/cgroup";

/// Where the container's cgroup is to be; `None`: nowhere. `path` is `cgroupsPath`; with systemd's driver
/// it is `SLICE:PREFIX:NAME`.
pub fn place(path: Option<&str>, id: &str, needed: bool) -> Result<Option<PathBuf>> {
    if !place::is_usual() {
        if needed {
            bail!(
                "linux.resources: there are no cgroups of version 2 at {ROOT}, and limits need them; boot with systemd.unified_cgroup_hierarchy=1"
            );
        }
        return Ok(None);
    }
    let inside = match path.filter(|path| !path.is_empty()) {
        None => format!("tiny-runc/{id}"),
        Some(path) => match path.split(':').collect::<Vec<_>>()[..] {
            [slice, prefix, name] => scope(slice, prefix, name),
            _ => path.trim_start_matches('/').into(),
        },
    };
    if Path::new(&inside).components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
        bail!("linux.cgroupsPath is {path:?}; expected a path without . and ..");
    }
    Ok(Some(Path::new(ROOT).join(inside)))
}

/// Where systemd has such a scope: `a-b.slice` is in `a.slice`. (systemd.slice(5))
fn scope(slice: &str, prefix: &str, name: &str) -> String {
    let slice = if slice.is_empty() { "system.slice" } else { slice };
    let stem = slice.strip_suffix(".slice").unwrap_or(slice);
    let mut path = String::new();
    for (at, _) in stem.match_indices('-').chain([(stem.len(), "")]).filter(|(at, _)| *at > 0) {
        path.push_str(&format!("{}.slice/", &stem[..at]));
    }
    let unit = if name.ends_with(".slice") { name.into() } else { format!("{prefix}-{name}.scope") };
    path + &unit
}

/// Makes `cgroup`, and those above it, each with all controllers that there are.
pub fn make(cgroup: &Path) -> Result<()> {
    let mut above: Vec<&Path> = cgroup.ancestors().skip(1).take_while(|dir| dir.starts_with(ROOT)).collect();
    above.reverse();
    for dir in above {
        if !dir.is_dir() {
            fs::create_dir(dir).with_context(|| format!("make the cgroup {dir:?}"))?;
        }
        let controllers = files::read(dir.join("cgroup.controllers")).unwrap_or_default();
        for name in String::from_utf8_lossy(&controllers).split_whitespace() {
            // Which are needed, the limits will say: one without its controller has no file.
            let _ = files::write(dir.join("cgroup.subtree_control"), &format!("+{name}"));
        }
    }
    let describe = || (format!("mkdir({cgroup:?})"), format!("mkdir -p {}", shell(cgroup)));
    step(DAY, describe, || match fs::create_dir(cgroup) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    })
}

/// Writes limits.
pub fn limit(cgroup: &Path, limits: &Files) -> Result<()> {
    for (name, value) in limits {
        let file = cgroup.join(name);
        let describe =
            || (format!("write {value} > {}", file.display()), format!("echo {value} > {}", shell(&file)));
        step(DAY, describe, || match files::write(&file, value) {
            // A kernel that counts no swap.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && name == "memory.swap.max" => Ok(()),
            written => written,
        })?;
    }
    Ok(())
}

/// For clone3: the child is born in there.
pub fn open(cgroup: &Path) -> Result<OwnedFd> {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(cgroup);
    opened.map(File::into).with_context(|| format!("open {cgroup:?}"))
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
    use super::scope;

    #[test]
    fn a_scope_is_where_systemd_has_it() {
        assert_eq!(scope("machine.slice", "libpod", "abc"), "machine.slice/libpod-abc.scope");
        assert_eq!(scope("a-b.slice", "cri", "x"), "a.slice/a-b.slice/cri-x.scope");
        assert_eq!(scope("", "runc", "x"), "system.slice/runc-x.scope");
    }
}
