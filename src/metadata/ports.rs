//! Day 4, for day 13: the host's ports that lead to a container, as `ps` shows them.

use crate::plan::PublishedPort;

// ANCHOR: column
/// What `ps` shows in its column PORTS, as Docker does: `0.0.0.0:8080->80/tcp`, with neighbours
/// in one: `0.0.0.0:8000-8002->8000-8002/tcp`. IPv4 comes first.
pub fn column(ports: &[PublishedPort]) -> String {
    let of = |port: &PublishedPort| {
        let port = *port;
        port.hosts().into_iter().map(move |host| (host.starts_with('['), host, port))
    };
    let mut all: Vec<(bool, String, PublishedPort)> = ports.iter().flat_map(of).collect();
    all.sort();
    let mut rows: Vec<(String, PublishedPort, PublishedPort)> = Vec::new();
    for (_, host, port) in all {
        match rows.last_mut() {
            Some((same, _, last)) if *same == host && is_next(last, &port) => *last = port,
            _ => rows.push((host, port, port)),
        }
    }
    let words = rows.iter().map(|(host, first, last)| {
        let from = span(first.host_port, last.host_port);
        let to = span(first.container_port, last.container_port);
        format!("{host}:{from}->{to}/{}", first.protocol)
    });
    words.collect::<Vec<_>>().join(", ")
}
// ANCHOR_END: column

fn is_next(last: &PublishedPort, port: &PublishedPort) -> bool {
    let (host, container) = (last.host_port.checked_add(1), last.container_port.checked_add(1));
    last.protocol == port.protocol && host == Some(port.host_port) && container == Some(port.container_port)
}

fn span(first: u16, last: u16) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

#[cfg(test)]
mod tests {
    use super::column;
    use crate::plan::{Protocol, PublishedPort};

    #[test]
    fn neighbours_stand_in_one() {
        let port = |address: Option<&str>, protocol, host_port, container_port| PublishedPort {
            protocol,
            container_port,
            address: address.map(|address| address.parse().unwrap()),
            host_port,
        };
        let tcp = |host, container| port(None, Protocol::Tcp, host, container);
        for (ports, expected) in [
            (vec![], ""),
            (vec![tcp(8080, 80)], "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"),
            (
                vec![tcp(8001, 81), tcp(8000, 80), tcp(8002, 82), tcp(9000, 83)],
                "0.0.0.0:8000-8002->80-82/tcp, 0.0.0.0:9000->83/tcp, \
                 [::]:8000-8002->80-82/tcp, [::]:9000->83/tcp",
            ),
            (
                vec![
                    port(Some("127.0.0.1"), Protocol::Udp, 53, 53),
                    port(Some("::1"), Protocol::Udp, 53, 53),
                    port(Some("127.0.0.1"), Protocol::Tcp, 54, 54),
                ],
                "127.0.0.1:54->54/tcp, 127.0.0.1:53->53/udp, [::1]:53->53/udp",
            ),
            (vec![port(Some("::"), Protocol::Tcp, 65535, 65535)], "[::]:65535->65535/tcp"),
        ] {
            assert_eq!(column(&ports), expected);
        }
    }
}
