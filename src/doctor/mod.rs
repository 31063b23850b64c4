//! Day 10: `doctor`. *What does each day need of this machine, and is it here?*
//!
//! A kernel's version and its configuration only promise. So what can be tried is
//! tried: in a thread of its own, in namespaces of its own that end with it. What
//! stays is at most a module that the kernel has loaded for it.

mod capabilities;
mod exec;
mod ports;
mod seccomp;
mod userns;

use std::fmt::Write;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::thread;

use anyhow::{Context, anyhow, bail};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statfs::{
    FUSE_SUPER_MAGIC, FsType, MSDOS_SUPER_MAGIC, NFS_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC, statfs,
};
use rtnetlink::{LinkBridge, LinkVeth};
use rustix::fs::{Access, Mode, OFlags, XattrFlags, access, fsetxattr, open, statvfs};
use rustix::mount::{FsOpenFlags, fsopen};
use rustix::pty::{OpenptFlags, openpt};
use rustix::thread::{CapabilitySet, capabilities};
use serde::Serialize;

use crate::cgroups::place;
use crate::error::Result;
use crate::metadata::output::print;
use crate::metadata::record::Status;
use crate::metadata::state::State;
use crate::net::bridge::{check_ours, check_subnet_is_free, find_link, plugged_in};
use crate::net::nat;
use crate::net::subnet::Subnet;
use crate::netns::netlink::Netlink;

/// Check that this machine has what each day needs, and whether something was left behind
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit code: 0 if every day can run here, 1 if something is missing.")]
pub struct Doctor {
    #[command(flatten)]
    state: State,

    #[command(flatten)]
    subnet: Subnet,

    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    /// All days can run; but this should be known.
    Note,
    /// This day cannot run.
    Missing,
}

/// What was looked at for one day, and what was found.
#[derive(Debug, Serialize)]
struct Finding {
    day: u8,
    check: &'static str,
    verdict: Verdict,
    found: String,
    /// What to do, unless it is in `found`.
    mend: Option<String>,
}

/// What a check found: a state of things that is fine, or one to know of.
enum Found {
    Fine(String),
    Note(String, &'static str),
}

type Check<'a> = (u8, &'static str, Box<dyn Fn() -> Result<Found> + 'a>, &'static str);

const NAMESPACES: [(u8, &str, CloneFlags); 6] = [
    (2, "mount namespace", CloneFlags::CLONE_NEWNS),
    (2, "uts namespace", CloneFlags::CLONE_NEWUTS),
    (2, "ipc namespace", CloneFlags::CLONE_NEWIPC),
    (2, "pid namespace", CloneFlags::CLONE_NEWPID),
    (7, "cgroup namespace", CloneFlags::CLONE_NEWCGROUP),
    (8, "network namespace", CloneFlags::CLONE_NEWNET),
];
const FILE_SYSTEMS: [(u8, &str, &str); 6] = [
    (2, "proc file system", "proc"),
    (3, "tmpfs file system", "tmpfs"),
    (3, "sysfs file system", "sysfs"),
    (3, "devpts file system", "devpts"),
    (7, "cgroup2 file system", "cgroup2"),
    (11, "overlay file system", "overlay"),
];
const CONTROLLERS: [(&str, &str); 3] =
    [("memory controller", "memory"), ("cpu controller", "cpu"), ("pids controller", "pids")];

/// What overlayfs only reads from.
const NOT_WRITABLE: [(FsType, &str); 6] = [
    (OVERLAYFS_SUPER_MAGIC, "an overlay"),
    (NFS_SUPER_MAGIC, "NFS"),
    (FUSE_SUPER_MAGIC, "FUSE"),
    (MSDOS_SUPER_MAGIC, "VFAT"),
    (V9FS, "9p"),
    (CIFS, "a share of Windows"),
];
const V9FS: FsType = FsType(0x0102_1997);
const CIFS: FsType = FsType(0xff53_4d42);

impl Doctor {
    /// Prints what it found. Returns the exit code.
    pub fn execute(self) -> Result<u8> {
        let mut findings: Vec<Finding> = self.checks().into_iter().map(find).collect();
        findings.sort_by_key(|finding| finding.day);
        let text = if self.json {
            serde_json::to_string_pretty(&findings).context("write JSON")? + "\n"
        } else {
            table(&findings)
        };
        print(&text)?;
        Ok(u8::from(findings.iter().any(|finding| finding.verdict == Verdict::Missing)))
    }

