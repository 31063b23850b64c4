//! A server of a test's own that hands out a layout as a registry does, over plain HTTP, and
//! does wrong what the test asks it to.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

use serde_json::Value;

use super::layout::{Layout, sha256};

/// A request.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    /// How many with this method and path came before.
    pub before: usize,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn is_blob(&self) -> bool {
        self.path.contains("/blobs/")
    }
}

/// What the server does.
#[derive(Debug, Clone)]
pub enum Answer {
    /// As a registry.
    Honest,
    /// The same, but it knows nothing of ranges.
    Whole,
    /// So many bytes of it; then it hangs up.
    Cut(usize),
    /// So many bytes of it; then it is silent.
    Stuck(usize),
    /// Nothing at all.
    Silent,
    /// A status, headers and a body.
    Say(&'static str, Vec<String>, Vec<u8>),
    /// A status and headers, and zeros without end.
    Endless(&'static str, Vec<String>),
}

type Decide = dyn Fn(&Asked) -> Answer + Send + Sync;

pub struct Shelf {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What the threads of a server share.
struct Desk {
    dir: PathBuf,
    asked: Arc<Mutex<Vec<Asked>>>,
    over: Arc<AtomicBool>,
    decide: Box<Decide>,
}

impl Shelf {
    /// Hands out what is in `layout`, by the tags that it has there, in every repository.
    pub fn open(layout: &Layout, decide: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Shelf {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, over) = (Arc::default(), Arc::default());
        let desk = Arc::new(Desk {
            dir: layout.dir.clone(),
            asked: Arc::clone(&asked),
            over: Arc::clone(&over),
            decide: Box::new(decide),
        });
        let thread = spawn(move || {
            let mut clients = Vec::new();
            for client in listener.incoming() {
                if desk.over.load(SeqCst) {
                    break;
                }
                let desk = desk.clone();
                clients.push(spawn(move || desk.serve(client.unwrap())));
            }
            clients.into_iter().for_each(|client| client.join().unwrap());
        });
        Shelf { address, asked, over, thread: Some(thread) }
    }

    /// The name of an image in it.
    pub fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.address)
    }

    /// All that it was asked for so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        self.over.store(true, SeqCst);
        let _ = TcpStream::connect(self.address);
        let ended = self.thread.take().unwrap().join();
        if ended.is_err() && !std::thread::panicking() {
            panic!("a thread of the server panicked");
        }
    }
}

impl Desk {
    fn serve(&self, mut client: TcpStream) {
        client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let Some(asked) = self.hear(&client) else { return };
        let (status, headers, body) = self.honest(&asked);
        let answer = (self.decide)(&asked);
        // Whoever is gone hears nothing, and that is what some tests want.
        let _ = match answer {
            Answer::Honest => reply(&mut client, &asked, &status, &headers, &body, usize::MAX),
            Answer::Whole => {
                let whole = Asked { headers: vec![], ..asked.clone() };
                let (status, headers, body) = self.honest(&whole);
                reply(&mut client, &asked, &status, &headers, &body, usize::MAX)
            }
            Answer::Cut(length) => reply(&mut client, &asked, &status, &headers, &body, length),
            Answer::Stuck(length) => {
                let sent = reply(&mut client, &asked, &status, &headers, &body, length);
                self.wait_for_the_end(&mut client);
                sent
            }
            Answer::Silent => {
                self.wait_for_the_end(&mut client);
                Ok(())
            }
            Answer::Say(status, headers, body) => {
                reply(&mut client, &asked, status, &headers, &body, usize::MAX)
            }
            Answer::Endless(status, headers) => self.pour(&mut client, status, &headers),
        };
    }

    /// A request; `None`: that was none. Whoever tries TLS first is hung up on.
    fn hear(&self, client: &TcpStream) -> Option<Asked> {
        let mut first = [0];
        while !self.over.load(SeqCst) {
            match client.peek(&mut first) {
                Ok(0) => return None,
                Ok(_) => break,
                Err(_) => {}
            }
        }
        if first[0] == 0x16 {
            return None;
        }
        let mut lines = BufReader::new(client).lines().map_while(Result::ok);
        let line = lines.next()?;
        let mut words = line.split(' ');
        let (method, path) = (words.next()?.to_string(), words.next()?.to_string());
        let headers = lines.take_while(|line| !line.is_empty()).filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_string(), value.trim().to_string()))
        });
        let headers = headers.collect();
        let mut all = self.asked.lock().unwrap();
        let before = all.iter().filter(|known| (&known.method, &known.path) == (&method, &path)).count();
        let asked = Asked { method, path, headers, before };
        all.push(asked.clone());
        Some(asked)
    }

    fn honest(&self, asked: &Asked) -> (String, Vec<String>, Vec<u8>) {
        let Some(bytes) = self.find(&asked.path) else {
            let body = br#"{"errors": [{"code": "UNKNOWN", "message": "there is nothing of this name"}]}"#;
            return ("404 Not Found".into(), vec!["Content-Type: application/json".into()], body.to_vec());
        };
        let mut headers = vec![format!("Docker-Content-Digest: {}", sha256(&bytes))];
        if asked.path.contains("/manifests/") {
            let json: Value = serde_json::from_slice(&bytes).unwrap();
            headers.push(format!("Content-Type: {}", json["mediaType"].as_str().unwrap()));
        }
        let range = asked.header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
        match range.map(|from| from.parse::<usize>().unwrap()) {
            Some(from) if from < bytes.len() => {
                headers.push(format!("Content-Range: bytes {from}-{}/{}", bytes.len() - 1, bytes.len()));
                ("206 Partial Content".into(), headers, bytes[from..].to_vec())
            }
            Some(_) => ("416 Range Not Satisfiable".into(), headers, vec![]),
            None => ("200 OK".into(), headers, bytes),
        }
    }

    fn find(&self, path: &str) -> Option<Vec<u8>> {
        let (_, wanted) = path.rsplit_once('/')?;
        let digest = if wanted.starts_with("sha256:") {
            wanted.to_string()
        } else {
            let index = fs::read(self.dir.join("index.json")).unwrap();
            let index: Value = serde_json::from_slice(&index).unwrap();
            let named = |found: &&Value| found["annotations"]["org.opencontainers.image.ref.name"] == wanted;
            index["manifests"].as_array()?.iter().find(named)?["digest"].as_str()?.to_string()
        };
        fs::read(self.dir.join("blobs/sha256").join(&digest[7..])).ok()
    }

    /// Until the client hangs up, or the test is over.
    fn wait_for_the_end(&self, client: &mut TcpStream) {
        let mut nothing = [0; 64];
        while !self.over.load(SeqCst) && !matches!(client.read(&mut nothing), Ok(0)) {
            sleep(Duration::from_millis(10));
        }
    }

    fn pour(&self, client: &mut TcpStream, status: &str, headers: &[String]) -> std::io::Result<()> {
        let headers = headers.join("\r\n");
        client
            .write_all(format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n\r\n").as_bytes())?;
        while !self.over.load(SeqCst) {
            client.write_all(&[0; 65536])?;
        }
        Ok(())
    }
}

/// Sends at most `length` bytes of `body`, though the header speaks of all.
fn reply(
    client: &mut TcpStream,
    asked: &Asked,
    status: &str,
    headers: &[String],
    body: &[u8],
    length: usize,
) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    headers.iter().for_each(|header| head.push_str(&format!("{header}\r\n")));
    client.write_all(format!("{head}\r\n").as_bytes())?;
    if asked.method == "HEAD" { Ok(()) } else { client.write_all(&body[..length.min(body.len())]) }
}
