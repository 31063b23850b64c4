//! Day 12: the way of an image from a registry into a container and back, and what other tools
//! make of the same image.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::layout::{Layout, Packed, tar_of, tar_with};
use common::random::random_image;
use common::registry::{ADDRESS, Door, PASSWORD, Registry, USER, run};
use common::tree::{same_trees, tree};
use common::{World, busybox, in_the_vm, said};
use serde_json::{Value, json};

/// How many random images: in the emulated guest a few, for the tools that ours is compared with
/// are slow there.
fn how_many() -> u64 {
    let asked = std::env::var("TINY_DOCKER_IMAGES").ok().and_then(|text| text.parse().ok());
    asked.unwrap_or(if in_the_vm() { 8 } else { 30 })
}

/// A directory with other directories mounted on it, for as long as this value lives.
struct Mounted(PathBuf);

impl Mounted {
    /// The image's layers, as they are unpacked in the store, one on top of the other.
    fn image(world: &World, manifest: &Path) -> Mounted {
        let read = |path: &Path| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
        let blobs = manifest.parent().unwrap();
        let hex = |digest: &Value| digest.as_str().unwrap()["sha256:".len()..].to_string();
        let config = read(&blobs.join(hex(&read(manifest)["config"]["digest"])));
        let layers = world.dir().join("state/images/layers");
        let mut dirs: Vec<String> = Vec::new();
        for diff_id in config["rootfs"]["diff_ids"].as_array().unwrap().iter().rev() {
            let dir = layers.join(hex(diff_id));
            assert!(dir.is_dir(), "{dir:?} is not unpacked");
            dirs.push(dir.display().to_string());
        }
        dirs.dedup();
        // The kernel wants two at least, where nothing can be written.
        let nothing = world.dir().join("nothing");
        fs::create_dir_all(&nothing).unwrap();
        dirs.push(nothing.display().to_string());
        let place = world.dir().join("mounted");
        fs::create_dir_all(&place).unwrap();
        let options = format!("ro,lowerdir={}", dirs.join(":"));
        run(Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(&place));
        Mounted(place)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = nix::mount::umount(&self.0);
    }
}

/// What umoci makes of `oci:DIR:TAG`.
fn unpacked_by_umoci(world: &World, layout: &Path, tag: &str) -> BTreeMap<String, String> {
    let dir = world.dir().join("by-umoci");
    let image = format!("{}:{tag}", layout.display());
    run(Command::new("umoci").args(["raw", "unpack", "--image", &image]).arg(&dir));
    let found = tree(&dir);
    fs::remove_dir_all(&dir).unwrap();
    found
}

/// podman, with all that it keeps in the test's directory.
fn podman(world: &World, words: &[&str]) -> Vec<u8> {
    let dir = world.dir().join("podman");
    fs::create_dir_all(&dir).unwrap();
    let mut podman = Command::new("podman");
    podman.env("TMPDIR", &dir).env("HOME", &dir).env("XDG_RUNTIME_DIR", &dir);
    podman.arg("--root").arg(dir.join("root")).arg("--runroot").arg(dir.join("run"));
    podman.arg("--tmpdir").arg(dir.join("tmp"));
    podman.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "none"]);
    let output = run(podman.args(words));
    // crun's own directory, which podman cannot be told to have elsewhere: if it is empty.
    let _ = fs::remove_dir("/run/crun");
    output
}

/// Copies an image into podman's store; its id there.
fn into_podman(world: &World, image: &str) -> String {
    let archive = world.dir().join("for-podman.tar");
    let _ = fs::remove_file(&archive);
    let to = format!("oci-archive:{}:lab/copy:v1", archive.display());
    run(Command::new("skopeo").env("TMPDIR", world.dir()).args(["copy", "--quiet", image, &to]));
    podman(world, &["load", "--quiet", "--input", archive.to_str().unwrap()]);
    let id = podman(world, &["images", "--quiet", "lab/copy:v1"]);
    String::from_utf8(id).unwrap().trim().to_string()
}

