//! Day 3: who runs the command, where, and with which environment. (The OCI
//! runtime specification calls these three the `process`: `user`, `cwd`, `env`.)

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::unistd::{Gid, Uid};

use crate::command::DEFAULT_PATH;
use crate::container::{Container, Mechanism};
use crate::error::Result;
use crate::explain::{shell, step};
use crate::identity::User;

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
        check_workdir(self.workdir.as_deref())?;
        let own_root = container.plan.has_own_root();
        // What an image says comes first (day 12); what the user says comes last, and wins.
        let image = &container.parts.defaults;
        let user = self.user.clone().or_else(|| image.user.clone());
        container.plan.user = user.or(own_root.then(|| "0".into()));
        container.plan.working_dir = self.workdir.clone().or_else(|| image.working_dir.clone());
        let settings = [&image.environment[..], &self.env].concat();
        set_environment(container, &settings)
    }

    fn enter(&mut self, container: &mut Container) -> Result<()> {
        let has_own_root = container.plan.has_own_root();
        find_user(container, has_own_root)?;
        // The command is started there by the heart, as its user.
        container.plan.working_dir.as_deref().map_or(Ok(()), make_workdir)
    }
}
// ANCHOR_END: mechanism

/// Errors if `--workdir` is no absolute path.
pub fn check_workdir(dir: Option<&Path>) -> Result<()> {
    if let Some(dir) = dir.filter(|dir| !dir.is_absolute()) {
        bail!("--workdir {dir:?} is not an absolute path; expected one, seen from inside, such as /srv");
    }
    Ok(())
}

/// Child: looks up whom the command runs as, in the container's own /etc/passwd. With `needs_home`
/// that one's home directory is its HOME, unless something else is.
pub fn find_user(container: &mut Container, needs_home: bool) -> Result<()> {
    let Some(user) = &container.plan.user else { return Ok(()) };
    let (mut user, home) = look_up(user)?;
    add_groups(&mut user.groups, &container.plan.privileges.groups)?;
    container.parts.user = Some(user);
    let environment = &mut container.plan.environment;
    let set = environment.get(OsStr::new("HOME")).is_some_and(|home| !home.is_empty());
    if needs_home && !set {
        environment.insert("HOME".into(), home);
    }
    Ok(())
}

/// Child: the home directory of the user `id`, by the container's own /etc/passwd. (day 18)
pub fn home_of(id: u32) -> Result<OsString> {
    look_up(&id.to_string()).map(|(_, home)| home)
}

type Environment = BTreeMap<OsString, OsString>;

// ANCHOR: environment
/// The container's environment. On a root file system of its own a clean one:
/// the host's variables say where things are on the host, and its secrets are
/// not the container's. `-e` comes last.
fn set_environment(container: &mut Container, settings: &[OsString]) -> Result<()> {
    // ANCHOR: day3_task6_set_environment_solution
    if container.plan.has_own_root() {
        let hostname = container.plan.hostname.clone().unwrap_or_default();
        let terminal = std::env::var_os("TERM").filter(|name| !name.is_empty()).unwrap_or("xterm".into());
        container.plan.environment =
            [("PATH", DEFAULT_PATH.into()), ("HOSTNAME", hostname.into()), ("TERM", terminal)]
                .map(|(name, value): (&str, OsString)| (name.into(), value))
                .into();
    }
    apply_settings(settings, &mut container.plan.environment)
    // ANCHOR_END: day3_task6_set_environment_solution
}

/// Sets and unsets variables as `-e` asks for it, in order.
pub fn apply_settings(settings: &[OsString], environment: &mut Environment) -> Result<()> {
    // ANCHOR: day3_task6_apply_settings_solution
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
            Some(value) => environment.insert(name.into(), value),
            None => environment.remove(name),
        };
    }
    Ok(())
    // ANCHOR_END: day3_task6_apply_settings_solution
}
// ANCHOR_END: environment

// ANCHOR: user
/// The user that `text`, `USER[:GROUP]`, means in this root file system, and
/// its home directory. (passwd(5), group(5))
fn look_up(text: &str) -> Result<(User, OsString)> {
    // ANCHOR: day3_task6_look_up_solution
    let (name, group) = match text.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (text, None),
    };
    // passwd: name:password:uid:gid:comment:home:shell
    let passwd = read_table("/etc/passwd")?;
    // A number is an id, even where it is somebody's name.
    let number = parse_id(name.as_bytes());
    let is_meant = |fields: &&Fields| match number {
        Some(_) => parse_id(&fields[2]) == number,
        None => is_name(name) && fields[0] == name.as_bytes(),
    };
    let entry = passwd.iter().filter(|fields| fields.len() >= 6).find(is_meant);
    let (uid, gid, home) = match entry {
        Some(fields) => (parse_id(&fields[2]), parse_id(&fields[3]), fields[5].as_slice()),
        None => (number, Some(0), &b"/"[..]),
    };
    let Some(uid) = uid else {
        bail!("--user {text:?}: no user {name:?} in the container's /etc/passwd; {EXPECTED}");
    };

    let table = read_table("/etc/group")?;
    let gid = match group {
        Some(group) => gid_of(group, &table),
        None => gid,
    };
    let Some(gid) = gid else {
        bail!("--user {text:?}: no such group in the container's /etc/group; {EXPECTED}");
    };
    // Whoever names the group gets that one alone, as with Docker.
    let login = entry.filter(|_| group.is_none()).map(|fields| fields[0].as_slice());
    let groups = groups_of(login, &table)?;
    let home = if home.is_empty() { b"/" } else { home };
    Ok((User { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid), groups }, OsString::from_vec(home.to_vec())))
    // ANCHOR_END: day3_task6_look_up_solution
}

