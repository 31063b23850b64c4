//! What a published port costs: the same server, nginx, asked on the host without a container,
//! by DNAT, and through the copying loop. In the VM, whose image has it: vm/bench.sh ports.
//!
//! Each turn is one `ab` with 500 requests (of large pages 50), 10 at a time, of which none may
//! fail; the figure is what `ab` itself has measured, without its own start. All take turns,
//! forwards and backwards. In a turn each is compared with the server without a container, asked
//! from the same place in the same way; the result is the median of all turns. After 20 turns
//! these are 10,000 requests each.
#![allow(clippy::unwrap_used, missing_docs)]

#[allow(dead_code)]
mod turns;

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use turns::at;

const LAYERS: [&str; 2] = ["/rootfs/servers", "/rootfs/debian"];
const LIBRARIES: &str = "/rootfs/servers/usr/lib/x86_64-linux-gnu:/rootfs/debian/usr/lib/x86_64-linux-gnu";
const STATE: &str = "/var/lib/bench-ports";
/// An address of the host, on the cable to the outside.
const HOST: &str = "192.0.2.1";
/// What is asked for in one turn: in words, which page, and with which flags of `ab`.
const KINDS: [(&str, &str, [&str; 3]); 3] = [
    ("pages of 600 bytes, a connection each", "", ["-n", "500", "-q"]),
    ("pages of 600 bytes, kept connections", "", ["-n", "500", "-k"]),
    ("pages of 1 MB, a connection each", "large", ["-n", "50", "-q"]),
];
/// The first turns fill caches, and do not count.
const WARM_UP: usize = 2;

/// Somebody who asks: from where, by which address and port, and what for.
struct Contender {
    name: &'static str,
    from: &'static str,
    url: String,
    /// Whose throughput this one's is compared with: its place in the list.
    direct: usize,
    /// The smallest share of that throughput that is enough, from the environment.
    limit: Option<&'static str>,
    /// Requests a second, turn by turn.
    throughput: Vec<f64>,
}

fn main() {
    assert!(Path::new(LAYERS[0]).is_dir(), "{} is missing: this runs in the VM", LAYERS[0]);
    sh(&format!(
        "ip netns add outside && ip link add td-out type veth peer name eth0 netns outside &&
         ip addr add {HOST}/24 dev td-out && ip link set td-out up && ip -n outside link set lo up &&
         ip -n outside addr add 192.0.2.2/24 dev eth0 && ip -n outside link set eth0 up"
    ));
    fs::create_dir_all(format!("{STATE}/srv")).unwrap();
    fs::write(format!("{STATE}/srv/index.html"), [b'x'; 600]).unwrap();
    fs::write(format!("{STATE}/srv/large"), vec![b'x'; 1_000_000]).unwrap();
    let mut direct = nginx_on_the_host();
    let container = nginx_in_a_container();
    for port in [9000, 8080] {
        wait_for(port);
    }
    let turns = std::env::var("BENCH_ROUNDS").map_or(20, |turns| turns.parse().unwrap());
    let mut enough = true;
    for (title, page, flags) in KINDS {
        let mut contenders = contenders();
        for turn in 0..WARM_UP + turns {
            measure(&mut contenders, page, flags, turn);
        }
        println!("{title}, {} requests to nginx, 10 at a time: the median of {turns} turns", flags[1]);
        enough &= report(&contenders);
    }
    assert!(tiny_docker(&["rm", "-f", &container]).status().unwrap().success());
    let _ = tiny_docker(&["network", "rm"]).status();
    direct.kill().unwrap();
    direct.wait().unwrap();
    assert!(enough, "a published port costs more than it may");
}

fn contenders() -> Vec<Contender> {
    let (server, published) = (format!("http://{HOST}:9000/"), format!("http://{HOST}:8080/"));
    let (dnat, copied) = (Some("BENCH_DNAT_LIMIT"), Some("BENCH_LOOP_LIMIT"));
    let all = [
        ("direct", "the host", server.clone(), 0, None),
        ("DNAT", "the host", published.clone(), 0, dnat),
        ("direct, loopback", "the host", "http://127.0.0.1:9000/".into(), 2, None),
        ("copying loop", "the host", "http://127.0.0.1:8080/".into(), 2, copied),
        ("direct", "outside", server, 4, None),
        ("DNAT", "outside", published, 4, dnat),
    ];
    all.into_iter()
        .map(|(name, from, url, direct, limit)| {
            let throughput = vec![];
            Contender { name, from, url, direct, limit, throughput }
        })
        .collect()
}

/// One turn of everybody.
fn measure(contenders: &mut [Contender], page: &str, flags: [&str; 3], turn: usize) {
    let last = contenders.len() - 1;
    for place in 0..=last {
        let contender = &mut contenders[if turn.is_multiple_of(2) { place } else { last - place }];
        sleep(Duration::from_millis(10));
        let throughput = ab(contender, page, flags);
        if turn >= WARM_UP {
            contender.throughput.push(throughput);
        }
    }
}

/// Requests a second.
fn ab(contender: &Contender, page: &str, flags: [&str; 3]) -> f64 {
    let mut command = Command::new("ip");
    match contender.from {
        "outside" => command.args(["netns", "exec", "outside", "/rootfs/servers/usr/bin/ab"]),
        _ => {
            command = Command::new("/rootfs/servers/usr/bin/ab");
            &mut command
        }
    };
    command.env("LD_LIBRARY_PATH", LIBRARIES).args(["-q", "-c", "10"]).args(flags);
    let output = command.arg(format!("{}{page}", contender.url)).output().unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    let number = |name: &str| {
        let line = report.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok())
    };
    let complete =
        number("Complete requests:") == flags[1].parse().ok() && number("Failed requests:") == Some(0.0);
    let (name, errors) = (contender.name, String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && complete, "{name}: {report}{errors}");
    number("Requests per second:").unwrap_or_else(|| panic!("{name}: {report}"))
}

/// A line for each. Returns whether each has what it must have at least.
fn report(contenders: &[Contender]) -> bool {
    println!(
        "{:<18} {:<10} {:>12} {:>8} {:>8} {:>8}",
        "", "asked from", "requests/s", "share", "10 %", "90 %"
    );
    let mut enough = true;
    for Contender { name, from, direct, limit, throughput, .. } in contenders {
        let own = throughput.iter().zip(&contenders[*direct].throughput);
        let shares: Vec<f64> = own.map(|(own, direct)| own / direct).collect();
        let [share, low, high] = [0.5, 0.1, 0.9].map(|share| at(share, shares.clone()));
        let median = at(0.5, throughput.clone());
        println!("{name:<18} {from:<10} {median:>12.0} {share:>8.2} {low:>8.2} {high:>8.2}");
        let least = limit.and_then(|variable| std::env::var(variable).ok()?.parse::<f64>().ok());
        if let Some(least) = least.filter(|least| share < *least) {
            println!("    {name}, asked from {from}: {share:.2} is less than {least}");
            enough = false;
        }
    }
    enough
}

fn sh(script: &str) {
    let output = Command::new("bash").args(["-c", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
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