    fn checks(&self) -> Vec<Check<'_>> {
        let mut checks: Vec<Check> = vec![
            (1, "kernel", Box::new(kernel), "boot a newer one, or use the lab's VM: make vm-shell"),
            (2, "root's rights", Box::new(rights), "run it as root: sudo tiny-docker doctor"),
            (4, "state directory", Box::new(|| self.state_directory()), "choose another: --root DIR"),
            (4, "containers", Box::new(|| self.containers()), ""),
            (5, "terminals", Box::new(terminals), "mount -t devpts devpts /dev/pts"),
            (7, "cgroup version 2", Box::new(cgroups), ""),
            (7, "cgroups left behind", Box::new(|| self.cgroups_left()), ""),
            (9, "bridge and cable", Box::new(|| apart(links)), "modprobe bridge; modprobe veth"),
            (
                9,
                "nftables",
                Box::new(|| apart(nftables)),
                "modprobe nf_tables; modprobe nft_masq; modprobe nft_ct",
            ),
            (9, "other firewalls", Box::new(legacy_tables), ""),
            (9, "bridge and subnet", Box::new(|| self.bridge()), ""),
            (9, "forwarding", Box::new(forwarding), "mount -t proc proc /proc"),
            (
                11,
                "writable layers",
                Box::new(|| self.layers()),
                "keep containers on ext4, xfs, btrfs or tmpfs: --root DIR",
            ),
            (
                12,
                "layers of images",
                Box::new(|| self.unpacked_layers()),
                "keep images on ext4, xfs, btrfs or tmpfs: --root DIR",
            ),
            (12, "room for images", Box::new(|| self.room()), ""),
            (
                13,
                "redirected ports",
                Box::new(|| apart(ports::redirection)),
                "modprobe -a nft_chain_nat nft_nat nft_fib_ipv4, or a kernel of 5.12 or newer",
            ),
            (13, "old UDP flows", Box::new(|| apart(ports::connections)), "modprobe nf_conntrack_netlink"),
            (13, "firewalls", Box::new(ports::firewalls), ""),
            (13, "127.0.0.1", Box::new(|| ports::loopback(&self.subnet.lan()?.bridge)), ""),
            (14, "running containers", Box::new(|| apart(exec::joining)), "boot a kernel of 5.8 or newer"),
            (
                14,
                "their terminals",
                Box::new(exec::descriptors),
                "let root trace processes: kernel.yama.ptrace_scope",
            ),
            (14, "their processes", Box::new(exec::freezer), "see cgroup version 2"),
            (14, "after a boot", Box::new(exec::systemd), ""),
            (15, "capabilities", Box::new(capabilities::bounding_set), ""),
            (
                15,
                "device filter",
                Box::new(capabilities::device_filter),
                "boot a kernel with CONFIG_CGROUP_BPF, and start from a shell with CAP_SYS_ADMIN",
            ),
            (15, "labels", Box::new(capabilities::labels), ""),
            (
                16,
                "system calls",
                Box::new(|| apart(seccomp::call_filter)),
                "boot a kernel with CONFIG_SECCOMP_FILTER; until then, --security-opt seccomp=unconfined",
            ),
            (
                17,
                "user namespaces",
                Box::new(userns::user_namespaces),
                "sysctl -w user.max_user_namespaces=10000",
            ),
            (17, "without root", Box::new(userns::without_root), ""),
        ];
        for (day, name, flag) in NAMESPACES {
            checks.push((day, name, Box::new(move || apart(move || namespace(flag))), HOW_MANY_NAMESPACES));
        }
        for (day, check, name) in FILE_SYSTEMS {
            checks.push((
                day,
                check,
                Box::new(move || file_system(name)),
                "modprobe it, or use the lab's VM",
            ));
        }
        for (check, name) in CONTROLLERS {
            checks.push((7, check, Box::new(move || controller(name)), ""));
        }
        checks
    }

    /// The state directory, or the one that it will be made in.
    fn place(&self) -> &Path {
        self.state.path().ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("."))
    }

    /// Can a container's own layer lie there? (kernel: filesystems/overlayfs)
    fn layers(&self) -> Result<Found> {
        let found = statfs(self.place()).context("statfs")?;
        let kind = found.filesystem_type();
        if let Some((_, name)) = NOT_WRITABLE.iter().find(|(magic, _)| *magic == kind) {
            bail!("the state directory lies on {name}, and overlayfs cannot write there");
        }
        fine("can lie in the state directory")
    }

    /// Can layers be unpacked there? What one takes away from those below is written down as a
    /// device and as an attribute. (kernel: filesystems/overlayfs, "whiteouts and opaque")
    fn unpacked_layers(&self) -> Result<Found> {
        if !capabilities(None).context("capget")?.effective.contains(CapabilitySet::MKNOD) {
            bail!("there is no right to make devices (CAP_MKNOD)");
        }
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = open(self.place(), flags, Mode::RUSR | Mode::WUSR).context("open(O_TMPFILE)")?;
        fsetxattr(&file, "trusted.overlay.opaque", b"y", XattrFlags::empty())
            .context("fsetxattr(trusted.overlay.opaque)")?;
        fine("can be unpacked in the state directory")
    }

    fn room(&self) -> Result<Found> {
        let found = statvfs(self.place()).context("statvfs")?;
        let mebibytes = (found.f_bavail * found.f_frsize) >> 20;
        if mebibytes < 256 {
            let hint = "few images fit; keep them elsewhere: --root DIR";
            return Ok(Found::Note(format!("{mebibytes} MiB are free"), hint));
        }
        fine("at least 256 MiB")
    }

    /// Can records be kept there?
    fn state_directory(&self) -> Result<Found> {
        let (root, there) = (self.state.path(), self.place());
        access(there, Access::WRITE_OK | Access::EXEC_OK).with_context(|| format!("write into {there:?}"))?;
        fine(format!("{}{}", root.display(), if there == root { "" } else { ", will be made" }))
    }

    fn containers(&self) -> Result<Found> {
        let listing = self.state.list()?;
        let running = listing.records.iter().filter(|record| record.status == Status::Running);
        let (alive, lost): (Vec<_>, Vec<_>) =
            running.partition(|record| record.process().is_ok_and(|process| process.is_some()));
        let found = format!("{}, of them {} running", listing.records.len(), alive.len());
        if let Some(complaint) = listing.complaints.first() {
            return Ok(Found::Note(complaint.clone(), "remove what is no container: tiny-docker rm -f ID"));
        }
        match lost.len() {
            0 => fine(found),
            lost => Ok(Found::Note(
                format!("{found}; {lost} ended when nobody looked"),
                "look at them, and clean up after them: tiny-docker ps -a",
            )),
        }
    }

    /// Cgroups of containers of ours that have none any more.
    fn cgroups_left(&self) -> Result<Found> {
        let Ok(place) = place::place() else { return fine("none") };
        let known = self.state.list()?.records;
        let ours = fs::read_dir(&place).with_context(|| format!("read {place:?}"))?.flatten();
        let left: Vec<String> = ours
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| {
                name.strip_prefix("tiny-docker-").is_some_and(|id| known.iter().all(|one| one.id != id))
            })
            .collect();
        match left.first() {
            None => fine("none"),
            Some(_) => Ok(Found::Note(
                format!("in {}: {}", place.display(), left.join(" ")),
                "those of another --root are none of this one's; else rmdir them",
            )),
        }
    }

    fn bridge(&self) -> Result<Found> {
        let lan = self.subnet.lan()?;
        let netlink = Netlink::open()?;
        let (name, network, bits) = (&lan.bridge, lan.network, lan.bits);
        let Some(link) = find_link(&netlink, name)? else {
            check_subnet_is_free(&lan, &netlink)?;
            return fine(format!("{name} and {network}/{bits} are free"));
        };
        let index = check_ours(&lan, &link)?;
        match plugged_in(&netlink, index)? {
            0 => Ok(Found::Note(
                format!("{name} is there, and no container on it"),
                "it waits for the next one; to remove it: tiny-docker network rm",
            )),
            count => fine(format!("{name} is ours, with {count} container(s) on it")),
        }
    }
}

