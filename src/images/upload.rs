//! Day 12: what goes to a registry. (distribution-spec, "Pushing blobs": POST, then PUT)

use std::cell::Cell;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use anyhow::{Context, anyhow};
use ureq::http::{Method, StatusCode, Uri, header};

use crate::error::Result;
use crate::explain::step;
use crate::images::DAY;
use crate::images::digest::Digest;
use crate::images::registry::Registry;
use crate::images::request::{Content, Request, join};
use crate::images::retry::Trouble;
use crate::images::spec::Descriptor;
use crate::images::store::Store;
use crate::images::token::percent;

/// From where to where blobs are sent.
#[derive(Clone, Copy)]
pub struct Upload<'a> {
    /// To here,
    pub registry: &'a Registry,
    /// into this repository,
    pub repository: &'a str,
    /// from here.
    pub store: &'a Store,
    /// Other repositories of the registry that may have some of it already.
    pub elsewhere: &'a [(Digest, String)],
}

/// How a blob has come to be there.
#[derive(Debug, Clone, PartialEq)]
pub enum Sent {
    /// It was.
    Already,
    /// The registry has it from this repository of its own.
    Mounted(String),
    /// It was sent.
    Pushed,
}

impl Upload<'_> {
    fn request<'r>(&self, method: Method, path: String) -> Request<'r> {
        Request::new(method, path, format!("repository:{}:pull,push", self.repository))
    }

    // ANCHOR: blob
    /// Sends a blob, unless it is there, or in another repository of the registry. `tell` is told
    /// how much has gone, in bytes.
    pub fn blob(&self, blob: &Descriptor, stop: &AtomicBool, tell: &dyn Fn(u64)) -> Result<Sent> {
        let (repository, digest) = (self.repository, &blob.digest);
        let look = self.request(Method::HEAD, format!("/v2/{repository}/blobs/{digest}"));
        let there = self.registry.ask(&look)?;
        match there.status() {
            StatusCode::OK => return Ok(Sent::Already),
            StatusCode::NOT_FOUND => {}
            _ => return Err(self.registry.refusal(there)),
        }
        if let Some((_, other)) = self.elsewhere.iter().find(|(known, _)| known == digest)
            && self.mount(digest, other)?
        {
            return Ok(Sent::Mounted(other.clone()));
        }
        let url = self.registry.url(&format!("/v2/{repository}/blobs/uploads/"))?;
        let describe = || {
            let call = format!("POST {url}, then PUT {} bytes of {digest} where it says", blob.size);
            (call, format!("curl -X POST {url}; curl -X PUT --data-binary @… '…?digest={digest}'"))
        };
        // An upload that broke off begins anew, with a place of its own.
        let send = || self.registry.again(|_| self.send(blob, stop, tell));
        step(DAY, describe, send).map(|()| Sent::Pushed)
    }
    // ANCHOR_END: blob

    /// Has the registry take the blob from its repository `other`. Returns whether it did: it need
    /// not, and whoever may push here need not be allowed to pull there. Then it is sent.
    /// (distribution-spec, "Mounting a blob from another repository")
    fn mount(&self, digest: &Digest, other: &str) -> Result<bool> {
        let path = format!("/v2/{}/blobs/uploads/?mount={digest}&from={}", self.repository, percent(other));
        let url = self.registry.url(&path)?;
        let mut request = self.request(Method::POST, path).sending(Content::Bytes(b""));
        request.scope += &format!(" repository:{other}:pull");
        let describe = || (format!("POST {url}"), format!("curl -X POST '{url}'"));
        let answer = step(DAY, describe, || self.registry.ask(&request));
        Ok(answer.is_ok_and(|answer| answer.status() == StatusCode::CREATED))
    }

    fn send(
        &self,
        blob: &Descriptor,
        stop: &AtomicBool,
        tell: &dyn Fn(u64),
    ) -> std::result::Result<(), Trouble> {
        let path = format!("/v2/{}/blobs/uploads/", self.repository);
        let begin = self.request(Method::POST, path).sending(Content::Bytes(b""));
        let began = self.registry.once(&begin)?;
        if began.status() != StatusCode::ACCEPTED {
            return Err(self.registry.refusal(began).into());
        }
        let place = began.headers().get(header::LOCATION).and_then(|place| place.to_str().ok());
        let place = place.with_context(|| format!("{} does not say where to send it", self.registry.host))?;
        let base: Uri = self.registry.url("/v2/")?;
        let place = join(&base, place)?.to_string();
        let separator = if place.contains('?') { '&' } else { '?' };
        let open = || {
            let file = self.store.open_blob(&blob.digest)?;
            let reader = Counted { inner: file, sent: Cell::new(0), tell, stop };
            Ok((Box::new(reader) as Box<dyn Read>, blob.size))
        };
        let request = self
            .request(Method::PUT, format!("{place}{separator}digest={}", blob.digest))
            .with(header::CONTENT_TYPE, "application/octet-stream")
            .sending(Content::Stream(&open));
        let sent = self.registry.once(&request)?;
        match sent.status() {
            StatusCode::CREATED | StatusCode::NO_CONTENT => Ok(()),
            _ => Err(self.registry.refusal(sent).into()),
        }
    }

    /// Sends a manifest: from here on, `tag` means it there.
    pub fn manifest(&self, manifest: &Descriptor, bytes: &[u8], tag: &str) -> Result<()> {
        let path = format!("/v2/{}/manifests/{tag}", self.repository);
        let url = self.registry.url(&path)?;
        let request = self
            .request(Method::PUT, path)
            .with(header::CONTENT_TYPE, &manifest.media_type)
            .sending(Content::Bytes(bytes));
        let describe = || (format!("PUT {url}"), format!("curl -X PUT --data-binary @… {url}"));
        let response = step(DAY, describe, || self.registry.ask(&request))?;
        match response.status() {
            StatusCode::CREATED | StatusCode::OK | StatusCode::ACCEPTED => Ok(()),
            _ => Err(self.registry.refusal(response)),
        }
    }
}

/// Tells how much of it has been read.
struct Counted<'a, R> {
    inner: R,
    sent: Cell<u64>,
    tell: &'a dyn Fn(u64),
    stop: &'a AtomicBool,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Relaxed) {
            return Err(io::Error::other(anyhow!("another layer failed")));
        }
        let count = self.inner.read(buffer)?;
        self.sent.set(self.sent.get() + count as u64);
        (self.tell)(self.sent.get());
        Ok(count)
    }
}
