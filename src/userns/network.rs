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
use std::net::IpAddr;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
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
use crate::ids;
use crate::kernel;
use crate::plan::PublishedPort;

use super::DAY;
use super::place::{dir_of_this_namespace, of_this_namespace};

/// By which slirp4netns takes orders.
const SOCKET: &str = "network.sock";

// ANCHOR: connect
/// Starts what connects the network namespace of `holder`, until that process ends: then `end` does. If it
/// is not installed, containers reach each other and nobody else, which is said.
pub fn connect_to_the_world(holder: Pid, end: OwnedFd, dir: &Path) -> Result<()> {
    let socket = dir.join(SOCKET);
    let _ = fs::remove_file(&socket);
    let log = dir.join("network.log");
    let errors = File::create(&log).with_context(|| format!("make {log:?}"))?;
    let mut slirp = Command::new("slirp4netns");
    slirp.args(["--configure", "--mtu=65520", "--disable-host-loopback", "--exit-fd=0", "--ready-fd=1"]);
    slirp.arg("--api-socket").arg(&socket).arg(holder.to_string()).arg("tap0");
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
            error::say(&format!(
                "slirp4netns is not there ({error:#}), so containers reach each other and nobody else; install it, \
                 and end the process td-namespaces"
            ));
            return Ok(());
        }
    };
    let mut ready = [0];
    let told = started.stdout.take().map(|mut stdout| stdout.read(&mut ready));
    if !matches!(told, Some(Ok(1))) {
        bail!(
            "slirp4netns does not connect the network: {}",
            fs::read_to_string(&log).unwrap_or_default().trim()
        );
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
        if !ids::are_not_the_hosts() || of_this_namespace()?.is_none() {
            return Ok(forwarded);
        }
        for port in ports {
            let (number, protocol) = (port.host_port, port.protocol);
            let host = match port.address {
                None => "0.0.0.0".into(),
                Some(IpAddr::V4(address)) => address.to_string(),
                // It speaks IPv4 alone on the host's side.
                Some(IpAddr::V6(_)) => continue,
            };
            let arguments = json!({
                "proto": protocol.to_string(), "host_addr": host, "host_port": number, "guest_port": number
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

impl Drop for Forwarded {
    fn drop(&mut self) {
        for id in &self.0 {
            let _ = ask("remove_hostfwd", &json!({ "id": id }));
        }
    }
}

/// One order to slirp4netns. (slirp4netns(1), "API SOCKET")
fn ask(what: &str, arguments: &Value) -> Result<Value> {
    let socket = dir_of_this_namespace()?.join(SOCKET);
    let describe = || {
        let order = format!("{what} {arguments}");
        (format!("write({socket:?}): {order}"), format!("echo '{order}' | nc -U …"))
    };
    let answer = step(DAY, describe, || {
        let mut line = UnixStream::connect(&socket)?;
        line.set_read_timeout(Some(Duration::from_secs(10)))?;
        line.write_all(json!({ "execute": what, "arguments": arguments }).to_string().as_bytes())?;
        line.shutdown(Shutdown::Write)?;
        let mut answer = String::new();
        line.take(1 << 16).read_to_string(&mut answer).map(|_| answer)
    })?;
    let answer: Value = serde_json::from_str(answer.trim()).context("understand slirp4netns")?;
    match answer.get("error") {
        Some(error) => bail!("slirp4netns says {error}"),
        None => Ok(answer["return"].clone()),
    }
}
