//! Directory trees compared: all that an archive can say of a file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::layout::sha256;

/// Every path below `dir`, and what is there: type, mode, owner, time, size, device, contents,
/// extended attributes, and which other names it has.
pub fn tree(dir: &Path) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut links: BTreeMap<(u64, u64), String> = BTreeMap::new();
    read(dir, Path::new(""), &mut all, &mut links);
    all
}

/// Fails if the trees differ, and says where: at most ten lines.
#[track_caller]
pub fn same_trees(ours: &BTreeMap<String, String>, theirs: &BTreeMap<String, String>, what: &str) {
    let mut lines = Vec::new();
    for path in ours.keys().chain(theirs.keys()).collect::<BTreeSet<_>>() {
        if ours.get(path) != theirs.get(path) {
            let of = |tree: &BTreeMap<String, String>| tree.get(path).cloned().unwrap_or("nothing".into());
            lines.push(format!("{path}\n    ours:   {}\n    theirs: {}", of(ours), of(theirs)));
        }
    }
    lines.truncate(10);
    assert!(lines.is_empty(), "{what}: the trees differ:\n  {}", lines.join("\n  "));
}

fn read(
    dir: &Path,
    below: &Path,
    all: &mut BTreeMap<String, String>,
    links: &mut BTreeMap<(u64, u64), String>,
) {
    let mut entries: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = below.join(path.file_name().unwrap());
        let metadata = fs::symlink_metadata(&path).unwrap();
        let kind = metadata.file_type();
        let mut facts = format!(
            "{:o} {}:{} {}.{:09}",
            metadata.mode(),
            metadata.uid(),
            metadata.gid(),
            metadata.mtime(),
            metadata.mtime_nsec()
        );
        if kind.is_file() {
            facts += &format!(" {} {}", metadata.size(), sha256(&fs::read(&path).unwrap()));
        } else if kind.is_symlink() {
            facts += &format!(" -> {}", fs::read_link(&path).unwrap().display());
        } else if kind.is_char_device() || kind.is_block_device() {
            facts += &format!(" device {:#x}", metadata.rdev());
        }
        facts += &attributes(&path);
        let shown = name.as_os_str().as_bytes().escape_ascii().to_string();
        if !kind.is_dir() {
            let first = links.entry((metadata.dev(), metadata.ino())).or_insert(shown.clone());
            if *first != shown {
                facts += &format!(", the same file as {first}");
            }
        }
        all.insert(shown, facts);
        if kind.is_dir() {
            read(&path, &name, all, links);
        }
    }
}

/// Its extended attributes, without those that are the overlay's own.
fn attributes(path: &Path) -> String {
    let mut names = vec![0; 64 << 10];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
    let mut found: Vec<String> = names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty() && !name.starts_with(b"trusted.overlay."))
        .map(|name| {
            let mut value = vec![0; 64 << 10];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            format!(" {}={}", name.escape_ascii(), value[..length].escape_ascii())
        })
        .collect();
    found.sort();
    found.concat()
}
