//! Day 14: a unit by which systemd keeps a container running.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::process::{Command, Output};

use common::{World, busybox, said, until};
use predicates::prelude::PredicateBooleanExt;
use predicates::str::{contains, is_empty};

/// Makes a container called web, without a network.
fn create(world: &World, flags: &[&str], script: &str) {
    let rootfs = busybox();
    let words = ["create", "--net", "none", "--name", "web", "--rootfs", rootfs.to_str().unwrap()];
    world.tiny_docker([&words[..], flags, &["sh", "-c", script]].concat()).assert().success();
}

fn unit(world: &World) -> String {
    let output = world.tiny_docker(["systemd", "web"]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// What `unit` sets `name` to.
fn setting<'a>(unit: &'a str, name: &str) -> Option<&'a str> {
    unit.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

/// The words of a command line in a unit, as systemd reads them: in quotes a backslash begins what
/// stands for another character, and `%%` is a percent sign. (systemd.syntax(7))
fn words_of(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        match c {
            '"' => quoted = !quoted,
            '\\' if quoted => match rest.next().unwrap() {
                'x' => {
                    let digits: String = rest.by_ref().take(2).collect();
                    word.push(u8::from_str_radix(&digits, 16).unwrap() as char);
                }
                c => word.push(c),
            },
            '%' => {
                assert_eq!(rest.next(), Some('%'), "systemd takes this for a specifier: {line}");
                word.push('%');
            }
            ' ' if !quoted => words.push(std::mem::take(&mut word)),
            c => word.push(c),
        }
    }
    words.push(word);
    words
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_a_policy_is_said_in_systemds_words() {
    let world = World::new();
    create(&world, &[], "true");
    for (policy, restart, interval, burst) in [
        ("no", "no", "0", None),
        ("always", "always", "0", None),
        ("unless-stopped", "always", "0", None),
        ("on-failure", "on-failure", "0", None),
        ("on-failure:3", "on-failure", "infinity", Some("4")),
    ] {
        world.tiny_docker(["update", "--restart", policy, "web"]).assert().success();
        let unit = unit(&world);
        assert_eq!(setting(&unit, "Restart"), Some(restart), "{policy}: {unit}");
        assert_eq!(setting(&unit, "StartLimitIntervalSec"), Some(interval), "{policy}: {unit}");
        assert_eq!(setting(&unit, "StartLimitBurst"), burst, "{policy}: {unit}");
    }
    let unit = unit(&world);
    let id = world.inspect("web")["id"].as_str().unwrap().to_string();
    let command = setting(&unit, "ExecStart").unwrap();
    assert!(command.ends_with(&format!(" start --attach --by-systemd {id}")), "by its id: {command}");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_systemd_takes_the_unit_whatever_the_paths_are_called() {
    let world = World::new();
    // The lab's guest has no systemd. Where there is one, it is asked as well.
    let has_systemd = Command::new("systemd-analyze").arg("--version").output().is_ok();
    for name in
        ["plain", "a b", "100%h", "$HOME ${x}", "\"quoted\" 'too'", "back\\slash", "new\nline", "é; b"]
    {
        let root = world.dir().join(name);
        let rootfs = busybox();
        let words =
            ["--root", root.to_str().unwrap(), "create", "--net", "none", "--name", "web", "--rootfs"];
        let rest = [rootfs.to_str().unwrap(), "--restart", "on-failure:3", "true"];
        world.tiny_docker([&words[..], &rest[..]].concat()).assert().success();
        let words = ["--root", root.to_str().unwrap(), "systemd", "web"];
        let made = world.tiny_docker(words).output().unwrap();
        let unit = String::from_utf8_lossy(&made.stdout).into_owned();
        for command in ["ExecStart", "ExecStop"] {
            let line = setting(&unit, command).unwrap_or_else(|| panic!("no {command}: {}", said(&made)));
            // The colon says that `$` begins no variable.
            assert!(line.starts_with(":\""), "{command} of {name:?}: {line}");
            let words = words_of(&line[1..]);
            let path = fs::canonicalize(&root).unwrap();
            let expected = ["--root", path.to_str().unwrap()];
            assert_eq!(words[1..3], expected, "what systemd reads in {command} of {name:?}: {line}");
        }
        if has_systemd {
            verify(&world, name, &made);
        }
        world.tiny_docker(["--root", root.to_str().unwrap(), "rm", "web"]).assert().success();
        fs::remove_dir_all(&root).unwrap();
    }
}

/// systemd has nothing to say about a unit that `made` has printed.
fn verify(world: &World, name: &str, made: &Output) {
    let file = world.dir().join("web.service");
    fs::write(&file, &made.stdout).unwrap();
    let verify = Command::new("systemd-analyze").arg("verify").arg(&file).output().unwrap();
    let about_it: Vec<String> =
        said(&verify).lines().filter(|line| line.contains("web.service")).map(String::from).collect();
    assert!(verify.status.success() && about_it.is_empty(), "{name}: {about_it:?} {}", said(made));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_started_by_systemd_its_own_policy_does_nothing() {
    let world = World::new();
    create(&world, &["--restart", "always"], "echo life; exit 3");
    let start = world.tiny_docker(["start", "--attach", "--by-systemd", "web"]).assert();
    start
        .code(3)
        .stdout("life\n")
        .stderr(contains("systemd's to start again").and(contains("--restart always")));
    let shown = world.inspect("web");
    assert_eq!((&shown["status"], &shown["restart_count"]), (&"exited".into(), &0.into()), "{shown}");
    assert_eq!(shown["restart"], "always", "the policy stays what it is: {shown}");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_systemd_hears_that_a_person_ended_it() {
    let world = World::new();
    create(&world, &["--restart", "always"], "trap 'exit 5' TERM; echo up; while :; do sleep 0.1; done");
    let prevented = "RestartPreventExitStatus=199";
    assert!(unit(&world).contains(prevented), "{}", unit(&world));
    let mut start = world.start(["start", "--attach", "--by-systemd", "web"]);
    assert_eq!(start.line().trim_end(), "up");
    // A second one would be the other owner.
    let second = world.tiny_docker(["start", "--attach", "--by-systemd", "web"]).assert();
    second.code(1).stdout(is_empty()).stderr(contains("runs already"));
    world.tiny_docker(["stop", "web"]).assert().success();
    assert_eq!(start.ended(), 199, "what systemd hears of a stop");
    until("it has ended", || world.inspect("web")["status"] == "exited");
    assert_eq!(world.inspect("web")["exit_code"], 5, "what people hear");
    let id = world.inspect("web")["id"].as_str().unwrap().to_string();
    world.tiny_docker(["rm", "web"]).assert().success();
    // One that is not there any more is not tried for ever.
    world.tiny_docker(["start", "--attach", "--by-systemd", &id]).assert().code(199);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_what_systemd_could_not_run_gets_no_unit() {
    let world = World::new();
    create(&world, &["-it"], "true");
    world.tiny_docker(["systemd", "web"]).assert().code(1).stdout(is_empty()).stderr(contains("-it"));
    world.tiny_docker(["rm", "web"]).assert().success();
    create(&world, &["--rm"], "true");
    world.tiny_docker(["systemd", "web"]).assert().code(1).stdout(is_empty()).stderr(contains("--rm"));
    world.tiny_docker(["rm", "web"]).assert().success();
    // A terminal alone is no obstacle: nobody types, and what is drawn is in the log.
    create(&world, &["-t"], "true");
    assert!(unit(&world).contains("[Service]"), "with a terminal: {}", unit(&world));
    world.tiny_docker(["rm", "web"]).assert().success();
    world
        .tiny_docker(["systemd", "web"])
        .assert()
        .code(1)
        .stdout(is_empty())
        .stderr(contains("no such container"));
}
