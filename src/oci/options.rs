//! Day 18: the options of a mount: from words to the kernel's numbers. (config.md, "Linux mount options";
//! mount_setattr(2))

const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
const NOSUID: u64 = libc::MOUNT_ATTR_NOSUID;
const NODEV: u64 = libc::MOUNT_ATTR_NODEV;
const NOEXEC: u64 = libc::MOUNT_ATTR_NOEXEC;
const ATIME: u64 = libc::MOUNT_ATTR__ATIME;
const NOATIME: u64 = libc::MOUNT_ATTR_NOATIME;
const STRICTATIME: u64 = libc::MOUNT_ATTR_STRICTATIME;
const NODIRATIME: u64 = libc::MOUNT_ATTR_NODIRATIME;
const NOSYMFOLLOW: u64 = libc::MOUNT_ATTR_NOSYMFOLLOW;

// ANCHOR: attributes
/// A word, what it sets, and what it clears. With an `r` before it, the same for all mounts below.
const ATTRIBUTES: [(&str, u64, u64); 20] = [
    ("ro", RDONLY, 0),
    ("rw", 0, RDONLY),
    ("nosuid", NOSUID, 0),
    ("suid", 0, NOSUID),
    ("nodev", NODEV, 0),
    ("dev", 0, NODEV),
    ("noexec", NOEXEC, 0),
    ("exec", 0, NOEXEC),
    ("noatime", NOATIME, ATIME),
    ("atime", 0, ATIME),
    ("relatime", 0, ATIME),
    ("norelatime", 0, ATIME),
    ("strictatime", STRICTATIME, ATIME),
    ("nostrictatime", 0, ATIME),
    ("nodiratime", NODIRATIME, 0),
    ("diratime", 0, NODIRATIME),
    ("nosymfollow", NOSYMFOLLOW, 0),
    ("symfollow", 0, NOSYMFOLLOW),
    ("defaults", 0, 0),
    ("remount", 0, 0),
];
// ANCHOR_END: attributes

/// What is mounted elsewhere later: whether it comes in, and out. (mount_namespaces(7))
const PROPAGATION: [(&str, u64); 4] = [
    ("private", libc::MS_PRIVATE),
    ("shared", libc::MS_SHARED),
    ("slave", libc::MS_SLAVE),
    ("unbindable", libc::MS_UNBINDABLE),
];

/// Options of the whole file system, and not of the mount. The kernel takes them by these names.
const OF_THE_FILE_SYSTEM: [&str; 6] = ["sync", "dirsync", "lazytime", "mand", "iversion", "silent"];

/// Words that change nothing: they are what is so anyway.
const AS_EVER: [&str; 8] =
    ["async", "nolazytime", "nomand", "noiversion", "loud", "acl", "noacl", "copy-symlink"];

/// What the options of a mount say.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Options {
    /// Whether it shows what is there already; `Some(true)`: with all mounts below.
    pub bind: Option<bool>,
    /// What mount_setattr(2) sets and clears.
    pub set: u64,
    /// See `set`.
    pub clear: u64,
    /// The same for all mounts below too.
    pub set_below: u64,
    /// See `set_below`.
    pub clear_below: u64,
    /// Its propagation, and whether that is for all mounts below; the last counts.
    pub propagation: Option<(u64, bool)>,
    /// Of a tmpfs: whether it begins with what the root has there.
    pub copy_up: bool,
    /// Whether its files are the container's users'; `Some(true)`: of all mounts below too.
    pub idmap: Option<bool>,
    /// The file system's own, with commas.
    pub data: String,
}

impl Options {
    /// What `words` say. What is no word of ours is the file system's.
    pub fn parse(words: &[String]) -> Options {
        let mut options = Options::default();
        words.iter().for_each(|word| options.add(word));
        options
    }

