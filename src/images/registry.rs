//! Day 12: a registry hands out files, by HTTP. (OCI distribution-spec v1.1)
//!
//! ```text
//! GET /v2/library/alpine/manifests/latest       a list of manifests, or one; by tag or digest
//! GET /v2/library/alpine/blobs/sha256:4bcff6…   a configuration, a layer; by digest
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use anyhow::{Context, anyhow};
use ureq::Body;
use ureq::http::{Response, StatusCode, Uri};

use crate::error::Result;
use crate::images::access::Access;
use crate::images::http::{Connection, Http};
use crate::images::progress::Progress;
use crate::images::reference::DOCKER_HUB;
use crate::images::request::{Request, its_words, next, retry_after};
use crate::images::retry::{self, Trouble, again, speaks_no_tls};

/// How often a registry may send us elsewhere for one request.
const REDIRECTS: usize = 10;

/// A registry, and who we are to it.
pub struct Registry {
    /// As it is in names.
    pub name: String,
    /// As it is on the network.
    pub host: String,
    /// How it is reached.
    pub http: Http,
    /// It has no TLS, which was allowed; and whether that is known by now.
    plain: AtomicBool,
    settled: AtomicBool,
    /// Who we are to it.
    pub access: Access,
    /// Who is told of what goes wrong, and is tried again.
    pub progress: Arc<Progress>,
}

impl Registry {
    /// The registry that is called `name` in the names of images. Nothing is sent yet.
    pub fn open(name: &str, connection: &Connection, progress: Arc<Progress>) -> Result<Registry> {
        let host = if name == DOCKER_HUB { "registry-1.docker.io" } else { name };
        Ok(Registry {
            name: name.into(),
            host: host.into(),
            http: connection.open(host)?,
            plain: AtomicBool::new(false),
            settled: AtomicBool::new(false),
            access: Access::new(name),
            progress,
        })
    }

    /// Sends `request`, as often as it takes. What comes back may be a refusal still.
    pub fn ask(&self, request: &Request) -> Result<Response<Body>> {
        self.again(|_| self.once(request))
    }

    /// Does `attempt` until it works, and tells of what did not.
    pub fn again<T>(
        &self,
        attempt: impl FnMut(&mut retry::Tries) -> std::result::Result<T, Trouble>,
    ) -> Result<T> {
        again(|words| self.progress.note(words), attempt)
    }

    // ANCHOR: once
    /// Sends `request` once; and once more, with a proof of who asks, if that is wanted.
    pub fn once(&self, request: &Request) -> std::result::Result<Response<Body>, Trouble> {
        let known = self.access.known(&request.scope);
        let mut response = self.follow(request, known.as_deref())?;
        if response.status() == StatusCode::UNAUTHORIZED {
            let header = self.access.authorize(&self.http, &request.scope, &response, known.as_deref())?;
            response = self.follow(request, Some(&header))?;
        }
        let status = response.status();
        if status == StatusCode::TOO_MANY_REQUESTS
            || status == StatusCode::REQUEST_TIMEOUT
            || status.is_server_error()
        {
            let after = retry_after(&response);
            return Err(Trouble::Passing { error: self.refusal(response), after, cost: 1 });
        }
        Ok(response)
    }
    // ANCHOR_END: once

    // ANCHOR: follow
    /// Sends `request`, and goes where the registry sends it. `authorization` is for the
    /// registry alone: blobs often lie with somebody else, and the URL says all that one needs
    /// to know. Once elsewhere, it does not come back with it either.
    pub fn follow(
        &self,
        request: &Request,
        mut authorization: Option<&str>,
    ) -> std::result::Result<Response<Body>, Trouble> {
        let mut url = self.url(&request.path)?;
        let mut registry = self.url("/v2/")?;
        let mut left = REDIRECTS;
        loop {
            if (url.scheme(), url.authority()) != (registry.scheme(), registry.authority()) {
                authorization = None;
            }
            let response = match request.send(&self.http, &url, authorization) {
                Err(error) if registry.scheme_str() == Some("https") && self.try_without_tls(&error) => {
                    (url, registry) = (self.url(&request.path)?, self.url("/v2/")?);
                    continue;
                }
                sent => sent.map_err(|error| Trouble::of(error, url.host().unwrap_or_default()))?,
            };
            self.settled.store(true, Relaxed);
            let Some(next) = next(&url, request, &response)? else { return Ok(response) };
            url = next;
            if url.scheme_str() != Some("https") && !self.http.may_be_plain {
                return Err(anyhow!("{} sends us to {url}, which is not protected by TLS", self.host).into());
            }
            let host = &self.host;
            left = left.checked_sub(1).with_context(|| {
                format!("{host} sends us from one place to the next, {REDIRECTS} times; gave up")
            })?;
        }
    }
    // ANCHOR_END: follow

    /// Nobody there speaks TLS: without it then, if that is allowed. Another thread may have
    /// found that out already, since this one asked.
    fn try_without_tls(&self, error: &ureq::Error) -> bool {
        let undecided = !self.settled.load(Relaxed) || self.plain.load(Relaxed);
        let without = undecided && self.http.may_be_plain && speaks_no_tls(error);
        if without {
            self.plain.store(true, Relaxed);
        }
        without
    }

    /// The URL of `path`, which may be one already.
    pub fn url(&self, path: &str) -> Result<Uri> {
        let scheme = if self.plain.load(Relaxed) { "http" } else { "https" };
        let text = match path.starts_with('/') {
            true => format!("{scheme}://{}{path}", self.host),
            false => path.into(),
        };
        text.parse().with_context(|| format!("the registry {}: {text:?} is no URL", self.host))
    }

    /// Why the registry does not do what was asked, in its own words too.
    pub fn refusal(&self, response: Response<Body>) -> anyhow::Error {
        let status = response.status();
        let words = its_words(response);
        let host = &self.name;
        let who = if self.access.is_somebody() { "you" } else { "those who are not logged in" };
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => anyhow!(
                "{host} does not let {who} do this, or has nothing of this name{words}; check the name, \
                 or log in: tiny-docker login {host}"
            ),
            StatusCode::NOT_FOUND => anyhow!("{host} has no such image{words}; check its name and tag"),
            StatusCode::TOO_MANY_REQUESTS => anyhow!("{host} has had too many requests from here{words}"),
            status => anyhow!("{host} answered {status}{words}"),
        }
    }
}
