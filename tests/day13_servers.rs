//! Day 13: servers that people know, from Debian's packages, as containers with published ports:
//! nginx, Redis, PostgreSQL. Each has a user of its own, and a volume.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use common::outside::{HOST, Outside};
use common::{World, rootfs, said, until};

/// Where a client is, and by which address it reaches the host.
const WAYS: [(&str, &str); 4] = [("host", "127.0.0.1"), ("host", "::1"), ("host", HOST), ("outside", HOST)];

/// Runs a client of the servers' packages, on the host or outside.
fn client(place: &str, program: &str, words: &[&str]) -> Output {
    let libraries = ["servers", "debian"].map(|name| rootfs(name).join("usr/lib/x86_64-linux-gnu"));
    let libraries = libraries.map(|dir| dir.to_str().unwrap().to_string()).join(":");
    let program = rootfs("servers").join(program);
    let mut command = match place {
        "outside" => {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", "outside"]).arg(program);
            command
        }
        _ => Command::new(program),
    };
    command.env("LD_LIBRARY_PATH", libraries).env("LC_ALL", "C").args(words).output().unwrap()
}

/// What it prints, and it must succeed.
#[track_caller]
fn asked(place: &str, program: &str, words: &[&str]) -> String {
    let output = client(place, program, words);
    assert!(output.status.success(), "{program} {words:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap().trim().to_string()
}

/// `run` of a server with `flags`, and `command`. Its id, or what it prints without -d.
#[track_caller]
fn run(world: &World, flags: &[&str], command: &[&str]) -> String {
    let (servers, debian) = (rootfs("servers"), rootfs("debian"));
    let layers = ["run", "--layer", servers.to_str().unwrap(), "--layer", debian.to_str().unwrap()];
    let output = world.tiny_docker([&layers, flags, command].concat()).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8(output.stdout).unwrap().trim_end().to_string()
}

const NGINX: &str = "worker_processes 2; daemon off; pid /tmp/nginx.pid; error_log stderr;
events { worker_connections 1024; }
http {
    access_log off;
    client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
    server { listen 8000 backlog=1024; root /srv; }
}";

/// nginx, published at port 8080; its page is in a volume. The id.
fn nginx(world: &World) -> String {
    let file = world.dir().join("nginx.conf");
    fs::write(&file, NGINX).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let config = format!("{}:/etc/nginx.conf:ro", file.display());
    run(world, &["-v", "pages:/srv"], &["sh", "-c", "echo hello from nginx >/srv/index.html"]);
    let flags = ["-d", "-u", "www-data", "-p", "8080:8000", "-v", "pages:/srv:ro", "-v", &config];
    let id = run(world, &flags, &["nginx", "-e", "stderr", "-c", "/etc/nginx.conf"]);
    until("nginx answers", || {
        client("host", "usr/bin/ab", &["-n", "1", "http://127.0.0.1:8080/"]).status.success()
    });
    id
}

/// Has `ab` make `count` requests, 10 at a time, each of which must succeed. `connections`: one
/// for each of them (`&[]`), or one for many (`&["-k"]`).
#[track_caller]
fn load(place: &str, count: &str, connections: &[&str], url: &str) {
    let words = [&["-q", "-n", count, "-c", "10", "-s", "120"], connections, &[url]].concat();
    let report = asked(place, "usr/bin/ab", &words);
    let number = |name: &str| {
        let line = report.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().next().unwrap_or("0").to_string()
    };
    assert_eq!(number("Complete requests:"), count, "{url}: {report}");
    assert_eq!(number("Failed requests:"), "0", "{url}: {report}");
    assert_eq!(number("Non-2xx responses:"), "0", "{url}: {report}");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_long_nginx_answers_ten_thousand_requests_on_every_way() {
    let world = World::new();
    let _outside = Outside::new();
    let id = nginx(&world);
    for url in ["http://127.0.0.1:8080/", "http://192.0.2.1:8080/"] {
        load("host", "10000", &["-k"], url);
        load("host", "500", &[], url);
    }
    load("host", "100", &[], "http://[::1]:8080/");
    load("outside", "500", &[], "http://192.0.2.1:8080/");
    let processes = world.tiny_docker(["ps"]).output().unwrap();
    assert!(said(&processes).contains("8080->8000/tcp"), "{}", said(&processes));
    world.tiny_docker(["stop", &id]).assert().success();
    world.tiny_docker(["rm", &id]).assert().success();
    let refused = client("host", "usr/bin/ab", &["-n", "1", "http://127.0.0.1:8080/"]);
    assert!(said(&refused).contains("Connection refused"), "once it has stopped: {}", said(&refused));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_long_redis_keeps_its_data_over_a_stop_and_a_new_run() {
    let world = World::new();
    let _outside = Outside::new();
    let flags = ["-d", "-u", "redis", "-p", "6379:6379", "-v", "redis:/var/lib/redis"];
    let command =
        ["redis-server", "--dir", "/var/lib/redis", "--appendonly", "yes", "--protected-mode", "no"];
    let ask = |place: &str, host: &str, words: &[&str]| {
        asked(place, "usr/bin/redis-cli", &[&["-h", host, "-p", "6379"], words].concat())
    };
    let start = || {
        let id = run(&world, &flags, &command);
        until("Redis answers", || {
            let pong = client("host", "usr/bin/redis-cli", &["ping"]);
            String::from_utf8_lossy(&pong.stdout).trim() == "PONG"
        });
        id
    };
    let first = start();
    for (number, (place, host)) in WAYS.iter().enumerate() {
        assert_eq!(
            ask(place, host, &["set", &format!("key{number}"), place]),
            "OK",
            "from {place} by {host}"
        );
    }
    let said = asked("host", "usr/bin/redis-benchmark", &["-q", "-n", "10000", "-c", "50", "-t", "set,get"]);
    assert!(said.contains("GET:") && !said.contains("rror"), "{said}");
    world.tiny_docker(["stop", &first]).assert().success();
    world.tiny_docker(["rm", &first]).assert().success();
    let second = start();
    for (number, (place, host)) in WAYS.iter().enumerate() {
        assert_eq!(
            ask(place, host, &["get", &format!("key{number}")]),
            *place,
            "kept over a stop, by {host}"
        );
    }
    world.tiny_docker(["rm", "-f", &second]).assert().success();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_long_postgresql_keeps_its_data_over_a_stop_and_a_new_run() {
    const BIN: &str = "/usr/lib/postgresql/15/bin";
    let world = World::new();
    let _outside = Outside::new();
    let volume = ["-u", "postgres", "-v", "postgres:/var/lib/postgresql"];
    let init = format!(
        "{BIN}/initdb -D ~/data -A trust --no-sync --no-locale -E UTF8 && \
         echo host all all all trust >>~/data/pg_hba.conf"
    );
    // Published from the first, though nobody listens yet: what cannot be is said before the work.
    let flags = [&["-p", "5432:5432"][..], &volume].concat();
    run(&world, &flags, &["sh", "-c", &init]);
    let server = format!("exec {BIN}/postgres -D ~/data -k /tmp -c listen_addresses='*'");
    let psql = "usr/lib/postgresql/15/bin/psql";
    let ask = |place: &str, host: &str, query: &str| {
        client(place, psql, &["-h", host, "-U", "postgres", "-d", "postgres", "-tAqc", query])
    };
    let start = || {
        let flags = [&["-d", "-p", "5432:5432", "--stop-signal", "INT"][..], &volume].concat();
        let id = run(&world, &flags, &["sh", "-c", &server]);
        until("PostgreSQL answers", || ask("host", "127.0.0.1", "select 1").status.success());
        id
    };
    let first = start();
    let made = ask("host", "127.0.0.1", "create table notes (place text, host text)");
    assert!(made.status.success(), "{}", said(&made));
    for (place, host) in WAYS {
        let query = format!("insert into notes values ('{place}', '{host}')");
        let output = ask(place, host, &query);
        assert!(output.status.success(), "from {place} by {host}: {}", said(&output));
    }
    let bench = "usr/lib/postgresql/15/bin/pgbench";
    let words = ["-h", "127.0.0.1", "-U", "postgres", "-i", "-q", "postgres"];
    asked("host", bench, &words);
    let words = ["-h", HOST, "-U", "postgres", "-S", "-c", "4", "-t", "250", "postgres"];
    let report = asked("host", bench, &words);
    assert!(report.contains("1000/1000"), "{report}");
    world.tiny_docker(["stop", &first]).assert().success();
    world.tiny_docker(["rm", &first]).assert().success();
    let second = start();
    for (place, host) in WAYS {
        let output = ask(place, host, "select count(*) from notes");
        assert_eq!(
            String::from_utf8_lossy(&output.stdout).trim(),
            "4",
            "from {place} by {host}: {}",
            said(&output)
        );
    }
    world.tiny_docker(["rm", "-f", &second]).assert().success();
}
