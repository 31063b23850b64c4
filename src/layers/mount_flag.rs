//! Day 11: what `-v`, `--mount` and `--tmpfs` say, in Docker's syntax. Paths are bytes, in
//! which nothing but `:` or `,` has a meaning. Nothing is looked at here: what a flag says is
//! checked before anything is made.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};

use crate::error::Result;
use crate::plan::{MountKind, MountPoint};

/// A mount that a flag asks for.
#[derive(Debug, PartialEq)]
pub struct Asked {
    /// What it asks for.
    pub point: MountPoint,
    /// Of a bind mount: whether a directory is made where the host has nothing.
    pub make_source: bool,
}

// ANCHOR: volume_flag
/// What `-v` says: `SOURCE:TARGET[:OPTIONS]`, or `TARGET` alone for a volume without a name.
/// A source with a slash or a dot in front is a path of the host, any other the name of a
/// volume.
pub fn volume_flag(flag: &OsStr) -> Result<Asked> {
    // ANCHOR: day11_task4_volume_flag_solution
    let words: Vec<&[u8]> = flag.as_bytes().split(|byte| *byte == b':').collect();
    let (source, target, options) = match words[..] {
        [target] => (None, target, &b""[..]),
        // As Docker has it: where a path is expected, `ro` is a mistake.
        [_, mode] if is_mode(mode) => bail!("{SYNTAX}: the target is missing"),
        [source, target] => (Some(source), target, &b""[..]),
        [source, target, options] => (Some(source), target, options),
        _ => bail!("{SYNTAX}; for a path with a colon in it, use --mount"),
    };
    if source.is_some_and(<[u8]>::is_empty) {
        bail!("{SYNTAX}: the source is empty");
    }
    let source = source.map(OsStr::from_bytes);
    let mut point = match source.filter(|source| matches!(source.as_bytes()[0], b'/' | b'.')) {
        Some(path) => MountPoint { source: Some(absolute(path)?), ..nothing(MountKind::Bind) },
        None => MountPoint { name: source.map(volume_name).transpose()?, ..nothing(MountKind::Volume) },
    };
    point.target = target_path(OsStr::from_bytes(target))?;
    for option in options.split(|byte| *byte == b',').filter(|option| !option.is_empty()) {
        set_option(&mut point, option)?;
    }
    let make_source = point.kind == MountKind::Bind;
    Ok(Asked { point, make_source })
    // ANCHOR_END: day11_task4_volume_flag_solution
}
// ANCHOR_END: volume_flag

const SYNTAX: &str = "expected SOURCE:TARGET, SOURCE:TARGET:ro, or TARGET alone, such as data:/var/lib/data or /srv/www:/www:ro";

/// The options that may follow a target, and that mean what happens anyway: labels where
/// there is no SELinux, caches of Docker Desktop, and private mounts.
const AS_EVER: [&[u8]; 8] =
    [b"rw", b"z", b"Z", b"cached", b"delegated", b"consistent", b"private", b"rprivate"];

fn is_mode(word: &[u8]) -> bool {
    AS_EVER.contains(&word) || matches!(word, b"ro" | b"nocopy")
}

fn set_option(point: &mut MountPoint, option: &[u8]) -> Result<()> {
    match option {
        b"ro" => point.read_only = true,
        b"nocopy" if point.kind == MountKind::Volume => point.no_copy = true,
        b"shared" | b"rshared" | b"slave" | b"rslave" => return propagation(option),
        _ if AS_EVER.contains(&option) => {}
        _ => bail!(
            "unknown option {:?}; expected ro, rw, or nocopy for a volume",
            String::from_utf8_lossy(option)
        ),
    }
    Ok(())
}

/// What is mounted on one side of a shared mount appears on the other: here no container is
/// tied to its host in this way. (mount_namespaces(7))
fn propagation(mode: &[u8]) -> Result<()> {
    match mode {
        b"private" | b"rprivate" => Ok(()),
        _ => bail!("propagation {:?}: expected private or rprivate", String::from_utf8_lossy(mode)),
    }
}

