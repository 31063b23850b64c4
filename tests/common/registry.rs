//! A real registry of a test's own: Debian's docker-registry, at 127.0.0.1:5000 of a
//! network namespace of its own, in which the test then is too.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine};
use nix::sched::{CloneFlags, setns, unshare};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::{Value, json};

use super::layout::Layout;
use super::{World, binary, deadline, said, until};

/// Where it listens. A name with this in front means an image there.
pub const ADDRESS: &str = "127.0.0.1:5000";
/// Who may come in, where not everybody may.
pub const USER: &str = "learner";
pub const PASSWORD: &str = "secret";
/// `htpasswd -B` makes it of these two: bcrypt, which is all that the registry takes.
const HTPASSWD: &str = "learner:$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n";

/// How one gets in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Door {
    /// Everybody, over plain HTTP.
    Open,
    /// Everybody, over HTTPS, with a certificate of an authority of the test's own: see
    /// [`Registry::authority`].
    Https,
    /// Whoever has the password.
    Password,
    /// With a token, from a service at 127.0.0.1:5001: pull for everybody, push for whoever
    /// has the password; and nothing of what begins with `private/` without it.
    Token,
}

pub struct Registry {
    server: Child,
    tokens: Option<TokenService>,
    dir: PathBuf,
    door: Door,
    outside: File,
}

impl Registry {
    /// An empty one. From here on the calling thread is in the registry's network namespace,
    /// with all that it starts, and until this value is dropped.
    pub fn start(world: &World, door: Door) -> Registry {
        let outside = File::open("/proc/thread-self/ns/net").unwrap();
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        run(Command::new("ip").args(["link", "set", "lo", "up"]));
        let dir = world.dir().join("registry");
        fs::create_dir(&dir).unwrap();
        let tokens = (door == Door::Token).then(|| TokenService::start(&dir));
        if door == Door::Https {
            make_certificates(&dir);
        }
        fs::write(dir.join("htpasswd"), HTPASSWD).unwrap();
        fs::write(dir.join("config.yml"), configuration(&dir, door).to_string()).unwrap();
        let server = serve(&dir);
        Registry { server, tokens, dir, door, outside }
    }

    /// Copies `oci:DIR:TAG` of the layout into it, as `name`, with skopeo: all of an index.
    pub fn fill(&self, layout: &Layout, tag: &str, name: &str) {
        let mut skopeo = self.skopeo();
        skopeo.args(["copy", "--all", "--quiet", &format!("--dest-creds={USER}:{PASSWORD}")]);
        if self.door != Door::Https {
            skopeo.arg("--dest-tls-verify=false");
        }
        skopeo.arg(format!("oci:{}:{tag}", layout.dir.display())).arg(format!("docker://{ADDRESS}/{name}"));
        run(&mut skopeo);
    }

    /// What skopeo says of `name`: `inspect --raw`.
    pub fn raw(&self, name: &str) -> Value {
        let mut skopeo = self.skopeo();
        skopeo.args(["inspect", "--raw", &format!("--creds={USER}:{PASSWORD}")]);
        if self.door != Door::Https {
            skopeo.arg("--tls-verify=false");
        }
        let output = run(skopeo.arg(format!("docker://{ADDRESS}/{name}")));
        serde_json::from_slice(&output).unwrap()
    }

    fn skopeo(&self) -> Command {
        let mut skopeo = Command::new("skopeo");
        // What it keeps for itself is the test's too.
        skopeo.env("HOME", &self.dir).env("TMPDIR", &self.dir).env("XDG_RUNTIME_DIR", &self.dir);
        if self.door == Door::Https {
            skopeo.env("SSL_CERT_FILE", self.authority());
        }
        skopeo
    }

    /// The certificate, PEM, of whoever signed the registry's.
    pub fn authority(&self) -> PathBuf {
        self.dir.join("authority.pem")
    }

