//! The harness: a [`World`] for each test, which looks when the test ends
//! whether anything was left behind.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

#[cfg(feature = "day18-oci")]
pub mod bundle;
#[cfg(feature = "day12-images")]
pub mod layout;
#[cfg(feature = "day9-net")]
pub mod outside;
pub mod person;
#[cfg(feature = "day16-seccomp")]
pub mod probe;
#[cfg(feature = "day12-images")]
pub mod random;
#[cfg(feature = "day12-images")]
pub mod rawtar;
#[cfg(feature = "day12-images")]
pub mod registry;
#[cfg(feature = "day12-images")]
pub mod shelf;
#[cfg(feature = "day12-images")]
pub mod tree;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use assert_cmd::Command;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{SigHandler, Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tempfile::TempDir;

use self::person::{Person, person};

/// The newest day of this build.
pub const DAY: u8 = if cfg!(feature = "day18-oci") {
    18
} else if cfg!(feature = "day17-userns") {
    17
} else if cfg!(feature = "day16-seccomp") {
    16
} else if cfg!(feature = "day15-capabilities") {
    15
} else if cfg!(feature = "day14-exec") {
    14
} else if cfg!(feature = "day13-ports") {
    13
} else if cfg!(feature = "day12-images") {
    12
} else if cfg!(feature = "day11-layers") {
    11
} else if cfg!(feature = "day9-net") {
    9
} else if cfg!(feature = "day8-netns") {
    8
} else if cfg!(feature = "day7-cgroups") {
    7
} else if cfg!(feature = "day6-stop") {
    6
} else if cfg!(feature = "day5-logs") {
    5
} else if cfg!(feature = "day4-metadata") {
    4
} else if cfg!(feature = "day3-rootfs") {
    3
} else if cfg!(feature = "day2-namespaces") {
    2
} else {
    1
};

/// How long to wait for something that is certain to happen. More than ten times what
/// anything here takes on an emulator that has nothing else to do, for the machine may
/// be busy; and less than the patience of `make check` with a test, which then says
/// what it waited for. A test that must fail (`make prove`) need not be waited for so long.
pub fn deadline() -> Duration {
    let seconds = std::env::var("TINY_DOCKER_TEST_DEADLINE").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(120))
}

/// How long what was killed may take to be gone, with all that goes with it: a
/// moment, when the machine is not busy.
fn time_to_go() -> Duration {
    deadline() / 2
}

/// One test at a time in one process, so that what is left is this test's.
static TURN: Mutex<()> = Mutex::new(());

/// A place for one test, and the list of what was there before it.
pub struct World {
    dir: TempDir,
    before: Traces,
    _turn: MutexGuard<'static, ()>,
}

impl World {
    pub fn new() -> World {
        if person().is_some() { World::on_disk() } else { World::new_in(&std::env::temp_dir()) }
    }

    /// The same, not in memory: files there can be shown as somebody else's from Linux 6.3 on only.
    pub fn on_disk() -> World {
        World::new_in(Path::new("/var/tmp"))
    }

