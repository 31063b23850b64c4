//! Day 12: the token dance. A registry that wants to know who asks answers 401 and says where
//! to go; there a token is handed out, for a while and for what is asked; with the token, the
//! same request again. Nobody logs in for that: Docker Hub wants it for public images too.
//!
//! ```text
//! GET registry-1.docker.io/v2/library/alpine/manifests/latest
//!   401  WWW-Authenticate: Bearer realm="https://auth.docker.io/token",
//!          service="registry.docker.io",scope="repository:library/alpine:pull"
//! GET auth.docker.io/token?service=registry.docker.io&scope=repository:library/alpine:pull
//!   200  {"token": "eyJhbGciOi…", "expires_in": 300}
//! GET registry-1.docker.io/v2/library/alpine/manifests/latest
//!   Authorization: Bearer eyJhbGciOi…
//! ```
//!
//! (distribution.github.io/distribution/spec/auth/token; RFC 9110, 11)

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::error::Result;

/// How long a token is good for that does not say so. (The specification of tokens)
const LIFE: u64 = 60;

/// How a registry wants to be told who asks.
#[derive(Debug, Clone, PartialEq)]
pub enum Challenge {
    /// By name and password, with each request.
    Basic,
    /// By a token.
    Bearer {
        /// The URL that hands tokens out.
        realm: String,
        /// What it calls this registry.
        service: Option<String>,
        /// For what, if it is not what was meant to be asked for.
        scope: Option<String>,
    },
}

/// What goes into the header `Authorization`, and until when.
#[derive(Debug, Clone)]
pub struct Authorization {
    /// The header.
    pub header: String,
    /// `None`: for as long as this process lives.
    pub until: Option<Instant>,
}

impl Authorization {
    /// Can it still be used? Not in its last seconds: it is to arrive in time.
    pub fn is_good(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() + Duration::from_secs(5) < until)
    }
}

/// What the service of tokens has answered.
pub fn read_answer(text: &[u8], asked_at: Instant) -> Result<Authorization> {
    let answer: Value = serde_json::from_slice(text).context("expected JSON with a token")?;
    // Some give both names, with the same token.
    let token = ["token", "access_token"].iter().find_map(|name| answer[*name].as_str()).unwrap_or_default();
    let fine = |byte: u8| byte.is_ascii_graphic();
    ensure!(!token.is_empty() && token.bytes().all(fine), "expected JSON with a token, and it has none");
    let life = Duration::from_secs(answer["expires_in"].as_u64().unwrap_or(LIFE).min(86400));
    Ok(Authorization { header: format!("Bearer {token}"), until: asked_at.checked_add(life) })
}

// ANCHOR: challenges
/// All that the header `WWW-Authenticate` asks for and that we know. It is a list, with commas
/// between its elements and between the parameters of each: `Basic realm="x", Bearer
/// realm="y",service="z"`. What has no `=` in it begins the next one. (RFC 9110, 11.6.1)
pub fn challenges(header: &str) -> Vec<Challenge> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    for part in split_outside_quotes(header) {
        let part = part.trim();
        let (before, value) = part.split_once('=').unwrap_or((part, ""));
        let mut words = before.split_whitespace();
        let (first, second) = (words.next(), words.next());
        let name = match (first, second, part.contains('=')) {
            (Some(scheme), Some(name), _) => {
                found.push((scheme.to_ascii_lowercase(), Vec::new()));
                name
            }
            (Some(scheme), None, false) => {
                found.push((scheme.to_ascii_lowercase(), Vec::new()));
                continue;
            }
            (Some(name), None, true) => name,
            (None, ..) => continue,
        };
        if let Some((_, parameters)) = found.last_mut() {
            parameters.push((name.to_ascii_lowercase(), unquote(value.trim())));
        }
    }
    found.into_iter().filter_map(|(scheme, parameters)| challenge(&scheme, &parameters)).collect()
}
// ANCHOR_END: challenges

fn challenge(scheme: &str, parameters: &[(String, String)]) -> Option<Challenge> {
    let get = |wanted: &str| {
        let found = parameters.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.clone())
    };
    match scheme {
        "basic" => Some(Challenge::Basic),
        "bearer" => {
            Some(Challenge::Bearer { realm: get("realm")?, service: get("service"), scope: get("scope") })
        }
        _ => None,
    }
}

/// `text` at its commas, but for those in quotation marks.
fn split_outside_quotes(text: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |c| {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        c == ',' && !quoted
    })
}

fn unquote(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return value.into();
    };
    let mut text = String::new();
    let mut escaped = false;
    for c in inner.chars() {
        escaped = c == '\\' && !escaped;
        if !escaped {
            text.push(c);
        }
    }
    text
}

/// `text` as a part of a URL or of a form.
pub fn percent(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte.is_ascii_alphanumeric() || b"-._~:/".contains(&byte) {
            true => encoded.push(byte as char),
            false => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::{Challenge, challenges, percent, read_answer};

    #[test]
    fn docker_hub_says_where_its_tokens_are() {
        let header = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull,push""#;
        let expected = Challenge::Bearer {
            realm: "https://auth.docker.io/token".into(),
            service: Some("registry.docker.io".into()),
            scope: Some("repository:library/alpine:pull,push".into()),
        };
        assert_eq!(challenges(header), [expected]);
    }

    #[test]
    fn a_header_may_offer_several_and_some_that_nobody_knows() {
        let bearer = |realm: &str| Challenge::Bearer { realm: realm.into(), service: None, scope: None };
        for (header, expected) in [
            (r#"Basic realm="x", Bearer realm="y""#, vec![Challenge::Basic, bearer("y")]),
            (r#"Negotiate, BEARER Realm=y , basic"#, vec![bearer("y"), Challenge::Basic]),
            (r#"Digest realm="a, Basic", nonce="b""#, vec![]),
            (r#"Bearer realm="a\"b,c""#, vec![bearer("a\"b,c")]),
            ("Bearer", vec![]),
            ("", vec![]),
            (",,=,\"", vec![]),
        ] {
            assert_eq!(challenges(header), expected, "{header}");
        }
    }

    #[test]
    fn a_token_has_one_of_two_names_and_a_life() {
        let now = Instant::now();
        for answer in [r#"{"token": "abc"}"#, r#"{"access_token": "abc", "token": "abc", "expires_in": 300}"#]
        {
            let authorization = read_answer(answer.as_bytes(), now).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(authorization.header, "Bearer abc");
            assert!(authorization.is_good());
        }
        for bad in ["", "<html>", "{}", r#"{"token": ""}"#, "{\"token\": \"a\\r\\nX: y\"}", "[]"] {
            assert!(read_answer(bad.as_bytes(), now).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_goes_into_a_url_ends_no_parameter() {
        assert_eq!(percent("a&b=c d/e:f"), "a%26b%3Dc%20d/e:f");
    }
}
