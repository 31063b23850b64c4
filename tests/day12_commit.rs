//! Day 12: a container becomes an image.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::layout::{Layout, Packed, tar_of, tar_with};
use common::registry::run;
use common::tree::{same_trees, tree};
use common::{World, busybox, said};
use serde_json::{Value, json};

/// `lab/base:v1`: busybox, and something to take away.
fn base(world: &World) {
    let mut layout = Layout::new(world, "layout");
    let files: &[(&str, u32, &[u8])] = &[
        ("srv/", 0o755, b""),
        ("srv/gone", 0o644, b"gone\n"),
        ("srv/full/", 0o755, b""),
        ("srv/full/old", 0o644, b"old\n"),
        ("srv/changed", 0o644, b"before\n"),
    ];
    let layers =
        [layout.layer(&tar_of(&busybox()), Packed::Gzip), layout.layer(&tar_with(files), Packed::Gzip)];
    let config = json!({"Cmd": ["sh"], "Env": ["A=1"], "Healthcheck": {"Test": ["NONE"]}});
    let manifest = layout.image(&layers, config);
    layout.tag("docker.io/lab/base:v1", &manifest);
    let path = world.dir().join("base.tar");
    fs::write(&path, tar_of(&layout.dir)).unwrap();
    let output = world.tiny_docker([Path::new("load"), Path::new("-i"), &path]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

#[track_caller]
fn says(world: &World, words: &[&str]) -> String {
    let output = world.tiny_docker(words).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn inspected(world: &World, image: &str) -> Value {
    let text = says(world, &["image", "inspect", image]);
    serde_json::from_str::<Value>(&text).unwrap()[0].clone()
}

/// The uppermost layer of an image, unpacked.
fn top(world: &World, image: &str) -> PathBuf {
    let diff_ids = inspected(world, image)["RootFS"]["Layers"].as_array().unwrap().clone();
    world.dir().join("state/images/layers").join(&diff_ids.last().unwrap().as_str().unwrap()[7..])
}

const SCRIPT: &str = "cd /srv && rm gone && rm -r full && mkdir full && echo new >full/new && echo after >changed && \
    chown 12:34 changed && chmod 4711 changed && touch -d '2001-02-03 04:05:06' changed && ln changed also && \
    mkfifo pipe && ln -s /nowhere link && mkdir -m 1770 sticky && mknod null c 1 3 && \
    (timeout 1 nc -l -U /srv/socket 2>/dev/null || true) && touch \"$(printf 'no\\377utf8')\"";

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_the_layer_is_what_the_container_wrote() {
    let world = World::new();
    base(&world);
    says(&world, &["run", "--net", "none", "--name", "work", "--image", "lab/base:v1", "sh", "-ec", SCRIPT]);
    let id = world.inspect("work")["id"].as_str().unwrap().to_string();
    let upper = world.containers().join(id).join("layer/upper");
    // A socket of the host's making, for busybox may have none.
    let _ = std::os::unix::net::UnixListener::bind(upper.join("srv/own-socket"));
    let (before, commit) = (tree(&upper), says(&world, &["commit", "work", "lab/new"]));
    assert!(commit.starts_with("sha256:") && commit.len() == 72, "{commit}");
    assert_eq!(tree(&upper), before, "the container's layer was changed");
    let layer = top(&world, "lab/new");
    let is_socket =
        |name: &str| fs::symlink_metadata(upper.join(name)).is_ok_and(|it| it.file_type().is_socket());
    // When something went is not what an image says.
    let without_times = |tree: BTreeMap<String, String>| {
        let facts = |facts: String| if facts.ends_with("device 0x0") { "a whiteout".into() } else { facts };
        tree.into_iter().map(|(name, of)| (name, facts(of))).collect::<BTreeMap<_, _>>()
    };
    let expected = before.into_iter().filter(|(name, _)| !is_socket(name)).collect();
    same_trees(&without_times(tree(&layer)), &without_times(expected), "the layer");
    let gone = fs::symlink_metadata(layer.join("srv/gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    let mut opaque = [0; 4];
    assert_eq!(
        rustix::fs::lgetxattr(layer.join("srv/full"), "trusted.overlay.opaque", &mut opaque[..]),
        Ok(1)
    );
    // And a container of it sees what the first one saw.
    let look = "cd /srv && ls && cat full/* changed && stat -c '%a %u:%g %h %Y' changed";
    let seen = says(&world, &["run", "--rm", "--net", "none", "--image", "lab/new", "sh", "-c", look]);
    assert!(!seen.contains("gone") && !seen.contains("old") && !seen.contains("socket"), "{seen}");
    assert!(seen.contains("new\nafter\n4711 12:34 2 981173106\n"), "{seen}");
    // The same container makes the same layer.
    says(&world, &["commit", "work", "lab/again"]);
    assert_eq!(top(&world, "lab/again"), layer);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_the_configuration_says_what_it_said_and_what_is_new() {
    let world = World::new();
    base(&world);
    says(
        &world,
        &["run", "--net", "none", "--name", "work", "--image", "lab/base:v1", "sh", "-c", "echo x >/srv/x"],
    );
    let words = [
        "commit",
        "-a",
        "Tom",
        "-m",
        "one file more",
        "-c",
        r#"CMD ["cat", "/srv/x"]"#,
        "-c",
        "ENV B=2",
        "-c",
        "EXPOSE 80",
        "-c",
        "LABEL team=lab",
        "-c",
        "WORKDIR /srv",
        "work",
        "lab/new:v2",
    ];
    let id = says(&world, &words);
    let config = &inspected(&world, "lab/new:v2");
    assert_eq!(config["Id"], id.trim());
    assert_eq!(config["Author"], "Tom");
    assert_eq!(config["Config"]["Cmd"], json!(["cat", "/srv/x"]));
    assert_eq!(config["Config"]["Env"], json!(["A=1", "B=2"]));
    assert_eq!(config["Config"]["WorkingDir"], "/srv");
    assert_eq!(config["Config"]["ExposedPorts"], json!({"80/tcp": {}}));
    assert_eq!(config["RootFS"]["Layers"].as_array().unwrap().len(), 3);
    let history = says(&world, &["history", "--no-trunc", "lab/new:v2"]);
    let first = history.lines().nth(1).unwrap();
    assert!(first.contains("echo x >/srv/x") && first.contains("one file more"), "{history}");
    assert_eq!(says(&world, &["run", "--rm", "--net", "none", "--image", "lab/new:v2"]), "x\n");
    // skopeo reads it, and finds what we know nothing of.
    let store = world.dir().join("state/images");
    let read = run(Command::new("skopeo")
        .args(["inspect", "--config"])
        .arg(format!("oci:{}:docker.io/lab/new:v2", store.display())));
    let read: Value = serde_json::from_slice(&read).unwrap();
    assert_eq!(read["history"].as_array().unwrap().len(), 3);
    let raw = fs::read_to_string(store.join("blobs/sha256").join(&id.trim()[7..])).unwrap();
    assert!(raw.contains("Healthcheck"), "what we do not know was dropped: {raw}");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_what_cannot_be_an_image_says_why() {
    let world = World::new();
    base(&world);
    let fails = |words: &[&str], expected: &str| {
        let output = world.tiny_docker(words).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{words:?}: {}", said(&output));
        assert!(said(&output).contains(expected), "{words:?}: {}", said(&output));
    };
    let rootfs = busybox();
    says(&world, &["run", "--net", "none", "--name", "plain", "--rootfs", rootfs.to_str().unwrap(), "true"]);
    fails(&["commit", "plain", "lab/new"], "not of an image");
    fails(&["commit", "nothing", "lab/new"], "no such container");
    let script = "echo x >/srv/.wh.changed";
    says(&world, &["run", "--net", "none", "--name", "marked", "--image", "lab/base:v1", "sh", "-c", script]);
    fails(&["commit", "marked", "lab/new"], ".wh.");
    fails(&["commit", "marked", "Lab/New"], "Lab/New");
    let output = world.tiny_docker(["commit", "-c", "RUN ls", "marked"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert_eq!(fs::read_dir(world.dir().join("state/images/aside")).unwrap().count(), 0);
    assert!(!says(&world, &["images"]).contains("lab/new"));
    // Nothing was written: no layer more, and a name is not needed.
    says(&world, &["run", "--net", "none", "--name", "idle", "--image", "lab/base:v1", "true"]);
    let id = says(&world, &["commit", "idle"]);
    let layers = inspected(&world, id.trim())["RootFS"]["Layers"].as_array().unwrap().len();
    assert!(layers <= 3, "{layers}");
    assert!(says(&world, &["images"]).contains("<none>"));
}
