//! All commands of a test as an ordinary user: `TINY_DOCKER_TEST_AS=UID`. (day 17)
//!
//! In the guest alone, where each test has mounts of its own. The person has ids in /etc/subuid, a
//! home, and a copy of the shared root file system whose files are theirs. The holder of their
//! namespaces stays from test to test, as it does from command to command.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::{HostFile, copy_tree, in_the_vm, shared_rootfs, walk};

/// What is 1 in the person's namespace.
const FIRST: u32 = 500_000;

pub struct Person {
    uid: u32,
    place: PathBuf,
}

/// Who runs the commands, if it is not root.
pub fn person() -> Option<&'static Person> {
    static PERSON: OnceLock<Option<Person>> = OnceLock::new();
    let uid = || std::env::var("TINY_DOCKER_TEST_AS").ok()?.parse().ok();
    PERSON.get_or_init(|| uid().map(Person::new)).as_ref()
}

impl Person {
    fn new(uid: u32) -> Person {
        assert!(in_the_vm(), "this changes who is known to the machine, and is for the guest: make vm-test");
        let person = Person { uid, place: PathBuf::from("/var/tmp/tiny-docker-person") };
        if !person.place.join("rootfs").exists() {
            person.move_in();
        }
        for (path, name) in [("/etc/passwd", "passwd"), ("/etc/subuid", "subid"), ("/etc/subgid", "subid")] {
            // As long as this process's mounts are there.
            std::mem::forget(HostFile::replace(path, &person.place.join(name)));
        }
        person
    }

    fn move_in(&self) {
        let Person { uid, place } = self;
        let (home, program) = (place.join("home"), self.program());
        fs::create_dir_all(&home).unwrap();
        lchown(&home, Some(*uid), Some(*uid)).unwrap();
        let known = fs::read_to_string("/etc/passwd").unwrap();
        let line = format!("person:x:{uid}:{uid}::{}:/bin/sh\n", home.display());
        fs::write(place.join("passwd"), known + &line).unwrap();
        fs::write(place.join("subid"), format!("person:{FIRST}:65536\n")).unwrap();
        let script = format!(
            "#!/bin/sh\nexport HOME={}\nexec setpriv --reuid={uid} --regid={uid} --clear-groups {} \"$@\"\n",
            home.display(),
            env!("CARGO_BIN_EXE_tiny-docker")
        );
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        let half = place.join("half");
        fs::create_dir(&half).unwrap();
        copy_tree(&shared_rootfs("busybox"), &half.join("busybox"));
        self.owns(&half);
        fs::rename(half, place.join("rootfs")).unwrap();
    }

    /// What becomes this person, and then tiny-docker.
    pub fn program(&self) -> PathBuf {
        self.place.join("tiny-docker")
    }

    /// Root file systems whose files are theirs.
    pub fn rootfs(&self) -> PathBuf {
        self.place.join("rootfs")
    }

    /// Makes what is in `dir` over to the person: what is root's, and what is for others who are
    /// theirs.
    pub fn owns(&self, dir: &Path) {
        let outside = |id: u32| if id == 0 { self.uid } else { FIRST + id - 1 };
        let mut give = |path: &Path, metadata: &fs::Metadata| {
            if metadata.uid() < FIRST && metadata.uid() != self.uid {
                lchown(path, Some(outside(metadata.uid())), Some(outside(metadata.gid()))).unwrap();
            }
        };
        give(dir, &fs::symlink_metadata(dir).unwrap());
        walk(dir, &mut give);
    }
}