    fn new_in(place: &Path) -> World {
        let turn = TURN.lock().unwrap_or_else(|failed_test| failed_test.into_inner());
        // Orphans come to us instead of to init: whoever a container leaves
        // behind becomes this process's child, and is found.
        nix::sys::prctl::set_child_subreaper(true).unwrap();
        let dir = tempfile::Builder::new().prefix("tiny-docker-test-").tempdir_in(place).unwrap();
        // SAFETY: the other threads of this process are tests that wait for their
        // turn, and the environment is not what they wait for.
        unsafe { std::env::set_var("TINY_DOCKER_ROOT", dir.path().join("state")) };
        // Under nohup, or in the background of a script, every command would inherit that
        // these do nothing.
        for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM] {
            // SAFETY: the default action is no code of ours.
            unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) }.unwrap();
        }
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        if let Some(person) = person() {
            person.owns(dir.path());
        }
        // From day 8 on each container has its own of these, and the first one in a rootfs
        // makes what they are mounted on. In the one that tests share they are there.
        for name in ["hostname", "hosts", "resolv.conf"] {
            let _ = File::create_new(rootfs_path("busybox").join("etc").join(name));
        }
        // What a test that had to fail left of the network, which this one's end would take
        // away: then something would be gone.
        if cfg!(feature = "day9-net") && in_the_vm() && Path::new("/run/tiny-docker").exists() {
            let _ = Command::new(binary()).args(["network", "rm"]).output();
        }
        World { before: Traces::now(dir.path()), dir, _turn: turn }
    }

    /// An empty directory of this test's own.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// `tiny-docker` with `args`, started in [`World::dir`].
    pub fn tiny_docker<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(binary());
        command.current_dir(self.dir()).timeout(deadline()).args(args);
        command
    }

    /// What a shell does with `script`, in which `$0` is `tiny-docker`.
    pub fn called_by(&self, script: &str) -> Command {
        let mut command = Command::new("bash");
        command.current_dir(self.dir()).timeout(deadline()).args(["-c", script]).arg(binary());
        command
    }

    /// The same, left running: see [`Running`].
    pub fn start<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Running {
        self.start_with([], args)
    }

    /// The same, with variables in its environment.
    pub fn start_with<const N: usize, S: AsRef<OsStr>>(
        &self,
        variables: [(&str, &str); N],
        args: impl IntoIterator<Item = S>,
    ) -> Running {
        let mut command = std::process::Command::new(binary());
        command.current_dir(self.dir()).envs(variables).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running::new(command.spawn().unwrap())
    }

    /// Where this test's containers are remembered.
    pub fn containers(&self) -> PathBuf {
        self.dir().join("state/containers")
    }

    /// What `ps -a` prints, without what it says on stderr.
    pub fn ps(&self) -> String {
        let output = self.tiny_docker(["ps", "-a"]).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What `inspect` says of a container.
    pub fn inspect(&self, container: &str) -> serde_json::Value {
        let output = self.tiny_docker(["inspect", container]).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        let array: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        array[0].clone()
    }

    /// Runs `script` in the background on the shared root file system; its id.
    pub fn detach(&self, flags: &[&str], script: &str) -> String {
        let rootfs = busybox();
        let mut words = vec!["run", "-d", "--rootfs", rootfs.to_str().unwrap()];
        words.extend(flags);
        words.extend(["sh", "-c", script]);
        let output = self.tiny_docker(words).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).unwrap().trim_end().to_string()
    }

    /// Removes all containers by force, with what has only the name of one, and
    /// asserts that nothing of them is left.
    pub fn remove_all(&self) {
        let names: Vec<_> = fs::read_dir(self.containers()).into_iter().flatten().flatten().collect();
        let names = names.iter().map(|entry| entry.file_name());
        let words: Vec<_> = ["rm", "-f"].into_iter().map(Into::into).chain(names).collect();
        if words.len() > 2 {
            self.tiny_docker(words).assert().success();
        }
        let left = fs::read_dir(self.containers()).into_iter().flatten().count();
        assert_eq!(left, 0, "rm -f left something in {:?}", self.containers());
        until("no process is left", || {
            reap_orphans();
            descendants().is_empty()
        });
    }

    /// Kills the runtime with SIGKILL before every single operation that `words`
    /// makes it do; looks each time whether what is left is true, and can be
    /// removed. Returns how many operations there were.
    pub fn die_at_every_moment(&self, words: &[&str]) -> u32 {
        let unharmed = self.tiny_docker(words).output().unwrap();
        assert!(matches!(unharmed.status.code(), Some(0 | 7)), "{}", said(&unharmed));
        until("it has ended", || self.ps().contains("Exited (7)"));
        self.remove_all();
        let mut moments = 0;
        for who in ["parent", "child"] {
            for moment in 1.. {
                let mut command = self.tiny_docker(words);
                let output = command.env("TINY_DOCKER_DIE_AT", format!("{who}:{moment}")).output().unwrap();
                let place = format!("killed at {who}:{moment}: {}", said(&output));
                // `run -d` returns before its supervisor is at its end.
                until("its supervisor is gone", || {
                    reap_orphans();
                    descendants().is_empty()
                });
                for entry in fs::read_dir(self.containers()).into_iter().flatten().flatten() {
                    let record = entry.path().join("config.json");
                    if let Ok(text) = fs::read_to_string(&record) {
                        let record: serde_json::Value = serde_json::from_str(&text).expect(&place);
                        assert_eq!(record["id"], *entry.file_name().to_string_lossy(), "{place}");
                    }
                }
                let ps = self.ps();
                assert!(!ps.contains("Up "), "{place}: {ps}");
                let survived = ps.lines().skip(1).any(|line| line.contains("Exited (7)"));
                self.remove_all();
                if survived {
                    break;
                }
                moments += 1;
                assert!(moments < 500, "{place}: it never gets to its end");
            }
        }
        moments
    }

    /// A `run` that is held up before its command starts, once ps knows its container. With
    /// `-d` it is the supervisor that is held up.
    pub fn held_up(&self, name: &str, flags: &[&str]) -> Running {
        let rootfs = busybox();
        for moment in 1.. {
            let mut command = std::process::Command::new(binary());
            command
                .args(["run", "--name", name, "--rootfs", rootfs.to_str().unwrap()])
                .args(flags)
                .arg("true");
            command.env("TINY_DOCKER_STOP_AT", format!("parent:{moment}")).current_dir(self.dir());
            let runtime = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            let mut running = Running::new(runtime);
            let held = || {
                let children = children_of(running.runtime().as_raw()).into_iter().map(Pid::from_raw);
                children.chain([running.runtime()]).find(|pid| state(*pid) == 'T')
            };
            until("it is held up", || held().is_some() || state(running.runtime()) == 'Z');
            let Some(pid) = held() else {
                running.ended();
                let mut said = String::new();
                running.runtime.stderr.take().unwrap().read_to_string(&mut said).unwrap();
                panic!("it ended before it was held up: {said}")
            };
            let is_known = |dir: fs::DirEntry| {
                let record = fs::read_to_string(dir.path().join("config.json")).unwrap_or_default();
                record.contains(&format!("\"pid\": {pid},"))
            };
            let known = fs::read_dir(self.containers()).into_iter().flatten().flatten().any(is_known);
            if known && self.ps().contains("Created") && (pid != running.runtime()) == flags.contains(&"-d") {
                return running;
            }
            kill(pid, Signal::SIGKILL).unwrap();
            running.signal_runtime(Signal::SIGKILL);
            running.ended();
        }
        unreachable!()
    }

    /// A root file system of this test's own, which it may spoil.
    pub fn copy_of_rootfs(&self, name: impl AsRef<Path>) -> PathBuf {
        let copy = self.dir().join(name);
        copy_tree(&busybox(), &copy);
        if let Some(person) = person() {
            person.owns(&copy);
        }
        copy
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // A killed run leaves its cgroup, until the next ps.
        if cfg!(feature = "day7-cgroups") && in_the_vm() {
            let _ = self.tiny_docker(["ps"]).output();
        }
        // The bridge stays for the next container, by design, until it is removed. If
        // it cannot be, because somebody still uses it, that is found here.
        if cfg!(feature = "day9-net") && in_the_vm() {
            let _ = self.tiny_docker(["network", "rm"]).output();
        }
        let left = left_behind(&self.before, self.dir());
        if left.is_empty() {
            return;
        }
        let report = format!("left behind by this test:\n  {}", left.join("\n  "));
        // A test that failed already keeps its own message.
        if !std::thread::panicking() {
            panic!("{report}");
        }
        eprintln!("{report}");
        // Its subnets are the next test's first choice.
        if cfg!(feature = "day14-exec") && in_the_vm() {
            let _ = self.tiny_docker(["ps"]).output();
            let _ = self.tiny_docker(["network", "prune", "--force"]).output();
            let _ = self.tiny_docker(["network", "rm"]).output();
        }
    }
}

