//! Day 15: kernel parameters that a container has for itself. (sysctl(8); namespaces(7))
//!
//! There is one kernel, and most of its parameters are for the whole machine. What a namespace
//! has for itself has parameters for itself: shared memory and message queues (ipc), the network
//! (net), and the name of the domain (uts).

use std::collections::BTreeMap;

use anyhow::{Context, bail};

use crate::container::Container;
use crate::error::Result;
use crate::explain::{shell, step};
use crate::plan::{Network, Plan};

use super::DAY;
use super::own_proc::OwnProc;

/// Those of /proc/sys/kernel that each ipc namespace has for itself. (ipc_namespaces(7))
const OF_IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shm_rmid_forced",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
];

/// `--sysctl NAME=VALUE`, by their names with dots. Of two with the same name the last one counts.
pub fn parse(typed: &[String]) -> Result<BTreeMap<String, String>> {
    typed.iter().map(|text| parse_setting(text)).collect()
}

// ANCHOR: parse_setting
/// One of them. Its name has dots or slashes, as with sysctl(8): whichever comes first separates
/// its parts, and the other one belongs to a part: `net/ipv4/conf/eth0.5/mtu` is
/// `net.ipv4.conf.eth0/5.mtu`.
fn parse_setting(text: &str) -> Result<(String, String)> {
    let Some((name, value)) = text.split_once('=') else {
        bail!("--sysctl {text:?}: expected NAME=VALUE, such as net.ipv4.ip_forward=1");
    };
    let has_slashes = name.find(['.', '/']).is_some_and(|at| name[at..].starts_with('/'));
    let name = if has_slashes { exchanged(name) } else { name.to_string() };
    if path_of(&name).split('/').any(|part| matches!(part, "" | "." | "..")) {
        bail!("--sysctl {text:?}: expected a name such as net.ipv4.ip_forward, a file of /proc/sys");
    }
    Ok((name, value.into()))
}
// ANCHOR_END: parse_setting

/// Whether each ipc namespace has this one for itself.
pub fn is_of_ipc(name: &str) -> bool {
    OF_IPC.contains(&name)
}

/// Where it is in /proc/sys.
fn path_of(name: &str) -> String {
    exchanged(name)
}

/// `text` with slashes for its dots, and dots for its slashes.
fn exchanged(text: &str) -> String {
    let other = |c| match c {
        '.' => '/',
        '/' => '.',
        c => c,
    };
    text.chars().map(other).collect()
}

// ANCHOR: check
/// Errors for one that is not the container's own: setting it would set it for the whole machine.
pub fn check(plan: &Plan) -> Result<()> {
    plan.privileges.sysctls.keys().try_for_each(|name| check_one(plan, name))
}

fn check_one(plan: &Plan, name: &str) -> Result<()> {
    // ANCHOR: day15_task5_check_one_solution
    // Each container has its own of these two, whatever its flags.
    let of_uts = name == "kernel.domainname";
    if of_uts || OF_IPC.contains(&name) || name.starts_with("fs.mqueue.") {
        return Ok(());
    }
    if name.starts_with("net.") {
        if matches!(plan.network, None | Some(Network::Host)) {
            bail!(
                "--sysctl {name}: with --net host the network is the host's, and so are its parameters; \
                 expected a network of its own, such as --net bridge"
            );
        }
        return Ok(());
    }
    if name == "kernel.hostname" {
        bail!("--sysctl {name}: expected --hostname NAME for that");
    }
    bail!(
        "--sysctl {name}: that is one for the whole machine, whose kernel all containers share; expected net.*, \
         fs.mqueue.*, or one of {}",
        OF_IPC.join(", ")
    )
    // ANCHOR_END: day15_task5_check_one_solution
}
// ANCHOR_END: check

// ANCHOR: set_all
/// Child: sets them, once its network is there: a parameter of eth0 comes with eth0.
pub fn set_all(container: &mut Container) -> Result<()> {
    // ANCHOR: day15_task5_set_all_solution
    if container.plan.privileges.sysctls.is_empty() {
        return Ok(());
    }
    container.parts.pass_the_gate()?;
    let proc = OwnProc::make()?;
    for (name, value) in &container.plan.privileges.sysctls {
        let file = format!("sys/{}", path_of(name));
        let describe = || {
            let call = format!("write {value:?} > /proc/{file}, in a /proc of our own");
            (call, format!("sysctl -w {}", shell(format!("{name}={value}"))))
        };
        // With a new line, as sysctl(8) writes it: nothing at all would be no write.
        step(DAY, describe, || proc.write(&file, &format!("{value}\n")))
            .with_context(|| format!("--sysctl {name}={value}"))?;
    }
    Ok(())
    // ANCHOR_END: day15_task5_set_all_solution
}
// ANCHOR_END: set_all

#[cfg(test)]
mod tests {
    use super::{parse_setting, path_of};

    #[test]
    fn names_are_those_of_sysctl() {
        for (typed, name, path) in [
            ("net.ipv4.ip_forward=1", "net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            ("net/ipv4/ip_forward=1", "net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            ("net.ipv4.conf.eth0/5.mtu=1", "net.ipv4.conf.eth0/5.mtu", "net/ipv4/conf/eth0.5/mtu"),
            ("net/ipv4/conf/eth0.5/mtu=1", "net.ipv4.conf.eth0/5.mtu", "net/ipv4/conf/eth0.5/mtu"),
        ] {
            let parsed = parse_setting(typed).ok();
            assert_eq!(parsed, Some((name.into(), "1".into())), "{typed}");
            assert_eq!(path_of(name), path, "{typed}");
        }
        for typed in
            ["net", "=1", "net.=1", ".net=1", "net..a=1", "net.//.a=1", "net/../a=1", "/net/a=1", "net/./a=1"]
        {
            assert!(parse_setting(typed).is_err(), "{typed}");
        }
    }
}
