//! `make bench`, its part about images: `run --image` of an image of one layer, against
//! `run --rootfs` of what is in that layer. An overlay is mounted and unmounted more; and to
//! unmount it, the kernel brings all that is written on that disk to the disk. Nobody is to wait
//! for that: so the same once more, with a neighbour who writes all the time.
//!
//! Needs root, and `make rootfs`.
#![allow(clippy::unwrap_used, missing_docs)]

mod turns;

use std::fs::{self, File};
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use turns::Turns;

/// How much the neighbour writes, in bytes, before it begins anew.
const WRITTEN: usize = 256 << 20;

fn main() {
    let rootfs = Path::new(env!("CARGO_MANIFEST_DIR")).join("rootfs/busybox");
    assert!(rootfs.is_dir(), "{rootfs:?} is missing: make rootfs");
    let place = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("image");
    let _ = fs::remove_dir_all(&place);
    fs::create_dir_all(&place).unwrap();
    load(&place, &rootfs);

    let mut turns = turns_of(&place, &rootfs);
    turns.measure();
    turns.report("start to exit of /bin/true on this machine: --rootfs, and as tiny-docker --image");
    turns.limit("tiny-docker", "BENCH_IMAGE_LIMIT", "rootfs");

    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| write(&place.join("neighbour"), &over));
        let mut turns = turns_of(&place, &rootfs);
        turns.measure();
        over.store(true, Relaxed);
        turns.report("the same, with a neighbour who writes to the same disk");
        turns.limit("tiny-docker", "BENCH_NEIGHBOUR_LIMIT", "rootfs");
    });
    // What is still unmounted is not ours to wait for; but what is in there is.
    fs::remove_dir_all(&place).unwrap();
}

fn turns_of(place: &Path, rootfs: &Path) -> Turns {
    let mut turns = Turns::new(150, Duration::from_millis(15));
    let rootfs = rootfs.to_str().unwrap();
    turns.add("rootfs", tiny_docker(place, &["run", "--net", "none", "--rootfs", rootfs, "/bin/true"]));
    let image = ["run", "--net", "none", "--pull", "never", "--image", "bench:1", "/bin/true"];
    turns.add("tiny-docker", tiny_docker(place, &image));
    turns
}

fn tiny_docker(place: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tiny-docker"));
    command.env("TINY_DOCKER_ROOT", place.join("state")).args(words);
    command
}

/// The image: an archive as docker save wrote it once, with what is in `rootfs`.
fn load(place: &Path, rootfs: &Path) {
    let script = r#"cd "$1" && tar -C "$2" -cf layer.tar . && read -r digest _ < <(sha256sum layer.tar) &&
        echo '{"os": "linux", "architecture": "'"$3"'", "rootfs": {"type": "layers", "diff_ids": ["sha256:'$digest'"]}}' >config.json &&
        echo '[{"Config": "config.json", "RepoTags": ["bench:1"], "Layers": ["layer.tar"]}]' >manifest.json &&
        tar -cf image.tar manifest.json config.json layer.tar"#;
    let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let mut bash = Command::new("bash");
    assert!(bash.args(["-c", script, "-"]).args([place, rootfs]).arg(machine).status().unwrap().success());
    let archive = place.join("image.tar");
    let mut load = tiny_docker(place, &["load", "-q", "-i", archive.to_str().unwrap()]);
    assert!(load.stdout(Stdio::null()).status().unwrap().success(), "is this run by root?");
}

/// Writes to the file `path` until it is over.
fn write(path: &Path, over: &AtomicBool) {
    let (mut file, block) = (File::create(path).unwrap(), vec![7; 1 << 20]);
    while !over.load(Relaxed) {
        file.rewind().unwrap();
        file.set_len(0).unwrap();
        for _ in 0..WRITTEN / block.len() {
            if !over.load(Relaxed) {
                file.write_all(&block).unwrap();
            }
        }
    }
}
