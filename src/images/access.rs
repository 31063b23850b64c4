//! Day 12: being let in: by name and password, or by a token. ([`crate::images::token`])

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use anyhow::{Context, anyhow};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ureq::Body;
use ureq::http::{Method, Response, StatusCode, Uri, header};

use crate::error::Result;
use crate::images::auth::ConfigFile;
use crate::images::helper::Credentials;
use crate::images::http::Http;
use crate::images::request::{Content, Request, its_words, read_all, retry_after};
use crate::images::retry::Trouble;
use crate::images::token::{Authorization, Challenge, challenges, percent, read_answer};

/// No answer with a token is longer, in bytes.
const LONGEST: u64 = 1 << 20;

/// Who we are to a registry, and what it has let us in with.
#[derive(Debug)]
pub struct Access {
    registry: String,
    /// Looked up only if the registry wants to know: a helper may have to ask a person.
    credentials: OnceLock<Option<Credentials>>,
    /// By scope.
    authorizations: Mutex<BTreeMap<String, Authorization>>,
}

impl Access {
    /// As Docker's configuration file says.
    pub fn new(registry: &str) -> Access {
        Access { registry: registry.into(), credentials: OnceLock::new(), authorizations: Mutex::default() }
    }

    /// As `credentials` say: to try them out.
    pub fn with(registry: &str, credentials: Credentials) -> Access {
        Access { credentials: OnceLock::from(Some(credentials)), ..Access::new(registry) }
    }

    /// Have we said who we are?
    pub fn is_somebody(&self) -> bool {
        matches!(self.credentials.get(), Some(Some(_)))
    }

    /// What the registry let us in with before, for this scope.
    pub fn known(&self, scope: &str) -> Option<String> {
        let known = self.authorizations.lock().unwrap_or_else(PoisonError::into_inner);
        let good = known.get(scope).filter(|authorization| authorization.is_good());
        good.map(|authorization| authorization.header.clone())
    }

    // ANCHOR: authorize
    /// The header that lets us in, after `response`, which was 401 to a request that had
    /// `rejected`. Whoever needs the same meanwhile, in another thread, waits and has it too.
    pub fn authorize(
        &self,
        http: &Http,
        scope: &str,
        response: &Response<Body>,
        rejected: Option<&str>,
    ) -> std::result::Result<String, Trouble> {
        let mut known = self.authorizations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(other) = known.get(scope).filter(|known| known.is_good())
            && Some(other.header.as_str()) != rejected
        {
            return Ok(other.header.clone());
        }
        let credentials = self.credentials()?;
        let headers = response.headers().get_all(header::WWW_AUTHENTICATE).iter();
        let offered: Vec<Challenge> =
            headers.flat_map(|header| challenges(&String::from_utf8_lossy(header.as_bytes()))).collect();
        let bearer = offered.iter().find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
        let new = match (bearer.or(offered.first()), credentials) {
            (Some(Challenge::Bearer { realm, service, scope: wanted }), credentials) => {
                let scope = wanted.as_deref().unwrap_or(scope);
                self.fetch_token(http, realm, service.as_deref(), scope, credentials.as_ref())?
            }
            (Some(Challenge::Basic), Some(Credentials::Password { user, password })) => {
                Authorization { header: basic(&user, &password), until: None }
            }
            _ => return Err(self.not_let_in("").into()),
        };
        known.insert(scope.into(), new.clone());
        Ok(new.header)
    }
    // ANCHOR_END: authorize

    fn credentials(&self) -> Result<Option<Credentials>> {
        if let Some(known) = self.credentials.get() {
            return Ok(known.clone());
        }
        let found = ConfigFile::read()?.credentials(&self.registry)?;
        Ok(self.credentials.get_or_init(|| found).clone())
    }

    /// Asks the service `realm` for a token.
    fn fetch_token(
        &self,
        http: &Http,
        realm: &str,
        service: Option<&str>,
        scope: &str,
        credentials: Option<&Credentials>,
    ) -> std::result::Result<Authorization, Trouble> {
        let url: Uri = realm
            .parse()
            .with_context(|| format!("{}: its tokens are at {realm:?}, which is no URL", self.registry))?;
        if url.scheme_str() != Some("https") && !http.may_be_plain {
            let registry = &self.registry;
            return Err(anyhow!("{registry}: its tokens are at {url}, which is not protected by TLS").into());
        }
        let mut query: Vec<(&str, &str)> = Vec::new();
        query.extend(service.map(|service| ("service", service)));
        query.extend(scope.split(' ').filter(|scope| !scope.is_empty()).map(|scope| ("scope", scope)));
        let asked_at = Instant::now();
        let response = match credentials {
            Some(Credentials::IdentityToken(token)) => {
                query.extend([
                    ("grant_type", "refresh_token"),
                    ("refresh_token", token),
                    ("client_id", "tiny-docker"),
                ]);
                send_form(http, &url, &encode(&query))
            }
            _ => send_query(http, &url, &encode(&query), credentials),
        };
        let host = url.host().unwrap_or_default();
        let response = response.map_err(|error| Trouble::of(error, host))?;
        self.read_token(response, asked_at, host)
    }

    fn read_token(
        &self,
        response: Response<Body>,
        asked_at: Instant,
        host: &str,
    ) -> std::result::Result<Authorization, Trouble> {
        let status = response.status();
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            let after = retry_after(&response);
            let error = anyhow!("{host}, which hands out tokens, answered {status}{}", its_words(response));
            return Err(Trouble::Passing { error, after, cost: 1 });
        }
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST) {
            return Err(self.not_let_in(&its_words(response)).into());
        }
        if !status.is_success() {
            let words = its_words(response);
            return Err(anyhow!("{host}, which hands out tokens, answered {status}{words}").into());
        }
        let text = read_all(response, LONGEST, "a token")?;
        Ok(read_answer(&text, asked_at).with_context(|| format!("{host}, which hands out tokens"))?)
    }

    fn not_let_in(&self, words: &str) -> anyhow::Error {
        let registry = &self.registry;
        match self.is_somebody() {
            true => anyhow!(
                "{registry} does not accept this name and password{words}; log in anew: \
                 tiny-docker login {registry}"
            ),
            false => {
                anyhow!("{registry} wants to know who asks{words}; log in: tiny-docker login {registry}")
            }
        }
    }
}

/// The header of a name and a password. (RFC 7617)
fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

fn encode(parameters: &[(&str, &str)]) -> String {
    let pairs: Vec<String> =
        parameters.iter().map(|(name, value)| format!("{name}={}", percent(value))).collect();
    pairs.join("&")
}

fn send_query(
    http: &Http,
    url: &Uri,
    query: &str,
    credentials: Option<&Credentials>,
) -> std::result::Result<Response<Body>, ureq::Error> {
    let separator = if url.query().is_some() { "&" } else { "?" };
    let url: Uri = format!("{url}{separator}{query}").parse().map_err(ureq::http::Error::from)?;
    let header = match credentials {
        Some(Credentials::Password { user, password }) => Some(basic(user, password)),
        _ => None,
    };
    Request::new(Method::GET, String::new(), String::new()).send(http, &url, header.as_deref())
}

fn send_form(http: &Http, url: &Uri, form: &str) -> std::result::Result<Response<Body>, ureq::Error> {
    Request::new(Method::POST, String::new(), String::new())
        .with(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .sending(Content::Bytes(form.as_bytes()))
        .send(http, url, None)
}
