//! Day 14: a command in a container that is hostile. What is in it, its programs, its /proc and
//! its /etc among them, is whatever suits it best; and nothing of the host is in its reach.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use assert_cmd::assert::Assert;
use common::{World, descendants, said, state_now, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use predicates::str::contains;

/// A container called web on a root file system that it may spoil.
fn web(world: &World, flags: &[&str]) -> PathBuf {
    let rootfs = world.copy_of_rootfs("rootfs");
    let words = ["run", "-d", "--net", "none", "--name", "web", "--rootfs", rootfs.to_str().unwrap()];
    world.tiny_docker([&words[..], flags, &["sleep", "1000"]].concat()).assert().success();
    rootfs
}

fn exec(world: &World, flags: &[&str], command: &[&str]) -> Assert {
    world.tiny_docker([&["exec"], flags, &["web"], command].concat()).assert()
}

/// How many operations the child does up to the one that `call` begins, it included.
fn moment_of(world: &World, call: &str) -> usize {
    let output = world.tiny_docker(["--explain", "exec", "web", "true"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let steps: Vec<&str> = told.lines().filter(|line| line.contains("] child ")).collect();
    let at = steps.iter().position(|line| line.contains(call));
    at.unwrap_or_else(|| panic!("the child does no {call}: {told}")) + 1
}

/// One of the processes of this test that is stopped.
fn stopped() -> Option<Pid> {
    descendants().into_iter().map(Pid::from_raw).find(|pid| state_now(*pid) == Some('T'))
}

/// The number that a process has in its innermost pid namespace.
fn number_inside(pid: Pid) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("NSpid:")).unwrap().to_string();
    line.split_whitespace().next_back().unwrap().to_string()
}

// https://nvd.nist.gov/vuln/detail/CVE-2019-5736
#[test]
#[ignore = "privileged: make vm-test"]
fn task1_the_container_cannot_write_to_this_program() {
    let world = World::new();
    web(&world, common::ALL_OF_ROOT);
    // Should it succeed after all, it is a copy that it spoils.
    let program = world.dir().join("tiny-docker-copy");
    fs::copy(common::binary(), &program).unwrap();
    let before = fs::metadata(&program).unwrap().len();
    // Held up inside, just before it becomes the command.
    let moment = moment_of(&world, "setsid()");
    let mut entering = Command::new(&program);
    entering.args(["exec", "web", "true"]).env("TINY_DOCKER_STOP_AT", format!("child:{moment}"));
    let mut entering = entering.stdin(Stdio::null()).spawn().unwrap();
    until("it is held up inside", || stopped().is_some());
    let number = number_inside(stopped().unwrap());
    // The attacker is root in there. It opens the program for reading, and waits.
    let attack = format!(
        "exec 3</proc/{number}/exe || exit 9; echo open; read go; \
         (echo evil >/proc/self/fd/3) 2>&1; (echo evil >>/proc/{number}/exe) 2>&1; true"
    );
    let mut attacker = world.start(["exec", "-i", "web", "sh", "-c", &attack]);
    assert_eq!(attacker.line(), "open", "what the attacker has opened");
    kill(stopped().unwrap(), Signal::SIGCONT).unwrap();
    assert!(entering.wait().unwrap().success(), "the command that was held up ends well");
    // Now nobody executes the file any more: the kernel's ETXTBSY is no protection.
    attacker.stdin().write_all(b"go\n").unwrap();
    let rest = attacker.rest();
    assert_eq!(fs::metadata(&program).unwrap().len(), before, "the program on the host has been written to");
    assert!(rest.contains("Read-only file system"), "the attacker tried to write, and was told: {rest}");
    assert_eq!(attacker.ended(), 0, "the attacker has tried all");
    world.remove_all();
}

// https://nvd.nist.gov/vuln/detail/CVE-2016-9962
#[test]
#[ignore = "privileged: make vm-test"]
fn task1_on_its_way_in_nobody_in_there_can_look_into_it() {
    let world = World::new();
    let rootfs = world.copy_of_rootfs("rootfs");
    // Root, but for the one capability that opens every process. (capabilities(7), CAP_SYS_PTRACE)
    let without_ptrace = |words: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set", "-sys_ptrace"]).arg(common::binary()).args(words);
        command.stdin(Stdio::null());
        command
    };
    let words = ["run", "-d", "--net", "none", "--name", "web", "--rootfs", rootfs.to_str().unwrap()];
    let run = without_ptrace(&[&words[..], &["sleep", "1000"]].concat()).output().unwrap();
    assert!(run.status.success(), "run: {}", said(&run));
    let moment = moment_of(&world, "setsid()");
    let mut entering = without_ptrace(&["exec", "web", "true"]);
    let mut entering = entering.env("TINY_DOCKER_STOP_AT", format!("child:{moment}")).spawn().unwrap();
    until("it is held up inside", || stopped().is_some());
    let number = number_inside(stopped().unwrap());
    let attack = format!("for what in exe mem fd/0 root/.; do (: </proc/{number}/$what) 2>&1; done; true");
    let output = without_ptrace(&["exec", "web", "sh", "-c", &attack]).output().unwrap();
    let refused = String::from_utf8_lossy(&output.stdout).matches("Permission denied").count();
    assert_eq!(refused, 4, "all four are refused: {}", said(&output));
    kill(stopped().unwrap(), Signal::SIGCONT).unwrap();
    assert!(entering.wait().unwrap().success(), "the command that was held up ends well");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_one_that_ends_while_it_is_entered_is_said_to_have_ended() {
    let world = World::new();
    web(&world, &[]);
    let moment = moment_of(&world, "setns(pidfd, CLONE_NEWNS");
    let mut entering = Command::new(common::binary());
    entering.args(["exec", "web", "true"]).env("TINY_DOCKER_STOP_AT", format!("child:{moment}"));
    let entering = entering.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    until("it is held up outside", || stopped().is_some());
    world.tiny_docker(["kill", "web"]).assert().success();
    kill(stopped().unwrap(), Signal::SIGCONT).unwrap();
    let output = entering.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(126), "the exit code: {}", said(&output));
    assert!(said(&output).contains("the container has just ended"), "what is said: {}", said(&output));
    world.remove_all();
}