const HOW_MANY_NAMESPACES: &str = "allow more, if there are limits: sysctl user | grep _namespaces";

fn find((day, check, look, mend): Check) -> Finding {
    let some = |text: &str| Some(text.to_string()).filter(|text| !text.is_empty());
    match look() {
        Ok(Found::Fine(found)) => Finding { day, check, verdict: Verdict::Ok, found, mend: None },
        Ok(Found::Note(found, mend)) => {
            Finding { day, check, verdict: Verdict::Note, found, mend: some(mend) }
        }
        Err(error) => {
            Finding { day, check, verdict: Verdict::Missing, found: format!("{error:#}"), mend: some(mend) }
        }
    }
}

fn fine(found: impl Into<String>) -> Result<Found> {
    Ok(Found::Fine(found.into()))
}

/// Runs `attempt` in a thread that ends with it: what it unshares is that thread's.
fn apart(attempt: impl FnOnce() -> Result<Found> + Send) -> Result<Found> {
    thread::scope(|scope| {
        let attempt = thread::Builder::new().spawn_scoped(scope, attempt).context("start a thread")?;
        attempt.join().map_err(|_| anyhow!("the check itself failed"))?
    })
}

/// Up to day 7 newer and newer system calls are needed; the last is cgroup.kill.
fn kernel() -> Result<Found> {
    let release =
        fs::read_to_string("/proc/sys/kernel/osrelease").context("read /proc/sys/kernel/osrelease")?;
    let release = release.trim();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    if (numbers.next(), numbers.next()) < (Some(5), Some(14)) {
        bail!("Linux {release}; expected 5.14 or newer");
    }
    fine(format!("Linux {release}"))
}

