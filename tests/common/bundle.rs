//! Day 18: an engine, as far as a test needs one: it writes bundles, and calls `tiny-runc`.

use std::fs::{self, File};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::Duration;

use assert_cmd::assert::{Assert, OutputAssertExt};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::{World, busybox, reap_orphans, until};

/// A bundle, and a place where containers are remembered. As conmon does, the test adopts whoever has lost
/// its parent. (prctl(2), PR_SET_CHILD_SUBREAPER)
pub struct Engine {
    /// What it writes.
    pub config: Value,
    world: World,
}

impl Engine {
    /// Of busybox and `script`, with the configuration that `spec` writes, without a terminal.
    pub fn new(script: &str) -> Engine {
        Engine::that_only_reads().of_busybox(script)
    }

    /// The same, not in memory: see [`World::on_disk`].
    pub fn on_disk(script: &str) -> Engine {
        Engine::in_world(World::on_disk()).of_busybox(script)
    }

    /// With no root file system, for calls that run nothing: it is there before `make rootfs`.
    pub fn that_only_reads() -> Engine {
        Engine::in_world(World::new())
    }

    fn in_world(world: World) -> Engine {
        let mut engine = Engine { config: Value::Null, world };
        let spec = engine.tiny_runc(&["spec"]).output().unwrap();
        spec.assert().success();
        let text = fs::read(engine.path("config.json")).unwrap();
        engine.config = serde_json::from_slice(&text).unwrap();
        engine
    }

    fn of_busybox(mut self, script: &str) -> Engine {
        self.config["process"]["terminal"] = json!(false);
        self.config["root"]["path"] = json!(busybox());
        self.has_script(script);
        self
    }

    /// From now on the command is this one.
    pub fn has_script(&mut self, script: &str) {
        self.config["process"]["args"] = json!(["sh", "-c", script]);
    }

    /// One mount more.
    pub fn mount(&mut self, mount: Value) {
        self.config["mounts"].as_array_mut().unwrap().push(mount);
    }

    /// The namespaces are these alone, each a name, and a path or nothing.
    pub fn has_namespaces(&mut self, kinds: &[(&str, Option<&str>)]) {
        let one = |(kind, path): &(&str, Option<&str>)| match path {
            None => json!({"type": kind}),
            Some(path) => json!({"type": kind, "path": path}),
        };
        self.config["linux"]["namespaces"] = kinds.iter().map(one).collect();
    }

    /// One more rule about cgroups: whoever asks needs version 2 at /sys/fs/cgroup.
    pub fn resources(&mut self) -> &mut Value {
        &mut self.config["linux"]["resources"]
    }

    /// A path in the bundle.
    pub fn path(&self, name: &str) -> PathBuf {
        self.world.dir().join(name)
    }

    /// A root file system in the bundle, which the test may spoil.
    pub fn copy_of_rootfs(&self, name: &str) -> PathBuf {
        self.world.copy_of_rootfs(name)
    }

    /// What is in a file of the bundle; nothing, if there is none.
    pub fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// `tiny-runc`, not called yet, in the bundle.
    pub fn tiny_runc(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tiny-runc"));
        command.arg("--root").arg(self.path("state")).args(words).current_dir(self.world.dir());
        command
    }

    /// Writes the bundle's configuration.
    pub fn write(&self) {
        fs::write(self.path("config.json"), self.config.to_string()).unwrap();
    }

    /// Calls it. Nobody waits for the end of what a container holds open: what one says that is left alone
    /// is in the file `output`.
    pub fn call(&self, words: &[&str]) -> Assert {
        self.write();
        let mut command = self.tiny_runc(words);
        if words[0] == "create" || words.contains(&"--detach") {
            return self.left_alone(command).assert();
        }
        command.stdin(Stdio::null()).output().unwrap().assert()
    }

    /// The same for one that leaves somebody behind who has its stdout.
    pub fn left_alone(&self, mut command: Command) -> Output {
        let file = |name: &str| File::create(self.path(name)).unwrap();
        command.stdin(Stdio::null()).stdout(file("output")).stderr(file("errors"));
        let status = command.status().unwrap();
        let read = |name: &str| fs::read(self.path(name)).unwrap();
        Output { status, stdout: read("output"), stderr: read("errors") }
    }

    /// Calls it, without waiting for its end. It is killed in the end.
    pub fn begin(&self, words: &[&str]) -> Somebody {
        self.write();
        let output = File::create(self.path("output")).unwrap();
        Somebody(self.tiny_runc(words).stdin(Stdio::null()).stdout(output).spawn().unwrap())
    }

