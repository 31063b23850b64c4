//! Day 12: the store: what is there is whole, has a name, and is there once.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use common::layout::{Layout, Packed, sha256, tar_of, tar_with};
use common::registry::run;
use common::{World, busybox, said, until};
use serde_json::{Value, json};

fn images(world: &World) -> PathBuf {
    world.dir().join("state/images")
}

/// A layout with `lab/x:v1`, busybox, and `lab/y:v1`, which has a layer more; and its archive.
fn two_images(world: &World) -> (Layout, PathBuf) {
    let mut layout = Layout::new(world, "layout");
    let below = layout.layer(&tar_of(&busybox()), Packed::Gzip);
    let above = layout.layer(&tar_with(&[("srv/", 0o755, b""), ("srv/own", 0o644, b"own\n")]), Packed::Gzip);
    let (x, y) = (
        layout.image(std::slice::from_ref(&below), json!({"Cmd": ["sh"]})),
        layout.image(&[below, above], json!({"Cmd": ["cat", "/srv/own"], "Labels": {"team": "lab"}})),
    );
    layout.tag("docker.io/lab/x:v1", &x);
    layout.tag("docker.io/lab/y:v1", &y);
    let path = world.dir().join("images.tar");
    fs::write(&path, tar_of(&layout.dir)).unwrap();
    (layout, path)
}

/// Loads an archive, which must succeed.
#[track_caller]
fn loaded(world: &World, path: &Path) {
    let output = load(world, path);
    assert!(output.status.success(), "{}", said(&output));
}

fn load(world: &World, path: &Path) -> Output {
    world.tiny_docker([Path::new("load"), Path::new("-i"), path]).output().unwrap()
}

