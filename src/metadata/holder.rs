//! Day 4: who has locked a file: so that whoever waits for that can be told for whom.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::stat::{major, minor};

use crate::files;

/// A process, for people to read.
#[derive(Debug, PartialEq)]
pub struct Holder {
    /// Its number.
    pub pid: i32,
    /// Its words, as they were typed.
    pub words: String,
}

/// The process that has locked the file `path`, and still has it open. `None`: there is none, or
/// nobody can tell. (proc_locks(5); flock(2): the kernel notes who asked for the lock, but it is
/// held by all that have inherited it.)
pub fn holder(path: &Path) -> Option<Holder> {
    let found = fs::metadata(path).ok()?;
    let file = format!("{:02x}:{:02x}:{}", major(found.dev()), minor(found.dev()), found.ino());
    let locks = files::read("/proc/locks").ok()?;
    let pid = String::from_utf8_lossy(&locks).lines().find_map(|line| holder_in(line, &file))?;
    let is_it = |at: fs::Metadata| (at.dev(), at.ino()) == (found.dev(), found.ino());
    let mut open = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
    open.find(|entry| fs::metadata(entry.path()).is_ok_and(is_it))?;
    let words = files::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words = words.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word));
    let words = words.collect::<Vec<_>>().join(" ").trim_end().to_string();
    Some(Holder { pid, words })
}

/// `1: FLOCK  ADVISORY  WRITE 4711 fe:01:1234 0 EOF`; one who waits has an arrow there.
fn holder_in(line: &str, file: &str) -> Option<i32> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    match fields[..] {
        [_, "FLOCK", _, _, pid, of, ..] if of == file => pid.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::holder_in;

    #[test]
    fn whoever_waits_holds_nothing() {
        let held = "3: FLOCK  ADVISORY  WRITE 4711 fe:01:1234 0 EOF";
        assert_eq!(holder_in(held, "fe:01:1234"), Some(4711));
        assert_eq!(holder_in(held, "fe:01:123"), None);
        assert_eq!(holder_in("3: -> FLOCK  ADVISORY  WRITE 4712 fe:01:1234 0 EOF", "fe:01:1234"), None);
        assert_eq!(holder_in("4: POSIX  ADVISORY  WRITE 4711 fe:01:1234 0 EOF", "fe:01:1234"), None);
        assert_eq!(holder_in("", "fe:01:1234"), None);
    }
}
