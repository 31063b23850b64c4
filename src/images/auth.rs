//! Day 12: who you are to a registry. `~/.docker/config.json` says so, for Docker, podman and
//! skopeo too:
//!
//! ```text
//! {
//!   "auths":       {"box.example": {"auth": base64 of user:password}},
//!   "credHelpers": {"box.example": "pass"},      docker-credential-pass is asked
//!   "credsStore":  "secretservice"               docker-credential-secretservice, for all others
//! }
//! ```
//!
//! (docs.docker.com, "docker login"; github.com/docker/docker-credential-helpers)

use std::env;
use std::fs::{self, DirBuilder};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::error::Result;
use crate::images::helper::{Credentials, ask_helper, call_helper};
use crate::images::reference::DOCKER_HUB;

/// What Docker Hub is called in this file, since its first days.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// More than any such file has, in bytes.
const LONGEST: u64 = 1 << 20;

/// Docker's configuration file: the parts of it that concern registries. All else in it
/// stays as it is.
#[derive(Debug)]
pub struct ConfigFile {
    path: PathBuf,
    all: Map<String, Value>,
}

impl ConfigFile {
    /// The user's. One that is not there is empty.
    pub fn read() -> Result<ConfigFile> {
        let dir = match env::var_os("DOCKER_CONFIG").filter(|dir| !dir.is_empty()) {
            Some(dir) => PathBuf::from(dir),
            None => env::home_dir().unwrap_or_else(|| "/root".into()).join(".docker"),
        };
        ConfigFile::read_from(dir.join("config.json"))
    }

    fn read_from(path: PathBuf) -> Result<ConfigFile> {
        let file = match fs::File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(ConfigFile { path, all: Map::new() });
            }
            file => file.with_context(|| format!("open {path:?}"))?,
        };
        let mut text = Vec::new();
        file.take(LONGEST + 1).read_to_end(&mut text).with_context(|| format!("read {path:?}"))?;
        ensure!(text.len() as u64 <= LONGEST, "{path:?} is longer than {LONGEST} bytes");
        if text.trim_ascii().is_empty() {
            return Ok(ConfigFile { path, all: Map::new() });
        }
        let all = serde_json::from_slice(&text)
            .with_context(|| format!("{path:?}: expected a JSON object, such as {{\"auths\": {{}}}}"))?;
        Ok(ConfigFile { path, all })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    // ANCHOR: credentials
    /// Who you are to `registry`; `None`: nobody in particular.
    pub fn credentials(&self, registry: &str) -> Result<Option<Credentials>> {
        if let Some(helper) = self.helper(registry) {
            return ask_helper(&helper, &key(registry));
        }
        let Some(entry) = self.entry(registry) else { return Ok(None) };
        let text = |name: &str| entry[name].as_str().filter(|text| !text.is_empty());
        if let Some(token) = text("identitytoken") {
            return Ok(Some(Credentials::IdentityToken(token.into())));
        }
        let Some(auth) = text("auth") else {
            let both = text("username").zip(text("password"));
            return Ok(both.map(|(user, password)| Credentials::Password {
                user: user.into(),
                password: password.into(),
            }));
        };
        let bad = || {
            format!(
                "{:?}: \"auth\" of {registry}: expected base64 of user:password; \
                 tiny-docker login {registry} writes it anew",
                self.path
            )
        };
        let decoded = STANDARD.decode(auth.trim_end_matches('\0')).with_context(bad)?;
        let decoded = String::from_utf8(decoded).with_context(bad)?;
        let (user, password) = decoded.split_once(':').with_context(bad)?;
        let password = password.trim_end_matches('\0');
        Ok(Some(Credentials::Password { user: user.into(), password: password.into() }))
    }
    // ANCHOR_END: credentials

    /// The program that keeps the credentials of `registry`, if one does.
    pub fn helper(&self, registry: &str) -> Option<String> {
        let helpers = self.all.get("credHelpers").and_then(Value::as_object);
        let of_its_own = helpers.and_then(|helpers| {
            helpers.iter().find(|(named, _)| host_of(named) == registry).map(|(_, helper)| helper)
        });
        let name = of_its_own.or_else(|| self.all.get("credsStore"))?.as_str()?;
        Some(name.to_string()).filter(|name| !name.is_empty())
    }

    /// An entry may be named by the host alone, or by a URL, as older Dockers did.
    fn entry(&self, registry: &str) -> Option<&Value> {
        let auths = self.all.get("auths")?.as_object()?;
        let named = auths.iter().find(|(named, _)| host_of(named) == registry);
        auths.get(&key(registry)).or(named.map(|(_, entry)| entry))
    }

    /// Remembers `credentials` for `registry`. Returns whether a program keeps them; else
    /// they are in the file, for all to read who can read it.
    pub fn remember(&mut self, registry: &str, user: &str, password: &str) -> Result<bool> {
        if let Some(helper) = self.helper(registry) {
            let secret = json!({"ServerURL": key(registry), "Username": user, "Secret": password});
            call_helper(&helper, "store", &secret.to_string())?;
            return Ok(true);
        }
        let auth = STANDARD.encode(format!("{user}:{password}"));
        self.auths()?.insert(key(registry), json!({ "auth": auth }));
        self.write()?;
        Ok(false)
    }

    /// Forgets who you are to `registry`. Returns whether anything was known.
    pub fn forget(&mut self, registry: &str) -> Result<bool> {
        if let Some(helper) = self.helper(registry) {
            let known = ask_helper(&helper, &key(registry))?.is_some();
            if known {
                call_helper(&helper, "erase", &key(registry))?;
            }
            return Ok(known);
        }
        if self.entry(registry).is_none() {
            return Ok(false);
        }
        self.auths()?.retain(|named, _| host_of(named) != registry);
        self.write()?;
        Ok(true)
    }

    fn auths(&mut self) -> Result<&mut Map<String, Value>> {
        let auths = self.all.entry("auths").or_insert_with(|| json!({}));
        let path = &self.path;
        auths.as_object_mut().with_context(|| format!("{path:?}: \"auths\": expected an object"))
    }

    // ANCHOR: write
    /// Writes it beside the old one, and renames it: whoever is killed meanwhile leaves the
    /// old one, and whoever reads meanwhile reads the old one or the new. Nobody but its owner
    /// may read it. If it is a link, what it leads to is written.
    fn write(&self) -> Result<()> {
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let dir = path.parent().with_context(|| format!("{path:?} has no directory"))?;
        DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(|| format!("make {dir:?}"))?;
        let mut text = serde_json::to_vec_pretty(&self.all).context("write JSON")?;
        text.push(b'\n');
        replace(&path, &text).with_context(|| format!("write {path:?}"))
    }
    // ANCHOR_END: write
}