// ANCHOR: mount_flag
/// What `--mount` says: fields `KEY=VALUE` with commas between them. A field in double quotes
/// may contain commas. (docs.docker.com/reference/cli/docker/container/run, "mount")
pub fn mount_flag(flag: &OsStr) -> Result<Asked> {
    let mut point = nothing(MountKind::Volume);
    let (mut source, mut make_source) = (None, false);
    for field in fields(flag.as_bytes())? {
        let (key, value) = match field.iter().position(|byte| *byte == b'=') {
            Some(at) => (&field[..at], Some(OsStr::from_bytes(&field[at + 1..]))),
            None => (&field[..], None),
        };
        let key = String::from_utf8_lossy(key).to_ascii_lowercase();
        if value.is_some_and(OsStr::is_empty) {
            bail!("{key} has no value; omit it, or give one");
        }
        match (key.as_str(), value) {
            ("readonly" | "ro", value) => point.read_only = switch(&key, value)?,
            ("volume-nocopy", value) => point.no_copy = switch(&key, value)?,
            ("bind-create-src", value) => make_source = switch(&key, value)?,
            (_, None) => bail!("field {key:?}: expected KEY=VALUE"),
            ("type", Some(value)) => point.kind = kind(value)?,
            ("source" | "src", Some(value)) => source = Some(value.to_owned()),
            ("target" | "dst" | "destination", Some(value)) => point.target = target_path(value)?,
            ("bind-propagation", Some(value)) => propagation(value.as_bytes())?,
            ("tmpfs-size", Some(value)) => add(&mut point.options, "size", size(value)?),
            ("tmpfs-mode", Some(value)) => add(&mut point.options, "mode", mode(value)?),
            ("consistency", Some(_)) => {}
            (other, Some(_)) => bail!(
                "unknown key {other:?}; expected type, source, target, readonly, volume-nocopy, \
                 bind-propagation, bind-create-src, tmpfs-size or tmpfs-mode"
            ),
        }
    }
    fits(&point, make_source)?;
    let (name, source) = source_of(point.kind, source)?;
    Ok(Asked { point: MountPoint { name, source, ..point }, make_source })
}
// ANCHOR_END: mount_flag

/// The fields of one line of CSV. (RFC 4180)
fn fields(mut line: &[u8]) -> Result<Vec<Vec<u8>>> {
    let mut fields = Vec::new();
    loop {
        let mut field = Vec::new();
        if let Some(mut rest) = line.strip_prefix(b"\"") {
            loop {
                let end = rest.iter().position(|byte| *byte == b'"').context("a quote is not closed")?;
                field.extend_from_slice(&rest[..end]);
                rest = &rest[end + 1..];
                // Two of them mean one.
                let Some(after) = rest.strip_prefix(b"\"") else { break };
                field.push(b'"');
                rest = after;
            }
            line = rest;
        } else {
            let end = line.iter().position(|byte| *byte == b',').unwrap_or(line.len());
            field.extend_from_slice(&line[..end]);
            line = &line[end..];
            if field.contains(&b'"') {
                bail!("a quote inside of a field: put the whole field into quotes, as in '\"source=/a,b\"'");
            }
        }
        fields.push(field);
        match line {
            [] => return Ok(fields),
            [b',', rest @ ..] => line = rest,
            _ => bail!("after a field in quotes, a comma was expected"),
        }
    }
}

fn kind(word: &OsStr) -> Result<MountKind> {
    match word.as_bytes().to_ascii_lowercase().as_slice() {
        b"bind" => Ok(MountKind::Bind),
        b"volume" => Ok(MountKind::Volume),
        b"tmpfs" => Ok(MountKind::Tmpfs),
        _ => bail!("type {word:?}: expected bind, volume or tmpfs"),
    }
}

/// Whether all that was said goes with the type of the mount.
fn fits(point: &MountPoint, make_source: bool) -> Result<()> {
    let foreign = [
        ("volume-nocopy", point.no_copy, MountKind::Volume),
        ("bind-create-src", make_source, MountKind::Bind),
        ("tmpfs-size and tmpfs-mode", !point.options.is_empty(), MountKind::Tmpfs),
    ];
    for (what, is_said, kind) in foreign {
        if is_said && kind != point.kind {
            bail!("{what} is for type={}, and this one is type={}", word(kind), word(point.kind));
        }
    }
    if point.target.as_os_str().is_empty() {
        bail!("the target is missing; expected target=PATH, seen from inside, such as target=/data");
    }
    Ok(())
}

/// Of the source: a volume's name, or a path of the host.
fn source_of(kind: MountKind, source: Option<OsString>) -> Result<(Option<String>, Option<PathBuf>)> {
    match (kind, source) {
        (MountKind::Bind, None) => bail!("type=bind has no source; expected source=PATH, a path of the host"),
        (MountKind::Bind, Some(path)) => Ok((None, Some(absolute(&path)?))),
        (MountKind::Volume, source) => Ok((source.as_deref().map(volume_name).transpose()?, None)),
        (MountKind::Tmpfs, Some(_)) => bail!("type=tmpfs has no source: it is memory; omit it"),
        (MountKind::Tmpfs, None) => Ok((None, None)),
    }
}