/// A layout with random images, tagged by their number.
fn random_layout(world: &World, seeds: impl Iterator<Item = u64>) -> (Layout, Vec<(String, PathBuf)>) {
    let mut layout = Layout::new(world, "layout");
    let images = seeds.map(|seed| {
        let manifest = random_image(&layout, seed);
        let tag = format!("docker.io/lab/random:{seed}");
        layout.tag(&tag, &manifest);
        (tag, layout.path(manifest["digest"].as_str().unwrap()))
    });
    let images = images.collect();
    let archive = world.dir().join("layout.tar");
    fs::write(&archive, tar_of(&layout.dir)).unwrap();
    world.tiny_docker([Path::new("load"), Path::new("-i"), &archive]).assert().success();
    (layout, images)
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_long_random_images_are_what_umoci_makes_of_them() {
    let world = World::new();
    let (layout, images) = random_layout(&world, 0..how_many());
    for (tag, manifest) in images {
        let mounted = Mounted::image(&world, &manifest);
        let (ours, theirs) = (tree(&mounted.0), unpacked_by_umoci(&world, &layout.dir, &tag));
        assert!(ours.len() > 3, "{tag}: there is next to nothing in it");
        same_trees(&ours, &theirs, &tag);
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_long_random_images_are_what_podman_makes_of_them() {
    let world = World::new();
    let (layout, images) = random_layout(&world, (1000..).take(how_many() as usize / 4));
    for (tag, manifest) in images {
        let mounted = Mounted::image(&world, &manifest);
        let id = into_podman(&world, &format!("oci:{}:{tag}", layout.dir.display()));
        let place = String::from_utf8(podman(&world, &["image", "mount", &id])).unwrap();
        let theirs = tree(Path::new(place.trim()));
        podman(&world, &["image", "umount", &id]);
        same_trees(&tree(&mounted.0), &theirs, &tag);
    }
}

/// Two worlds cannot be at once, so the second machine is a second state directory.
fn on_another_machine(world: &World, words: &[&str]) -> String {
    let mut command = world.tiny_docker(words);
    command.env("TINY_DOCKER_ROOT", world.dir().join("another-machine"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_long_there_and_back() {
    let world = World::new();
    let registry = Registry::start(&world, Door::Token);
    let mut layout = Layout::new(&world, "layout");
    let layers = [
        layout.layer(&tar_of(&busybox()), Packed::Gzip),
        layout.layer(&tar_with(&[("srv/", 0o755, b""), ("srv/old", 0o644, b"old\n")]), Packed::Plain),
        layout.layer(&tar_with(&[("srv/", 0o755, b""), ("srv/kept", 0o600, b"kept\n")]), Packed::Zstd),
    ];
    let config = json!({"Cmd": ["cat", "/srv/new"], "WorkingDir": "/srv", "Labels": {"team": "lab"}});
    let index =
        layout.index(&[layout.image_for("arm64", &layers[..1], json!({})), layout.image(&layers, config)]);
    layout.tag("v1", &index);
    registry.fill(&layout, "v1", "lab/app:v1");

    // From the registry into a container.
    let (from, to) = (format!("{ADDRESS}/lab/app:v1"), format!("{ADDRESS}/lab/app:v2"));
    let says = |words: &[&str]| {
        let output = world.tiny_docker(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    says(&["pull", &from]);
    let script = "rm old; echo new >new; chown app:app new; chmod 4711 new; ln kept also; mkdir -m 700 dir; \
                  mkfifo pipe; ln -s /srv/new link; touch -d '2001-02-03 04:05:06' new";
    says(&["run", "--net", "none", "--name", "work", "--image", &from, "sh", "-ec", script]);

    // And back, as whoever may push.
    says(&["commit", "work", &to]);
    let mut login = world.tiny_docker(["login", "-u", USER, "--password-stdin", ADDRESS]);
    login.env("HOME", world.dir()).write_stdin(PASSWORD).assert().success();
    world.tiny_docker(["push", &to]).env("HOME", world.dir()).assert().success();
    world.tiny_docker(["logout", ADDRESS]).env("HOME", world.dir()).assert().success();

    // On another machine.
    let output = on_another_machine(&world, &["run", "--rm", "--net", "none", "--image", &to]);
    assert_eq!(output, "new\n", "its Cmd and its directory are still those of the image that it was");
    let list = on_another_machine(
        &world,
        &[
            "run",
            "--rm",
            "--net",
            "none",
            "--image",
            &to,
            "stat",
            "-c",
            "%n %a %u %h %Y %F",
            "new",
            "kept",
            "also",
            "dir",
            "pipe",
            "link",
        ],
    );
    let expected = "new 4711 1000 1 981173106 regular file\nkept 600 0 2 ";
    assert!(list.starts_with(expected) && !list.contains("old"), "{list}");
    assert!(
        list.contains("dir 700 0 2 ") && list.contains("fifo") && list.contains("symbolic link"),
        "{list}"
    );

    // What other tools make of it is the same.
    let copied = world.dir().join("copied");
    let copy = format!("oci:{}:v2", copied.display());
    run(Command::new("skopeo")
        .env("TMPDIR", world.dir())
        .args(["copy", "--quiet", "--src-tls-verify=false"])
        .arg(format!("docker://{to}"))
        .arg(&copy));
    let index: Value = serde_json::from_slice(&fs::read(copied.join("index.json")).unwrap()).unwrap();
    let manifest = index["manifests"][0]["digest"].as_str().unwrap()["sha256:".len()..].to_string();
    let ours = {
        says(&["pull", &to]);
        let mounted = Mounted::image(&world, &copied.join("blobs/sha256").join(&manifest));
        tree(&mounted.0)
    };
    // (umoci of Debian 12 knows no zstd, and one layer is of it.)
    let id = into_podman(&world, &copy);
    let place = String::from_utf8(podman(&world, &["image", "mount", &id])).unwrap();
    same_trees(&ours, &tree(Path::new(place.trim())), "podman's");
    podman(&world, &["image", "umount", &id]);
    let words = [
        "run",
        "--rm",
        "--network",
        "none",
        "--cgroups",
        "disabled",
        "--log-driver",
        "none",
        "--ulimit",
        "nofile=1024:1024",
        "--ulimit",
        "nproc=4096:4096",
        &id,
    ];
    assert_eq!(String::from_utf8(podman(&world, &words)).unwrap(), "new\n");
}
