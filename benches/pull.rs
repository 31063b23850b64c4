//! `make bench`, its part about pulling: an image of three layers, from a registry on this
//! machine, into memory, until it is unpacked. Against `skopeo copy` with `umoci unpack`, and
//! against `podman pull`: how long each takes, and how much of the processors. And a second pull,
//! of what is there already.
//!
//! It works in a network namespace and a mount namespace of its own. Needs root, and
//! docker-registry, skopeo, umoci and podman.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

const TURNS: usize = 5;
const ADDRESS: &str = "127.0.0.1:5000";
const NAME: &str = "127.0.0.1:5000/bench/image:1";

/// Of each layer: how many files, and of how many bytes. A third of each does not compress.
const FILES: usize = 3200;
const SIZE: usize = 40_000;

fn main() {
    for tool in ["docker-registry", "skopeo", "umoci", "podman"] {
        if Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            println!("{tool} is missing: pulling is not measured");
            return;
        }
    }
    let namespaces = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
    unshare(namespaces).unwrap_or_else(|errno| panic!("unshare: {errno} (is this run by root?)"));
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    run(Command::new("ip").args(["link", "set", "lo", "up"]));
    // Seen from here alone; and short, for podman takes no long path.
    let place = PathBuf::from("/mnt");
    mount(Some("tmpfs"), &place, Some("tmpfs"), MsFlags::empty(), Some("size=6g")).unwrap();

    let registry = Registry(serve(&place));
    let compressed = make_image(&place);
    println!(
        "pull and unpack, {TURNS} turns, in memory: 3 layers, {} MB, compressed {} MB",
        3 * FILES * SIZE / 1_000_000,
        compressed / 1_000_000
    );
    let mut contenders = [
        Contender::new("tiny-docker", tiny_docker),
        Contender::new("skopeo, umoci", skopeo_and_umoci),
        Contender::new("podman", podman),
    ];
    let mut again = vec![];
    for _ in 0..TURNS {
        for contender in &mut contenders {
            let dir = place.join("turn");
            fs::create_dir(&dir).unwrap();
            contender.turn(&dir);
            if contender.name == "tiny-docker" {
                again.push(measured(&dir, tiny_docker).0);
            }
            run(Command::new("rm").arg("-rf").arg(&dir));
        }
    }
    drop(registry);
    report(&contenders, &again);
}

fn report(contenders: &[Contender], again: &[f64]) {
    println!("{:<16} {:>9} {:>9} {:>9} {:>9}", "medians", "s", "ratio", "CPU s", "ratio");
    let ours = (median(&contenders[0].wall), median(&contenders[0].cpu));
    for Contender { name, wall, cpu, .. } in contenders {
        let (wall, cpu) = (median(wall), median(cpu));
        println!("{name:<16} {wall:>9.2} {:>9.2} {cpu:>9.2} {:>9.2}", ours.0 / wall, ours.1 / cpu);
        let Ok(limit) = std::env::var("BENCH_PULL_LIMIT") else { continue };
        let limit: f64 =
            limit.parse().unwrap_or_else(|_| panic!("BENCH_PULL_LIMIT={limit}: expected a number"));
        let (by_wall, by_cpu) = (ours.0 / wall, ours.1 / cpu);
        assert!(
            *name == "tiny-docker" || (by_wall <= limit && by_cpu <= limit),
            "tiny-docker takes {by_wall:.2} of the time of {name}, and {by_cpu:.2} of its CPU time; \
             BENCH_PULL_LIMIT is {limit}"
        );
    }
    println!("a second pull: {:.1} ms", median(again) * 1e3);
}

struct Contender {
    name: &'static str,
    commands: fn(&Path) -> Vec<Command>,
    wall: Vec<f64>,
    cpu: Vec<f64>,
}

impl Contender {
    fn new(name: &'static str, commands: fn(&Path) -> Vec<Command>) -> Contender {
        Contender { name, commands, wall: vec![], cpu: vec![] }
    }

    fn turn(&mut self, dir: &Path) {
        let (wall, cpu) = measured(dir, self.commands);
        self.wall.push(wall);
        self.cpu.push(cpu);
    }
}

/// How long the commands take, and how much of the processors: both in seconds.
fn measured(dir: &Path, commands: fn(&Path) -> Vec<Command>) -> (f64, f64) {
    // What children that were waited for have used, and theirs, in ticks of 10 ms: fields 16 and 17.
    // (proc_pid_stat(5))
    let used = || -> f64 {
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        let fields = stat.rsplit_once(") ").unwrap().1.split(' ').skip(13).take(2);
        fields.map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
    };
    let (start, before) = (Instant::now(), used());
    for mut command in commands(dir) {
        run(command.env("TMPDIR", dir).env("HOME", dir).env("XDG_RUNTIME_DIR", dir));
    }
    (start.elapsed().as_secs_f64(), used() - before)
}

