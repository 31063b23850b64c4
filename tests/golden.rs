//! What people read, pinned down for exactly the day that this is built for:
//! `--help`, `--explain`, and the console transcripts of the book.
//!
//! `make vm-test UPDATE=1` writes anew what they compare with.
#![allow(clippy::unwrap_used)]

mod common;

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use common::World;

/// The newest day of this build.
const DAY: u8 = if cfg!(feature = "day3-rootfs") {
    3
} else if cfg!(feature = "day2-namespaces") {
    2
} else {
    1
};

#[test]
fn help_is_as_it_was() {
    let world = World::new();
    let mut text = String::new();
    for words in
        [&["--help"][..], &["run", "--help"], &["ps", "--help"], &["logs", "--help"], &["stop", "--help"]]
    {
        let assert = world.tiny_docker(words).assert().success();
        writeln!(text, "$ tiny-docker {}\n{}", words.join(" "), utf8(&assert.get_output().stdout)).unwrap();
    }
    insta::assert_snapshot!(format!("help_day{DAY}"), text);
}

#[test]
#[cfg_attr(feature = "day2-namespaces", ignore = "privileged: make vm-test")]
fn explain_is_as_it_was() {
    let world = World::new();
    // Every flag of every day that has one.
    let words = match DAY {
        1 => "--explain run sh -c true",
        2 => "--explain run --hostname box sh -c true",
        _ => "--explain run --hostname box --rootfs rootfs -u app -e A=1 -w /srv --read-only sh -c true",
    };
    if DAY >= 3 {
        world.copy_of_rootfs("rootfs");
    }
    let assert = world.tiny_docker(words.split(' ')).env("PATH", "/usr/bin:/bin").assert().success();
    let narration =
        utf8(&assert.get_output().stderr).replace(&*world.dir().to_string_lossy(), "/home/learner");
    insta::assert_snapshot!(format!("explain_day{DAY}"), narration);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn transcripts_of_the_book_are_what_happens() {
    let transcripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut files: Vec<_> = fs::read_dir(&transcripts).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.file_name().unwrap().to_string_lossy().starts_with(&format!("day{DAY}-")));
    files.sort();
    assert!(!files.is_empty(), "no transcript of day {DAY} in {transcripts:?}");

    let mut changed = Vec::new();
    for file in files {
        let expected = fs::read_to_string(&file).unwrap();
        let actual = replay(&expected);
        if actual != expected && std::env::var_os("TINY_DOCKER_UPDATE").is_some() {
            fs::write(&file, actual).unwrap();
        } else if actual != expected {
            changed.push(format!("{}: expected\n{expected}\nbut it says\n{actual}", file.display()));
        }
    }
    assert!(changed.is_empty(), "{}", changed.join("\n\n"));
}

/// Types the commands of `transcript`, its lines that begin with `$ ` (and those
/// after them with `> `), into one shell. Returns what is then on the screen.
fn replay(transcript: &str) -> String {
    let world = World::new();
    if let Some(all) = std::env::var_os("TINY_DOCKER_ROOTFS") {
        symlink(all, world.dir().join("rootfs")).unwrap();
    }
    let mut commands: Vec<String> = Vec::new();
    for line in transcript.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            commands.push(command.into());
        } else if let (Some(more), Some(command)) = (line.strip_prefix("> "), commands.last_mut()) {
            *command += &format!("\n{more}");
        }
    }
    // The separator is a character that no program prints; `$?` stays as it was.
    let separator = "status=$?; printf '\\036'; (exit $status)";
    let script: String = commands.iter().map(|command| format!("{separator}\n{command}\n")).collect();
    let script_file = world.dir().join(".transcript");
    fs::write(&script_file, script).unwrap();

    // stdout and stderr are one file, in the order in which they are written.
    let screen_file = world.dir().join(".screen");
    let screen = fs::File::create(&screen_file).unwrap();
    let bin = world.dir().join("bin");
    fs::create_dir(&bin).unwrap();
    symlink(common::binary(), bin.join("tiny-docker")).unwrap();
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display());
    let mut shell = Command::new("bash");
    shell
        .arg(script_file)
        .current_dir(world.dir())
        .env("PATH", path)
        .env("TERM", "xterm")
        .env("HOME", "/root");
    shell.stdin(Stdio::null()).stdout(screen.try_clone().unwrap()).stderr(screen);
    shell.status().unwrap();

    let screen = fs::read_to_string(screen_file).unwrap();
    let outputs = screen.split('\u{1e}').skip(1);
    let said: Vec<_> = commands.iter().zip(outputs).collect();
    assert_eq!(said.len(), commands.len(), "the shell ended early:\n{screen}");
    let text: String = said
        .iter()
        .map(|(command, output)| format!("$ {}\n{output}", command.replace('\n', "\n> ")))
        .collect();
    // As if tiny-docker were installed, and the commands typed.
    let text = text.replace(&*bin.to_string_lossy(), "/usr/local/bin");
    let text = text.replace(&*world.dir().to_string_lossy(), "/home/learner");
    number_namespaces(&text.lines().map(as_typed).collect::<String>())
}

/// A script's shell begins its messages with the script's name and line, one
/// that is typed into with its own name; and it says less of a killed command.
fn as_typed(line: &str) -> String {
    let message =
        line.strip_prefix("/home/learner/.transcript: line ").and_then(|rest| rest.split_once(": "));
    match message {
        None => format!("{line}\n"),
        Some((_, killed)) if killed.contains(" Killed ") => "Killed\n".into(),
        Some((_, message)) => format!("bash: {message}\n"),
    }
}

/// Namespaces are known by inode numbers, which differ from run to run. What
/// matters is which are the same: number them in the order they appear.
fn number_namespaces(text: &str) -> String {
    let mut seen: Vec<String> = Vec::new();
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(":[") {
        write!(result, "{before}:[").unwrap();
        rest = after;
        let digits = after.split(']').next().unwrap_or_default();
        if digits.len() == 10 && digits.bytes().all(|byte| byte.is_ascii_digit()) {
            // Of different kinds, two may have the same number at different times.
            let kind = before.rsplit(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
            let name = format!("{kind}{digits}");
            if !seen.contains(&name) {
                seen.push(name.clone());
            }
            let number = seen.iter().position(|one| *one == name).unwrap();
            write!(result, "{}", 4026531841 + number).unwrap();
            rest = &after[digits.len()..];
        }
    }
    result + rest
}

fn utf8(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