fn rights() -> Result<Found> {
    let have = capabilities(None).context("capget")?.effective;
    for (needed, name) in [(CapabilitySet::SYS_ADMIN, "SYS_ADMIN"), (CapabilitySet::NET_ADMIN, "NET_ADMIN")] {
        if !have.contains(needed) {
            bail!("this process lacks the capability CAP_{name}");
        }
    }
    fine("CAP_SYS_ADMIN, CAP_NET_ADMIN")
}

fn namespace(flag: CloneFlags) -> Result<Found> {
    unshare(flag).map_err(|error| anyhow!("unshare: {error}"))?;
    fine("can be made")
}

/// Has the kernel load it, if it can, and open it; it is mounted nowhere. (fsopen(2))
fn file_system(name: &str) -> Result<Found> {
    fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC).with_context(|| format!("fsopen {name}"))?;
    fine("is there")
}

fn terminals() -> Result<Found> {
    openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).context("open /dev/ptmx")?;
    fine("can be made")
}

fn cgroups() -> Result<Found> {
    fine(format!("containers get theirs in {}", place::place()?.display()))
}

fn controller(name: &str) -> Result<Found> {
    let place = place::place().map_err(|_| anyhow!("there is no place for it: see cgroup version 2"))?;
    place::check_controllers(&place, &[name])?;
    fine("is there")
}

/// A bridge and a cable, in a network namespace of its own.
fn links() -> Result<Found> {
    unshare(CloneFlags::CLONE_NEWNET).context("unshare")?;
    let netlink = Netlink::open()?;
    let link = || netlink.handle.link();
    netlink.wait(link().add(LinkBridge::new("td0").build()).execute()).context("link add type bridge")?;
    netlink
        .wait(link().add(LinkVeth::new("td0-2", "eth0").build()).execute())
        .context("link add type veth")?;
    fine("can be made")
}

fn nftables() -> Result<Found> {
    unshare(CloneFlags::CLONE_NEWNET).context("unshare")?;
    nat::ensure("td0", Ipv4Addr::new(10, 10, 0, 0), 24)?;
    fine("takes our rules")
}

/// The older firewall, whose rules no nftables program sees.
fn legacy_tables() -> Result<Found> {
    let tables = fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default();
    match tables.lines().any(|table| table == "filter") {
        false => fine("none that we cannot see"),
        true => Ok(Found::Note(
            "iptables-legacy has a table \"filter\", and its rules are asked too".into(),
            "if it drops what is forwarded: iptables-legacy -I FORWARD -i td0 -j ACCEPT; the same with -o",
        )),
    }
}

fn forwarding() -> Result<Found> {
    const FILE: &str = "/proc/sys/net/ipv4/ip_forward";
    match fs::read_to_string(FILE).with_context(|| format!("read {FILE}"))?.trim() {
        "1" => fine("is on"),
        _ => fine("is off; the first container on the bridge turns it on"),
    }
}

fn table(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    let mut text = format!("DAY   {:width$}   FOUND\n", "CHECK");
    for Finding { day, check, verdict, found, mend } in findings {
        let mark = match verdict {
            Verdict::Ok => "ok  ",
            Verdict::Note => "note",
            Verdict::Missing => "MISSING",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{day:>3}   {check:width$}   {mark} {found}");
        if let Some(mend) = mend {
            let _ = writeln!(text, "      {:width$}     -> {mend}", "");
        }
    }
    let missing = findings.iter().filter(|finding| finding.verdict == Verdict::Missing);
    let first = missing.clone().map(|finding| finding.day).min();
    match first {
        None => text.push_str("\nEvery day can run here.\n"),
        Some(day) => {
            let _ =
                writeln!(text, "\n{} missing; the first day that needs it is day {day}.", missing.count());
        }
    }
    text
}
