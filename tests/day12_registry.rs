//! Day 12: pull, push, login: with Debian's docker-registry, in a network namespace of the
//! test's own.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Output;
use std::sync::{Arc, Mutex};
use std::thread::spawn;

use common::layout::{Layout, Packed, tar_with};
use common::registry::{ADDRESS, Door, PASSWORD, Registry, USER};
use common::{AtTerminal, World, binary, said, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// An image `1` of three layers; and its manifest. (skopeo would pack one that is plain.)
fn three_layers(world: &World) -> (Layout, Value) {
    let mut layout = Layout::new(world, "layout");
    let layers = [("a", Packed::Gzip), ("b", Packed::Gzip), ("c", Packed::Zstd)].map(|(name, packed)| {
        layout.layer(&tar_with(&[(name, 0o644, name.repeat(5000).as_bytes())]), packed)
    });
    let manifest = layout.image(&layers, json!({"Cmd": ["sh"]}));
    layout.tag("1", &manifest);
    (layout, manifest)
}

/// `tiny-docker` with `words`, and with the test's own ~/.docker.
fn tiny_docker(world: &World, words: &[&str], stdin: &str) -> Output {
    let mut command = world.tiny_docker(words);
    command.env("HOME", home(world)).env_remove("DOCKER_CONFIG").write_stdin(stdin).output().unwrap()
}

fn home(world: &World) -> PathBuf {
    world.dir().join("home")
}

fn config_file(world: &World) -> PathBuf {
    home(world).join(".docker/config.json")
}

#[track_caller]
fn works(output: &Output, expected: &[&str]) {
    let text = said(output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    for word in expected {
        assert!(text.contains(word), "expected {word:?}: {text}");
    }
}

#[track_caller]
fn fails(output: &Output, expected: &[&str]) {
    let text = said(output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for word in expected {
        assert!(text.contains(word), "expected {word:?}: {text}");
    }
}

/// The digests that the store's index.json has names for.
fn digests(world: &World) -> Vec<Value> {
    let Ok(text) = fs::read(world.dir().join("state/images/index.json")) else { return vec![] };
    let index: Value = serde_json::from_slice(&text).unwrap();
    index["manifests"].as_array().unwrap().iter().map(|found| found["digest"].clone()).collect()
}

fn web(tag: &str) -> String {
    format!("{ADDRESS}/lab/web:{tag}")
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_an_image_comes_and_what_is_not_there_does_not() {
    let world = World::new();
    let mut registry = Registry::start(&world, Door::Open);
    let (layout, manifest) = three_layers(&world);
    registry.fill(&layout, "1", "lab/web:1");
    works(
        &tiny_docker(&world, &["pull", &web("1")], ""),
        &["Pulling from 127.0.0.1:5000/lab/web", &web("1")],
    );
    assert_eq!(digests(&world), [manifest["digest"].clone()]);
    fails(&tiny_docker(&world, &["pull", &web("2")], ""), &["no such image", "manifest unknown", &web("2")]);
    fails(&tiny_docker(&world, &["pull", "127.0.0.1:5000/nobody/nothing"], ""), &["no such image"]);
    registry.stop();
    fails(&tiny_docker(&world, &["pull", &web("1")], ""), &["nothing answers there"]);
    assert_eq!(digests(&world), [manifest["digest"].clone()]);
    registry.start_again();
    works(&tiny_docker(&world, &["pull", &web("1")], ""), &["Image is up to date"]);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_https_wants_a_certificate_that_somebody_vouches_for() {
    let world = World::new();
    let registry = Registry::start(&world, Door::Https);
    let (layout, _) = three_layers(&world);
    registry.fill(&layout, "1", "lab/web:1");
    fails(&tiny_docker(&world, &["pull", &web("1")], ""), &["does not prove who it is", "certs.d"]);
    assert!(digests(&world).is_empty());
    let certificates = world.dir().join("certificates");
    fs::create_dir(&certificates).unwrap();
    let words = ["pull", "--cert-dir", certificates.to_str().unwrap(), &web("1")];
    fails(&tiny_docker(&world, &words, ""), &["does not prove who it is"]);
    fs::copy(registry.authority(), certificates.join("ca.crt")).unwrap();
    works(&tiny_docker(&world, &words, ""), &["Downloaded newer image"]);
    fs::write(certificates.join("ca.crt"), "no certificate").unwrap();
    fails(&tiny_docker(&world, &words, ""), &["ca.crt", "expected PEM"]);
    fails(
        &tiny_docker(&world, &["pull", "--cert-dir", "/nowhere", &web("1")], ""),
        &["--cert-dir", "/nowhere"],
    );

    let pull = |variable: &str, value: &str, flags: &[&str]| {
        let name = web("1");
        let words = [&["pull"], flags, &[&name]].concat();
        world.tiny_docker(words).env(variable, value).output().unwrap()
    };
    works(&pull("SSL_CERT_FILE", registry.authority().to_str().unwrap(), &[]), &["up to date"]);
    works(&pull("X", "", &["--tls-verify=false"]), &["up to date"]);
    fails(&pull("SSL_CERT_FILE", "/nowhere", &[]), &["SSL_CERT_FILE", "/nowhere"]);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_login_is_for_whoever_has_the_password() {
    let world = World::new();
    let registry = Registry::start(&world, Door::Password);
    let (layout, _) = three_layers(&world);
    registry.fill(&layout, "1", "lab/web:1");
    fails(&tiny_docker(&world, &["pull", &web("1")], ""), &["tiny-docker login 127.0.0.1:5000"]);

    let login = ["login", "-u", USER, "--password-stdin", ADDRESS];
    fails(&tiny_docker(&world, &login, "wrong"), &["does not accept"]);
    fails(&tiny_docker(&world, &login, ""), &["a password"]);
    assert!(!config_file(&world).exists());
    // What else is in the file stays, in its order; what it leads to is written.
    let others =
        r#"{"HttpHeaders": {"X": "y"}, "auths": {"box.example": {"auth": "eDp5"}}, "psFormat": "z"}"#;
    let dotfiles = world.dir().join("dotfiles.json");
    fs::create_dir_all(config_file(&world).parent().unwrap()).unwrap();
    fs::write(&dotfiles, others).unwrap();
    std::os::unix::fs::symlink(&dotfiles, config_file(&world)).unwrap();
    works(&tiny_docker(&world, &login, &format!("{PASSWORD}\n")), &["Login Succeeded", "as it is"]);
    let file: Value = serde_json::from_slice(&fs::read(&dotfiles).unwrap()).unwrap();
    assert_eq!(file["auths"][ADDRESS]["auth"], "bGVhcm5lcjpzZWNyZXQ=", "{file}");
    assert_eq!((&file["HttpHeaders"]["X"], &file["psFormat"]), (&json!("y"), &json!("z")), "{file}");
    assert_eq!(file["auths"]["box.example"]["auth"], "eDp5", "{file}");
    assert_eq!(fs::metadata(&dotfiles).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(fs::symlink_metadata(config_file(&world)).unwrap().is_symlink());
    let beside: Vec<_> = fs::read_dir(config_file(&world).parent().unwrap()).unwrap().collect();
    assert_eq!(beside.len(), 1, "{beside:?}");

    works(&tiny_docker(&world, &["pull", &web("1")], ""), &["Downloaded newer image"]);
    works(&tiny_docker(&world, &["logout", ADDRESS], ""), &["Removing login credentials for 127.0.0.1:5000"]);
    works(&tiny_docker(&world, &["logout", ADDRESS], ""), &["Not logged in to 127.0.0.1:5000"]);
    let file: Value = serde_json::from_slice(&fs::read(&dotfiles).unwrap()).unwrap();
    assert_eq!(file["auths"], json!({"box.example": {"auth": "eDp5"}}));
    fails(&tiny_docker(&world, &["pull", &web("1")], ""), &["tiny-docker login"]);

    fs::write(&dotfiles, "{").unwrap();
    fails(&tiny_docker(&world, &["pull", &web("1")], ""), &["config.json", "expected a JSON object"]);
    fails(&tiny_docker(&world, &login, PASSWORD), &["config.json", "expected a JSON object"]);
    assert_eq!(fs::read_to_string(&dotfiles).unwrap(), "{");
}

/// What `pull` says is to be done: `login`, at a terminal of its own. It asks for the password when
/// this returns.
fn asks_for_the_password(world: &World) -> AtTerminal {
    fails(&tiny_docker(world, &["pull", &web("1")], ""), &["tiny-docker login 127.0.0.1:5000"]);
    let at_home = format!("HOME={}", home(world).display());
    let words = ["-u", "DOCKER_CONFIG", &at_home, binary().to_str().unwrap(), "login", ADDRESS];
    let mut terminal = AtTerminal::start_program("env", words);
    terminal.shows("Username: ");
    // A key too much, and taken back; and the whole line once.
    terminal.types("wrong\x15learnerr\x7f\r");
    terminal.shows("Password: ");
    until("the terminal shows nothing", || !terminal.echoes());
    terminal
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_a_password_that_is_typed_is_not_shown() {
    let world = World::new();
    let _registry = Registry::start(&world, Door::Password);
    let mut terminal = asks_for_the_password(&world);
    terminal.types("no\x15s3cret\x7f\x7f\x7f\x7f\x7fecret\r");
    terminal.shows("Login Succeeded");
    assert_eq!(terminal.ended(), 0);
    assert!(terminal.echoes(), "the terminal shows nothing any more");
    let screen = terminal.screen();
    assert!(!screen.contains("ecret") && !screen.contains('*'), "{screen}");
    let file: Value = serde_json::from_slice(&fs::read(config_file(&world)).unwrap()).unwrap();
    assert_eq!(file["auths"][ADDRESS]["auth"], "bGVhcm5lcjpzZWNyZXQ=", "{file}");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_whoever_ends_login_gets_their_terminal_back() {
    let world = World::new();
    let _registry = Registry::start(&world, Door::Password);
    for (how, code) in [("Ctrl-C", 130), ("Ctrl-D", 1), ("SIGTERM", 143)] {
        let mut terminal = asks_for_the_password(&world);
        match how {
            "Ctrl-C" => terminal.types("s\x03"),
            "Ctrl-D" => terminal.types("\x04"),
            _ => kill(Pid::from_raw(terminal.program.id() as i32), Signal::SIGTERM).unwrap(),
        }
        assert_eq!(terminal.ended(), code, "{how}");
        assert!(terminal.echoes(), "{how}: the terminal shows nothing any more");
        assert!(!config_file(&world).exists(), "{how}: something was written down");
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_long_a_token_is_asked_for_once_and_for_no_more_than_is_needed() {
    let world = World::new();
    let registry = Registry::start(&world, Door::Token);
    let (layout, _) = three_layers(&world);
    registry.fill(&layout, "1", "lab/web:1");
    registry.fill(&layout, "1", "private/web:1");
    let private = format!("{ADDRESS}/private/web:1");
    let before = registry.tokens_asked().len();
    works(&tiny_docker(&world, &["pull", &web("1")], ""), &["Downloaded newer image"]);
    assert_eq!(registry.tokens_asked()[before..], ["anonymous repository:lab/web:pull"]);
    fails(&tiny_docker(&world, &["pull", &private], ""), &["tiny-docker login 127.0.0.1:5000", &private]);
    fails(&tiny_docker(&world, &["push", &web("1")], ""), &["tiny-docker login"]);

    let login = ["login", "-u", USER, "--password-stdin", ADDRESS];
    fails(&tiny_docker(&world, &login, "wrong"), &["does not accept", "incorrect username or password"]);
    works(&tiny_docker(&world, &login, PASSWORD), &["Login Succeeded"]);
    let before = registry.tokens_asked().len();
    works(&tiny_docker(&world, &["pull", &private], ""), &["Downloaded newer image"]);
    assert_eq!(registry.tokens_asked()[before..], ["learner repository:private/web:pull"]);
    works(&tiny_docker(&world, &["tag", &web("1"), &web("2")], ""), &[]);
    works(&tiny_docker(&world, &["push", &web("2")], ""), &["Layer already exists"]);
    assert_eq!(registry.raw("lab/web:2"), registry.raw("lab/web:1"));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_long_a_helper_keeps_the_password() {
    let world = World::new();
    let registry = Registry::start(&world, Door::Password);
    let (layout, _) = three_layers(&world);
    registry.fill(&layout, "1", "lab/web:1");
    // A credential helper whose keychain is a file of this test.
    let kept = world.dir().join("kept");
    let helper = world.dir().join("docker-credential-lab");
    let script = format!(
        r#"#!/bin/bash
        case $1 in
            store) cat >{kept} ;;
            get) read -r server; grep -q "\"ServerURL\":\"$server\"" {kept} 2>/dev/null && exec cat {kept}
                echo "credentials not found in native keychain"; exit 1 ;;
            erase) rm {kept} ;;
        esac"#,
        kept = kept.display()
    );
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir_all(config_file(&world).parent().unwrap()).unwrap();
    fs::write(config_file(&world), json!({"credHelpers": {ADDRESS: "lab"}}).to_string()).unwrap();
    let path = format!("{}:{}", world.dir().display(), std::env::var("PATH").unwrap());
    let run = |words: &[&str], stdin: &str| {
        let mut command = world.tiny_docker(words);
        command.env("HOME", home(&world)).env("PATH", &path).write_stdin(stdin).output().unwrap()
    };
    fails(&run(&["pull", &web("1")], ""), &["tiny-docker login"]);
    works(&run(&["login", "-u", USER, "--password-stdin", ADDRESS], PASSWORD), &["Login Succeeded"]);
    assert!(fs::read_to_string(&kept).unwrap().contains(PASSWORD));
    assert!(!fs::read_to_string(config_file(&world)).unwrap().contains("auths"));
    works(&run(&["pull", &web("1")], ""), &["Downloaded newer image"]);
    works(&run(&["logout", ADDRESS], ""), &["Removing login credentials"]);
    assert!(!kept.exists());
    works(&run(&["logout", ADDRESS], ""), &["Not logged in"]);
    // One that is not there, and one that fails.
    fails(&tiny_docker(&world, &["pull", &web("1")], ""), &["docker-credential-lab", "install it"]);
    fs::write(&helper, "#!/bin/sh\necho 'the keychain is locked'; exit 3").unwrap();
    fails(&run(&["pull", &web("1")], ""), &["docker-credential-lab get failed", "the keychain is locked"]);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_a_proxy_is_asked_for_what_is_not_on_this_machine() {
    let world = World::new();
    let registry = Registry::start(&world, Door::Https);
    let (layout, _) = three_layers(&world);
    registry.fill(&layout, "1", "lab/web:1");
    let proxy = Proxy::start();
    let pull = |name: &str, no_proxy: &str| {
        let mut command = world.tiny_docker(["pull", "--tls-verify=false", name]);
        command.env("HTTPS_PROXY", "http://127.0.0.1:3128").env("NO_PROXY", no_proxy).output().unwrap()
    };
    works(&pull("box.example:5000/lab/web:1", "other.example"), &["Downloaded newer image"]);
    let asked = proxy.asked.lock().unwrap().clone();
    assert!(
        !asked.is_empty() && asked.iter().all(|line| line.starts_with("CONNECT box.example:5000 ")),
        "{asked:?}"
    );
    works(&pull(&web("1"), ""), &["Downloaded newer image"]);
    fails(&pull("box.example:5000/lab/web:2", "example"), &["there is no such host"]);
    assert_eq!(proxy.asked.lock().unwrap().len(), asked.len());
    let mut command = world.tiny_docker(["pull", "box.example/web"]);
    fails(&command.env("https_proxy", "gopher://x").output().unwrap(), &["HTTPS_PROXY", "gopher://x"]);
}

/// A proxy at 127.0.0.1:3128, by which every host is the registry.
struct Proxy {
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn start() -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:3128").unwrap();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = asked.clone();
        // It ends with the test program.
        spawn(move || {
            for client in listener.incoming() {
                let mut client = client.unwrap();
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && client.read(&mut byte).unwrap() > 0 {
                    head.push(byte[0]);
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                log.lock().unwrap().push(head.lines().next().unwrap_or_default().to_string());
                let server = TcpStream::connect(ADDRESS).unwrap();
                client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
                for (from, to) in
                    [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)]
                {
                    spawn(move || {
                        let (mut from, mut to) = (from, to);
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(std::net::Shutdown::Write);
                    });
                }
            }
        });
        Proxy { asked }
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_long_what_was_pulled_can_be_pushed() {
    let world = World::new();
    let registry = Registry::start(&world, Door::Open);
    let (layout, manifest) = three_layers(&world);
    registry.fill(&layout, "1", "lab/web:1");
    works(&tiny_docker(&world, &["pull", "-q", &web("1")], ""), &[]);
    let copy = format!("{ADDRESS}/lab/copy:new");
    fails(&tiny_docker(&world, &["push", &copy], ""), &["there is no image", "tiny-docker images"]);
    works(&tiny_docker(&world, &["tag", &web("1"), &copy], ""), &[]);
    let digest = manifest["digest"].as_str().unwrap();
    let size = manifest["size"].to_string();
    let words = ["Pushed", &format!("new: digest: {digest} size: {size}")];
    works(&tiny_docker(&world, &["push", &copy], ""), &words);
    assert_eq!(registry.raw("lab/copy:new"), registry.raw("lab/web:1"));
    let again = tiny_docker(&world, &["push", &copy], "");
    works(&again, &["Layer already exists"]);
    assert!(!said(&again).contains("Pushed"), "{}", said(&again));
    fails(
        &tiny_docker(&world, &["push", &format!("{ADDRESS}/lab/copy@{digest}")], ""),
        &["push it by a tag"],
    );
    let pushed = tiny_docker(&world, &["push", "-q", &copy], "");
    assert_eq!(String::from_utf8_lossy(&pushed.stdout), format!("{copy}\n"));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_long_what_the_registry_has_elsewhere_is_not_sent_again() {
    for door in [Door::Open, Door::Token] {
        let world = World::new();
        let registry = Registry::start(&world, door);
        let (layout, _) = three_layers(&world);
        registry.fill(&layout, "1", "lab/web:1");
        let login = ["login", "-u", USER, "--password-stdin", ADDRESS];
        if door == Door::Token {
            works(&tiny_docker(&world, &login, PASSWORD), &["Login Succeeded"]);
        }
        works(&tiny_docker(&world, &["pull", &web("1")], ""), &[]);
        let copy = format!("{ADDRESS}/lab/copy:new");
        works(&tiny_docker(&world, &["tag", &web("1"), &copy], ""), &[]);
        let pushed = tiny_docker(&world, &["push", &copy], "");
        works(&pushed, &["Mounted from lab/web", "Pushed"]);
        let text = said(&pushed);
        assert_eq!(text.matches("Mounted from lab/web").count(), 3, "{door:?}: {text}");
        assert_eq!(registry.raw("lab/copy:new"), registry.raw("lab/web:1"), "{door:?}");
        // Where the registry has lost it, it is sent.
        works(&tiny_docker(&world, &["tag", &web("1"), &format!("{ADDRESS}/lab/gone:1")], ""), &[]);
        works(&tiny_docker(&world, &["rmi", "-f", &web("1"), &copy], ""), &[]);
        let other = format!("{ADDRESS}/lab/other:1");
        works(&tiny_docker(&world, &["tag", &format!("{ADDRESS}/lab/gone:1"), &other], ""), &[]);
        let text = said(&tiny_docker(&world, &["push", &other], ""));
        assert_eq!(text.matches("Pushed").count(), 4, "{door:?}: {text}");
        assert_eq!(registry.raw("lab/other:1"), registry.raw("lab/web:1"), "{door:?}");
    }
}
