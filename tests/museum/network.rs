//! In the name of a neighbour.

use std::net::UdpSocket;
use std::time::Duration;

use crate::attack::{Outcome, python};
use crate::common::DAY;
use crate::exhibit;

/// A packet of which every byte is the container's, its sender's address too.
const SPOOFED: &str = r#"
import socket
hosts = [line.split()[2] for line in open("/proc/net/route") if line.split()[1] == "00000000"]
host = bytes.fromhex(hosts[0])[::-1] if hosts else bytes([127, 0, 0, 1])
neighbour = host[:3] + bytes([77])
text = b"it is me"
udp = struct.pack(">HHHH", 4242, PORT, 8 + len(text), 0) + text
ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0) + neighbour + host
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
raw.sendto(ip + udp, (".".join(map(str, host)), 0))
print(".".join(map(str, neighbour)))
"#;

#[test]
#[ignore = "privileged: make vm-test"]
fn exhibit_raw_socket() {
    exhibit("raw_socket", |world, flags| {
        let server = UdpSocket::bind("0.0.0.0:0").unwrap();
        server.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let port = server.local_addr().unwrap().port();
        let script = SPOOFED.replace("PORT", &port.to_string());
        let output = python(world, flags, &script);
        // It has been sent before its sender ended, and nothing on the way takes its time.
        let heard = server.recv_from(&mut [0; 100]).map(|(_, from)| format!("{}\n", from.ip()));
        let works = heard.is_ok_and(|from| from.as_bytes() == output.stdout);
        if DAY >= 15 && flags.is_empty() {
            let without = python(world, &["--cap-drop", "NET_RAW"], &script);
            assert_eq!(Outcome::of(&without, false).cell, "fails: EPERM", "without NET_RAW");
        }
        if !works && output.status.success() {
            return Outcome::fails("nobody hears it", &output);
        }
        Outcome::of(&output, works)
    });
}
