//! Day 12: containers of images: what `run --image` makes of an image's configuration, and the
//! way from a registry into a container and back.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Output;

use common::layout::{Layout, Packed, sha256, tar_of, tar_with};
use common::registry::{ADDRESS, Door, PASSWORD, Registry, USER};
use common::{World, busybox, said};
use serde_json::{Value, json};

/// An image in the store of `world`, called `name`: busybox, below these layers.
fn image(world: &World, name: &str, layers: &[Vec<u8>], config: Value) {
    let mut layout = Layout::new(world, &format!("layout-of-{}", name.replace(['/', ':'], "-")));
    let mut all = vec![layout.layer(&tar_of(&busybox()), Packed::Gzip)];
    all.extend(layers.iter().map(|tar| layout.layer(tar, Packed::Gzip)));
    let manifest = layout.image(&all, config);
    layout.tag(&format!("docker.io/lab/{name}"), &manifest);
    load(world, &layout);
}

/// Puts what is in the layout into the store.
fn load(world: &World, layout: &Layout) {
    let archive = layout.dir.with_extension("tar");
    fs::write(&archive, tar_of(&layout.dir)).unwrap();
    world.tiny_docker([Path::new("load"), Path::new("-i"), &archive]).assert().success();
}

/// `run --net none` with `words`.
fn run_image(world: &World, words: &[&str]) -> Output {
    world.tiny_docker([&["run", "--net", "none"], words].concat()).output().unwrap()
}

