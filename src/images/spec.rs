//! Day 12: what is in the files of an image. (OCI image-spec v1.1: manifest.md, image-index.md,
//! config.md, descriptor.md; Docker's formats differ in nothing but their media types.)
//!
//! A file is kept as the bytes that it came as, for its name is their digest. What is here
//! only reads them: fields that are not known are passed over.

use std::collections::BTreeMap;
use std::fmt::{self, Display};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::care::{HealthCheck, null_is_default};
use crate::error::Result;
use crate::images::digest::Digest;

/// No index, manifest or configuration is longer, in bytes. (Registries refuse longer
/// manifests; see distribution-spec, "Pushing Manifests".)
pub const LONGEST: u64 = 4 << 20;

/// The media types of lists of manifests, one for each platform.
pub const INDEXES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
/// The media types of manifests.
pub const MANIFESTS: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];
/// The media type of a configuration that we make.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// The media types of configurations of containers' images.
pub const CONFIGS: [&str; 2] = [CONFIG, "application/vnd.docker.container.image.v1+json"];
/// The media type of a layer that we make.
pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Where a file is named in an index.json: what a tag is called there. (annotations.md)
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// What index an image was chosen from, in our index.json: its digest. What a tag means in a
/// registry is the index, and what we keep is one image of it.
pub const FROM_INDEX: &str = "tiny-docker.index";

/// What one file says of another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What is in it.
    pub media_type: String,
    /// Its name.
    pub digest: Digest,
    /// How long it is, in bytes.
    pub size: u64,
    /// For what machine, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// What else is to be known of it.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// Does it lead to a list of manifests?
    pub fn is_index(&self) -> bool {
        INDEXES.contains(&self.media_type.as_str())
    }
}

/// A kind of machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// `amd64`, `arm64`: as Go calls them.
    pub architecture: String,
    /// `linux`.
    pub os: String,
    /// Of arm: `v6`, `v7`, `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// A list of manifests; and index.json of a layout.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// 2.
    pub schema_version: u32,
    /// One of [`INDEXES`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// In the order of preference.
    #[serde(default, deserialize_with = "null_is_default")]
    pub manifests: Vec<Descriptor>,
    /// What else is to be known of it.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// An image for one platform.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// 2.
    pub schema_version: u32,
    /// One of [`MANIFESTS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What to execute.
    pub config: Descriptor,
    /// The lowest first.
    #[serde(default, deserialize_with = "null_is_default")]
    pub layers: Vec<Descriptor>,
    /// What else is to be known of it.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// An image's configuration.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Config {
    /// When it was made, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// For what machine.
    #[serde(flatten)]
    pub platform: Platform,
    /// What a container of it is by default.
    #[serde(default, deserialize_with = "null_is_default")]
    pub config: Settings,
    /// What its layers are, unpacked.
    pub rootfs: RootFs,
    /// What made it, a line for each step, the oldest first.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Step>,
}

/// What a container of an image is by default.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Settings {
    /// `user`, `uid`, `user:group`, `uid:gid`, …; empty: root.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `80/tcp`.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// `NAME=VALUE`.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// What is always executed.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Its arguments, or the command, unless the user gives others.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Paths that are to be volumes.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Empty>,
    /// Where the command starts; empty: `/`.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Names and values that mean something to people and to other programs.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// `SIGTERM`, `15`; empty: SIGTERM.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// How to find out whether it is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthCheck>,
}

/// `{}`: what Go's sets have for a value in JSON.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Empty {}

/// What an image's layers are, unpacked.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RootFs {
    /// `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The digest of each layer's archive, not compressed; the lowest first.
    #[serde(default, deserialize_with = "null_is_default")]
    pub diff_ids: Vec<Digest>,
}

/// One step of how an image was made.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Step {
    /// When, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By what command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// By whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// It made no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// `oci-layout`. (image-layout.md)
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Layout {
    /// `1.0.0`.
    pub image_layout_version: String,
}

/// Reads one of these from the JSON in `bytes`. `what` is said when it is something else.
pub fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8], what: &str) -> Result<T> {
    serde_json::from_slice(bytes).with_context(|| {
        let begin = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        format!("{what}: expected JSON of the OCI image specification, found {begin:?}")
    })
}

impl Default for Platform {
    /// This machine's.
    fn default() -> Platform {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "aarch64" => ("arm64", Some("v8".into())),
            "arm" => ("arm", Some("v7".into())),
            "x86" => ("386", None),
            "powerpc64" => ("ppc64le", None),
            other => (other, None),
        };
        Platform { architecture: architecture.into(), os: "linux".into(), variant }
    }
}

impl Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}
