//! Day 18: words to numbers, and errors in words that engines read.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use common::bundle::Engine;
use predicates::prelude::*;
use predicates::str::contains;
use serde_json::{Value, json};
use tiny_docker_rs::oci::options::Options;
use tiny_docker_rs::oci::resources;
use tiny_docker_rs::oci::spec::Spec;

const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
const ATIME: u64 = libc::MOUNT_ATTR__ATIME;

/// As podman 4.3, containerd 1.6 (ctr, CRI) and a kubelet 1.20 write them, with shorter lists of calls.
const WRITTEN: [(&str, &str); 4] = [
    ("podman", include_str!("oci/podman.json")),
    ("ctr", include_str!("oci/ctr.json")),
    ("cri", include_str!("oci/cri.json")),
    ("kubelet", include_str!("oci/kubelet.json")),
];

fn options(words: &[&str]) -> Options {
    let words: Vec<String> = words.iter().map(|word| word.to_string()).collect();
    Options::parse(&words)
}

/// What is written into the files of a cgroup: `FILE=VALUE`.
fn files(resources: Value) -> Vec<String> {
    let files = resources::files(&serde_json::from_value(resources).unwrap()).unwrap();
    files.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

#[test]
fn task1_of_two_options_about_the_same_the_later_one_counts() {
    assert_eq!(options(&["ro"]).set, RDONLY, "ro sets a flag");
    let undone = options(&["ro", "rw"]);
    assert_eq!((undone.set, undone.clear), (0, RDONLY), "ro, then rw");
    let done = options(&["rw", "ro"]);
    assert_eq!((done.set, done.clear), (RDONLY, 0), "rw, then ro");
    let time = options(&["noatime", "strictatime"]);
    assert_eq!((time.set, time.clear), (libc::MOUNT_ATTR_STRICTATIME, ATIME), "one number, not two flags");
    assert_eq!(options(&["bind", "rbind"]).bind, Some(true), "rbind is a bind, and more");
    assert_eq!(options(&["rbind", "bind"]).bind, Some(true), "bind takes nothing away from rbind");
    assert_eq!(options(&["rshared", "private"]).propagation, Some((libc::MS_PRIVATE, false)), "propagation");
}

#[test]
fn task1_an_option_with_an_r_is_for_all_mounts_below() {
    let all = options(&["rbind", "rro", "rnosuid", "rslave", "ridmap"]);
    assert_eq!((all.set, all.set_below), (0, RDONLY | libc::MOUNT_ATTR_NOSUID), "rro and rnosuid");
    assert_eq!(all.propagation, Some((libc::MS_SLAVE, true)), "rslave");
    assert_eq!(all.idmap, Some(true), "ridmap");
    // These begin with an r of their own.
    for (word, what) in [("ro", RDONLY), ("rw", 0), ("relatime", 0), ("remount", 0)] {
        let one = options(&[word]);
        assert_eq!((one.set, one.set_below, one.clear_below), (what, 0, 0), "{word} is for the mount alone");
    }
    assert_eq!(options(&["rrelatime"]).clear_below, ATIME, "rrelatime");
}

#[test]
fn task1_what_is_no_option_of_a_mount_is_the_file_systems() {
    let tmpfs = options(&["nosuid", "mode=755", "noexec", "size=65536k", "acl"]);
    assert_eq!(tmpfs.data, "mode=755,size=65536k", "in their order, with a comma between");
    assert_eq!(tmpfs.set, libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC, "nosuid and noexec");
    assert_eq!(options(&["defaults", "rw", "async"]).data, "", "what is so anyway is said to nobody");
    assert!(options(&["tmpcopyup"]).copy_up, "tmpcopyup");
}

#[test]
fn task1_features_names_the_options_that_are_understood() {
    let features = Engine::that_only_reads().call(&["features"]).success();
    let document: Value = serde_json::from_slice(&features.get_output().stdout).unwrap();
    let words: Vec<&str> =
        document["mountOptions"].as_array().unwrap().iter().flat_map(Value::as_str).collect();
    let of_the_file_system = ["sync", "dirsync", "lazytime", "mand", "iversion", "silent"];
    for word in &words {
        let data = options(&[word]).data;
        assert_eq!(data, if of_the_file_system.contains(word) { word } else { "" }, "{word} is {data:?}");
    }
    for word in ["rbind", "rro", "tmpcopyup", "idmap", "rshared"] {
        assert!(words.contains(&word), "{word} is not in {words:?}");
    }
}

#[test]
fn task1_memory_and_swap_together_become_swap_alone() {
    let memory = |memory: Value| files(json!({ "memory": memory }));
    let both = memory(json!({"limit": 64 << 20, "swap": 96 << 20, "reservation": 32 << 20}));
    assert_eq!(both, ["memory.max=67108864", "memory.swap.max=33554432", "memory.low=33554432"]);
    assert_eq!(
        memory(json!({"limit": 1000, "swap": 1000})),
        ["memory.max=1000", "memory.swap.max=0"],
        "no swap"
    );
    assert_eq!(
        memory(json!({"limit": -1, "swap": -1})),
        ["memory.max=max", "memory.swap.max=max"],
        "-1 is no limit"
    );
    assert_eq!(memory(json!({"limit": 1000})), ["memory.max=1000"], "of swap nothing is said");
    assert!(memory(json!({"limit": 0, "swap": 0})).is_empty(), "0 says nothing");
    for wrong in [json!({"limit": 1000, "swap": 999}), json!({"swap": 1000})] {
        let read = serde_json::from_value(json!({ "memory": wrong })).unwrap();
        let error = resources::files(&read).unwrap_err().to_string();
        assert!(error.contains("memory.swap") && error.contains("together"), "{wrong}: {error}");
    }
}

#[test]
fn task1_shares_become_a_weight_and_a_quota_has_its_period() {
    let cpu = |cpu: Value| files(json!({ "cpu": cpu }));
    for (shares, weight) in [(1, 1), (2, 1), (1024, 39), (262_144, 10_000), (u64::MAX, 10_000)] {
        assert_eq!(cpu(json!({ "shares": shares })), [format!("cpu.weight={weight}")], "{shares} shares");
    }
    assert!(cpu(json!({"shares": 0, "quota": 0, "period": 0})).is_empty(), "0 says nothing");
    assert_eq!(cpu(json!({"quota": 50_000, "period": 200_000})), ["cpu.max=50000 200000"]);
    assert_eq!(cpu(json!({"quota": 50_000})), ["cpu.max=50000 100000"], "the usual period");
    assert_eq!(cpu(json!({"quota": -1})), ["cpu.max=max 100000"], "-1 is no limit");
    assert_eq!(cpu(json!({"period": 200_000})), ["cpu.max=max 200000"], "a period alone");
}

/// Each value in `value` that says something, by its place. (The crate leaves out what is empty.)
fn leaves(value: &Value, place: String, found: &mut BTreeMap<String, Value>) {
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| leaves(value, format!("{place}.{name}"), found))
        }
        // Sets, which have no order: each is a leaf.
        Value::Array(values) if place.contains(".capabilities.") => {
            values.iter().for_each(|value| drop(found.insert(format!("{place} has {value}"), json!(true))))
        }
        Value::Array(values) => {
            let numbered = values.iter().enumerate();
            numbered.for_each(|(number, value)| leaves(value, format!("{place}[{number}]"), found))
        }
        Value::String(text) if text.is_empty() => {}
        Value::Bool(false) => {}
        value => drop(found.insert(place, value.clone())),
    }
}