    /// The file of the registry's own storage that holds the blob `digest`: to spoil it.
    pub fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").unwrap();
        self.dir.join(format!("data/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]))
    }

    /// What the token service was asked for: a line each, `learner pull repository:…`.
    pub fn tokens_asked(&self) -> Vec<String> {
        self.tokens.as_ref().unwrap().asked.lock().unwrap().clone()
    }

    /// Ends the server, as when its machine is gone. Nothing listens there any more.
    pub fn stop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }

    /// Starts it again, with what it had.
    pub fn start_again(&mut self) {
        self.server = serve(&self.dir);
    }

    /// What it said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
        drop(self.tokens.take());
        if std::thread::panicking() {
            let log = self.log();
            let last: Vec<&str> = log.lines().rev().take(12).collect();
            eprintln!(
                "the registry said at last:\n{}",
                last.into_iter().rev().collect::<Vec<_>>().join("\n")
            );
        }
        // The bridge of containers that the test ran here, if there is one.
        let _ = Command::new(binary()).args(["network", "rm"]).output();
        setns(self.outside.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
    }
}

fn configuration(dir: &Path, door: Door) -> Value {
    let mut all = json!({
        "version": "0.1",
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": dir.join("data")}, "delete": {"enabled": true}},
        "http": {"addr": ADDRESS, "secret": "of no importance"},
    });
    match door {
        Door::Open => {}
        Door::Https => {
            all["http"]["tls"] = json!({"certificate": dir.join("server.pem"), "key": dir.join("server.key")})
        }
        Door::Password => {
            all["auth"] = json!({"htpasswd": {"realm": "the lab", "path": dir.join("htpasswd")}})
        }
        Door::Token => {
            all["auth"] = json!({"token": {
                "realm": format!("http://{TOKENS}/token"), "service": SERVICE, "issuer": ISSUER,
                "rootcertbundle": dir.join("tokens.pem"),
            }})
        }
    }
    all
}

fn serve(dir: &Path) -> Child {
    let log = File::options().create(true).append(true).open(dir.join("log")).unwrap();
    let mut command = Command::new("docker-registry");
    command.arg("serve").arg(dir.join("config.yml")).stdin(Stdio::null());
    command.stdout(log.try_clone().unwrap()).stderr(log);
    let mut server = command.spawn().expect("docker-registry: apt-get install docker-registry skopeo umoci");
    until("the registry listens", || {
        let ended = server.try_wait().unwrap();
        assert!(ended.is_none(), "docker-registry: {}", fs::read_to_string(dir.join("log")).unwrap());
        TcpStream::connect(ADDRESS).is_ok()
    });
    server
}

/// An authority, and a certificate of it for 127.0.0.1 and localhost.
fn make_certificates(dir: &Path) {
    let script = r#"
        new() { openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes "$@"; }
        new -x509 -days 2 -subj "/CN=an authority of the test" -keyout authority.key -out authority.pem
        new -subj /CN=localhost -keyout server.key -out server.csr
        echo "subjectAltName=IP:127.0.0.1,DNS:localhost" >names
        openssl x509 -req -days 2 -in server.csr -CA authority.pem -CAkey authority.key \
            -set_serial 2 -extfile names -out server.pem"#;
    run(Command::new("bash").args(["-ec", script]).current_dir(dir));
}

const TOKENS: &str = "127.0.0.1:5001";
const SERVICE: &str = "the registry of the test";
const ISSUER: &str = "the token service of the test";

