//! Day 13: published ports, behind the firewalls of other people. The rule sets have the form in
//! which the tools write them, without what has nothing to do with us.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use common::outside::{HOST, Outside, sh};
use common::{World, busybox, until};
use serde_json::Value;

/// Docker 28, with a container of its own at 172.17.0.2 that publishes 8088.
const DOCKER: &str = "iptables-restore <<'END'
*raw
:PREROUTING ACCEPT [0:0]
-A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8088 -j DNAT --to-destination 172.17.0.2:80
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:DOCKER - [0:0]
:DOCKER-BRIDGE - [0:0]
:DOCKER-CT - [0:0]
:DOCKER-FORWARD - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER ! -i docker0 -o docker0 -j DROP
-A DOCKER-BRIDGE -o docker0 -j DOCKER
-A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-FORWARD -j DOCKER-CT
-A DOCKER-FORWARD -j DOCKER-BRIDGE
-A DOCKER-FORWARD -i docker0 -j ACCEPT
COMMIT
END";

/// ufw 0.36, which denies what comes in; and `ufw deny 8080`.
const UFW: &str = "iptables-restore <<'END'
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:ufw-before-input - [0:0]
:ufw-before-forward - [0:0]
:ufw-user-input - [0:0]
:ufw-user-forward - [0:0]
-A INPUT -j ufw-before-input
-A FORWARD -j ufw-before-forward
-A ufw-before-input -i lo -j ACCEPT
-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-input -m conntrack --ctstate INVALID -j DROP
-A ufw-before-input -j ufw-user-input
-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-forward -j ufw-user-forward
-A ufw-user-input -p tcp -m tcp --dport 8080 -j DROP
COMMIT
END";

/// iptables of either kind leaves its tables behind.
const NO_IPTABLES: &str =
    "for table in raw nat filter; do nft delete table ip $table 2>/dev/null || true; done";

/// firewalld 1.3: the zone public, with the interface to the outside in it. What stands in
/// DNAT's place is the word about it.
fn firewalld(dnat: &str) -> String {
    format!(
        "nft -f - <<'END'
table inet firewalld {{
    chain filter_INPUT {{
        type filter hook input priority filter + 10; policy accept;
        ct state {{ established, related }} accept
        ct status dnat accept
        iifname \"lo\" accept
        ct state invalid drop
        reject with icmpx admin-prohibited
    }}
    chain filter_FORWARD {{
        type filter hook forward priority filter + 10; policy accept;
        ct state {{ established, related }} accept
        ct status dnat {dnat}
        iifname \"lo\" accept
        ct state invalid drop
        jump filter_FORWARD_ZONES
        reject with icmpx admin-prohibited
    }}
    chain filter_FORWARD_ZONES {{
        iifname \"td-out\" goto filter_FWD_public
        goto filter_FWD_public
    }}
    chain filter_FWD_public {{
        jump filter_FWD_public_allow
        reject with icmpx admin-prohibited
    }}
    chain filter_FWD_public_allow {{
        oifname \"td-out\" accept
    }}
    chain filter_FORWARD_dnat {{
        reject with icmpx admin-prohibited
    }}
}}
END"
    )
}

const NO_FIREWALLD: &str = "nft delete table inet firewalld";

/// A chain of somebody's own.
fn chain(hook: &str, policy: &str, rules: &str) -> String {
    format!(
        "nft 'add table inet theirs; add chain inet theirs {hook} {{ type filter hook {hook} priority -10; policy {policy}; }}'
         nft -f - <<'END'
table inet theirs {{
    chain {hook} {{
        {rules}
    }}
}}
END"
    )
}

const NO_CHAIN: &str = "nft delete table inet theirs";

/// What a server says, asked for its name; nothing, if no answer comes.
fn ask(server: &str) -> String {
    let answer = || -> io::Result<String> {
        let patience = Duration::from_secs(5);
        let mut stream = TcpStream::connect_timeout(&server.parse::<SocketAddr>().unwrap(), patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(b"GET /hostname HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.split_once("\r\n\r\n").unwrap_or_default().1.trim_end().to_string())
    };
    answer().unwrap_or_default()
}

/// What came of a published port behind a firewall.
#[derive(Debug)]
struct Seen {
    /// Asked from outside, at the host's address.
    outside: String,
    /// Asked by the host, at its own address and at 127.0.0.1.
    host: String,
    loopback: String,
    /// What doctor says of firewalls: all its words.
    doctor: String,
    /// Whether it left the rules of others as they were.
    left: bool,
}

/// A firewall that is there; and the commands that take it away, also when a test fails.
struct Loaded<'a>(&'a str);

impl Drop for Loaded<'_> {
    fn drop(&mut self) {
        let _ = sh(self.0);
    }
}