fn leaves_of(value: &impl serde::Serialize) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    leaves(&serde_json::to_value(value).unwrap(), "".into(), &mut found);
    found
}

#[test]
fn task1_what_engines_write_is_what_another_crate_reads_too() {
    let engine = Engine::that_only_reads();
    let ours = engine.config.to_string();
    for (name, text) in WRITTEN.into_iter().chain([("tiny-runc spec", &ours[..])]) {
        let read = Spec::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        let oracle: oci_spec::runtime::Spec =
            serde_json::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let (read, oracle) = (leaves_of(&read), leaves_of(&oracle));
        let places: BTreeSet<&String> = read.keys().chain(oracle.keys()).collect();
        let differ: Vec<String> = (places.into_iter())
            .filter(|place| read.get(*place) != oracle.get(*place))
            .map(|place| format!("{place}: ours {:?}, the other's {:?}", read.get(place), oracle.get(place)))
            .collect();
        assert!(differ.is_empty(), "{name}:\n{}", differ.join("\n"));
        let spec = Spec::parse(text.as_bytes()).unwrap();
        for mount in &spec.mounts {
            Options::parse(&mount.options);
        }
    }
    let features = engine.call(&["features"]).success();
    let features: oci_spec::runtime::Features =
        serde_json::from_slice(&features.get_output().stdout).unwrap();
    let known = features.mount_options().clone().unwrap();
    assert!(known.iter().any(|word| word == "rro"), "{known:?}");
    let linux = features.linux().clone().unwrap();
    let policies = linux.memory_policy().clone().unwrap();
    let modes = policies.modes().clone().unwrap();
    assert!(modes.len() == 7 && modes.iter().any(|mode| mode == "MPOL_WEIGHTED_INTERLEAVE"), "{modes:?}");
    assert_eq!(policies.flags().as_ref().unwrap().len(), 3);
    assert_eq!(*linux.net_devices().clone().unwrap().enabled(), Some(true));
}

