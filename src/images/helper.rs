//! Day 12: credentials, and the programs that keep them: `docker-credential-NAME` speaks to the
//! keychain of a desktop, or to a cloud. (github.com/docker/docker-credential-helpers)

use std::fmt;
use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use crate::error::Result;

/// A user's name that says: what follows is a token.
const TOKEN_USER: &str = "<token>";

/// Who you are, and what proves it.
#[derive(Clone, PartialEq)]
pub enum Credentials {
    /// A name and a password.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// What a registry has given out before: good for tokens.
    IdentityToken(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Credentials")
    }
}

/// What the program `docker-credential-NAME` knows of `server`.
pub fn ask_helper(helper: &str, server: &str) -> Result<Option<Credentials>> {
    let Some(said) = run_helper(helper, "get", server)? else { return Ok(None) };
    let said: Value = serde_json::from_slice(&said)
        .with_context(|| format!("docker-credential-{helper} get: expected JSON with Username and Secret"))?;
    let (user, secret) = (said["Username"].as_str().unwrap_or(""), said["Secret"].as_str().unwrap_or(""));
    Ok(match (user, secret) {
        ("", "") => None,
        (TOKEN_USER, token) => Some(Credentials::IdentityToken(token.into())),
        (user, secret) => Some(Credentials::Password { user: user.into(), password: secret.into() }),
    })
}

/// Has the program do `verb`, `store` or `erase`.
pub fn call_helper(helper: &str, verb: &str, input: &str) -> Result<()> {
    match run_helper(helper, verb, input)? {
        Some(_) => Ok(()),
        None => bail!("docker-credential-{helper} {verb}: it knows nothing of this registry"),
    }
}

/// `None`: it knows nothing, which a helper says in words.
fn run_helper(helper: &str, verb: &str, input: &str) -> Result<Option<Vec<u8>>> {
    let program = format!("docker-credential-{helper}");
    ensure!(
        !helper.contains('/'),
        "the credential helper {helper:?}: expected a name, such as pass for docker-credential-pass"
    );
    let start = || {
        format!("start {program}, which Docker's config.json names; install it, or take its name out there")
    };
    let mut command = Command::new(&program);
    command.arg(verb).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(start)?;
    // One that ends without reading it has its reasons, and its exit code.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().with_context(|| format!("wait for {program}"))?;
    if output.status.success() {
        return Ok(Some(output.stdout));
    }
    // They say it on stdout, and differ in how.
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if said.contains("credentials not found") {
        return Ok(None);
    }
    bail!("{program} {verb} failed, {}: {:.200}", output.status, said.trim().escape_debug().to_string())
}
