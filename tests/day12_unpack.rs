//! Day 12: layers become directories: what an archive says, and nothing else; and what an archive
//! must not do.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::layout::{Layout, Packed, sha256, tar_of};
use common::rawtar::{Head, RawTar};
use common::registry::run;
use common::tree::{same_trees, tree};
use common::{World, said, until};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

/// An archive with the image `lab/x:v1` of these layers.
fn archive(world: &World, layers: &[(&[u8], Packed)]) -> PathBuf {
    let mut layout = Layout::new(world, "layout");
    let layers: Vec<_> = layers.iter().map(|(tar, packed)| layout.layer(tar, *packed)).collect();
    let manifest = layout.image(&layers, json!({"Cmd": ["true"]}));
    layout.tag("docker.io/lab/x:v1", &manifest);
    let path = world.dir().join("image.tar");
    fs::write(&path, tar_of(&layout.dir)).unwrap();
    fs::remove_dir_all(&layout.dir).unwrap();
    path
}

fn load(world: &World, layers: &[(&[u8], Packed)]) -> Output {
    let path = archive(world, layers);
    world.tiny_docker([Path::new("load"), Path::new("-i"), &path]).output().unwrap()
}

fn images(world: &World) -> PathBuf {
    world.dir().join("state/images")
}

/// Where a layer is once it is unpacked.
fn layer(world: &World, tar: &[u8]) -> PathBuf {
    images(world).join("layers").join(&sha256(tar)[7..])
}

/// Unpacks one layer, which must succeed; its directory.
#[track_caller]
fn unpacked(world: &World, tar: &[u8], packed: Packed) -> PathBuf {
    let output = load(world, &[(tar, packed)]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    layer(world, tar)
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = [0; 256];
    let length = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    Some(value[..length].to_vec())
}

fn is_whiteout(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_char_device() && found.rdev() == 0)
}