/// Gives tokens to whoever asks. (distribution's documentation, "Token Authentication
/// Specification") It is not what is tested, and no more than one file of a real one.
struct TokenService {
    asked: Arc<Mutex<Vec<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl TokenService {
    fn start(dir: &Path) -> TokenService {
        let script = r#"
            openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
                -subj "/CN=tokens" -keyout tokens.key -out tokens.pem
            openssl pkcs8 -topk8 -nocrypt -in tokens.key -outform DER -out tokens.pk8
            openssl x509 -in tokens.pem -outform DER -out tokens.der"#;
        run(Command::new("bash").args(["-ec", script]).current_dir(dir));
        let random = SystemRandom::new();
        let key = fs::read(dir.join("tokens.pk8")).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key, &random).unwrap();
        let header = json!({"typ": "JWT", "alg": "ES256",
            "x5c": [BASE64_STANDARD.encode(fs::read(dir.join("tokens.der")).unwrap())]});
        let listener = TcpListener::bind(TOKENS).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        let sign = move |claims: Value| {
            let text =
                [&header, &claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
            let signature = key.sign(&random, text.as_bytes()).unwrap();
            format!("{text}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
        };
        let thread = std::thread::spawn(move || {
            for client in listener.incoming() {
                if !answer(client.unwrap(), &log, &sign) {
                    return;
                }
            }
        });
        TokenService { asked, thread: Some(thread) }
    }
}

impl Drop for TokenService {
    fn drop(&mut self) {
        if let Ok(mut stream) = TcpStream::connect(TOKENS) {
            let _ = stream.write_all(b"END\r\n\r\n");
        }
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Answers one request; whether there will be another.
fn answer(client: TcpStream, log: &Mutex<Vec<String>>, sign: &impl Fn(Value) -> String) -> bool {
    client.set_read_timeout(Some(deadline())).unwrap();
    let mut lines = BufReader::new(client.try_clone().unwrap()).lines();
    let first = lines.next().and_then(Result::ok).unwrap_or_default();
    if first == "END" {
        return false;
    }
    let basic = format!("basic {}", BASE64_STANDARD.encode(format!("{USER}:{PASSWORD}")));
    let headers: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let credentials = headers.iter().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("authorization").then(|| value.trim().to_string())
    });
    let known = credentials.as_ref().is_some_and(|found| found.eq_ignore_ascii_case(&basic));
    let query = first.split(' ').nth(1).and_then(|path| path.split_once('?')).map_or("", |(_, query)| query);
    let scopes: Vec<String> =
        query.split('&').filter_map(|word| word.strip_prefix("scope=")).map(decoded).collect();
    let who = if known { USER } else { "anonymous" };
    log.lock().unwrap().push(format!("{who} {}", scopes.join(" ")));
    let (status, body) = match credentials.is_some() && !known {
        true => ("401 Unauthorized", json!({"details": "incorrect username or password"})),
        false => ("200 OK", json!({"token": sign(claims(who, &scopes)), "expires_in": 300})),
    };
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let mut client = client;
    let _ = client.write_all(format!("{head}{body}").as_bytes());
    true
}

fn claims(who: &str, scopes: &[String]) -> Value {
    let access: Vec<Value> = scopes
        .iter()
        .flat_map(|scope| scope.split(' '))
        .filter_map(|scope| {
            let mut parts = scope.splitn(2, ':');
            let kind = parts.next()?;
            let (name, actions) = parts.next()?.rsplit_once(':')?;
            let may = |action: &&str| who == USER || (*action == "pull" && !name.starts_with("private/"));
            let actions: Vec<&str> = actions.split(',').filter(may).collect();
            Some(json!({"type": kind, "name": name, "actions": actions}))
        })
        .collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    json!({"iss": ISSUER, "sub": who, "aud": SERVICE, "exp": now + 300, "nbf": now - 10, "iat": now,
        "jti": format!("{now}"), "access": access})
}

/// What `%3A` and `+` mean in a query.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = [rest.next().unwrap_or(b'0'), rest.next().unwrap_or(b'0')];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
            }
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).unwrap()
}

/// Runs a tool that must succeed; what it wrote to stdout.
pub fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap_or_else(|error| {
        panic!("{:?}: {error}; apt-get install docker-registry skopeo umoci", command.get_program())
    });
    assert!(output.status.success(), "{command:?}: {}", said(&output));
    output.stdout
}
