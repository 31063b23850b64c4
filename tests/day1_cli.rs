//! Day 1: run a command through our own command line.
//!
//! From day 2 on, every run needs root, so that these tests then need it too.
#![allow(clippy::unwrap_used)]

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;

use common::World;
use nix::sys::signal::Signal;
use predicates::prelude::*;
use predicates::str::{contains, is_empty};

#[test]
#[cfg_attr(feature = "day2-namespaces", ignore = "privileged: make vm-test")]
fn task1_run_passes_the_commands_output_and_exit_code_on() {
    let world = World::new();
    world
        .tiny_docker(["run", "sh", "-c", "echo to stdout; echo to stderr >&2; exit 7"])
        .assert()
        .code(7)
        .stdout("to stdout\n")
        .stderr("to stderr\n");
}

#[test]
#[cfg_attr(feature = "day2-namespaces", ignore = "privileged: make vm-test")]
fn task1_stdin_reaches_the_command_byte_for_byte() {
    let world = World::new();
    let every_byte: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let assert = world.tiny_docker(["run", "cat"]).write_stdin(every_byte.clone()).assert().success();
    assert!(assert.get_output().stdout == every_byte);
}

#[test]
#[cfg_attr(feature = "day2-namespaces", ignore = "privileged: make vm-test")]
fn task1_all_words_after_the_command_are_the_commands() {
    let world = World::new();
    let echo = |words: &[&str], expected: &str| {
        let all = ["run"].iter().chain(words);
        world.tiny_docker(all).assert().success().stdout(expected.to_string());
    };
    echo(&["echo", "-n", "--help", "--explain"], "--help --explain");
    echo(&["echo", "--", "-n"], "-- -n\n");
    echo(&["--", "echo", "hello"], "hello\n");
    echo(&["echo", "two words", "", "$HOME"], "two words  $HOME\n");
}

#[test]
#[cfg_attr(feature = "day2-namespaces", ignore = "privileged: make vm-test")]
fn task1_an_argument_that_is_not_utf8_survives() {
    let world = World::new();
    let argument = OsStr::from_bytes(b"caf\xe9");
    let arguments = [OsStr::new("run"), OsStr::new("printf"), OsStr::new("%s"), argument];
    world.tiny_docker(arguments).assert().success().stdout(&b"caf\xe9"[..]);
}

#[test]
#[cfg_attr(feature = "day2-namespaces", ignore = "privileged: make vm-test")]
fn task1_bad_usage_is_2_and_what_the_error_proposes_works() {
    let world = World::new();
    world.tiny_docker(["run"]).assert().code(2).stdout(is_empty()).stderr(contains("<COMMAND>"));
    world.tiny_docker(["frobnicate"]).assert().code(2).stderr(contains("frobnicate"));
    world
        .tiny_docker(["run", "--no-such-flag", "true"])
        .assert()
        .code(2)
        .stderr(contains("--no-such-flag").and(contains("-- --no-such-flag")));
    world.tiny_docker(["run", "--", "--no-such-flag"]).assert().code(127);
}

#[test]
fn task1_commands_of_later_days_say_which_day_brings_them() {
    let world = World::new();
    let commands: [(&[&str], &str, bool); 3] = [
        (&["ps"], "day 4", cfg!(feature = "day4-metadata")),
        (&["logs", "web"], "day 5", cfg!(feature = "day5-logs")),
        (&["stop", "web", "db"], "day 6", cfg!(feature = "day6-stop")),
    ];
    for (words, day, _) in commands.into_iter().filter(|(_, _, has_come)| !has_come) {
        world.tiny_docker(words).assert().code(125).stdout(is_empty()).stderr(contains(day));
    }
}