/// What it writes to stdout; it must succeed.
fn says(world: &World, words: &[&str]) -> String {
    let output = run_image(world, words);
    assert!(output.status.success(), "{words:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn fails(output: &Output, code: i32, expected: &[&str]) {
    let text = said(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for word in expected {
        assert!(text.contains(word), "expected {word:?}: {text}");
    }
}

/// Has an entrypoint that says what it was given, and all else that an image can say.
fn chatty(world: &World) {
    let config = json!({
        "Entrypoint": ["sh", "-c", r#"echo "$0 $@: $(id -u):$(id -g) in $(pwd), FROM=$FROM BOTH=$BOTH PATH=$PATH HOME=$HOME""#, "entry"],
        "Cmd": ["its", "cmd"], "Env": ["FROM=image", "BOTH=image", "NOTHING"], "User": "app", "WorkingDir": "/srv/made",
        "Labels": {"team": "lab", "kind": "image"}, "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
        "StopSignal": "SIGUSR1",
    });
    image(world, "chatty:v1", &[], config);
}

const CHATTY: &str = "lab/chatty:v1";

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_an_image_says_what_is_executed_and_how() {
    let world = World::new();
    chatty(&world);
    let text = says(&world, &["--image", CHATTY]);
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let expected =
        format!("entry its cmd: 1000:1000 in /srv/made, FROM=image BOTH=image PATH={path} HOME=/home/app\n");
    assert_eq!(text, expected);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_what_the_user_says_wins() {
    let world = World::new();
    chatty(&world);
    let flags =
        ["-e", "BOTH=user", "-e", "PATH=/bin", "-u", "0:0", "-w", "/srv", "--image", CHATTY, "my", "words"];
    let text = says(&world, &flags);
    assert_eq!(text, "entry my words: 0:0 in /srv, FROM=image BOTH=user PATH=/bin HOME=/root\n");
    // Another entrypoint has no use for the Cmd of the old one.
    for (words, expected) in [
        (&["--entrypoint", "echo", "--image", CHATTY][..], "\n"),
        (&["--entrypoint", "echo", "--image", CHATTY, "a", "b"], "a b\n"),
        (&["--entrypoint", "", "--image", CHATTY, "echo", "c"], "c\n"),
        (&["--image", CHATTY, "--entrypoint", "echo", "d"], "d\n"),
    ] {
        assert_eq!(says(&world, words), expected, "{words:?}");
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_a_variable_without_a_value_takes_nothing_from_the_host() {
    let world = World::new();
    chatty(&world);
    let words = ["run", "--net", "none", "--image", CHATTY, "--entrypoint", "env"];
    let output = world.tiny_docker(words).env("NOTHING", "a secret of the host").output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(!String::from_utf8_lossy(&output.stdout).contains("NOTHING"), "{}", said(&output));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_the_upper_layers_win() {
    let world = World::new();
    let lower =
        tar_with(&[("srv/", 0o755, b""), ("srv/both", 0o644, b"lower\n"), ("srv/gone", 0o644, b"lower\n")]);
    let middle = tar_with(&[("srv/both", 0o644, b"middle\n"), ("srv/.wh.gone", 0o644, b"")]);
    let upper = tar_with(&[("srv/new", 0o600, b"upper\n")]);
    // A layer may be there twice: an empty one often is.
    let layers = [lower, upper.clone(), middle, upper];
    image(&world, "tall:v1", &layers, json!({"Cmd": ["sh", "-c", "cd /srv && ls && cat both new"]}));
    assert_eq!(says(&world, &["--image", "lab/tall:v1"]), "both\nnew\nmiddle\nupper\n");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_the_record_says_which_image_it_was() {
    let world = World::new();
    let before = world.ps();
    assert!(!before.contains("IMAGE"), "without an image ps is as on the days before: {before}");
    chatty(&world);
    let words = ["--name", "web", "--label", "team=mine", "--label", "bare", "--image", CHATTY];
    says(&world, &words);
    let record = world.inspect("web");
    assert_eq!(record["image"]["name"], CHATTY, "{record}");
    let id = record["image"]["id"].as_str().unwrap();
    assert!(id.starts_with("sha256:") && id.len() == 71, "{record}");
    // The id, or the beginning of it, means the image too.
    let script = ["--entrypoint", "echo", "--image", &id[7..19], "by its id"];
    assert_eq!(says(&world, &script), "by its id\n");
    assert_eq!(record["labels"], json!({"team": "mine", "bare": "", "kind": "image"}), "{record}");
    assert_eq!(record["exposed_ports"], json!(["53/udp", "80/tcp"]), "{record}");
    assert_eq!(record["stop_signal"], "SIGUSR1", "{record}");
    // Beside one that has none.
    let rootfs = busybox();
    says(&world, &["--name", "plain", "--rootfs", rootfs.to_str().unwrap(), "true"]);
    let ps = world.ps();
    let head = ps.lines().next().unwrap();
    let at = head.find("IMAGE").unwrap_or_else(|| panic!("a column IMAGE: {ps}"));
    let cell = |name: &str| {
        let line = ps.lines().find(|line| line.contains(name)).unwrap();
        line[at..].split(' ').next().unwrap().to_string()
    };
    assert_eq!((cell(" web "), cell(" plain ")), (CHATTY.to_string(), String::new()), "{ps}");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_stop_asks_as_the_image_wants_it() {
    let world = World::new();
    let script = "trap 'echo asked by USR1; exit 3' USR1; trap 'echo asked by TERM; exit 4' TERM; \
                  trap 'echo asked by INT; exit 5' INT; echo ready; while :; do sleep 0.05; done";
    let config = json!({"Cmd": ["sh", "-c", script], "StopSignal": "USR1"});
    image(&world, "asked:v1", &[], config);
    for (flags, expected) in [(&[][..], "asked by USR1"), (&["--stop-signal", "SIGINT"], "asked by INT")] {
        let words =
            [&["run", "--net", "none", "--name", "one"], flags, &["--image", "lab/asked:v1"]].concat();
        let mut running = world.start(words);
        assert_eq!(running.line(), "ready");
        world.tiny_docker(["stop", "one"]).assert().success();
        assert_eq!(running.line(), expected);
        running.ended();
        world.tiny_docker(["rm", "one"]).assert().success();
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_an_image_that_cannot_run_says_why() {
    let world = World::new();
    let bare = |name: &str, config: Value| image(&world, name, &[], config);
    bare("silent:v1", json!({}));
    bare("lost:v1", json!({"Cmd": ["true"], "WorkingDir": "srv"}));
    bare("deaf:v1", json!({"Cmd": ["true"], "StopSignal": "SIGNOTHING"}));
    bare("stranger:v1", json!({"Cmd": ["true"], "User": "nobody-knows"}));
    bare("vain:v1", json!({"Cmd": ["/no/such/program"]}));
    let mut empty = Layout::new(&world, "layout-of-nothing");
    let manifest = empty.image(&[], json!({"Cmd": ["true"]}));
    empty.tag("docker.io/lab/nothing:v1", &manifest);
    load(&world, &empty);
    for (name, code, expected) in [
        ("silent", 125, &["does not say what to execute"][..]),
        ("lost", 125, &["working directory", "\"srv\"", "absolute"]),
        ("deaf", 125, &["StopSignal", "SIGNOTHING", "such as TERM"]),
        ("stranger", 125, &["nobody-knows"]),
        ("vain", 127, &["/no/such/program"]),
        ("nothing", 125, &["no layers"]),
    ] {
        fails(&run_image(&world, &["--image", &format!("lab/{name}:v1")]), code, expected);
    }
    fails(
        &run_image(&world, &["--image", "lab/silent:v1", "--label", "=x", "true"]),
        125,
        &["--label", "team=web"],
    );
    fails(&run_image(&world, &["--image", "Lab/Capitals", "true"]), 125, &["--image", "Lab/Capitals"]);
    assert!(!world.ps().contains("Exited (125)"), "what never ran is not remembered: {}", world.ps());
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_a_command_is_needed_unless_there_is_an_image() {
    let world = World::new();
    let rootfs = busybox();
    let rootfs = rootfs.to_str().unwrap();
    chatty(&world);
    assert!(says(&world, &["--image", CHATTY]).starts_with("entry its cmd"), "an image has one of its own");
    let both = ["--rootfs", rootfs, "--image", CHATTY, "true"];
    fails(
        &run_image(&world, &["--rootfs", rootfs, "--entrypoint", "sh", "true"]),
        125,
        &["--entrypoint", "--image NAME"],
    );
    for words in [&["--rootfs", rootfs][..], &both] {
        let output = run_image(&world, words);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {}", said(&output));
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_pull_says_when_the_registry_is_asked() {
    let world = World::new();
    let mut registry = Registry::start(&world, Door::Open);
    let name = format!("{ADDRESS}/lab/news:v1");
    let publish = |registry: &Registry, text: &str| {
        let mut layout = Layout::new(&world, &format!("layout-{text}"));
        let base = layout.layer(&tar_of(&busybox()), Packed::Zstd);
        let top = layout.layer(&tar_with(&[("news", 0o644, text.as_bytes())]), Packed::Gzip);
        let manifest = layout.image(&[base, top], json!({"Cmd": ["cat", "/news"]}));
        layout.tag("v1", &manifest);
        registry.fill(&layout, "v1", "lab/news:v1");
    };
    publish(&registry, "old");
    fails(
        &run_image(&world, &["--pull", "never", "--image", &name]),
        125,
        &["no such image here", "--pull never"],
    );
    // What is said of the download goes to stderr: stdout is the command's.
    let output = run_image(&world, &["--image", &name]);
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"old"[..]), "{}", said(&output));
    assert!(!output.stderr.is_empty(), "it says that it pulls");
    publish(&registry, "new");
    let here = run_image(&world, &["--image", &name]);
    assert_eq!(
        (&here.stdout[..], &here.stderr[..]),
        (&b"old"[..], &b""[..]),
        "what is here is not pulled again"
    );
    assert_eq!(says(&world, &["--pull", "never", "--image", &name]), "old");
    assert_eq!(says(&world, &["--pull", "always", "--image", &name]), "new");
    assert_eq!(says(&world, &["--pull", "missing", "--image", &name]), "new");
    // And without a registry.
    registry.stop();
    assert_eq!(says(&world, &["--image", &name]), "new");
    fails(&run_image(&world, &["--pull", "always", "--image", &name]), 125, &["--image", "127.0.0.1:5000"]);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_long_a_hundred_containers_take_the_disk_of_one() {
    let world = World::new();
    let noise: Vec<u8> =
        (0..4 << 20).map(|number: u32| (number.wrapping_mul(2654435761) >> 13) as u8).collect();
    image(&world, "shared:v1", &[tar_with(&[("noise", 0o644, &noise)])], json!({"Cmd": ["true"]}));
    let names: Vec<String> = (0..100).map(|number| format!("one-{number}")).collect();
    says(&world, &["--name", "first", "--image", "lab/shared:v1", "sh", "-c", "echo mine >/mine"]);
    let one = disk(&world.dir().join("state"));
    for name in &names {
        says(
            &world,
            &[
                "--name",
                name,
                "--image",
                "lab/shared:v1",
                "sh",
                "-c",
                "echo mine >/mine && cmp /noise /noise",
            ],
        );
    }
    let each = (disk(&world.dir().join("state")) - one) / names.len() as u64;
    assert!(each < 64 << 10, "each of a hundred containers takes {each} bytes of its own");
    // And the layers are as they were.
    assert!(!says(&world, &["--image", "lab/shared:v1", "ls", "-a", "/"]).contains("mine"));
}

/// What `dir` takes, in bytes; two names of a file are one file.
fn disk(dir: &Path) -> u64 {
    let mut total = 0;
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let metadata = entry.metadata().unwrap();
        total += metadata.blocks() * 512;
        if metadata.is_dir() {
            total += disk(&entry.path());
        }
    }
    total
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_an_image_may_be_removed_while_a_container_of_it_runs() {
    let world = World::new();
    let script = "echo ready; read line; cat /srv/file && busybox true && echo still here";
    image(
        &world,
        "used:v1",
        &[tar_with(&[("srv/file", 0o644, b"a file\n")])],
        json!({"Cmd": ["sh", "-c", script]}),
    );
    let mut running = world.start(["run", "--net", "none", "-i", "--name", "one", "--image", "lab/used:v1"]);
    assert_eq!(running.line(), "ready");
    let refused = world.tiny_docker(["rmi", "lab/used:v1"]).output().unwrap();
    fails(&refused, 1, &["one"]);
    world.tiny_docker(["rmi", "-f", "lab/used:v1"]).assert().success();
    use std::io::Write;
    running.stdin().write_all(b"go on\n").unwrap();
    assert_eq!((running.line(), running.line()), ("a file".into(), "still here".into()));
    assert_eq!(running.ended(), 0);
    fails(&run_image(&world, &["--pull", "never", "--image", "lab/used:v1"]), 125, &["no such image"]);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_long_a_killed_run_of_an_image_leaves_a_container_or_none() {
    let world = World::new();
    image(
        &world,
        "mortal:v1",
        &[],
        json!({"Cmd": ["sh", "-c", "echo x >/x; exit 7"], "Volumes": {"/data": {}}}),
    );
    let moments = world.die_at_every_moment(&["run", "--net", "none", "--image", "lab/mortal:v1"]);
    assert!(moments > 40, "there are only {moments} steps");
    // And the image is whole.
    assert_eq!(run_image(&world, &["--image", "lab/mortal:v1"]).status.code(), Some(7));
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_the_volumes_of_an_image_are_volumes() {
    let world = World::new();
    let layer = tar_with(&[("data/", 0o750, b""), ("data/first", 0o640, b"from the image\n")]);
    image(
        &world,
        "store:v1",
        &[layer],
        json!({"Cmd": ["sh", "-c", "cat /data/first; echo more >/data/more"], "Volumes": {"/data": {}}}),
    );
    assert_eq!(says(&world, &["--name", "one", "--image", "lab/store:v1"]), "from the image\n");
    let record = world.inspect("one");
    let mount = &record["mounts"][0];
    assert_eq!(
        (&mount["type"], &mount["target"], &mount["anonymous"]),
        (&json!("volume"), &json!("/data"), &json!(true)),
        "{record}"
    );
    let name = mount["name"].as_str().unwrap().to_string();
    let diff = world.tiny_docker(["diff", "one"]).output().unwrap();
    assert!(
        !String::from_utf8_lossy(&diff.stdout).contains("more"),
        "what is in a volume is not in the layer: {}",
        said(&diff)
    );
    // The user's own comes first.
    let words = ["--name", "two", "-v", "mine:/data", "--image", "lab/store:v1"];
    assert_eq!(says(&world, &words), "from the image\n");
    let record = world.inspect("two");
    assert_eq!(record["mounts"].as_array().unwrap().len(), 1, "{record}");
    assert_eq!(record["mounts"][0]["name"], "mine", "{record}");
    // With --rm it goes, as Docker's does.
    says(&world, &["--rm", "--image", "lab/store:v1"]);
    let list = world.tiny_docker(["volume", "ls", "-q"]).output().unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    let mut names: Vec<&str> = list.lines().collect();
    names.sort_unstable();
    let mut expected = vec![name.as_str(), "mine"];
    expected.sort_unstable();
    assert_eq!(names, expected);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_images_come_through_every_door() {
    for door in [Door::Open, Door::Https, Door::Password, Door::Token] {
        let world = World::new();
        let registry = Registry::start(&world, door);
        let mut layout = Layout::new(&world, "layout");
        let layers = [
            layout.layer(&tar_of(&busybox()), Packed::Gzip),
            layout.layer(&tar_with(&[("srv/", 0o755, b""), ("srv/a", 0o644, b"a\n")]), Packed::Plain),
            layout.layer(&tar_with(&[("srv/b", 0o600, b"b\n")]), Packed::Zstd),
        ];
        let amd64 = layout.image(&layers, json!({"Cmd": ["sh"]}));
        let arm64 = layout.image_for("arm64", &layers[1..], json!({"Cmd": ["sh"]}));
        let index = layout.index(&[amd64, arm64]);
        layout.tag("v1", &index);
        registry.fill(&layout, "v1", "lab/busybox:v1");
        let raw = registry.raw("lab/busybox:v1");
        assert_eq!(raw["manifests"].as_array().unwrap().len(), 2, "{raw}");
        let blob = registry.blob(layers[0].descriptor["digest"].as_str().unwrap());
        assert_eq!(sha256(&fs::read(blob).unwrap()), layers[0].descriptor["digest"]);
        let name = format!("{ADDRESS}/lab/busybox:v1");
        let login = ["login", "-u", USER, "-p", PASSWORD, ADDRESS];
        if door == Door::Password {
            world.tiny_docker(login).env("DOCKER_CONFIG", world.dir()).assert().success();
        }
        let certificates = world.dir().join("certificates");
        fs::create_dir(&certificates).unwrap();
        if door == Door::Https {
            fs::copy(registry.authority(), certificates.join("ca.crt")).unwrap();
        }
        let mut command = world.tiny_docker(["run", "--net", "none", "--cert-dir"]);
        command.arg(&certificates).args(["--image", &name, "cat", "/srv/a", "/srv/b"]);
        let output = command.env("DOCKER_CONFIG", world.dir()).output().unwrap();
        assert_eq!(output.stdout, b"a\nb\n", "{door:?}: {}", said(&output));
        if door == Door::Token {
            let asked = registry.tokens_asked();
            assert!(asked.iter().any(|line| line == "anonymous repository:lab/busybox:pull"), "{asked:?}");
            let pushed = format!("{USER} repository:lab/busybox:");
            assert!(asked.iter().any(|line| line.starts_with(&pushed)), "{asked:?}");
        }
    }
}
