//! Day 5: capture logs.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use assert_cmd::assert::Assert;
use common::{AtTerminal, World, busybox, until};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use predicates::prelude::*;
use predicates::str::{contains, is_empty, is_match};

fn run(world: &World, flags: &[&str], script: &str) -> Assert {
    world.tiny_docker(words(flags, script)).assert()
}

fn words(flags: &[&str], script: &str) -> Vec<String> {
    let rootfs = busybox();
    let words = [&["run", "--rootfs", rootfs.to_str().unwrap()], flags, &["sh", "-c", script]].concat();
    words.into_iter().map(String::from).collect()
}

fn logs(world: &World, words: &[&str]) -> Assert {
    world.tiny_docker(["logs"].iter().chain(words)).assert()
}

/// The log of the container `id`, as it is on the disk.
fn log_file(world: &World, id: &str) -> PathBuf {
    world.containers().join(id).join("container.log")
}

/// What the command wrote to `stream`, as the log of the container `id` has it.
fn logged(world: &World, id: &str, stream: &str) -> Vec<u8> {
    let log = fs::read(log_file(world, id)).unwrap();
    let mut written = Vec::new();
    for entry in log.split_inclusive(|byte| *byte == b'\n') {
        // The time, the stream, F or P, and 40 bytes after the beginning what was written.
        if entry[31..37] == *stream.as_bytes() {
            written.extend_from_slice(&entry[40..entry.len() - usize::from(entry[38] == b'P')]);
        }
    }
    written
}

/// A file system in memory, mounted until this is dropped: also when a test fails.
struct Mounted(PathBuf);

