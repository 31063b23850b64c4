//! Day 12: `login` and `logout`: who you are to a registry, in the file that Docker keeps it in.

use std::sync::Arc;

use anyhow::{Context, bail};
use ureq::http::{Method, StatusCode};

use crate::error::{self, Result, failed};
use crate::images::access::Access;
use crate::images::auth::ConfigFile;
use crate::images::helper::Credentials;
use crate::images::http::Connection;
use crate::images::progress::Progress;
use crate::images::prompt;
use crate::images::reference::{DOCKER_HUB, check_registry};
use crate::images::registry::Registry;
use crate::images::request::Request;
use crate::metadata::output::print;

/// Log in to a registry: ~/.docker/config.json remembers who you are
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Login {
    #[command(flatten)]
    connection: Connection,

    /// Who you are there
    #[arg(short, long)]
    username: Option<String>,

    /// What proves it; every user of this machine can see it in ps, so --password-stdin is better
    #[arg(short, long, conflicts_with = "password_stdin")]
    password: Option<String>,

    /// Read the password from stdin
    #[arg(long, requires = "username")]
    password_stdin: bool,

    /// Host, and perhaps port
    #[arg(default_value = DOCKER_HUB)]
    registry: String,
}

/// Log out from a registry
#[derive(Debug, clap::Args)]
pub struct Logout {
    /// Host, and perhaps port
    #[arg(default_value = DOCKER_HUB)]
    registry: String,
}

const EXAMPLES: &str = "\
Examples:
  tiny-docker login box.example:5000
  pass show box | tiny-docker login -u tom --password-stdin box.example:5000";

impl Login {
    /// Returns the exit code.
    pub fn execute(self) -> Result<u8> {
        self.log_in().map_err(failed).map(|()| 0)
    }

    fn log_in(self) -> Result<()> {
        let Login { connection, username, password, password_stdin, registry } = self;
        let registry = registry_of(&registry)?;
        let user = username.map_or_else(|| prompt::ask("Username: ", true), Ok)?;
        let password = match password {
            _ if password_stdin => prompt::from_stdin()?,
            Some(password) => password,
            None => prompt::ask("Password: ", false)?,
        };
        if user.is_empty() || user.contains(':') || password.is_empty() {
            bail!("expected a user's name without ':', and a password; one of them is empty or wrong");
        }
        check(&registry, &connection, &user, &password)?;
        let mut file = ConfigFile::read()?;
        if !file.remember(&registry, &user, &password)? {
            error::say(format_args!(
                "the password is in {:?} now, as it is, for its owner and root to read; \
                 a credential helper would keep it better",
                file.path()
            ));
        }
        print("Login Succeeded\n").map(drop)
    }
}

/// Has the registry say whether it accepts this name and password.
fn check(name: &str, connection: &Connection, user: &str, password: &str) -> Result<()> {
    let credentials = Credentials::Password { user: user.into(), password: password.into() };
    let mut registry = Registry::open(name, connection, Arc::new(Progress::new(true)))?;
    registry.access = Access::with(name, credentials);
    let response = registry.ask(&Request::new(Method::GET, "/v2/".into(), String::new()))?;
    match response.status() {
        StatusCode::OK => Ok(()),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            bail!("{name} does not accept this name and password; nothing was written down")
        }
        status => bail!("{name} answered {status} to GET /v2/; is it a registry?"),
    }
}

impl Logout {
    /// Returns the exit code.
    pub fn execute(self) -> Result<u8> {
        Ok(error::for_each(&[self.registry], |registry| {
            let registry = registry_of(registry)?;
            let known = ConfigFile::read()?.forget(&registry)?;
            print(&match known {
                true => format!("Removing login credentials for {registry}\n"),
                false => format!("Not logged in to {registry}\n"),
            })
            .map(drop)
        }))
    }
}

/// People also give the URL of it, or of something in it.
fn registry_of(word: &str) -> Result<String> {
    let rest = word.strip_prefix("https://").or(word.strip_prefix("http://")).unwrap_or(word);
    let host = rest.split('/').next().unwrap_or_default();
    let host = if matches!(host, "index.docker.io" | "registry-1.docker.io") { DOCKER_HUB } else { host };
    check_registry(host).with_context(|| format!("the registry {word:?}"))?;
    Ok(host.into())
}