/// What a command prints, which must succeed.
#[track_caller]
fn says(world: &World, words: &[&str]) -> String {
    let output = world.tiny_docker(words).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn fails(world: &World, words: &[&str], expected: &[&str]) {
    let output = world.tiny_docker(words).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{words:?}: {}", said(&output));
    for word in expected {
        assert!(said(&output).contains(word), "{words:?}: expected {word:?}: {}", said(&output));
    }
}

fn names_in(dir: PathBuf) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The unpacked layers, by their digests.
fn layers(world: &World) -> Vec<String> {
    names_in(images(world).join("layers")).into_iter().filter(|name| name.len() == 64).collect()
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_the_store_is_a_layout_that_other_tools_read() {
    let world = World::new();
    let (_, path) = two_images(&world);
    let output = load(&world, &path);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "Loaded image: lab/x:v1\nLoaded image: lab/y:v1\n",
        "{}",
        said(&output)
    );
    let store = images(&world);
    for name in ["x", "y"] {
        let inspected = run(Command::new("skopeo")
            .args(["inspect", "--config"])
            .arg(format!("oci:{}:docker.io/lab/{name}:v1", store.display())));
        let config: Value = serde_json::from_slice(&inspected).unwrap();
        assert_eq!(config["rootfs"]["type"], "layers");
    }
    let tags = String::from_utf8(run(Command::new("umoci").arg("ls").arg("--layout").arg(&store))).unwrap();
    assert!(tags.contains("lab/x:v1") && tags.contains("lab/y:v1"), "{tags}");
    // Every file is what its name says.
    for name in names_in(store.join("blobs/sha256")) {
        let bytes = fs::read(store.join("blobs/sha256").join(&name)).unwrap();
        assert_eq!(sha256(&bytes), format!("sha256:{name}"));
    }
    assert_eq!(layers(&world).len(), 2, "the layer that both have is there once");
    // Nobody but root looks in.
    assert_eq!(fs::metadata(&store).unwrap().mode() & 0o777, 0o700);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_images_are_listed_and_shown_in_dockers_words() {
    let world = World::new();
    assert_eq!(says(&world, &["images"]), "REPOSITORY   TAG   IMAGE ID   CREATED   SIZE\n");
    let (_, path) = two_images(&world);
    loaded(&world, &path);
    let list = says(&world, &["images"]);
    let head: Vec<_> =
        list.lines().next().unwrap().split("  ").map(str::trim).filter(|word| !word.is_empty()).collect();
    assert_eq!(head, ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]);
    let shown: Value = serde_json::from_str(&says(&world, &["image", "inspect", "lab/y:v1"])).unwrap();
    let image = &shown[0];
    let id = image["Id"].as_str().unwrap();
    assert!(list.contains(&format!("lab/y        v1    {}", &id[7..19])), "{list}");
    assert_eq!(image["RepoTags"], json!(["lab/y:v1"]));
    assert_eq!((&image["Architecture"], &image["Os"]), (&json!("amd64"), &json!("linux")));
    assert_eq!(image["Config"]["Cmd"], json!(["cat", "/srv/own"]));
    assert_eq!(image["Config"]["Labels"], json!({"team": "lab"}));
    assert_eq!(image["RootFS"]["Layers"].as_array().unwrap().len(), 2);
    let history = says(&world, &["history", "lab/y:v1"]);
    assert!(history.starts_with("IMAGE ") && history.lines().count() == 3, "{history}");
    assert!(history.lines().nth(1).unwrap().contains("step 2") && history.contains(" 4B"), "{history}");
    // An id, the beginning of one, and with its algorithm.
    for word in [id, &id[7..], &id[7..15]] {
        let again: Value = serde_json::from_str(&says(&world, &["image", "inspect", word])).unwrap();
        assert_eq!(&again[0], image);
    }
    assert_eq!(says(&world, &["images", "-q", "lab/y"]), format!("{}\n", &id[7..19]));
    assert_eq!(says(&world, &["images", "-q", "lab/nothing"]), "");
    let lines = says(&world, &["images", "--format", "json"]);
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert!(first["Repository"].as_str().unwrap().starts_with("lab/"), "{first}");
    fails(&world, &["image", "inspect", "nothing"], &["no such image"]);
    fails(&world, &["history", "nothing"], &["no such image"]);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_a_tag_is_a_name_and_the_last_one_keeps_the_image() {
    let world = World::new();
    let (_, path) = two_images(&world);
    loaded(&world, &path);
    says(&world, &["tag", "lab/x:v1", "box.example:5000/mine"]);
    let list = says(&world, &["images"]);
    assert!(list.contains("box.example:5000/mine   latest"), "{list}");
    fails(&world, &["tag", "lab/x:v1", "Wrong Name"], &["Wrong Name"]);
    fails(&world, &["tag", "nothing", "lab/z"], &["no such image"]);

    let id = says(&world, &["images", "-q", "lab/x"]).trim().to_string();
    fails(&world, &["rmi", &id], &["several names", "-f"]);
    assert_eq!(says(&world, &["rmi", "lab/x:v1"]), "Untagged: lab/x:v1\n", "it has another name");
    let gone = says(&world, &["rmi", "box.example:5000/mine"]);
    assert!(gone.starts_with("Untagged: box.example:5000/mine:latest\nDeleted: sha256:"), "{gone}");
    assert_eq!(layers(&world).len(), 2, "the other image needs both layers");
    fails(&world, &["rmi", "lab/x:v1"], &["no such image"]);
    world.tiny_docker(["rmi", "-f", "lab/x:v1"]).assert().success();

    // A name that moves to another image leaves the old one without any.
    loaded(&world, &path);
    says(&world, &["tag", "lab/y:v1", "lab/x:v1"]);
    assert!(says(&world, &["images"]).contains("<none>"), "the old one is still there");
    let pruned = says(&world, &["image", "prune", "-f"]);
    assert!(pruned.contains("deleted: sha256:") && pruned.contains("Total reclaimed space: "), "{pruned}");
    assert!(!says(&world, &["images"]).contains("<none>"));
    says(&world, &["image", "prune", "-a", "-f"]);
    for dir in ["blobs/sha256", "layers", "aside", "partial"] {
        assert_eq!(names_in(images(&world).join(dir)), Vec::<String>::new(), "{dir}");
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_prune_asks() {
    let world = World::new();
    let (_, path) = two_images(&world);
    loaded(&world, &path);
    let ask = |answer: &'static str| {
        let output = world.tiny_docker(["image", "prune", "-a"]).write_stdin(answer).output().unwrap();
        assert!(output.status.success() && said(&output).contains("[y/N]"), "{}", said(&output));
    };
    ask("n\n");
    assert_eq!(layers(&world).len(), 2);
    ask("y\n");
    assert_eq!(layers(&world).len(), 0);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_what_a_container_needs_stays() {
    let world = World::new();
    let (_, path) = two_images(&world);
    loaded(&world, &path);
    let run = ["run", "--net", "none", "--name", "user", "--image", "lab/y:v1"];
    assert_eq!(says(&world, &run), "own\n");
    fails(&world, &["rmi", "lab/y:v1"], &["user", "-f"]);
    // A container has one of its layers, but is not of it.
    says(&world, &["rmi", "lab/x:v1"]);
    let forced = says(&world, &["rmi", "-f", "lab/y:v1"]);
    assert!(forced.contains("Untagged: lab/y:v1"), "{forced}");
    says(&world, &["image", "prune", "-a", "-f"]);
    assert_eq!(layers(&world).len(), 2, "the container's root is gone");
    world.remove_all();
    says(&world, &["image", "prune", "-f"]);
    assert_eq!(layers(&world).len(), 0);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_saved_images_are_read_by_others_and_by_us() {
    let world = World::new();
    let (_, path) = two_images(&world);
    loaded(&world, &path);
    let ids = says(&world, &["images", "-q", "--no-trunc"]);
    // Through a pipe, both of them.
    let both = world.tiny_docker(["save", "lab/x:v1", "lab/y:v1"]).output().unwrap();
    assert!(both.status.success(), "{}", said(&both));
    let again = world.tiny_docker(["save", "lab/x:v1", "lab/y:v1"]).output().unwrap();
    assert_eq!(sha256(&both.stdout), sha256(&again.stdout), "the same images make the same archive");
    says(&world, &["image", "prune", "-af"]);
    assert_eq!(says(&world, &["images", "-q"]), "");
    let mut zipped = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    std::io::Write::write_all(&mut zipped, &both.stdout).unwrap();
    let loaded = world.tiny_docker(["load"]).write_stdin(zipped.finish().unwrap()).output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&loaded.stdout),
        "Loaded image: lab/x:v1\nLoaded image: lab/y:v1\n",
        "{}",
        said(&loaded)
    );
    assert_eq!(says(&world, &["images", "-q", "--no-trunc"]), ids);

    // One of them, as a file: skopeo reads it in both ways, and writes what we read.
    let file = world.dir().join("y.tar");
    says(&world, &["save", "-o", file.to_str().unwrap(), "lab/y:v1"]);
    let skopeo = || {
        let mut skopeo = Command::new("skopeo");
        skopeo.env("TMPDIR", world.dir());
        skopeo
    };
    for kind in ["oci-archive", "docker-archive"] {
        let read = run(skopeo().args(["inspect", "--config"]).arg(format!("{kind}:{}", file.display())));
        let config: Value = serde_json::from_slice(&read).unwrap();
        assert_eq!(config["config"]["Cmd"], json!(["cat", "/srv/own"]), "{kind}");
    }
    let docker = world.dir().join("docker.tar");
    let from = format!("oci:{}:docker.io/lab/y:v1", images(&world).display());
    run(skopeo()
        .args(["copy", "--quiet", &from])
        .arg(format!("docker-archive:{}:lab/from-docker:v2", docker.display())));
    let output = load(&world, &docker);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "Loaded image: lab/from-docker:v2\n",
        "{}",
        said(&output)
    );
    assert_eq!(says(&world, &["run", "--rm", "--net", "none", "--image", "lab/from-docker:v2"]), "own\n");
    fails(&world, &["save", "nothing"], &["no such image"]);
    fails(&world, &["save", "-o", "no/such/dir/x.tar", "lab/y:v1"], &["no/such/dir"]);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_long_a_damaged_archive_is_refused_whole() {
    let world = World::new();
    let (layout, _) = two_images(&world);
    let path = world.dir().join("damaged.tar");
    let blobs: Vec<_> =
        fs::read_dir(layout.dir.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path()).collect();
    for blob in &blobs {
        let whole = fs::read(blob).unwrap();
        for damage in ["changed", "missing", "shorter"] {
            let mut bytes = whole.clone();
            let middle = bytes.len() / 2;
            match damage {
                "changed" => bytes[middle] ^= 1,
                "shorter" => bytes.truncate(middle),
                _ => {}
            }
            fs::write(blob, &bytes).unwrap();
            if damage == "missing" {
                fs::remove_file(blob).unwrap();
            }
            fs::write(&path, tar_of(&layout.dir)).unwrap();
            let output = load(&world, &path);
            assert_eq!(output.status.code(), Some(1), "{blob:?} {damage}: {}", said(&output));
            assert_eq!(says(&world, &["images", "-q"]), "", "{blob:?} {damage}");
            assert_eq!(names_in(images(&world).join("aside")), Vec::<String>::new());
            fs::write(blob, &whole).unwrap();
            says(&world, &["image", "prune", "-f"]);
        }
    }
    for (what, bytes) in [
        ("nothing", vec![]),
        ("a text", b"hello".repeat(1000)),
        ("another archive", tar_with(&[("a", 0o644, b"a")])),
    ] {
        fs::write(&path, &bytes).unwrap();
        let output = load(&world, &path);
        assert_eq!(output.status.code(), Some(1), "{what}: {}", said(&output));
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_a_manifest_that_lies_harms_no_other_image() {
    let world = World::new();
    let (layout, path) = two_images(&world);
    loaded(&world, &path);
    let before = names_in(images(&world).join("blobs/sha256"));
    // A layer of another image, and a wrong length of it.
    let mut liar = Layout::new(&world, "liar");
    let mut layer = liar.layer(&tar_of(&busybox()), Packed::Gzip);
    let size = layer.descriptor["size"].as_u64().unwrap();
    layer.descriptor["size"] = json!(size + 1);
    let manifest = liar.image(&[layer], json!({}));
    liar.tag("docker.io/lab/liar:v1", &manifest);
    let archive = world.dir().join("liar.tar");
    fs::write(&archive, tar_of(&liar.dir)).unwrap();
    let output = load(&world, &archive);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("a manifest says"), "{}", said(&output));
    says(&world, &["image", "prune", "-f"]);
    assert_eq!(names_in(images(&world).join("blobs/sha256")), before);
    drop(layout);

    // An image that cannot be read any more can still be removed.
    let shown: Value = serde_json::from_str(&says(&world, &["image", "inspect", "lab/x:v1"])).unwrap();
    let config = images(&world).join("blobs/sha256").join(&shown[0]["Id"].as_str().unwrap()[7..]);
    fs::write(&config, "damaged").unwrap();
    let list = world.tiny_docker(["images"]).output().unwrap();
    assert!(said(&list).contains("lab/x") && said(&list).contains("is skipped"), "{}", said(&list));
    says(&world, &["rmi", "lab/x:v1"]);
    let list = world.tiny_docker(["images"]).output().unwrap();
    assert!(!said(&list).contains("lab/x") && said(&list).contains("lab/y"), "{}", said(&list));
}

/// Leaves what a power cut does: a note of an earlier boot about this file or layer.
fn note(world: &World, kind: &str, hex: &str) {
    let boot = "00000000-0000-0000-0000-000000000000";
    fs::write(images(world).join("unflushed").join(format!("{boot}.{kind}.{hex}")), "").unwrap();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_after_a_power_cut_nothing_half_is_taken_for_whole() {
    let world = World::new();
    let (_, path) = two_images(&world);
    loaded(&world, &path);
    let store = images(&world);
    // What was added is on its way to the disk; then nothing is noted any more.
    until("it is on the disk", || names_in(store.join("unflushed")).is_empty());
    let (blobs, unpacked) = (names_in(store.join("blobs/sha256")), layers(&world));
    for name in &blobs {
        note(&world, "blob", name);
    }
    // The largest has its length, and not all of its data: as some file systems leave it.
    let largest =
        blobs.iter().max_by_key(|name| fs::metadata(store.join("blobs/sha256").join(name)).unwrap().len());
    let file = store.join("blobs/sha256").join(largest.unwrap());
    let mut bytes = fs::read(&file).unwrap();
    let half = bytes.len() / 2;
    bytes[half..].fill(0);
    fs::write(&file, &bytes).unwrap();
    note(&world, "layer", &unpacked[0]);
    let damaged = store.join("layers").join(&unpacked[0]);
    fs::write(damaged.join("half"), "").unwrap();

    says(&world, &["images"]);
    assert!(!file.exists(), "half a file was taken for whole");
    assert!(!damaged.exists(), "half a layer was taken for whole");
    assert_eq!(names_in(store.join("blobs/sha256")).len(), blobs.len() - 1, "the others were whole");
    assert_eq!(layers(&world).len(), unpacked.len() - 1);
    assert!(names_in(store.join("unflushed")).iter().all(|name| !name.starts_with("00000000")));
    // What is missing comes again.
    loaded(&world, &path);
    assert_eq!((names_in(store.join("blobs/sha256")), layers(&world)), (blobs, unpacked));
    assert!(!damaged.join("half").exists());
    assert_eq!(says(&world, &["run", "--rm", "--net", "none", "--image", "lab/y:v1"]), "own\n");

    // The newest index.json is lost: the one before counts.
    says(&world, &["tag", "lab/x:v1", "lab/x:v2"]);
    fs::write(store.join("index.json"), "").unwrap();
    let list = says(&world, &["images"]);
    assert!(list.contains("lab/x") && list.contains("lab/y"), "{list}");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_long_whoever_removes_leaves_alone_what_is_being_added() {
    let world = World::new();
    let (_, path) = two_images(&world);
    loaded(&world, &path);
    // A load that is held up before its images have names.
    let mut found = false;
    for moment in (5..60).rev() {
        let mut command = Command::new(common::binary());
        command.arg("load").arg("-i").arg(&path).env("TINY_DOCKER_STOP_AT", format!("parent:{moment}"));
        command.env("TINY_DOCKER_ROOT", world.dir().join("other")).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        let stat = format!("/proc/{}/stat", child.id());
        let state =
            || fs::read_to_string(&stat).map(|text| text.rsplit_once(") ").unwrap().1[..1].to_string());
        until("it is held up, or has ended", || matches!(state().as_deref(), Ok("T" | "Z") | Err(_)));
        // Not while it writes index.json: others who want to write that wait.
        let writes = world.dir().join("other/images/index.lock").exists();
        if !writes && state().is_ok_and(|state| state == "T") {
            let other = |words: &[&str]| {
                let mut command = world.tiny_docker(words);
                let output = command.env("TINY_DOCKER_ROOT", world.dir().join("other")).output().unwrap();
                assert!(output.status.success(), "{}", said(&output));
                said(&output)
            };
            let before = names_in(world.dir().join("other/images/blobs/sha256"));
            let text = other(&["image", "prune", "-af"]);
            assert_eq!(names_in(world.dir().join("other/images/blobs/sha256")), before, "{moment}: {text}");
            assert!(text.contains("just now"), "{text}");
            nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(child.id() as i32),
                nix::sys::signal::Signal::SIGCONT,
            )
            .unwrap();
            assert!(child.wait().unwrap().success());
            other(&["rmi", "lab/x:v1", "lab/y:v1"]);
            found = true;
            break;
        }
        let _ = child.kill();
        child.wait().unwrap();
        let _ = fs::remove_dir_all(world.dir().join("other"));
    }
    assert!(found, "no moment was found at which a load holds the store");
}
