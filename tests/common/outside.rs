//! A machine on the other side of the host, for the tests of networks.

use std::fs::File;
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, setns};

/// Its address, and the host's on the cable between the two.
pub const OUTSIDE: &str = "192.0.2.2";
pub const HOST: &str = "192.0.2.1";

/// A network namespace with a cable to it. It has no route to the containers, as no machine in
/// the world has.
pub struct Outside;

impl Outside {
    pub fn new() -> Outside {
        sh(&format!(
            "ip netns add outside && ip link add td-out type veth peer name eth0 netns outside &&
             ip addr add {HOST}/24 dev td-out && ip link set td-out up &&
             ip -n outside addr add {OUTSIDE}/24 dev eth0 && ip -n outside link set eth0 up &&
             ip -n outside link set lo up"
        ))
        .unwrap();
        Outside
    }

    /// What `work` returns out there.
    pub fn does<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let there = || {
            enter();
            work()
        };
        thread::scope(|scope| scope.spawn(there).join().unwrap())
    }
}

/// From here on this thread is out there: it may be in another network namespace than its process.
pub fn enter() {
    setns(File::open("/run/netns/outside").unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = sh("ip link del td-out; ip netns del outside; umount /run/netns");
    }
}

/// Runs a command line on the host: what it prints, or what it says went wrong.
pub fn sh(script: &str) -> Result<String, String> {
    let output = Command::new("bash").args(["-c", script]).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}
