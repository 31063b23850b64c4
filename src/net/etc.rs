//! Day 9: the three files of /etc that say who one is, and whom to ask: hostname,
//! hosts, resolv.conf. They differ from container to container, so they cannot be in
//! the root file system, which several may share and which is the user's: they are
//! kept in the container's directory, and mounted over those that are there.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sys::statvfs::{FsFlags, statvfs};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use crate::container::Container;
use crate::error::Result;
use crate::explain::step;
use crate::kernel;
use crate::namespaces::mount::mount;

const DAY: u8 = 9;

/// A file of /etc, as a mount that is not anywhere yet.
#[derive(Debug)]
pub struct EtcFile {
    name: &'static str,
    mount: OwnedFd,
}

// ANCHOR: write
/// Writes the files into the container's directory, and opens each as a mount: the
/// child will have no path to them.
pub fn write(container: &Container, address: Ipv4Addr, dns: &[IpAddr]) -> Result<Vec<EtcFile>> {
    let Some(dir) = &container.parts.dir else { return Ok(vec![]) };
    let hostname = container.plan.hostname.as_deref().unwrap_or("localhost");
    let texts = [
        ("hostname", format!("{hostname}\n")),
        ("hosts", format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n{address}\t{hostname}\n")),
        ("resolv.conf", resolv_conf(dns)),
    ];
    texts.into_iter().map(|(name, text)| write_one(dir, name, &text)).collect()
}
// ANCHOR_END: write

fn write_one(dir: &Path, name: &'static str, text: &str) -> Result<EtcFile> {
    let path = dir.join(name);
    let describe = || (format!("write {path:?}"), format!("cat > {}", path.display()));
    step(DAY, describe, || {
        // For everybody in the container; the directory is for root alone.
        OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path)?.write_all(text.as_bytes())
    })?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = open_tree(rustix::fs::CWD, &path, flags).with_context(|| format!("open_tree({path:?})"))?;
    Ok(EtcFile { name, mount })
}

// ANCHOR: resolv_conf
/// Whom to ask for names: `dns`, or else those that the host asks.
///
/// A server on the host's own loopback, such as systemd-resolved, cannot be reached
/// from another network namespace: 127.0.0.53 is there the container itself. It is
/// left away, and systemd's list of the real ones read instead. (resolv.conf(5))
fn resolv_conf(dns: &[IpAddr]) -> String {
    // ANCHOR: day9_task5_resolv_conf_solution
    if !dns.is_empty() {
        return dns.iter().map(|server| format!("nameserver {server}\n")).collect();
    }
    for file in ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"] {
        let text = fs::read_to_string(file).unwrap_or_default();
        let lines: Vec<&str> = text.lines().filter(|line| !is_local_server(line)).collect();
        if lines.iter().any(|line| line.starts_with("nameserver")) {
            return lines.iter().map(|line| format!("{line}\n")).collect();
        }
    }
    "# The host asks only itself for names; a container cannot. Name a server: run --dns ADDRESS\n".into()
    // ANCHOR_END: day9_task5_resolv_conf_solution
}
// ANCHOR_END: resolv_conf

fn is_local_server(line: &str) -> bool {
    let mut words = line.split_whitespace();
    words.next() == Some("nameserver")
        && words.next().is_some_and(|word| {
            // A zone may follow: fe80::1%eth0 is no name here either.
            word.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()) || word.contains('%')
        })
}

// ANCHOR: mount
/// Child, on its own root: mounts the files over those of /etc.
pub fn mount_all(container: &Container, files: Vec<EtcFile>) -> Result<()> {
    // A root file system without /etc has no program that reads it.
    if !Path::new("/etc").is_dir() {
        return Ok(());
    }
    let mut over = Vec::new();
    // Something to mount on must be there, and nothing may be written into the rootfs.
    let there =
        |file: &EtcFile| fs::metadata(format!("/etc/{}", file.name)).is_ok_and(|found| found.is_file());
    if container.plan.rootfs.is_some() && !files.iter().all(there) {
        cover_etc()?;
        for file in files.iter().filter(|file| !there(file)) {
            let path = format!("/etc/{}", file.name);
            // A link to a file that is not here, for one: systemd-resolved's.
            let _ = fs::remove_file(&path);
            File::create(&path).with_context(|| format!("make {path}"))?;
        }
        over.push(c"/etc".to_owned());
    }
    for EtcFile { name, mount } in files.into_iter().filter(there) {
        let path = format!("/etc/{name}");
        let describe = || (format!("move_mount({name}, {path:?})"), format!("mount --bind …/{name} {path}"));
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        step(DAY, describe, || move_mount(&mount, "", rustix::fs::CWD, &path, flags))?;
        over.push(CString::new(path)?);
    }
    keep_read_only(&over)
}
// ANCHOR_END: mount

// ANCHOR: cover
/// Lays a layer over /etc: what is written there from now on is in memory, and below
/// it the rootfs stays as it was. (kernel: filesystems/overlayfs)
fn cover_etc() -> Result<()> {
    const LAYER: &str = "/dev/etc";
    fs::create_dir(LAYER).context("make /dev/etc")?;
    mount(DAY, "tmpfs", LAYER, MsFlags::empty(), "mode=755")?;
    for dir in ["/dev/etc/upper", "/dev/etc/work"] {
        fs::create_dir(dir).with_context(|| format!("make {dir}"))?;
    }
    mount(DAY, "overlay", "/etc", MsFlags::empty(), "lowerdir=/etc,upperdir=/dev/etc/upper,workdir=/dev/etc/work")
        .context("the rootfs lacks /etc/hostname, hosts or resolv.conf, and this kernel has no overlayfs to add them; make empty ones")?;
    // The overlay holds on to it; no path need lead there.
    let describe = || (format!("umount2({LAYER:?}, MNT_DETACH)"), format!("umount -l {LAYER}"));
    step(DAY, describe, || umount2(LAYER, MntFlags::MNT_DETACH))?;
    fs::remove_dir(LAYER).context("remove /dev/etc")
}
// ANCHOR_END: cover

/// With `--read-only`, what lies `over` /etc is not to be the hole in it.
fn keep_read_only(over: &[CString]) -> Result<()> {
    if statvfs("/").context("statvfs")?.flags().contains(FsFlags::ST_RDONLY) {
        for path in over {
            kernel::add_mount_flags(rustix::fs::CWD, path, libc::MOUNT_ATTR_RDONLY as u32)
                .with_context(|| format!("make {path:?} read-only"))?;
        }
    }
    Ok(())
}
