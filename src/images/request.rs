//! Day 12: one request, and what comes back.

use std::io::Read;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use ureq::http::{Method, Response, Uri, header};
use ureq::{Body, SendBody};

use crate::error::Result;
use crate::images::http::Http;
use crate::images::retry::Trouble;

/// One request.
#[derive(Clone)]
pub struct Request<'a> {
    /// GET, HEAD, POST, PUT.
    pub method: Method,
    /// `/v2/…`, or a whole URL that the registry has given out.
    pub path: String,
    /// For what a token is to be good: `repository:library/alpine:pull`.
    pub scope: String,
    /// What else goes along.
    pub headers: Vec<(header::HeaderName, String)>,
    /// What is sent.
    pub content: Content<'a>,
}

/// What is sent with a request.
#[derive(Clone, Copy)]
pub enum Content<'a> {
    /// Nothing.
    None,
    /// This.
    Bytes(&'a [u8]),
    /// All that this reads, and so many bytes of it: opened anew by each attempt.
    Stream(&'a dyn Fn() -> Result<(Box<dyn Read + 'a>, u64)>),
}

impl<'a> Request<'a> {
    /// A request without anything special.
    pub fn new(method: Method, path: String, scope: String) -> Request<'a> {
        Request { method, path, scope, headers: Vec::new(), content: Content::None }
    }

    /// The same, with a header more.
    pub fn with(mut self, name: header::HeaderName, value: impl Into<String>) -> Request<'a> {
        self.headers.push((name, value.into()));
        self
    }

    /// The same, with something to send.
    pub fn sending(mut self, content: Content<'a>) -> Request<'a> {
        self.content = content;
        self
    }
    /// Sends it to `url`.
    pub fn send(
        &self,
        http: &Http,
        url: &Uri,
        authorization: Option<&str>,
    ) -> std::result::Result<Response<Body>, ureq::Error> {
        let mut sent = ureq::http::Request::builder().method(&self.method).uri(url);
        for (name, value) in &self.headers {
            sent = sent.header(name, value);
        }
        if let Some(authorization) = authorization {
            sent = sent.header(header::AUTHORIZATION, authorization);
        }
        let agent = http.agent(url);
        match self.content {
            Content::None => agent.run(sent.body(())?),
            Content::Bytes(bytes) => agent.run(sent.body(bytes)?),
            Content::Stream(open) => {
                let (mut reader, length) = open().map_err(|error| ureq::Error::Other(error.into()))?;
                let sent = sent.header(header::CONTENT_LENGTH, length);
                agent.run(sent.body(SendBody::from_reader(&mut reader))?)
            }
        }
    }
}

/// Where `response` sends us; `None`: nowhere.
pub fn next(url: &Uri, request: &Request, response: &Response<Body>) -> Result<Option<Uri>> {
    let asks = matches!(request.method, Method::GET | Method::HEAD);
    let again = matches!(response.status().as_u16(), 301..=303 if asks)
        || matches!(response.status().as_u16(), 307 | 308);
    let Some(location) = response.headers().get(header::LOCATION).filter(|_| again) else { return Ok(None) };
    let location = String::from_utf8_lossy(location.as_bytes()).into_owned();
    join(url, &location).map(Some)
}

/// What `location` means in an answer from `url`. (RFC 3986, 5.2, but for dots in paths)
pub fn join(url: &Uri, location: &str) -> Result<Uri> {
    let scheme = url.scheme_str().unwrap_or("https");
    let host = url.authority().map(|authority| authority.as_str()).unwrap_or_default();
    let directory = url.path().rsplit_once('/').map_or("", |(directory, _)| directory);
    let text = match location {
        _ if location.starts_with("//") => format!("{scheme}:{location}"),
        _ if location.starts_with('/') => format!("{scheme}://{host}{location}"),
        _ if location.contains("://") => location.into(),
        _ => format!("{scheme}://{host}{directory}/{location}"),
    };
    let bad = || format!("{host} sends us to {text:?}: expected a URL");
    let joined: Uri = text.parse().with_context(bad)?;
    if !matches!(joined.scheme_str(), Some("https" | "http")) || joined.host().is_none() {
        bail!(bad());
    }
    Ok(joined)
}

/// When to come back: a number of seconds, or a time. (RFC 9110, 10.2.3)
pub fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let text = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let then = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    then.duration_since(jiff::Timestamp::now()).try_into().ok()
}

/// What a registry says in JSON about what was wrong; shortened, and without anything that a
/// terminal would obey. (distribution-spec, "Error Codes")
pub fn its_words(response: Response<Body>) -> String {
    let mut text = Vec::new();
    if response.into_body().into_reader().take(8 << 10).read_to_end(&mut text).is_err() {
        return String::new();
    }
    let Ok(said) = serde_json::from_slice::<serde_json::Value>(&text) else { return String::new() };
    let message = said["errors"][0]["message"].as_str().or(said["details"].as_str()).unwrap_or_default();
    if message.is_empty() {
        return String::new();
    }
    let words = message.escape_debug().to_string();
    format!(" ({words:.200})")
}

/// Reads all that comes, which is at most `longest` bytes.
pub fn read_all(response: Response<Body>, longest: u64, what: &str) -> std::result::Result<Vec<u8>, Trouble> {
    let too_long = || anyhow!("{what} is longer than {longest} bytes: that is none; nothing of it was kept");
    if response.body().content_length().is_some_and(|length| length > longest) {
        return Err(too_long().into());
    }
    let mut bytes = Vec::new();
    let read = response.into_body().into_reader().take(longest + 1).read_to_end(&mut bytes);
    read.map_err(|error| Trouble::of(error.into(), what))?;
    if bytes.len() as u64 > longest {
        return Err(too_long().into());
    }
    Ok(bytes)
}