/// Puts `text` in the place of what is in `path`, mode 0600.
fn replace(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(beside);
    let _ = fs::remove_file(&beside);
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(&beside)?;
    let written =
        file.write_all(text).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

/// What `registry` is called in the file.
fn key(registry: &str) -> String {
    if registry == DOCKER_HUB { DOCKER_HUB_KEY.into() } else { registry.into() }
}

/// The registry that an entry is named after: without scheme and path.
fn host_of(named: &str) -> &str {
    let rest = named.strip_prefix("https://").or(named.strip_prefix("http://")).unwrap_or(named);
    let host = rest.split('/').next().unwrap_or_default();
    if matches!(host, "index.docker.io" | "registry-1.docker.io") { DOCKER_HUB } else { host }
}

#[cfg(test)]
mod tests {
    use super::{ConfigFile, Credentials};

    fn file(text: &str) -> ConfigFile {
        let all = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}"));
        ConfigFile { path: "/nowhere/config.json".into(), all }
    }

    fn password(user: &str, password: &str) -> Option<Credentials> {
        Some(Credentials::Password { user: user.into(), password: password.into() })
    }

    #[test]
    fn an_entry_is_found_by_host_and_by_url() {
        // tom:a:b, as base64.
        let known = file(
            r#"{"auths": {"https://index.docker.io/v1/": {"auth": "dG9tOmE6Yg=="},
                "https://box.example/v2/": {"auth": "dG9tOmE6Yg=="}, "box.example:5000": {"auth": ""}}}"#,
        );
        for registry in ["docker.io", "box.example"] {
            assert_eq!(known.credentials(registry).ok(), Some(password("tom", "a:b")), "{registry}");
        }
        for registry in ["box.example:5000", "box", "example"] {
            assert_eq!(known.credentials(registry).ok(), Some(None), "{registry}");
        }
    }

    #[test]
    fn what_is_no_base64_of_a_name_and_a_password_is_an_error() {
        for auth in ["%%%", "dG9t", "//79"] {
            let known = file(&format!(r#"{{"auths": {{"box": {{"auth": "{auth}"}}}}}}"#));
            let said = format!("{:#}", known.credentials("box").expect_err(auth));
            assert!(said.contains("tiny-docker login box"), "{said}");
        }
    }

    #[test]
    fn a_helper_of_the_registrys_own_comes_first() {
        let known = file(r#"{"credsStore": "all", "credHelpers": {"https://box.example": "box"}}"#);
        assert_eq!(known.helper("box.example").as_deref(), Some("box"));
        assert_eq!(known.helper("docker.io").as_deref(), Some("all"));
    }
}
