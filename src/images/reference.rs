//! Day 12: the names of images. `alpine` is short for `docker.io/library/alpine:latest`.
//!
//! ```text
//! docker.io / library/alpine : 3.20  @ sha256:4bcff6…
//! registry    repository       tag     digest
//! ```
//!
//! The rules are Docker's: the grammar of github.com/distribution/reference, and what Docker
//! puts in where something is missing.

use std::fmt::{self, Display};
use std::str::FromStr;

use anyhow::{Context, bail, ensure};

use crate::error::Result;
use crate::images::digest::Digest;

/// Where images are from unless their name says otherwise.
pub const DOCKER_HUB: &str = "docker.io";

/// The whole name of an image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// Where it is from: a host, and perhaps a port.
    pub registry: String,
    /// Which one: `library/alpine`.
    pub repository: String,
    /// Which of them. `None` only if there is a digest.
    pub tag: Option<String>,
    /// Exactly which. With a tag as well, the digest decides.
    pub digest: Option<Digest>,
}

// ANCHOR: parse
impl FromStr for Reference {
    type Err = anyhow::Error;

    /// Reads `text` as Docker does, and puts in what goes without saying.
    fn from_str(text: &str) -> Result<Reference> {
        // ANCHOR: day12_task1_from_str_solution
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().with_context(|| wrong(text))?)),
            None => (text, None),
        };
        let (registry, rest) = split_registry(rest);
        // After the last slash: a colon before it is that of a port.
        let (repository, tag) = match rest.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
            _ => (rest, None),
        };
        let repository = match repository.contains('/') || registry != DOCKER_HUB {
            true => repository.to_string(),
            false => format!("library/{repository}"),
        };
        check_registry(registry).with_context(|| wrong(text))?;
        check_repository(&repository).with_context(|| wrong(text))?;
        tag.map_or(Ok(()), check_tag).with_context(|| wrong(text))?;
        let tag = tag.or(if digest.is_none() { Some("latest") } else { None });
        Ok(Reference { registry: registry.into(), repository, tag: tag.map(String::from), digest })
        // ANCHOR_END: day12_task1_from_str_solution
    }
}
// ANCHOR_END: parse

fn wrong(text: &str) -> String {
    format!("the image name {text:?}")
}

// ANCHOR: split_registry
/// Where `name` says it is from, and the rest of it. What stands before the first slash is
/// a registry only if it looks like a host: `docker.io`, `localhost`, `box:5000`; in `tom/web`
/// it is a person.
pub fn split_registry(name: &str) -> (&str, &str) {
    // ANCHOR: day12_task1_split_registry_solution
    match name.split_once('/') {
        // No repository has a capital letter, so what has one is a host.
        Some((host, rest))
            if host.contains(['.', ':'])
                || host == "localhost"
                || host.contains(|c: char| c.is_ascii_uppercase()) =>
        {
            // The name that the Hub had once.
            (if host == "index.docker.io" { DOCKER_HUB } else { host }, rest)
        }
        _ => (DOCKER_HUB, name),
    }
    // ANCHOR_END: day12_task1_split_registry_solution
}
// ANCHOR_END: split_registry

/// A host name or an IPv6 address in brackets, and perhaps a port.
pub fn check_registry(registry: &str) -> Result<()> {
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (registry, None),
    };
    let in_brackets = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let is_host = |host: &str| {
        let part = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !part.starts_with('-')
                && !part.ends_with('-')
        };
        host.len() <= 253 && host.split('.').all(part)
    };
    let fine = in_brackets.map_or_else(|| is_host(host), |host| host.parse::<std::net::Ipv6Addr>().is_ok());
    if !fine || port.is_some_and(|port| port.parse::<u16>().is_err()) {
        bail!("{registry:?} is no registry: expected a host, and perhaps a port, such as box.example:5000");
    }
    Ok(())
}

/// Lower-case words with `/` between them; within a word `.`, `_`, `__` or dashes.
fn check_repository(repository: &str) -> Result<()> {
    let outer = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let separates =
        |between: &str| matches!(between, "." | "_" | "__") || between.bytes().all(|byte| byte == b'-');
    let word = |word: &str| {
        word.bytes().next().is_some_and(outer)
            && word.bytes().last().is_some_and(outer)
            && word.split(|c: char| c.is_ascii() && outer(c as u8)).all(separates)
    };
    let advice = match repository.to_lowercase() != repository {
        true => "; names have no capital letters",
        false => "",
    };
    ensure!(
        repository.len() <= 255 && repository.split('/').all(word),
        "expected lower-case letters and digits, with single '.' or '_' or dashes between them and '/' \
         between words, such as library/alpine:3.20{advice}"
    );
    let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let last = repository.strip_prefix("library/").unwrap_or_default();
    ensure!(last.len() != 64 || !last.bytes().all(hex), "this is a digest: write NAME@sha256:{last}");
    Ok(())
}

