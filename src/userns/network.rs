//! Day 17: how the network of a person reaches the world. Nobody but root can connect it to the host's:
//! a cable has two ends, and one would be on the host. So a program of the person's own does what any
//! program may: slirp4netns reads packets from a network device inside, and does outside, with its own
//! sockets, what they ask for. In there, the bridge of day 9 and the ports of day 13 are as ever.
//!
//! ```text
//! host     slirp4netns ── sockets ── the world
//!               │  tap0, 10.0.2.100                    -p: a port of the host's is a port of tap0's
//! person    NAT ┴── td0 ── containers
//! ```

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::error::{self, Result};
use crate::explain::step;
use crate::kernel;
use crate::plan::PublishedPort;
use crate::ports;
use crate::wait::{PATIENCE, readable};

use super::DAY;
use super::place::data_dir;

/// By which slirp4netns takes orders.
const SOCKET: &str = "network.sock";

// ANCHOR: connect
/// Starts what connects the network namespace of `holder`, until that process ends: then `end` does. If it
/// is not installed, containers reach each other and nobody else, which is said.
pub fn connect_to_the_world(holder: Pid, end: OwnedFd, dir: &Path) -> Result<()> {
    let _ = fs::remove_file(dir.join(SOCKET));
    let log = dir.join("network.log");
    let errors = File::create(&log).with_context(|| format!("make {log:?}"))?;
    let mut slirp = Command::new("slirp4netns");
    slirp.args(["--configure", "--mtu=65520", "--disable-host-loopback", "--exit-fd=0", "--ready-fd=1"]);
    // The path of a socket has 108 bytes at most, and that of `dir` any number. (unix(7))
    slirp.current_dir(dir).args(["--api-socket", SOCKET, &holder.to_string(), "tap0"]);
    // A group of its own: no Ctrl-C at a command's terminal reaches it.
    slirp.stdin(Stdio::from(end)).stdout(Stdio::piped()).stderr(errors).process_group(0);
    kernel::keep_only_the_standard_streams(&mut slirp);
    let describe = || {
        let by_hand = format!("slirp4netns --configure --mtu=65520 --disable-host-loopback {holder} tap0 &");
        ("execve(\"slirp4netns\"): the way out".into(), by_hand)
    };
    let started = step(DAY, describe, || slirp.spawn());
    let mut started = match started {
        Ok(started) => started,
        Err(error) => {
            error::say(format!(
                "slirp4netns is not there ({error:#}), so containers reach each other and nobody else; install it, \
                 and end the process td-namespaces"
            ));
            return Ok(());
        }
    };
    let mut ready = started.stdout.take().context("slirp4netns has no stdout")?;
    readable(&ready, Some(PATIENCE), "slirp4netns to connect the network")?;
    if !matches!(ready.read(&mut [0]), Ok(1)) {
        let mut said = Vec::new();
        File::open(&log)?.take(4096).read_to_end(&mut said).with_context(|| format!("read {log:?}"))?;
        bail!("slirp4netns does not connect the network: {}", String::from_utf8_lossy(&said).trim());
    }
    Ok(())
}
// ANCHOR_END: connect

/// The host's ports that lead to one container. They are closed when this value goes.
#[derive(Debug, Default)]
pub struct Forwarded(Vec<u64>);

impl Forwarded {
    /// Without root: has `ports` lead into the person's network too, where day 13 has them already.
    pub fn open(ports: &[PublishedPort]) -> Result<Forwarded> {
        let mut forwarded = Forwarded::default();
        if ports::PASSED_ON.get().is_none() {
            return Ok(forwarded);
        }
        for port in ports {
            let (number, protocol) = (port.host_port, port.protocol);
            let address = match port.address.unwrap_or(Ipv4Addr::UNSPECIFIED.into()) {
                IpAddr::V4(address) => address,
                IpAddr::V6(address) => bail!(
                    "-p [{address}]:{number}: without root, slirp4netns takes ports of IPv4 alone; expected an \
                     address of IPv4, or none"
                ),
            };
            forget_the_dead(port)?;
            let arguments = json!({
                "proto": protocol.to_string(), "host_addr": address, "host_port": number, "guest_port": number
            });
            let answer = ask("add_hostfwd", &arguments).with_context(|| {
                format!(
                    "-p {number}: without root, expected a port of the host's that is free, and from 1024 on (or \
                     as sysctl net.ipv4.ip_unprivileged_port_start says)"
                )
            })?;
            forwarded.0.extend(answer["id"].as_u64());
        }
        Ok(forwarded)
    }
}

/// Closes what a `run` has left open that was killed. In the person's network the port is ours by now, so
/// whoever else had it is dead.
fn forget_the_dead(port: &PublishedPort) -> Result<()> {
    let open = ask("list_hostfwd", &json!({}))?;
    let protocol = port.protocol.to_string();
    for entry in open["entries"].as_array().into_iter().flatten() {
        if entry["proto"] == *protocol && entry["host_port"] == port.host_port {
            ask("remove_hostfwd", &json!({ "id": entry["id"] }))?;
        }
    }
    Ok(())
}

impl Drop for Forwarded {
    fn drop(&mut self) {
        for id in &self.0 {
            let _ = ask("remove_hostfwd", &json!({ "id": id }));
        }
    }
}

/// One order to slirp4netns. (slirp4netns(1), "API SOCKET")
fn ask(what: &str, arguments: &Value) -> Result<Value> {
    let order = json!({ "execute": what, "arguments": arguments }).to_string();
    let describe = || (format!("write({SOCKET}): {order}"), format!("echo '{order}' | nc -U {SOCKET}"));
    let answer = step(DAY, describe, || {
        let dir = File::open(data_dir()?).context("open the data directory")?;
        // The path of a socket has 108 bytes at most. (unix(7))
        let mut line = UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()))?;
        line.set_read_timeout(Some(Duration::from_secs(10)))?;
        line.write_all(order.as_bytes())?;
        line.shutdown(Shutdown::Write)?;
        let mut answer = String::new();
        line.take(1 << 16).read_to_string(&mut answer)?;
        Ok::<_, anyhow::Error>(answer)
    })?;
    let answer: Value = serde_json::from_str(answer.trim()).context("understand slirp4netns")?;
    match answer.get("error") {
        Some(error) => bail!("slirp4netns says {error}"),
        // A list comes as it is.
        None => Ok(answer.get("return").unwrap_or(&answer).clone()),
    }
}