/// The flags by which root in a container may do all that it could before day 15: for a test in
/// which it does.
pub const ALL_OF_ROOT: &[&str] =
    if cfg!(feature = "day15-capabilities") { &["--cap-add", "ALL"] } else { &[] };

/// Whether this is the guest, where a test may do what it likes with the machine.
pub fn in_the_vm() -> bool {
    std::env::var_os("TINY_DOCKER_VM").is_some()
}

/// The program under test; or what becomes an ordinary user first, and then this program.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| person().map_or_else(|| env!("CARGO_BIN_EXE_tiny-docker").into(), Person::program))
}

/// The shared root file system. No test may change it, and [`World`] looks.
pub fn busybox() -> PathBuf {
    rootfs("busybox")
}

/// A root file system by name. Its absence is a failure: a test that is skipped
/// looks like one that passed.
pub fn rootfs(name: &str) -> PathBuf {
    let dir = rootfs_path(name);
    assert!(dir.is_dir(), "{dir:?} is missing: `make rootfs` makes busybox, the VM has debian as well");
    dir
}

fn rootfs_path(name: &str) -> PathBuf {
    if let Some(person) = person().filter(|_| name == "busybox") {
        return person.rootfs().join(name);
    }
    shared_rootfs(name)
}

fn shared_rootfs(name: &str) -> PathBuf {
    std::env::var_os("TINY_DOCKER_ROOTFS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("rootfs"), PathBuf::from)
        .join(name)
}

/// A container that runs while the test goes on.
pub struct Running {
    runtime: Child,
    output: BufReader<ChildStdout>,
}

impl Running {
    fn new(mut runtime: Child) -> Running {
        let output = BufReader::new(runtime.stdout.take().unwrap());
        Running { runtime, output }
    }

    /// The next line that the command writes to stdout, within [`deadline`].
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        if self.output.buffer().is_empty() {
            let mut fds = [PollFd::new(self.output.get_ref().as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(deadline()).unwrap();
            // The end of a child of this test interrupts it.
            let mut ready = Err(Errno::EINTR);
            while ready == Err(Errno::EINTR) {
                ready = poll(&mut fds, timeout);
            }
            assert_eq!(ready, Ok(1), "it writes nothing, and does not end");
        }
        self.output.read_line(&mut line).unwrap();
        if line.is_empty() {
            // Where only what copies its output has failed, the command may wait forever.
            let start = Instant::now();
            while self.runtime.try_wait().unwrap().is_none() && start.elapsed() < deadline() / 10 {
                thread::sleep(Duration::from_millis(10));
            }
            let _ = self.runtime.kill();
            let errors = self.errors();
            panic!("the command ended before it wrote a line; stderr:\n{errors}");
        }
        line.trim_end().to_string()
    }

    /// Reads no further: whoever writes on gets EPIPE.
    pub fn close_output(&mut self) {
        let (reader, _) = std::io::pipe().unwrap();
        // What is left of the pipe is one whose other end is closed.
        self.output = BufReader::new(std::os::fd::OwnedFd::from(reader).into());
    }

    /// All that the command still writes to stdout. It must have ended, or be about to.
    pub fn rest(&mut self) -> String {
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        rest
    }

    /// All that has come from stderr. It must have ended.
    pub fn errors(&mut self) -> String {
        let mut errors = String::new();
        self.runtime.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        errors
    }

    /// Where the command's stdin comes from.
    pub fn stdin(&mut self) -> ChildStdin {
        self.runtime.stdin.take().unwrap()
    }

    /// The runtime's process id.
    pub fn runtime(&self) -> Pid {
        Pid::from_raw(self.runtime.id() as i32)
    }

    /// The command's process id, seen from here. Its first line must have been read.
    pub fn command(&self) -> Pid {
        let children = children_of(self.runtime.id() as i32);
        assert_eq!(children.len(), 1, "the runtime has one child, the command");
        Pid::from_raw(children[0])
    }

    pub fn signal_runtime(&self, signal: Signal) {
        kill(self.runtime(), signal).unwrap();
    }

    pub fn signal_command(&self, signal: Signal) {
        kill(self.command(), signal).unwrap();
    }

    /// Kills the runtime with SIGKILL, and waits until the command is gone too.
    /// Its first line must have been read.
    pub fn ends_with_its_runtime(mut self) {
        let command = self.command();
        self.signal_runtime(Signal::SIGKILL);
        assert_eq!(self.ended(), -9);
        until("the command is gone", || !alive(command));
    }

    /// Waits for the runtime's end: its exit code, or minus the signal's number.
    pub fn ended(&mut self) -> i32 {
        let mut status = None;
        until("the runtime ends", || {
            status = self.runtime.try_wait().unwrap();
            status.is_some()
        });
        let status = status.unwrap();
        status.code().unwrap_or_else(|| -status.signal().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.runtime.try_wait() {
            let _ = self.runtime.kill();
            let _ = self.runtime.wait();
        }
        // What it said is why the test fails, most likely.
        if let Some(mut stderr) = self.runtime.stderr.take().filter(|_| thread::panicking()) {
            // A command that has outlived its runtime holds the other end, and there would
            // be no end of file.
            kill_descendants();
            let mut said = String::new();
            let _ = stderr.read_to_string(&mut said);
            eprintln!("the runtime said:\n{said}");
        }
    }
}

/// A program at a terminal of its own, and this test in front of it.
pub struct AtTerminal {
    pub program: Child,
    keys: File,
    screen: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl AtTerminal {
    /// `tiny-docker` with `words`.
    pub fn start<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> AtTerminal {
        AtTerminal::start_program(binary(), words)
    }

    pub fn start_program<S: AsRef<OsStr>>(
        program: impl AsRef<OsStr>,
        words: impl IntoIterator<Item = S>,
    ) -> AtTerminal {
        let size = Winsize { ws_row: 33, ws_col: 111, ws_xpixel: 0, ws_ypixel: 0 };
        let terminal = openpty(&size, None).unwrap();
        let slave = || Stdio::from(terminal.slave.try_clone().unwrap());
        let mut command = std::process::Command::new("setsid");
        // The terminal becomes its session's, so that Ctrl-C and its size concern it.
        command.arg("--ctty").arg(program).args(words);
        let program = command.stdin(slave()).stdout(slave()).stderr(slave()).spawn().unwrap();
        let keys = File::from(terminal.master);
        let screen = Arc::new(Mutex::new(Vec::new()));
        let (mut from, to) = (keys.try_clone().unwrap(), screen.clone());
        let reader = thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                to.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        AtTerminal { program, keys, screen, reader }
    }

    pub fn types(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    pub fn shows(&mut self, text: &str) {
        let start = Instant::now();
        loop {
            // Its last words may be on their way to the screen when it has ended.
            let silent = self.program.try_wait().unwrap().is_some() && self.reader.is_finished();
            let ended = silent || start.elapsed() > deadline();
            let screen = String::from_utf8_lossy(&self.screen.lock().unwrap()).into_owned();
            if screen.contains(text) {
                return;
            }
            assert!(!ended, "the terminal does not show {text:?}, but: {screen}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// All that it has shown so far.
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap()).into_owned()
    }

    /// As a terminal emulator does when its window changes: the kernel sends SIGWINCH.
    pub fn resize(&self, rows: u16, columns: u16) {
        let mut stty = std::process::Command::new("stty");
        stty.args(["rows", &rows.to_string(), "cols", &columns.to_string()]);
        // The size belongs to the pair: either end will do.
        assert!(stty.stdin(self.keys.try_clone().unwrap()).status().unwrap().success());
    }

    /// Does it echo what is typed, as a terminal does that no program has changed?
    pub fn echoes(&self) -> bool {
        tcgetattr(self.keys.as_fd()).unwrap().local_flags.contains(LocalFlags::ECHO | LocalFlags::ISIG)
    }

    pub fn ended(&mut self) -> i32 {
        until("the program ends", || self.program.try_wait().unwrap().is_some());
        self.program.wait().unwrap().code().unwrap()
    }
}

impl Drop for AtTerminal {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the terminal shows:\n{}", String::from_utf8_lossy(&self.screen.lock().unwrap()));
        }
    }
}

/// What `tiny-docker` with `words` writes to a pipe that somebody has made non-blocking,
/// and whose reader takes its time; and its exit code.
pub fn through_a_non_blocking_pipe<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> (Vec<u8>, i32) {
    let (mut reader, writer) = std::io::pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    // (As a temporary: no copy of the writing end stays here.)
    let spawned = std::process::Command::new(binary()).args(words).stdout(writer).spawn();
    let mut program = spawned.unwrap();
    let (mut text, mut buffer) = (Vec::new(), [0; 16 << 10]);
    loop {
        thread::sleep(Duration::from_millis(2));
        match reader.read(&mut buffer).unwrap() {
            0 => return (text, program.wait().unwrap().code().unwrap()),
            count => text.extend_from_slice(&buffer[..count]),
        }
    }
}

/// A file of the host's, such as /etc/resolv.conf, with another one mounted on it for as
/// long as this value lives.
pub struct HostFile {
    path: &'static str,
    made: bool,
}

impl HostFile {
    pub fn replace(path: &'static str, by: &Path) -> HostFile {
        let made = File::create_new(path).is_ok();
        let none = None::<&str>;
        nix::mount::mount(Some(by), path, none, nix::mount::MsFlags::MS_BIND, none).unwrap();
        HostFile { path, made }
    }
}

impl Drop for HostFile {
    fn drop(&mut self) {
        let _ = nix::mount::umount(self.path);
        if self.made {
            let _ = fs::remove_file(self.path);
        }
    }
}

/// A setting of the kernel's, a file in /proc/sys or /sys, with another value for as long as
/// this value lives: also where the test fails, for the next one begins on the same machine.
pub struct Setting {
    file: String,
    before: String,
}

impl Setting {
    pub fn set(file: &str, value: &str) -> Setting {
        let before = fs::read_to_string(file).unwrap();
        fs::write(file, value).unwrap();
        Setting { file: file.into(), before }
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        let _ = fs::write(&self.file, &self.before);
    }
}

/// Waits until `happened`, at most [`deadline`].
pub fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let start = Instant::now();
    while !happened() {
        assert!(start.elapsed() < deadline(), "still waiting until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How a program ended and what it said, for a person to read.
pub fn said(output: &std::process::Output) -> String {
    let text = |bytes: &[u8]| match String::from_utf8_lossy(bytes).trim_end() {
        "" => " nothing".to_string(),
        text => format!("\n  {}", text.replace('\n', "\n  ")),
    };
    let ended = match (output.status.code(), output.status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (_, Some(signal)) => format!("killed by signal {signal}"),
        _ => output.status.to_string(),
    };
    format!("{ended}; stdout:{}\nstderr:{}", text(&output.stdout), text(&output.stderr))
}

/// Gives the calling process a session keyring, with a key in it that only who possesses
/// the keyring may even see. (keyrings(7), "Key rights")
pub fn session_key_for_its_holder() -> std::io::Result<()> {
    const JOIN_SESSION_KEYRING: i32 = 1;
    const SETPERM: i32 = 5;
    const POSSESSOR_ALL: u32 = 0x3f00_0000;
    const SESSION_KEYRING: i32 = -3;
    let check = |result| nix::errno::Errno::result(result).map_err(std::io::Error::from);
    let (kind, name) = (c"user", c"tiny-docker-test");
    // SAFETY: the kernel reads two strings that end with a NUL, and one byte.
    unsafe {
        check(libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, std::ptr::null::<u8>(), 0, 0, 0))?;
        let (kind, name) = (kind.as_ptr(), name.as_ptr());
        let key = check(libc::syscall(libc::SYS_add_key, kind, name, kind, 1, SESSION_KEYRING))?;
        check(libc::syscall(libc::SYS_keyctl, SETPERM, key, POSSESSOR_ALL, 0, 0)).map(drop)
    }
}

/// Processes whose parent is `pid`.
pub fn children_of(pid: i32) -> Vec<i32> {
    processes().filter(|(_, parent)| *parent == pid).map(|(pid, _)| pid).collect()
}

/// Every process and its parent, seen from here.
pub fn processes() -> impl Iterator<Item = (i32, i32)> {
    let dirs = fs::read_dir("/proc").unwrap().flatten();
    dirs.filter_map(|dir| {
        let pid = dir.file_name().to_str()?.parse().ok()?;
        // The second field is a name in parentheses, which may contain anything.
        let stat = fs::read_to_string(dir.path().join("stat")).ok()?;
        let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
        Some((pid, parent))
    })
}

/// A container's process id, as its record has it.
pub fn pid(world: &World, id: &str) -> Pid {
    Pid::from_raw(world.inspect(id)["pid"].as_i64().unwrap() as i32)
}

/// The process that waits for the container.
pub fn supervisor(world: &World, id: &str) -> Pid {
    let pid = pid(world, id).as_raw();
    Pid::from_raw(processes().find(|(one, _)| *one == pid).unwrap().1)
}

/// Holds up the process that looks after a container, while it waits between two lives and has
/// nothing of the network. SIGCONT lets it go on.
pub fn held_between_two_lives(world: &World, name: &str) -> Pid {
    let id = world.inspect(name)["id"].as_str().unwrap().to_string();
    let file = world.containers().join(id).join("config.json");
    let waiting = || {
        let record: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        record["owner"]["pid"].as_i64().filter(|_| record["status"] == "restarting")
    };
    let has_none_of = |place: &str, pid: Pid| {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        open.filter_map(|entry| fs::read_link(entry.path()).ok()).all(|file| !file.starts_with(place))
    };
    let mut held = None;
    until("it waits between two lives", || {
        let Some(pid) = waiting().map(|pid| Pid::from_raw(pid as i32)) else { return false };
        kill(pid, Signal::SIGSTOP).unwrap();
        until("it is held up", || state(pid) == 'T');
        held = Some(pid).filter(|pid| waiting().is_some() && has_none_of("/run/tiny-docker/net", *pid));
        if held.is_none() {
            kill(pid, Signal::SIGCONT).unwrap();
        }
        held.is_some()
    });
    held.unwrap()
}

/// R, S, T and so on. (proc_pid_stat(5))
pub fn state(pid: Pid) -> char {
    state_now(pid).unwrap()
}

/// The same; `None`: it has ended.
pub fn state_now(pid: Pid) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Is this process alive, and not a zombie?
pub fn alive(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// The name of this process's program, if it is asleep: a program that was started
/// has its own name from its exec on, and sleeps when it has nothing to do yet.
pub fn asleep(pid: Pid) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (name, rest) = stat.split_once(" (")?.1.rsplit_once(") ")?;
    rest.starts_with('S').then(|| name.to_string())
}

/// Has this signal reached this process, which did not take it yet?
pub fn is_pending(pid: Pid, signal: Signal) -> bool {
    has_signal(pid, "ShdPnd", signal)
}

/// Does a function of this process's own take this signal?
pub fn catches(pid: Pid, signal: Signal) -> bool {
    has_signal(pid, "SigCgt", signal)
}

fn has_signal(pid: Pid, field: &str, signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(":\t"));
    u64::from_str_radix(mask.unwrap(), 16).unwrap() & (1 << (signal as u32 - 1)) != 0
}

/// All that a container could leave behind on a host, but for processes.
#[derive(Debug)]
struct Traces {
    mounts: BTreeSet<String>,
    cgroups: BTreeSet<String>,
    hierarchies: BTreeSet<String>,
    interfaces: BTreeSet<String>,
    nft_rules: BTreeSet<String>,
    files: BTreeSet<String>,
}

fn mountinfo() -> String {
    let Ok(mounts) = fs::read_to_string("/proc/self/mountinfo") else {
        panic!(
            "there is no /proc/self here any more: a container's /proc was mounted over the host's. Mounts first become private, with all that are below"
        )
    };
    mounts
}

impl Traces {
    /// What is there now; `own` is the test's own directory, not counted.
    fn now(own: &Path) -> Traces {
        // In the VM nobody else is at work, and everything new is a leak. On a
        // machine that people use, what does not bear our name may be theirs.
        let alone = in_the_vm();
        let mut files = BTreeSet::new();
        for dir in [std::env::temp_dir(), "/run".into(), "/var/lib/tiny-docker".into()] {
            let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
            let ours =
                |path: &PathBuf| path != own && (alone || path.to_string_lossy().contains("tiny-docker-"));
            files.extend(entries.filter(ours).map(|path| path.display().to_string()));
        }
        walk(&rootfs_path("busybox"), &mut |path, metadata| {
            let facts = (metadata.mode(), metadata.uid(), metadata.gid(), metadata.size(), metadata.mtime());
            files.insert(format!("{path:?} {facts:?}"));
        });
        Traces {
            mounts: lines(&mountinfo()),
            cgroups: if alone { cgroups() } else { BTreeSet::new() },
            hierarchies: hierarchies(),
            interfaces: if alone { interfaces() } else { BTreeSet::new() },
            nft_rules: if alone && is_any_table() { nft_rules() } else { BTreeSet::new() },
            files,
        }
    }
}

/// What is here now and was not `before`, once it has had time to go.
fn left_behind(before: &Traces, own: &Path) -> Vec<String> {
    let start = Instant::now();
    loop {
        reap_orphans();
        let now = Traces::now(own);
        let mut left: Vec<String> =
            descendants().iter().map(|pid| format!("process {pid}: {}", name_of(*pid))).collect();
        for (kind, before, now) in [
            ("mount", &before.mounts, &now.mounts),
            ("cgroup", &before.cgroups, &now.cgroups),
            ("hierarchy of cgroups", &before.hierarchies, &now.hierarchies),
            ("interface", &before.interfaces, &now.interfaces),
            ("nft rule", &before.nft_rules, &now.nft_rules),
            ("file", &before.files, &now.files),
        ] {
            left.extend(now.difference(before).map(|one| format!("{kind}, new: {one}")));
            left.extend(before.difference(now).map(|one| format!("{kind}, gone: {one}")));
        }
        // A killed process takes a moment to die. With it its mounts go, and its network
        // namespace a little later; but nothing else goes by itself. And a test that has
        // failed already needs no second reason.
        let patience = match (thread::panicking(), descendants().is_empty()) {
            (true, _) => time_to_go() / 20,
            (false, true) => time_to_go() / 4,
            (false, false) => time_to_go(),
        };
        if left.is_empty() || start.elapsed() > patience {
            // The next test shall not find them.
            kill_descendants();
            return left;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn kill_descendants() {
    for pid in descendants() {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// Has all that this test has started ended?
pub fn nobody_is_left() -> bool {
    reap_orphans();
    descendants().is_empty()
}

/// Orphans that ended are no leak: it is for their new parent, us, to reap them.
pub fn reap_orphans() {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            break;
        }
    }
}

/// Every process that this one has started, and that those have, and so on.
pub fn descendants() -> Vec<i32> {
    let all: Vec<(i32, i32)> = processes().collect();
    let mut found = vec![std::process::id() as i32];
    let mut at = 0;
    while at < found.len() {
        let here = found[at];
        found.extend(all.iter().filter(|(_, parent)| *parent == here).map(|(pid, _)| pid));
        at += 1;
    }
    found.retain(|pid| !is_a_holder(*pid));
    found.split_off(1)
}

/// One of the two that hold a person's namespaces, and stay: for a test as an ordinary user.
fn is_a_holder(pid: i32) -> bool {
    let name = || fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    person().is_some() && ["td-namespaces\n", "slirp4netns\n"].contains(&&name()[..])
}

fn name_of(pid: i32) -> String {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&command).replace('\0', " ")
}

fn cgroups() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        walk(Path::new("/sys/fs/cgroup"), &mut |path, metadata| {
            if metadata.is_dir() {
                found.insert(path.display().to_string());
            }
        });
    }
    found
}

/// Those of version 1, wherever they are mounted: each is a line for every process. (cgroups(7))
fn hierarchies() -> BTreeSet<String> {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    text.lines().filter(|line| !line.starts_with("0::")).map(str::to_string).collect()
}

fn interfaces() -> BTreeSet<String> {
    let entries = fs::read_dir("/sys/class/net").unwrap().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Before day 9 nothing here speaks to netfilter.
#[cfg(not(feature = "day9-net"))]
fn is_any_table() -> bool {
    false
}

/// Is there anything for nft to list? All that it lists is in a table, and mostly there is
/// none. So the kernel itself is asked, for nft takes its time where all is emulated, twice a
/// test. (netlink(7), linux/netfilter/nf_tables.h)
#[cfg(feature = "day9-net")]
fn is_any_table() -> bool {
    use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
    const NFT_MSG_GETTABLE: u16 = (10 << 8) | 1;
    const REQUEST_AND_DUMP: u16 = 0x301;
    const NLMSG_ERROR: u16 = 2;
    const NLMSG_DONE: u16 = 3;
    // The header: its length, kind, flags, number, sender. Then any family, version 0.
    let mut request = [0_u8; 20];
    request[0..4].copy_from_slice(&20_u32.to_ne_bytes());
    request[4..6].copy_from_slice(&NFT_MSG_GETTABLE.to_ne_bytes());
    request[6..8].copy_from_slice(&REQUEST_AND_DUMP.to_ne_bytes());
    let socket = Socket::new(NETLINK_NETFILTER).unwrap();
    socket.connect(&SocketAddr::new(0, 0)).unwrap();
    socket.send(&request, 0).unwrap();
    let (answer, _) = socket.recv_from_full().unwrap();
    let kind = u16::from_ne_bytes([answer[4], answer[5]]);
    assert_ne!(kind, NLMSG_ERROR, "the kernel does not list its tables: {answer:?}");
    kind != NLMSG_DONE
}

fn nft_rules() -> BTreeSet<String> {
    let output = std::process::Command::new("nft").args(["list", "ruleset"]).output().unwrap();
    assert!(output.status.success(), "nft list ruleset: {}", said(&output));
    lines(&String::from_utf8_lossy(&output.stdout))
}

fn lines(text: &str) -> BTreeSet<String> {
    text.lines().map(str::to_string).collect()
}

/// Calls `visit` for everything below `dir`, links not followed.
fn walk(dir: &Path, visit: &mut impl FnMut(&Path, &fs::Metadata)) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        visit(&entry.path(), &metadata);
        if metadata.is_dir() {
            walk(&entry.path(), visit);
        }
    }
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => copy_tree(&source, &target),
            kind if kind.is_symlink() => symlink(fs::read_link(&source).unwrap(), target).unwrap(),
            _ => drop(fs::copy(&source, &target).unwrap()),
        }
    }
}
