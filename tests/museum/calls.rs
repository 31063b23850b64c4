//! System calls that reach beyond the container by themselves.

use std::process::{Command, Stdio};

use crate::attack::{NO_NETWORK, Outcome, python, python_by_hand, shell};
use crate::common::said;
use crate::exhibit;

#[test]
#[ignore = "privileged: make vm-test"]
fn exhibit_module() {
    exhibit("module", |world, flags| {
        // No module, so nothing is loaded. But whoever may load none is told so first.
        let output = shell(world, flags, "echo none >/dev/shm/none.ko && insmod /dev/shm/none.ko");
        assert!(!output.status.success(), "the kernel has loaded this: {}", said(&output));
        let was_read = String::from_utf8_lossy(&output.stderr).contains("invalid module format");
        Outcome::of(&output, was_read)
    });
}

#[test]
#[ignore = "privileged: make vm-test"]
fn exhibit_ptrace() {
    exhibit("ptrace", |world, flags| {
        let mut victim = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
        let script = format!(
            "PTRACE, PTRACE_SEIZE = 101, 0x4206\ncall(PTRACE, PTRACE_SEIZE, {}, 0, 0)\nprint(\"seized\")\n",
            victim.id()
        );
        let output = python(world, &[NO_NETWORK, flags].concat(), &script);
        let by_hand = python_by_hand(&script);
        victim.kill().and_then(|()| victim.wait()).unwrap();
        assert_eq!(by_hand.stdout, b"seized\n", "by root of the host: {}", said(&by_hand));
        Outcome::of(&output, output.stdout == b"seized\n")
    });
}

/// A program that may read all of the kernel's memory. (This one only says 0.)
#[test]
#[ignore = "privileged: make vm-test"]
fn exhibit_bpf() {
    exhibit("bpf", |world, flags| {
        let script = r#"
BPF, BPF_PROG_LOAD, BPF_PROG_TYPE_KPROBE = 321, 5, 2
program = ctypes.create_string_buffer(bytes([0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0]))
license = ctypes.create_string_buffer(b"GPL")
attributes = struct.pack("IIQQIIQII", BPF_PROG_TYPE_KPROBE, 2, ctypes.addressof(program),
                         ctypes.addressof(license), 0, 0, 0, 0, 0)
call(BPF, BPF_PROG_LOAD, attributes, len(attributes))
print("loaded")
"#;
        let output = python(world, &[NO_NETWORK, flags].concat(), script);
        Outcome::of(&output, output.stdout == b"loaded\n")
    });
}

/// To have the kernel wait, in the middle of a system call, for as long as an exploit needs.
#[test]
#[ignore = "privileged: make vm-test"]
fn exhibit_userfaultfd() {
    exhibit("userfaultfd", |world, flags| {
        let script = "USERFAULTFD = 323\ncall(USERFAULTFD, 0)\nprint(\"made\")\n";
        let output = python(world, &[NO_NETWORK, flags].concat(), script);
        Outcome::of(&output, output.stdout == b"made\n")
    });
}

/// Every user has a keyring, and user 0 of the container is user 0 of the host.
#[test]
#[ignore = "privileged: make vm-test"]
fn exhibit_keyrings() {
    exhibit("keyrings", |world, flags| {
        let key = KeyOfRoot::add();
        let script = r#"
KEYCTL, LINK, SEARCH, READ, SESSION_KEYRING, USER_KEYRING = 250, 8, 10, 11, -3, -4
# Its owner may see it. To read it is for who possesses it, which goes by what the session has.
call(KEYCTL, LINK, USER_KEYRING, SESSION_KEYRING)
key = call(KEYCTL, SEARCH, USER_KEYRING, b"user", b"tiny-docker-museum", 0)
text = ctypes.create_string_buffer(100)
length = call(KEYCTL, READ, key, text, 100)
print(text.raw[:length].decode())
"#;
        let output = python(world, &[NO_NETWORK, flags].concat(), script);
        let by_hand = python_by_hand(script);
        drop(key);
        assert_eq!(by_hand.stdout, b"the host's secret\n", "by root of the host: {}", said(&by_hand));
        Outcome::of(&output, output.stdout == b"the host's secret\n")
    });
}

/// A key in the keyring of this user. (keyctl(2), user-keyring(7))
struct KeyOfRoot(libc::c_long);

const USER_KEYRING: i32 = -4;

impl KeyOfRoot {
    fn add() -> KeyOfRoot {
        let (kind, name, text) = (c"user", c"tiny-docker-museum", b"the host's secret");
        let (kind, name) = (kind.as_ptr(), name.as_ptr());
        // SAFETY: the kernel reads two strings that end with a NUL, and as many bytes as it is told.
        let key =
            unsafe { libc::syscall(libc::SYS_add_key, kind, name, text.as_ptr(), text.len(), USER_KEYRING) };
        assert!(key > 0, "add_key: {}", std::io::Error::last_os_error());
        KeyOfRoot(key)
    }
}

impl Drop for KeyOfRoot {
    fn drop(&mut self) {
        const UNLINK: i32 = 9;
        // SAFETY: it takes three numbers.
        unsafe { libc::syscall(libc::SYS_keyctl, UNLINK, self.0, USER_KEYRING, 0, 0) };
    }
}