// By /proc/self/fd root could open it once more, for whatever it likes.
#[test]
#[ignore = "privileged: make vm-test"]
fn task1_a_file_of_the_callers_stays_the_callers() {
    let world = World::new();
    web(&world, &[]);
    let file = |name: &str| world.dir().join(name);
    for name in ["in", "out", "err"] {
        fs::write(file(name), format!("{name} before\n")).unwrap();
    }
    let appended = |name: &str| File::options().append(true).open(file(name)).unwrap();
    let attack = "for fd in 0 1 2; do : >/proc/self/fd/$fd; done; cat; echo wrote; echo wrote >&2";
    let mut command = Command::new(common::binary());
    command.args(["exec", "-i", "web", "sh", "-c", attack]);
    command.stdin(File::open(file("in")).unwrap()).stdout(appended("out")).stderr(appended("err"));
    let ended = command.status().unwrap();
    assert!(ended.success(), "exec, {ended}: {}", fs::read_to_string(file("err")).unwrap());
    for (name, expected) in
        [("in", "in before\n"), ("out", "out before\nin before\nwrote\n"), ("err", "err before\nwrote\n")]
    {
        assert_eq!(fs::read_to_string(file(name)).unwrap(), expected, "the caller's file for {name}");
    }
    world.remove_all();
}

// What began CVE-2019-5736: the container's program is this program's file once more.
#[test]
#[ignore = "privileged: make vm-test"]
fn task1_a_command_that_is_this_program_again_finds_nothing() {
    let world = World::new();
    let rootfs = web(&world, &[]);
    symlink("/proc/self/exe", rootfs.join("bin/once-more")).unwrap();
    fs::write(rootfs.join("bin/script"), "#!/proc/self/exe\n").unwrap();
    Command::new("chmod").arg("755").arg(rootfs.join("bin/script")).status().unwrap();
    exec(&world, &[], &["test", "-x", "/bin/script"]).success();
    // It runs, and sees what is in the container: no state directory, and so no container.
    for command in [&["once-more", "ps", "-aq"][..], &["script"]] {
        let output = world.tiny_docker([&["exec", "web"], command].concat()).output().unwrap();
        assert!(output.stdout.is_empty(), "{command:?} has found something: {}", said(&output));
    }
    world.remove_all();
}

