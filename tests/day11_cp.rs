//! Day 11: what a container has changed, and files that come out of it and go into it.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use assert_cmd::assert::Assert;
use common::{World, alive, busybox, pid, said, state, until};
use nix::mount::{MsFlags, mount, umount};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::Pid;
use predicates::prelude::*;
use predicates::str::contains;

/// A container `web` with a layer of its own above the shared root file system, in which
/// `script` has run.
fn ended(world: &World, flags: &[&str], script: &str) {
    let base = busybox();
    let mut words = vec!["run", "--net", "none", "--name", "web", "--layer", base.to_str().unwrap()];
    words.extend(flags);
    words.extend(["sh", "-ec", script]);
    world.tiny_docker(words).assert().success();
}

/// The same, and it goes on to run, once `script` has.
fn running(world: &World, flags: &[&str], script: &str) {
    let base = busybox();
    let script = format!("{script}\n> /ready; sleep 1000");
    let mut words = vec!["run", "-d", "--net", "none", "--name", "web", "--layer", base.to_str().unwrap()];
    words.extend(flags);
    words.extend(["sh", "-ec", &script]);
    world.tiny_docker(words).assert().success();
    until("its script has run", || upper(world).join("ready").exists());
}

fn cp<S: AsRef<OsStr>>(world: &World, words: impl IntoIterator<Item = S>) -> Assert {
    let words = words.into_iter().map(|word| word.as_ref().to_owned());
    world.tiny_docker([OsString::from("cp")].into_iter().chain(words)).assert()
}

