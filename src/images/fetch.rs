//! Day 12: what a registry hands out: manifests and blobs.

use std::io::Read;

use anyhow::{Context, anyhow, ensure};
use ureq::Body;
use ureq::http::{Method, Response, StatusCode, header};

use crate::error::Result;
use crate::explain::step;
use crate::images::DAY;
use crate::images::digest::Digest;
use crate::images::registry::Registry;
use crate::images::request::{Request, read_all};
use crate::images::retry::Trouble;
use crate::images::spec::{Descriptor, INDEXES, LONGEST, MANIFESTS};

/// Of old registries; or what a server sends that is none. (RFC 9110, 8.3)
const DIGEST: header::HeaderName = header::HeaderName::from_static("docker-content-digest");

/// A manifest or an index, and its descriptor.
#[derive(Debug)]
pub struct Fetched {
    /// What it is called.
    pub descriptor: Descriptor,
    /// What is in it, byte for byte: its digest is its name.
    pub bytes: Vec<u8>,
}

fn pull_scope(repository: &str) -> String {
    format!("repository:{repository}:pull")
}

fn manifest_request<'a>(method: Method, repository: &str, wanted: &str) -> Request<'a> {
    let accept = [INDEXES, MANIFESTS].concat().join(", ");
    Request::new(method, format!("/v2/{repository}/manifests/{wanted}"), pull_scope(repository))
        .with(header::ACCEPT, accept)
}

fn describe(registry: &Registry, request: &Request) -> (String, String) {
    let url = registry.url(&request.path).map_or_else(|_| request.path.clone(), |url| url.to_string());
    let head = if request.method == Method::HEAD { "--head " } else { "" };
    (format!("{} {url}", request.method), format!("curl {head}-H 'Authorization: Bearer …' {url}"))
}

/// What `wanted`, a tag or a digest, is at this moment, if the registry says that without
/// sending it. It costs a few hundred bytes.
pub fn look(registry: &Registry, repository: &str, wanted: &str) -> Result<Option<Digest>> {
    let request = manifest_request(Method::HEAD, repository, wanted);
    let response = step(DAY, || describe(registry, &request), || registry.ask(&request))?;
    let digest = response.headers().get(DIGEST).and_then(|value| value.to_str().ok());
    Ok(digest.filter(|_| response.status().is_success()).and_then(|digest| digest.parse().ok()))
}

// ANCHOR: manifest
/// The manifest or the index that `wanted`, a tag or a digest, is at this moment.
pub fn manifest(registry: &Registry, repository: &str, wanted: &str) -> Result<Fetched> {
    let request = manifest_request(Method::GET, repository, wanted);
    let (media_type, said, bytes) = step(
        DAY,
        || describe(registry, &request),
        || {
            registry.again(|_| {
                let response = registry.once(&request)?;
                if response.status() != StatusCode::OK {
                    return Err(registry.refusal(response).into());
                }
                let text = |name| {
                    response.headers().get(name).and_then(|value| value.to_str().ok()).map(String::from)
                };
                let (media_type, said) = (text(header::CONTENT_TYPE), text(DIGEST));
                Ok((media_type, said, read_all(response, LONGEST, "the manifest")?))
            })
        },
    )?;
    let digest = Digest::of(&bytes);
    // Who asked for a digest gets that, or nothing. Otherwise it is the registry's word that
    // counts: what came may have been spoilt on the way.
    let expected = wanted.parse::<Digest>().ok().or(said.and_then(|said| said.parse().ok()));
    if let Some(expected) = expected.filter(|expected| *expected != digest) {
        let host = &registry.name;
        return Err(anyhow!("{host} sent {digest} for {expected}: not what was asked for; nothing was kept"));
    }
    let media_type = media_type_of(&registry.name, media_type.as_deref(), &bytes)?;
    let size = bytes.len() as u64;
    let descriptor = Descriptor { media_type, digest, size, platform: None, annotations: Default::default() };
    Ok(Fetched { descriptor, bytes })
}
// ANCHOR_END: manifest

/// What `bytes` are: the header says it; or they themselves, where a server knows nothing but
/// JSON.
fn media_type_of(host: &str, header: Option<&str>, bytes: &[u8]) -> Result<String> {
    let header = header.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_string();
    let known = |name: &str| INDEXES.contains(&name) || MANIFESTS.contains(&name);
    if known(&header) {
        return Ok(header);
    }
    ensure!(
        !header.contains("manifest.v1"),
        "this image has Docker's old format (schema 1), which nothing packs any more; look for a newer tag"
    );
    let not_json = || {
        let begin = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
        format!(
            "{host} answered {header:?} where a manifest was expected, beginning {begin:?}; is it a registry?"
        )
    };
    let json: serde_json::Value = serde_json::from_slice(bytes).with_context(not_json)?;
    match json["mediaType"].as_str() {
        Some(name) if known(name) => Ok(name.into()),
        None if json["manifests"].is_array() => Ok(INDEXES[0].into()),
        None if json["layers"].is_array() => Ok(MANIFESTS[0].into()),
        _ => Err(anyhow!(not_json())),
    }
}

/// Begins to load the blob `digest` from its byte `from` on. Returns from which byte on it
/// comes, for not every server can begin in the middle.
pub fn blob(
    registry: &Registry,
    repository: &str,
    digest: &Digest,
    from: u64,
) -> std::result::Result<(u64, impl Read + use<>), Trouble> {
    let mut request =
        Request::new(Method::GET, format!("/v2/{repository}/blobs/{digest}"), pull_scope(repository));
    if from > 0 {
        request = request.with(header::RANGE, format!("bytes={from}-"));
    }
    let response = registry.once(&request)?;
    let from = match response.status() {
        StatusCode::OK => 0,
        StatusCode::PARTIAL_CONTENT if begins_at(&response) == Some(from) => from,
        StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if from > 0 => {
            return blob_from_its_beginning(registry, repository, digest);
        }
        _ => return Err(registry.refusal(response).into()),
    };
    Ok((from, response.into_body().into_reader()))
}

fn blob_from_its_beginning(
    registry: &Registry,
    repository: &str,
    digest: &Digest,
) -> std::result::Result<(u64, ureq::BodyReader<'static>), Trouble> {
    let request =
        Request::new(Method::GET, format!("/v2/{repository}/blobs/{digest}"), pull_scope(repository));
    let response = registry.once(&request)?;
    if response.status() != StatusCode::OK {
        return Err(registry.refusal(response).into());
    }
    Ok((0, response.into_body().into_reader()))
}

/// `Content-Range: bytes 21010-47021/47022`. (RFC 9110, 14.4)
fn begins_at(response: &Response<Body>) -> Option<u64> {
    let range = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}
