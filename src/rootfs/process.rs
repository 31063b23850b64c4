//! Day 3: who runs the command, where, and with which environment. (The OCI
//! runtime specification calls these three the `process`: `user`, `cwd`, `env`.)

use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::unistd::{Gid, Uid};

use crate::command::DEFAULT_PATH;
use crate::container::{Container, Mechanism, User};
use crate::error::Result;
use crate::explain::{shell, step};

const DAY: u8 = 3;

/// The flags of day 3 that say who and where the command is.
#[derive(Debug, clap::Args)]
pub struct Process {
    /// Set an environment variable; NAME alone takes the host's value
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    env: Vec<OsString>,

    /// The user: id or name, and group; names are the container's own
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,

    /// The directory that the command starts in, made if missing
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<PathBuf>,
}

// ANCHOR: mechanism
impl Mechanism for Process {
    fn prepare(&mut self, container: &mut Container) -> Result<()> {
        if let Some(dir) = self.workdir.as_ref().filter(|dir| !dir.is_absolute()) {
            bail!("--workdir {dir:?} is not an absolute path; expected one, seen from inside, such as /srv");
        }
        let own_root = container.plan.rootfs.is_some();
        container.plan.user = self.user.clone().or(own_root.then(|| "0".into()));
        container.plan.working_dir = self.workdir.clone();
        set_environment(container, &self.env)
    }

    fn enter(&mut self, container: &mut Container) -> Result<()> {
        if let Some(user) = &container.plan.user {
            let (user, home) = look_up(user)?;
            container.parts.user = Some(user);
            if container.plan.rootfs.is_some() {
                container.plan.environment.entry("HOME".into()).or_insert(home.into());
            }
        }
        // The command is started there by the heart, as its user.
        container.plan.working_dir.as_deref().map_or(Ok(()), make_workdir)
    }
}
// ANCHOR_END: mechanism

// ANCHOR: environment
/// The container's environment. On a root file system of its own a clean one:
/// the host's variables say where things are on the host, and its secrets are
/// not the container's. `-e` comes last.
fn set_environment(container: &mut Container, settings: &[OsString]) -> Result<()> {
    // ANCHOR: day3_task6_set_environment_solution
    if container.plan.rootfs.is_some() {
        let hostname = container.plan.hostname.clone().unwrap_or_default();
        let terminal = std::env::var_os("TERM").unwrap_or("xterm".into());
        container.plan.environment =
            [("PATH", DEFAULT_PATH.into()), ("HOSTNAME", hostname.into()), ("TERM", terminal)]
                .map(|(name, value): (&str, OsString)| (name.into(), value))
                .into();
    }
    for setting in settings {
        let mut parts = setting.as_bytes().splitn(2, |byte| *byte == b'=');
        let name = OsStr::from_bytes(parts.next().unwrap_or_default());
        if name.is_empty() {
            bail!(
                "--env {setting:?}: the variable has no name; expected NAME=VALUE, or NAME for the host's value"
            );
        }
        let value = match parts.next() {
            Some(value) => Some(OsString::from_vec(value.to_vec())),
            None => std::env::var_os(name),
        };
        // Not set on the host: not set in the container, as with Docker.
        match value {
            Some(value) => container.plan.environment.insert(name.into(), value),
            None => container.plan.environment.remove(name),
        };
    }
    Ok(())
    // ANCHOR_END: day3_task6_set_environment_solution
}
// ANCHOR_END: environment

// ANCHOR: user
/// The user that `text`, `USER[:GROUP]`, means in this root file system, and
/// its home directory. (passwd(5), group(5))
fn look_up(text: &str) -> Result<(User, String)> {
    // ANCHOR: day3_task6_look_up_solution
    let (name, group) = match text.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (text, None),
    };
    // passwd: name:password:uid:gid:comment:home:shell
    let passwd = read_table("/etc/passwd")?;
    let entry = passwd.iter().find(|fields| fields.len() >= 6 && (fields[0] == name || fields[2] == name));
    let (uid, gid, home) = match entry {
        Some(fields) => (parse_id(&fields[2]), parse_id(&fields[3]), fields[5].clone()),
        None => (parse_id(name), Some(0), "/".into()),
    };
    let Some(uid) = uid else {
        bail!(
            "--user {text:?}: no user {name:?} in the container's /etc/passwd; expected a name from there, or a number up to {MAX_ID}"
        );
    };

    // group: name:password:gid:members, with commas between the members
    let table = read_table("/etc/group")?;
    let gid = match group {
        None => gid,
        Some(group) => match table.iter().find(|fields| fields.len() >= 3 && fields[0] == group) {
            Some(fields) => parse_id(&fields[2]),
            None => parse_id(group),
        },
    };
    let Some(gid) = gid else {
        bail!(
            "--user {text:?}: no such group in the container's /etc/group; expected a name from there, or a number up to {MAX_ID}"
        );
    };
    // Whoever names the group gets that one alone, as with Docker.
    let login = entry.filter(|_| group.is_none()).map(|fields| fields[0].as_str());
    let member =
        |fields: &&Vec<String>| fields.len() >= 4 && fields[3].split(',').any(|name| Some(name) == login);
    let groups =
        table.iter().filter(member).filter_map(|fields| parse_id(&fields[2])).map(Gid::from_raw).collect();
    Ok((User { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid), groups }, home))
    // ANCHOR_END: day3_task6_look_up_solution
}
// ANCHOR_END: user

/// Docker's limit. Above it lies 4294967295, which is -1, which the kernel takes
/// for "no id". (setresuid(2))
const MAX_ID: u32 = i32::MAX as u32;

fn parse_id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id <= MAX_ID)
}

/// The lines of `path`, split at colons. A file that is not there has none.
///
/// The file is the rootfs's own and may be anything: a pipe that nobody writes
/// to, or a device that never ends, must not hold up the runtime.
fn read_table(path: &str) -> Result<Vec<Vec<String>>> {
    const LONGEST: u64 = 1 << 20;
    let file = match OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(vec![]);
        }
        Err(error) => return Err(error).with_context(|| format!("read the container's {path}")),
    };
    let metadata = file.metadata().with_context(|| format!("look at the container's {path}"))?;
    if !metadata.is_file() || metadata.len() > LONGEST {
        bail!("the container's {path} is not a file of at most 1 MiB");
    }
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text).with_context(|| format!("read the container's {path}"))?;
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().map(|line| line.split(':').map(str::to_string).collect()).collect())
}

fn make_workdir(dir: &Path) -> Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let describe = || (format!("mkdir({dir:?}, 0o755)"), format!("mkdir -p {}", shell(dir)));
    step(DAY, describe, || DirBuilder::new().recursive(true).mode(0o755).create(dir))
}
