//! Day 4: the end of a container that has got SIGKILL, and what it may still wait for.

use std::fs;
use std::path::PathBuf;

use anyhow::bail;

use crate::error::Result;
use crate::metadata::pidfd::Process;
use crate::wait::PATIENCE;

/// Waits for the end of the container `title`, whose PID 1 is `process` and has got SIGKILL.
/// If that takes too long, the error says what the kernel waits for.
///
/// PID 1 ends last: before it, all others in its namespace must have ended and been reaped.
/// A debugger, or a parent outside the namespace, may keep one of them. (pid_namespaces(7))
pub fn must_end(title: &str, process: &Process) -> Result<()> {
    if process.has_ended(Some(PATIENCE))? {
        return Ok(());
    }
    let seconds = PATIENCE.as_secs();
    let left = others_in_the_namespace_of(process.pid);
    if left.is_empty() {
        bail!(
            "container {title} got SIGKILL, and its process {} is still there after {seconds} s; it ends when the kernel has done what cannot be interrupted, such as a request to a disk that does not answer",
            process.pid
        );
    }
    bail!(
        "container {title} got SIGKILL, and has not ended after {seconds} s: it waits for {}; let go of that, and try again",
        left.join(", and for ")
    );
}

/// What is still in the pid namespace of `pid` besides it, and what keeps it there.
fn others_in_the_namespace_of(pid: i32) -> Vec<String> {
    let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let Some(its) = namespace(pid) else { return vec![] };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    (entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
        .filter(|other| *other != pid && namespace(*other).as_ref() == Some(&its))
        .filter_map(what_keeps)
        .collect()
}

fn what_keeps(pid: i32) -> Option<String> {
    let dir = PathBuf::from(format!("/proc/{pid}"));
    // Its name may be any bytes. (proc_pid_status(5))
    let status = String::from_utf8_lossy(&fs::read(dir.join("status")).ok()?).into_owned();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.strip_prefix(":\t")).unwrap_or_default()
    };
    let why = match (field("TracerPid"), field("State").chars().next()) {
        ("0", Some('Z')) => format!("not reaped by its parent, process {}", field("PPid")),
        ("0", _) => format!("in state {}", field("State")),
        (tracer, _) => format!("traced by process {tracer}"),
    };
    Some(format!("process {pid} ({}), {why}", field("Name")))
}