fn diff(world: &World) -> String {
    let output = world.tiny_docker(["diff", "web"]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// What the file `path` of the container holds.
fn inside(world: &World, path: &str) -> String {
    let output = world.tiny_docker(["cp", &format!("web:{path}"), "-"]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    untar(&output.stdout, &["-xO"])
}

/// What tar makes of `archive`.
fn untar(archive: &[u8], flags: &[&str]) -> String {
    let output = assert_cmd::Command::new("tar").args(flags).write_stdin(archive).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn tar(dir: &Path, words: &[&str]) -> Vec<u8> {
    let output = std::process::Command::new("tar").arg("-C").arg(dir).arg("-c").args(words).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    output.stdout
}

/// The container's own layer.
fn upper(world: &World) -> PathBuf {
    world.containers().join(world.inspect("web")["id"].as_str().unwrap()).join("layer/upper")
}

/// A directory in which there is one in which there is one …
fn dig(dir: &Path, levels: u32) {
    use nix::fcntl::{OFlag, openat};
    let open = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut here = std::os::fd::OwnedFd::from(File::open(dir).unwrap());
    for _ in 0..levels {
        nix::sys::stat::mkdirat(&here, "deeper", Mode::from_bits_truncate(0o755)).unwrap();
        here = openat(&here, "deeper", open, Mode::empty()).unwrap();
    }
    let flags = OFlag::O_CREAT | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    let file = openat(&here, "bottom", flags, Mode::from_bits_truncate(0o644)).unwrap();
    File::from(file).write_all(b"bottom\n").unwrap();
}

/// All of a tree that a copy is to have too.
fn facts(top: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut todo = vec![top.to_owned()];
    while let Some(path) = todo.pop() {
        let found = fs::symlink_metadata(&path).unwrap();
        if found.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let target = fs::read_link(&path).ok();
        let text = if found.is_file() { fs::read(&path).unwrap() } else { vec![] };
        let sum = text.iter().fold(text.len() as u64, |sum, byte| sum.wrapping_mul(31) + u64::from(*byte));
        let size = if found.is_file() { found.size() } else { 0 };
        let facts = format!(
            "{:o} {}:{} {} bytes {sum:x} {}.{} device {} {target:?}, {} names",
            found.mode(),
            found.uid(),
            found.gid(),
            size,
            found.mtime(),
            found.mtime_nsec(),
            found.rdev(),
            if found.is_dir() { 0 } else { found.nlink() },
        );
        all.insert(path.strip_prefix(top).unwrap().to_owned(), facts);
    }
    all
}

fn set_capability(path: &Path, value: &[u8]) {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let (name, value) = (c"security.capability", value);
    // SAFETY: the kernel reads two strings that end with a NUL, and the value.
    let result =
        unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

fn capability(path: &Path) -> Vec<u8> {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let mut value = vec![0u8; 64];
    // SAFETY: the kernel reads two strings that end with a NUL, and writes into `value`.
    let length = unsafe {
        libc::lgetxattr(path.as_ptr(), c"security.capability".as_ptr(), value.as_mut_ptr().cast(), 64)
    };
    value.truncate(usize::try_from(length).unwrap_or(0));
    value
}

/// What `CAP_DAC_OVERRIDE|CAP_FOWNER` looks like in a file: with the byte of a newline in it.
/// (capabilities(7), include/uapi/linux/capability.h)
const TWO_CAPABILITIES: [u8; 20] = [1, 0, 0, 2, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_diff_lists_what_was_added_changed_and_deleted() {
    let world = World::new();
    ended(
        &world,
        &[],
        "mkdir -p /srv/new/below && echo 1 > /srv/new/below/file
        echo more >> /etc/passwd; rm /etc/group; rm -r /home
        chmod 700 /tmp; touch -d 2001-01-01 /etc/os-release
        ln -s /nowhere /srv/link; mkfifo /srv/pipe; mknod /srv/null c 1 3
        # A directory becomes a file, and a file a directory.
        rmdir /root && echo file > /root
        rm /sbin/init && mkdir /sbin/init && echo in > /sbin/init/in
        # What is removed again was never there.
        echo x > /srv/x; rm /srv/x; mkdir /srv/y; rmdir /srv/y",
    );
    // By path; a directory in which something has changed has changed, and / is no news.
    // https://github.com/docker/for-linux/issues/307 (it failed where a directory had become a file)
    let expected = "C /etc\nD /etc/group\nC /etc/os-release\nC /etc/passwd\nD /home\nC /root\nC /sbin\nC /sbin/init\n\
                    A /sbin/init/in\nC /srv\nA /srv/link\nA /srv/new\nA /srv/new/below\nA /srv/new/below/file\n\
                    A /srv/null\nA /srv/pipe\nC /tmp\n";
    assert_eq!(diff(&world), expected);
    // Nothing is left of the mounts that this took, and a second look sees the same.
    assert_eq!(diff(&world), expected);
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
// https://github.com/moby/moby/pull/37313, https://github.com/moby/moby/issues/37880
fn task3_a_directory_that_was_made_anew_hides_what_was_below() {
    let world = World::new();
    let base = world.copy_of_rootfs("base");
    fs::create_dir_all(base.join("srv/dir/sub/deep")).unwrap();
    for name in ["a", "b", "sub/c", "sub/d", "sub/deep/e"] {
        fs::write(base.join("srv/dir").join(name), name).unwrap();
    }
    let script =
        "rm -r /srv/dir; mkdir -p /srv/dir/sub /srv/dir/new; cd /srv/dir; echo 2 > a; echo 2 > sub/c";
    let words =
        ["run", "--net", "none", "--name", "web", "--layer", base.to_str().unwrap(), "sh", "-ec", script];
    world.tiny_docker(words).assert().success();
    // What is made anew in it has changed, the rest is gone: also in a directory below, which
    // bears no sign of its own.
    let expected = "C /srv\nC /srv/dir\nC /srv/dir/a\nD /srv/dir/b\nA /srv/dir/new\nC /srv/dir/sub\n\
                    C /srv/dir/sub/c\nD /srv/dir/sub/d\nD /srv/dir/sub/deep\n";
    assert_eq!(diff(&world), expected);
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_of_several_layers_it_counts_what_was_seen() {
    let world = World::new();
    let base = busybox();
    let (low, high) = (world.dir().join("low"), world.dir().join("high"));
    for layer in [&low, &high] {
        fs::create_dir_all(layer.join("srv")).unwrap();
    }
    for name in ["low", "both", "gone", "anew"] {
        fs::write(low.join("srv").join(name), "low").unwrap();
    }
    fs::write(high.join("srv/both"), "high").unwrap();
    for name in ["gone", "anew"] {
        mknod(&high.join("srv").join(name), SFlag::S_IFCHR, Mode::empty(), 0).unwrap();
    }
    let mut words: Vec<&OsStr> = ["run", "--net", "none", "--name", "web"].map(OsStr::new).to_vec();
    for layer in [&high, &low, &base] {
        words.extend([OsStr::new("--layer"), layer.as_os_str()]);
    }
    words.extend(["sh", "-ec", "cd /srv; rm low both; echo 1 > anew; echo 1 > new"].map(OsStr::new));
    world.tiny_docker(words).assert().success();
    // What the upper one of the layers had deleted was not there: it is new, and no change.
    assert_eq!(diff(&world), "C /srv\nA /srv/anew\nD /srv/both\nD /srv/low\nA /srv/new\n");
    // By a relative path as well: the kernel is told descriptors, and no paths.
    let mut command = world.tiny_docker(["--root", "state", "diff", "web"]);
    command.env_remove("TINY_DOCKER_ROOT").assert().success().stdout(contains("A /srv/new"));
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_what_was_opened_and_not_changed_is_not_listed() {
    let world = World::new();
    // All of these come into the layer: the kernel copies a file when it is opened to be
    // written, and a directory when something is made in it.
    ended(&world, &[], ": >> /etc/passwd; chmod 644 /etc/group; mkdir /srv/x; rmdir /srv/x; chown 0 /tmp");
    assert!(upper(&world).join("etc/passwd").exists(), "the kernel did not copy it");
    assert_eq!(diff(&world), "");
    // Only what a program may do has changed.
    set_capability(&upper(&world).join("etc/passwd"), &TWO_CAPABILITIES);
    assert_eq!(diff(&world), "C /etc\nC /etc/passwd\n");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_what_the_runtime_mounts_on_is_no_change() {
    let world = World::new();
    let base = world.copy_of_rootfs("bare");
    for name in ["etc/hosts", "etc/hostname", "etc/resolv.conf"] {
        fs::remove_file(base.join(name)).unwrap();
    }
    for name in ["proc", "sys", "dev"] {
        fs::remove_dir(base.join(name)).unwrap();
    }
    let words = ["run", "--net", "none", "--name", "web", "--layer", base.to_str().unwrap()];
    let command = [
        "-v",
        "data:/data",
        "sh",
        "-c",
        "echo no > /data/file; echo no > /dev/file; echo 10.0.0.1 x >> /etc/hosts",
    ];
    world.tiny_docker(words.into_iter().chain(command)).assert().success();
    // The place of a volume is, as with Docker; what is in the volume is not in the layer.
    assert_eq!(diff(&world), "A /data\n");
    world.remove_all();
    world.tiny_docker(["volume", "rm", "data"]).assert().success();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_any_name_is_one_line() {
    let world = World::new();
    ended(&world, &[], "cd /srv; > \"$(printf 'a\\nD x')\"; > 'b\\c d'; > \"$(printf '\\377\\376')\"; > é");
    let output = world.tiny_docker(["diff", "web"]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let expected = b"C /srv\nA /srv/a\\012D x\nA /srv/b\\134c d\nA /srv/\xc3\xa9\nA /srv/\xff\xfe\n";
    assert_eq!(output.stdout, expected, "{}", String::from_utf8_lossy(&output.stdout));
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_a_tree_deeper_than_a_path_can_be_long() {
    let world = World::new();
    ended(&world, &[], "mkdir /srv/deep");
    dig(&upper(&world).join("srv/deep"), 1200);
    // With few open files and a small stack: neither may grow with the depth.
    let mut command = world.called_by(r#"ulimit -Sn 40; ulimit -Ss 256; "$0" diff web"#);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(output.stdout.iter().filter(|byte| **byte == b'\n').count(), 2 + 1200 + 1);
    assert!(output.stdout.ends_with(b"/deeper/deeper/bottom\n"));
    // Who has read enough is no error.
    let script = r#"set -o pipefail; "$0" diff web | head -n 1"#;
    world.called_by(script).assert().success().stdout("C /srv\n").stderr("");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_what_has_no_layer_is_told_so() {
    let world = World::new();
    let base = world.copy_of_rootfs("base");
    let words = ["run", "--net", "none", "--name", "web", "--rootfs", base.to_str().unwrap(), "true"];
    world.tiny_docker(words).assert().success();
    let no_layer = contains("no layer of its own").and(contains("--layer DIR"));
    world.tiny_docker(["diff", "web"]).assert().code(1).stdout("").stderr(no_layer);
    world.tiny_docker(["diff", "nobody"]).assert().code(1).stderr(contains("no such container: \"nobody\""));
    world.remove_all();
    // One that runs has a layer that changes.
    running(&world, &[], "echo 1 > /srv/one");
    assert_eq!(diff(&world), "A /ready\nC /srv\nA /srv/one\n");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_dockers_rules_for_what_comes_out() {
    dockers_rules("out");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_dockers_rules_for_what_goes_in() {
    dockers_rules("in");
}

/// The table in docker-cp(1).
fn dockers_rules(direction: &str) {
    let world = World::new();
    {
        let host = world.dir().join("host");
        fs::create_dir_all(&host).unwrap();
        running(&world, &[], "true");
        let make = |script: &str| {
            let mut command = world.called_by(script);
            command.current_dir(&host).assert().success();
        };
        // Both sides begin alike: `cp -a` is believed for once.
        make(
            "mkdir -p dir/sub full taken/dir; echo 1 > dir/one; echo 2 > dir/sub/two; echo 3 > three; echo 4 > full/four; > taken/dir/old; ln -s full link; ln -s three to-file; ln -s nowhere dangling",
        );
        cp(&world, ["-a", "host/.", "web:/w"]).success();
        let cases: &[(&str, &str, &str)] = &[
            // A file: to a new name, onto a file, into a directory, and through links to both.
            ("three", "new", "new"),
            ("three", "full/four", "full/four"),
            ("three", "full", "full/three"),
            ("three", "full/", "full/three"),
            ("three", "link", "full/three"),
            ("three", "link/x", "full/x"),
            ("dir/one", "to-file", "three"),
            ("dir/one", "dangling", "nowhere"),
            // A directory: to a new name, with or without its own, into a directory, or only
            // what is in it.
            ("dir", "fresh", "fresh/sub/two"),
            ("dir/", "fresh2", "fresh2/sub/two"),
            ("dir", "fresh3/", "fresh3/sub/two"),
            ("dir/.", "fresh4", "fresh4/sub/two"),
            ("dir", "full", "full/dir/sub/two"),
            ("dir/", "full/.", "full/dir/one"),
            ("dir/.", "full", "full/sub/two"),
            ("dir/sub/..", "taken", "taken/one"),
            ("dir", "link", "full/dir/one"),
            ("dir", "taken", "taken/dir/one"),
            // A link is a link; with a slash it is what it leads to.
            ("link", "copy-of-link", "copy-of-link/four"),
            ("link/", "followed", "followed/four"),
            ("link/.", "followed2", "followed2/four"),
        ];
        for (src, dst, appears) in cases {
            if direction == "out" {
                cp(&world, [&format!("web:/w/{src}"), &format!("host/{dst}")])
                    .success()
                    .stdout("")
                    .stderr("");
            } else {
                cp(&world, [&format!("host/{src}"), &format!("web:/w/{dst}")])
                    .success()
                    .stdout("")
                    .stderr("");
                assert!(upper(&world).join("w").join(appears).exists(), "cp {src} {dst}: no {appears}");
                continue;
            }
            assert!(host.join(appears).exists(), "cp {src} {dst}: there is no {appears}");
        }
        // What was there stays, and the link that was copied is one.
        if direction == "out" {
            assert!(host.join("taken/dir/old").exists() && host.join("taken/dir/sub/two").exists());
            assert!(host.join("copy-of-link").is_symlink() && !host.join("followed").is_symlink());
            assert_eq!(fs::read_to_string(host.join("three")).unwrap(), "1\n");
            assert!(host.join("to-file").is_symlink() && host.join("dangling").is_symlink());
            // -L: what it leads to, by the name that it was called.
            cp(&world, ["-L", "web:/w/to-file", "host/full"]).success();
            assert!(host.join("full/to-file").is_file() && !host.join("full/to-file").is_symlink());
            cp(&world, ["-L", "web:/w/link", "host/full"]).success();
            assert!(host.join("full/link/four").exists());
        } else {
            // A path in a container begins at /, however it is written.
            cp(&world, ["web:w/taken/dir/old", "-"]).success();
            assert_eq!(inside(&world, "/w/three"), "1\n");
            assert!(upper(&world).join("w/copy-of-link").is_symlink());
            cp(&world, ["-L", "host/to-file", "web:/w/full"]).success();
            assert!(upper(&world).join("w/full/to-file").is_file());
        }
        fs::remove_dir_all(&host).unwrap();
        world.remove_all();
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_what_cannot_be_copied_is_refused_with_the_way_out() {
    let world = World::new();
    ended(&world, &[], "mkdir -p /srv/dir/in; echo 1 > /srv/file; ln -s loop /srv/loop");
    let dir = world.dir();
    fs::create_dir(dir.join("dir")).unwrap();
    fs::create_dir(dir.join("dir/file")).unwrap();
    fs::write(dir.join("file"), "mine\n").unwrap();
    fs::write(dir.join("in"), "mine\n").unwrap();
    let cases: [(&[&str], &str); 19] = [
        (&["a", "b"], "neither SRC nor DST is in a container"),
        (&["web:/a", "web:/b"], "both SRC and DST are in a container"),
        (&["", "web:/b"], "SRC is empty"),
        (&["web:/srv/file", ""], "DST is empty"),
        (&["nobody:/a", "b"], "no such container: \"nobody\""),
        (&["web:/no/such", "b"], "open the directory of \"/no/such\": No such file or directory"),
        (&["web:/srv/none", "b"], "container web: there is no \"/srv/none\""),
        (&["none", "web:/b"], "there is no \"none\""),
        (&["web:/srv/file/", "b"], "\"/srv/file/\" is not a directory"),
        (&["web:/srv/dir", "file"], "\"file\" is a file, and a directory cannot be copied onto it"),
        (&["dir", "web:/srv/file"], "\"/srv/file\" is a file, and a directory cannot be copied onto it"),
        (&["web:/srv/file", "none/"], "there is no directory \"none/\"; make it first"),
        (&["web:/srv/file", "none/x"], "there is no directory \"none/\", in which \"none/x\" is to be made"),
        (&["file", "web:/none/x"], "there is no directory \"/none/\", in which \"/none/x\" is to be made"),
        (&["file", "web:/srv/loop"], "Too many levels of symbolic links"),
        (&["file", "web:/dev/null"], "neither a directory nor a file"),
        // A directory is not replaced by a file, nor a file by a directory.
        (&["web:/srv/file", "dir"], "copy \"file\": a directory is in its place"),
        (&["web:/srv/dir/.", "."], "\"in\" is there and is not a directory"),
        (&["web:/proc/version", "b"], "the kernel makes it up while it is read"),
    ];
    for (words, why) in cases {
        let mut command = world.tiny_docker(["cp"]);
        let assert = command.args(words).assert();
        assert.code(1).stdout("").stderr(contains(why).and(predicate::str::starts_with("tiny-docker: ")));
    }
    assert_eq!(fs::read_to_string(dir.join("file")).unwrap(), "mine\n");
    assert_eq!(fs::read_to_string(dir.join("in")).unwrap(), "mine\n");
    assert_eq!(inside(&world, "/srv/file"), "1\n");
    // A path of the host may have a colon in it.
    fs::write(dir.join("web:x"), "colon\n").unwrap();
    cp(&world, ["./web:x", "web:/srv/y"]).success();
    cp(&world, [dir.join("web:x").to_str().unwrap(), "web:/srv/z"]).success();
    assert_eq!(inside(&world, "/srv/y") + &inside(&world, "/srv/z"), "colon\ncolon\n");
    world.remove_all();
    // One on the host's own root has no files of its own.
    world.tiny_docker(["run", "--net", "host", "--name", "web", "true"]).assert().success();
    cp(&world, ["web:/etc/passwd", "b"]).code(1).stderr(contains("has the host's own /"));
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_all_that_a_file_has_is_copied() {
    let world = World::new();
    let host = world.dir().join("tree");
    fs::create_dir_all(host.join("sub/read-only")).unwrap();
    let write = |name: &str, text: &str| fs::write(host.join(name), text).unwrap();
    write("plain", "text\n");
    write("sub/set-user-id", "");
    fs::hard_link(host.join("plain"), host.join("sub/other name")).unwrap();
    symlink("../../../../..//etc/./passwd/", host.join("sub/odd link")).unwrap();
    symlink("x".repeat(300), host.join("long link")).unwrap();
    // https://github.com/docker/for-linux/issues/484
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(250));
    fs::create_dir(host.join("d".repeat(200))).unwrap();
    write(&long, "long\n");
    let odd = OsString::from_vec(b"no \xff utf-8\nand a newline".to_vec());
    fs::write(host.join(&odd), "odd\n").unwrap();
    let odd_link = host.join("odd target");
    symlink(&odd, &odd_link).unwrap();
    mknod(&host.join("pipe"), SFlag::S_IFIFO, Mode::from_bits_truncate(0o640), 0).unwrap();
    mknod(&host.join("device"), SFlag::S_IFCHR, Mode::from_bits_truncate(0o600), makedev(1, 3)).unwrap();
    write("sub/read-only/file", "in a directory that cannot be written\n");
    for (name, uid, gid, mode) in [
        ("plain", 1234, 4321, 0o640),
        ("sub", 70000, 2_000_000_000, 0o2755),
        ("sub/set-user-id", 33, 33, 0o6755),
        ("sub/read-only", 5, 5, 0o555),
        ("pipe", 7, 8, 0o640),
    ] {
        chown(host.join(name), Some(uid), Some(gid)).unwrap();
        fs::set_permissions(host.join(name), Permissions::from_mode(mode)).unwrap();
    }
    set_capability(&host.join("sub/set-user-id"), &TWO_CAPABILITIES);
    // The depths first: what is made in a directory changes its time.
    let before_1970 = SystemTime::UNIX_EPOCH - Duration::from_millis(500);
    let then = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    for (name, time) in [("sub/read-only", then), ("plain", before_1970), ("sub", then), ("", then)] {
        File::open(host.join(name)).unwrap().set_modified(time).unwrap();
    }
    ended(&world, &[], "true");
    cp(&world, ["-a", "tree", "web:/"]).success();
    cp(&world, ["-a", "web:/tree", "back"]).success();
    let back = world.dir().join("back");
    assert_eq!(facts(&back), facts(&host));
    assert_eq!(capability(&back.join("sub/set-user-id")), TWO_CAPABILITIES);
    // https://github.com/moby/moby/issues/30249: hard links, where the destination is new.
    let inode = |name: &str| fs::metadata(back.join(name)).unwrap().ino();
    assert_eq!(inode("plain"), inode("sub/other name"));
    // Without -a everything is the copier's: in the container root's.
    // https://github.com/moby/moby/issues/45793, https://github.com/docker/cli/issues/4382
    // https://github.com/moby/moby/issues/35987: the directory that cannot be written is no obstacle.
    cp(&world, ["web:/tree", "ours"]).success();
    cp(&world, ["tree", "web:/theirs"]).success();
    for top in [world.dir().join("ours"), upper(&world).join("theirs")] {
        for name in ["", "plain", "sub", "sub/set-user-id", "pipe", "long link"] {
            let found = fs::symlink_metadata(top.join(name)).unwrap();
            assert_eq!((found.uid(), found.gid()), (0, 0), "{top:?} {name}");
        }
        assert_eq!(fs::metadata(top.join("sub/set-user-id")).unwrap().mode() & 0o7777, 0o6755);
    }
    // What is copied into a directory that is there leaves that as it is: `cp files/. web:/`
    // is not to give / the owner and the mode of `files`.
    fs::set_permissions(&host, Permissions::from_mode(0o700)).unwrap();
    cp(&world, ["-a", "tree/.", "web:/"]).success();
    assert_eq!(
        fs::metadata(upper(&world)).unwrap().mode() & 0o777,
        fs::metadata(busybox()).unwrap().mode() & 0o777
    );
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_a_file_with_holes_takes_no_more_room() {
    let world = World::new();
    let file = File::create(world.dir().join("image")).unwrap();
    // 100 GB, with something at the start, in many places, and at an odd end.
    for at in (0..40).map(|number| number << 31).chain([100_000_000_003]) {
        use std::os::unix::fs::FileExt;
        file.write_all_at(b"something", at).unwrap();
    }
    let size = file.metadata().unwrap().len();
    ended(&world, &[], "true");
    cp(&world, ["image", "web:/image"]).success();
    let inside = upper(&world).join("image");
    cp(&world, ["web:/image", "back"]).success();
    for copy in [inside, world.dir().join("back")] {
        let found = fs::metadata(&copy).unwrap();
        assert_eq!(found.len(), size);
        assert!(found.blocks() * 512 < 4 << 20, "{} blocks", found.blocks());
        use std::os::unix::fs::FileExt;
        let mut text = [0; 9];
        for at in [39 << 31, 100_000_000_003] {
            File::open(&copy).unwrap().read_exact_at(&mut text, at).unwrap();
            assert_eq!(&text, b"something");
        }
    }
    // Others read it, too; and what they write is read, or refused.
    let script =
        r#"mkdir out; "$0" cp web:/image - | tar -xSC out && du -k out/image && tail -c 9 out/image"#;
    world.called_by(script).assert().success().stdout(
        predicate::str::ends_with("out/imagesomething").or(predicate::str::ends_with("out/image\nsomething")),
    );
    let script = r#"tar --format=posix --sparse-version=0.1 -cS image | "$0" cp - web:/srv"#;
    world.called_by(script).assert().success();
    let found = fs::metadata(upper(&world).join("srv/image")).unwrap();
    assert!(found.len() == size && found.blocks() * 512 < 4 << 20, "{} blocks", found.blocks());
    let script = r#"tar --format=posix --sparse-version=1.0 -cS image | "$0" cp - web:/srv"#;
    world.called_by(script).assert().code(1).stderr(contains("tar --sparse-version=0.1"));
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_an_archive_goes_out_and_comes_in() {
    let world = World::new();
    ended(
        &world,
        &["-v", "data:/data"],
        "mkdir -p /srv/d/e; echo 1 > /srv/d/e/f; chown -R 5:6 /srv/d; ln -s e /srv/d/l",
    );
    let output = world.tiny_docker(["cp", "web:/srv/d", "-"]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(untar(&output.stdout, &["-t"]), "d/\nd/e/\nd/e/f\nd/l\n");
    assert!(untar(&output.stdout, &["-tv", "--numeric-owner"]).contains("5/6"));
    let output = world.tiny_docker(["cp", "web:/srv/d/.", "-"]).output().unwrap();
    assert_eq!(untar(&output.stdout, &["-t"]), "./\n./e/\n./e/f\n./l\n");
    // In: by GNU tar, with what it has before and after; owners are those in the archive.
    let host = world.dir().join("host");
    fs::create_dir_all(host.join("x/y")).unwrap();
    fs::write(host.join("x/y/z"), "z\n").unwrap();
    chown(host.join("x/y/z"), Some(77), Some(78)).unwrap();
    mknod(&host.join("x/p"), SFlag::S_IFIFO, Mode::S_IRUSR, 0).unwrap();
    for flags in [&["x"][..], &["--format=posix", "x"], &["--format=ustar", "./x"], &["--format=v7", "x/y"]] {
        let mut command = world.tiny_docker(["cp", "-", "web:/srv"]);
        command.write_stdin(tar(&host, flags)).assert().success().stdout("").stderr("");
        assert_eq!(inside(&world, "/srv/x/y/z"), "z\n");
        let found = fs::metadata(upper(&world).join("srv/x/y/z")).unwrap();
        assert_eq!((found.uid(), found.gid()), (77, 78));
    }
    // It is unpacked into a directory that is there, and nowhere else.
    for (dst, why) in [("web:/none", "expected a directory"), ("web:/etc/passwd", "expected a directory")] {
        let mut command = world.tiny_docker(["cp", "-", dst]);
        command.write_stdin(tar(&host, &["x"])).assert().code(1).stderr(contains(why));
    }
    // What is in a volume is in the volume.
    world.tiny_docker(["cp", "-", "web:/data"]).write_stdin(tar(&host, &["x"])).assert().success();
    let volume = world.dir().join("state/volumes/data/_data/x/y/z");
    assert_eq!(fs::read_to_string(volume).unwrap(), "z\n");
    world.remove_all();
    world.tiny_docker(["volume", "rm", "data"]).assert().success();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_half_an_archive_is_never_taken_for_a_whole_one() {
    let world = World::new();
    ended(&world, &[], "mkdir /srv/in");
    let host = world.dir().join("host");
    fs::create_dir_all(&host).unwrap();
    fs::write(host.join("a"), "a".repeat(3000)).unwrap();
    fs::write(host.join("b"), "b".repeat(3000)).unwrap();
    let whole = tar(&host, &["a", "b"]);
    let send = |archive: &[u8]| {
        let mut command = world.tiny_docker(["cp", "-", "web:/srv/in"]);
        command.write_stdin(archive).assert()
    };
    // In the contents, in a header, exactly between two files, and before the end that an
    // archive has.
    let second = 512 + 3072;
    for length in [0, 100, 700, second, second + 300, second + 600, 2 * second] {
        send(&whole[..length]).code(1).stderr(contains("the archive ends too early"));
        let left = fs::read_dir(upper(&world).join("srv/in")).unwrap();
        for file in left.map(|entry| entry.unwrap()) {
            assert_eq!(file.metadata().unwrap().len(), 3000, "{:?} is half a file", file.path());
        }
    }
    send(
        b"this is no archive at all, but it is longer than a header is, which has 512 bytes. "
            .repeat(10)
            .as_slice(),
    )
    .code(1)
    .stderr(contains("read an archive of tar"));
    // More blocks of zeros at its end are no error, as tar pads to 10 KiB; nor is an empty one.
    send(&[whole.clone(), vec![0; 1 << 20]].concat()).success();
    send(&[0; 1024]).success();
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_names_in_an_archive_lead_nowhere_else() {
    let world = World::new();
    ended(&world, &[], "mkdir -p /srv/in; echo secret > /srv/secret");
    let host = world.dir().join("host");
    fs::create_dir_all(host.join("d")).unwrap();
    fs::write(host.join("d/f"), "evil\n").unwrap();
    let send = |flags: &[&str]| {
        let mut command = world.tiny_docker(["cp", "-", "web:/srv/in"]);
        command.write_stdin(tar(&host, flags)).assert()
    };
    send(&["--transform=s,^d/f,../out,", "d/f"]).code(1).stderr(contains("leads out of the directory"));
    send(&["--transform=s,^d/f,x/../../out,", "d/f"]).code(1).stderr(contains("leads out of the directory"));
    // From / on means from the directory on.
    send(&["-P", "--transform=s,^d/f,/abs,", "d/f"]).success();
    assert_eq!(inside(&world, "/srv/in/abs"), "evil\n");
    // A link in the archive, and then a file through it.
    symlink("/srv", host.join("link")).unwrap();
    send(&["--transform=s,^d/f,link/out,", "link", "d/f"]).code(1).stderr(contains("not a directory"));
    symlink("/srv/secret", host.join("to-secret")).unwrap();
    send(&["--transform=s,^d/f,to-secret,", "to-secret", "d/f"]).success();
    assert_eq!(inside(&world, "/srv/secret"), "secret\n", "written through a link");
    assert_eq!(inside(&world, "/srv/in/to-secret"), "evil\n");
    assert!(!upper(&world).join("srv/out").exists() && !upper(&world).join("out").exists());
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
// https://github.com/podman-container-tools/podman/issues/3211 (CVE-2019-10152)
fn task5_links_in_the_container_lead_to_its_own_files() {
    for runs in [false, true] {
        let world = World::new();
        let secret = world.dir().join("secret");
        fs::create_dir(&secret).unwrap();
        fs::write(secret.join("file"), "the host's\n").unwrap();
        let there = secret.to_str().unwrap();
        let script = format!(
            "mkdir /srv/d; ln -s {there} /srv/l; ln -s /proc/1/root{there} /srv/magic; ln -s ../../../../../..{there} /srv/up; ln -s {there}/file /srv/f"
        );
        if runs {
            running(&world, &[], &script)
        } else {
            ended(&world, &[], &script)
        }
        fs::write(world.dir().join("new"), "new\n").unwrap();
        for link in ["l", "magic", "up"] {
            cp(&world, ["new", &format!("web:/srv/{link}/new")]).code(1);
            cp(&world, [&format!("web:/srv/{link}/file"), "got"]).code(1);
            cp(&world, [&format!("web:/srv/{link}/."), "got"]).code(1);
        }
        cp(&world, ["-L", "web:/srv/f", "got"]).code(1);
        assert!(!secret.join("new").exists() && !world.dir().join("got").exists());
        // Where the container has such a directory, that is meant.
        cp(&world, ["new", "web:/srv/f"]).code(1).stderr(contains("there is no directory"));
        world.remove_all();
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_what_was_copied_before_leads_nowhere() {
    let world = World::new();
    let secret = world.dir().join("secret");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("file"), "the host's\n").unwrap();
    let there = secret.to_str().unwrap();
    running(&world, &[], &format!("mkdir /srv/d; ln -s {there} /srv/d/x; ln -s {there}/file /srv/d/y"));
    cp(&world, ["web:/srv/d", "got"]).success();
    let got = world.dir().join("got");
    assert!(got.join("x").is_symlink() && got.join("y").is_symlink());
    // Between two copies the links have become a directory and a file: now the links that are
    // on the host would lead to what is the host's.
    fs::create_dir(world.dir().join("d")).unwrap();
    let mut evil = world.called_by(
        r#"cd d && mkdir x && echo evil > x/file && echo evil > y && tar c y x | "$0" cp - web:/srv/new"#,
    );
    cp(&world, ["d", "web:/srv/new"]).success();
    evil.assert().success();
    cp(&world, ["web:/srv/new/.", "got"]).code(1).stderr(contains("\"x\" is there and is not a directory"));
    cp(&world, ["web:/srv/new/y", "got"]).success();
    assert_eq!(fs::read_to_string(got.join("y")).unwrap(), "evil\n");
    assert!(!got.join("y").is_symlink());
    assert_eq!(fs::read_to_string(secret.join("file")).unwrap(), "the host's\n");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
// https://nvd.nist.gov/vuln/detail/CVE-2018-15664
fn task5_long_a_race_of_links_is_lost() {
    let world = World::new();
    let secret = world.dir().join("secret");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("file"), "the host's\n").unwrap();
    let there = secret.to_str().unwrap();
    // As fast as it can, a directory and a link to the host's take turns in one place.
    let script = format!(
        "mkdir -p /srv/a/x{there} /srv/real; echo own > /srv/real/file; ln -s {there} /srv/link; cd /srv
        (while :; do mv real swap; mv link swap2; mv swap2 swap3; mv swap link; mv swap3 real; \
         mv real s; mv link real; mv s link; done) 2> /dev/null &
        (while :; do ln -sfn {there} a/x/y; rm -rf a/x/y; mkdir a/x/y; echo own > a/x/y/file; done) 2> /dev/null &"
    );
    running(&world, &[], &script);
    fs::write(world.dir().join("file"), "own\n").unwrap();
    for number in 0..30 {
        let out = format!("out{number}");
        let words = match number % 3 {
            0 => ["cp", "web:/srv", &out],
            1 => ["cp", "web:/srv/real/file", &out],
            _ => ["cp", "file", "web:/srv/real/file"],
        };
        // It may fail: what it is to copy is not always there.
        let output = world.tiny_docker(words).output().unwrap();
        assert!(matches!(output.status.code(), Some(0 | 1)), "{}", said(&output));
    }
    assert_eq!(fs::read_to_string(secret.join("file")).unwrap(), "the host's\n");
    assert_eq!(fs::read_dir(&secret).unwrap().count(), 1);
    let mut todo: Vec<PathBuf> = vec![world.dir().to_owned()];
    while let Some(path) = todo.pop() {
        let found = fs::symlink_metadata(&path).unwrap();
        if path == secret || path.ends_with("state") {
        } else if found.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if found.is_file() {
            assert_ne!(fs::read(&path).unwrap(), b"the host's\n", "{path:?}");
        }
    }
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_an_ended_container_has_the_files_that_it_had() {
    let world = World::new();
    let bind = world.dir().join("bind");
    fs::create_dir(&bind).unwrap();
    let bound = format!("{}:/bound", bind.display());
    ended(
        &world,
        &["-v", "data:/data", "-v", &bound, "--tmpfs", "/memory", "--hostname", "its-name"],
        "echo v > /data/f; echo b > /bound/f; echo m > /memory/f; echo u > /srv/f; echo l > /data/../own",
    );
    for (path, text) in [("/data/f", "v\n"), ("/bound/f", "b\n"), ("/srv/f", "u\n"), ("/own", "l\n")] {
        assert_eq!(inside(&world, path), text);
    }
    // Also those that it has never written.
    let below = fs::read_to_string(busybox().join("etc/passwd")).unwrap();
    assert_eq!(inside(&world, "/etc/passwd"), below);
    assert!(inside(&world, "/etc/hosts").contains("its-name"));
    assert_eq!(inside(&world, "/etc/hostname"), "its-name\n");
    fs::write(world.dir().join("new"), "new\n").unwrap();
    for path in ["/data/new", "/bound/new", "/srv/new"] {
        cp(&world, ["new", &format!("web:{path}")]).success();
        assert_eq!(inside(&world, path), "new\n");
    }
    assert_eq!(fs::read_to_string(bind.join("new")).unwrap(), "new\n");
    assert!(!busybox().join("srv/new").exists(), "the layer below was written");
    // What would be in memory would be gone at once.
    for path in ["/memory/new", "/dev/shm/new", "/dev/new"] {
        cp(&world, ["new", &format!("web:{path}")]).code(1).stderr(contains("is in memory"));
    }
    // / and what it looks like is the container's, also when its layer is mounted once more.
    fs::set_permissions(upper(&world), Permissions::from_mode(0o711)).unwrap();
    cp(&world, ["new", "web:/srv/new"]).success();
    assert_eq!(fs::metadata(upper(&world)).unwrap().mode() & 0o777, 0o711);
    // What was mounted may be gone: the rest can be copied all the same.
    fs::remove_dir_all(&bind).unwrap();
    assert_eq!(inside(&world, "/srv/f"), "u\n");
    world.remove_all();
    world.tiny_docker(["volume", "rm", "data"]).assert().success();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_where_the_container_could_not_write_nobody_can() {
    let world = World::new();
    fs::write(world.dir().join("new"), "new\n").unwrap();
    ended(&world, &["--read-only", "-v", "data:/data"], "echo v > /data/f");
    cp(&world, ["new", "web:/srv/new"]).code(1).stderr(contains("Read-only file system"));
    cp(&world, ["new", "web:/data/new"]).success();
    world.remove_all();
    world.tiny_docker(["volume", "rm", "data"]).assert().success();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_a_running_container_has_all_its_mounts() {
    let world = World::new();
    running(&world, &["--tmpfs", "/memory"], "echo m > /memory/f; echo s > /dev/shm/f; mkdir /srv/d");
    assert_eq!(inside(&world, "/memory/f"), "m\n");
    assert_eq!(inside(&world, "/dev/shm/f"), "s\n");
    fs::write(world.dir().join("new"), "new\n").unwrap();
    cp(&world, ["new", "web:/memory"]).success();
    assert_eq!(inside(&world, "/memory/new"), "new\n");
    // All of it, without what the kernel makes up and what the runtime has put there.
    cp(&world, ["web:/", "all"]).success();
    let all = world.dir().join("all");
    assert_eq!(fs::read_to_string(all.join("memory/new")).unwrap(), "new\n");
    assert!(all.join("bin/busybox").exists() && all.join("srv/d").is_dir());
    for dir in ["proc", "sys", "dev"] {
        assert_eq!(fs::read_dir(all.join(dir)).unwrap().count(), 0, "{dir} was copied");
    }
    // What is asked for is copied: a device, and /dev itself.
    cp(&world, ["web:/dev/null", "null"]).success();
    assert!(fs::metadata(world.dir().join("null")).unwrap().file_type().is_char_device());
    cp(&world, ["web:/dev/shm", "shm"]).success();
    assert!(world.dir().join("shm/f").exists());
    // With --rootfs too.
    world.remove_all();
    let base = world.copy_of_rootfs("base");
    let words = ["run", "--net", "none", "--name", "web", "--rootfs", base.to_str().unwrap()];
    world.tiny_docker(words.into_iter().chain(["sh", "-c", "echo r > /srv/f"])).assert().success();
    assert_eq!(inside(&world, "/srv/f"), "r\n");
    cp(&world, ["new", "web:/srv"]).success();
    assert_eq!(fs::read_to_string(base.join("srv/new")).unwrap(), "new\n");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_a_container_may_be_killed_while_it_is_copied() {
    let world = World::new();
    running(&world, &[], "head -c 3000000 /dev/urandom > /srv/big; md5sum < /srv/big > /srv/sum");
    let sum = inside(&world, "/srv/sum");
    let mut copying = std::process::Command::new(common::binary())
        .args(["cp", "web:/srv/big", "-"])
        .current_dir(world.dir())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut archive = vec![0; 512];
    copying.stdout.as_mut().unwrap().read_exact(&mut archive).unwrap();
    // It is in the middle: nobody has read more. And nothing in the container sees it.
    let seen = || {
        let words = ["ls", "/proc"].map(OsStr::new);
        let pid = pid(&world, "web").to_string();
        let mut command = assert_cmd::Command::new("nsenter");
        command.args(["--target", &pid, "--mount", "--pid"]).args(words).output().unwrap().stdout
    };
    let listing = String::from_utf8(seen()).unwrap();
    let processes = listing.split_whitespace().filter(|name| name.parse::<u32>().is_ok()).count();
    assert_eq!(processes, 2, "its PID 1, and this ls: {listing}");
    world.tiny_docker(["kill", "web"]).assert().success();
    world.tiny_docker(["wait", "web"]).assert().success();
    copying.stdout.take().unwrap().read_to_end(&mut archive).unwrap();
    assert_eq!(copying.wait().unwrap().code(), Some(0));
    let mut check = assert_cmd::Command::new("bash");
    check.args(["-c", "tar -xO | md5sum"]).write_stdin(archive).assert().success().stdout(sum);
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
// https://github.com/moby/moby/issues/42884
fn task5_a_file_may_grow_but_not_shrink_while_it_is_copied() {
    let world = World::new();
    let base = world.copy_of_rootfs("base");
    let words = ["run", "--net", "none", "--name", "web", "--rootfs", base.to_str().unwrap()];
    world.tiny_docker(words.into_iter().chain(["true"])).assert().success();
    let file = base.join("srv/log");
    for (grows, code) in [(true, 0), (false, 1)] {
        fs::write(&file, vec![b'x'; 1 << 20]).unwrap();
        let mut copying = std::process::Command::new(common::binary())
            .args(["cp", "web:/srv/log", "-"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut archive = vec![0; 512];
        if copying.stdout.as_mut().unwrap().read_exact(&mut archive).is_err() {
            panic!("{}", said(&copying.wait_with_output().unwrap()));
        }
        let opened = OpenOptions::new().append(true).open(&file).unwrap();
        opened.set_len(if grows { 2 << 20 } else { 1 << 19 }).unwrap();
        copying.stdout.take().unwrap().read_to_end(&mut archive).unwrap();
        let output = copying.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        if grows {
            assert_eq!(untar(&archive, &["-xO"]).len(), 1 << 20);
        } else {
            assert!(said(&output).contains("it got shorter while it was copied"), "{}", said(&output));
            // Nobody takes what came for an archive.
            assert!(!archive.ends_with(&[0; 1024]), "half an archive has an end");
        }
    }
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_a_full_disk_and_a_reader_that_goes_away_are_errors() {
    let world = World::new();
    running(
        &world,
        &["--tmpfs", "/small:size=1m"],
        "head -c 3000000 /dev/zero | tr '\\0' x > /srv/big; echo old > /small/big",
    );
    let disk = world.dir().join("disk");
    fs::create_dir(&disk).unwrap();
    mount(Some("tmpfs"), &disk, Some("tmpfs"), MsFlags::empty(), Some("size=1m")).unwrap();
    fs::write(disk.join("big"), "old\n").unwrap();
    let full = || contains("copy \"big\"").and(contains("No space left on device (os error 28)"));
    cp(&world, ["web:/srv/big", "disk"]).code(1).stdout("").stderr(full());
    // Neither half of the new file is there, nor has the old one suffered.
    let left: Vec<_> = fs::read_dir(&disk).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["big"]);
    assert_eq!(fs::read_to_string(disk.join("big")).unwrap(), "old\n");
    umount(&disk).unwrap();
    fs::write(world.dir().join("big"), vec![b'x'; 3_000_000]).unwrap();
    cp(&world, ["big", "web:/small"]).code(1).stderr(contains("container web").and(full()));
    assert_eq!(inside(&world, "/small/big"), "old\n");
    // A pipe whose reader has gone.
    let script = r#"set -o pipefail; "$0" cp web:/srv/big - | head -c 600 > /dev/null"#;
    world.called_by(script).assert().code(1).stderr(contains("whoever reads the archive has stopped"));
    // A terminal is no place for an archive.
    let mut terminal = common::AtTerminal::start(["cp", "web:/srv/big", "-"]);
    terminal.shows("stdout is a terminal");
    terminal.ended();
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_long_a_tree_deeper_than_a_path_can_be_long() {
    let world = World::new();
    ended(&world, &[], "mkdir /srv/deep");
    dig(&upper(&world).join("srv/deep"), 700);
    let limits = "ulimit -Sn 40; ulimit -Ss 256;";
    world.called_by(&format!(r#"{limits} "$0" cp web:/srv/deep out"#)).assert().success().stderr("");
    world.called_by(&format!(r#"{limits} "$0" cp out web:/back"#)).assert().success().stderr("");
    let count = |dir: &Path| {
        let output = std::process::Command::new("find").arg(dir).output().unwrap();
        output.stdout.iter().filter(|byte| **byte == b'\n').count()
    };
    assert_eq!(count(&world.dir().join("out")), 1 + 700 + 1);
    assert_eq!(count(&upper(&world).join("back")), 1 + 700 + 1);
    // (The harness's own way to remove things is not made for this.)
    for dir in [world.dir().join("out"), upper(&world).join("back")] {
        assert!(std::process::Command::new("rm").arg("-rf").arg(dir).status().unwrap().success());
    }
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_long_killed_at_every_moment_a_copy_is_whole_or_not_there() {
    let world = World::new();
    ended(&world, &[], "mkdir /srv/d; head -c 300000 /dev/zero | tr '\\0' x > /srv/d/f");
    fs::write(world.dir().join("new"), vec![b'y'; 300_000]).unwrap();
    let whole = |path: &Path, byte: u8| match fs::read(path) {
        Ok(text) => assert!(text == vec![byte; 300_000], "{path:?} is half a copy: {} bytes", text.len()),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
    };
    for words in [["cp", "web:/srv/d/f", "got"], ["cp", "new", "web:/srv/in"]] {
        for who in ["parent", "child"] {
            for moment in 1.. {
                assert!(moment < 200, "{who} never gets to its end");
                let mut command = world.tiny_docker(words);
                let output = command.env("TINY_DOCKER_DIE_AT", format!("{who}:{moment}")).output().unwrap();
                until("nobody is left", || {
                    common::descendants().iter().all(|pid| !alive(Pid::from_raw(*pid)))
                });
                whole(&world.dir().join("got"), b'x');
                whole(&upper(&world).join("srv/in"), b'y');
                let strangers = fs::read_dir(world.dir()).unwrap().map(|entry| entry.unwrap().file_name());
                assert!(
                    !strangers.into_iter().any(|name| name.to_string_lossy().starts_with(".tiny-docker"))
                );
                if output.status.success() {
                    break;
                }
                if who == "child" {
                    // Whoever is there says so, and has not taken it for done.
                    assert_eq!(output.status.code(), Some(1), "{who}:{moment}: {}", said(&output));
                }
                let _ = fs::remove_file(world.dir().join("got"));
                // The container is nobody's, and as it was.
                if moment % 8 == 1 {
                    assert_eq!(inside(&world, "/srv/d/f").len(), 300_000, "{who}:{moment}");
                }
            }
        }
    }
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_two_copies_of_an_ended_container_take_turns() {
    let world = World::new();
    ended(&world, &[], "head -c 3000000 /dev/zero > /srv/big");
    let mut first = std::process::Command::new(common::binary())
        .args(["cp", "web:/srv/big", "-"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut archive = vec![0; 512];
    first.stdout.as_mut().unwrap().read_exact(&mut archive).unwrap();
    // Two overlays over one layer at once would be undefined; and rm would take it away.
    let mut second = std::process::Command::new(common::binary());
    let mut second = second.args(["cp", "web:/srv/big", "got"]).current_dir(world.dir()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(second.try_wait().unwrap().is_none(), "it did not wait");
    assert!(!world.dir().join("got").exists());
    first.stdout.take().unwrap().read_to_end(&mut archive).unwrap();
    assert_eq!(first.wait().unwrap().code(), Some(0));
    assert_eq!(second.wait().unwrap().code(), Some(0));
    assert_eq!(fs::metadata(world.dir().join("got")).unwrap().len(), 3_000_000);
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_rm_waits_for_a_copy_and_says_for_which() {
    let world = World::new();
    ended(&world, &[], "head -c 3000000 /dev/zero | tr '\\0' x > /srv/big");
    let start = |words: &[&str]| {
        let mut command = std::process::Command::new(common::binary());
        command.args(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut copying = start(&["cp", "web:/srv/big", "-"]);
    let mut archive = vec![0; 512];
    if copying.stdout.as_mut().unwrap().read_exact(&mut archive).is_err() {
        panic!("no archive came: {}", common::said(&copying.wait_with_output().unwrap()));
    }
    let mut removing = start(&["rm", "web"]);
    let mut told = String::new();
    BufReader::new(removing.stderr.take().unwrap()).read_line(&mut told).unwrap();
    let expected = format!("waiting for process {} (", copying.id());
    assert!(told.contains(&expected) && told.contains("cp web:/srv/big -)"), "{told:?}: expected {expected}");
    assert!(removing.try_wait().unwrap().is_none(), "it did not wait");
    copying.stdout.take().unwrap().read_to_end(&mut archive).unwrap();
    assert_eq!(copying.wait().unwrap().code(), Some(0), "the copy was broken off");
    assert!(archive.len() > 3_000_000, "only {} bytes came", archive.len());
    assert_eq!(removing.wait().unwrap().code(), Some(0), "rm failed when the copy had ended");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_a_person_at_a_terminal_sees_how_far_a_copy_is() {
    let world = World::new();
    ended(
        &world,
        &[],
        "head -c 3000000 /dev/zero | tr '\\0' x > /srv/big; head -c 1000 /srv/big > /srv/small",
    );
    let out = world.dir().join("out").display().to_string();
    for (words, going, copied) in [
        (["web:/srv/big", &out], "Copying from container - ", "Successfully copied 3MB to "),
        (["web:/srv/small", &out], "Copying from container - ", "Successfully copied 1kB to "),
        ([&out, "web:/srv/in"], "Copying to container - ", "Successfully copied "),
    ] {
        let mut terminal = common::AtTerminal::start(["cp", words[0], words[1]]);
        terminal.shows(going);
        terminal.shows(copied);
        assert_eq!(terminal.ended(), 0, "{words:?}");
        let screen = terminal.screen();
        // What was shown of the way there is not on the screen any more.
        let last = screen.rsplit("\x1b[K").next().unwrap();
        assert!(last.starts_with("Successfully copied"), "{words:?}: {screen:?}");
    }
    let mut terminal = common::AtTerminal::start(["cp", "-q", "web:/srv/big", &out]);
    assert_eq!((terminal.ended(), terminal.screen()), (0, String::new()), "-q shows nothing");
    // Nobody watches a pipe.
    cp(&world, ["web:/srv/big", &out]).success().stdout("").stderr("");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task5_a_container_that_is_about_to_start_is_waited_for() {
    let world = World::new();
    // Held up before its command, its process is still a copy of the runtime, and may have
    // the host's / as its own.
    let mut held = world.held_up("web", &["--net", "none"]);
    fs::write(world.dir().join("new"), "new\n").unwrap();
    let mut copying = std::process::Command::new(common::binary());
    let mut copying =
        copying.args(["cp", "web:/etc/passwd", "got"]).current_dir(world.dir()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(copying.try_wait().unwrap().is_none(), "it did not wait");
    assert_ne!(state(held.runtime()), 'Z');
    held.signal_runtime(nix::sys::signal::Signal::SIGCONT);
    held.ended();
    assert_eq!(copying.wait().unwrap().code(), Some(0));
    assert_eq!(fs::read(world.dir().join("got")).unwrap(), fs::read(busybox().join("etc/passwd")).unwrap());
    world.remove_all();
}
