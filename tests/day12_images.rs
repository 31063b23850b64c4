//! Day 12: pull: from a registry into the store. What a real one does is in
//! `day12_registry.rs`; here is one that does wrong what the test asks it to.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::layout::{Layer, Layout, Packed, tar_with};
use common::shelf::{Answer, Asked, Shelf};
use common::{AtTerminal, World, binary, said, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// A layer with one file of `size` bytes that compress badly, or not at all.
fn layer(layout: &Layout, name: &str, size: usize) -> Layer {
    let mut number = name.len() as u32 + 1;
    let bytes = (0..size).map(|_| {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (number >> 24) as u8
    });
    layout.layer(&tar_with(&[(name, 0o644, &bytes.collect::<Vec<u8>>())]), Packed::Plain)
}

/// An image `web:1` of three layers, the middle one of 400 kB. Returns that one's digest.
fn three_layers(world: &World) -> (Layout, String) {
    let mut layout = Layout::new(world, "layout");
    let layers = [("a", 1000), ("big", 400_000), ("c", 2000)].map(|(name, size)| layer(&layout, name, size));
    let manifest = layout.image(&layers, json!({"Cmd": ["sh"]}));
    layout.tag("1", &manifest);
    (layout, layers[1].descriptor["digest"].as_str().unwrap().to_string())
}

fn pull(world: &World, words: &[&str]) -> Output {
    let start = Instant::now();
    let output = world.tiny_docker([&["pull"], words].concat()).output().unwrap();
    assert!(start.elapsed() < Duration::from_secs(60), "it took {:?}: {}", start.elapsed(), said(&output));
    output
}

#[track_caller]
fn pulls(world: &World, words: &[&str]) -> String {
    let output = pull(world, words);
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// It fails with exit code 1, says all of `expected`, and leaves nothing that is taken for an
/// image.
#[track_caller]
fn fails(world: &World, words: &[&str], expected: &[&str]) {
    let text = said_by_one_that_fails(world, words, expected);
    assert_eq!(names(world), Vec::<String>::new(), "{text}");
}

#[track_caller]
fn said_by_one_that_fails(world: &World, words: &[&str], expected: &[&str]) -> String {
    let output = pull(world, words);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for word in expected {
        assert!(text.contains(word), "expected {word:?}: {text}");
    }
    text
}

fn store(world: &World) -> PathBuf {
    world.dir().join("state/images")
}

/// What the store's index.json has names for.
fn manifests(world: &World) -> Vec<Value> {
    let Ok(text) = fs::read(store(world).join("index.json")) else { return vec![] };
    let index: Value = serde_json::from_slice(&text).unwrap();
    index["manifests"].as_array().unwrap().clone()
}

fn names(world: &World) -> Vec<String> {
    manifests(world).iter().filter_map(|found| name_of(found).map(String::from)).collect()
}

fn name_of(manifest: &Value) -> Option<&str> {
    manifest["annotations"]["org.opencontainers.image.ref.name"].as_str()
}

/// What `name` means in the store.
fn called(world: &World, name: &str) -> Value {
    let all = manifests(world);
    let mut found = all.iter().filter(|found| name_of(found) == Some(name));
    assert_eq!(found.clone().count(), 1, "{name}: {all:?}");
    found.next().unwrap().clone()
}

fn files(dir: PathBuf) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return vec![] };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// All blobs of the layout are in the store, whole, and nothing half of one.
fn is_whole(world: &World, layout: &Layout) {
    let blobs = files(layout.dir.join("blobs/sha256"));
    assert!(!blobs.is_empty());
    for name in blobs {
        let here = fs::read(store(world).join("blobs/sha256").join(&name)).unwrap();
        assert!(here == fs::read(layout.dir.join("blobs/sha256").join(&name)).unwrap(), "{name}");
    }
    assert_eq!(files(store(world).join("partial")), Vec::<String>::new());
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_a_name_with_capitals_is_refused() {
    let world = World::new();
    for name in ["Alpine", "box.example/Web:1", "alpine:"] {
        fails(&world, &[name], &["the image name", name]);
    }
}

/// What a name means is in what is said when its registry cannot be reached: by way of a proxy
/// at a port where nobody listens.
#[test]
#[ignore = "privileged: make vm-test"]
fn task1_what_goes_without_saying_is_put_in() {
    let world = World::new();
    let digest = format!("sha256:{}", "0".repeat(64));
    let by_digest = [format!("alpine@{digest}"), format!("docker.io/library/alpine@{digest}: ")];
    let both = [format!("tom/web:1@{digest}"), format!("docker.io/tom/web:1@{digest}: ")];
    for (short, whole) in [
        ("alpine", "docker.io/library/alpine:latest: "),
        ("alpine:3.20", "docker.io/library/alpine:3.20: "),
        ("tom/web", "docker.io/tom/web:latest: "),
        ("index.docker.io/alpine", "docker.io/library/alpine:latest: "),
        ("box:5000", "docker.io/library/box:5000: "),
        ("box.example/web/of/tom:1", "box.example/web/of/tom:1: "),
        ("box:5000/web", "box:5000/web:latest: "),
        ("localhost/web", "localhost/web:latest: "),
        (&by_digest[0], &by_digest[1]),
        (&both[0], &both[1]),
    ] {
        let mut command = world.tiny_docker(["pull", short]);
        let output =
            command.env("HTTPS_PROXY", "http://127.0.0.1:1").env_remove("NO_PROXY").output().unwrap();
        let text = said(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(&format!("tiny-docker: {whole}")), "{short} is {whole}: {text}");
        // Docker Hub is one of its hosts by name, and another one on the network.
        let host = if whole.starts_with("docker.io/") { "registry-1.docker.io" } else { "" };
        assert!(text.contains(host), "{text}");
    }
    let bad = [
        "",
        "/web",
        "a//b",
        "alpine:",
        "alpine@latest",
        "../../etc",
        "a..b",
        "a-",
        "https://box.example/web",
    ];
    for name in bad {
        fails(&world, &[name], &[&format!("the image name {name:?}")]);
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_of_an_index_comes_the_image_for_this_platform() {
    let world = World::new();
    let mut layout = Layout::new(&world, "layout");
    let [arm64, amd64] = ["arm64", "amd64"]
        .map(|machine| layout.image_for(machine, &[layer(&layout, machine, 100)], json!({"Cmd": ["sh"]})));
    // Older variants of a processor run as well; the newest that runs is best.
    let [v5, v7] = ["v5", "v7"].map(|variant| {
        let mut arm = layout.image_for("arm", &[layer(&layout, variant, 100)], json!({"Cmd": ["sh"]}));
        arm["platform"]["variant"] = json!(variant);
        arm
    });
    let index = layout.index(&[v5, v7.clone(), arm64.clone(), amd64.clone()]);
    layout.tag("1", &index);
    let shelf = Shelf::open(&layout, |_| Answer::Honest);
    let name = shelf.name("web:1");
    fails(
        &world,
        &["--platform", "linux/s390x", &name],
        &["linux/s390x", "linux/arm/v7, linux/arm64, linux/amd64"],
    );
    pulls(&world, &["--platform", "linux/arm/v7", &name]);
    assert_eq!(called(&world, &name)["digest"], v7["digest"]);
    pulls(&world, &["--platform", "linux/arm64", &name]);
    assert_eq!(called(&world, &name)["digest"], arm64["digest"]);
    // Not the one that is here by now: it is for another machine.
    let text = pulls(&world, &[&name]);
    assert_eq!(called(&world, &name)["digest"], amd64["digest"]);
    // The name means the index there, and that is what people compare.
    assert!(text.contains(&format!("Digest: {}\n", index["digest"].as_str().unwrap())), "{text}");
    let by_digest = shelf.name(&format!("web@{}", index["digest"].as_str().unwrap()));
    pulls(&world, &[&by_digest]);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_an_index_may_lead_to_another() {
    let world = World::new();
    let mut layout = Layout::new(&world, "layout");
    let [arm64, amd64, s390x] = ["arm64", "amd64", "s390x"]
        .map(|machine| layout.image_for(machine, &[layer(&layout, machine, 100)], json!({"Cmd": ["sh"]})));
    let outer = layout.index(&[s390x.clone(), layout.index(&[arm64.clone(), amd64.clone()])]);
    layout.tag("1", &outer);
    let mut deep = amd64.clone();
    for _ in 0..7 {
        deep = layout.index(&[deep]);
    }
    layout.tag("deep", &deep);
    let shelf = Shelf::open(&layout, |_| Answer::Honest);
    let name = shelf.name("web:1");
    fails(&world, &[&shelf.name("web:deep")], &["its index leads to another"]);
    let text = pulls(&world, &[&name]);
    assert_eq!(called(&world, &name)["digest"], amd64["digest"]);
    assert!(text.contains(&format!("Digest: {}\n", outer["digest"].as_str().unwrap())), "{text}");
    assert!(pulls(&world, &[&name]).contains("Image is up to date"));
    for (platform, expected) in [("linux/arm64", &arm64), ("linux/s390x", &s390x)] {
        pulls(&world, &["--platform", platform, &name]);
        assert_eq!(called(&world, &name)["digest"], expected["digest"], "{platform}");
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_what_is_there_costs_one_question() {
    let world = World::new();
    let (layout, _) = three_layers(&world);
    let shelf = Shelf::open(&layout, |_| Answer::Honest);
    let text = pulls(&world, &[&shelf.name("web:1")]);
    assert!(text.contains("Pull complete") && text.contains("Status: Downloaded newer image"), "{text}");
    let asked = shelf.asked().len();
    let text = pulls(&world, &[&shelf.name("web:1")]);
    assert!(text.contains("Status: Image is up to date"), "{text}");
    assert_eq!(shelf.asked().len(), asked + 1, "{:?}", shelf.asked());
    // What a digest means never changes.
    let digest = manifests(&world)[0]["digest"].as_str().unwrap().to_string();
    pulls(&world, &[&shelf.name(&format!("web@{digest}"))]);
    let asked = shelf.asked().len();
    pulls(&world, &[&shelf.name(&format!("web@{digest}"))]);
    assert_eq!(shelf.asked().len(), asked);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_a_tag_that_moves_is_followed() {
    let world = World::new();
    let (layout, _) = three_layers(&world);
    let shelf = Shelf::open(&layout, |_| Answer::Honest);
    pulls(&world, &["-q", &shelf.name("web:1")]);
    let manifest = layout.image(&[layer(&layout, "new", 10)], json!({"Cmd": ["sh"]}));
    let mut moved = Layout::new(&world, "layout");
    moved.tag("1", &manifest);
    let text = pulls(&world, &["-q", &shelf.name("web:1")]);
    assert_eq!(text, format!("{}\n", shelf.name("web:1")));
    assert_eq!(called(&world, &shelf.name("web:1"))["digest"], manifest["digest"]);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_what_is_no_manifest_is_said_and_not_kept() {
    let world = World::new();
    let (layout, _) = three_layers(&world);
    let say = |kind: &str, body: &str| {
        Answer::Say("200 OK", vec![format!("Content-Type: {kind}")], body.as_bytes().to_vec())
    };
    let manifest = "application/vnd.oci.image.manifest.v1+json";
    let index = "application/vnd.oci.image.index.v1+json";
    let huge =
        Answer::Endless("200 OK", vec![format!("Content-Type: {index}"), "Content-Length: 104857600".into()]);
    let endless = Answer::Endless("200 OK", vec![format!("Content-Type: {index}")]);
    let chart = r#"{"schemaVersion": 2, "config": {"mediaType": "application/vnd.cncf.helm.config.v1+json",
        "digest": "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "size": 0}, "layers": []}"#;
    let long = format!("{{\"schemaVersion\": 2, \"config\": {}", "[".repeat(100_000));
    for (answer, expected) in [
        (say("text/html", "<html><body>Please log in to the hotel's network"), vec!["text/html", "<html>"]),
        (say(manifest, "<html>"), vec!["expected JSON", "<html>"]),
        (say(manifest, ""), vec!["expected JSON"]),
        (say(manifest, "{}"), vec!["expected JSON"]),
        (say(manifest, &long), vec!["expected JSON"]),
        (say(manifest, chart), vec!["no image", "helm"]),
        (say(index, r#"{"schemaVersion": 2, "manifests": []}"#), vec!["no image for"]),
        (say("application/vnd.docker.distribution.manifest.v1+prettyjws", "{}"), vec!["schema 1"]),
        (huge, vec!["longer than 4194304 bytes"]),
        (endless, vec!["longer than 4194304 bytes"]),
        (Answer::Say("404 Not Found", vec![], vec![]), vec!["no such image"]),
        (Answer::Say("418 I'm a teapot", vec![], vec![]), vec!["418"]),
        (Answer::Say("401 Unauthorized", vec![], vec![]), vec!["tiny-docker login"]),
        (Answer::Say("307 Temporary Redirect", vec!["Location: ftp://box/x".into()], vec![]), vec!["ftp://"]),
    ] {
        let shelf = Shelf::open(&layout, move |_| answer.clone());
        fails(&world, &[&shelf.name("web:1")], &[vec![shelf.name("web:1").as_str()], expected].concat());
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_nothing_else_comes_for_a_digest() {
    let world = World::new();
    let (layout, _) = three_layers(&world);
    let digest = format!("sha256:{}", "0".repeat(64));
    // Its header lies too.
    let shelf = Shelf::open(&layout, |_| {
        let kind = "Content-Type: application/vnd.oci.image.manifest.v1+json".into();
        let digest = format!("Docker-Content-Digest: sha256:{}", "0".repeat(64));
        Answer::Say("200 OK", vec![kind, digest], b"{}".to_vec())
    });
    fails(&world, &[&shelf.name(&format!("web@{digest}"))], &["not what was asked for", &digest]);
    fails(&world, &[&shelf.name("web:1")], &["not what was asked for"]);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_long_a_circle_and_a_silence_come_to_an_end() {
    let world = World::new();
    let (layout, _) = three_layers(&world);
    let shelf = Shelf::open(&layout, |asked| {
        let to = if asked.path.starts_with("/a") { "/b" } else { "/a" };
        Answer::Say("307 Temporary Redirect", vec![format!("Location: {to}")], vec![])
    });
    fails(&world, &[&shelf.name("web:1")], &["10 times"]);
    assert_eq!(shelf.asked().len(), 11);
    let shelf = Shelf::open(&layout, |_| Answer::Silent);
    fails(&world, &["--registry-timeout", "1", &shelf.name("web:1")], &["silent for too long"]);
    let shelf = Shelf::open(&layout, |asked| if asked.is_blob() { Answer::Stuck(5) } else { Answer::Honest });
    fails(&world, &["--registry-timeout", "1", &shelf.name("web:1")], &["silent for too long"]);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_credentials_stay_with_the_registry() {
    let world = World::new();
    let (layout, _) = three_layers(&world);
    let elsewhere = Shelf::open(&layout, |_| Answer::Honest);
    let there = elsewhere.address;
    let shelf = Shelf::open(&layout, move |asked| match asked.header("authorization") {
        None => Answer::Say("401 Unauthorized", vec!["WWW-Authenticate: Basic realm=\"x\"".into()], vec![]),
        Some(_) if asked.is_blob() => {
            let location = format!("Location: http://{there}{}", asked.path);
            Answer::Say("307 Temporary Redirect", vec![location], vec![])
        }
        Some(_) => Answer::Honest,
    });
    // tom:secret
    let config = json!({"auths": {shelf.address.to_string(): {"auth": "dG9tOnNlY3JldA=="}}});
    fs::write(world.dir().join("config.json"), config.to_string()).unwrap();
    let mut command = world.tiny_docker(["pull", &shelf.name("web:1")]);
    command.env("DOCKER_CONFIG", world.dir()).assert().success();
    is_whole(&world, &layout);
    let sent =
        |shelf: &Shelf| shelf.asked().iter().filter(|asked| asked.header("authorization").is_some()).count();
    assert!(sent(&shelf) >= 5, "{:?}", shelf.asked());
    assert!(elsewhere.asked().len() >= 4, "{:?}", elsewhere.asked());
    assert_eq!(sent(&elsewhere), 0, "{:?}", elsewhere.asked());
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_a_busy_registry_is_asked_again() {
    let world = World::new();
    let (layout, _) = three_layers(&world);
    let shelf = Shelf::open(&layout, |asked| match asked.before {
        0 => Answer::Say("429 Too Many Requests", vec!["Retry-After: 1".into()], vec![]),
        1 => Answer::Say("503 Service Unavailable", vec!["Retry-After: 0".into()], vec![]),
        _ => Answer::Honest,
    });
    pulls(&world, &[&shelf.name("web:1")]);
    is_whole(&world, &layout);
    // But not forever, and not in an hour.
    let busy = |wait: &'static str| {
        Answer::Say("429 Too Many Requests", vec![format!("Retry-After: {wait}")], vec![])
    };
    let other = World::dir(&world).join("other");
    for wait in ["0", "3600"] {
        let shelf = Shelf::open(&layout, move |_| busy(wait));
        let mut command =
            world.tiny_docker(["--root", other.to_str().unwrap(), "pull", &shelf.name("web:1")]);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert_eq!(shelf.asked().len(), if wait == "0" { 5 } else { 1 }, "{}", said(&output));
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_what_breaks_off_goes_on_from_there() {
    let world = World::new();
    let (layout, big) = three_layers(&world);
    let shelf = Shelf::open(&layout, move |asked| match asked.before {
        // More often than a blob may fail that makes no progress.
        0..5 if asked.path.contains(&big) => Answer::Cut(70_000),
        _ => Answer::Honest,
    });
    let output = pull(&world, &[&shelf.name("web:1")]);
    assert!(output.status.success(), "{}", said(&output));
    is_whole(&world, &layout);
    let ranges: Vec<_> =
        shelf.asked().iter().filter_map(|asked| asked.header("range").map(String::from)).collect();
    assert_eq!(ranges, ["bytes=70000-", "bytes=140000-", "bytes=210000-", "bytes=280000-", "bytes=350000-"]);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_a_terminal_shows_how_far_it_is() {
    let world = World::new();
    let (layout, big) = three_layers(&world);
    let shelf = Shelf::open(&layout, move |asked| match asked.before {
        0 if asked.path.contains(&big) => Answer::Cut(123_456),
        _ => Answer::Honest,
    });
    let mut terminal = AtTerminal::start(["pull", &shelf.name("web:1")]);
    terminal.shows("Downloading [=========>                     ] 123.5kB/");
    terminal.shows("trying again in 0.5 s");
    terminal.shows("Pull complete");
    terminal.shows("Status: Downloaded newer image");
    assert_eq!(terminal.ended(), 0);
    is_whole(&world, &layout);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_a_server_without_ranges_begins_anew() {
    let world = World::new();
    let (layout, big) = three_layers(&world);
    let shelf = Shelf::open(&layout, move |asked| match asked.before {
        0 if asked.path.contains(&big) => Answer::Cut(70_000),
        _ => Answer::Whole,
    });
    pulls(&world, &[&shelf.name("web:1")]);
    is_whole(&world, &layout);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_long_what_does_not_match_its_digest_is_not_kept() {
    let world = World::new();
    let (layout, big) = three_layers(&world);
    let path = layout.path(&big);
    for (spoil, expected) in [
        (|bytes: &mut Vec<u8>| bytes[1000] ^= 1, "digest"),
        (|bytes: &mut Vec<u8>| bytes.push(0), "more than the"),
        (|bytes: &mut Vec<u8>| bytes.truncate(1000), "hung up after 1000 of"),
        (|bytes: &mut Vec<u8>| bytes.clear(), "hung up after 0 of"),
    ] as [(fn(&mut Vec<u8>), &str); 4]
    {
        let mut bytes = fs::read(&path).unwrap();
        spoil(&mut bytes);
        let (digest, other) = (big.clone(), bytes.clone());
        let shelf = Shelf::open(&layout, move |asked| match asked.path.contains(&digest) {
            true => Answer::Say("200 OK", vec![], other.clone()),
            false => Answer::Honest,
        });
        fails(&world, &[&shelf.name("web:1")], &[expected]);
        assert!(!files(store(&world).join("blobs/sha256")).contains(&big[7..].to_string()));
    }
    // With an honest one it goes on.
    let shelf = Shelf::open(&layout, |_| Answer::Honest);
    pulls(&world, &[&shelf.name("web:1")]);
    is_whole(&world, &layout);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_a_beginning_that_is_wrong_is_loaded_anew() {
    let world = World::new();
    let (layout, big) = three_layers(&world);
    let digest = big.clone();
    let shelf = Shelf::open(&layout, move |asked| match asked.path.contains(&digest) {
        true => Answer::Cut(70_000),
        false => Answer::Honest,
    });
    let mut pull = start(&world, &shelf.name("web:1"));
    let partial = store(&world).join("partial").join(&big[7..]);
    until("some of it has come", || fs::metadata(&partial).is_ok_and(|found| found.len() >= 70_000));
    end(&mut pull, Signal::SIGKILL);
    // A power cut may leave zeros.
    let length = fs::metadata(&partial).unwrap().len();
    fs::write(&partial, vec![0; length as usize]).unwrap();
    let shelf = Shelf::open(&layout, |_| Answer::Honest);
    pulls(&world, &[&shelf.name("web:1")]);
    is_whole(&world, &layout);
}

fn start(world: &World, name: &str) -> Child {
    let mut command = Command::new(binary());
    command.args(["pull", name]).current_dir(world.dir());
    // What it complains of is what a test that fails shows.
    command.stdout(Stdio::null()).spawn().unwrap()
}

fn end(pull: &mut Child, signal: Signal) {
    kill(Pid::from_raw(pull.id() as i32), signal).unwrap();
    assert_eq!(pull.wait().unwrap().signal(), Some(signal as i32));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_whoever_ends_a_pull_leaves_a_beginning_for_the_next() {
    for signal in [Signal::SIGINT, Signal::SIGKILL] {
        let world = World::new();
        let (layout, big) = three_layers(&world);
        let digest = big.clone();
        let stuck = Shelf::open(&layout, move |asked| match asked.path.contains(&digest) {
            true => Answer::Stuck(123_456),
            false => Answer::Honest,
        });
        let mut pull = start(&world, &stuck.name("web:1"));
        let partial = store(&world).join("partial").join(&big[7..]);
        until("some of it has come", || fs::metadata(&partial).is_ok_and(|found| found.len() == 123_456));
        end(&mut pull, signal);
        assert_eq!(names(&world), Vec::<String>::new());
        let shelf = Shelf::open(&layout, |_| Answer::Honest);
        pulls(&world, &[&shelf.name("web:1")]);
        is_whole(&world, &layout);
        let is_rest = |asked: &Asked| asked.header("range") == Some("bytes=123456-");
        assert_eq!(shelf.asked().iter().filter(|asked| is_rest(asked)).count(), 1, "{:?}", shelf.asked());
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_two_pulls_at_once_load_it_once() {
    let world = World::new();
    let (layout, big) = three_layers(&world);
    let digest = big.clone();
    let shelf = Shelf::open(&layout, move |asked| {
        // The second one is to come while the first one loads.
        if asked.path.contains(&digest) {
            std::thread::sleep(Duration::from_secs(1));
        }
        Answer::Honest
    });
    let mut both = [start(&world, &shelf.name("web:1")), start(&world, &shelf.name("web:1"))];
    for pull in &mut both {
        assert!(pull.wait().unwrap().success());
    }
    is_whole(&world, &layout);
    let loaded = shelf.asked().iter().filter(|asked| asked.path.contains(&big)).count();
    assert_eq!(loaded, 1, "{:?}", shelf.asked());
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_a_layer_that_is_there_is_not_loaded_again() {
    let world = World::new();
    let (mut layout, _) = three_layers(&world);
    let shelf = Shelf::open(&layout, |_| Answer::Honest);
    pulls(&world, &[&shelf.name("web:1")]);
    let shared: Vec<_> = [("a", 1000), ("c", 2000)].map(|(name, size)| layer(&layout, name, size)).into();
    let manifest =
        layout.image(&[shared[0].clone(), layer(&layout, "more", 50), shared[1].clone()], json!({}));
    layout.tag("2", &manifest);
    let asked = shelf.asked().len();
    let text = pulls(&world, &[&shelf.name("web:2")]);
    assert_eq!(text.matches("Already exists").count(), 2, "{text}");
    let blobs = shelf.asked()[asked..].iter().filter(|asked| asked.is_blob()).count();
    assert_eq!(blobs, 2, "its configuration and one layer: {:?}", &shelf.asked()[asked..]);
}
