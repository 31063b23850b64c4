//! Day 7: limit what a container may use.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use assert_cmd::assert::Assert;
use common::{World, alive, asleep, busybox, rootfs, until};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use predicates::prelude::*;
use predicates::str::contains;
use serde_json::Value;

const ROOT: &str = "/sys/fs/cgroup";

/// The article's program: 200 MiB at once.
const HOG: &str = "a = 'x' * 200 * 1024 * 1024; print('allocated')";

/// The same in little: dd fills a buffer of that size.
const SMALL_HOG: &str = "exec dd if=/dev/zero of=/dev/null bs=200M count=1";

/// Makes as many processes as it may, and then goes on trying.
const FORK_BOMB: &str = "echo ready; bomb() { bomb | bomb & }; bomb; while :; do sleep 1; done";

fn run(world: &World, flags: &[&str], script: &str) -> Assert {
    let rootfs = busybox();
    world
        .tiny_docker([&["run", "--rootfs", rootfs.to_str().unwrap()], flags, &["sh", "-c", script]].concat())
        .assert()
}

fn run_python(world: &World, flags: &[&str], program: &str) -> Assert {
    let rootfs = rootfs("debian");
    let words = [&["run", "--rootfs", rootfs.to_str().unwrap()], flags, &["python3", "-c", program]].concat();
    world.tiny_docker(words).assert()
}

/// The container's cgroup, as the host sees it.
fn cgroup(id: &str) -> PathBuf {
    Path::new(ROOT).join(format!("tiny-docker-{id}"))
}

fn number(file: PathBuf) -> u64 {
    fs::read_to_string(file).unwrap().trim().parse().unwrap()
}

fn control(change: &str) -> std::io::Result<()> {
    fs::write(Path::new(ROOT).join("cgroup.subtree_control"), change)
}

fn remove_children_of(dir: &Path) {
    for left in fs::read_dir(dir).unwrap().flatten().filter(|entry| entry.path().is_dir()) {
        fs::remove_dir(left.path()).unwrap();
    }
}