// https://nvd.nist.gov/vuln/detail/CVE-2024-21626
#[test]
#[ignore = "privileged: make vm-test"]
fn task1_no_open_file_is_a_way_out() {
    let world = World::new();
    web(&world, &[]);
    exec(&world, &[], &["ls", "/proc/self/fd"]).success().stdout("0\n1\n2\n3\n");
    // What the caller's stdin is may be a directory of the host.
    for fd in 0..25 {
        let dir = format!("/proc/self/fd/{fd}");
        let mut command = Command::new(common::binary());
        command.args(["exec", "-i", "-w", &dir, "web", "pwd"]).current_dir(world.dir());
        let output = command.stdin(File::open("/").unwrap()).output().unwrap();
        assert_eq!(output.status.code(), Some(126), "-w {dir} was no error: {}", said(&output));
    }
    exec(&world, &["-w", "/proc/self/cwd"], &["pwd"]).code(126);
    exec(&world, &["-w", "/proc/1/root"], &["pwd"]).code(126);
    // A link of its own is fine.
    exec(&world, &[], &["ln", "-s", "/etc", "/tmp/etc"]).success();
    exec(&world, &["-w", "/tmp/etc"], &["cat", "passwd"]).success().stdout(contains("root:"));
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_a_spoilt_etc_passwd_is_an_error_and_no_hang() {
    let world = World::new();
    let rootfs = web(&world, &[]);
    let spoil = |how: &str| {
        let script = format!("rm -rf {0}; {how}", rootfs.join("etc/passwd").display());
        let script = script.replace("FILE", rootfs.join("etc/passwd").to_str().unwrap());
        assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success(), "{script}");
    };
    for how in ["mkfifo FILE", "mkdir FILE", "ln -s /dev/zero FILE", "truncate -s 2000000 FILE"] {
        spoil(how);
        let output = world.tiny_docker(["exec", "web", "true"]).output().unwrap();
        assert_eq!(output.status.code(), Some(126), "{how}: {}", said(&output));
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(words.contains("/etc/passwd"), "{how}: the error names no file: {words}");
    }
    // A link to the host's is one to the container's own, or to nothing.
    spoil("ln -s ../../../../../../../../../../etc/hostname FILE");
    exec(&world, &["-u", "app"], &["true"]).code(126).stderr(contains("no user"));
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_a_false_proc_is_neither_read_nor_written() {
    let world = World::new();
    web(&world, common::ALL_OF_ROOT);
    // Whoever opened one of these would wait forever.
    let script = "mount -t tmpfs none /proc && mkdir -p /proc/self/fd /proc/1 && \
        for file in oom_score_adj exe status stat cgroup attr uid_map; do mknod /proc/self/$file p; done && echo done";
    exec(&world, &[], &["sh", "-c", script]).success().stdout("done\n");
    exec(&world, &["-w", "/tmp"], &["sh", "-c", "pwd; exit 7"]).code(7).stdout("/tmp\n");
    exec(&world, &["-d"], &["sleep", "2000"]).success();
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_a_false_terminal_is_refused() {
    let world = World::new();
    web(&world, &[]);
    exec(&world, &["-t"], &["tty"]).success().stdout(contains("/dev/pts/"));
    for how in ["mknod /dev/ptmx p", "echo x >/dev/ptmx", "mkdir /dev/ptmx", "ln -s /dev/null /dev/ptmx"] {
        exec(&world, &[], &["sh", "-c", &format!("rm -rf /dev/ptmx; {how}")]).success();
        let output = world.tiny_docker(["exec", "-t", "web", "true"]).output().unwrap();
        assert_eq!(output.status.code(), Some(126), "{how}: {}", said(&output));
    }
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_nothing_of_the_host_is_in_its_environment() {
    let world = World::new();
    web(&world, &[]);
    let mut command =
        world.tiny_docker(["exec", "web", "sh", "-c", "cat /proc/self/environ /proc/self/cmdline"]);
    let output = command.env("SECRET", "only the host's").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", said(&output));
    assert!(!text.contains("only the host's"), "a variable of the host is in there: {text}");
    assert!(!text.contains(world.dir().to_str().unwrap()), "a path of the host is in there: {text}");
    world.remove_all();
}
