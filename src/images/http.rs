//! Day 12: HTTP, before anything of registries: whom to trust, through which proxy, and how
//! long to wait.

use std::env;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use ureq::http::Uri;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Proxy};

use crate::error::Result;

/// Where distributions keep the authorities that they trust.
const BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];

/// The flags of every command that talks to a registry.
#[derive(Debug, Clone, clap::Args)]
pub struct Connection {
    /// Whether a registry must prove who it is; =false: any certificate will do, and HTTP
    /// without TLS too (on 127.0.0.1 it always will)
    #[arg(
        long,
        value_name = "BOOL",
        default_value_t = true,
        action = clap::ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    tls_verify: bool,

    /// Where the certificates (*.crt) are that prove who the registry is
    /// [default: /etc/docker/certs.d/HOST:PORT]
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<PathBuf>,

    /// How long a registry may be silent, in seconds
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 30,
        value_parser = clap::value_parser!(u64).range(1..=86400)
    )]
    registry_timeout: u64,
}

/// Sends requests. Connections are kept for the next one.
#[derive(Debug)]
pub struct Http {
    direct: Agent,
    /// For `https:` and for `http:`, if there is a proxy for it.
    proxied: [Option<Agent>; 2],
    no_proxy: String,
    /// HTTP without TLS will do.
    pub may_be_plain: bool,
}

impl Connection {
    /// What it takes to talk to `registry`, and to whomever that sends us to.
    pub fn open(&self, registry: &str) -> Result<Http> {
        let roots = self.roots(registry)?;
        let tls = TlsConfig::builder().root_certs(roots).disable_verification(!self.tls_verify).build();
        let patience = Some(Duration::from_secs(self.registry_timeout));
        let agent = |proxy: Option<Proxy>| {
            let config = Agent::config_builder()
                .tls_config(tls.clone())
                .proxy(proxy)
                .user_agent(concat!("tiny-docker/", env!("CARGO_PKG_VERSION")))
                .http_status_as_error(false)
                // Who follows a redirect decides what goes along: see registry.rs.
                .max_redirects(0)
                .max_redirects_will_error(false)
                // Not for looking a name up: resolv.conf(5) has a limit for that, and a second
                // one would take a thread, which `run` must not have.
                .timeout_connect(patience)
                .timeout_recv_response(patience)
                .timeout_per_read(patience)
                .timeout_per_write(patience);
            config.build().new_agent()
        };
        let proxied = ["HTTPS_PROXY", "HTTP_PROXY"]
            .map(|name| proxy(name).map(|found| found.map(|found| agent(Some(found)))));
        let [https, http] = proxied;
        Ok(Http {
            direct: agent(None),
            proxied: [https?, http?],
            no_proxy: variable("NO_PROXY").unwrap_or_default(),
            may_be_plain: !self.tls_verify || is_loopback(host_alone(registry)),
        })
    }

    /// Whom to trust: the authorities of this machine, and those for this registry alone.
    fn roots(&self, registry: &str) -> Result<RootCerts> {
        let dir = self.cert_dir.clone().unwrap_or_else(|| Path::new("/etc/docker/certs.d").join(registry));
        let files = match fs::read_dir(&dir) {
            Ok(entries) => entries
                .filter_map(|entry| entry.ok().map(|entry| entry.path()))
                .filter(|path| path.extension().is_some_and(|extension| extension == "crt"))
                .collect(),
            Err(error) if self.cert_dir.is_some() => {
                return Err(error).with_context(|| format!("--cert-dir: read {dir:?}"));
            }
            Err(_) => Vec::new(),
        };
        let mut trusted = Vec::new();
        for file in &files {
            let text = fs::read(file).with_context(|| format!("read {file:?}"))?;
            let found = certificates(&text);
            if found.is_empty() {
                bail!("{file:?}: no certificate in it; expected PEM, -----BEGIN CERTIFICATE-----");
            }
            trusted.extend(found);
        }
        match machines_authorities()? {
            Some(authorities) => trusted.extend(authorities),
            // No list of its own: the one that is built in.
            None if trusted.is_empty() => return Ok(RootCerts::WebPki),
            None => {}
        }
        Ok(RootCerts::new_with_certs(&trusted))
    }
}