/// Docker's rule for tags.
fn check_tag(tag: &str) -> Result<()> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let fine = tag.bytes().next().is_some_and(word)
        && tag.len() <= 128
        && tag.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'));
    ensure!(
        fine,
        "the tag {tag:?}: expected up to 128 letters, digits, '_', '.' and '-', the first no '.' or '-'"
    );
    Ok(())
}

impl Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        self.tag.iter().try_for_each(|tag| write!(f, ":{tag}"))?;
        self.digest.iter().try_for_each(|digest| write!(f, "@{digest}"))
    }
}

impl Reference {
    /// As people write it, without what goes without saying: `alpine:latest`.
    pub fn familiar(&self) -> String {
        let whole = self.to_string();
        let short = whole.strip_prefix("docker.io/").unwrap_or(&whole);
        short.strip_prefix("library/").filter(|rest| !rest.contains('/')).unwrap_or(short).into()
    }

    /// What to ask the registry for: the digest if there is one, else the tag.
    pub fn wanted(&self) -> String {
        let tag = || self.tag.clone().unwrap_or_else(|| "latest".into());
        self.digest.as_ref().map_or_else(tag, Digest::to_string)
    }
}

#[cfg(test)]
mod tests {
    use super::Reference;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn whole(text: &str) -> Result<String, String> {
        text.parse::<Reference>().map(|name| name.to_string()).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn what_goes_without_saying_is_put_in() {
        for (short, long) in [
            ("alpine", "docker.io/library/alpine:latest"),
            ("alpine:3.20", "docker.io/library/alpine:3.20"),
            ("tom/web", "docker.io/tom/web:latest"),
            ("docker.io/alpine", "docker.io/library/alpine:latest"),
            ("index.docker.io/alpine", "docker.io/library/alpine:latest"),
            ("localhost/web", "localhost/web:latest"),
            ("localhost:5000/web", "localhost:5000/web:latest"),
            ("box.example/web/of/tom:1", "box.example/web/of/tom:1"),
            ("[::1]:5000/web", "[::1]:5000/web:latest"),
            ("Box/web", "Box/web:latest"),
            ("a_b__c--d.e", "docker.io/library/a_b__c--d.e:latest"),
            // A tag, not a port: nothing follows that could be a repository.
            ("box:5000", "docker.io/library/box:5000"),
        ] {
            assert_eq!(whole(short).as_deref(), Ok(long));
        }
    }

    #[test]
    fn a_digest_needs_no_tag_and_may_have_one() {
        for name in [format!("alpine@{DIGEST}"), format!("alpine:3.20@{DIGEST}")] {
            assert_eq!(whole(&name), Ok(format!("docker.io/library/{name}")));
            let name: Reference = name.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(name.wanted(), DIGEST);
        }
    }

    #[test]
    fn a_name_is_short_again_for_people() {
        for name in ["alpine:latest", "tom/web:1", "localhost:5000/web:latest"] {
            assert_eq!(name.parse::<Reference>().map(|name| name.familiar()).ok().as_deref(), Some(name));
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let words = "/ : @ :3 alpine: alpine@ alpine@sha256:12 alpine@latest -a a- a..b a___b a_.b a//b /a a/ \
            ../../etc a/../b alpine:.x alpine:a/b box:x/web box:99999/web -box.example/web böx [::1/web [x]/web \
            https://box.example/web";
        let long = ["a".repeat(256), format!("alpine:{}", "a".repeat(129))];
        let digest_alone = &DIGEST[7..];
        let others = ["", "al pine", "alpine\n", digest_alone, &long[0], &long[1]];
        for bad in words.split_whitespace().chain(others) {
            assert!(whole(bad).is_err(), "{bad:?}: {:?}", whole(bad));
        }
    }

    #[test]
    fn capitals_are_what_is_wrong() {
        for bad in ["Alpine", "tom/Web", "box.example/Web:1"] {
            let said = whole(bad).expect_err(bad);
            assert!(said.contains(&format!("{bad:?}")) && said.contains("no capital letters"), "{said}");
        }
    }
}