impl Mounted {
    fn new(dir: PathBuf, kind: &str, options: Option<&str>) -> Mounted {
        fs::create_dir(&dir).unwrap();
        mount(Some(kind), &dir, Some(kind), MsFlags::empty(), options).unwrap();
        Mounted(dir)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

fn id_of(world: &World, name: &str) -> String {
    world.inspect(name)["id"].as_str().unwrap().to_string()
}

fn wait_for_end(world: &World, id: &str) {
    until("the container ends", || world.inspect(id)["status"] == "exited");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_output_reaches_the_caller_and_the_log() {
    let world = World::new();
    let script = "echo one; echo two >&2; echo three; printf 'no end of line'; exit 3";
    let (out, err) = ("one\nthree\nno end of line", "two\n");
    run(&world, &["--name", "web"], script).code(3).stdout(out).stderr(err);
    // Text that a person can read without us.
    let id = id_of(&world, "web");
    let text = fs::read_to_string(log_file(&world, &id)).unwrap();
    let time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z";
    for entry in ["stdout F one", "stderr F two", "stdout F three", "stdout P no end of line"] {
        assert!(is_match(format!("(?m)^{time} {entry}$")).unwrap().eval(&text), "{entry} in\n{text}");
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_every_byte_reaches_the_caller_and_the_log() {
    let world = World::new();
    let bytes: Vec<u8> = (0..=255u8).cycle().take(300_000).collect();
    fs::write(world.dir().join("bytes"), &bytes).unwrap();
    // 10 MiB without an end of line; and each byte there is.
    for (name, script, expected) in [
        ("binary", "cat", bytes.clone()),
        ("long", "head -c 10485760 /dev/zero", vec![0; 10 << 20]),
        ("empty", "true", vec![]),
        ("newlines", "printf '\\n\\n\\n'", b"\n\n\n".to_vec()),
    ] {
        let mut command = world.tiny_docker(words(&["--name", name], script));
        let ran = command.write_stdin(bytes.clone()).output().unwrap();
        assert!(
            ran.status.success() && ran.stdout == expected,
            "{name}: {} bytes, {}",
            ran.stdout.len(),
            String::from_utf8_lossy(&ran.stderr)
        );
        let log = logged(&world, &id_of(&world, name), "stdout");
        assert!(log == expected, "{name}: {} bytes in the log", log.len());
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_a_slow_reader_loses_nothing() {
    let world = World::new();
    let script = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done";
    let mut command = Command::new(common::binary());
    let mut runtime = command.args(words(&["--name", "web"], script)).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = runtime.stdout.take().unwrap();
    let mut text = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        let count = stdout.read(&mut buffer).unwrap();
        if count == 0 {
            break;
        }
        text.extend_from_slice(&buffer[..count]);
        thread::sleep(Duration::from_millis(5));
    }
    assert!(runtime.wait().unwrap().success());
    let expected: String = (0..20000).map(|i| format!("line {i}\n")).collect();
    assert!(text == expected.as_bytes());
    assert!(logged(&world, &id_of(&world, "web"), "stdout") == expected.as_bytes());
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_a_reader_that_goes_away_ends_the_writer() {
    let _world = World::new();
    // As in `yes | head -n 1`, where nobody is in between.
    let script = format!("{} run sh -c 'while echo y; do :; done' | head -n 1", common::binary().display());
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    assert_eq!(output.stdout, b"y\n", "{}", common::said(&output));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_dev_stderr_can_be_opened_by_whoever_runs() {
    let world = World::new();
    for user in ["0", "app"] {
        run(
            &world,
            &["-u", user, "--rm"],
            "echo one >/dev/stdout; echo two >/dev/stderr; echo three >/dev/stdout",
        )
        .success()
        .stdout("one\nthree\n")
        .stderr("two\n");
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_a_full_disk_stops_the_log_and_not_the_command() {
    let world = World::new();
    let _state = Mounted::new(world.dir().join("state"), "tmpfs", Some("size=4m"));
    let script = "head -c 8388608 /dev/zero; rm -f /x; echo end >&2; exit 3";
    // The caller gets all of it and the right code, and is told once.
    let assert = run(&world, &["--name", "web"], script).code(3);
    assert_eq!(assert.get_output().stdout.len(), 8 << 20);
    let stderr = String::from_utf8_lossy(&assert.get_output().stderr);
    assert_eq!(stderr.matches("the log has a gap").count(), 1, "{stderr}");
    // What fitted is whole; and how it ended was written down all the same.
    let log = logged(&world, &id_of(&world, "web"), "stdout");
    assert!(log.len() > 1 << 20 && log.iter().all(|byte| *byte == 0), "{}", log.len());
    assert_eq!(world.inspect("web")["exit_code"], 3);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_where_bytes_are_missing_the_log_says_how_many() {
    let world = World::new();
    let state = Mounted::new(world.dir().join("state"), "tmpfs", Some("size=4m"));
    let fill = state.0.join("fill");
    let mut running =
        world.start(words(&["-i", "--name", "web"], "echo one; read x; echo lost; read x; echo three"));
    let mut stdin = running.stdin();
    assert_eq!(running.line(), "one");
    let mut file = File::create(&fill).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    drop(file);
    stdin.write_all(b"\n").unwrap();
    assert_eq!(running.line(), "lost");
    fs::remove_file(&fill).unwrap();
    stdin.write_all(b"\n").unwrap();
    assert_eq!(running.line(), "three");
    assert_eq!(running.ended(), 0);
    let id = id_of(&world, "web");
    let (out, err) = (logged(&world, &id, "stdout"), logged(&world, &id, "stderr"));
    assert_eq!(String::from_utf8_lossy(&out), "one\nthree\n");
    assert_eq!(String::from_utf8_lossy(&err), "tiny-docker: 5 bytes of output are missing here\n");
}

// https://github.com/moby/moby/issues/12195, https://github.com/docker/cli/issues/4338
#[test]
#[ignore = "privileged: make vm-test"]
fn task1_what_cannot_be_passed_on_is_an_error_and_no_end() {
    let world = World::new();
    let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
    // A file system with room for a part of it.
    let disk = Mounted::new(world.dir().join("disk"), "tmpfs", Some("size=64k"));
    let out = File::create(disk.0.join("out")).unwrap();
    let run = |script: &str| {
        let mut command = Command::new(common::binary());
        command.args(words(&[], script));
        command
    };
    let script = "head -c 100000 /dev/zero";
    for (what, output) in [
        ("a disk that fills up", run(script).stdout(out).output().unwrap()),
        ("/dev/full", run(script).stdout(full()).output().unwrap()),
        // It does not end by itself, so it must be told.
        ("/dev/full, without end", run("while echo y; do :; done").stdout(full()).output().unwrap()),
    ] {
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{what}: {said}");
        assert!(said.contains("stdout") && said.contains("No space left on device"), "{what}: {said}");
    }
    assert_eq!(run("echo oops >&2").stderr(full()).status().unwrap().code(), Some(125));
    // How it ended is remembered all the same.
    assert!(!world.ps().contains("Up "), "{}", world.ps());
}

// https://github.com/travis-ci/travis-ci/issues/4704, https://github.com/containers/conmon/issues/689
#[test]
#[ignore = "privileged: make vm-test"]
fn task1_a_slow_reader_of_a_pipe_that_does_not_block_gets_all() {
    let _world = World::new();
    let (out, code) = common::through_a_non_blocking_pipe(words(&[], "yes 0123456789 | head -c 1300000"));
    assert_eq!((out.len(), code), (1_300_000, 0));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_the_end_is_the_commands_and_not_the_streams() {
    let world = World::new();
    let mut running = world.start(words(&["--name", "web"], "echo one; read x; echo two; exit 3"));
    assert_eq!(running.line(), "one");
    // Somebody else has its stdout: as if it had been passed on to another container by
    // SCM_RIGHTS.
    let streams = format!("/proc/{}/fd", running.command());
    let held = ["1", "2"].map(|fd| OpenOptions::new().write(true).open(format!("{streams}/{fd}")).unwrap());
    running.stdin().write_all(b"\n").unwrap();
    assert_eq!(running.line(), "two");
    assert_eq!(running.ended(), 3);
    assert_eq!(world.inspect("web")["exit_code"], 3);
    assert_eq!(logged(&world, &id_of(&world, "web"), "stdout"), b"one\ntwo\n");
    world.tiny_docker(["rm", "web"]).assert().success();
    drop(held);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_a_log_that_may_not_grow_is_told_of_once() {
    let world = World::new();
    // Large pieces do not fit any more, small ones do, again and again. Each has its own read.
    let piece = "head -c 6000 /dev/zero; sleep 0.05; echo small; sleep 0.05;";
    let script = format!(
        "ulimit -f 8; exec {} run --name web --rootfs {} sh -c '{}'",
        common::binary().display(),
        busybox().display(),
        piece.repeat(5)
    );
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 5 * 6006), "{said}");
    assert_eq!(said.matches("the log has a gap").count(), 1, "{said}");
    let log = logged(&world, &id_of(&world, "web"), "stderr");
    assert!(String::from_utf8_lossy(&log).contains(" bytes of output are missing here"));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_the_log_is_its_owners_whatever_the_umask() {
    let world = World::new();
    for umask in ["000", "022", "077", "777"] {
        let words = words(&["--name", &format!("u{umask}")], "echo one").join(" ");
        let words = words.replace("echo one", "'echo one'");
        let script = format!("umask {umask}; exec {} {words}", common::binary().display());
        let output = Command::new("bash").args(["-c", &script]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let log = log_file(&world, &id_of(&world, &format!("u{umask}")));
        assert_eq!(log.metadata().unwrap().mode() & 0o7777, 0o600, "umask {umask}");
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_last_words_that_nobody_reads_are_waited_for_until_a_signal() {
    let world = World::new();
    // More than the two pipes hold, the command's and the user's: it ends, and its words stay.
    let script = "head -c 100000 /dev/zero; exit 3";
    let mut command = Command::new(common::binary());
    let mut runtime = command.args(words(&["--name", "web"], script)).stdout(Stdio::piped()).spawn().unwrap();
    let stdout = runtime.stdout.take().unwrap();
    until("the command has ended", || {
        let ps = world.ps();
        ps.contains("web") && !ps.contains("Created") && !common::alive(common::pid(&world, "web"))
    });
    until("the runtime ends by SIGTERM", || {
        kill(Pid::from_raw(runtime.id() as i32), Signal::SIGTERM).unwrap();
        thread::sleep(Duration::from_millis(100));
        runtime.try_wait().unwrap().is_some()
    });
    assert_eq!(world.inspect("web")["exit_code"], 3);
    drop(stdout);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_the_runtime_keeps_no_stream_open_that_the_command_has_closed() {
    let world = World::new();
    let script = "echo one; exec <&- >&-; sleep 1000";
    let mut command = Command::new(common::binary());
    command.args(words(&["--name", "web"], script)).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut runtime = command.spawn().unwrap();
    let mut out = String::new();
    // To its end.
    runtime.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert_eq!(out, "one\n");
    // And whoever writes to its stdin is told that nobody reads.
    let mut stdin = runtime.stdin.take().unwrap();
    assert!(stdin.write_all(&[0; 100_000]).is_err());
    world.tiny_docker(["rm", "-f", "web"]).assert().success();
    assert_eq!(runtime.wait().unwrap().code(), Some(137));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_a_file_system_that_does_not_say_its_size_is_written_to() {
    let world = World::new();
    let _state = Mounted::new(world.dir().join("state"), "ramfs", None);
    run(&world, &["--name", "web"], "echo one").success().stdout("one\n").stderr(is_empty());
    let log = logged(&world, &id_of(&world, "web"), "stdout");
    assert_eq!(String::from_utf8_lossy(&log), "one\n");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_logs_shows_each_stream_where_it_was_written() {
    let world = World::new();
    run(&world, &["--name", "web"], "echo one; echo two >&2; echo three; printf 'no end'; exit 3").code(3);
    logs(&world, &["web"]).success().stdout("one\nthree\nno end").stderr("two\n");
    logs(&world, &["nosuch"]).code(1).stdout(is_empty()).stderr(contains("no such container"));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_every_byte_comes_out_as_it_went_in() {
    let world = World::new();
    let bytes: Vec<u8> = (0..=255u8).cycle().take(300_000).collect();
    fs::write(world.dir().join("bytes"), &bytes).unwrap();
    // 10 MiB without an end of line; and each byte there is.
    for (name, script, expected) in [
        ("binary", "cat", bytes.clone()),
        ("long", "head -c 10485760 /dev/zero", vec![0; 10 << 20]),
        ("empty", "true", vec![]),
        ("newlines", "printf '\\n\\n\\n'", b"\n\n\n".to_vec()),
    ] {
        let mut command = world.tiny_docker(words(&["--name", name], script));
        let ran = command.write_stdin(bytes.clone()).output().unwrap();
        assert!(
            ran.status.success() && ran.stdout == expected,
            "{name}: {} bytes, {}",
            ran.stdout.len(),
            String::from_utf8_lossy(&ran.stderr)
        );
        let logged = world.tiny_docker(["logs", name]).output().unwrap();
        let (shown, said) = (logged.stdout.len(), String::from_utf8_lossy(&logged.stderr));
        assert!(logged.stdout == expected && said.is_empty(), "{name}: {shown} bytes, {said}");
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_timestamps_and_since() {
    let world = World::new();
    let time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z";
    run(&world, &["--name", "web"], "echo 1; echo 2; printf six").success();
    logs(&world, &["-t", "web"]).stdout(is_match(format!("^{time} 1\n{time} 2\n{time} six$")).unwrap());

    // An entry has the time at which it was read: two that are read together have one.
    let mut running = world.start(words(&["--name", "slow"], "echo before; read x; echo after"));
    assert_eq!(running.line(), "before");
    running.stdin().write_all(b"\n").unwrap();
    assert_eq!(running.ended(), 0);
    let assert = logs(&world, &["-t", "slow"]);
    let text = String::from_utf8(assert.get_output().stdout.clone()).unwrap();
    let after = text.lines().nth(1).unwrap().split(' ').next().unwrap();
    logs(&world, &["--since", after, "slow"]).success().stdout("after\n");
    for long_ago in ["1h", "1.5h", "1h30m", "2026-01-01", "2026-01-01T10:00", "1700000000.5"] {
        logs(&world, &["--since", long_ago, "slow"]).success().stdout("before\nafter\n");
    }
    // Without a zone it is local: an hour behind, the same words mean an hour later.
    for (zone, shown) in [("UTC0", "after\n"), ("BEHIND+1", ""), ("AHEAD-1", "before\nafter\n")] {
        let mut command = world.tiny_docker(["logs", "--since", after.trim_end_matches('Z'), "slow"]);
        command.env("TZ", zone).assert().success().stdout(shown);
    }
    logs(&world, &["--since", "2100-01-01T00:00:00Z", "slow"]).success().stdout(is_empty());
    // What cannot be is said.
    logs(&world, &["--since", "yesterday", "web"]).code(2).stderr(contains("how long ago"));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_a_log_that_was_tampered_with_is_shown_as_far_as_it_goes() {
    let world = World::new();
    run(&world, &["--name", "web"], "echo one; echo two").success();
    let id = id_of(&world, "web");
    let mut log = OpenOptions::new().append(true).open(log_file(&world, &id)).unwrap();
    log.write_all(b"\nnot an entry\n\xff\xfe\n2026-11-23T10:00:00.000000000Z stdout F three\n2026-11-2")
        .unwrap();
    logs(&world, &["web"]).success().stdout("one\ntwo\nthree\n").stderr(contains("no entries; skipped"));
}

// https://github.com/travis-ci/travis-ci/issues/4704
#[test]
#[ignore = "privileged: make vm-test"]
fn task2_what_cannot_be_shown_is_an_error_and_a_slow_reader_none() {
    let world = World::new();
    run(&world, &["--name", "web"], "yes 0123456789 | head -c 1300000; echo two >&2").success();
    let (out, code) = common::through_a_non_blocking_pipe(["logs", "web"]);
    assert_eq!((out.len(), code), (1_300_000, 0));
    for words in [&["logs", "web"][..], &["logs", "-t", "web"]] {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = Command::new(common::binary()).args(words).stdout(full).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("No space left on device"), "{said}");
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_a_detached_run_prints_the_id_and_returns() {
    let world = World::new();
    // That this returns at all: the container holds nothing of its caller's.
    let id = world.detach(&["--name", "web"], "echo started; sleep 1000");
    assert!(is_match("^[0-9a-f]{12}$").unwrap().eval(&id), "{id}");
    assert_eq!(world.inspect("web")["id"], *id);
    world.tiny_docker(["ps"]).assert().stdout(contains("Up ").and(contains("web")));
    until("it has written", || log_file(&world, &id).metadata().unwrap().len() > 0);
    logs(&world, &["web"]).success().stdout("started\n");
    world.tiny_docker(["rm", "-f", "web"]).assert().success();

    let id = world.detach(&[], "echo out; echo err >&2; exit 3");
    wait_for_end(&world, &id);
    assert_eq!(world.inspect(&id)["exit_code"], 3);
    logs(&world, &[&id]).success().stdout("out\n").stderr("err\n");
    let id = world.detach(&["--rm"], "exit 3");
    until("it is forgotten", || !world.containers().join(&id).exists());
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_the_supervisor_lets_go_of_everything_of_its_users() {
    let world = World::new();
    let id = world.detach(&[], "exec sleep 1000");
    let pid = world.inspect(&id)["pid"].as_i64().unwrap() as i32;
    let (_, supervisor) = common::processes().find(|(one, _)| *one == pid).unwrap();
    let link = |path: &str| fs::read_link(format!("/proc/{supervisor}/{path}")).unwrap();
    for fd in ["fd/0", "fd/1", "fd/2"] {
        assert_eq!(link(fd), PathBuf::from("/dev/null"));
    }
    assert_eq!(link("cwd"), PathBuf::from("/"));
    // The leader of a session without a terminal.
    let stat = fs::read_to_string(format!("/proc/{supervisor}/stat")).unwrap();
    let fields: Vec<&str> = stat.split(' ').collect();
    assert_eq!((fields[5], fields[6]), (supervisor.to_string().as_str(), "0"), "{stat}");
    // And the command has nothing open but its three streams.
    let fds: Vec<_> =
        fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|fd| fd.unwrap().file_name()).collect();
    assert_eq!(fds.len(), 3, "{fds:?}");
    assert_eq!(fs::read_link(format!("/proc/{pid}/fd/0")).unwrap(), PathBuf::from("/dev/null"));
    world.tiny_docker(["rm", "-f", &id]).assert().success();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_what_cannot_start_is_an_error_of_run_d_itself() {
    let world = World::new();
    let rootfs = busybox();
    let rootfs = rootfs.to_str().unwrap();
    let run =
        |words: &[&str]| world.tiny_docker(["run", "-d"].iter().chain(words)).assert().stdout(is_empty());
    run(&["--rootfs", rootfs, "no-such-command"]).code(127).stderr(contains("no such command"));
    run(&["--rootfs", rootfs, "/etc"]).code(126).stderr(contains("is a directory"));
    run(&["--rootfs", rootfs, "-u", "nosuch", "true"]).code(125).stderr(contains("no user"));
    run(&["--rootfs", "/no/such", "true"]).code(125).stderr(contains("expected a directory"));
    assert_eq!(fs::read_dir(world.containers()).unwrap().count(), 0);
    // What has started and cannot be printed: then the error says the id.
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(common::binary());
    let output = command.args(words(&["-d"], "sleep 1000")).stdout(full).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let id = world.ps().lines().nth(1).unwrap().split(' ').next().unwrap().to_string();
    assert!(said.contains(&id) && said.contains("No space left"), "{said}");
    assert_eq!(output.status.code(), Some(125));
    world.tiny_docker(["rm", "-f", &id]).assert().success();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_a_signal_ends_a_detached_run_that_has_not_started_yet() {
    let world = World::new();
    let rootfs = busybox();
    let words = ["run", "-d", "--name", "late", "--rootfs", rootfs.to_str().unwrap(), "sleep", "1000"];
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // The container's process hangs before its second operation.
        let mut running = world.start_with([("TINY_DOCKER_HANG_AT", "child:2")], words);
        until("there is a container's process", || {
            let supervisors = common::children_of(running.runtime().as_raw());
            supervisors.iter().any(|pid| !common::children_of(*pid).is_empty())
        });
        running.signal_runtime(signal);
        assert_eq!(running.ended(), 128 + signal as i32, "ended by {signal}");
        assert_eq!(running.rest(), "", "no id is printed");
        assert!(!world.ps().contains("Up "), "{}", world.ps());
        world.remove_all();
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_long_rm_f_ends_a_supervisor_that_is_held_up() {
    let world = World::new();
    let mut held = world.held_up("held", &["-d"]);
    let supervisor = Pid::from_raw(common::children_of(held.runtime().as_raw())[0]);
    let output = world.tiny_docker(["rm", "-f", "held"]).output().unwrap();
    let was_left = common::alive(supervisor);
    let _ = kill(supervisor, Signal::SIGKILL);
    assert!(output.status.success() && !was_left, "{output:?}");
    assert_eq!(held.ended(), 125);
    assert_eq!(fs::read_dir(world.containers()).unwrap().count(), 0);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_stdin_of_a_detached_container() {
    let world = World::new();
    // /dev/null: cat is done at once. With -i: a pipe that stays open.
    let closed = world.detach(&[], "cat; echo done");
    wait_for_end(&world, &closed);
    logs(&world, &[&closed]).success().stdout("done\n");
    let open = world.detach(&["-i"], "echo ready; cat; echo done");
    let command = common::pid(&world, &open).as_raw();
    until("cat waits for what is typed", || {
        let mut programs = common::children_of(command).into_iter().map(Pid::from_raw);
        programs.any(|program| common::asleep(program).as_deref() == Some("cat"))
    });
    until("it is ready", || log_file(&world, &open).metadata().unwrap().len() > 0);
    assert_eq!(world.inspect(&open)["status"], "running");
    logs(&world, &[&open]).success().stdout("ready\n");
    world.tiny_docker(["rm", "-f", &open]).assert().success();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_tail_shows_the_last_lines() {
    let world = World::new();
    // stdout and stderr come by different pipes: their order is certain only if each waits
    // until the other is in the log.
    let script = "for i in 1 2 3 4; do echo $i; done; read x; echo five >&2; read x; printf six";
    let mut running = world.start(words(&["--name", "web"], script));
    let mut stdin = running.stdin();
    for line in ["1", "2", "3", "4"] {
        assert_eq!(running.line(), line);
    }
    let id = id_of(&world, "web");
    stdin.write_all(b"\n").unwrap();
    until("five is in the log", || fs::read_to_string(log_file(&world, &id)).unwrap().contains("five"));
    stdin.write_all(b"\n").unwrap();
    assert_eq!(running.ended(), 0);
    for (count, out, err) in [
        ("0", "", ""),
        ("1", "six", ""),
        ("2", "six", "five\n"),
        ("4", "3\n4\nsix", "five\n"),
        ("6", "1\n2\n3\n4\nsix", "five\n"),
        ("100", "1\n2\n3\n4\nsix", "five\n"),
        ("all", "1\n2\n3\n4\nsix", "five\n"),
        // https://github.com/docker/cli/issues/2552
        ("-1", "1\n2\n3\n4\nsix", "five\n"),
    ] {
        logs(&world, &["--tail", count, "web"]).success().stdout(out).stderr(err);
    }
    logs(&world, &["-n", "many", "web"]).code(2).stderr(contains("a number of lines, or all"));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_follow_shows_what_comes_and_ends_with_the_container() {
    let world = World::new();
    // It goes on line by line, when this test lets it. There are more lines than looks of a
    // `logs` that takes the first change for the last.
    let script = "for i in 1 2 3 4; do echo $i; read x; done; echo 5; exit 3";
    let mut running = world.start(words(&["--name", "web"], script));
    let mut stdin = running.stdin();
    assert_eq!(running.line(), "1");
    let mut follow = world.start(["logs", "-f", "web"]);
    for line in ["1", "2", "3", "4", "5"] {
        assert_eq!(follow.line(), line);
        if line != "5" {
            stdin.write_all(b"\n").unwrap();
        }
    }
    assert_eq!(running.ended(), 3);
    assert_eq!(follow.ended(), 0);
    // Of one that is gone already it shows all, and ends.
    logs(&world, &["-f", "web"]).success().stdout("1\n2\n3\n4\n5\n");
    logs(&world, &["-f", "-n", "1", "web"]).success().stdout("5\n");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_follow_survives_truncation_and_a_killed_supervisor() {
    let world = World::new();
    let mut running = world.start(words(&["--name", "web"], "echo one; read x; echo two; exec sleep 1000"));
    let mut stdin = running.stdin();
    assert_eq!(running.line(), "one");
    let mut follow = world.start(["logs", "--follow", "web"]);
    assert_eq!(follow.line(), "one");
    let id = id_of(&world, "web");
    let log = log_file(&world, &id);
    // Where in the log it reads. (proc_pid_fdinfo(5))
    let process = format!("/proc/{}", follow.runtime());
    let position = || {
        let fds = fs::read_dir(format!("{process}/fd")).unwrap().flatten();
        let fd = fds.into_iter().find(|fd| fs::read_link(fd.path()).is_ok_and(|file| file == log)).unwrap();
        let info = Path::new(&process).join("fdinfo").join(fd.file_name());
        fs::read_to_string(info).unwrap().lines().next().unwrap().replace("pos:", "").trim().to_string()
    };
    assert_ne!(position(), "0");
    OpenOptions::new().write(true).open(&log).unwrap().set_len(0).unwrap();
    // It must have seen that before there is as much in it as before.
    until("it begins anew", || position() == "0");
    stdin.write_all(b"\n").unwrap();
    assert_eq!(follow.line(), "two");
    running.ends_with_its_runtime();
    assert_eq!(follow.ended(), 0);
    // Removed under its eyes.
    let id = world.detach(&[], "echo one; exec sleep 1000");
    let mut follow = world.start(["logs", "-f", &id]);
    assert_eq!(follow.line(), "one");
    world.tiny_docker(["rm", "-f", &id]).assert().success();
    assert_eq!(follow.ended(), 0);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_follow_sleeps_when_other_files_are_written() {
    let world = World::new();
    let mut running = world.start(words(&["--name", "web"], "echo one; read x; echo two"));
    assert_eq!(running.line(), "one");
    // From day 8 on the container's /etc/hosts lies beside its log, and it may write there as
    // often as it likes. It cannot make files there: a new one may be the log's next (day 14).
    let hosts = world.containers().join(id_of(&world, "web")).join("hosts");
    OpenOptions::new().append(true).create(true).open(&hosts).unwrap();
    let mut follow = world.start(["logs", "-f", "web"]);
    assert_eq!(follow.line(), "one");
    // Whoever reads `syscall` waits until the process has left its processor: then this sleep has
    // been counted. (proc_pid_syscall(5))
    let syscall = format!("/proc/{}/syscall", follow.runtime());
    until("it sleeps", || {
        common::asleep(follow.runtime()).is_some() && fs::read_to_string(&syscall).unwrap() != "running\n"
    });
    let slept = || {
        let status = fs::read_to_string(format!("/proc/{}/status", follow.runtime())).unwrap();
        status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap().to_string()
    };
    let before = slept();
    for _ in 0..200 {
        OpenOptions::new().append(true).open(&hosts).unwrap().write_all(b"x").unwrap();
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(slept(), before, "how often it has gone to sleep");
    running.stdin().write_all(b"\n").unwrap();
    assert_eq!(follow.line(), "two");
    assert_eq!((running.ended(), follow.ended()), (0, 0));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_follow_ends_when_nobody_reads_any_more() {
    let world = World::new();
    let mut running = world.start(words(&["--name", "web"], "echo one; read x; exit 0"));
    assert_eq!(running.line(), "one");
    // Although there is nothing to write.
    let script = format!("timeout 60 {} logs -f web | head -n 1", common::binary().display());
    let output = Command::new("bash").args(["-c", &format!("set -o pipefail; {script}")]).output().unwrap();
    assert_eq!(
        (output.stdout.as_slice(), output.status.code()),
        (&b"one\n"[..], Some(0)),
        "{}",
        common::said(&output)
    );
    drop(running.stdin());
    assert_eq!(running.ended(), 0);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_t_gives_the_command_a_terminal_of_its_own() {
    let world = World::new();
    let script = "tty; test -t 0 && test -t 1 && test -t 2 && echo all three; ls -l /dev/console | cut -c1";
    run(&world, &["-t", "--name", "web"], script).success().stdout("/dev/pts/0\r\nall three\r\nc\r\n");
    logs(&world, &["web"]).success().stdout("/dev/pts/0\r\nall three\r\nc\r\n").stderr(is_empty());
    run(&world, &["-t", "-u", "app"], "tty; echo x > $(tty)").success().stdout("/dev/pts/0\r\nx\r\n");
    run(&world, &[], "tty").code(1).stdout("not a tty\n");
    let id = world.detach(&["-t"], "tty; exit 3");
    wait_for_end(&world, &id);
    logs(&world, &[&id]).stdout("/dev/pts/0\r\n");
    assert_eq!(world.inspect(&id)["exit_code"], 3);
    run(&world, &["-it"], "true").code(125).stdout(is_empty()).stderr(contains("stdin is not a terminal"));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_it_is_like_sitting_at_the_container() {
    let world = World::new();
    let rootfs = busybox();
    let words = ["run", "-it", "--name", "web", "--rootfs", rootfs.to_str().unwrap(), "sh"];
    let mut user = AtTerminal::start(words.map(String::from).to_vec());
    user.types("stty size; echo $((6*7))\r");
    user.shows("33 111\r\n42\r\n");
    assert!(!user.echoes(), "raw mode: the container's terminal echoes, and not ours as well");
    // Ctrl-C ends what runs inside, and not the container. "going" comes from the process that
    // is to end: said by the shell itself, it would come before there is such a process.
    user.types("sh -c 'echo going; exec sleep 1000'\r");
    user.shows("going\r\n");
    user.types("\x03");
    user.types("echo still $((40+2))\r");
    user.shows("still 42\r\n");
    user.types("exit 5\r");
    assert_eq!(user.ended(), 5);
    logs(&world, &["web"]).stdout(contains("still 42\r\n"));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_the_size_follows_the_users_terminal() {
    let world = World::new();
    let script = "trap 'stty size' WINCH; echo ready; while :; do sleep 0.1; done";
    let mut user = AtTerminal::start(words(&["-it", "--name", "web"], script));
    user.shows("ready\r\n");
    user.resize(50, 120);
    user.shows("50 120\r\n");
    world.tiny_docker(["rm", "-f", "web"]).assert().success();
    assert_eq!(user.ended(), 137);
}

// https://github.com/moby/moby/issues/25450, https://github.com/moby/moby/issues/30785
#[test]
#[ignore = "privileged: make vm-test"]
fn task5_the_terminal_has_its_size_before_the_command_runs() {
    let _world = World::new();
    for flags in [&["-it", "--rm"][..], &["-t", "--rm"]] {
        for _ in 0..10 {
            let mut user = AtTerminal::start(words(flags, "exec stty size"));
            user.shows("33 111");
            assert_eq!(user.ended(), 0);
        }
    }
}

// https://github.com/moby/moby/issues/16273, https://github.com/moby/moby/issues/14391,
// https://github.com/containers/podman/issues/20003
#[test]
#[ignore = "privileged: make vm-test"]
fn task5_when_the_user_has_gone_the_terminal_hangs_up() {
    let world = World::new();
    let bash = |script: &str| {
        let mut command = Command::new("timeout");
        let script = script.replace("RUN", &format!("{} run -t", common::binary().display()));
        let script = script.replace("ROOT", busybox().to_str().unwrap());
        let seconds = common::deadline().as_secs().to_string();
        let output = command.args([&seconds, "bash", "-c", &script]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_ne!(output.status.code(), Some(124), "it did not end: {script}\n{said}");
        eprint!("{said}");
        String::from_utf8(output.stdout).unwrap()
    };
    // One that writes, one that is silent, and one that has something to say to a hangup.
    assert_eq!(bash("RUN --rootfs ROOT yes | head -n 1"), "y\r\n");
    assert_eq!(bash("RUN --rootfs ROOT sleep 1000 | true"), "");
    let hears = "trap \"exit 7\" HUP; echo ready; while :; do sleep 0.1; done";
    assert_eq!(bash(&format!("RUN --name web --rootfs ROOT sh -c '{hears}' | head -n 1")), "ready\r\n");
    until("it has heard the hangup", || world.inspect("web")["exit_code"] == 7);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_closing_the_window_ends_the_container() {
    let world = World::new();
    // Also if nothing of it reaches the runtime as a signal: it is not in the terminal's
    // session. (Then `script` is the window.)
    for (name, how) in [("one", "exec"), ("two", "setsid -w")] {
        let command = words(&["-it", "--name", name], "echo ready; exec sleep 1000");
        let command = format!("{how} {} {}", common::binary().display(), command[..6].join(" "));
        let script = format!("{command} sh -c \"echo ready; exec sleep 1000\"");
        let mut window = Command::new("script");
        let window = window.args(["-qfc", &script, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut window = window.spawn().unwrap();
        let mut screen = BufReader::new(window.stdout.take().unwrap());
        let mut shown = String::new();
        while !shown.contains("ready") {
            assert!(
                screen.read_line(&mut shown).unwrap() > 0,
                "it ended, and this is what it showed:\n{shown}"
            );
        }
        // Keys that nobody reads, more than fit.
        window.stdin.take().unwrap().write_all(&[b'x'; 60_000]).unwrap();
        window.kill().unwrap();
        window.wait().unwrap();
        until("the container ends", || world.inspect(name)["status"] == "exited");
    }
}

// https://github.com/lxc/lxc/issues/1054, https://github.com/containers/crun/issues/1158
#[test]
#[ignore = "privileged: make vm-test"]
fn task5_a_terminal_of_another_mount_namespace_will_do() {
    let world = World::new();
    // As `ip netns exec` does: the terminal lies on a mount that is not ours.
    let unshared = |flags: &[&str], script: &str| {
        let unshare = ["-m", common::binary().to_str().unwrap()].map(String::from);
        AtTerminal::start_program("unshare", unshare.into_iter().chain(words(flags, script)))
    };
    for flags in [&["-it"][..], &["-t"]] {
        let mut user = unshared(flags, "tty; exit 3");
        user.shows("/dev/pts/0");
        assert_eq!(user.ended(), 3, "{flags:?}");
    }
    assert_eq!(unshared(&[], "exit 3").ended(), 3);
    let mut user = unshared(&["-d", "--name", "web"], "exit 3");
    assert_eq!(user.ended(), 0);
    wait_for_end(&world, "web");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_the_users_terminal_is_given_back_whatever_ends_the_runtime() {
    let world = World::new();
    let words = words(&["-it", "--name", "web"], "echo ready; exec sleep 1000");
    for end in ["the container is killed", "SIGTERM", "SIGKILL"] {
        // As in real life, the terminal is not the runtime's own, but a shell's.
        let shell = ["-c", "\"$@\"; echo over; exec sleep 1000", "sh", common::binary().to_str().unwrap()];
        let mut user =
            AtTerminal::start_program("sh", shell.map(String::from).into_iter().chain(words.clone()));
        user.shows("ready\r\n");
        assert!(!user.echoes());
        let runtime = Pid::from_raw(common::children_of(user.program.id() as i32)[0]);
        match end {
            "SIGTERM" => kill(runtime, Signal::SIGTERM).unwrap(),
            "SIGKILL" => kill(runtime, Signal::SIGKILL).unwrap(),
            _ => {}
        }
        // (From day 6 on SIGTERM is passed on, and this command is deaf to it.)
        world.tiny_docker(["rm", "-f", "web"]).assert().success();
        user.shows("over");
        until("the terminal is as it was", || user.echoes());
        user.program.kill().unwrap();
        user.program.wait().unwrap();
    }
}
