//! What a published port costs: the same server, nginx, asked on the host without a container,
//! by DNAT, and through the copying loop. In the VM, whose image has it: vm/bench.sh ports.
//!
//! Each round of each contender is one `ab` with 100 requests, each of which is a connection of
//! its own. So the ratio of times is that of throughputs, the other way round.
#![allow(clippy::unwrap_used, missing_docs)]

#[allow(dead_code)]
mod turns;

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use turns::Turns;

const LAYERS: [&str; 2] = ["/rootfs/servers", "/rootfs/debian"];
const LIBRARIES: &str = "/rootfs/servers/usr/lib/x86_64-linux-gnu:/rootfs/debian/usr/lib/x86_64-linux-gnu";
const STATE: &str = "/var/lib/bench-ports";
/// An address of the host.
const HOST: &str = "192.0.2.1";

fn main() {
    assert!(Path::new(LAYERS[0]).is_dir(), "{} is missing: this runs in the VM", LAYERS[0]);
    let _ = Command::new("ip").args(["address", "add", &format!("{HOST}/32"), "dev", "lo"]).status();
    fs::create_dir_all(format!("{STATE}/srv")).unwrap();
    fs::write(format!("{STATE}/srv/index.html"), [b'x'; 600]).unwrap();
    let mut direct = nginx_on_the_host();
    let container = nginx_in_a_container();
    for port in [9000, 8080] {
        wait_for(port);
    }
    let rounds = std::env::var("BENCH_ROUNDS").map_or(20, |rounds| rounds.parse().unwrap());
    let mut turns = Turns::new(rounds, Duration::from_millis(10));
    turns.add("direct", ab(&format!("http://{HOST}:9000/")));
    turns.add("DNAT", ab(&format!("http://{HOST}:8080/")));
    turns.add("copying loop", ab("http://127.0.0.1:8080/"));
    turns.measure();
    turns.report("100 requests to nginx, 10 at a time, a connection each");
    let share = |name| 1.0 / turns.ratio(name, "direct").unwrap();
    println!(
        "throughput, of the server's without a container: DNAT {:.2}, copying loop {:.2}",
        share("DNAT"),
        share("copying loop")
    );
    assert!(tiny_docker(&["rm", "-f", &container]).status().unwrap().success());
    let _ = tiny_docker(&["network", "rm"]).status();
    direct.kill().unwrap();
    direct.wait().unwrap();
}

fn ab(url: &str) -> Command {
    let mut command = Command::new("/rootfs/servers/usr/bin/ab");
    command.env("LD_LIBRARY_PATH", LIBRARIES).args(["-q", "-n", "100", "-c", "10", url]);
    command.stdout(std::process::Stdio::null());
    command
}

/// nginx's configuration, for a port and a directory.
fn configuration(port: u16, pages: &str) -> String {
    let file = format!("{STATE}/{port}.conf");
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path /tmp/{port}-{name};"));
    let text = format!(
        "worker_processes 2; daemon off; pid /tmp/{port}.pid; error_log stderr; events {{}}
         http {{ access_log off; {} server {{ listen {port} backlog=1024; root {pages}; }} }}",
        temporary.concat()
    );
    fs::write(&file, text).unwrap();
    file
}

fn nginx_on_the_host() -> Child {
    let file = configuration(9000, &format!("{STATE}/srv"));
    let mut nginx = Command::new("/rootfs/servers/usr/sbin/nginx");
    nginx.env("LD_LIBRARY_PATH", LIBRARIES).args(["-e", "stderr", "-c", &file]).spawn().unwrap()
}

fn nginx_in_a_container() -> String {
    let file = configuration(8080, "/srv");
    let (config, pages) = (format!("{file}:/nginx.conf:ro"), format!("{STATE}/srv:/srv:ro"));
    let words = ["run", "-d", "-p", "8080:8080", "--layer", LAYERS[0], "--layer", LAYERS[1]];
    let server = ["-v", &config, "-v", &pages, "nginx", "-e", "stderr", "-c", "/nginx.conf"];
    let output = tiny_docker(&[&words[..], &server].concat()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_string()
}

fn tiny_docker(words: &[&str]) -> Command {
    let mut command = Command::new("tiny-docker");
    command.env("TINY_DOCKER_ROOT", format!("{STATE}/state")).args(words);
    command
}

fn wait_for(port: u16) {
    let start = Instant::now();
    while TcpStream::connect((HOST, port)).is_err() {
        assert!(start.elapsed() < Duration::from_secs(60), "nginx does not answer at port {port}");
        sleep(Duration::from_millis(20));
    }
}