/// Nothing is half there: what is in the store is named, whole, and nobody's leftover.
#[track_caller]
fn nothing_half_made(world: &World, what: &str) {
    for dir in ["aside", "partial"] {
        let left: Vec<_> =
            fs::read_dir(images(world).join(dir)).unwrap().flatten().map(|entry| entry.path()).collect();
        assert!(left.is_empty(), "{what}: {left:?}");
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_a_layer_is_what_its_archive_says() {
    let world = World::new();
    let own = |mode, owner, time| Head { mode, owner, time, ..Head::default() };
    let tar = RawTar::default()
        .with("./", Head { kind: b'5', ..own(0o1775, (7, 8), 1_234_567_890) }, b"")
        .with("dir/", Head { kind: b'5', ..own(0o2750, (1, 2), 1_000_000_001) }, b"")
        .with("dir/file", own(0o644, (1000, 2_500_000), 1_000_000_002), b"hello\n")
        .with("dir/su", own(0o6755, (33, 44), 1_000_000_003), b"x")
        .with("dir/link", Head { kind: b'2', link: b"../nowhere", ..own(0o777, (5, 6), 1_000_000_004) }, b"")
        .with("dir/pipe", Head { kind: b'6', ..own(0o4622, (3, 3), 1_000_000_005) }, b"")
        .with("dir/null", Head { kind: b'3', device: (1, 3), ..own(0o666, (0, 9), 1_000_000_006) }, b"")
        .with(
            "dir/disk",
            Head { kind: b'4', device: (250, 70_000), ..own(0o660, (0, 6), 1_000_000_007) },
            b"",
        )
        .hard_link("dir/also", "dir/file")
        .bytes();
    for packed in [Packed::Plain, Packed::Gzip, Packed::Zstd] {
        let dir = unpacked(&world, &tar, packed);
        let facts = |name: &str| {
            let found = fs::symlink_metadata(dir.join(name)).unwrap();
            (found.mode() & 0o7777, found.uid(), found.gid(), found.mtime())
        };
        assert_eq!(facts("."), (0o1775, 7, 8, 1_234_567_890));
        assert_eq!(
            facts("dir"),
            (0o2750, 1, 2, 1_000_000_001),
            "what is made in a directory changes its time"
        );
        assert_eq!(facts("dir/file"), (0o644, 1000, 2_500_000, 1_000_000_002));
        assert_eq!(facts("dir/su"), (0o6755, 33, 44, 1_000_000_003), "chown(2) takes set-user-ID away");
        assert_eq!(facts("dir/link"), (0o777, 5, 6, 1_000_000_004));
        assert_eq!(facts("dir/pipe"), (0o4622, 3, 3, 1_000_000_005));
        assert_eq!(facts("dir/null"), (0o666, 0, 9, 1_000_000_006));
        let stat = |name: &str| fs::symlink_metadata(dir.join(name)).unwrap();
        assert!(stat("dir/pipe").file_type().is_fifo() && stat("dir/disk").file_type().is_block_device());
        assert_eq!(stat("dir/disk").rdev(), rustix::fs::makedev(250, 70_000));
        assert_eq!(stat("dir/null").rdev(), rustix::fs::makedev(1, 3));
        assert_eq!(stat("dir/file").ino(), stat("dir/also").ino());
        assert_eq!(fs::read_link(dir.join("dir/link")).unwrap(), Path::new("../nowhere"));
        assert_eq!(fs::read(dir.join("dir/also")).unwrap(), b"hello\n");
        nothing_half_made(&world, "one layer");
        world.tiny_docker(["rmi", "lab/x:v1"]).assert().success();
        assert!(!dir.exists(), "rmi left {dir:?}");
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_long_what_gnu_tar_writes_comes_out_as_it_was() {
    let world = World::new();
    let from = world.dir().join("from");
    let long = format!("{}/{}", "d".repeat(150), "f".repeat(200));
    fs::create_dir_all(from.join(&long).parent().unwrap()).unwrap();
    fs::write(from.join(&long), "long").unwrap();
    symlink("t".repeat(300), from.join("far")).unwrap();
    let bytes = |name: &[u8]| from.join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(name));
    fs::write(bytes(b"no \xff\xfe utf-8\n"), "x").unwrap();
    // Holes at the beginning, in the middle and at the end.
    let holes = fs::File::create(from.join("holes")).unwrap();
    for at in [300_000u64, 900_000, 2_000_000, 5_000_000, 9_000_000, 12_000_000] {
        std::os::unix::fs::FileExt::write_all_at(&holes, &[b'x'; 5000], at).unwrap();
    }
    holes.set_len(20_000_000).unwrap();
    // A record whose value has a newline, and then something that looks like another record.
    let value = b"a\n30 path=somewhere/else/than/it\n";
    let _ = rustix::fs::setxattr(from.join("holes"), "user.lab", value, rustix::fs::XattrFlags::empty());
    // cap_dac_override and cap_fowner: the byte 10 among them.
    let capability = [1u8, 0, 0, 2, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    rustix::fs::setxattr(
        from.join(&long),
        "security.capability",
        &capability,
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    let expected = tree(&from);
    let xattrs = ["--format=posix", "--xattrs", "--xattrs-include=*"];
    for flags in [
        &["--format=gnu", "--sparse"][..],
        &["--format=posix", "--sparse", "--sparse-version=0.0"],
        &["--format=posix", "--sparse", "--sparse-version=0.1"],
        &["--format=posix", "--sparse", "--sparse-version=1.0"],
        &xattrs,
    ] {
        let mut tar = Command::new("tar");
        let tar = run(tar.args(flags).arg("-C").arg(&from).args(["-cf", "-", "."]));
        let dir = unpacked(&world, &tar, Packed::Gzip);
        let (mut ours, mut theirs) = (tree(&dir), expected.clone());
        if flags != xattrs {
            // GNU's own format has no place for them, nor for parts of a second.
            for tree in [&mut ours, &mut theirs] {
                tree.values_mut().for_each(|facts| *facts = without_xattrs_and_fractions(facts));
            }
        }
        same_trees(&ours, &theirs, &flags.join(" "));
        if flags != xattrs {
            let found = fs::metadata(dir.join("holes")).unwrap();
            assert!(found.blocks() * 512 < 1_000_000, "{flags:?}: its holes take {} blocks", found.blocks());
        }
        world.tiny_docker(["rmi", "lab/x:v1"]).assert().success();
    }
}

fn without_xattrs_and_fractions(facts: &str) -> String {
    let words = facts.split(' ').filter(|word| !word.contains('='));
    words
        .map(|word| if word.len() > 19 && word.contains('.') { &word[..word.len() - 10] } else { word })
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_a_later_entry_replaces_an_earlier_one() {
    let world = World::new();
    let tar = RawTar::default()
        .file("twice", b"first")
        .file("twice", b"second")
        .file("file-then-dir", b"x")
        .dir("file-then-dir/")
        .file("file-then-dir/in", b"in")
        .dir("dir-then-file/")
        .dir("dir-then-file/deep/")
        .file("dir-then-file/deep/in", b"gone")
        .file("dir-then-file", b"file")
        .file("target", b"target")
        .link("link-then-file", "target")
        .file("link-then-file", b"file")
        .hard_link("hard-then-file", "target")
        .file("hard-then-file", b"other")
        .hard_link("target", "target")
        .link("link-then-dir", "file-then-dir")
        .dir("link-then-dir/")
        .file("link-then-dir/own", b"own")
        .device("pipe-then-file", b'6', (0, 0))
        .file("pipe-then-file", b"file")
        .dir("stays/")
        .file("stays/in", b"in")
        .with("stays/", Head { kind: b'5', mode: 0o700, time: 77, ..Head::default() }, b"")
        .bytes();
    let dir = unpacked(&world, &tar, Packed::Gzip);
    let read =
        |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(read("twice"), "second");
    assert_eq!(read("file-then-dir/in"), "in");
    assert_eq!(read("dir-then-file"), "file");
    assert_eq!((read("link-then-file"), read("hard-then-file")), ("file".into(), "other".into()));
    assert_eq!(read("target"), "target", "a link was written through");
    assert_eq!(read("link-then-dir/own"), "own");
    assert!(!dir.join("file-then-dir/own").exists(), "a link was taken for a directory");
    assert_eq!(read("pipe-then-file"), "file");
    assert_eq!(read("stays/in"), "in", "a directory that comes twice keeps what is in it");
    let stays = fs::metadata(dir.join("stays")).unwrap();
    assert_eq!((stays.mode() & 0o7777, stays.mtime()), (0o700, 77));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_whiteouts_become_what_overlayfs_knows() {
    let world = World::new();
    let tar = RawTar::default()
        .dir("dir/")
        .file("dir/.wh.gone", b"")
        .file("dir/kept", b"kept")
        .file("dir/.wh.kept", b"")
        .dir("opaque/")
        .file("opaque/before", b"before")
        .file("opaque/.wh..wh..opq", b"")
        .file("opaque/after", b"after")
        .file(".wh.anew", b"")
        .dir("anew/")
        .file("anew/own", b"own")
        .dir("both/")
        .file(".wh.both", b"")
        .file(".wh.implied", b"")
        .file("implied/own", b"own")
        .file(".wh.file", b"")
        .file("file", b"new")
        .dir(".wh..wh.plnk/")
        .file(".wh..wh.aufs", b"")
        .bytes();
    let dir = unpacked(&world, &tar, Packed::Gzip);
    assert!(is_whiteout(&dir.join("dir/gone")));
    for (name, content) in
        [("dir/kept", "kept"), ("opaque/before", "before"), ("opaque/after", "after"), ("file", "new")]
    {
        let found = fs::read_to_string(dir.join(name)).ok();
        assert_eq!(found.as_deref(), Some(content), "{name}: a layer does not hide what it adds itself");
    }
    let opaque = |name: &str| xattr(&dir.join(name), "trusted.overlay.opaque");
    for name in ["opaque", "anew", "both", "implied"] {
        assert_eq!(
            opaque(name),
            Some(b"y".to_vec()),
            "{name}: of the layers below nothing is to be seen in it"
        );
    }
    assert_eq!(opaque("dir"), None);
    let names: Vec<_> = tree(&dir).into_keys().filter(|name| name.contains(".wh.")).collect();
    assert!(names.is_empty(), "{names:?}");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task4_an_opaque_root_hides_all_that_is_below() {
    let world = World::new();
    let below = RawTar::default().file("below", b"below").bytes();
    let mut above = RawTar::default().file(".wh..wh..opq", b"").unfinished();
    above.extend(tar_of(&common::busybox()));
    let output = load(&world, &[(&below, Packed::Gzip), (&above, Packed::Gzip)]);
    assert!(output.status.success(), "{}", said(&output));
    let words = ["run", "--rm", "--net", "none", "--image", "lab/x:v1", "ls", "/"];
    let output = world.tiny_docker(words).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(!String::from_utf8_lossy(&output.stdout).contains("below"), "{}", said(&output));
}

/// What is to become of a hostile layer.
enum Fate {
    /// An error with these words in it.
    Refused(&'static str),
    /// It is unpacked, and what it does it does to itself.
    Harmless,
}
use Fate::{Harmless, Refused};

type Hostile = Vec<(&'static str, Vec<u8>, Fate)>;

/// Layers whose names and links lead elsewhere. `victim` is a file of the host.
fn hostile_names(victim: &Path) -> Hostile {
    let outside = victim.parent().unwrap().to_str().unwrap();
    let path = victim.to_str().unwrap();
    let up = format!("../../../../../../../..{path}");
    let new = RawTar::default;
    let pax = |key: &str, value: &[u8]| new().pax(&[(key, value)]).file("file", b"x").bytes();
    let evil = b"evil";
    vec![
        ("a name with ..", new().file(&up, evil).bytes(), Refused("..")),
        ("a name with .. in the middle", new().file(format!("a/{up}"), evil).bytes(), Refused("..")),
        ("an absolute name", new().file(path, evil).bytes(), Harmless),
        ("a PAX path with ..", pax("path", up.as_bytes()), Refused("..")),
        // CVE-2014-6407, CVE-2014-9356
        ("through a link", new().link("l", outside).file("l/victim", evil).bytes(), Refused("link")),
        (
            "through a relative link",
            new().link("l", &format!("../../../../../..{outside}")).file("l/victim", evil).bytes(),
            Refused("link"),
        ),
        (
            "through a link that was a directory",
            new().dir("l/").link("l", outside).file("l/victim", evil).bytes(),
            Refused("link"),
        ),
        ("over a link", new().link("l", path).file("l", evil).bytes(), Harmless),
        (
            "a hard link to a link, and over it",
            new().link("l", path).hard_link("h", "l").file("h", evil).bytes(),
            Harmless,
        ),
        ("a hard link out", new().hard_link("h", path).file("h", evil).bytes(), Refused("hard link")),
        ("a hard link out by ..", new().hard_link("h", &up).bytes(), Refused("..")),
        (
            "a hard link through a link",
            new().link("l", outside).hard_link("h", "l/victim").bytes(),
            Refused("hard link"),
        ),
        ("a hard link to a directory", new().dir("d/").hard_link("h", "d").bytes(), Refused("hard link")),
        // CVE-2021-29136
        ("a link for the root", new().link("./", outside).file("victim", evil).bytes(), Refused("no name")),
        (
            "a whiteout through a link",
            new().link("l", outside).file("l/.wh.victim", b"").bytes(),
            Refused("link"),
        ),
        ("a whiteout of ..", new().dir("d/").file("d/.wh...", b"").bytes(), Refused("takes away")),
        (
            "an opaque mark through a link",
            new().link("l", outside).file("l/.wh..wh..opq", b"").bytes(),
            Refused("link"),
        ),
        // CVE-2024-21626
        ("a magic link", new().link("l", "/proc/self/fd/3").file("l/victim", evil).bytes(), Refused("link")),
        (
            "the host's root by /proc",
            new().link("l", "/proc/1/root").file(format!("l{path}"), evil).bytes(),
            Refused("link"),
        ),
    ]
}

/// Layers whose headers want what no header may. `victim` is a file of the host.
fn hostile_headers(victim: &Path) -> Hostile {
    let up = format!("../../../../../../../..{}", victim.display());
    let new = RawTar::default;
    let pax = |key: &str, value: &[u8]| new().pax(&[(key, value)]).file("file", b"x").bytes();
    let big = |size| new().with("file", Head { size: Some(size), ..Head::default() }, b"").bytes();
    vec![
        ("a device that is a whiteout", new().device("d", b'3', (0, 0)).bytes(), Refused("0:0")),
        ("overlayfs's own attributes", pax("SCHILY.xattr.trusted.overlay.redirect", b"/etc"), Harmless),
        (
            "a record in a record",
            pax("SCHILY.xattr.user.x", format!("x\n99 path={up}\n").as_bytes()),
            Harmless,
        ),
        (
            "a PAX header of 3 GiB",
            new().with("p", Head { kind: b'x', size: Some(3 << 30), ..Head::default() }, b"").bytes(),
            Refused("stand before an entry"),
        ),
        ("a name of 1 MiB", new().file("n".repeat(1 << 20), b"x").bytes(), Refused("a name has")),
        (
            "a record that is none",
            new()
                .with("p", Head { kind: b'x', ..Head::default() }, b"12 path=evil-and-longer\n")
                .file("f", b"")
                .bytes(),
            Refused("PAX record"),
        ),
        ("a size beyond all", big(u64::MAX >> 1), Refused("larger than")),
        ("a size below nothing", big(u64::MAX), Refused("")),
        (
            "an owner who is nobody",
            new().with("f", Head { owner: (u32::MAX.into(), 0), ..Head::default() }, b"").bytes(),
            Refused("an owner"),
        ),
        (
            "a sparse file of 8 EiB",
            new()
                .pax(&[("GNU.sparse.size", b"9000000000000000000"), ("GNU.sparse.map", b"0,1")])
                .file("f", b"x")
                .bytes(),
            Refused("larger than"),
        ),
        (
            "a sparse map that goes back",
            new()
                .pax(&[("GNU.sparse.size", b"100"), ("GNU.sparse.map", b"50,1,10,1")])
                .file("f", b"xy")
                .bytes(),
            Refused("sparse"),
        ),
        (
            "a type of no file",
            new().with("f", Head { kind: b'Z', ..Head::default() }, b"").bytes(),
            Refused("type"),
        ),
        (
            "an end in the middle",
            new().with("f", Head { size: Some(5000), ..Head::default() }, b"half").unfinished(),
            Refused("middle"),
        ),
        ("no archive", vec![b'x'; 4096], Refused("no")),
    ]
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_hostile_names_and_links_touch_nothing_outside() {
    unpack_hostile(hostile_names);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_hostile_headers_touch_nothing_outside() {
    unpack_hostile(hostile_headers);
}

/// Unpacks each of them, and looks what it has touched.
fn unpack_hostile(layers: fn(&Path) -> Hostile) {
    let world = World::new();
    let outside = world.dir().join("outside");
    fs::create_dir(&outside).unwrap();
    let victim = outside.join("victim");
    fs::write(&victim, "unharmed").unwrap();
    let before = (tree(&outside), tree(Path::new("/etc")));
    // The store exists, so that what is new in it is the layer's.
    world.tiny_docker(["images"]).assert().success();
    for (what, tar, fate) in layers(&victim) {
        let output = load(&world, &[(&tar, Packed::Gzip)]);
        let text = said(&output);
        match fate {
            Refused(words) => {
                assert_eq!(output.status.code(), Some(1), "{what}: {text}");
                assert!(text.contains(words) && text.contains("unpack the layer"), "{what}: {text}");
                assert!(!layer(&world, &tar).exists(), "{what}: half of it is there");
                let list = world.tiny_docker(["images", "-q"]).output().unwrap();
                assert!(list.stdout.is_empty(), "{what}: it has a name: {}", said(&list));
            }
            Harmless => {
                assert_eq!(output.status.code(), Some(0), "{what}: {text}");
                let dir = layer(&world, &tar);
                assert_eq!(xattr(&dir.join("file"), "trusted.overlay.redirect"), None, "{what}");
                world.tiny_docker(["rmi", "lab/x:v1"]).assert().success();
            }
        }
        assert_eq!(before.0, tree(&outside), "{what}: a file outside was touched");
        nothing_half_made(&world, what);
    }
    assert_eq!(before.1, tree(Path::new("/etc")));
    world.tiny_docker(["image", "prune", "-f"]).assert().success();
    let blobs = fs::read_dir(images(&world).join("blobs/sha256")).unwrap().count();
    assert_eq!(blobs, 0, "what was refused is still there after a prune");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_a_layer_that_is_not_what_the_image_says_is_refused() {
    let world = World::new();
    let mut layout = Layout::new(&world, "layout");
    let (good, other) =
        (RawTar::default().file("f", b"good").bytes(), RawTar::default().file("f", b"evil").bytes());
    let mut layer = layout.layer(&good, Packed::Gzip);
    layer.diff_id = sha256(&other);
    let manifest = layout.image(&[layer], json!({}));
    layout.tag("docker.io/lab/x:v1", &manifest);
    let path = world.dir().join("image.tar");
    fs::write(&path, tar_of(&layout.dir)).unwrap();
    let output = world.tiny_docker([Path::new("load"), Path::new("-i"), &path]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("do not use it"), "{}", said(&output));
    assert_eq!(fs::read_dir(images(&world).join("layers")).unwrap().count(), 0);
    nothing_half_made(&world, "a wrong digest");

    // Cut off while it was compressed.
    for packed in [Packed::Gzip, Packed::Zstd] {
        let mut layout = Layout::new(&world, "cut");
        let whole = layout.layer(&good, packed);
        let bytes = fs::read(layout.path(whole.descriptor["digest"].as_str().unwrap())).unwrap();
        let half = layout.blob(&bytes[..bytes.len() - 6], whole.descriptor["mediaType"].as_str().unwrap());
        let manifest = layout.image(&[common::layout::Layer { descriptor: half, ..whole }], json!({}));
        layout.tag("docker.io/lab/x:v1", &manifest);
        fs::write(&path, tar_of(&layout.dir)).unwrap();
        let output = world.tiny_docker([Path::new("load"), Path::new("-i"), &path]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{packed:?}: {}", said(&output));
        assert_eq!(fs::read_dir(images(&world).join("layers")).unwrap().count(), 0, "{packed:?}");
        fs::remove_dir_all(&layout.dir).unwrap();
    }
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_a_full_disk_leaves_nothing_half_made() {
    let world = World::new();
    let tar = RawTar::default().file("small", b"x").file("large", &vec![7; 8 << 20]).bytes();
    let path = archive(&world, &[(&tar, Packed::Gzip)]);
    let script = "mkdir full && mount -t tmpfs -o size=4m tmpfs full && export TINY_DOCKER_ROOT=$PWD/full && \
                  \"$0\" load -i \"$1\"; echo code $?; find full/images/layers full/images/aside full/images/partial \
                  -mindepth 1; \"$0\" images -q";
    let mut command = Command::new("unshare");
    command.args(["-m", "bash", "-c", script]).arg(common::binary()).arg(&path).current_dir(world.dir());
    let output = command.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "code 1\n", "{}", said(&output));
    assert!(said(&output).contains("No space left"), "{}", said(&output));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_long_an_archive_without_an_end_of_entries_is_refused() {
    let world = World::new();
    // Half a gigabyte of headers, which nobody need have in memory: compressed it is next to nothing.
    let one = RawTar::default().with("g", Head { kind: b'g', ..Head::default() }, b"").unfinished();
    let (thousand, mut encoder) = (one.repeat(1000), GzEncoder::new(vec![], Compression::fast()));
    (0..1001).for_each(|_| encoder.write_all(&thousand).unwrap());
    let mut layout = Layout::new(&world, "layout");
    let descriptor = layout.blob(&encoder.finish().unwrap(), "application/vnd.oci.image.layer.v1.tar+gzip");
    let layer = common::layout::Layer { descriptor, diff_id: sha256(b"never comes to that") };
    let manifest = layout.image(&[layer], json!({}));
    layout.tag("docker.io/lab/x:v1", &manifest);
    let path = world.dir().join("image.tar");
    fs::write(&path, tar_of(&layout.dir)).unwrap();
    let output = world.tiny_docker([Path::new("load"), Path::new("-i"), &path]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("too many entries"), "{}", said(&output));
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_a_tree_deeper_than_a_path_can_be_goes_away_again() {
    let world = World::new();
    // Each link leads to the end of what is there, so that the next part lies below it.
    let part = "d/".repeat(1000);
    let mut tar = RawTar::default().dir(&part);
    for number in 0..3 {
        let end = if number == 0 { part.clone() } else { format!("l{}/{part}", number - 1) };
        tar = tar.pax(&[("linkpath", end.as_bytes())]).link(format!("l{number}"), "");
        tar = tar.dir(format!("l{number}/{part}"));
    }
    let tar = tar.bytes();
    let output = load(&world, &[(&tar, Packed::Gzip)]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    world.tiny_docker(["rmi", "lab/x:v1"]).assert().success();
    assert!(!layer(&world, &tar).exists(), "it cannot be removed any more");
    nothing_half_made(&world, "a deep tree");
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_two_at_once_unpack_a_layer_once() {
    let world = World::new();
    let files: Vec<u8> =
        (0..200).fold(RawTar::default(), |tar, n| tar.file(format!("f{n}"), &[n as u8; 3000])).bytes();
    let path = archive(
        &world,
        &[(&files, Packed::Gzip), (&RawTar::default().file("top", b"top").bytes(), Packed::Gzip)],
    );
    let words = [Path::new("load"), Path::new("-i"), &path];
    let all: Vec<_> = (0..4).map(|_| world.start(words)).collect();
    for mut one in all {
        assert_eq!(one.ended(), 0);
    }
    assert_eq!(tree(&layer(&world, &files)).len(), 200);
    until("nothing is left aside", || fs::read_dir(images(&world).join("aside")).unwrap().count() == 0);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn task3_long_killed_at_any_moment_a_layer_is_whole_or_not_there() {
    let world = World::new();
    let tar = RawTar::default().dir("d/").file("d/one", b"one").file("d/two", &vec![2; 100_000]).bytes();
    let path = archive(&world, &[(&tar, Packed::Gzip)]);
    let words = [Path::new("load"), Path::new("-i"), &path];
    let whole = tree(&unpacked(&world, &tar, Packed::Gzip));
    world.tiny_docker(["rmi", "lab/x:v1"]).assert().success();
    let mut moments = 0;
    for who in ["parent", "child"] {
        for moment in 1..200 {
            let mut command = world.tiny_docker(words);
            let output = command.env("TINY_DOCKER_DIE_AT", format!("{who}:{moment}")).output().unwrap();
            let place = format!("killed at {who}:{moment}: {}", said(&output));
            if layer(&world, &tar).exists() {
                assert_eq!(tree(&layer(&world, &tar)), whole, "{place}");
            }
            let names = world.tiny_docker(["images", "-q"]).output().unwrap();
            assert!(names.status.success(), "{place}: {}", said(&names));
            assert!(
                names.stdout.is_empty() || layer(&world, &tar).exists(),
                "{place}: a name for half an image"
            );
            // Whatever was left, the next one goes on, and what is left over goes.
            world.tiny_docker(words).assert().success();
            assert_eq!(tree(&layer(&world, &tar)), whole, "{place}");
            world.tiny_docker(["rmi", "lab/x:v1"]).assert().success();
            world.tiny_docker(["image", "prune", "-f"]).assert().success();
            nothing_half_made(&world, &place);
            assert_eq!(fs::read_dir(images(&world).join("blobs/sha256")).unwrap().count(), 0, "{place}");
            moments += 1;
            if output.status.success() {
                break;
            }
        }
    }
    assert!(moments > 12, "{moments}");
}
