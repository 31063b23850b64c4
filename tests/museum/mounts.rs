//! What a runtime mounts and writes, led elsewhere by links and files of the root file system's. All
//! of these work against a runtime that follows a path, such as a few lines of shell: each is done
//! by hand, too.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Output;

use crate::attack::{NO_NETWORK, Outcome, by_hand, new_path, own_rootfs, run_on, shell_on};
use crate::common::{ALL_OF_ROOT, AtTerminal, DAY, World, binary, said};
use crate::exhibit;

/// A root file system in which `path`, if it is there, is replaced by a link to `target`.
fn with_link(rootfs: &Path, path: &str, target: &str) {
    let path = rootfs.join(path);
    let _ = fs::remove_dir(&path).or_else(|_| fs::remove_file(&path));
    symlink(target, path).unwrap();
}

/// It did what it was to do by hand, so the attempt is right.
#[track_caller]
fn assert_by_hand(script: &str, expected: &str) {
    let output = by_hand(script);
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "by hand, {script}: {}", said(&output));
}

/// Works unless the runtime refuses to start the container at all.
fn refused(output: &Output, because: &str) -> Outcome {
    let refused = output.status.code() == Some(125) && said(output).contains(because);
    assert!(refused, "neither led astray nor refused: {}", said(output));
    Outcome::fails("refused", output)
}

// Where /proc is mounted, there is nothing that could be hidden. https://nvd.nist.gov/vuln/detail/CVE-2019-19921
#[test]
#[ignore = "privileged: make vm-test"]
fn exhibit_cve_2019_19921() {
    exhibit("cve_2019_19921", |world, flags| {
        let rootfs = own_rootfs(world);
        fs::create_dir(rootfs.join("elsewhere")).unwrap();
        with_link(&rootfs, "proc", "elsewhere");
        let here = rootfs.display();
        assert_by_hand(&format!("mount -t proc proc {here}/proc && ls -d {here}/elsewhere/self"), &{
            format!("{here}/elsewhere/self\n")
        });
        let output = shell_on(world, &rootfs, flags, "ls -d /elsewhere/self");
        if output.status.success() {
            return Outcome::of(&output, true);
        }
        refused(&output, "/proc of the rootfs is not a directory")
    });
}

// Something is mounted, or made, outside. https://nvd.nist.gov/vuln/detail/CVE-2021-30465
#[test]
#[ignore = "privileged: make vm-test"]
fn exhibit_cve_2021_30465() {
    exhibit("cve_2021_30465", |world, flags| {
        let (rootfs, outside, data) =
            (own_rootfs(world), new_path(world, "outside"), new_path(world, "data"));
        fs::create_dir(&outside).and_then(|()| fs::create_dir(&data)).unwrap();
        let (here, to) = (rootfs.display(), outside.display());
        // The place of a volume; before there are any, that of /dev.
        let place = if DAY >= 11 { "volume" } else { "dev" };
        with_link(&rootfs, place, outside.to_str().unwrap());
        // As the container's path, the same leads to a directory of the container.
        fs::create_dir_all(rootfs.join(outside.strip_prefix("/").unwrap())).unwrap();
        let script =
            format!("mkdir -p {here}/{place}/made && mount --bind {} {here}/{place}/made", data.display());
        assert_by_hand(&format!("{script} && grep -c {to}/made /proc/self/mountinfo"), "1\n");
        fs::remove_dir(outside.join("made")).unwrap();
        let volume = format!("{}:/volume/made", data.display());
        let volume = if DAY >= 11 { vec!["-v", &volume] } else { vec![] };
        let output = shell_on(world, &rootfs, &[&volume[..], flags].concat(), "cat /proc/self/mountinfo");
        let made = fs::read_dir(&outside).unwrap().count() > 0;
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        if made || mounts.contains(&*outside.to_string_lossy()) {
            return Outcome::of(&output, true);
        }
        if output.status.success() && said(&output).contains("/made") {
            return Outcome::fails("inside", &output);
        }
        refused(&output, "/dev of the rootfs is not a directory")
    });
}

// What hides the host is something of the container's. https://nvd.nist.gov/vuln/detail/CVE-2025-31133
#[test]
#[ignore = "privileged: make vm-test"]
fn exhibit_cve_2025_31133() {
    exhibit("cve_2025_31133", |world, flags| {
        let rootfs = own_rootfs(world);
        fs::write(rootfs.join("own"), "the container's\n").unwrap();
        fs::write(rootfs.join("hidden"), "").unwrap();
        with_link(&rootfs, "dev/null", "../own");
        let here = rootfs.display();
        assert_by_hand(
            &format!("mount --bind {here}/dev/null {here}/hidden && cat {here}/hidden"),
            "the container's\n",
        );
        let output = shell_on(world, &rootfs, flags, "stat -c '%F %t:%T' /proc/keys");
        if output.stdout == b"character special file 1:3\n" {
            return Outcome::fails("its own /dev", &output);
        }
        Outcome::of(&output, output.status.success())
    });
}