/// Of a mount inside: its options, as mountinfo has them.
fn options_of(mountinfo: &str, place: &str) -> String {
    let fields = mountinfo.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mut found = fields.filter(|fields| fields.get(4) == Some(&place)).map(|fields| fields[5].to_string());
    found.next_back().unwrap_or_else(|| panic!("nothing is mounted on {place}:\n{mountinfo}"))
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_mounts_come_in_their_order_with_their_options() {
    let mut engine = Engine::new(
        "cat /proc/self/mountinfo; cat /tmp/data/file; touch /tmp/data/other 2>&1; touch /tmp/mine && echo made; \
         stat -c mode=%a /tmp",
    );
    fs::create_dir(engine.path("data")).unwrap();
    fs::write(engine.path("data/file"), "hello\n").unwrap();
    let options = ["nosuid", "noexec", "mode=700", "size=64k"];
    engine.mount(json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": options}));
    // From the bundle, for it is not absolute.
    engine.mount(
        json!({"destination": "/tmp/data", "type": "bind", "source": "data", "options": ["rbind", "ro"]}),
    );
    let said = engine.says();
    assert!(said.contains("hello\n") && said.contains("Read-only") && said.contains("made\n"), "{said}");
    assert!(said.contains("mode=700\n"), "{said}");
    assert_eq!(options_of(&said, "/tmp"), "rw,nosuid,noexec,relatime");
    assert!(options_of(&said, "/tmp/data").starts_with("ro,"), "{said}");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_ro_is_for_one_mount_and_rro_for_all_below() {
    let mut engine = Engine::new("cat /proc/self/mountinfo");
    engine.mount(json!({"destination": "/tmp", "type": "tmpfs"}));
    // /dev/shm is a mount below.
    for (place, word) in [("/tmp/one", "ro"), ("/tmp/all", "rro")] {
        engine.mount(
            json!({"destination": place, "type": "bind", "source": "/dev", "options": ["rbind", word]}),
        );
    }
    let said = engine.says();
    assert!(options_of(&said, "/tmp/one").starts_with("ro,"), "{said}");
    assert!(options_of(&said, "/tmp/one/shm").starts_with("rw,"), "{said}");
    assert!(options_of(&said, "/tmp/all").starts_with("ro,"), "{said}");
    assert!(options_of(&said, "/tmp/all/shm").starts_with("ro,"), "{said}");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_its_cgroup_has_the_limits_that_are_written() {
    let mut engine =
        Engine::new("cd /sys/fs/cgroup && cat memory.max memory.swap.max cpu.weight cpu.max pids.max");
    *engine.resources() = json!({
        "memory": {"limit": 64 << 20, "swap": 96 << 20},
        "cpu": {"shares": 1024, "quota": 50_000, "period": 100_000},
        "pids": {"limit": 50},
    });
    assert_eq!(engine.says(), "67108864\n33554432\n39\n50000 100000\n50\n");
}

/// What the log of an engine has: its last line.
fn last_line(log: &Path) -> String {
    fs::read_to_string(log).unwrap_or_default().lines().next_back().unwrap_or_default().into()
}

#[test]
fn task7_callers_of_runc_read_its_version_and_its_log() {
    let engine = Engine::that_only_reads();
    let lines = contains("tiny-runc version ").and(contains("\nspec: 1."));
    let version = engine.call(&["--version"]).success().stdout(lines);
    let version = String::from_utf8(version.get_output().stdout.clone()).unwrap();
    assert_eq!(version.lines().count(), 3, "go-runc takes three lines apart: {version}");
    engine.call(&["delete", "--force", "x"]).success();
    let words = ["state", "x", "--log", "log", "--log-format", "json"];
    for _ in 0..2 {
        engine.call(&words).code(1).stderr(contains("does not exist"));
    }
    let log = engine.text("log");
    assert_eq!(log.lines().count(), 2, "what is there stays: {log}");
    let line: Value = serde_json::from_str(&last_line(&engine.path("log"))).unwrap();
    assert_eq!(line["level"], "error", "{line}");
    assert_eq!(line["msg"], "container x does not exist", "{line}");
    let time: &str = line["time"].as_str().unwrap_or_default();
    assert!(time.parse::<jiff::Timestamp>().is_ok(), "a time as RFC 3339 has it: {line}");
}

#[test]
fn task7_an_error_is_one_line_whatever_is_in_it() {
    let engine = Engine::that_only_reads();
    engine.call(&["state", "a\n\"b", "--log", "text"]).code(1);
    let text = engine.text("text");
    assert_eq!(text.lines().count(), 1, "one line: {text}");
    assert!(text.starts_with("time=\"") && text.ends_with("\"\n"), "{text}");
    // What the error has in quotes ends nothing.
    assert!(text.contains(r#"" level=error msg="container id \"a"#), "{text}");
    engine.call(&["state", "a\n\"b", "--log", "json", "--log-format", "json"]).code(1);
    let json = engine.text("json");
    assert_eq!(json.lines().count(), 1, "one line: {json}");
    let line: Value = serde_json::from_str(&json).unwrap();
    assert!(line["msg"].as_str().unwrap_or_default().contains("expected letters"), "{line}");
}

/// A root file system with a script whose interpreter is not there.
fn with_a_script(engine: &mut Engine) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let root = engine.copy_of_rootfs("rootfs");
    engine.config["root"]["path"] = json!("rootfs");
    fs::write(root.join("script"), "#!/nothere\n").unwrap();
    fs::set_permissions(root.join("script"), fs::Permissions::from_mode(0o755)).unwrap();
    root
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task7_a_command_that_cannot_run_is_told_in_words_that_engines_know() {
    let mut engine = Engine::new("");
    for (command, code, words) in [
        ("nothere", 127, "executable file not found in $PATH"),
        ("/nothere", 127, "no such file or directory"),
        ("/etc", 126, "permission denied"),
        ("/etc/passwd", 126, "permission denied"),
    ] {
        engine.config["process"]["args"] = json!([command]);
        for call in ["run", "create"] {
            engine
                .call(&[call, "one", "--log", "log", "--log-format", "json"])
                .code(code)
                .stderr(contains(words));
            let line = last_line(&engine.path("log"));
            assert!(line.contains(words), "{call} {command}: {line}");
            assert_eq!(engine.remembered(), 0, "{call} {command}: nothing is left");
        }
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task7_what_only_the_exec_finds_out_is_told_by_start() {
    let mut engine = Engine::new("");
    with_a_script(&mut engine);
    engine.config["process"]["args"] = json!(["/script"]);
    engine.call(&["create", "one"]).success();
    engine
        .call(&["start", "one"])
        .code(127)
        .stderr(contains("interpreter").and(contains("not found in $PATH")));
    engine.becomes("one", "stopped");
    engine.call(&["delete", "one"]).success();
}