/// Runs `script` in a shell in a mount namespace of its own, with `$run` as the
/// words that run a container. Returns what it printed, and its exit code.
fn in_a_shell(world: &World, script: &str) -> (String, i32) {
    let rootfs = busybox();
    let run = format!("{} run --rootfs {}", common::binary().display(), rootfs.display());
    let mut shell = Command::new("timeout");
    shell
        .args(["--foreground", &common::deadline().as_secs().to_string(), "unshare", "--mount"])
        .args(["sh", "-c", &format!("{{ {script}\n}} 2>&1")])
        .env("run", run)
        .current_dir(world.dir());
    let output = shell.output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.code().unwrap())
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_what_is_no_limit_is_refused_and_nothing_is_made() {
    let world = World::new();
    for (flags, expected) in [
        ("--memory 5m", "at least 6m"),
        ("--memory 1", "at least 6m"),
        ("--memory 0.1b", "at least 6m"),
        ("--memory lots", "such as 128m"),
        ("--memory 128q", "such as 128m"),
        ("--memory -1", "such as 128m"),
        ("--memory nan", "such as 128m"),
        ("--memory 128mbb", "such as 128m"),
        // A number that wraps around, or becomes the largest there is, is no limit at all.
        ("--memory 99999999999999999999g", "more than"),
        ("--memory 8192p", "more than"),
        ("--memory 18446744073709551616", "more than"),
        ("--memory 1e400", "more than"),
        ("--memory 128m --memory-swap 16777216t", "more than"),
        ("--memory-swap 128m", "needs --memory"),
        ("--memory 0 --memory-swap 128m", "needs --memory"),
        ("--memory 128m --memory-swap 64m", "at least as much"),
        ("--memory 128m --memory-swap -2", "such as 128m"),
        ("--cpus 1000", "from 0.01 to"),
        ("--cpus 1e400", "from 0.01 to"),
        ("--cpus inf", "from 0.01 to"),
        ("--cpus nan", "from 0.01 to"),
        ("--cpus -1", "from 0.01 to"),
        ("--cpus 0.0000001", "from 0.01 to"),
        ("--cpus half", "from 0.01 to"),
        ("--pids-limit many", "such as 64"),
        ("--pids-limit 6.5", "such as 64"),
        // The kernel has no more than that many ids.
        ("--pids-limit 4194305", "at most 4194304"),
        ("--pids-limit 99999999999999999999", "at most 4194304"),
    ] {
        let flags: Vec<&str> = flags.split(' ').collect();
        run(&world, &flags, "echo never").code(125).stdout("").stderr(contains(expected));
    }
    assert_eq!(fs::read_dir(world.containers()).into_iter().flatten().count(), 0);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_controllers_are_handed_down_when_they_are_not_yet() {
    let world = World::new();
    control("-pids -cpu").unwrap();
    run(&world, &[], "true").success();
    let handed_down = fs::read_to_string(Path::new(ROOT).join("cgroup.subtree_control")).unwrap();
    assert!(handed_down.contains("pids") && handed_down.contains("cpu"), "{handed_down}");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_all_that_the_container_starts_is_in_its_cgroup() {
    let world = World::new();
    let id = world.detach(&[], "sleep 1000 & sleep 1000 & wait");
    until("all are there", || number(cgroup(&id).join("pids.current")) == 3);
    let inside = fs::read_to_string(cgroup(&id).join("cgroup.procs")).unwrap();
    let first = world.inspect(&id)["pid"].to_string();
    assert!(inside.lines().any(|pid| pid == first), "{inside}");
    // And the runtime is not: its memory is not the container's.
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let parent = fs::read_to_string(format!("/proc/{first}/status")).unwrap();
    let parent = parent.lines().find_map(|line| line.strip_prefix("PPid:\t")).unwrap();
    assert_eq!(fs::read_to_string(format!("/proc/{parent}/cgroup")).unwrap(), own);
    world.remove_all();
    assert!(!cgroup(&id).exists(), "the container has gone, and its cgroup is still there");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_under_systemd_it_keeps_to_a_unit_that_is_delegated() {
    let world = World::new();
    let unit = Path::new(ROOT).join("learner.scope");
    fs::create_dir(&unit).unwrap();
    // What tells that systemd is at work, in the shell's mount namespace alone.
    let systemd = "mount -t tmpfs run /run; mkdir -p /run/systemd/system";
    let enter = format!("{systemd}; echo $$ > {}/cgroup.procs", unit.display());

    let (without, code_without) = in_a_shell(&world, &format!("{enter}; $run true; $run --memory 64m true"));
    let mark = "import os; os.setxattr('/sys/fs/cgroup/learner.scope', 'trusted.delegate', b'1')";
    assert!(Command::new("python3").args(["-c", mark]).status().unwrap().success());
    // The shell is in the unit as well. It must make room, as the kernel wants it.
    let run = format!("{} --explain run --rootfs {}", common::binary().display(), busybox().display());
    let (inside, code_inside) = in_a_shell(
        &world,
        &format!(
            "{enter}; {run} --memory 64m true 2>told; $run --memory 32m true; cat {}/cgroup.subtree_control",
            unit.display()
        ),
    );
    let told = fs::read_to_string(world.dir().join("told")).unwrap();
    remove_children_of(&unit);
    fs::remove_dir(&unit).unwrap();

    assert_eq!(code_without, 125, "{without}");
    assert!(without.contains("systemd-run --scope -p Delegate=yes"), "{without}");
    assert_eq!(without.lines().count(), 1, "without a limit there is nothing to say: {without}");
    assert_eq!(code_inside, 0, "{inside}{told}");
    assert!(told.contains("mkdir(\"/sys/fs/cgroup/learner.scope/tiny-docker-"), "{told}");
    assert_eq!(inside, "cpu memory pids\n", "{told}");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_in_a_cgroup_namespace_its_root_is_made_room_in() {
    let world = World::new();
    let outer = Path::new(ROOT).join("outer");
    fs::create_dir(&outer).unwrap();
    // As in a container: /sys/fs/cgroup shows a part of the tree, with processes at its top.
    let script = format!(
        "echo $$ > {}/cgroup.procs; exec unshare --cgroup --mount sh -c '
             umount /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup; cat /proc/self/cgroup
             $run --memory 64m true && cat /sys/fs/cgroup/cgroup.subtree_control /proc/self/cgroup'",
        outer.display()
    );
    let (said, code) = in_a_shell(&world, &script);
    remove_children_of(&outer);
    fs::remove_dir(outer).unwrap();
    assert_eq!((said.as_str(), code), ("0::/\ncpu memory pids\n0::/tiny-docker.runtime\n", 0));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_a_host_that_cannot_is_told_only_when_a_limit_is_asked_for() {
    let world = World::new();
    // No cgroups at all.
    let (said, code) = in_a_shell(&world, "umount /sys/fs/cgroup; $run true && $run --memory 64m true");
    assert_eq!(code, 125, "{said}");
    assert!(said.contains("mount -t cgroup2"), "{said}");
    // Version 1 alone.
    let (said, code) = in_a_shell(
        &world,
        "umount /sys/fs/cgroup; mount -t cgroup -o none,name=old none /sys/fs/cgroup
         $run true && $run --cpus 0.5 true; code=$?; umount /sys/fs/cgroup; exit $code",
    );
    assert_eq!(code, 125, "{said}");
    assert!(said.contains("version 1 only") && said.contains("unified_cgroup_hierarchy"), "{said}");
    // Both, and version 1 has the controller. The kernel moves one that nobody uses.
    let old = world.dir().join("old");
    fs::create_dir(&old).unwrap();
    control("-pids").unwrap();
    until("version 1 has pids", || {
        Command::new("mount")
            .args(["-t", "cgroup", "-o", "pids", "pids"])
            .arg(&old)
            .output()
            .unwrap()
            .status
            .success()
    });
    let without = run(&world, &[], "echo fine");
    let with = run(&world, &["--pids-limit", "5"], "echo never");
    assert!(Command::new("umount").arg(&old).status().unwrap().success());
    until("version 2 has it again", || control("+pids").is_ok());
    without.success().stdout("fine\n");
    let place = format!("in use by cgroup version 1, at {}", old.display());
    with.code(125).stderr(contains("\"pids\"").and(contains(place)));
}

// What the host calls its directories is bytes, and a table escapes some of them:
// https://github.com/opencontainers/runc/issues/4711 was the same of another file.
#[test]
#[ignore = "privileged: make vm-test"]
fn task2_the_tree_is_found_whatever_its_place_is_called() {
    let world = World::new();
    let (said, code) = in_a_shell(
        &world,
        "place=$PWD/$(printf 'a b\\351'); mkdir \"$place\"; mount --move /sys/fs/cgroup \"$place\"
         $run --memory 64m true && ls \"$place\" | grep tiny-docker; ls -d \"$place\"/init.scope >/dev/null",
    );
    assert_eq!((said.as_str(), code), ("", 0));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_a_limit_is_written_in_the_kernels_words() {
    let world = World::new();
    for (flags, file, expected) in [
        ("--memory 128m", "memory.max", "134217728"),
        ("-m 64MiB", "memory.max", "67108864"),
        ("--memory 6291456", "memory.max", "6291456"),
        ("--memory 0.5g", "memory.max", "536870912"),
        // A limit is a limit, and the swap no way around it.
        ("--memory 128m", "memory.swap.max", "0"),
        ("--memory 128m --memory-swap 0", "memory.swap.max", "0"),
        ("--memory 128m --memory-swap 192m", "memory.swap.max", "67108864"),
        ("--memory 128m --memory-swap 128m", "memory.swap.max", "0"),
        ("--memory 128m --memory-swap -1", "memory.swap.max", "max"),
        ("--cpus 0.5", "cpu.max", "50000 100000"),
        ("--cpus 1.5", "cpu.max", "150000 100000"),
        ("--pids-limit 64", "pids.max", "64"),
        // As with Docker, 0 is no limit, and so is less, where that is a number at all.
        ("--memory 0", "memory.max", "max"),
        ("--memory 0 --memory-swap 0", "memory.swap.max", "max"),
        ("--memory-swap -1", "memory.swap.max", "max"),
        ("--cpus 0", "cpu.max", "max 100000"),
        ("--pids-limit 0", "pids.max", "max"),
        ("--pids-limit -1", "pids.max", "max"),
        ("--pids-limit -2", "pids.max", "max"),
        ("--hostname box", "memory.max", "max"),
    ] {
        let flags: Vec<&str> = flags.split(' ').collect();
        run(&world, &flags, &format!("cat /sys/fs/cgroup/{file}")).success().stdout(format!("{expected}\n"));
    }
}

// What the caller may use is not what the machine has. https://github.com/moby/moby/issues/45357
// and https://github.com/golang/go/issues/11609
#[test]
#[ignore = "privileged: make vm-test"]
fn task3_processors_are_the_machines_and_not_the_callers() {
    let world = World::new();
    let (said, code) = in_a_shell(&world, "taskset -c 0 $run --cpus 2 cat /sys/fs/cgroup/cpu.max");
    assert_eq!((said.as_str(), code), ("200000 100000\n", 0));
    let narrow = Path::new(ROOT).join("narrow");
    fs::create_dir(&narrow).unwrap();
    fs::write(narrow.join("cpuset.cpus"), "0").unwrap();
    let enter = format!("echo $$ > {}/cgroup.procs", narrow.display());
    let (said, code) =
        in_a_shell(&world, &format!("{enter}; nproc; exec $run --cpus 2 cat /sys/fs/cgroup/cpu.max"));
    fs::remove_dir(&narrow).unwrap();
    assert_eq!((said.as_str(), code), ("1\n200000 100000\n", 0));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_the_limits_are_there_before_the_container_is() {
    let world = World::new();
    let rootfs = busybox();
    let words = ["--explain", "run", "--memory", "64m", "--rootfs", rootfs.to_str().unwrap(), "true"];
    let output = world.tiny_docker(words).output().unwrap();
    let narration = String::from_utf8(output.stderr).unwrap();
    let line = |text: &str| {
        narration
            .lines()
            .position(|line| line.contains(text))
            .unwrap_or_else(|| panic!("no {text} in {narration}"))
    };
    assert!(narration.contains("CLONE_INTO_CGROUP"), "{narration}");
    assert!(line("memory.max") < line("clone3("), "{narration}");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_the_container_sees_its_own_cgroup_and_no_other() {
    let world = World::new();
    let look = "cat /proc/self/cgroup; ls -d /sys/fs/cgroup/*.scope; cat /sys/fs/cgroup/memory.max
                echo max > /sys/fs/cgroup/memory.max; cat /sys/fs/cgroup/memory.max";
    let seen = "0::/\n67108864\n67108864\n";
    run(&world, &["--memory", "64m"], look).success().stdout(seen).stderr(contains("Read-only file system"));
    // On the host's root file system as well.
    let words = ["run", "--memory", "64m", "sh", "-c", look];
    world.tiny_docker(words).assert().success().stdout(seen).stderr(contains("Read-only file system"));
    // And as a user who is not root.
    run(&world, &["--memory", "64m", "-u", "app"], "cat /proc/self/cgroup").success().stdout("0::/\n");
    // Whatever whoever called has for a umask: https://github.com/containerd/nerdctl/issues/2684
    let look = "(umask 077; $run --memory 64m -u app cat /sys/fs/cgroup/memory.max)";
    assert_eq!(in_a_shell(&world, look), ("67108864\n".into(), 0));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_a_busy_loop_gets_the_share_it_may() {
    let world = World::new();
    let id = world.detach(&["--cpus", "0.5"], "while :; do :; done");
    // By the kernel's own account: of processor time, and of periods of 100 ms. (How long
    // those really take is a question of what else the machine has to do.)
    let count = || {
        let stat = fs::read_to_string(cgroup(&id).join("cpu.stat")).unwrap();
        ["usage_usec ", "nr_periods "]
            .map(|key| stat.lines().find_map(|line| line.strip_prefix(key)).unwrap().parse::<f64>().unwrap())
    };
    let mut shares = Vec::new();
    // Where a processor of the guest's has to wait for one of the host's, a period may begin
    // late, and the loop gets less in it: so it has some tries.
    while shares.last().is_none_or(|share| *share < 0.45) && shares.len() < 10 {
        let [used, periods] = count();
        until("50 periods are over", || count()[1] >= periods + 50.0);
        let [used_then, periods_then] = count();
        shares.push((used_then - used) / (periods_then - periods) / 100_000.0);
    }
    assert!(shares.last() >= Some(&0.45) && shares.iter().all(|share| *share <= 0.55), "{shares:.3?}");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_memory_hog_is_killed_and_reported() {
    let world = World::new();
    run_python(&world, &["--name", "hog", "--memory", "128m"], HOG)
        .code(137)
        .stdout("")
        .stderr(contains("out of memory").and(contains("limit of 128m")).and(contains("--memory")));
    let record = world.inspect("hog");
    assert_eq!(record["oom_killed"], true);
    assert_eq!((&record["exit_code"], &record["signal"]), (&137.into(), &"SIGKILL".into()));
    assert!(record["reason"].as_str().unwrap().contains("out of memory"), "{record}");
    run_python(&world, &["--name", "fine", "--memory", "512m"], HOG)
        .success()
        .stdout("allocated\n")
        .stderr("");
    assert_eq!(world.inspect("fine")["oom_killed"], false);
    assert!(world.inspect("fine").get("reason").is_none());
}

// https://github.com/containers/conmon/issues/263
// https://github.com/containers/crun/issues/1357
#[test]
#[ignore = "privileged: make vm-test"]
fn task4_a_hog_is_killed_also_if_its_caller_may_not_be() {
    let world = World::new();
    // As sshd and systemd protect themselves. What they start inherits it, and a container
    // that exceeds its limit and that nobody may kill tries forever.
    let rootfs = busybox();
    let script = format!(
        "echo -1000 >/proc/self/oom_score_adj; exec \"$0\" run --memory 16m --rootfs {} sh -c '{SMALL_HOG}'",
        rootfs.display()
    );
    world.called_by(&script).assert().code(137).stderr(contains("out of memory"));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_a_hog_in_the_background_is_in_its_record() {
    let world = World::new();
    // What one in front of us is told, is in the record of one behind our back.
    run(&world, &["--name", "in-front", "--memory", "64m"], SMALL_HOG).code(137);
    run(&world, &["-d", "--name", "behind", "--memory", "64m"], SMALL_HOG).success();
    world.tiny_docker(["wait", "behind"]).assert().success().stdout("137\n");
    let (record, in_front) = (world.inspect("behind"), world.inspect("in-front"));
    assert_eq!(record["oom_killed"], true);
    assert!(record["reason"].as_str().unwrap().contains("limit of 64m"), "{record}");
    for field in ["exit_code", "signal", "oom_killed", "reason"] {
        assert_eq!(record[field], in_front[field], "{field}");
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_who_was_killed_is_told_apart() {
    let world = World::new();
    // A process of it, and the command itself goes on.
    let child = format!("({SMALL_HOG}); echo $?");
    run(&world, &["--name", "child", "--memory", "128m"], &child)
        .success()
        .stdout("137\n")
        .stderr(contains("a process of the container"));
    assert_eq!(world.inspect("child")["oom_killed"], true);
    // Killed, but not for want of memory.
    let id = world.detach(&["--memory", "64m"], "sleep 1000");
    world.tiny_docker(["kill", &id]).assert().success();
    let record = world.inspect(&id);
    assert_eq!((&record["exit_code"], &record["oom_killed"]), (&137.into(), &false.into()));
    assert!(record.get("reason").is_none(), "{record}");
}

// `oom` counts that a cgroup's own memory ran out, `oom_kill` that one of its processes was
// killed for want of memory, wherever.
#[test]
#[ignore = "privileged: make vm-test"]
fn task4_killed_for_memory_that_a_cgroup_above_had_not() {
    let world = World::new();
    let unit = Path::new(ROOT).join("poor.scope");
    fs::create_dir(&unit).unwrap();
    fs::write(unit.join("memory.max"), "48M").unwrap();
    fs::write(unit.join("memory.swap.max"), "0").unwrap();
    let script = format!(
        "mount -t tmpfs run /run; mkdir -p /run/systemd/system
         python3 -c 'import os; os.setxattr(\"{0}\", \"trusted.delegate\", b\"1\")'
         echo $$ > {0}/cgroup.procs; $run --name poor --memory 1g sh -c '{SMALL_HOG}'",
        unit.display()
    );
    let (said, code) = in_a_shell(&world, &script);
    remove_children_of(&unit);
    fs::remove_dir(&unit).unwrap();
    assert_eq!(code, 137, "{said}");
    let record = world.inspect("poor");
    assert_eq!(record["oom_killed"], true, "{record}");
    // It is not the container's limit that was too low.
    assert!(said.contains("a cgroup above") && !said.contains("1g"), "{said}");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_stats_show_what_each_container_uses() {
    let world = World::new();
    let busy = world.detach(&["--name", "busy", "--cpus", "0.5", "--memory", "64m"], "while :; do :; done");
    let idle = world.detach(&["--name", "idle"], "sleep 1000 & sleep 1000 & wait");
    until("all are there, and idle", || {
        let all = fs::read_to_string(cgroup(&idle).join("cgroup.procs")).unwrap();
        let programs: Vec<_> = all.lines().map(|pid| asleep(Pid::from_raw(pid.parse().unwrap()))).collect();
        let sleeping = programs.iter().filter(|program| program.as_deref() == Some("sleep")).count();
        programs.len() == 3 && sleeping == 2 && programs.iter().all(Option::is_some)
    });
    let look = || -> Vec<Value> {
        let assert = world.tiny_docker(["stats", "--no-stream", "--format", "json"]).assert().success();
        let text = String::from_utf8(assert.get_output().stdout.clone()).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        lines
    };
    let percent = |lines: &[Value], id: &str| {
        lines.iter().find(|line| line["id"] == id).unwrap()["cpu_percent"].as_f64().unwrap()
    };
    // A look is a second. In one where the machine has something else to do, the kernel gives
    // the loop less, or counts late: so there are some. A wrong account is wrong in all of them.
    let (mut lines, mut seen) = (Vec::new(), Vec::new());
    let is_right = |percent: &f64| (40.0..=60.0).contains(percent);
    while !seen.last().is_some_and(is_right) && seen.len() < 20 {
        lines = look();
        seen.push(percent(&lines, &busy));
    }
    assert!(seen.last().is_some_and(is_right), "expected half of one processor, 50: {seen:.1?}");
    let of = |id: &str| lines.iter().find(|line| line["id"] == id).unwrap();
    assert_eq!(of(&busy)["memory_limit"], 64 << 20);
    assert!((1..64 << 20).contains(&of(&busy)["memory_usage"].as_u64().unwrap()));
    assert!(of(&idle)["cpu_percent"].as_f64().unwrap() < 10.0);
    assert_eq!((&of(&idle)["memory_limit"], &of(&idle)["pids"]), (&Value::Null, &3.into()));

    let table = world.tiny_docker(["stats", "--no-stream", "busy"]).assert().success();
    let table = String::from_utf8(table.get_output().stdout.clone()).unwrap();
    assert!(table.starts_with("CONTAINER ID   NAME   CPU %"), "{table}");
    assert!(table.contains(" / 64MiB") && !table.contains("idle"), "{table}");
    world
        .tiny_docker(["stats", "--no-stream", "nosuch", "busy"])
        .assert()
        .code(1)
        .stderr(contains("no such container"));
    // Again and again: as long as it is let.
    let mut stream = world.start(["stats", "idle"]);
    for _ in 0..2 {
        assert!(stream.line().starts_with("CONTAINER ID"));
        assert!(stream.line().contains("idle"));
    }
    stream.signal_runtime(Signal::SIGINT);
    assert_eq!(stream.ended(), -2);
    world.remove_all();
    world.tiny_docker(["stats", "busy"]).assert().code(1).stderr(contains("no such container"));
}

// https://github.com/moby/moby/issues/9897
#[test]
#[ignore = "privileged: make vm-test"]
fn task5_stats_end_when_nobody_reads_them() {
    let world = World::new();
    world.detach(&[], "sleep 1000");
    for format in ["table", "json"] {
        let mut stream = world.start(["stats", "--format", format]);
        stream.line();
        stream.close_output();
        stream.ended();
    }
    world.remove_all();
}

// A listing that lacks something, be it a name, says so, and is no success: https://github.com/moby/moby/issues/10178
#[test]
#[ignore = "privileged: make vm-test"]
fn task5_stats_show_also_what_has_no_record_that_can_be_read() {
    let world = World::new();
    let id = world.detach(&[], "sleep 1000");
    fs::write(world.containers().join(&id).join("config.json"), "no record").unwrap();
    let stats = world.tiny_docker(["stats", "--no-stream"]).assert().code(1);
    // What is still known of it is who it is, and what it uses.
    stats.stdout(contains(&id)).stderr(contains("config.json").and(contains(&id)));
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task6_a_fork_bomb_stays_in_its_limit_and_dies_at_once() {
    let world = World::new();
    for last_word in [&["rm", "-f"][..], &["stop", "-t", "0"], &["kill"]] {
        let id = world.detach(&["--pids-limit", "64"], FORK_BOMB);
        // At some moment: of those that were refused a child, some have ended.
        until("it has all that it may", || number(cgroup(&id).join("pids.peak")) >= 64);
        // It is refused more, and has not got more.
        let events = || fs::read_to_string(cgroup(&id).join("pids.events")).unwrap();
        until("it is refused", || !events().starts_with("max 0\n"));
        assert!(number(cgroup(&id).join("pids.peak")) <= 64);
        let all: Vec<Pid> = fs::read_to_string(cgroup(&id).join("cgroup.procs"))
            .unwrap()
            .lines()
            .map(|pid| Pid::from_raw(pid.parse().unwrap()))
            .collect();
        let words = ["--explain"].iter().chain(last_word).copied().chain([id.as_str()]);
        let killed = world.tiny_docker(words).assert().success();
        // By one write, which no process can outrun: so, at once.
        killed.stderr(contains("cgroup.kill"));
        assert!(!all.iter().any(|pid| alive(*pid)));
        assert!(!cgroup(&id).exists(), "the container has gone, and its cgroup is still there");
        world.remove_all();
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task6_what_a_killed_run_leaves_goes_with_the_next_ps() {
    let world = World::new();
    let rootfs = busybox();
    let script = "sleep 1000 & echo ready; sleep 1000";
    let words =
        ["run", "--name", "web", "--memory", "64m", "--rootfs", rootfs.to_str().unwrap(), "sh", "-c", script];
    let mut running = world.start(words);
    assert_eq!(running.line(), "ready");
    let id = world.inspect("web")["id"].as_str().unwrap().to_string();
    running.ends_with_its_runtime();
    // The kernel keeps a cgroup, empty as it is, until somebody removes it.
    assert!(cgroup(&id).exists());
    assert!(world.ps().contains("Exited (unknown)"));
    assert!(!cgroup(&id).exists(), "the container has gone, and its cgroup is still there");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task6_long_killed_at_every_moment_no_cgroup_is_left() {
    let world = World::new();
    let rootfs = busybox();
    let limits = ["--memory", "64m", "--cpus", "0.5", "--pids-limit", "32"];
    let words =
        [&["run"], &limits[..], &["--rootfs", rootfs.to_str().unwrap(), "sh", "-c", "exit 7"]].concat();
    let moments = world.die_at_every_moment(&words);
    assert!(moments > 55, "{moments}");
}

// Nested as deep as it likes, a container would leave a tree that no path leads to the end of.
#[test]
#[ignore = "privileged: make vm-test"]
fn task3_cgroups_in_cgroups_are_bounded_and_go_with_their_container() {
    let world = World::new();
    // Root in there can have cgroups of its own. They go too, with who is in them.
    let script = "cd /sys/fs/cgroup && mount -o remount,bind,rw . && mkdir -p inner/most || exit
                  sleep 1000 & echo $! >inner/most/cgroup.procs && ls -d /sys/fs/cgroup/inner
                  depth=2; while [ $depth -lt 1100 ] && mkdir d 2>/dev/null; do cd d; depth=$((depth + 1)); done
                  [ $depth -lt 100 ] && echo bounded";
    run(&world, common::ALL_OF_ROOT, script).success().stdout("/sys/fs/cgroup/inner\nbounded\n").stderr("");

    // Where that bound is not kept, by a host that lifts it, they go nevertheless.
    let id = world.detach(&["--name", "deep"], "sleep 1000");
    for bound in ["cgroup.max.depth", "cgroup.max.descendants"] {
        fs::write(cgroup(&id).join(bound), "max").unwrap();
    }
    let dig = "import os, sys
os.chdir(sys.argv[1])
for level in range(300):
    os.mkdir('much deeper than a path')
    if level % 50 == 0: os.mkdir('beside')
    os.chdir('much deeper than a path')";
    assert!(Command::new("python3").args(["-c", dig]).arg(cgroup(&id)).status().unwrap().success());
    world.tiny_docker(["kill", "deep"]).assert().success();
    world.tiny_docker(["wait", "deep"]).assert().success().stdout("137\n");
    assert!(world.ps().contains("Exited (137)"));
    assert!(!cgroup(&id).exists(), "the container has gone, and its cgroup is still there");
    world.remove_all();
}

// What cannot be removed is complained about, and costs neither the exit code nor the container.
#[test]
#[ignore = "privileged: make vm-test"]
fn task3_a_cgroup_that_stays_is_a_complaint_and_no_lost_container() {
    let world = World::new();
    let tiny_docker = common::binary().display();
    let script = format!(
        "mkfifo go; exec 3<>go
         {{ $run --name web -i sh -c 'read go; exit 3' <go 2>complaint; code=$?; touch ended; exit $code; }} &
         until {tiny_docker} ps | grep Up >up || [ -e ended ]; do sleep 0.1; done
         mount -o remount,bind,ro /sys/fs/cgroup; echo >&3; wait $!; echo code $?
         {tiny_docker} ps -a | grep -o 'Exited (3)'; {tiny_docker} rm web 2>refused; echo code $?
         mount -o remount,bind,rw /sys/fs/cgroup; {tiny_docker} rm web"
    );
    let (said, code) = in_a_shell(&world, &script);
    let read = |name: &str| fs::read_to_string(world.dir().join(name)).unwrap();
    assert_eq!((said.as_str(), code), ("code 3\nExited (3)\ncode 1\nweb\n", 0), "{}", read("complaint"));
    for file in ["complaint", "refused"] {
        assert!(read(file).contains("Read-only file system"), "{file}: {}", read(file));
    }
}

// Behind the user's back there is nobody to complain to.
#[test]
#[ignore = "privileged: make vm-test"]
fn task3_what_a_supervisor_fails_in_is_in_the_log_and_the_record() {
    let world = World::new();
    let tiny_docker = common::binary().display();
    let script = format!(
        "$run -d --name web sleep 1000 >/dev/null
         mount -o remount,bind,ro /sys/fs/cgroup
         kill -s KILL $({tiny_docker} inspect web | grep -o '\"pid\": [0-9]*' | grep -o '[0-9]*')
         until {tiny_docker} ps -a | grep -q 'Exited (137)'; do sleep 0.1; done
         {tiny_docker} inspect web | grep reason; {tiny_docker} logs web 2>&1
         mount -o remount,bind,rw /sys/fs/cgroup; {tiny_docker} rm web"
    );
    let (said, _) = in_a_shell(&world, &script);
    for begins in ["\"reason\": \"", "tiny-docker: "] {
        let told = |line: &str| line.trim().starts_with(begins) && line.contains("Read-only file system");
        assert!(said.lines().any(told), "a line that begins with {begins}: {said}");
    }
}

// A note that cannot be read is not a note that is not there.
#[test]
#[ignore = "privileged: make vm-test"]
fn task3_a_cgroup_whose_note_cannot_be_read_is_not_forgotten() {
    let world = World::new();
    let id = world.detach(&["--name", "web"], "sleep 1000");
    let note = world.containers().join(&id).join("cgroup");
    let kept = world.dir().join("kept");
    fs::rename(&note, &kept).unwrap();
    fs::create_dir(&note).unwrap();
    world.tiny_docker(["rm", "-f", "web"]).assert().code(1).stdout("").stderr(contains("cgroup"));
    assert!(world.ps().contains("web"));
    fs::remove_dir(&note).unwrap();
    fs::rename(&kept, &note).unwrap();
    world.tiny_docker(["rm", "-f", "web"]).assert().success();
    assert!(!cgroup(&id).exists(), "the container has gone, and its cgroup is still there");
}
