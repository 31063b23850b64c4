//! What one more process in a container costs: `exec … /bin/true`, from its start to its exit,
//! against nsenter, crun and runc, each into a container of its own kind. In the VM, for there
//! cgroups are of version 2: vm/bench.sh exec.
//!
//! What they write goes to /dev/null, as a script's or a check's would. Where this bench runs,
//! stdout is a terminal. The others hand that on to the command, and tiny-docker lays pipes and
//! starts a thread for each, for in there nobody is to have it: that would be compared, and not the start.
#![allow(clippy::unwrap_used, missing_docs)]

mod oci;
#[allow(dead_code)]
mod turns;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use turns::Turns;

const ROOTFS: &str = "/rootfs/busybox";
const STATE: &str = "/var/lib/bench-exec";
/// Of each of the containers.
const NAME: &str = "bench-exec";
const OCI: [(&str, &[&str]); 2] = [("crun", &["--cgroup-manager=cgroupfs"]), ("runc", &[])];

fn main() {
    assert!(Path::new("/payload").is_dir(), "this runs in the VM: make bench");
    let rounds = std::env::var("BENCH_ROUNDS").map_or(100, |rounds| rounds.parse().unwrap());
    fs::create_dir_all(STATE).unwrap();
    let pid = tiny_docker_container();
    let mut turns = Turns::new(rounds, Duration::from_millis(50));
    turns.add("nsenter", quiet(command("nsenter", &["--all", "--target", &pid, "/bin/true"])));
    turns.add("tiny-docker", quiet(tiny_docker(&["exec", NAME, "/bin/true"])));
    for (runtime, options) in OCI {
        oci_container(runtime, options);
        turns.add(runtime, quiet(command(runtime, &[options, &["exec", NAME, "/bin/true"]].concat())));
    }
    turns.measure();
    turns.report("exec of /bin/true, start to exit, in a container with a memory limit");
    println!("nsenter (first, where others have the floor): joins the namespaces, and does nothing else");
    assert!(tiny_docker(&["rm", "-f", NAME]).status().unwrap().success());
    for (runtime, options) in OCI {
        let remove = command(runtime, &[options, &["delete", "--force", NAME]].concat()).status();
        assert!(remove.unwrap().success(), "{runtime} delete");
    }
    turns.limit("tiny-docker", "BENCH_EXEC_LIMIT", "crun");
}

/// Returns the number of its first process.
fn tiny_docker_container() -> String {
    let words = ["run", "-d", "--net", "none", "--memory", "128m", "--name", NAME, "--rootfs", ROOTFS];
    let run = tiny_docker(&[&words[..], &["sleep", "100000"]].concat()).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let record: Value =
        serde_json::from_slice(&tiny_docker(&["inspect", NAME]).output().unwrap().stdout).unwrap();
    let record = record.get(0).unwrap_or(&record);
    record["pid"].as_i64().unwrap_or_else(|| panic!("inspect shows no pid: {record}")).to_string()
}

fn oci_container(runtime: &str, options: &[&str]) {
    let kinds = ["network", "cgroup"];
    let bundle = oci::bundle(runtime, Path::new(STATE), Path::new(ROOTFS), &kinds, &["sleep", "100000"]);
    let mut run = command(runtime, options);
    run.args(["run", "--detach", "--bundle"]).arg(bundle).arg(NAME);
    // What it inherits, its container keeps.
    let status = run.stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap();
    assert!(status.success(), "{runtime} run: {status}");
}

fn tiny_docker(words: &[&str]) -> Command {
    let mut run = command("tiny-docker", words);
    run.env("TINY_DOCKER_ROOT", format!("{STATE}/tiny-docker"));
    run
}

fn quiet(mut command: Command) -> Command {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}