// What is mounted as its terminal is none. https://nvd.nist.gov/vuln/detail/CVE-2025-52565
#[test]
#[ignore = "privileged: make vm-test"]
fn exhibit_cve_2025_52565() {
    const KINDS: &str = "stat -c '%F' /dev/console /proc/sys/kernel/core_pattern; echo the end";
    exhibit("cve_2025_52565", |world, flags| {
        let rootfs = own_rootfs(world);
        fs::write(rootfs.join("own"), "the container's\n").unwrap();
        fs::write(rootfs.join("console"), "").unwrap();
        // The name that the terminal will have, and the place where it is mounted.
        fs::create_dir(rootfs.join("dev/pts")).unwrap();
        with_link(&rootfs, "dev/pts/0", "../../own");
        let here = rootfs.display();
        assert_by_hand(
            &format!("mount --bind {here}/dev/pts/0 {here}/console && cat {here}/console"),
            "the container's\n",
        );
        with_link(&rootfs, "dev/pts/0", "/proc/sys/kernel/core_pattern");
        with_link(&rootfs, "dev/console", "/proc/sys/kernel/core_pattern");
        let t: &[&str] = if DAY >= 5 { &["-t"] } else { &[] };
        let flags = [NO_NETWORK, t, flags].concat();
        let mut terminal = AtTerminal::start_program(binary(), run_on(&rootfs, &flags, &["sh", "-c", KINDS]));
        terminal.shows("the end");
        terminal.ended();
        let said = terminal.screen();
        let kinds: Vec<&str> = said.lines().map(str::trim).collect();
        let cell = match kinds[..] {
            ["character special file", "regular file" | "regular empty file", _] => "fails: its own /dev",
            ["regular file" | "regular empty file", ..] | [_, "character special file", ..] => "works",
            _ => panic!("neither is a terminal: {said}"),
        };
        Outcome { cell: cell.into(), said }
    });
}

// What the runtime writes to its /proc goes somewhere else. https://nvd.nist.gov/vuln/detail/CVE-2025-52881
#[test]
#[ignore = "privileged: make vm-test"]
fn exhibit_cve_2025_52881() {
    exhibit("cve_2025_52881", |world, flags| {
        let rootfs = own_rootfs(world);
        let script = format!(
            "chroot {} sh -c '{FALSE_PROC}echo 7 >/proc/self/oom_score_adj; {READ}'",
            rootfs.display()
        );
        assert_by_hand(&script, "untouched\nuntouched\n7\nuntouched\n");
        fs::write(rootfs.join("proc/self/oom_score_adj"), "untouched\n").unwrap();
        // What is written for a container that starts.
        let more: &[&str] =
            if DAY >= 15 { &["--oom-score-adj", "7", "--sysctl", "net.ipv4.ip_forward=1"] } else { &[] };
        let output = shell_on(world, &rootfs, &[more, flags].concat(), "true");
        assert!(output.status.success(), "the container has not run: {}", said(&output));
        let kept = by_hand(&format!("chroot {} sh -c '{READ}'", rootfs.display()));
        let outcome = written(&kept);
        if DAY < 14 { outcome } else { outcome.or(by_exec(world, &rootfs, flags)) }
    });
}

/// Files in a /proc that is none.
const FALSE_PROC: &str = "mkdir -p /proc/self/attr /proc/sys/net/ipv4 && \
    for file in self/attr/exec self/attr/current self/oom_score_adj sys/net/ipv4/ip_forward; do \
    echo untouched >/proc/$file; done; ";
const READ: &str =
    "cat /proc/self/attr/exec /proc/self/attr/current /proc/self/oom_score_adj /proc/sys/net/ipv4/ip_forward";

fn written(output: &Output) -> Outcome {
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.lines().count(), 4, "four files: {}", said(output));
    if text.lines().all(|line| line == "untouched") {
        return Outcome::fails("not written", output);
    }
    Outcome::of(output, true)
}

/// The same for one that runs, and has mounted something over its /proc.
fn by_exec(world: &World, rootfs: &Path, flags: &[&str]) -> Outcome {
    let all = [NO_NETWORK, ALL_OF_ROOT, flags, &["-d", "--name", "false"]].concat();
    world.tiny_docker(run_on(rootfs, &all, &["sleep", "1000"])).assert().success();
    let exec = |script: &str| world.tiny_docker(["exec", "false", "sh", "-c", script]).output().unwrap();
    let mounted = exec(&format!("mount -t tmpfs none /proc && {FALSE_PROC}"));
    assert!(mounted.status.success(), "a false /proc: {}", said(&mounted));
    let outcome = written(&exec(READ));
    world.remove_all();
    outcome
}