    /// What `run one` writes to stdout.
    #[track_caller]
    pub fn says(&self) -> String {
        let assert = self.call(&["run", "one"]).success();
        String::from_utf8(assert.get_output().stdout.clone()).unwrap()
    }

    /// What `state` prints.
    #[track_caller]
    pub fn state(&self, id: &str) -> Value {
        let output = self.call(&["state", id]).success();
        serde_json::from_slice(&output.get_output().stdout).unwrap()
    }

    /// In the specification's words.
    #[track_caller]
    pub fn status(&self, id: &str) -> String {
        self.state(id)["status"].as_str().unwrap().into()
    }

    /// Waits until a container fares so.
    #[track_caller]
    pub fn becomes(&self, id: &str, status: &str) {
        until(&format!("{id} is {status}; it is {}", self.status(id)), || self.status(id) == status);
    }

    /// The first process of the container that wrote this pid file, seen from here.
    pub fn pid_in(&self, file: &str) -> Pid {
        until("its pid file is there", || self.path(file).exists());
        Pid::from_raw(self.text(file).parse().unwrap())
    }

    /// Waits until a file of the bundle says it.
    #[track_caller]
    pub fn until_says(&self, file: &str, words: &str) {
        until(&format!("{file} has {words:?}; {}", self.text(file)), || self.text(file).contains(words));
    }

    /// How many containers are remembered.
    pub fn remembered(&self) -> usize {
        fs::read_dir(self.path("state")).into_iter().flatten().count()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.path("state")).into_iter().flatten().flatten() {
            let mut command = self.tiny_runc(&["delete", "--force"]);
            let mut deleting = command.arg(entry.file_name()).stderr(Stdio::null()).spawn().unwrap();
            // The end of a PID namespace waits for all who were in it, and those from `exec` are ours to reap.
            // (That takes the end of `delete` away from us as well.)
            while let Ok(None) = deleting.try_wait() {
                reap_orphans();
                sleep(Duration::from_millis(10));
            }
        }
        reap_orphans();
    }
}

/// A process of this test's: one that has namespaces of its own, and sleeps in them, or a runtime.
pub struct Somebody(Child);

impl Somebody {
    /// With these, and else the test's.
    pub fn with(namespaces: CloneFlags) -> Somebody {
        let mut command = Command::new("sleep");
        command.arg("1000");
        // SAFETY: unshare(2) alone, which is a system call.
        unsafe { command.pre_exec(move || Ok(unshare(namespaces)?)) };
        Somebody(command.spawn().unwrap())
    }

    /// What it has exited with; `None`: it runs, or a signal has ended it.
    pub fn ended(&mut self) -> Option<i32> {
        self.0.try_wait().unwrap().and_then(|status| status.code())
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.0.id() as i32)
    }

    /// Where one of the namespaces is: `net`.
    pub fn namespace(&self, name: &str) -> String {
        format!("/proc/{}/ns/{name}", self.0.id())
    }

    /// Its name in words: `net:[4026531840]`.
    pub fn link(&self, name: &str) -> String {
        link(Path::new(&self.namespace(name)))
    }
}

impl Drop for Somebody {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One that runs until it is killed, called `one`.
pub fn running(engine: &Engine) {
    engine.call(&["create", "--pid-file", "pid", "one"]).success();
    engine.call(&["start", "one"]).success();
    engine.becomes("one", "running");
}

/// The script of such a one.
pub const FOREVER: &str = "while :; do sleep 1; done";

/// A hook that is a shell's script.
pub fn hook(script: &str) -> Value {
    json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]})
}

/// What comes to a socket along with an open file: a terminal, or whatever else a runtime hands over.
/// (SCM_RIGHTS, unix(7))
pub fn handed_over(listener: &UnixListener) -> (Vec<u8>, File) {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let (socket, _) = listener.accept().unwrap();
    let (mut text, mut room) = (vec![0; 1 << 16], [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))]);
    let mut with = RecvAncillaryBuffer::new(&mut room);
    let read = recvmsg(&socket, &mut [IoSliceMut::new(&mut text)], &mut with, RecvFlags::empty()).unwrap();
    text.truncate(read.bytes);
    let files = with.drain().filter_map(|part| match part {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    (text, files.flatten().next().unwrap().into())
}

/// What a namespace of this process is called.
pub fn own(name: &str) -> String {
    link(&Path::new("/proc/self/ns").join(name))
}

fn link(path: &Path) -> String {
    fs::read_link(path).unwrap().to_str().unwrap().into()
}
