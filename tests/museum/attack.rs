//! What the attempts have in common.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::common::{World, busybox, rootfs, said, until};

/// What came of an attempt.
#[derive(Debug)]
pub struct Outcome {
    /// In the table's words.
    pub cell: String,
    /// In full, for whoever looks into it.
    pub said: String,
}

impl Outcome {
    /// It is seen on the host that it works, or not; then what it has printed says why not.
    #[track_caller]
    pub fn of(output: &Output, works: bool) -> Outcome {
        if works {
            return Outcome { cell: "works".into(), said: said(output) };
        }
        Outcome::of_words(said(output))
    }

    /// It does not work, and this is what has been printed.
    #[track_caller]
    pub fn of_words(said: String) -> Outcome {
        let reasons = reasons(&said);
        assert!(!reasons.is_empty(), "it does not work, and no reason is given, such as EPERM: {said}");
        Outcome { cell: format!("fails: {}", reasons.join(", ")), said }
    }

    /// It fails, and not by an error: what happens instead.
    pub fn fails(how: &str, output: &Output) -> Outcome {
        Outcome { cell: format!("fails: {how}"), said: said(output) }
    }

    /// Works if both do, that is, if any of them does; otherwise the reasons of both.
    pub fn or(self, other: Outcome) -> Outcome {
        let said = format!("{}\n{}", self.said, other.said);
        match (self.cell.strip_prefix("fails: "), other.cell.strip_prefix("fails: ")) {
            (Some(one), Some(two)) if !one.contains(two) => {
                Outcome { cell: format!("fails: {one}, {two}"), said }
            }
            (Some(_), None) => Outcome { cell: other.cell, said },
            _ => Outcome { cell: self.cell, said },
        }
    }
}

/// How programs say what the kernel said. (errno(3); the second is busybox' mount's EPERM)
const WORDS: [(&str, &str); 14] = [
    ("Operation not permitted", "EPERM"),
    ("permission denied (are you root?)", "EPERM"),
    ("Permission denied", "EACCES"),
    ("Read-only file system", "EROFS"),
    ("Text file busy", "ETXTBSY"),
    ("No such process", "ESRCH"),
    ("Network is unreachable", "ENETUNREACH"),
    ("refused: EPERM", "EPERM"),
    ("refused: EACCES", "EACCES"),
    ("refused: ESRCH", "ESRCH"),
    ("refused: EIO", "EIO"),
    ("refused: ENOTTY", "ENOTTY"),
    ("refused: ENXIO", "ENXIO"),
    ("refused: ENOKEY", "ENOKEY"),
];

/// Why something was refused: each reason once, in their order.
fn reasons(said: &str) -> Vec<&'static str> {
    let mut found: Vec<(usize, &str)> = Vec::new();
    for (words, name) in WORDS {
        found.extend(said.match_indices(words).map(|(at, _)| (at, name)));
    }
    found.sort();
    let mut names = Vec::new();
    for (_, name) in found {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Where the network is none of the matter, there is none to wait for.
#[cfg(feature = "day8-netns")]
pub const NO_NETWORK: &[&str] = &["--net", "none"];
#[cfg(not(feature = "day8-netns"))]
pub const NO_NETWORK: &[&str] = &[];

/// The words of a run on a root file system.
pub fn run_on<'a>(rootfs: &'a Path, flags: &[&'a str], command: &[&'a str]) -> Vec<&'a str> {
    [&["run"], flags, &["--rootfs", rootfs.to_str().unwrap()], command].concat()
}

/// What a shell does with `script`, in a container on the shared busybox root file system.
pub fn shell(world: &World, flags: &[&str], script: &str) -> Output {
    shell_on(world, &busybox(), flags, script)
}

/// The same on another root file system.
pub fn shell_on(world: &World, rootfs: &Path, flags: &[&str], script: &str) -> Output {
    let flags = [NO_NETWORK, flags].concat();
    world.tiny_docker(run_on(rootfs, &flags, &["sh", "-c", script])).output().unwrap()
}

/// For an attack that is a system call: `call(number, …)` returns its result, or ends the program
/// with the name of its error.
const PRELUDE: &str = r#"
import ctypes, errno, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

def call(*words):
    result = libc.syscall(*words)
    if result < 0:
        sys.exit("refused: " + errno.errorcode[ctypes.get_errno()])
    return result

"#;

/// The words after which a program in Python follows.
pub const PYTHON: [&str; 5] = ["python3", "-I", "-S", "-W", "ignore"];

/// The program of an attack, with what all of them need.
pub fn program(script: &str) -> String {
    format!("{PRELUDE}{script}")
}

/// What Python does with `script` in a container, on a root file system that has it.
pub fn python(world: &World, flags: &[&str], script: &str) -> Output {
    let (rootfs, program) = (rootfs("debian"), program(script));
    let command = [&PYTHON[..], &["-c", &program]].concat();
    world.tiny_docker(run_on(&rootfs, flags, &command)).output().unwrap()
}

/// The same in no container: as root of the host, with that root file system for its programs alone.
pub fn python_by_hand(script: &str) -> Output {
    let mut command = Command::new("chroot");
    command.arg(rootfs("debian")).args(PYTHON).args(["-c", &program(script)]).output().unwrap()
}

/// What a shell of the host does with `script`, in a mount namespace of its own: a runtime by hand.
pub fn by_hand(script: &str) -> Output {
    Command::new("unshare").args(["--mount", "bash", "-c", script]).output().unwrap()
}

/// A root file system of this attempt's own, which it may prepare.
pub fn own_rootfs(world: &World) -> PathBuf {
    let name = (1..).map(|number| format!("rootfs{number}")).find(|name| !world.dir().join(name).exists());
    world.copy_of_rootfs(name.unwrap())
}

/// A new path in the test's own directory, of the host.
pub fn new_path(world: &World, name: &str) -> PathBuf {
    (1..).map(|number| world.dir().join(format!("{name}{number}"))).find(|path| !path.exists()).unwrap()
}

/// A program of the host's that nobody on the host calls; and where it writes down in which pid
/// namespace it has run.
pub struct Agent {
    pub program: PathBuf,
    proof: PathBuf,
}

impl Agent {
    pub fn new(world: &World) -> Agent {
        let (program, proof) = (new_path(world, "agent"), new_path(world, "proof"));
        let script =
            format!("#!/bin/sh\nreadlink /proc/self/ns/pid >{0}.new && mv {0}.new {0}\n", proof.display());
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        Agent { program, proof }
    }

    /// Waits until it has run: on the host, and not in the container.
    pub fn has_run_on_the_host(&self) -> bool {
        until("the host has run the container's program", || self.proof.exists());
        let here = fs::read_link("/proc/self/ns/pid").unwrap();
        assert_eq!(fs::read_to_string(&self.proof).unwrap().trim(), here.to_str().unwrap(), "where it ran");
        true
    }
}