/// The word of Docker's syntax for `kind`.
pub fn word(kind: MountKind) -> &'static str {
    match kind {
        MountKind::Bind => "bind",
        MountKind::Volume => "volume",
        MountKind::Tmpfs => "tmpfs",
    }
}

fn switch(key: &str, value: Option<&OsStr>) -> Result<bool> {
    match value.map(OsStr::as_bytes) {
        None | Some(b"true" | b"1") => Ok(true),
        Some(b"false" | b"0") => Ok(false),
        Some(_) => bail!("{key}: expected true or false"),
    }
}

fn add(options: &mut String, name: &str, value: String) {
    if !options.is_empty() {
        options.push(',');
    }
    options.push_str(&format!("{name}={value}"));
}

/// Bytes, or with k, m, g or t behind them, as the kernel takes it too; with a b at the end
/// or without.
fn size(word: &OsStr) -> Result<String> {
    let text = word.to_string_lossy().to_ascii_lowercase();
    let short = text.strip_suffix("ib").or(text.strip_suffix('b')).unwrap_or(&text);
    let digits = short.strip_suffix(['k', 'm', 'g', 't']).unwrap_or(short);
    if digits.parse::<u64>().is_err() {
        bail!("tmpfs-size {word:?}: expected a number of bytes, such as 64m");
    }
    Ok(short.into())
}

fn mode(word: &OsStr) -> Result<String> {
    match u32::from_str_radix(&word.to_string_lossy(), 8) {
        Ok(mode) if mode <= 0o7777 => Ok(format!("{mode:o}")),
        _ => bail!("tmpfs-mode {word:?}: expected an octal number up to 7777, such as 1770"),
    }
}

/// What `--tmpfs` says: `TARGET[:OPTIONS]`, the options as mount(8) takes them.
pub fn tmpfs_flag(flag: &OsStr) -> Result<Asked> {
    let bytes = flag.as_bytes();
    let (target, options) = match bytes.iter().position(|byte| *byte == b':') {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, &b""[..]),
    };
    let options = std::str::from_utf8(options).context("expected options such as size=64m,mode=1777")?;
    let target = target_path(OsStr::from_bytes(target))?;
    let read_only = options.split(',').rfind(|word| matches!(*word, "ro" | "rw")) == Some("ro");
    let point = MountPoint { target, read_only, options: options.into(), ..nothing(MountKind::Tmpfs) };
    Ok(Asked { point, make_source: false })
}

/// A mount of this kind, of which nothing else is known.
pub fn nothing(kind: MountKind) -> MountPoint {
    MountPoint {
        kind,
        name: None,
        source: None,
        target: PathBuf::new(),
        read_only: false,
        anonymous: false,
        no_copy: false,
        options: String::new(),
    }
}

/// Docker's rule for the names of volumes: as for those of containers.
pub fn volume_name(name: &OsStr) -> Result<String> {
    let fine = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.-".contains(byte);
    let bytes = name.as_bytes();
    let first = bytes.first().is_some_and(u8::is_ascii_alphanumeric);
    if !first || !bytes.iter().all(fine) || !(2..=255).contains(&bytes.len()) {
        bail!(
            "volume {name:?}: expected a name of 2 to 255 letters, digits, '_', '.' and '-', the first a letter \
             or digit, such as data; a directory of the host is given by its absolute path"
        );
    }
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

/// A path of the host, from `/` on. Its links are followed by whoever opens it.
fn absolute(path: &OsStr) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("{path:?}"))
}

// ANCHOR: target
/// A path in the container: absolute, without `.` and `..`, and not `/` itself.
fn target_path(path: &OsStr) -> Result<PathBuf> {
    let path = Path::new(path);
    if !path.is_absolute() {
        bail!("target {path:?}: expected an absolute path, seen from inside, such as /data");
    }
    let mut target = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => target.push(name),
            Component::ParentDir => drop(target.pop()),
            _ => {}
        }
    }
    if target == Path::new("/") {
        bail!("target {path:?} is the container's own /; --rootfs and --layer say what that is");
    }
    Ok(target)
}
// ANCHOR_END: target
