//! Day 11: layers, volumes, and files that come and go.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use assert_cmd::assert::Assert;
use common::{Setting, World, busybox, in_the_vm, said, until};
use nix::mount::{MsFlags, mount, umount};
use nix::sys::stat::{Mode, SFlag, mkdirat, mknod};
use predicates::prelude::*;
use predicates::str::contains;

/// `run` on layers, the lowest last, without a network: `script` in a shell.
fn run_on(world: &World, layers: &[&Path], flags: &[&str], script: &str) -> Assert {
    world.tiny_docker(words(layers, flags, script)).assert()
}

fn words<'a>(layers: &[&'a Path], flags: &[&'a str], script: &'a str) -> Vec<&'a OsStr> {
    let mut words: Vec<&OsStr> = vec![OsStr::new("run"), OsStr::new("--net"), OsStr::new("none")];
    for layer in layers {
        words.extend([OsStr::new("--layer"), layer.as_os_str()]);
    }
    words.extend(flags.iter().map(|flag| OsStr::new(*flag)));
    words.extend(["sh", "-c", script].map(OsStr::new));
    words
}

/// A directory of this test's own, with these files in it.
fn layer(world: &World, name: impl AsRef<Path>, files: &[(&str, &str)]) -> PathBuf {
    let dir = world.dir().join(name);
    fs::create_dir_all(&dir).unwrap();
    for (path, text) in files {
        fs::create_dir_all(dir.join(path).parent().unwrap()).unwrap();
        fs::write(dir.join(path), text).unwrap();
    }
    dir
}

/// What a container has written: its own layer.
fn upper(world: &World, container: &str) -> PathBuf {
    world.containers().join(world.inspect(container)["id"].as_str().unwrap()).join("layer/upper")
}

/// All of a tree but what is in its files: change of any of it changes a ctime.
fn facts(dir: &Path) -> BTreeMap<PathBuf, Vec<i64>> {
    let mut all = BTreeMap::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        let found = fs::symlink_metadata(&path).unwrap();
        if found.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let numbers =
            [found.ino(), found.mode().into(), found.uid().into(), found.gid().into(), found.size()];
        let times = [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()];
        all.insert(path, numbers.map(|number| number as i64).into_iter().chain(times).collect());
    }
    all
}