impl Http {
    /// The one to send a request for `url` with.
    pub fn agent(&self, url: &Uri) -> &Agent {
        let [https, http] = &self.proxied;
        let proxied = if url.scheme_str() == Some("http") { http } else { https };
        let host = url.host().unwrap_or_default();
        match proxied {
            Some(agent) if !is_loopback(host) && !is_exempt(host, &self.no_proxy) => agent,
            _ => &self.direct,
        }
    }
}

/// What this machine trusts. `SSL_CERT_FILE` names another list, as for OpenSSL.
fn machines_authorities() -> Result<Option<Vec<Certificate<'static>>>> {
    if let Some(file) = env::var_os("SSL_CERT_FILE").filter(|file| !file.is_empty()) {
        let text = fs::read(&file).with_context(|| format!("SSL_CERT_FILE: read {file:?}"))?;
        return Ok(Some(certificates(&text)));
    }
    let found = BUNDLES.iter().find_map(|bundle| fs::read(bundle).ok());
    Ok(found.map(|text| certificates(&text)).filter(|certificates| !certificates.is_empty()))
}

fn certificates(pem: &[u8]) -> Vec<Certificate<'static>> {
    let certificate = |item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    };
    parse_pem(pem).filter_map(certificate).collect()
}

/// The proxy that the variable names, in capitals or not.
fn proxy(name: &str) -> Result<Option<Proxy>> {
    let Some(value) = variable(name).or_else(|| variable("ALL_PROXY")) else { return Ok(None) };
    let proxy = Proxy::new(&value)
        .with_context(|| format!("{name} is {value:?}: expected a URL, such as http://proxy.example:3128"))?;
    Ok(Some(proxy))
}

fn variable(name: &str) -> Option<String> {
    let value = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    value(name).or_else(|| value(&name.to_lowercase()))
}

/// Does `NO_PROXY` name this host? `example.com` means all hosts below it too, `.example.com`
/// only those, `*` every host.
fn is_exempt(host: &str, no_proxy: &str) -> bool {
    no_proxy.split(',').map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
        let entry = entry.strip_prefix('*').unwrap_or(entry);
        let below = |domain: &str| host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
        match entry.strip_prefix('.') {
            Some(domain) => below(domain),
            None => entry.is_empty() || host == entry || below(entry),
        }
    })
}

/// `registry` without its port.
pub fn host_alone(registry: &str) -> &str {
    match registry.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => host,
        _ => registry,
    }
}

/// This machine itself.
fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::{host_alone, is_exempt, is_loopback};

    #[test]
    fn only_this_machine_is_this_machine() {
        for registry in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.8.8.8", "[::1]:5000", "[::1]"]
        {
            assert!(is_loopback(host_alone(registry)), "{registry}");
        }
        for registry in
            ["localhost.example", "127.0.0.1.example:5000", "128.0.0.1", "[::2]:5000", "docker.io"]
        {
            assert!(!is_loopback(host_alone(registry)), "{registry}");
        }
    }

    #[test]
    fn no_proxy_names_hosts_and_domains() {
        for (list, yes, no) in [
            ("example.com", "example.com box.example.com", "badexample.com example.org"),
            (" .example.com , other", "box.example.com other", "example.com"),
            ("*.example.com", "box.example.com", "example.com"),
            ("*", "anything", ""),
            ("", "", "anything"),
        ] {
            assert!(yes.split_whitespace().all(|host| is_exempt(host, list)), "{list:?}: {yes}");
            assert!(!no.split_whitespace().any(|host| is_exempt(host, list)), "{list:?}: {no}");
        }
    }
}
