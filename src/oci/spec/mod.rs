//! Day 18: a bundle's `config.json`, as the engines write it. (OCI runtime-spec 1.3, config.md and
//! config-linux.md)
//!
//! The structs have the specification's names. What is not in them is no error: the specification has
//! every runtime ignore what it does not know. (config.md, "Extensibility")

pub mod linux;
mod null;
pub mod process;
pub mod resources;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::error::Result;

use self::linux::{IdMapping, Linux};
use self::null::or_null;
use self::process::Process;

/// The newest version of the specification that is known here.
pub const VERSION: &str = "1.3.0";

/// The file of a bundle that says it all.
pub const CONFIG: &str = "config.json";

/// More than any engine writes.
const LARGEST: u64 = 16 << 20;

// ANCHOR: spec
/// What a container is to be.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// The version of the specification.
    pub oci_version: String,
    /// What runs in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// What becomes its `/`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<Root>,
    /// The host name of its uts namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The NIS domain name of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domainname: Option<String>,
    /// What is mounted in it, in this order.
    #[serde(default, deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// What is called at moments of its life.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Hooks>,
    /// What means something to the engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    /// What there is on Linux alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linux: Option<Linux>,
}
// ANCHOR_END: spec

/// The root file system.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Root {
    /// A directory of the host; from the bundle, if it is not absolute.
    pub path: PathBuf,
    /// Whether nothing can be written in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub readonly: bool,
}

/// One mount.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// Where, seen from inside.
    pub destination: PathBuf,
    /// The type of its file system; of a bind mount `bind`, or `none`, or nothing.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// What is mounted there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<PathBuf>,
    /// As with mount(8), and some more.
    #[serde(default, deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// Whose its files are, seen through it.
    #[serde(default, deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub uid_mappings: Vec<IdMapping>,
    /// See `uid_mappings`.
    #[serde(default, deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub gid_mappings: Vec<IdMapping>,
}

// ANCHOR: hooks
/// What is called, and when. (config.md, "POSIX-platform Hooks")
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hooks {
    /// As `create_runtime`, and before it. Engines of today do not use it.
    #[serde(deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub prestart: Vec<Hook>,
    /// On the host, when the namespaces are there and the root has not changed.
    #[serde(deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub create_runtime: Vec<Hook>,
    /// In the container's namespaces, when the root has not changed.
    #[serde(deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub create_container: Vec<Hook>,
    /// In the container, before its command runs.
    #[serde(deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub start_container: Vec<Hook>,
    /// On the host, when its command runs.
    #[serde(deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub poststart: Vec<Hook>,
    /// On the host, when it is deleted.
    #[serde(deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub poststop: Vec<Hook>,
}
// ANCHOR_END: hooks

/// One of them: a program, which gets the container's state on its stdin.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Hook {
    /// Its path, absolute.
    pub path: PathBuf,
    /// Its arguments; the first is its name.
    #[serde(default, deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Its whole environment, `NAME=VALUE`.
    #[serde(default, deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// After how many seconds it is killed; `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
}

impl Spec {
    /// What the bundle `bundle` says, or another file (`--config`), as text and as it is understood.
    pub fn read(bundle: &Path, file: Option<&Path>) -> Result<(Vec<u8>, Spec)> {
        let path = file.map_or_else(|| bundle.join(CONFIG), |file| bundle.join(file));
        let text = read_json(&path)?;
        let spec = Spec::parse(&text).with_context(|| format!("{path:?} is no configuration of a bundle"))?;
        Ok((text, spec))
    }

    /// What the container in `dir` was made of.
    pub fn of(dir: &Path) -> Result<Spec> {
        Spec::parse(&read_json(&dir.join(CONFIG))?)
    }

    /// What `text` says.
    pub fn parse(text: &[u8]) -> Result<Spec> {
        let spec: Spec = serde_json::from_slice(text)?;
        let major = spec.oci_version.split('.').next();
        if major != Some("1") {
            bail!("ociVersion is {:?}; expected one from 1.0.0 to {VERSION}", spec.oci_version);
        }
        Ok(spec)
    }

    /// What there is on Linux alone; without it, what is so when nothing is said.
    pub fn linux(&self) -> Linux {
        self.linux.clone().unwrap_or_default()
    }

    /// The hooks of one moment.
    pub fn hooks(&self, of: impl Fn(&Hooks) -> &Vec<Hook>) -> &[Hook] {
        self.hooks.as_ref().map_or(&[], |hooks| of(hooks))
    }
}

/// The bytes of a file of JSON that somebody has named.
pub fn read_json(path: &Path) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let opened = File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut text));
    opened.with_context(|| format!("read {path:?}"))?;
    if text.len() as u64 > LARGEST {
        bail!("{path:?} has more than {LARGEST} bytes; expected a configuration");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::Spec;
    use crate::oci::resources;

    /// As podman 4.3, containerd 1.6 (ctr, CRI) and a kubelet 1.20 write them, with shorter lists of calls.
    const WRITTEN: [(&str, &str); 4] = [
        ("podman", include_str!("../../../tests/oci/podman.json")),
        ("ctr", include_str!("../../../tests/oci/ctr.json")),
        ("cri", include_str!("../../../tests/oci/cri.json")),
        ("kubelet", include_str!("../../../tests/oci/kubelet.json")),
    ];

    #[test]
    fn what_engines_write_is_read_and_written_again_as_it_was() {
        for (engine, text) in WRITTEN {
            let spec = Spec::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{engine}: {error:#}"));
            let linux = spec.linux();
            assert!(linux.namespaces.len() >= 5, "{engine}");
            let limits = linux.resources.iter().map(resources::files);
            assert!(limits.flatten().flatten().count() > 0, "{engine} has limits");
            let again = serde_json::to_value(&spec).unwrap_or_default();
            let before: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
            assert_eq!(again["mounts"], before["mounts"], "{engine}");
            assert_eq!(again["linux"], before["linux"], "{engine}");
            assert_eq!(again["process"]["capabilities"], before["process"]["capabilities"], "{engine}");
        }
    }

    #[test]
    fn a_version_to_come_is_refused() {
        assert!(Spec::parse(br#"{"ociVersion": "2.0.0"}"#).is_err());
        assert!(Spec::parse(br#"{"ociVersion": "1.9.0"}"#).is_ok());
    }
}
