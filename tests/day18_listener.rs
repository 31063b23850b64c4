//! Day 18: a program outside that decides about system calls.
// (Missing docs: of what the macros of nix make.)
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixListener;
use std::thread::{self, JoinHandle};

use common::bundle::{Engine, handed_over};
use common::deadline;
use nix::poll::{PollFd, PollFlags, poll};
use predicates::prelude::*;
use predicates::str::contains;
use serde_json::{Value, json};

/// A question. (seccomp_unotify(2), `struct seccomp_notif`)
#[repr(C)]
#[derive(Default)]
struct Question {
    id: u64,
    pid: u32,
    flags: u32,
    call: i32,
    architecture: u32,
    instruction: u64,
    arguments: [u64; 6],
}

/// The answer. (`struct seccomp_notif_resp`)
#[repr(C)]
struct Answer {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

nix::ioctl_readwrite!(take_question, b'!', 0, Question);
nix::ioctl_readwrite!(answer, b'!', 1, Answer);

/// A program that decides: the next call fails with `error`. Returns what it was told.
fn decides(listener: &UnixListener, error: i32) -> Value {
    let (text, calls) = handed_over(listener);
    wait_for_question(&calls);
    let mut question = Question::default();
    // SAFETY: the kernel writes a question into one.
    unsafe { take_question(calls.as_raw_fd(), &raw mut question) }.unwrap();
    let mut refused = Answer { id: question.id, value: 0, error: -error, flags: 0 };
    // SAFETY: the kernel reads an answer.
    unsafe { answer(calls.as_raw_fd(), &raw mut refused) }.unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// The same, beside the test: which does not wait for it if something else goes wrong.
fn decider(listener: &UnixListener, error: i32) -> JoinHandle<Value> {
    let listener = listener.try_clone().unwrap();
    thread::spawn(move || decides(&listener, error))
}

fn wait_for_question(calls: &File) {
    let limit = i32::try_from(deadline().as_millis()).unwrap();
    let mut polled = [PollFd::new(calls.as_fd(), PollFlags::POLLIN)];
    poll(&mut polled, nix::poll::PollTimeout::try_from(limit).unwrap()).unwrap();
    assert!(polled[0].revents().unwrap().contains(PollFlags::POLLIN), "a call comes to be decided about");
}

/// A filter that leaves these calls to whoever listens at `path`.
fn leaves(calls: &[&str], path: Option<&str>) -> Value {
    let rule = json!({"names": calls, "action": "SCMP_ACT_NOTIFY"});
    let mut filter =
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule], "listenerMetadata": "of the test"});
    path.into_iter().for_each(|path| filter["listenerPath"] = json!(path));
    filter
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task8_a_program_outside_decides_about_calls() {
    let mut engine = Engine::new("mkdir /tmp/one; exec sleep 1000");
    let path = engine.path("listener");
    let listener = UnixListener::bind(&path).unwrap();
    engine.config["linux"]["seccomp"] = leaves(&["mkdir", "mkdirat"], path.to_str());
    let told = decider(&listener, libc::ENOLINK);
    engine.call(&["create", "--pid-file", "pid", "one"]).success();
    engine.call(&["start", "one"]).success();
    let told = told.join().unwrap();
    engine.until_says("errors", "severed");
    assert_eq!(told["fds"], json!(["seccompFd"]), "{told}");
    assert_eq!(told["metadata"], "of the test", "{told}");
    assert_eq!((&told["state"]["id"], &told["state"]["pid"]), (&json!("one"), &told["pid"]), "{told}");
    assert_eq!(told["pid"], engine.pid_in("pid").as_raw(), "{told}");

    let told = decider(&listener, libc::EXDEV);
    engine.call(&["exec", "one", "mkdir", "/tmp/two"]).code(1).stderr(contains("ross-device"));
    let told = told.join().unwrap();
    assert_eq!((&told["state"]["id"], &told["state"]["status"]), (&json!("one"), &json!("running")));
    assert_ne!(told["pid"], told["state"]["pid"], "it is about another process: {told}");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task8_without_anybody_who_decides_there_is_no_container() {
    let mut engine = Engine::new("echo it runs");
    let path = engine.path("listener");
    let _listener = UnixListener::bind(&path).unwrap();
    let mut all = leaves(&["mkdir"], path.to_str());
    all["defaultAction"] = json!("SCMP_ACT_NOTIFY");
    for (filter, words) in [
        (leaves(&["mkdir"], None), "expected listenerPath"),
        (leaves(&["mkdir"], Some("/nowhere/listener")), "/nowhere/listener"),
        (leaves(&["sendmsg"], path.to_str()), "for sendmsg"),
        (all, "defaultAction"),
    ] {
        engine.config["linux"]["seccomp"] = filter;
        let told = contains("linux.seccomp").and(contains(words));
        engine.call(&["run", "one"]).code(1).stdout("").stderr(told);
        assert_eq!(engine.remembered(), 0, "{words}: nothing is left");
    }
    // Without anything to decide it does without.
    engine.config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW"});
    assert_eq!(engine.says(), "it runs\n");
}
