//! Day 13: `-p` and `-P`: which of the container's ports are to be ports of the host too.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use anyhow::{Context, bail};

use crate::error::Result;
use crate::plan::Protocol;

/// A port that is to be published.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// The host's address; `None`: all that it has.
    pub address: Option<IpAddr>,
    /// Which of the host's ports: any of these; `None`: any that is free.
    pub host_ports: Option<RangeInclusive<u16>>,
    /// Which of the container's.
    pub container_port: u16,
    /// What is spoken there.
    pub protocol: Protocol,
}

// ANCHOR: parse
/// What a `-p` says: `[IP:][HOST]:CONTAINER[/PROTOCOL]`, or CONTAINER alone. Both ports may be
/// ranges of the same length; and where HOST alone is one, any free port of it will do.
/// (docker-run(1), "--publish")
pub fn parse(text: &str) -> Result<Vec<Wanted>> {
    // ANCHOR: day13_task1_parse_solution
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = parse_protocol(protocol)?;
    let (before, container) = ports.rsplit_once(':').unwrap_or(("", ports));
    let (address, host) = match before.rsplit_once(':') {
        // [::1] has colons of its own.
        Some((address, host)) if !host.ends_with(']') => (parse_address(address)?, host),
        _ if before.ends_with(']') => (parse_address(before)?, ""),
        _ => (None, before),
    };
    let container = parse_range(container).context("the container's port")?;
    let host = match host {
        "" => None,
        host => Some(parse_range(host).context("the host's port")?),
    };
    let count = container.len();
    let wanted = |(number, container_port)| Wanted {
        address,
        host_ports: match &host {
            Some(range) if count == 1 => Some(range.clone()),
            // Of the same length: so it does not reach beyond the last.
            Some(range) => Some(range.start() + number..=range.start() + number),
            None => None,
        },
        container_port,
        protocol,
    };
    if let Some(range) = host.as_ref().filter(|range| count > 1 && range.len() != count) {
        bail!("{} ports of the host's, and {count} of the container's; expected as many", range.len());
    }
    Ok((0..).zip(container).map(wanted).collect())
    // ANCHOR_END: day13_task1_parse_solution
}
// ANCHOR_END: parse

/// What these flags say together; each with the flag that says so.
pub fn parse_all(texts: &[String]) -> Result<Vec<(&str, Wanted)>> {
    let mut all = Vec::new();
    for text in texts {
        let expected = || {
            format!(
                "-p {text:?}: expected [IP:][HOST-PORT:]CONTAINER-PORT[/udp], such as 8080:80 or 127.0.0.1:5353:53/udp"
            )
        };
        all.extend(parse(text).with_context(expected)?.into_iter().map(|wanted| (&text[..], wanted)));
    }
    Ok(all)
}

// ANCHOR: exposed
/// What -P adds to the flags `published`: of the ports that the image exposes (`80/tcp`, or
/// `8000-8010`) those that none of them publishes. What the image says is from outside.
pub fn exposed(by_image: &[String], published: &[String]) -> Result<Vec<String>> {
    // ANCHOR: day13_task1_exposed_solution
    let key = |wanted: &Wanted| (wanted.container_port, wanted.protocol);
    let published: Vec<_> = parse_all(published)?.iter().map(|(_, wanted)| key(wanted)).collect();
    let mut all = Vec::new();
    for text in by_image {
        let refused =
            || format!("-P: the image exposes {text:?}; omit -P, and publish what you need: -p 8080:80");
        if text.contains(':') {
            bail!("{}: an image cannot say where on the host", refused());
        }
        let exposed = parse(text).with_context(refused)?;
        all.extend(exposed.iter().map(key).filter(|port| !published.contains(port)));
    }
    all.sort_unstable();
    all.dedup();
    Ok(all.into_iter().map(|(port, protocol)| format!("{port}/{protocol}")).collect())
    // ANCHOR_END: day13_task1_exposed_solution
}
// ANCHOR_END: exposed

/// A protocol by its name.
pub fn parse_protocol(word: &str) -> Result<Protocol> {
    match word.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        _ => bail!("{word:?} is no protocol that can be published: those are tcp and udp"),
    }
}

