//! What the kernel takes is bytes, and JSON is text. What is UTF-8 becomes a string;
//! anything else a list of its bytes, so that it comes back as it was.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Word {
    Text(String),
    Bytes(Vec<u8>),
}

impl From<&OsStr> for Word {
    fn from(word: &OsStr) -> Word {
        match word.to_str() {
            Some(text) => Word::Text(text.into()),
            None => Word::Bytes(word.as_bytes().into()),
        }
    }
}

impl From<Word> for OsString {
    fn from(word: Word) -> OsString {
        match word {
            Word::Text(text) => text.into(),
            Word::Bytes(bytes) => OsString::from_vec(bytes),
        }
    }
}

pub mod list {
    use super::*;
    use serde::{Deserializer, Serializer};

    pub fn serialize<S: Serializer>(words: &[OsString], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(words.iter().map(|word| Word::from(word.as_os_str())))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<OsString>, D::Error> {
        Ok(Vec::<Word>::deserialize(deserializer)?.into_iter().map(OsString::from).collect())
    }
}

pub mod path {
    use super::*;
    use serde::{Deserializer, Serializer};
    use std::path::PathBuf;

    pub fn serialize<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
        path.as_ref().map(|path| Word::from(path.as_os_str())).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
        Ok(Option::<Word>::deserialize(deserializer)?.map(|word| OsString::from(word).into()))
    }
}

pub mod one_path {
    use super::*;
    use serde::{Deserializer, Serializer};
    use std::path::{Path, PathBuf};

    pub fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        Word::from(path.as_os_str()).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        Ok(OsString::from(Word::deserialize(deserializer)?).into())
    }
}

pub mod paths {
    use super::*;
    use serde::{Deserializer, Serializer};
    use std::path::PathBuf;

    pub fn serialize<S: Serializer>(paths: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(paths.iter().map(|path| Word::from(path.as_os_str())))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
        Ok(Vec::<Word>::deserialize(deserializer)?
            .into_iter()
            .map(|word| OsString::from(word).into())
            .collect())
    }
}

/// As execve(2) takes it: `NAME=VALUE`.
pub mod environment {
    use super::*;
    use serde::{Deserializer, Serializer};
    use std::collections::BTreeMap;

    type Environment = BTreeMap<OsString, OsString>;

    pub fn serialize<S: Serializer>(all: &Environment, serializer: S) -> Result<S::Ok, S::Error> {
        let entry = |(name, value): (&OsString, &OsString)| {
            [name.as_os_str(), OsStr::new("="), value].into_iter().collect()
        };
        list::serialize(&all.iter().map(entry).collect::<Vec<OsString>>(), serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Environment, D::Error> {
        let split = |entry: OsString| {
            // A name may begin with '=', and has at least one byte.
            let at = entry.as_bytes().iter().skip(1).position(|byte| *byte == b'=');
            let (name, value) = entry.as_bytes().split_at(at.map_or(entry.len(), |at| at + 1));
            (
                OsStr::from_bytes(name).to_owned(),
                OsStr::from_bytes(value.strip_prefix(b"=").unwrap_or(value)).to_owned(),
            )
        };
        Ok(list::deserialize(deserializer)?.into_iter().map(split).collect())
    }
}
