//! Day 13: who has a port. The kernel keeps no list of that: of a socket it tells the number,
//! and of a process which sockets it has open. (proc_net(5), proc_pid_fd(5))

use std::fs;
use std::os::unix::ffi::OsStrExt;

use crate::files;
use crate::plan::Protocol;

/// In words, to be put behind "is taken"; nothing, where the kernel does not tell.
pub fn of(port: u16, protocol: Protocol) -> String {
    let Some(pid) = sockets(port, protocol).iter().find_map(|socket| process_with(socket)) else {
        return String::new();
    };
    if pid == std::process::id() {
        return " by this container itself, for which another -p asks for it too".into();
    }
    let name = files::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    match String::from_utf8_lossy(name.trim_ascii()).as_ref() {
        "tiny-docker" => format!(" by another container (process {pid}; tiny-docker ps shows whose it is)"),
        name => format!(" by {name} (process {pid})"),
    }
}

/// The numbers of the sockets that have this port: of TCP those that listen.
fn sockets(port: u16, protocol: Protocol) -> Vec<Vec<u8>> {
    let files = [format!("/proc/net/{protocol}"), format!("/proc/net/{protocol}6")];
    let lines = files.into_iter().flat_map(|file| {
        let text = files::read(file).unwrap_or_default();
        text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>()
    });
    lines.filter_map(|line| socket_with(&line, port, protocol)).collect()
}

/// The number of a line's socket, if it has this port. Fields: 1 is ADDRESS:PORT in
/// hexadecimal digits, 3 the state, of which 0A is LISTEN, and 9 the number.
fn socket_with(line: &[u8], port: u16, protocol: Protocol) -> Option<Vec<u8>> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').filter(|field| !field.is_empty()).collect();
    let [_, local, _, state, .., _] = fields[..] else { return None };
    let is_here = local.ends_with(format!(":{port:04X}").as_bytes());
    let has_it = is_here && (protocol == Protocol::Udp || state == b"0A");
    fields.get(9).filter(|_| has_it).map(|socket| socket.to_vec())
}

/// A process that has this socket open, if one can be seen from here.
fn process_with(socket: &[u8]) -> Option<u32> {
    let link = [b"socket:[", socket, b"]"].concat();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let has_it = |pid: &u32| {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        open.filter_map(|file| fs::read_link(file.path()).ok())
            .any(|target| target.as_os_str().as_bytes() == link)
    };
    pids.into_iter().find(has_it)
}

#[cfg(test)]
mod tests {
    use super::socket_with;
    use crate::plan::Protocol;

    #[test]
    fn a_socket_is_found_by_its_port() {
        let line = b"   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0000000000000000 100 0 0 10 0";
        assert_eq!(socket_with(line, 8080, Protocol::Tcp).as_deref(), Some(&b"4711"[..]));
        assert_eq!(socket_with(line, 80, Protocol::Tcp), None, "another port");
        let connected = line.map(|byte| if byte == b'A' { b'1' } else { byte });
        assert_eq!(socket_with(&connected, 8080, Protocol::Tcp), None, "it does not listen");
        assert_eq!(socket_with(&connected, 8080, Protocol::Udp).as_deref(), Some(&b"4711"[..]));
        for garbage in [&b""[..], b"  sl  local_address rem_address", b"\xff :1F90 x 0A", b"a b:1F90 c 0A e"]
        {
            assert_eq!(socket_with(garbage, 8080, Protocol::Tcp), None, "{garbage:?}");
        }
    }
}
