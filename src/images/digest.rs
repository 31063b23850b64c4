//! Day 12: digests. A file that is named by what is in it can come from anybody.

use std::fmt::{self, Display};
use std::str::FromStr;

use anyhow::bail;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `sha256:` and 64 hexadecimal digits: what every registry uses. (OCI image-spec,
/// descriptor.md, "Digests")
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(String);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::new();
        hasher.update(bytes);
        hasher.finish()
    }

    /// The 64 digits: the name of a file.
    pub fn hex(&self) -> &str {
        &self.0
    }
}

impl FromStr for Digest {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Digest, anyhow::Error> {
        let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        match text.strip_prefix("sha256:") {
            Some(hex) if hex.len() == 64 && hex.bytes().all(digit) => Ok(Digest(hex.into())),
            _ => bail!("the digest {text:?}: expected sha256: and 64 of the digits 0-9a-f"),
        }
    }
}

impl Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A digest in the making.
#[derive(Clone)]
pub struct Hasher(ring::digest::Context);

impl Hasher {
    /// Of nothing yet.
    pub fn new() -> Hasher {
        Hasher(ring::digest::Context::new(&ring::digest::SHA256))
    }

    /// What comes next.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all that came.
    pub fn finish(self) -> Digest {
        Digest(self.0.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl std::io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Default for Hasher {
    fn default() -> Hasher {
        Hasher::new()
    }
}

#[cfg(test)]
mod tests {
    use super::Digest;

    const OF_NOTHING: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_digest_is_what_sha256sum_says() {
        assert_eq!(Digest::of(b"").to_string(), OF_NOTHING);
    }

    #[test]
    fn nothing_else_is_a_digest() {
        assert!(OF_NOTHING.parse::<Digest>().is_ok());
        for bad in
            ["", "sha256:", "sha512:00", &OF_NOTHING.to_uppercase(), &OF_NOTHING[..70], "sha256:../../x"]
        {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