/// What `tiny-docker ps -a` does not show any more has left nothing in the state directory.
fn assert_nothing_is_left(world: &World) {
    assert_eq!(world.ps().lines().count(), 1, "{}", world.ps());
    for place in ["containers", "aside"] {
        let left: Vec<_> =
            fs::read_dir(world.dir().join("state").join(place)).into_iter().flatten().collect();
        assert!(left.is_empty(), "left in {place}: {left:?}");
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_layers_are_seen_as_one_root_and_the_upper_one_counts() {
    let world = World::new();
    let low = layer(&world, "low", &[("srv/both", "low\n"), ("srv/low", "low\n"), ("srv/gone", "low\n")]);
    let high = layer(&world, "high", &[("srv/both", "high\n"), ("srv/high", "high\n")]);
    // In a layer, a device 0:0 says that there is nothing, whatever is below.
    mknod(&high.join("srv/gone"), SFlag::S_IFCHR, Mode::empty(), 0).unwrap();
    let base = busybox();
    let look = "cd /srv; echo *; cat both";
    run_on(&world, &[&high, &low, &base], &[], look).success().stdout("both high low\nhigh\n");
    run_on(&world, &[&low, &high, &base], &[], look).success().stdout("both gone high low\nlow\n");
    // One layer is enough, and its programs are found.
    run_on(&world, &[&base], &[], "grep app /etc/passwd").success().stdout(contains("/home/app"));
    // Where a directory is a link in another layer, it is a link.
    let link = layer(&world, "link", &[]);
    symlink("/etc", link.join("srv")).unwrap();
    run_on(&world, &[&link, &low, &base], &[], "ls /srv/passwd").success();
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_any_name_will_do_for_a_layer() {
    let world = World::new();
    let base = busybox();
    for name in ["a,b", "a:b", "a\\,b", "a\\:b", "-o ro", "new\nline", "\"'", "upperdir=x", "\u{e9}"] {
        let layer = layer(&world, name, &[("srv/it", "here\n")]);
        run_on(&world, &[&layer, &base], &["--name", "odd"], "cat /srv/it").success().stdout("here\n");
        assert_eq!(world.inspect("odd")["layers"][0], *layer.to_str().unwrap(), "{name:?}");
        world.tiny_docker(["rm", "odd"]).assert().success();
    }
    // A path is of the directory that the user is in now, and the record is read in any other.
    run_on(&world, &[Path::new("a,b"), &base], &["--name", "odd"], "cat /srv/it").success();
    assert_eq!(world.inspect("odd")["layers"][0], *world.dir().join("a,b").to_str().unwrap());
    // It need be no text.
    let name = OsStr::from_bytes(b"\xff\xfe,:\\");
    layer(&world, name, &[("srv/it", "here\n")]);
    run_on(&world, &[Path::new(name), &base], &[], "cat /srv/it").success().stdout("here\n");
    // The same goes for the state directory, where the container's own layer is.
    let root = world.dir().join("state,upperdir=:\\");
    let flags = ["--root", root.to_str().unwrap(), "--rm"];
    run_on(&world, &[&base], &flags, "echo it > /srv/it && cat /srv/it").success().stdout("it\n");
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_500_layers_whose_paths_are_long() {
    let world = World::new();
    let (long, base) = (vec!["x".repeat(250); 4].join("/"), busybox());
    let mut layers: Vec<PathBuf> = (0..499)
        .map(|number| {
            let file = format!("srv/{number}");
            layer(&world, format!("{long}/{number}"), &[(&file, ""), ("srv/top", &format!("{number}\n"))])
        })
        .collect();
    layers.push(base);
    let layers: Vec<&Path> = layers.iter().map(PathBuf::as_path).collect();
    let look = "ls /srv | wc -l; cat /srv/top; ulimit -n";
    // As many descriptors as whoever starts it may have: the command has no more.
    let mut command = world.called_by(r#"ulimit -Sn 100; exec "$0" "$@""#);
    command.args(words(&layers, &[], look)).assert().success().stdout("500\n0\n100\n");
    let one_more = layer(&world, "one-more", &[]);
    let layers: Vec<&Path> = layers.into_iter().chain([one_more.as_path()]).collect();
    let refused = run_on(&world, &layers, &[], "true").code(125);
    refused.stderr(contains("501 layers").and(contains("at most 500")));
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_what_cannot_be_a_layer_is_refused_with_the_way_out() {
    let world = World::new();
    let base = busybox();
    let a = layer(&world, "a", &[("file", ""), ("inside/x", "")]);
    symlink("a", world.dir().join("again")).unwrap();
    let refused = |layers: &[&Path], words: &[&str]| {
        let seen = run_on(&world, layers, &[], "true").code(125).stdout("");
        let said = String::from_utf8_lossy(&seen.get_output().stderr).into_owned();
        assert!(words.iter().all(|word| said.contains(word)), "expected {words:?} in: {said}");
    };
    refused(
        &[Path::new("missing"), &base],
        &["missing", "No such file or directory", "expected a directory"],
    );
    refused(&[&a.join("file"), &base], &["is not a directory", "expected a directory"]);
    refused(&[Path::new("/"), &base], &["is the host's own /"]);
    refused(&[&a, &base, &a], &["is given twice"]);
    refused(&[&a, &base, Path::new("again")], &["is given twice"]);
    refused(&[&a, &base, &a.join("inside")], &["a/inside\" lies in ", "none lies in another"]);
    // The state directory lies in the layer.
    refused(&[world.dir(), &base], &["the state directory lies in the layer", "expected --root DIR"]);
    // There is one root.
    let both = ["run", "--rootfs", base.to_str().unwrap(), "--layer", "a", "true"];
    world.tiny_docker(both).assert().code(2).stderr(contains("cannot be used with"));
    world.tiny_docker(["run", "--read-only", "true"]).assert().code(2).stderr(contains("--layer <DIR>"));
    assert_nothing_is_left(&world);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_what_run_can_do_with_a_rootfs_it_can_do_with_layers() {
    let world = World::new();
    let base = busybox();
    let run = |flags: &[&str], script: &str| run_on(&world, &[&base], flags, script);
    run(&["--read-only"], "touch /srv/x || touch /etc/x || touch /x").code(1).stderr(contains("Read-only"));
    run(&["--read-only"], "touch /dev/shm/x && grep localhost /etc/hosts").success();
    run(&["-u", "app"], "id -un; echo $HOME; touch /tmp/mine; touch /srv/x")
        .code(1)
        .stdout("app\n/home/app\n");
    run(&["-w", "/made/for/it"], "pwd").success().stdout("/made/for/it\n");
    run(&["-e", "A=b"], "echo $A $HOME; env | wc -l").success().stdout(contains("b /root\n"));
    run(&["--hostname", "box"], "cat /etc/hostname; grep box /etc/hosts").success();
    run(&["--init"], "exit 7").code(7);
    assert!(!base.join("made").exists());
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_a_layer_where_the_kernel_cannot_write_one_is_refused_with_its_errno() {
    let world = World::new();
    let dirs = ["low", "up", "work", "over"].map(|name| layer(&world, name, &[]));
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        dirs[0].display(),
        dirs[1].display(),
        dirs[2].display()
    );
    let over = &dirs[3];
    mount(Some("overlay"), over, Some("overlay"), MsFlags::empty(), Some(options.as_str())).unwrap();
    let state = over.join("state");
    let flags = ["--root", state.to_str().unwrap()];
    let seen = world.tiny_docker(words(&[&busybox()], &flags, "true")).assert();
    let left = fs::read_dir(state.join("containers")).into_iter().flatten().count();
    // The same directory is good enough for a layer that is only read.
    let read = run_on(&world, &[over, &busybox()], &[], "true");
    umount(over).unwrap();
    seen.code(125).stderr(
        contains("lies on an overlay itself").and(contains("EINVAL")).and(contains("expected --root DIR")),
    );
    assert_eq!(left, 0);
    read.success();
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_what_a_container_writes_is_its_own_and_goes_with_it() {
    let world = World::new();
    let base = world.copy_of_rootfs("base");
    let high = layer(&world, "high", &[("srv/high", "high\n"), ("srv/dir/x", "x\n")]);
    let before = (facts(&base), facts(&high));
    let change = "echo mine > /srv/mine; echo more >> /srv/high; rm /etc/passwd; rm -r /srv/dir; chmod 700 /home; \
                  chown app /etc/group; mv /home/app /home/me; ln /bin/busybox /bin/twice; touch -d @1 /bin; \
                  mkfifo /tmp/pipe; cat /srv/high";
    let layers = [high.as_path(), &base];
    run_on(&world, &layers, &["--name", "one"], change).success().stdout("high\nmore\n");
    // Another container of the same layers sees nothing of it, and the layers are what they were.
    run_on(&world, &layers, &["--name", "other"], "cat /srv/high; ls /srv; test -e /etc/passwd")
        .success()
        .stdout("high\ndir\nhigh\n");
    assert_eq!(before, (facts(&base), facts(&high)), "a layer that was given was changed");
    let upper = upper(&world, "one");
    assert_eq!(fs::read_to_string(upper.join("srv/mine")).unwrap(), "mine\n");
    world.tiny_docker(["rm", "one", "other"]).assert().success();
    assert!(!upper.exists());
    assert_nothing_is_left(&world);
}

/// What the files below `dir` take on the disk, in KiB.
fn disk_use(dir: &Path) -> u64 {
    let mut blocks = 0;
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        let found = fs::symlink_metadata(&path).unwrap();
        blocks += found.blocks();
        if found.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    blocks / 2
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_containers_share_the_disk_of_what_they_do_not_change() {
    let world = World::new();
    let base = world.copy_of_rootfs("base");
    fs::write(base.join("srv/large"), vec![b'x'; 4 << 20]).unwrap();
    let before = facts(&base);
    for number in 0..8 {
        let script = format!("echo {number} > /srv/mine; cat /srv/large | wc -c; exec sleep 1000");
        run_on(&world, &[&base], &["-d", "--name", &format!("c{number}")], &script).success();
    }
    let mine = |number| fs::read_to_string(upper(&world, &format!("c{number}")).join("srv/mine"));
    until("each has written", || (0..8).all(|number| mine(number).is_ok_and(|text| !text.is_empty())));
    for number in 0..8 {
        assert_eq!(mine(number).unwrap(), format!("{number}\n"));
    }
    let (all, one) = (disk_use(&world.containers()), disk_use(&base));
    assert!(all < one, "8 containers take {all} KiB, and what they share {one} KiB");
    assert_eq!(before, facts(&base));
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_the_root_looks_as_the_topmost_layer_does() {
    let world = World::new();
    let (high, base) = (layer(&world, "high", &[]), busybox());
    std::os::unix::fs::chown(&high, Some(1234), Some(99)).unwrap();
    for mode in [0o1777, 0o2751, 0o755] {
        fs::set_permissions(&high, fs::Permissions::from_mode(mode)).unwrap();
        let expected = format!("{mode:o} 1234 99\n");
        let script = "umask 077; exec $0 run --net none --layer high --layer \"$1\" stat -c '%a %u %g' /";
        let mut command = world.called_by(script);
        command.arg(&base).assert().success().stdout(expected);
    }
    // Whoever is not root can look around.
    run_on(&world, &[&base], &["-u", "app"], "ls /").success().stdout(contains("etc"));
    world.remove_all();
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_what_is_in_the_layer_is_whole_whatever_the_kernels_defaults() {
    let world = World::new();
    let base = busybox();
    // Elsewhere than in the VM these are the defaults of other people's mounts too.
    let alone = in_the_vm();
    let _defaults = alone.then(|| {
        ["redirect_dir", "metacopy"]
            .map(|default| Setting::set(&format!("/sys/module/overlay/parameters/{default}"), "Y"))
    });
    let change = "chmod 600 /etc/passwd; mv /home /house";
    run_on(&world, &[&base], &["--name", "it"], change).success();
    let upper = upper(&world, "it");
    let copied = fs::read_to_string(upper.join("etc/passwd")).unwrap();
    assert_eq!(copied, fs::read_to_string(base.join("etc/passwd")).unwrap(), "in the layer");
    assert!(upper.join("house/app").is_dir(), "a directory that was renamed is elsewhere");
    world.remove_all();
}

/// `levels` directories in `dir`, one in the other: deeper than a path can say.
fn dig(dir: &Path, levels: u32) {
    let mut here = fs::File::open(dir).unwrap();
    for _ in 0..levels {
        mkdirat(&here, "d", Mode::S_IRWXU).unwrap();
        let flags = nix::fcntl::OFlag::O_DIRECTORY;
        here = nix::fcntl::openat(&here, "d", flags, Mode::empty()).unwrap().into();
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_rm_gives_the_space_back_whatever_is_in_it() {
    let world = World::new();
    let write = "mkdir -p /srv/none/below; echo x > /srv/none/below/x; chmod 0 /srv/none/below /srv/none /srv; \
                 mkfifo /tmp/pipe; mknod /tmp/device c 1 3; rm -r /etc; ln -s /nowhere /tmp/link; chmod 0 /";
    run_on(&world, &[&busybox()], &["--name", "it"], write).success();
    let upper = upper(&world, "it");
    dig(&upper, 5000);
    // What chattr(1) forbids to change. Not every file system can.
    let locked = upper.join("locked");
    fs::create_dir(&locked).unwrap();
    fs::write(locked.join("file"), "").unwrap();
    for path in ["locked/file", "locked"] {
        let _ = std::process::Command::new("chattr").arg("+i").arg(upper.join(path)).output();
    }
    world.called_by("ulimit -n 40; exec $0 rm it").assert().success().stdout("it\n");
    assert!(!upper.exists());
    assert_nothing_is_left(&world);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_on_a_disk_nobody_waits_for_the_unmount_and_nothing_is_left_of_it() {
    let world = World::new();
    // A test's own directory is in memory, mostly.
    let disk = tempfile::Builder::new().prefix("tiny-docker-test-").tempdir_in("/var/tmp").unwrap();
    let in_memory =
        nix::sys::statfs::statfs(disk.path()).unwrap().filesystem_type() == nix::sys::statfs::TMPFS_MAGIC;
    let on_disk = |words: &[&str]| {
        let output = world.tiny_docker(words).env("TINY_DOCKER_ROOT", disk.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{words:?}: {}", said(&output));
        said(&output)
    };
    let base = busybox();
    let run = ["--explain", "run", "--net", "none", "--name", "it", "--layer", base.to_str().unwrap()];
    let told = on_disk(&[&run[..], &["sh", "-c", "echo x > /srv/new"]].concat());
    assert!(
        in_memory || told.contains("/ns/mnt"),
        "nobody keeps the mounts, so the command's end waits for the disk: {told}"
    );
    // What was written is there, whether the overlay still is or not.
    let containers = disk.path().join("containers");
    let dir = fs::read_dir(&containers).unwrap().next().unwrap().unwrap().path();
    assert_eq!(fs::read_to_string(dir.join("layer/upper/srv/new")).unwrap(), "x\n");
    on_disk(&["rm", "it"]);
    assert_eq!(fs::read_dir(&containers).unwrap().count(), 0, "rm left something");
    // The process that unmounts ends by itself, and the one that flushes.
    until("nobody is left", common::nobody_is_left);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_an_rm_that_was_killed_is_finished_by_the_next_command() {
    let world = World::new();
    run_on(&world, &[&busybox()], &["--name", "it"], "true").success();
    let upper = upper(&world, "it");
    for number in 0..20 {
        let dir = upper.join(number.to_string());
        fs::create_dir(&dir).unwrap();
        (0..200).for_each(|number| drop(fs::File::create(dir.join(number.to_string())).unwrap()));
        dig(&dir, 100);
    }
    let aside = world.dir().join("state/aside");
    let running = world.start(["rm", "it"]);
    until("it is being removed", || fs::read_dir(&aside).is_ok_and(|dir| dir.count() > 0));
    running.signal_runtime(nix::sys::signal::Signal::SIGKILL);
    drop(running);
    // It is no container any more, in whatever state it is; and ps takes the rest away.
    assert_nothing_is_left(&world);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_rm_f_of_a_running_container_takes_its_layer_too() {
    let world = World::new();
    let rootfs = busybox();
    let flags = ["-d", "--name", "it"];
    run_on(&world, &[&rootfs], &flags, "while :; do echo x >> /srv/x; mkdir /srv/d; rm -r /srv/d; done")
        .success();
    let upper = upper(&world, "it");
    until("it writes", || upper.join("srv/x").exists());
    world.tiny_docker(["rm", "-f", "it"]).assert().success();
    assert!(!upper.exists());
    assert_nothing_is_left(&world);
    // With --rm it goes by itself.
    run_on(&world, &[&rootfs], &["--rm"], "echo x > /srv/x; rm -r /home").success();
    assert_nothing_is_left(&world);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task2_long_killed_at_every_moment_the_layer_goes_too() {
    let world = World::new();
    let (high, base) = (layer(&world, "high", &[("srv/x", "x")]), busybox());
    let before = facts(&high);
    let script = "echo y >> /srv/x; rm /etc/group; exit 7";
    let words = words(&[&high, &base], &[], script);
    let words: Vec<&str> = words.iter().map(|word| word.to_str().unwrap()).collect();
    let moments = world.die_at_every_moment(&words);
    assert!(moments > 60, "{moments}");
    assert_eq!(before, facts(&high));
    assert_nothing_is_left(&world);
}