    // ANCHOR: add
    fn add(&mut self, word: &str) {
        // ANCHOR: day18_task1_add_solution
        let below = word.strip_prefix('r').unwrap_or_default();
        let attribute = |name: &str| ATTRIBUTES.iter().find(|(word, ..)| *word == name).copied();
        let propagation =
            |name: &str| PROPAGATION.iter().find(|(word, _)| *word == name).map(|(_, flag)| *flag);
        match word {
            "bind" => self.bind = Some(self.bind == Some(true)),
            "rbind" => self.bind = Some(true),
            "tmpcopyup" => self.copy_up = true,
            "idmap" => self.idmap = Some(false),
            "ridmap" => self.idmap = Some(true),
            word if AS_EVER.contains(&word) => {}
            word => match (attribute(word), propagation(word), attribute(below), propagation(below)) {
                (Some((_, set, clear)), ..) => change(&mut self.set, &mut self.clear, set, clear),
                (_, Some(flag), ..) => self.propagation = Some((flag, false)),
                (_, _, Some((_, set, clear)), _) => {
                    change(&mut self.set_below, &mut self.clear_below, set, clear)
                }
                (.., Some(flag)) => self.propagation = Some((flag, true)),
                _ if self.data.is_empty() => self.data = word.into(),
                _ => self.data = format!("{},{word}", self.data),
            },
        }
        // ANCHOR_END: day18_task1_add_solution
    }
    // ANCHOR_END: add

    /// Those that only a new file system may understand.
    pub fn words_of_nobody(&self) -> impl Iterator<Item = &str> {
        let words = self.data.split(',').filter(|word| !word.is_empty());
        words.filter(|word| !OF_THE_FILE_SYSTEM.contains(word))
    }

    /// The words that are known, for `features`.
    pub fn known() -> Vec<String> {
        let attributes = ATTRIBUTES.iter().map(|(word, ..)| *word);
        let below = attributes.clone().filter(|word| !["defaults", "remount"].contains(word));
        let propagation = PROPAGATION.iter().map(|(word, _)| *word);
        let mut all: Vec<String> = (attributes.chain(propagation.clone()))
            .chain(AS_EVER)
            .chain(OF_THE_FILE_SYSTEM)
            .chain(["bind", "rbind", "tmpcopyup", "idmap", "ridmap"])
            .map(String::from)
            .chain(below.chain(propagation).map(|word| format!("r{word}")))
            .collect();
        all.sort();
        all
    }
}

/// Of two words about the same the later one counts.
fn change(all_set: &mut u64, all_clear: &mut u64, set: u64, clear: u64) {
    *all_set = (*all_set & !clear) | set;
    // The kinds of atime are one number, and are cleared before one is set.
    *all_clear = (*all_clear & !(set & !ATIME)) | clear;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Options {
        let words: Vec<String> = words.iter().map(|word| word.to_string()).collect();
        Options::parse(&words)
    }

    #[test]
    fn the_last_of_two_words_counts() {
        assert_eq!(parse(&["ro", "rw"]).set, 0);
        assert_eq!(parse(&["rw", "ro"]), Options { set: RDONLY, ..Options::default() });
        let options = parse(&["noatime", "strictatime"]);
        assert_eq!((options.set, options.clear), (STRICTATIME, ATIME));
    }

    #[test]
    fn words_with_an_r_are_for_all_below() {
        let options = parse(&["rbind", "rro", "rprivate", "ridmap"]);
        assert_eq!((options.bind, options.set_below, options.set), (Some(true), RDONLY, 0));
        assert_eq!((options.propagation, options.idmap), (Some((libc::MS_PRIVATE, true)), Some(true)));
        assert_eq!(parse(&["relatime"]).clear, ATIME, "no elatime for all below");
    }

    #[test]
    fn what_is_no_word_of_ours_is_the_file_systems() {
        assert_eq!(parse(&["nosuid", "mode=755", "newinstance"]).data, "mode=755,newinstance");
    }
}