/// Loads a firewall, publishes a port, and looks who reaches it; takes all of it away again.
fn behind(load: &str, unload: &str) -> Seen {
    let world = World::new();
    let outside = Outside::new();
    let loaded = Loaded(unload);
    sh(load).unwrap_or_else(|error| panic!("load a firewall: {error}"));
    // What is theirs, without ours, and without what counts.
    let theirs = || sh("nft --stateless list ruleset").unwrap();
    let before = theirs();
    let rootfs = busybox();
    let flags = ["run", "-d", "--hostname", "box", "-p", "8080:80", "--rootfs", rootfs.to_str().unwrap()];
    let server = ["httpd", "-f", "-p", "80", "-h", "/etc"];
    world.tiny_docker([&flags[..], &server[..]].concat()).assert().success();
    // The loop is not behind the chains at forward.
    until("the server answers at 127.0.0.1", || ask("127.0.0.1:8080") == "box");
    let doctor = world.tiny_docker(["doctor", "--json"]).output().unwrap();
    let findings: Vec<Value> = serde_json::from_slice(&doctor.stdout).unwrap();
    // A table of iptables-legacy stays once it is there, also when it is empty.
    let of_firewalls = findings.iter().filter(|one| {
        one["verdict"] != "ok"
            && one["check"].as_str().is_some_and(|check| {
                check == "firewalls" || (load.contains("legacy") && check == "other firewalls")
            })
    });
    let doctor = of_firewalls.map(|one| format!("{} {}", one["found"], one["mend"])).collect();
    let from_outside = outside.does(|| ask(&format!("{HOST}:8080")));
    let (host, loopback) = (ask(&format!("{HOST}:8080")), ask("127.0.0.1:8080"));
    world.remove_all();
    world.tiny_docker(["network", "rm"]).assert().success();
    let left = before == theirs();
    drop(loaded);
    Seen { outside: from_outside, host, loopback, doctor, left }
}

/// Everybody gets in, and doctor has nothing to say.
fn all_get_in(name: &str, load: &str, unload: &str) {
    let seen = behind(load, unload);
    let reached = [&seen.outside, &seen.host, &seen.loopback];
    assert!(reached.iter().all(|name| *name == "box"), "behind {name}: {seen:?}");
    assert_eq!(seen.doctor, "", "what doctor says behind {name}");
    assert!(seen.left, "the rules of {name} are not what they were");
}

/// Nobody outside gets in; doctor says `why`. The host itself does.
fn outside_is_kept_out(name: &str, load: &str, unload: &str, why: &str) {
    let seen = behind(load, unload);
    assert_eq!(seen.outside, "", "whom the outside reaches behind {name}");
    assert!(seen.host == "box" && seen.loopback == "box", "what the host reaches behind {name}: {seen:?}");
    assert!(seen.doctor.contains(why), "doctor behind {name}: {:?} does not say {why:?}", seen.doctor);
    assert!(seen.left, "the rules of {name} are not what they were");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_behind_docker_a_published_port_is_open() {
    all_get_in("Docker", DOCKER, NO_IPTABLES);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_behind_ufw_a_published_port_is_open_whatever_it_denies() {
    all_get_in("ufw", UFW, NO_IPTABLES);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_behind_firewalld_what_is_redirected_may_pass_unless_it_is_strict() {
    let seen = behind(&firewalld("accept"), NO_FIREWALLD);
    let reached = [&seen.outside, &seen.host, &seen.loopback];
    assert!(reached.iter().all(|name| *name == "box"), "behind firewalld: {seen:?}");
    // That its chain ends with a reject is said, and that is all there is to know.
    assert!(seen.doctor.contains("inet firewalld filter_FORWARD"), "doctor: {}", seen.doctor);
    assert!(
        seen.doctor.contains("firewall-cmd --zone=trusted --add-interface=td0"),
        "doctor: {}",
        seen.doctor
    );
    assert!(seen.left, "the rules of firewalld are not what they were");
    let strict = firewalld("jump filter_FORWARD_dnat");
    outside_is_kept_out("a strict firewalld", &strict, NO_FIREWALLD, "inet firewalld filter_FORWARD");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_behind_a_chain_that_drops_by_policy_a_published_port_is_open() {
    all_get_in("a policy", &chain("forward", "drop", "tcp dport 22 accept"), NO_CHAIN);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_behind_a_last_rule_that_drops_nobody_gets_in_and_doctor_names_the_chain() {
    for rule in ["counter drop", "log prefix \"no: \" reject"] {
        let theirs = chain("forward", "accept", &format!("ct state established,related accept; {rule}"));
        outside_is_kept_out(rule, &theirs, NO_CHAIN, "inet theirs forward refuses");
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_behind_a_drop_before_the_translation_nobody_gets_in() {
    let all = chain(
        "prerouting",
        "drop",
        "ct state established,related accept; iifname { \"lo\", \"td0\" } accept",
    );
    // (At -10 it is behind the translation, which is at -100.)
    let all = all.replace("priority -10", "priority raw");
    let all = all.replace("ct state established,related accept; ", "tcp dport != 8080 accept; ");
    outside_is_kept_out(
        "a drop at prerouting",
        &all,
        NO_CHAIN,
        "inet theirs prerouting refuses at prerouting",
    );
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_behind_iptables_legacy_nobody_gets_in_and_doctor_says_what_to_do() {
    // Its lock would be a file that stays. (iptables(8), XTABLES_LOCKFILE)
    let policy = |policy| format!("XTABLES_LOCKFILE=/dev/null iptables-legacy -P FORWARD {policy}");
    let (load, unload) = (&policy("DROP"), &policy("ACCEPT"));
    outside_is_kept_out("iptables-legacy", load, unload, "iptables-legacy -I FORWARD -i td0 -j ACCEPT");
}