fn tiny_docker(dir: &Path) -> Vec<Command> {
    let mut pull = Command::new(env!("CARGO_BIN_EXE_tiny-docker"));
    pull.env("TINY_DOCKER_ROOT", dir.join("state")).args(["pull", "-q", NAME]);
    vec![pull]
}

fn skopeo_and_umoci(dir: &Path) -> Vec<Command> {
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["copy", "-q", "--src-tls-verify=false", &format!("docker://{NAME}")]);
    skopeo.arg(format!("oci:{}:1", dir.join("layout").display()));
    let mut umoci = Command::new("umoci");
    umoci.args(["unpack", "--image", &format!("{}:1", dir.join("layout").display())]).arg(dir.join("bundle"));
    vec![skopeo, umoci]
}

fn podman(dir: &Path) -> Vec<Command> {
    let mut podman = Command::new("podman");
    podman.arg("--root").arg(dir.join("root")).arg("--runroot").arg(dir.join("run"));
    podman.arg("--tmpdir").arg(dir.join("tmp"));
    podman.args(["--storage-driver", "overlay", "--cgroup-manager", "cgroupfs", "--events-backend", "none"]);
    podman.args(["pull", "-q", "--tls-verify=false", NAME]);
    vec![podman]
}

struct Registry(Child);

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(place: &Path) -> Child {
    let file = place.join("registry.yml");
    let configuration = json!({
        "version": "0.1", "log": {"level": "error"}, "http": {"addr": ADDRESS},
        "storage": {"filesystem": {"rootdirectory": place.join("registry")}},
    });
    fs::write(&file, configuration.to_string()).unwrap();
    let mut command = Command::new("docker-registry");
    let log = File::create(place.join("registry.log")).unwrap();
    let server =
        command.arg("serve").arg(&file).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
    let start = Instant::now();
    while TcpStream::connect(ADDRESS).is_err() {
        assert!(start.elapsed() < Duration::from_secs(60), "docker-registry does not listen");
        std::thread::sleep(Duration::from_millis(50));
    }
    server
}

/// Puts the image into the registry. Returns how large its layers are, in bytes.
fn make_image(place: &Path) -> usize {
    let dir = place.join("made");
    fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
    let layers: Vec<(Value, String)> = (0..3).map(|number| layer(&dir, number)).collect();
    let diff_ids: Vec<&String> = layers.iter().map(|(_, diff_id)| diff_id).collect();
    let descriptors: Vec<&Value> = layers.iter().map(|(descriptor, _)| descriptor).collect();
    let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({"os": "linux", "architecture": machine, "config": {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config = blob(&dir, config.to_string().as_bytes(), "config.v1+json");
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config, "layers": descriptors});
    let mut manifest = blob(&dir, manifest.to_string().as_bytes(), "manifest.v1+json");
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": "1"});
    fs::write(dir.join("index.json"), json!({"schemaVersion": 2, "manifests": [manifest]}).to_string())
        .unwrap();
    let mut skopeo = Command::new("skopeo");
    skopeo.env("TMPDIR", place).args(["copy", "-q", "--dest-tls-verify=false"]);
    run(skopeo.arg(format!("oci:{}:1", dir.display())).arg(format!("docker://{NAME}")));
    fs::remove_dir_all(&dir).unwrap();
    descriptors.iter().map(|layer| layer["size"].as_u64().unwrap() as usize).sum()
}

/// A layer of files, a third of each of which does not compress; and its diff_id.
fn layer(dir: &Path, number: u64) -> (Value, String) {
    let mut state = number + 1;
    let mut tar = tar::Builder::new(vec![]);
    for file in 0..FILES {
        let mut bytes: Vec<u8> = vec![];
        while bytes.len() < SIZE / 3 {
            // xorshift64
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend(state.to_le_bytes());
        }
        let line = format!("the line that is in file {file} of the layer {number} again and again\n");
        bytes.extend(line.bytes().cycle().take(SIZE - bytes.len()));
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(SIZE as u64);
        let path = format!("layer{number}/{}/{file}", file % 50);
        tar.append_data(&mut header, path, &bytes[..]).unwrap();
    }
    let tar = tar.into_inner().unwrap();
    let mut encoder = GzEncoder::new(vec![], Compression::default());
    encoder.write_all(&tar).unwrap();
    (blob(dir, &encoder.finish().unwrap(), "layer.v1.tar+gzip"), sha256(&tar))
}

fn blob(dir: &Path, bytes: &[u8], kind: &str) -> Value {
    let digest = sha256(bytes);
    fs::write(dir.join("blobs/sha256").join(&digest[7..]), bytes).unwrap();
    json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest, "size": bytes.len()})
}

fn sha256(bytes: &[u8]) -> String {
    let hex: String = digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn median(times: &[f64]) -> f64 {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {said}", output.status);
}
