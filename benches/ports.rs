//! What a published port costs: the same server, nginx, asked on the host without a container,
//! by DNAT, and through the copying loop. In the VM, whose image has it: vm/bench.sh ports.
//!
//! Each turn is one `ab` with 500 requests (of large pages 50), 10 at a time, of which none may
//! fail; the figure is what `ab` itself has measured, without its own start. All take turns,
//! forwards and backwards. In a turn each is compared with the server without a container, asked
//! from the same place in the same way; the result is the median of all turns. After 20 turns
//! these are 10,000 requests each.
//!
//! Two more contenders show the kernel's own share of that. One is the same server in a network
//! namespace made by hand, with a cable to a bridge as a container has one, asked by its own
//! address: its packets are routed, and not translated. The other is the same behind a rule of
//! DNAT written by hand.
//!
//! So each contender has two shares: of the direct server, which is on the host and has no such
//! cable, and of the nearest server that is as far away. BENCH_DNAT_LIMIT is for the second:
//! publishing a port cannot cost less than the way into a network namespace. BENCH_LOOP_LIMIT is
//! for the copying loop's share of the direct server. Both are for what `ab -n 10000 -c 10` does,
//! a connection for each page; the other kinds are shown.
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
/// The address of the namespace that is made by hand. Its bridge, floor0, is there.
const BOX: &str = "10.11.0.2";
/// What is asked for in one turn: in words, which page, and with which flags of `ab`. The
/// limits are for the first.
const KINDS: [(&str, &str, [&str; 3]); 3] = [
    ("pages of 8 KB, a connection each", "", ["-n", "500", "-q"]),
    ("pages of 8 KB, kept connections", "", ["-n", "500", "-k"]),
    ("pages of 1 MB, a connection each", "large", ["-n", "50", "-q"]),
];
/// The first turns fill caches, and do not count.
const WARM_UP: usize = 2;

/// Somebody who asks: from where, by which address and port, and what for.
struct Contender {
    name: &'static str,
    from: &'static str,
    url: String,
    /// Whose throughput this one's is compared with, by their places in the list: the direct
    /// server, and the one that is as far away.
    direct: usize,
    alike: usize,
    /// The smallest share of the latter's throughput that is enough, from the environment.
    limit: Option<&'static str>,
    /// Requests a second, turn by turn.
    throughput: Vec<f64>,
}

fn main() {
    assert!(Path::new(LAYERS[0]).is_dir(), "{} is missing: this runs in the VM", LAYERS[0]);
    make_cables();
    fs::create_dir_all(format!("{STATE}/srv")).unwrap();
    fs::write(format!("{STATE}/srv/index.html"), [b'x'; 8_000]).unwrap();
    fs::write(format!("{STATE}/srv/large"), vec![b'x'; 1_000_000]).unwrap();
    let servers = [nginx(&[], 9000), nginx(&["ip", "netns", "exec", "box"], 8081)];
    let container = nginx_in_a_container();
    for port in [9000, 8081, 8080] {
        wait_for(port);
    }
    forget_soon();
    let turns = std::env::var("BENCH_ROUNDS").map_or(20, |turns| turns.parse().unwrap());
    let mut enough = true;
    for (at, (title, page, flags)) in KINDS.into_iter().enumerate() {
        let mut contenders = contenders();
        contenders.iter_mut().filter(|_| at > 0).for_each(|contender| contender.limit = None);
        for turn in 0..WARM_UP + turns {
            measure(&mut contenders, page, flags, turn);
        }
        println!("{title}, {} requests to nginx, 10 at a time: the median of {turns} turns", flags[1]);
        enough &= report(&contenders);
    }
    assert!(tiny_docker(&["rm", "-f", &container]).status().unwrap().success());
    let _ = tiny_docker(&["network", "rm"]).status();
    for mut server in servers {
        server.kill().unwrap();
        server.wait().unwrap();
    }
    assert!(enough, "a published port costs more than it may");
}