/// An address of the host's, IPv6 in brackets.
fn parse_address(text: &str) -> Result<Option<IpAddr>> {
    let address = match text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        Some(v6) => v6.parse().map(IpAddr::V6),
        None => text.parse().map(IpAddr::V4),
    };
    let what =
        || format!("{text:?} is no address; names are not looked up, and IPv6 stands in brackets: [::1]");
    address.map(Some).with_context(what)
}

/// A port, or a range of them: `8000-8010`.
fn parse_range(text: &str) -> Result<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (parse_port(first)?, parse_port(last)?);
    if first > last {
        bail!("{text:?} ends before it begins");
    }
    Ok(first..=last)
}

/// A number from 1 to 65535. Digits alone: Rust would take `+80` too.
pub fn parse_port(text: &str) -> Result<u16> {
    match text.parse() {
        Ok(port @ 1..) if text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(port),
        _ => bail!("{text:?} is no port: those are 1 to 65535"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As one line: address host-container/protocol.
    fn said(text: &str) -> std::result::Result<String, String> {
        let wanted = parse(text).map_err(|error| format!("{error:#}"))?;
        let one = |one: &Wanted| {
            let address = one.address.map_or("*".into(), |address| address.to_string());
            let host = one.host_ports.as_ref().map_or("any".into(), |range| match range.len() {
                1 => range.start().to_string(),
                _ => format!("{}-{}", range.start(), range.end()),
            });
            format!("{address} {host} {}/{}", one.container_port, one.protocol)
        };
        Ok(wanted.iter().map(one).collect::<Vec<_>>().join(", "))
    }

    #[test]
    fn what_is_published_is_what_docker_publishes() {
        for (text, expected) in [
            ("80", "* any 80/tcp"),
            (":80", "* any 80/tcp"),
            ("8080:80", "* 8080 80/tcp"),
            ("8080:80/tcp", "* 8080 80/tcp"),
            ("53:53/UDP", "* 53 53/udp"),
            ("127.0.0.1:8080:80", "127.0.0.1 8080 80/tcp"),
            ("127.0.0.1::80", "127.0.0.1 any 80/tcp"),
            ("[::1]:8080:80", "::1 8080 80/tcp"),
            ("[::1]::80", "::1 any 80/tcp"),
            ("[::]:8080:80/udp", ":: 8080 80/udp"),
            ("8000-8001:80-81", "* 8000 80/tcp, * 8001 81/tcp"),
            ("65534-65535:65534-65535", "* 65534 65534/tcp, * 65535 65535/tcp"),
            ("8000-8001:80", "* 8000-8001 80/tcp"),
            ("80-81", "* any 80/tcp, * any 81/tcp"),
        ] {
            assert_eq!(said(text), Ok(expected.to_string()), "-p {text}");
        }
    }

    #[test]
    fn what_is_none_is_refused_in_words() {
        for (text, expected) in [
            ("", "no port"),
            ("0", "1 to 65535"),
            ("0:80", "1 to 65535"),
            ("8080:0", "1 to 65535"),
            ("65536:80", "1 to 65535"),
            ("+80", "1 to 65535"),
            ("-1:80", "no port"),
            ("80:", "no port"),
            ("http:80", "the host's port"),
            ("8080:http", "the container's port"),
            ("8000-8002:80-81", "3 ports of the host's, and 2"),
            ("8000:80-81", "1 ports of the host's, and 2"),
            ("8002-8000:80-82", "ends before it begins"),
            ("localhost:8080:80", "names are not looked up"),
            ("::1:8080:80", "in brackets"),
            ("1.2.3:8080:80", "no address"),
            ("8080:80/sctp", "tcp and udp"),
            ("8080:80/", "tcp and udp"),
            ("1.2.3.4:5:6:7", "no address"),
            ("[::1:8080:80", "no address"),
            ("[::1]8080:80", "no address"),
        ] {
            let error = said(text).unwrap_err();
            assert!(error.contains(expected), "-p {text}: {error}");
        }
    }
}
