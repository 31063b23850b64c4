//! Day 12: the names of images.

use std::fmt::{self, Display};
use std::str::FromStr;

use anyhow::bail;

use crate::images::digest::Digest;

/// The whole name of an image: `docker.io/library/alpine:latest`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// Where it is from: a host, and perhaps a port.
    pub registry: String,
    /// Which one: `library/alpine`.
    pub repository: String,
    /// Which of them; `None` only if there is a digest.
    pub tag: Option<String>,
    /// Exactly which.
    pub digest: Option<Digest>,
}

impl FromStr for Reference {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Reference, anyhow::Error> {
        bail!("{text}: names come next")
    }
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
        short.strip_prefix("library/").unwrap_or(short).into()
    }
}