#[test]
#[cfg_attr(feature = "day2-namespaces", ignore = "privileged: make vm-test")]
fn task2_a_command_that_is_not_there_is_127() {
    let world = World::new();
    world
        .tiny_docker(["run", "no-such-command"])
        .assert()
        .code(127)
        .stdout(is_empty())
        .stderr(contains("\"no-such-command\": no such command in the PATH"));
    world.tiny_docker(["run", "/no/such/file"]).assert().code(127).stderr(contains("no such file"));
    world.tiny_docker(["run", ""]).assert().code(127);
    fs::write(world.dir().join("orphan"), "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(world.dir().join("orphan"), fs::Permissions::from_mode(0o755)).unwrap();
    world.tiny_docker(["run", "./orphan"]).assert().code(127).stderr(contains("interpreter"));
}

#[test]
#[cfg_attr(feature = "day2-namespaces", ignore = "privileged: make vm-test")]
fn task2_a_file_that_cannot_be_executed_is_126() {
    let world = World::new();
    let file = world.dir().join("file");
    fs::write(&file, "echo I am no program").unwrap();
    world.tiny_docker(["run", "./file"]).assert().code(126).stderr(contains("permission denied"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    world.tiny_docker(["run", "./file"]).assert().code(126).stderr(contains("#!"));
    world.tiny_docker(["run", "/etc"]).assert().code(126).stderr(contains("is a directory"));
    world.tiny_docker(["run", "/etc/passwd/ls"]).assert().code(127);
}

#[test]
#[cfg_attr(feature = "day2-namespaces", ignore = "privileged: make vm-test")]
fn task2_the_first_executable_file_in_the_path_is_run() {
    let world = World::new();
    for (dir, mode) in [("a", 0o644), ("b", 0o755), ("c", 0o755)] {
        fs::create_dir(world.dir().join(dir)).unwrap();
        let program = world.dir().join(dir).join("program");
        fs::write(&program, format!("#!/bin/sh\necho {dir} $0 $1\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(mode)).unwrap();
    }
    let dir = world.dir().display();
    // In `a` it is not executable, so it is not the one, as in a shell.
    let path = format!("/no/such/dir:{dir}/a:{dir}/b:{dir}/c");
    let expected = format!("b {dir}/b/program x\n");
    world.tiny_docker(["run", "program", "x"]).env("PATH", path).assert().success().stdout(expected);
    let path = format!("{dir}/a");
    world.tiny_docker(["run", "program"]).env("PATH", path).assert().code(126);
}

#[test]
#[cfg_attr(feature = "day2-namespaces", ignore = "privileged: make vm-test")]
fn task3_long_every_exit_code_is_passed_on() {
    let world = &World::new();
    // Every one of them, on the day that is about it.
    let step = if cfg!(feature = "day2-namespaces") { 15 } else { 1 };
    let codes: Vec<i32> = (0..=255).step_by(step).collect();
    // Several at a time: an emulated start is slow.
    std::thread::scope(|scope| {
        for some in codes.chunks(codes.len().div_ceil(4)) {
            scope.spawn(move || {
                for code in some {
                    let script = format!("exit {code}");
                    world.tiny_docker(["run", "sh", "-c", &script]).assert().code(*code).stderr(is_empty());
                }
            });
        }
    });
}

#[test]
#[cfg_attr(feature = "day2-namespaces", ignore = "privileged: make vm-test")]
fn task3_a_command_killed_by_signal_n_is_128_plus_n() {
    use Signal::*;
    // From day 2 on the command is PID 1 of its world, and of all signals only
    // this one ends it against its will.
    let signals = if cfg!(feature = "day2-namespaces") {
        &[SIGKILL][..]
    } else {
        &[SIGHUP, SIGINT, SIGQUIT, SIGABRT, SIGKILL, SIGSEGV, SIGPIPE, SIGALRM, SIGTERM, SIGUSR1]
    };
    let world = World::new();
    for signal in signals {
        let mut running = world.start(["run", "sh", "-c", "echo ready; exec sleep 1000"]);
        assert_eq!(running.line(), "ready");
        running.signal_command(*signal);
        assert_eq!(running.ended(), 128 + *signal as i32, "{signal}");
    }
    // Real-time signals have numbers and no names.
    // https://github.com/opencontainers/runc/issues/1766
    if !cfg!(feature = "day2-namespaces") {
        for number in [34, 36, 64] {
            let script = format!("kill -{number} $$");
            world.tiny_docker(["run", "sh", "-c", &script]).assert().code(128 + number);
        }
    }
}

#[test]
#[cfg_attr(feature = "day2-namespaces", ignore = "privileged: make vm-test")]
fn task3_the_exit_code_arrives_also_where_sigchld_is_ignored() {
    let world = World::new();
    // The shell's trap is inherited by what it execs: the kernel would reap the
    // child by itself, and the code would be lost.
    let script = format!("trap '' CHLD; exec {} run sh -c 'exit 7'", common::binary().display());
    let status =
        std::process::Command::new("bash").args(["-c", &script]).current_dir(world.dir()).status().unwrap();
    assert_eq!(status.code(), Some(7));
}

#[test]
#[cfg_attr(feature = "day2-namespaces", ignore = "privileged: make vm-test")]
fn task3_explain_narrates_both_processes_and_changes_nothing_else() {
    let world = World::new();
    let narrated = contains("parent  clone3").and(contains("child   execve")).and(contains("parent  waitid"));
    world
        .tiny_docker(["--explain", "run", "sh", "-c", "echo hello; exit 7"])
        .assert()
        .code(7)
        .stdout("hello\n")
        .stderr(narrated);
}

// What a command inherits, and what it does not: the table in the chapter.

#[test]
#[cfg_attr(feature = "day2-namespaces", ignore = "privileged: make vm-test")]
fn task4_the_command_does_not_outlive_a_runtime_that_was_killed() {
    let world = World::new();
    let mut running = world.start(["run", "sh", "-c", "trap '' TERM; echo ready; exec sleep 1000"]);
    running.line();
    running.ends_with_its_runtime();
}

#[test]
#[cfg_attr(feature = "day2-namespaces", ignore = "privileged: make vm-test")]
fn task4_a_command_that_never_ran_is_an_error_whenever_its_process_was_killed() {
    let world = World::new();
    let mut killed = 0;
    for moment in 1.. {
        let mut command = world.tiny_docker(["run", "sh", "-c", "echo it runs; exit 7"]);
        let output = command.env("TINY_DOCKER_DIE_AT", format!("child:{moment}")).output().unwrap();
        if output.status.code() == Some(7) {
            break;
        }
        let said = common::said(&output);
        assert_eq!(output.status.code(), Some(125), "killed before its operation {moment}; {said}");
        assert!(said.contains("before its command ran") && !said.contains("it runs"), "{said}");
        killed += 1;
    }
    assert!(killed > 2, "the child was killed only {killed} times before it was the command");
}

#[test]
#[cfg_attr(feature = "day2-namespaces", ignore = "privileged: make vm-test")]
fn task4_with_too_little_memory_it_runs_or_fails_and_never_panics() {
    let world = World::new();
    for kilobytes in (2000..14_000).step_by(1000) {
        let script = format!("ulimit -v {kilobytes}; exec \"$0\" run sh -c 'echo it runs'");
        let output = world.called_by(&script).output().unwrap();
        let said = common::said(&output);
        // Where even the runtime does not fit, the kernel kills it.
        assert!(!output.status.success() || output.stdout == b"it runs\n", "{kilobytes} kB: {said}");
        assert!(!said.contains("panicked"), "{kilobytes} kB: {said}");
    }
}

#[test]
#[cfg_attr(feature = "day2-namespaces", ignore = "privileged: make vm-test")]
fn task4_a_signal_ends_a_run_that_has_not_started_yet() {
    let world = World::new();
    // SIGHUP is left out: under nohup it is ignored, by the runtime too.
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT] {
        // Its child hangs before its second operation.
        let mut running = world.start_with([("TINY_DOCKER_HANG_AT", "child:2")], ["run", "echo", "it runs"]);
        common::until("there is a child", || !common::children_of(running.runtime().as_raw()).is_empty());
        running.signal_runtime(signal);
        assert_eq!(running.ended(), 128 + signal as i32, "ended by {signal}");
        assert_eq!(running.rest(), "", "what the command wrote");
    }
}

#[test]
#[cfg_attr(feature = "day2-namespaces", ignore = "privileged: make vm-test")]
fn task4_every_signal_has_its_default_action_and_none_is_blocked() {
    let world = World::new();
    // As after a script's `&`, `trap '' TERM`, under nohup; and Rust itself ignores SIGPIPE.
    let script =
        "exec env --ignore-signal --block-signal \"$0\" run grep -E '^Sig(Blk|Ign)' /proc/self/status";
    let nothing = "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n";
    world.called_by(script).assert().success().stdout(nothing);
    world.tiny_docker(["run", "sh", "-c", "yes | head -n 1"]).assert().success().stdout("y\n");
}

// https://github.com/containerd/nerdctl/issues/2684
#[test]
#[cfg_attr(feature = "day2-namespaces", ignore = "privileged: make vm-test")]
fn task4_the_umask_is_022_whatever_the_callers_is() {
    let world = World::new();
    for mask in ["077", "000"] {
        let script = format!("umask {mask}; exec \"$0\" run sh -c umask");
        world.called_by(&script).assert().success().stdout("0022\n");
    }
}

// https://github.com/containers/conmon/issues/263
#[test]
#[cfg_attr(feature = "day2-namespaces", ignore = "privileged: make vm-test")]
fn task4_the_kernel_may_kill_it_for_memory_also_if_not_its_caller() {
    let world = World::new();
    // To protect oneself takes a privilege.
    let scores = if nix::unistd::geteuid().is_root() { &["500", "-1000"][..] } else { &["500"][..] };
    for score in scores {
        let script =
            format!("echo {score} >/proc/self/oom_score_adj; exec \"$0\" run cat /proc/self/oom_score_adj");
        world.called_by(&script).assert().success().stdout("0\n");
    }
}

#[test]
#[cfg_attr(feature = "day2-namespaces", ignore = "privileged: make vm-test")]
fn task4_the_callers_session_keyring_stays_with_the_caller() {
    let world = World::new();
    let mut command = std::process::Command::new(common::binary());
    command.args(["run", "cat", "/proc/keys"]).current_dir(world.dir());
    // SAFETY: only system calls between fork and exec.
    unsafe { std::os::unix::process::CommandExt::pre_exec(&mut command, common::session_key_for_its_holder) };
    assert_cmd::Command::from_std(command).assert().success().stdout(contains("tiny-docker-test").not());
}

#[test]
#[cfg_attr(feature = "day2-namespaces", ignore = "privileged: make vm-test")]
fn task4_addresses_are_random_also_if_the_callers_are_not() {
    let world = World::new();
    let script = "exec setarch -R \"$0\" run cat /proc/self/personality";
    world.called_by(script).assert().success().stdout("00000000\n");
}

#[test]
#[cfg_attr(feature = "day2-namespaces", ignore = "privileged: make vm-test")]
fn task4_what_the_caller_is_limited_to_passes_on() {
    let world = World::new();
    let limited = |program: &str| {
        let shown = "ulimit -n; nice; grep NoNewPrivs: /proc/self/status";
        format!("ulimit -n 77; exec nice -n 3 setpriv --no-new-privs {program} sh -c '{shown}'")
    };
    let direct = world.called_by(&limited("")).output().unwrap();
    let direct = String::from_utf8(direct.stdout).unwrap();
    assert!(direct.starts_with("77\n") && direct.ends_with("NoNewPrivs:\t1\n"), "{direct}");
    world.called_by(&limited("\"$0\" run")).assert().success().stdout(direct);
}