/// The outside with its cable, and the namespace made by hand with its cable and its rule.
fn make_cables() {
    let rule = "fib daddr type local ip daddr != 127.0.0.0/8 dnat ip to meta l4proto . th dport map @ports";
    sh(&format!(
        "set -e
         ip netns add outside && ip link add td-out type veth peer name eth0 netns outside
         ip addr add {HOST}/24 dev td-out && ip link set td-out up && ip -n outside link set lo up
         ip -n outside addr add 192.0.2.2/24 dev eth0 && ip -n outside link set eth0 up
         ip -n outside route add 10.11.0.0/24 via {HOST}
         ip netns add box && ip link add td-box master floor0 up type veth peer name eth0 netns box
         ip -n box link set lo up && ip -n box addr add {BOX}/24 dev eth0 && ip -n box link set eth0 up
         ip -n box route add default via 10.11.0.1 && echo 1 >/proc/sys/net/ipv4/ip_forward
         nft -f - <<'RULES'
         table ip by-hand {{
             map ports {{
                 type inet_proto . inet_service : ipv4_addr . inet_service
                 elements = {{ tcp . 8081 : {BOX} . 8081 }}
             }}
             chain prerouting {{ type nat hook prerouting priority -100; {rule}; }}
             chain output {{ type nat hook output priority -100; {rule}; }}
         }}
RULES"
    ));
}

/// Conntrack remembers a connection for two minutes after its end, and on this machine it has
/// room for 65,536. What would begin one more is dropped, whoever's it is, and `ab` waits in vain
/// for its last answer. Some 500 connections a second are enough for that. (kernel:
/// networking/nf_conntrack-sysctl, nf_conntrack_max, nf_conntrack_tcp_timeout_time_wait)
fn forget_soon() {
    fs::write("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_time_wait", "5").unwrap();
}

fn contenders() -> Vec<Contender> {
    let (server, published) = (format!("http://{HOST}:9000/"), format!("http://{HOST}:8080/"));
    let (routed, by_hand) = (format!("http://{BOX}:8081/"), format!("http://{HOST}:8081/"));
    let (dnat, copied) = (Some("BENCH_DNAT_LIMIT"), Some("BENCH_LOOP_LIMIT"));
    let all = [
        ("direct", "the host", server.clone(), [0, 0], None),
        ("by hand, routed", "the host", routed.clone(), [0, 1], None),
        ("by hand, DNAT", "the host", by_hand.clone(), [0, 1], None),
        ("DNAT", "the host", published.clone(), [0, 1], dnat),
        ("direct, loopback", "the host", "http://127.0.0.1:9000/".into(), [4, 4], None),
        ("copying loop", "the host", "http://127.0.0.1:8080/".into(), [4, 4], copied),
        ("direct", "outside", server, [6, 6], None),
        ("by hand, routed", "outside", routed, [6, 7], None),
        ("by hand, DNAT", "outside", by_hand, [6, 7], None),
        ("DNAT", "outside", published, [6, 7], dnat),
    ];
    all.into_iter()
        .map(|(name, from, url, [direct, alike], limit)| {
            let throughput = vec![];
            Contender { name, from, url, direct, alike, limit, throughput }
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

/// A line for each: how many requests a second, and its two shares. In brackets: one turn in ten
/// had less than the first number, and one in ten more than the second. Returns whether each has
/// as much as it must have.
fn report(contenders: &[Contender]) -> bool {
    println!(
        "{:<18} {:<10} {:>12} {:>20} {:>20}",
        "", "asked from", "requests/s", "share of direct", "of as far away"
    );
    let mut enough = true;
    for contender in contenders {
        let Contender { name, from, direct, alike, limit, throughput, .. } = contender;
        let [of_direct, of_alike] = [direct, alike].map(|other| {
            let own = throughput.iter().zip(&contenders[*other].throughput);
            let shares: Vec<f64> = own.map(|(own, other)| own / other).collect();
            [0.5, 0.1, 0.9].map(|share| at(share, shares.clone()))
        });
        let [first, second] =
            [of_direct, of_alike].map(|[share, low, high]| format!("{share:.2} ({low:.2} to {high:.2})"));
        let median = at(0.5, throughput.clone());
        println!("{name:<18} {from:<10} {median:>12.0} {first:>20} {second:>20}");
        let least = limit.and_then(|variable| std::env::var(variable).ok()?.parse::<f64>().ok());
        if let Some(least) = least.filter(|least| of_alike[0] < *least) {
            println!("    {name}, asked from {from}: {:.2} is less than {least}", of_alike[0]);
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

/// Without a container; `within`: by which command.
fn nginx(within: &[&str], port: u16) -> Child {
    let file = configuration(port, &format!("{STATE}/srv"));
    let nginx = ["/rootfs/servers/usr/sbin/nginx", "-e", "stderr", "-c", &file];
    let words = [within, &nginx].concat();
    Command::new(words[0]).env("LD_LIBRARY_PATH", LIBRARIES).args(&words[1..]).spawn().unwrap()
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