/// The id of the group `text`, a name or a number.
/// A line is name:password:gid:members, with commas between the members. (group(5))
fn gid_of(text: &str, table: &[Fields]) -> Option<u32> {
    // ANCHOR: day3_task6_gid_of_solution
    let called_so = |fields: &&Fields| is_name(text) && fields[0] == text.as_bytes();
    let entry = || table.iter().filter(|fields| fields.len() >= 3).find(called_so);
    parse_id(text.as_bytes()).or_else(|| parse_id(&entry()?[2]))
    // ANCHOR_END: day3_task6_gid_of_solution
}
// ANCHOR_END: user

/// Adds to `groups` those that somebody has asked for: names of the container's own, or numbers.
/// (`--group-add`, day 15)
fn add_groups(groups: &mut Vec<Gid>, asked: &[String]) -> Result<()> {
    if asked.is_empty() {
        return Ok(());
    }
    let table = read_table("/etc/group")?;
    for name in asked {
        let Some(gid) = gid_of(name, &table) else {
            bail!("--group-add {name:?}: no such group in the container's /etc/group; {EXPECTED}");
        };
        if !groups.contains(&Gid::from_raw(gid)) {
            groups.push(Gid::from_raw(gid));
        }
    }
    Ok(())
}

/// The groups of which `login` is a member.
fn groups_of(login: Option<&[u8]>, table: &[Fields]) -> Result<Vec<Gid>> {
    // The kernel's limit. (setgroups(2), NGROUPS_MAX)
    const MOST: usize = 65536;
    let Some(login) = login.filter(|name| !name.is_empty()) else { return Ok(vec![]) };
    let member = |fields: &&Fields| {
        fields.len() >= 4 && fields[3].split(|byte| *byte == b',').any(|name| name == login)
    };
    let groups = table.iter().filter(member).filter_map(|fields| parse_id(&fields[2]));
    let groups: Vec<Gid> = groups.map(Gid::from_raw).collect();
    if groups.len() > MOST {
        bail!(
            "the user is in {} groups of the container's /etc/group; expected at most {MOST}: shorten the file",
            groups.len()
        );
    }
    Ok(groups)
}

const EXPECTED: &str = "expected a name from there, or a number up to 2147483647";

/// Docker's limit. Above it lies 4294967295, which is -1, which the kernel takes
/// for "no id". (setresuid(2))
const MAX_ID: u32 = i32::MAX as u32;

/// The id that `text` is. Digits alone: `+5` is none, which Rust would take for 5.
fn parse_id(text: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(text).ok().filter(|text| is_number(text))?;
    text.parse().ok().filter(|id| *id <= MAX_ID)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether somebody can be called so. A number is no name, also if it is too big for an
/// id; and a line that begins with `+` or `-` is an order to include others, of a name
/// service that containers do not have. (nsswitch.conf(5), "compat")
fn is_name(text: &str) -> bool {
    !text.is_empty() && !is_number(text) && !text.starts_with(['+', '-'])
}

/// A line, split at colons. Bytes: the file says nothing about its encoding.
type Fields = Vec<Vec<u8>>;

/// The lines of `path`. A file that is not there has none.
///
/// The file is the rootfs's own and may be anything: a pipe that nobody writes
/// to, or a device that never ends, must not hold up the runtime.
fn read_table(path: &str) -> Result<Vec<Fields>> {
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
        bail!("the container's {path} is not a file of at most 1 MiB; replace it by one");
    }
    // With room for all of it and some more: then it is read in one piece.
    let mut text = Vec::with_capacity(metadata.len() as usize + 64);
    file.take(LONGEST).read_to_end(&mut text).with_context(|| format!("read the container's {path}"))?;
    // No field can hold a NUL: it would be the end of it in every C program.
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.contains(&0));
    let lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    Ok(lines.map(|line| line.split(|byte| *byte == b':').map(<[u8]>::to_vec).collect()).collect())
}

/// Child: makes the directory `dir`, and those above it, if there is none.
pub fn make_workdir(dir: &Path) -> Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let describe = || (format!("mkdir({dir:?}, 0o755)"), format!("mkdir -p {}", shell(dir)));
    step(DAY, describe, || DirBuilder::new().recursive(true).mode(0o755).create(dir))
}
