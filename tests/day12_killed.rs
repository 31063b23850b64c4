//! Day 12: whoever is killed while images come and go leaves nothing that is taken for whole, and
//! whoever comes next gets it right.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use common::layout::{Layout, Packed, sha256, tar_of, tar_with};
use common::shelf::{Answer, Shelf};
use common::tree::{same_trees, tree};
use common::{World, binary, busybox, nobody_is_left, said, state, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

fn store(world: &World) -> PathBuf {
    world.dir().join("state/images")
}

fn names_in(dir: PathBuf) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// What a layer is, by its diff_id, once it is unpacked.
type Trees = BTreeMap<String, BTreeMap<String, String>>;

/// The unpacked layers that are there.
fn layers(world: &World) -> Trees {
    let dir = store(world).join("layers");
    let names = names_in(dir.clone()).into_iter().filter(|name| name.len() == 64);
    // A whiteout has no time in an archive, so each has the time of its unpacking.
    let timeless = |(path, facts): (String, String)| match facts.contains("device 0x0") {
        true => (path, "is taken away".into()),
        false => (path, facts),
    };
    names.map(|name| (name.clone(), tree(&dir.join(name)).into_iter().map(timeless).collect())).collect()
}

/// Asserts that all that has a name is what its name says: files, layers (`known`), and images.
#[track_caller]
fn all_is_whole(world: &World, known: &Trees, place: &str) {
    let blobs = store(world).join("blobs/sha256");
    for name in names_in(blobs.clone()) {
        let found = sha256(&fs::read(blobs.join(&name)).unwrap());
        assert_eq!(found, format!("sha256:{name}"), "{place}: half a file has its whole name");
    }
    for (name, found) in layers(world) {
        let expected = known.get(&name).unwrap_or_else(|| panic!("{place}: the layer {name} is of no image"));
        same_trees(&found, expected, &format!("{place}: half a layer has its whole name"));
    }
    let Ok(index) = fs::read(store(world).join("index.json")) else { return };
    let read = |digest: &Value| -> Value {
        let path = blobs.join(&digest.as_str().unwrap()[7..]);
        let bytes = fs::read(&path);
        let bytes = bytes.unwrap_or_else(|error| panic!("{place}: an image lacks {path:?}: {error}"));
        serde_json::from_slice(&bytes).unwrap_or_default()
    };
    let index: Value = serde_json::from_slice(&index).unwrap();
    for entry in index["manifests"].as_array().unwrap() {
        let manifest = read(&entry["digest"]);
        read(&manifest["config"]["digest"]);
        manifest["layers"].as_array().unwrap().iter().for_each(|layer| drop(read(&layer["digest"])));
    }
}

/// What `words` print, which must succeed.
#[track_caller]
fn says(world: &World, words: &[&str], place: &str) -> String {
    let output = world.tiny_docker(words).output().unwrap();
    assert!(output.status.success(), "{place}: {words:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Removes all images; nothing may be left of what any of the killed has begun.
#[track_caller]
fn nothing_is_left(world: &World, place: &str) {
    says(world, &["image", "prune", "-af"], place);
    for dir in ["blobs/sha256", "layers", "aside", "partial"] {
        assert_eq!(names_in(store(world).join(dir)), Vec::<String>::new(), "{place}: {dir}");
    }
}

/// Kills what `words` start with SIGKILL before each operation: the command itself, and the
/// processes that unpack for it. `before` makes what there is to be, and `after` looks at what is
/// left. Returns how many operations there were.
fn killed_at_every_moment(world: &World, words: &[&str], before: &dyn Fn(), after: &dyn Fn(&str)) -> u32 {
    let mut moments = 0;
    for who in ["parent", "child"] {
        for moment in 1.. {
            before();
            let mut command = world.tiny_docker(words);
            let output = command.env("TINY_DOCKER_DIE_AT", format!("{who}:{moment}")).output().unwrap();
            let place = format!("killed at {who}:{moment}: {}", said(&output));
            until("nobody is at work any more", nobody_is_left);
            after(&place);
            if output.status.success() {
                break;
            }
            moments += 1;
            assert!(moments < 300, "{place}: it never gets to its end");
        }
    }
    moments
}

/// An image `web:1` of two layers, in two formats.
fn two_layers(world: &World) -> Layout {
    let mut layout = Layout::new(world, "layout");
    let lower = tar_with(&[("srv/", 0o750, b""), ("srv/a", 0o4755, &[b'a'; 70_000]), ("srv/b", 0o600, b"b")]);
    let upper = tar_with(&[
        ("srv/", 0o750, b""),
        ("srv/.wh.b", 0o644, b""),
        ("etc/", 0o755, b""),
        ("etc/c", 0o644, b"c\n"),
    ]);
    let layers = [layout.layer(&lower, Packed::Gzip), layout.layer(&upper, Packed::Plain)];
    let manifest = layout.image(&layers, json!({"Cmd": ["sh"]}));
    layout.tag("1", &manifest);
    layout
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_long_a_pull_may_be_killed_at_any_moment() {
    let world = World::new();
    let layout = two_layers(&world);
    let shelf = Shelf::open(&layout, |_| Answer::Honest);
    let name = shelf.name("web:1");
    let pull = ["pull", "-q", &name];
    says(&world, &pull, "unharmed");
    let known = layers(&world);
    assert_eq!(known.len(), 2, "the image has two layers");
    nothing_is_left(&world, "unharmed");
    let moments = killed_at_every_moment(&world, &pull, &|| (), &|place| {
        all_is_whole(&world, &known, place);
        says(&world, &pull, place);
        all_is_whole(&world, &known, place);
        assert_eq!(layers(&world).len(), 2, "{place}: the next pull did not make it whole");
        nothing_is_left(&world, place);
    });
    assert!(moments > 20, "there are only {moments} steps");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_long_a_load_may_be_killed_at_any_moment() {
    let world = World::new();
    let mut layout = two_layers(&world);
    let manifest = layout.image(&[], json!({"Cmd": ["sh"]}));
    layout.tag("docker.io/lab/empty:1", &manifest);
    let archive = world.dir().join("images.tar");
    fs::write(&archive, tar_of(&layout.dir)).unwrap();
    let load = ["load", "-q", "-i", archive.to_str().unwrap()];
    says(&world, &load, "unharmed");
    let known = layers(&world);
    assert_eq!(known.len(), 2, "the image has two layers");
    nothing_is_left(&world, "unharmed");
    let moments = killed_at_every_moment(&world, &load, &|| (), &|place| {
        all_is_whole(&world, &known, place);
        says(&world, &load, place);
        all_is_whole(&world, &known, place);
        assert_eq!(layers(&world).len(), 2, "{place}: the next load did not make it whole");
        assert_eq!(says(&world, &["images", "-q"], place).lines().count(), 2, "{place}");
        nothing_is_left(&world, place);
    });
    assert!(moments > 20, "there are only {moments} steps");
}

/// `lab/base:1` in the store: busybox, and what it is to execute.
fn base(world: &World, config: Value) {
    let mut layout = Layout::new(world, "layout");
    let layer = layout.layer(&tar_of(&busybox()), Packed::Gzip);
    let manifest = layout.image(&[layer], config);
    layout.tag("docker.io/lab/base:1", &manifest);
    let archive = world.dir().join("base.tar");
    fs::write(&archive, tar_of(&layout.dir)).unwrap();
    load_base(world);
}

fn load_base(world: &World) {
    let archive = world.dir().join("base.tar");
    says(world, &["load", "-q", "-i", archive.to_str().unwrap()], "load the base");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_long_a_commit_may_be_killed_at_any_moment() {
    let world = World::new();
    base(&world, json!({"Cmd": ["sh", "-c", "mkdir -m 710 /srv/new; echo x >/srv/new/x; rm /bin/ls"]}));
    says(&world, &["run", "--net", "none", "--name", "work", "--image", "lab/base:1"], "run");
    let blobs = names_in(store(&world).join("blobs/sha256"));
    let commit = ["commit", "work", "lab/new:1"];
    says(&world, &commit, "unharmed");
    let known = layers(&world);
    assert_eq!(known.len(), 2, "the image has a layer more");
    says(&world, &["rmi", "lab/new:1"], "unharmed");
    let moments = killed_at_every_moment(&world, &commit, &|| (), &|place| {
        all_is_whole(&world, &known, place);
        says(&world, &commit, place);
        all_is_whole(&world, &known, place);
        assert_eq!(layers(&world).len(), 2, "{place}: the next commit did not make it whole");
        // Of the images of those that were killed, at most their names are gone.
        says(&world, &["rmi", "lab/new:1"], place);
        says(&world, &["image", "prune", "-f"], place);
        assert_eq!(names_in(store(&world).join("blobs/sha256")), blobs, "{place}: something is left");
        assert_eq!(names_in(store(&world).join("aside")), Vec::<String>::new(), "{place}");
    });
    assert!(moments > 10, "there are only {moments} steps");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_long_a_removal_may_be_killed_at_any_moment() {
    let world = World::new();
    base(&world, json!({"Cmd": ["echo", "it runs"]}));
    let known = layers(&world);
    let run = ["run", "--rm", "--net", "none", "--pull", "never", "--image", "lab/base:1"];
    let moments = killed_at_every_moment(&world, &["rmi", "lab/base:1"], &|| load_base(&world), &|place| {
        all_is_whole(&world, &known, place);
        if says(&world, &["images", "-q"], place).is_empty() {
            let output = world.tiny_docker(run).output().unwrap();
            assert_eq!(output.status.code(), Some(125), "{place}: {}", said(&output));
        } else {
            assert_eq!(says(&world, &run, place), "it runs\n", "{place}");
        }
        nothing_is_left(&world, place);
    });
    assert!(moments >= 1, "there are only {moments} steps");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_long_a_run_gets_its_image_or_none_whenever_that_is_removed() {
    let world = World::new();
    base(&world, json!({"Cmd": ["echo", "it runs"]}));
    let words = ["run", "--rm", "--net", "none", "--pull", "never", "--image", "lab/base:1"];
    let (mut ran, mut refused) = (0, 0);
    for moment in 1.. {
        load_base(&world);
        let mut command = Command::new(binary());
        command.args(words).env("TINY_DOCKER_STOP_AT", format!("parent:{moment}"));
        let run = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let pid = Pid::from_raw(run.id() as i32);
        until("it is held up, or has ended", || matches!(state(pid), 'T' | 'Z'));
        let is_held = state(pid) == 'T';
        let removed = world.tiny_docker(["rmi", "-f", "lab/base:1"]).output().unwrap();
        says(&world, &["image", "prune", "-af"], "while a run is held up");
        let _ = kill(pid, Signal::SIGCONT);
        let output = run.wait_with_output().unwrap();
        let place = format!("held up at {moment}: {}\nrmi: {}", said(&output), said(&removed));
        assert!(removed.status.success(), "{place}");
        match output.status.code() {
            Some(0) => {
                assert_eq!(output.stdout, b"it runs\n", "{place}");
                ran += 1;
            }
            code => {
                assert_eq!(code, Some(125), "{place}");
                assert!(
                    ["no such image", "not in the store", "removed its layer"]
                        .iter()
                        .any(|words| said(&output).contains(words)),
                    "{place}"
                );
                refused += 1;
            }
        }
        assert_eq!(world.ps().lines().count(), 1, "{place}: a container is left");
        nothing_is_left(&world, &place);
        if !is_held {
            break;
        }
        assert!(moment < 300, "{place}: it never gets to its end");
    }
    assert!(ran > 10 && refused > 0, "{ran} runs, and {refused} that got no image");
}
