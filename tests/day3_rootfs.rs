//! Day 3: give it a different root filesystem.
#![allow(clippy::unwrap_used)]

mod common;

use std::ffi::OsString;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use assert_cmd::assert::Assert;
use common::{World, busybox, rootfs};
use nix::sys::stat::Mode;
use predicates::prelude::*;
use predicates::str::{contains, is_empty};

/// Runs `script` with the flags `flags` on the shared busybox root file system.
fn busybox_sh(world: &World, flags: &[&str], script: &str) -> Assert {
    let rootfs = busybox();
    let mut words = vec!["run", "--rootfs", rootfs.to_str().unwrap()];
    words.extend(flags);
    words.extend(["/bin/sh", "-c", script]);
    world.tiny_docker(words).assert()
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_the_command_sees_its_rootfs_as_its_root() {
    let world = World::new();
    let script = "echo $$; hostname; ls /; exit 7";
    let mut names: Vec<_> =
        fs::read_dir(busybox()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    let names: Vec<_> = names.iter().map(|name| name.to_str().unwrap()).collect();
    let expected = format!("1\nbox\n{}\n", names.join("\n"));
    busybox_sh(&world, &["--hostname", "box"], script).code(7).stdout(expected);
    busybox_sh(&world, &[], "pwd; cat /etc/os-release")
        .success()
        .stdout(contains("/\n").and(contains("busybox")));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_nothing_of_the_host_is_in_sight() {
    let world = World::new();
    let secret = world.dir().join("secret");
    fs::write(&secret, "of the host").unwrap();
    let secret = secret.display();
    let ways = format!(
        "for way in {secret} /..{secret} /../../../..{secret} ../..{secret}; do cat $way && exit 1; done"
    );
    let script = format!("({ways}; exit 0) 2>&-");
    busybox_sh(&world, &[], &script).success().stdout(is_empty());
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_a_rootfs_that_is_none_is_refused_with_the_way_out() {
    let world = World::new();
    fs::write(world.dir().join("file"), "").unwrap();
    symlink("/", world.dir().join("link-to-root")).unwrap();
    for (rootfs, message) in [
        ("no/such/dir", "expected a directory"),
        ("file", "is not a directory"),
        ("/", "the host's own /"),
        ("/proc/..", "the host's own /"),
        ("link-to-root", "the host's own /"),
    ] {
        world
            .tiny_docker(["run", "--rootfs", rootfs, "/bin/true"])
            .assert()
            .code(125)
            .stdout(is_empty())
            .stderr(contains("--rootfs").and(contains(message)));
    }
    world
        .tiny_docker(["run", "--rootfs", "no/such/dir", "/bin/true"])
        .assert()
        .stderr(contains("make rootfs"));
    world
        .tiny_docker(["run", "--rootfs", "", "/bin/true"])
        .assert()
        .code(2)
        .stderr(contains("--rootfs <DIR>"));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_any_name_will_do_for_a_rootfs() {
    let world = World::new();
    let not_utf8 = OsString::from_vec(b"caf\xe9".to_vec());
    for name in ["plain".into(), "two words".into(), "two\nlines".into(), "quote's \"here\"".into(), not_utf8]
    {
        // Not absolute: seen from where the user is.
        let rootfs = world.copy_of_rootfs(&name);
        let words = ["run".into(), "--rootfs".into(), name.clone(), "/bin/ls".into(), "/etc/passwd".into()];
        world.tiny_docker(words).assert().success().stdout("/etc/passwd\n");
        fs::remove_dir_all(rootfs).unwrap();
    }
    let rootfs = world.copy_of_rootfs("target");
    symlink(&rootfs, world.dir().join("link")).unwrap();
    world.tiny_docker(["run", "--rootfs", "link", "/bin/true"]).assert().success();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_the_command_is_looked_up_in_the_rootfs() {
    let world = World::new();
    let rootfs = world.copy_of_rootfs("rootfs");
    fs::create_dir_all(rootfs.join("usr/local/bin")).unwrap();
    let only_here = rootfs.join("usr/local/bin/only-here");
    fs::write(&only_here, "#!/bin/sh\necho found").unwrap();
    fs::set_permissions(&only_here, fs::Permissions::from_mode(0o755)).unwrap();
    let run = |command: &str| world.tiny_docker(["run", "--rootfs", "rootfs", command]).assert();
    run("only-here").success().stdout("found\n");
    // On the host, but not in there.
    run("cargo").code(127).stderr(contains("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"));
    run("/usr/bin/env.bash").code(127);
    run("/etc").code(126);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_a_process_walks_out_of_a_chroot_but_not_out_of_the_container() {
    let world = World::new();
    let debian = rootfs("debian");
    // It changes the root again, to a directory below, and does not go there:
    // where it stands is then outside its root, and `..` no longer ends at it.
    let escape = r#"
import os
os.makedirs("/tmp/below", exist_ok=True)
os.chroot("/tmp/below")
for _ in range(100): os.chdir("..")
os.chroot(".")
print(os.path.exists("SECRET"))
"#;
    let secret = world.dir().join("secret");
    fs::write(&secret, "of the host").unwrap();
    let escape = escape.replace("SECRET", secret.to_str().unwrap());

    let by_hand =
        Command::new("chroot").arg(&debian).args(["/usr/bin/python3", "-c", &escape]).output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&by_hand.stdout),
        "True\n",
        "chroot alone: {}",
        common::said(&by_hand)
    );
    let words = ["run", "--rootfs", debian.to_str().unwrap(), "/usr/bin/python3", "-c", &escape];
    world.tiny_docker(words).assert().success().stdout("False\n");
    let _ = fs::remove_dir(debian.join("tmp/below"));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_no_mount_of_the_host_is_left() {
    let world = World::new();
    let targets = "while read -r _ _ _ _ target _; do echo $target; done < /proc/self/mountinfo";
    let assert = busybox_sh(&world, &[], targets).success();
    let targets = String::from_utf8_lossy(&assert.get_output().stdout).into_owned();
    // Later days mount over files of /etc.
    let ours = ["/", "/proc", "/sys", "/dev", "/etc"];
    for target in targets.lines() {
        let below = ours[1..].iter().any(|top| target.starts_with(&format!("{top}/")));
        assert!(ours.contains(&target) || below, "{target} is mounted too:\n{targets}");
    }
    let roots = targets.lines().filter(|target| *target == "/").count();
    assert_eq!(
        roots, 1,
        "the container's / is one mount, and the only one of that name; its mounts:\n{targets}"
    );
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_proc_and_sys_are_there_and_the_hosts_are_untouched() {
    let world = World::new();
    busybox_sh(&world, &[], "ps -o pid,comm").success().stdout("PID   COMMAND\n    1 ps\n");
    busybox_sh(&world, &[], "test -d /sys/kernel && echo yes").success().stdout("yes\n");
    let read_only = contains("Read-only file system");
    busybox_sh(&world, &[], "mkdir /sys/kernel/x").failure().stderr(read_only);
    assert!(fs::read_dir("/proc/self/fd").unwrap().next().is_some());
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_what_belongs_to_the_host_is_masked_or_read_only() {
    let world = World::new();
    // Only where the kernel has them: in the VM it has all four.
    for file in
        ["/proc/kcore", "/proc/keys", "/proc/timer_list"].into_iter().filter(|file| Path::new(file).exists())
    {
        busybox_sh(&world, &[], &format!("wc -c < {file}")).success().stdout("0\n");
    }
    busybox_sh(&world, &[], "ls -A /sys/firmware; touch /sys/firmware/x").failure().stdout(is_empty());
    let written = "for file in /proc/sys/vm/swappiness /proc/sysrq-trigger /proc/irq/default_smp_affinity; do
                       [ ! -e $file ] || (: >> $file) 2> /dev/null && [ -e $file ] && echo $file; done; exit 0";
    busybox_sh(&world, &[], written).success().stdout(is_empty());
    busybox_sh(&world, &[], ": >> /proc/sys/vm/swappiness")
        .failure()
        .stderr(contains("Read-only file system"));
    // A process's own files are not the host's.
    busybox_sh(&world, &[], "echo 5 > /proc/self/oom_score_adj").success();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_a_rootfs_without_mount_points_gets_them() {
    let world = World::new();
    let rootfs = world.copy_of_rootfs("rootfs");
    for name in ["proc", "sys", "dev"] {
        fs::remove_dir(rootfs.join(name)).unwrap();
    }
    let script = "echo $$ > /dev/null && cat /proc/1/comm && ls -d /sys/kernel";
    let words = ["run", "--rootfs", "rootfs", "/bin/sh", "-c", script];
    world.tiny_docker(words).assert().success().stdout("sh\n/sys/kernel\n");
    for name in ["proc", "sys", "dev"] {
        let dir = rootfs.join(name);
        assert!(fs::read_dir(&dir).unwrap().next().is_none(), "a file was left in {name}");
        fs::remove_dir(dir).unwrap();
    }
    // Where nothing can be made, it says what to make.
    let read_only = "mount --bind rootfs rootfs && mount -o remount,bind,ro rootfs && exec \"$0\" run --rootfs rootfs true";
    let mut command = Command::new("unshare");
    command.current_dir(world.dir()).args(["--mount", "sh", "-c", read_only]).arg(common::binary());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(125), "{}", common::said(&output));
    let error =
        contains("the rootfs has no /proc; make an empty directory").and(contains("Read-only file system"));
    assert!(error.eval(&String::from_utf8_lossy(&output.stderr)), "{}", common::said(&output));
}

// https://nvd.nist.gov/vuln/detail/CVE-2019-19921, and the same of /dev in runc and crun:
// https://github.com/opencontainers/runc/security/advisories/GHSA-xjvp-4fhw-gc47 (CVE-2026-41579)
// https://nvd.nist.gov/vuln/detail/CVE-2026-47766
#[test]
#[ignore = "privileged: make vm-test"]
fn task3_a_hostile_rootfs_cannot_redirect_a_mount() {
    let world = World::new();
    let outside = world.dir().join("outside");
    fs::create_dir(&outside).unwrap();
    for name in ["proc", "sys", "dev"] {
        let rootfs = world.copy_of_rootfs("rootfs");
        fs::remove_dir(rootfs.join(name)).unwrap();
        for target in [outside.as_path(), Path::new("../outside"), Path::new("/etc")] {
            symlink(target, rootfs.join(name)).unwrap();
            world
                .tiny_docker(["run", "--rootfs", "rootfs", "/bin/true"])
                .assert()
                .code(125)
                .stderr(contains(format!("/{name} of the rootfs is not a directory")));
            fs::remove_file(rootfs.join(name)).unwrap();
        }
        // Nor can a file stand there.
        fs::write(rootfs.join(name), "").unwrap();
        world.tiny_docker(["run", "--rootfs", "rootfs", "/bin/true"]).assert().code(125);
        fs::remove_dir_all(rootfs).unwrap();
    }
    assert!(fs::read_dir(&outside).unwrap().next().is_none());
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_dev_is_made_for_the_container() {
    let world = World::new();
    let expected = "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero\n";
    busybox_sh(&world, &[], "echo $(ls /dev)").success().stdout(expected);
    let devices =
        "cd /dev; for name in null zero full random urandom tty; do stat -c '%n %F %a %t:%T' $name; done";
    let expected = ["null 1:3", "zero 1:5", "full 1:7", "random 1:8", "urandom 1:9", "tty 5:0"]
        .map(|device| device.replace(' ', " character special file 666 ") + "\n");
    busybox_sh(&world, &[], devices).success().stdout(expected.concat());
    let used = "echo gone > /dev/null; head -c 3 /dev/zero | wc -c; head -c 9 /dev/urandom | wc -c";
    busybox_sh(&world, &[], used).success().stdout("3\n9\n");
    busybox_sh(&world, &[], "echo x > /dev/full").failure().stderr(contains("No space left"));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_pts_shm_mqueue_and_the_links_are_the_containers_own() {
    let world = World::new();
    let mounts = "while read -r _ target kind _; do case $target in /dev*) echo $target $kind;; esac; done < /proc/mounts";
    let expected = "/dev tmpfs\n/dev/pts devpts\n/dev/shm tmpfs\n/dev/mqueue mqueue\n";
    busybox_sh(&world, &[], mounts).success().stdout(expected);
    busybox_sh(&world, &[], "ls /dev/pts; readlink /dev/ptmx").success().stdout("ptmx\npts/ptmx\n");
    // A terminal is a device: on a mount that is nodev it refuses to open.
    busybox_sh(&world, &[], ": < /dev/ptmx && echo opened").success().stdout("opened\n");
    busybox_sh(&world, &[], "stat -c %a /dev/shm; echo x > /dev/shm/x && cat /dev/shm/x")
        .success()
        .stdout("1777\nx\n");
    busybox_sh(&world, &[], "echo out > /dev/stdout; echo err > /dev/stderr; cat < /dev/stdin")
        .success()
        .stdout("out\n")
        .stderr("err\n");
    assert!(!Path::new("/dev/shm/x").exists());
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_console_is_there_where_a_terminal_is() {
    let world = World::new();
    busybox_sh(&world, &[], "ls /dev/console").failure();

    let terminal = nix::pty::openpty(None, None).unwrap();
    let ours = || Stdio::from(terminal.slave.try_clone().unwrap());
    let mut words = vec!["run", "--rootfs"];
    let rootfs = busybox();
    words.extend([rootfs.to_str().unwrap(), "/bin/sh", "-c", "stat -c '%F %t' /dev/console; tty"]);
    let runtime = Command::new(common::binary()).args(words).stdin(ours()).output().unwrap();
    // 88 is 136, the first major number of pseudo-terminals.
    assert_eq!(
        String::from_utf8_lossy(&runtime.stdout),
        "character special file 88\n/dev/console\n",
        "{runtime:?}"
    );
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_read_only_is_the_root_and_not_what_is_mounted_below() {
    let world = World::new();
    busybox_sh(&world, &["--read-only"], "touch /x").failure().stderr(contains("Read-only file system"));
    busybox_sh(&world, &["--read-only"], "echo x > /dev/shm/x && echo y > /dev/null").success();
    // The mount is, the directory is not.
    let rootfs = world.copy_of_rootfs("rootfs");
    world.tiny_docker(["run", "--read-only", "--rootfs", "rootfs", "touch", "/x"]).assert().failure();
    world.tiny_docker(["run", "--rootfs", "rootfs", "touch", "/x"]).assert().success();
    assert!(rootfs.join("x").exists());
    world.tiny_docker(["run", "--read-only", "true"]).assert().code(2).stderr(contains("--rootfs"));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task6_the_environment_is_clean_and_e_adds_to_it() {
    let world = World::new();
    let rootfs = busybox();
    let env = |flags: &[&str]| {
        let mut words = vec!["run", "--rootfs", rootfs.to_str().unwrap(), "--hostname", "box"];
        words.extend(flags);
        words.push("env");
        let mut command = world.tiny_docker(words);
        command.env("SECRET", "of the host").env("TERM", "vt100").env("EMPTY", "");
        command.assert()
    };
    let clean = "HOME=/root\nHOSTNAME=box\nPATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nTERM=vt100\n";
    env(&[]).success().stdout(clean);
    env(&["-e", "A=1", "--env", "B=x=y z", "-e", "A=2", "-e", "C="])
        .success()
        .stdout(format!("A=2\nB=x=y z\nC=\n{clean}"));
    env(&["-e", "SECRET", "-e", "EMPTY", "-e", "NOT_SET"])
        .success()
        .stdout(contains("SECRET=of the host\n").and(contains("EMPTY=\n")).and(contains("NOT_SET").not()));
    env(&["-e", "HOME=/elsewhere"])
        .success()
        .stdout(contains("HOME=/elsewhere\n").and(contains("/root").not()));
    env(&["-e", "=x"]).code(125).stderr(contains("the variable has no name").and(contains("NAME=VALUE")));
    env(&["-e", ""]).code(125);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task6_the_command_starts_in_the_working_directory() {
    let world = World::new();
    busybox_sh(&world, &[], "pwd").success().stdout("/\n");
    busybox_sh(&world, &["-w", "/etc"], "pwd; ls passwd").success().stdout("/etc\npasswd\n");
    let relative = contains("not an absolute path").and(contains("/srv"));
    busybox_sh(&world, &["--workdir", "etc"], "pwd").code(125).stderr(relative);
    busybox_sh(&world, &["-w", "/etc/passwd"], "pwd").code(125).stderr(contains("/etc/passwd"));
    let rootfs = world.copy_of_rootfs("rootfs");
    world
        .tiny_docker(["run", "--rootfs", "rootfs", "-w", "/srv/new", "pwd"])
        .assert()
        .success()
        .stdout("/srv/new\n");
    assert_eq!(fs::metadata(rootfs.join("srv/new")).unwrap().mode() & 0o777, 0o755);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task6_the_user_is_one_of_the_container() {
    let world = World::new();
    let ids = "echo $(id -u) $(id -g) $(id -G) $HOME";
    for (user, expected) in [
        ("0", "0 0 0 /root"),
        ("app", "1000 1000 1000 50 /home/app"),
        ("1000", "1000 1000 1000 50 /home/app"),
        ("app:staff", "1000 50 50 /home/app"),
        ("1000:1234", "1000 1234 1234 /home/app"),
        ("4321", "4321 0 0 /"),
        ("4321:8765", "4321 8765 8765 /"),
    ] {
        busybox_sh(&world, &["-u", user], ids).success().stdout(format!("{expected}\n"));
    }
    busybox_sh(&world, &[], ids).success().stdout("0 0 0 /root\n");
    for user in ["nosuch", "app:nosuch", "-1", "4294967295", "2147483648", "", ":", "0:4294967295"] {
        let flag = format!("--user={user}");
        busybox_sh(&world, &[&flag], ids).code(125).stdout(is_empty()).stderr(contains("expected"));
    }
    // No way back, and what only root may do is refused.
    busybox_sh(&world, &["-u", "app"], "cat /etc/shadow /root/x; hostname x").failure().stdout(is_empty());
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task6_a_hostile_passwd_holds_nothing_up() {
    let world = World::new();
    let rootfs = world.copy_of_rootfs("rootfs");
    let passwd = rootfs.join("etc/passwd");
    let run = || world.tiny_docker(["run", "--rootfs", "rootfs", "-u", "app", "id", "-u"]).assert();
    fs::remove_file(&passwd).unwrap();
    nix::unistd::mkfifo(&passwd, Mode::S_IRWXU).unwrap();
    run().code(125).stderr(contains("/etc/passwd"));
    fs::remove_file(&passwd).unwrap();
    symlink("/dev/zero", &passwd).unwrap();
    run().code(125).stderr(contains("/etc/passwd"));
    fs::remove_file(&passwd).unwrap();
    fs::write(&passwd, b"\xff\n:::\napp:x:-1:0::/:\n\napp:x:1000:1000:an app:/home/app:/bin/sh\n").unwrap();
    run().code(125).stderr(contains("expected"));
    fs::write(&passwd, b"\xff\n:::\n\napp:x:1000:1000:an app:/home/app:/bin/sh\n").unwrap();
    run().success().stdout("1000\n");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task6_an_open_directory_of_the_host_is_no_way_in() {
    let world = World::new();
    let rootfs = world.copy_of_rootfs("rootfs");
    let host = world.dir().join("host");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("passwd"), "app:x:7777:7777::/:\n").unwrap();
    fs::copy(busybox().join("bin/busybox"), host.join("busybox")).unwrap();
    // As a careless caller would: open across exec.
    let directory = fs::File::open(&host).unwrap();
    let fd = nix::unistd::dup(&directory).unwrap();
    nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let way = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let run = |words: &[&str]| world.tiny_docker(["run", "--rootfs", "rootfs"].iter().chain(words)).assert();

    // 3 is the directory that ls itself reads.
    run(&["ls", "/proc/self/fd"]).success().stdout("0\n1\n2\n3\n");
    // Nor while the runtime still looks up paths that are not of its choosing.
    run(&["-w", &way, "cat", "passwd"]).code(125);
    run(&[&format!("{way}/busybox"), "true"]).code(127);
    fs::remove_file(rootfs.join("etc/passwd")).unwrap();
    symlink(format!("{way}/passwd"), rootfs.join("etc/passwd")).unwrap();
    run(&["-u", "app", "id", "-u"]).code(125).stderr(contains("no user"));
}

// https://nvd.nist.gov/vuln/detail/CVE-2024-21626
#[test]
#[ignore = "privileged: make vm-test"]
fn task6_no_descriptor_of_the_runtime_is_a_way_out() {
    let world = World::new();
    let rootfs = busybox();
    busybox_sh(&world, &["-w", "/"], "pwd").success().stdout("/\n");
    for fd in 3..25 {
        let dir = format!("/proc/self/fd/{fd}");
        let words = ["run", "--rootfs", rootfs.to_str().unwrap(), "-w", &dir, "pwd"];
        let output = world.tiny_docker(words).output().unwrap();
        // Outside of its root a process cannot tell where it is. (getcwd(2))
        let inside = output.status.success() && output.stdout.starts_with(b"/");
        assert!(
            inside || output.status.code() == Some(125),
            "-w {dir} led out of the root: {}",
            common::said(&output)
        );
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task7_a_step_that_fails_in_the_middle_leaves_nothing() {
    let world = World::new();
    let rootfs = world.copy_of_rootfs("rootfs");
    // The last mount point is wrong: proc and sys are mounted by then.
    fs::remove_dir(rootfs.join("dev")).unwrap();
    fs::write(rootfs.join("dev"), "").unwrap();
    world
        .tiny_docker(["run", "--rootfs", "rootfs", "true"])
        .assert()
        .code(125)
        .stderr(contains("/dev of the rootfs"));
    busybox_sh(&world, &["-u", "nosuch"], "true").code(125);
    world.tiny_docker(["run", "--rootfs", busybox().to_str().unwrap(), "nosuch"]).assert().code(127);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task7_nothing_outlives_a_runtime_that_was_killed_whatever_the_user() {
    let world = World::new();
    let rootfs = busybox();
    for user in ["0", "app"] {
        let script = "sleep 1000 & echo ready; exec sleep 1000";
        let words = ["run", "--rootfs", rootfs.to_str().unwrap(), "-u", user, "sh", "-c", script];
        let mut running = world.start(words);
        running.line();
        running.ends_with_its_runtime();
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task7_a_runtime_killed_at_any_moment_leaves_nothing() {
    let world = World::new();
    let start = Instant::now();
    busybox_sh(&world, &[], "true").success();
    let whole_life = start.elapsed();
    let moments = if cfg!(feature = "day4-metadata") { 20 } else { 60 };
    for moment in 0..moments {
        let mut command = Command::new(common::binary());
        command.arg("run").arg("--rootfs").arg(busybox()).args(["sleep", "1000"]);
        let mut runtime = command.stdin(Stdio::null()).spawn().unwrap();
        thread::sleep(whole_life * moment / moments);
        runtime.kill().unwrap();
        runtime.wait().unwrap();
    }
    // That none of them is left is for the harness to say; and the next one runs.
    busybox_sh(&world, &[], "true").success();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task7_long_500_runs_in_a_row() {
    let world = World::new();
    // Later days run this with what they add, and fewer times.
    let runs = if cfg!(feature = "day4-metadata") { 100 } else { 500 };
    for code in (0..runs).map(|n| n % 256) {
        busybox_sh(&world, &[], &format!("exit {code}")).code(code).stderr(is_empty());
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task7_200_runs_8_at_a_time() {
    let world = World::new();
    let mut codes = 0..200;
    let codes = std::sync::Mutex::new(&mut codes);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Some(code) = { codes.lock().unwrap().next() } {
                    busybox_sh(&world, &[], &format!("exit {code}")).code(code).stderr(is_empty());
                }
            });
        }
    });
}

fn exchange(one: &Path, other: &Path) {
    let (cwd, flags) = (nix::fcntl::AT_FDCWD, nix::fcntl::RenameFlags::RENAME_EXCHANGE);
    nix::fcntl::renameat2(cwd, one, cwd, other, flags).unwrap();
}

/// One line of a mountinfo. (proc_pid_mountinfo(5))
struct Mount {
    id: String,
    parent: String,
    device: String,
    root: String,
    target: String,
    kind: String,
}

fn mounts_of(pid: nix::unistd::Pid) -> Vec<Mount> {
    let text = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let mount = |line: &str| {
        let (ours, of_the_file_system) = line.split_once(" - ").unwrap();
        let [id, parent, device, root, target] =
            ours.splitn(6, ' ').take(5).map(str::to_string).collect::<Vec<_>>().try_into().unwrap();
        let kind = of_the_file_system.split(' ').next().unwrap().into();
        Mount { id, parent, device, root, target, kind }
    };
    text.lines().map(mount).collect()
}

/// Whether all masks of `mounts` lie in the container's own /proc and /sys, and are of
/// its own /dev. If not: what is wrong.
fn masks_are_in_place(mounts: &[Mount]) -> Result<(), String> {
    let of_kind = |kind: &str| mounts.iter().find(|mount| mount.kind == kind).unwrap();
    let (proc, sys, pts) = (of_kind("proc"), of_kind("sysfs"), of_kind("devpts"));
    let dev = mounts.iter().find(|mount| mount.id == pts.parent).unwrap();
    for (whole, path, root) in [
        (proc, "/proc/interrupts", "/null"),
        (proc, "/proc/kcore", "/null"),
        (proc, "/proc/keys", "/null"),
        (proc, "/proc/timer_list", "/null"),
        (proc, "/proc/sys", "/sys"),
        (sys, "/sys/firmware", "/"),
    ] {
        let name = Path::new(path).file_name().unwrap();
        let covers =
            |mount: &&Mount| mount.parent == whole.id && Path::new(&mount.target).file_name() == Some(name);
        match mounts.iter().find(covers) {
            _ if !Path::new(path).exists() => {}
            None => {
                return Err(format!(
                    "{path} is not covered in the container's own {} file system",
                    whole.kind
                ));
            }
            Some(mask) if mask.root != root || root == "/null" && mask.device != dev.device => {
                return Err(format!(
                    "{path} is covered by {} of another file system ({})",
                    mask.root, mask.kind
                ));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Starts a container on `rootfs` that waits, and calls `exchange` when it has told
/// `moment` steps. Returns what it told, and what `look` sees of its command, if it started.
///
/// It tells into a pipe that holds one message: the runtime, which tells each step before
/// it takes it, is never more than two steps ahead of what was read here.
fn start_with_an_exchange<T>(
    rootfs: &Path,
    moment: usize,
    exchange: impl Fn(),
    look: impl Fn(nix::unistd::Pid) -> T,
) -> (Vec<String>, Option<T>) {
    let (steps, theirs) = nix::unistd::pipe2(nix::fcntl::OFlag::O_DIRECT).unwrap();
    nix::fcntl::fcntl(&steps, nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    let mut command = Command::new(common::binary());
    command.args(["--explain", "run", "--rootfs", rootfs.to_str().unwrap(), "cat"]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(theirs);
    let mut runtime = command.spawn().unwrap();
    drop(command);

    let mut told = Vec::new();
    let mut message = [0; 8192];
    let started = loop {
        let length = nix::unistd::read(&steps, &mut message).unwrap();
        told.push(String::from_utf8_lossy(&message[..length]).into_owned());
        if told.len() == moment {
            exchange();
        }
        if length == 0 || told[told.len() - 1].contains("execve(") {
            break length > 0;
        }
    };
    let seen = started.then(|| {
        let command = common::children_of(runtime.id() as i32);
        assert_eq!(command.len(), 1, "the runtime has one child, the command");
        look(nix::unistd::Pid::from_raw(command[0]))
    });
    // Nobody reads its steps any more, and its command's input is at its end.
    drop((steps, runtime.stdin.take()));
    runtime.wait().unwrap();
    (told, seen)
}

// https://github.com/opencontainers/runc/security/advisories/GHSA-9493-h29p-rfm2 (CVE-2025-31133)
// https://github.com/opencontainers/runc/security/advisories/GHSA-cgrx-mc8f-2prm (CVE-2025-52881)
#[test]
#[ignore = "privileged: make vm-test"]
fn task4_masks_lie_in_the_real_proc_whenever_its_directory_is_exchanged() {
    let world = World::new();
    let rootfs = world.copy_of_rootfs("rootfs");
    let decoy = rootfs.join("decoy");
    // All that the runtime could look for there.
    for dir in ["acpi", "asound", "scsi", "bus", "fs", "irq", "sys", "firmware", "pts", "shm", "mqueue"] {
        fs::create_dir_all(decoy.join(dir)).unwrap();
    }
    for file in ["interrupts", "kcore", "keys", "latency_stats", "sched_debug", "timer_list", "timer_stats"] {
        fs::write(decoy.join(file), "").unwrap();
    }
    symlink("/proc/sys/kernel/core_pattern", decoy.join("null")).unwrap();
    fs::write(decoy.join("sysrq-trigger"), "").unwrap();
    let (mut started, mut last) = (0, String::new());
    for name in ["proc", "sys", "dev"] {
        let exchange = || exchange(&rootfs.join(name), &decoy);
        for moment in (1..).step_by(5) {
            let (told, mounts) = start_with_an_exchange(&rootfs, moment, exchange, mounts_of);
            last = told.concat();
            if told.len() < moment {
                break;
            }
            exchange();
            // It may be refused. If it starts, it is as it should be.
            if let Some(mounts) = mounts {
                started += 1;
                if let Err(why) = masks_are_in_place(&mounts) {
                    panic!("{why}; /{name} was exchanged for another directory after {:?}", told[moment - 1]);
                }
            }
        }
    }
    assert!(started > 0, "it never started: {last}");
}

// https://github.com/moby/moby/issues/21436, https://github.com/opencontainers/runc/pull/695
#[test]
#[ignore = "privileged: make vm-test"]
fn task6_a_number_is_an_id_even_where_it_is_somebodys_name() {
    let world = World::new();
    let rootfs = world.copy_of_rootfs("rootfs");
    let passwd = "root:x:0:0::/root:/bin/sh
1000:x:0:0:not 1000:/evil:/bin/sh
app:x:1000:1000::/home/app:/bin/sh
4294967295:x:0:0::/:/bin/sh
2147483648:x:0:0::/:/bin/sh
99999999999999999999:x:0:0::/:/bin/sh
+7:x:0:0::/:/bin/sh
-7:x:0:0::/:/bin/sh
:x:0:0::/:/bin/sh
";
    fs::write(rootfs.join("etc/passwd"), passwd).unwrap();
    let group = "root:x:0:\n1000:x:0:\n50:x:0:\n+7:x:0:\n-7:x:0:\n:x:0:\nstaff:x:50:app,1000\n";
    fs::write(rootfs.join("etc/group"), group).unwrap();
    let run = |user: &str| {
        let user = format!("--user={user}");
        let ids = "echo $(id -u) $(id -g) $(id -G) $HOME";
        world.tiny_docker(["run", "--rootfs", "rootfs", &user, "sh", "-c", ids]).assert()
    };
    for (user, expected) in [
        ("1000", "1000 1000 1000 50 /home/app"),
        ("01000", "1000 1000 1000 50 /home/app"),
        ("1000:1000", "1000 1000 1000 /home/app"),
        ("app:1000", "1000 1000 1000 /home/app"),
        ("app:50", "1000 50 50 /home/app"),
        ("app:050", "1000 50 50 /home/app"),
        ("app", "1000 1000 1000 50 /home/app"),
        ("00", "0 0 0 /root"),
    ] {
        run(user).success().stdout(format!("{expected}\n"));
    }
    let too_big = ["2147483648", "4294967295", "4294967296", "99999999999999999999"];
    for text in too_big.into_iter().chain(["+7", "-7", "+1000", "", " 1000", "0x3e8", "1e3"]) {
        run(text).code(125).stdout(is_empty()).stderr(contains("expected"));
        run(&format!("app:{text}")).code(125).stdout(is_empty()).stderr(contains("expected"));
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task6_passwd_and_group_are_bytes() {
    let world = World::new();
    let rootfs = world.copy_of_rootfs("rootfs");
    let write = |file: &str, bytes: &[u8]| fs::write(rootfs.join("etc").join(file), bytes).unwrap();
    let run = |user: &str| {
        let ids = "echo $(id -u) $(id -G) $HOME";
        world.tiny_docker(["run", "--rootfs", "rootfs", "-u", user, "sh", "-c", ids]).assert()
    };
    // A name in Latin-1, a line of 100,000 bytes, one with a NUL, and no end of the last.
    let mut passwd = b"jos\xe9:x:1:1:Jos\xe9:/:/bin/sh\n".to_vec();
    passwd.extend([b'x'; 100_000]);
    passwd.extend(b"\nnul:x:7:7::/a\0b:/bin/sh\r\nhome:x:8:8::/caf\xe9:/bin/sh\r\nhomeless:x:9:9:::/bin/sh");
    write("passwd", &passwd);
    write("group", b"caf\xe9:x:60:home,homeless\nlast:x:61:homeless\r\nlater:x:62:other,homeless");
    let home = run("home").success();
    assert_eq!(
        home.get_output().stdout.escape_ascii().to_string(),
        r"8 8 60 /caf\xe9\n",
        "ids, groups and HOME"
    );
    run("homeless").success().stdout("9 9 60 61 62 /\n");
    run("homeless:later").success().stdout("9 62 /\n");
    run("nul").code(125).stderr(contains("no user"));
    for file in ["passwd", "group"] {
        let path = rootfs.join("etc").join(file);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        run("home").code(125).stderr(contains(format!("/etc/{file}")));
        fs::remove_dir(&path).unwrap();
        write(file, &vec![b'\n'; (1 << 20) + 1]);
        run("home").code(125).stderr(contains(format!("/etc/{file}")).and(contains("1 MiB")));
        fs::remove_file(&path).unwrap();
        symlink(file, &path).unwrap();
        run("home").code(125).stderr(contains("Too many levels of symbolic links"));
        fs::remove_file(&path).unwrap();
        write(file, if file == "passwd" { &passwd } else { b"" });
    }
    // More groups than the kernel takes. (NGROUPS_MAX)
    let many: String = (0..70_000).map(|gid| format!("g:x:{gid}:home\n")).collect();
    write("group", many.as_bytes());
    run("home").code(125).stderr(contains("65536").and(contains("expected")));
}

// https://github.com/opencontainers/runc/issues/4711
#[test]
#[ignore = "privileged: make vm-test"]
fn task6_an_empty_variable_counts_as_unset_where_the_runtime_fills_it_in() {
    let world = World::new();
    let rootfs = busybox();
    let run = |flags: &[&str]| {
        let mut words = vec!["run", "--rootfs", rootfs.to_str().unwrap(), "-u", "app"];
        words.extend(flags);
        words.extend(["sh", "-c", "echo $HOME $TERM"]);
        let mut command = world.tiny_docker(words);
        command.env("TERM", "").env("HOME", "").env("EMPTY", "").assert()
    };
    run(&[]).success().stdout("/home/app xterm\n");
    run(&["-e", "HOME="]).success().stdout("/home/app xterm\n");
    run(&["-e", "HOME"]).success().stdout("/home/app xterm\n");
    run(&["-e", "HOME=/x"]).success().stdout("/x xterm\n");
}

// https://github.com/containers/crun/issues/745, https://github.com/opencontainers/runc/issues/280
#[test]
#[ignore = "privileged: make vm-test"]
fn task6_the_user_may_open_the_streams_by_name() {
    let world = World::new();
    let rootfs = busybox();
    let words = |script: &'static str| {
        ["run", "--rootfs", rootfs.to_str().unwrap(), "-u", "app", "sh", "-c", script].map(str::to_string)
    };
    world
        .tiny_docker(words("cat /dev/stdin; echo out > /dev/stdout; echo err > /dev/stderr"))
        .write_stdin("hi\n")
        .assert()
        .success()
        .stdout("hi\nout\n")
        .stderr("err\n");

    // What has a name on the host keeps its owner: a file, a named pipe, a terminal.
    let file = world.dir().join("file");
    fs::write(&file, "of root\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let fifo = world.dir().join("fifo");
    nix::unistd::mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    let terminal = nix::pty::openpty(None, None).unwrap();
    let open = |path: &Path| fs::File::options().read(true).write(true).open(path).unwrap();
    for stream in [open(&file), open(&fifo), fs::File::from(terminal.slave)] {
        let before = stream.metadata().unwrap();
        let mut runtime = Command::new(common::binary());
        runtime.args(words("true")).stdin(stream.try_clone().unwrap()).stdout(stream.try_clone().unwrap());
        assert!(runtime.status().unwrap().success());
        let after = stream.metadata().unwrap();
        let facts = |of: &fs::Metadata| (of.uid(), of.gid(), format!("{:o}", of.mode()));
        assert_eq!(facts(&after), facts(&before), "the owner or mode of {:?} was changed", after.file_type());
    }
    // And what is for everybody anyway.
    let mut runtime = Command::new(common::binary());
    assert!(runtime.args(words("true")).stdin(Stdio::null()).status().unwrap().success());
    assert_eq!(fs::metadata("/dev/null").unwrap().uid(), 0);
}

// https://github.com/containerd/nerdctl/issues/2684
#[test]
#[ignore = "privileged: make vm-test"]
fn task4_modes_are_the_same_whatever_the_callers_umask() {
    let world = World::new();
    let rootfs = world.copy_of_rootfs("rootfs");
    for name in ["proc", "sys", "dev"] {
        fs::remove_dir(rootfs.join(name)).unwrap();
    }
    let modes = "umask; cd /dev; stat -c '%n %a' /dev null tty pts ptmx pts/ptmx shm mqueue /srv /srv/new";
    let run = |umask: &str| {
        let run = "exec \"$0\" run --rootfs rootfs -w /srv/new sh -c \"$1\"";
        let script = format!("umask {umask}; {run}");
        let mut command = Command::new("sh");
        command.current_dir(world.dir()).args(["-c", &script]).arg(common::binary()).arg(modes);
        command.output().unwrap()
    };
    let expected = "0022\n/dev 755\nnull 666\ntty 666\npts 755\nptmx 777\npts/ptmx 666\nshm 1777\nmqueue 1777\n/srv 755\n/srv/new 755\n";
    for umask in ["077", "000", "777"] {
        let _ = fs::remove_dir_all(rootfs.join("srv"));
        let output = run(umask);
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            expected,
            "with umask {umask}: {}",
            common::said(&output)
        );
        for name in ["proc", "sys", "dev"] {
            let mode = fs::metadata(rootfs.join(name)).unwrap().mode() & 0o7777;
            assert_eq!(mode, 0o755, "the mount point {name}, made with umask {umask}");
            fs::remove_dir(rootfs.join(name)).unwrap();
        }
    }
}

// https://github.com/opencontainers/runc/security/advisories/GHSA-9493-h29p-rfm2
#[test]
#[ignore = "privileged: make vm-test"]
fn task1_the_root_is_the_directory_that_was_named_whatever_its_path_becomes() {
    let world = World::new();
    let (rootfs, decoy) = (world.copy_of_rootfs("rootfs"), world.dir().join("decoy"));
    fs::create_dir(&decoy).unwrap();
    let exchange = || exchange(&rootfs, &decoy);
    let taken = format!("open_tree({rootfs:?}");
    let (mut started, mut last) = (0, String::new());
    for moment in (1..).step_by(4) {
        let look = |pid| Path::new(&format!("/proc/{pid}/root/bin/busybox")).exists();
        let (told, is_ours) = start_with_an_exchange(&rootfs, moment, exchange, look);
        last = told.concat();
        if told.len() < moment {
            break;
        }
        exchange();
        let before = &told[..moment - 1];
        if before.iter().any(|step| step.contains(&taken)) {
            let place = format!("its path was given to another directory after {:?}", told[moment - 1]);
            assert_eq!(is_ours, Some(true), "{place}:\n{last}");
            started += 1;
        }
    }
    assert!(started > 0, "it never started: {last}");
}

// https://github.com/lxc/lxc/issues/1054, https://github.com/containers/crun/issues/1158
#[test]
#[ignore = "privileged: make vm-test"]
fn task4_a_terminal_that_cannot_be_mounted_is_no_obstacle() {
    let _world = World::new();
    let terminal = nix::pty::openpty(None, None).unwrap();
    // It was opened in the mount namespace that is left then.
    let mut command = Command::new("unshare");
    command.arg("--mount").arg(common::binary()).arg("run").arg("--rootfs").arg(busybox());
    command.args(["sh", "-c", "test -t 0 && echo a terminal; ls /dev/console"]);
    let output = command.stdin(terminal.slave).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "a terminal\n", "{}", common::said(&output));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("/dev/console: No such file"),
        "{}",
        common::said(&output)
    );
}
