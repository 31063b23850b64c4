//! Day 12: what to try again, when, and how often.

use std::net::ToSocketAddrs;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, anyhow};
use rustls::{AlertDescription, InvalidMessage};

use crate::error::Result;
use crate::images::http::host_alone;

/// How often something is tried that makes no progress.
const TRIES: u32 = 5;

/// The pause before the second try. Each one after that is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Nobody who looks at a terminal waits longer for a registry that asks them to.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Why something did not work.
#[derive(Debug)]
pub enum Trouble {
    /// It may work the next time.
    Passing {
        /// Why.
        error: anyhow::Error,
        /// When the registry says that it will.
        after: Option<Duration>,
        /// How many tries it counts for: one that took long, for more.
        cost: u32,
    },
    /// It will not.
    Final(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Trouble {
    fn from(error: E) -> Trouble {
        Trouble::Final(error.into())
    }
}

impl Trouble {
    /// A connection that broke.
    pub fn broken(error: anyhow::Error) -> Trouble {
        Trouble::Passing { error, after: None, cost: 1 }
    }

    /// What `error`, of HTTP with `host`, means for another try.
    pub fn of(error: ureq::Error, host: &str) -> Trouble {
        use std::io::ErrorKind;
        match error {
            ureq::Error::Timeout(_) => Trouble::silent(host),
            ureq::Error::Io(error) if error.kind() == ErrorKind::TimedOut => Trouble::silent(host),
            ureq::Error::Io(error) if error.kind() == ErrorKind::ConnectionRefused => {
                let advice = format!("{host}: nothing answers there; check the name, or start the registry");
                Trouble::Final(anyhow!(error).context(advice))
            }
            error if certificate_is_bad(&error) => Trouble::Final(anyhow!(error).context(format!(
                "{host} does not prove who it is; put its authority's certificate into \
                 /etc/docker/certs.d/{host}/ca.crt, or name its directory with --cert-dir"
            ))),
            ureq::Error::Io(error)
                if error.raw_os_error().is_none()
                    && error.kind() != ErrorKind::UnexpectedEof
                    && cannot_be_found(host) =>
            {
                let advice = format!(
                    "{host}: there is no such host; check the name, and this machine's /etc/resolv.conf"
                );
                Trouble::Final(anyhow!(error).context(advice))
            }
            ureq::Error::Io(error) => {
                Trouble::broken(anyhow!(error).context(format!("the connection to {host}")))
            }
            error => Trouble::broken(anyhow!(error).context(format!("the connection to {host}"))),
        }
    }

    fn silent(host: &str) -> Trouble {
        let error =
            anyhow!("{host} has been silent for too long; try again later, or with more --registry-timeout");
        Trouble::Passing { error, after: None, cost: TRIES.div_ceil(2) }
    }
}

/// Whether nothing knows an address of `host`. (What getaddrinfo(3) says comes as words alone,
/// so it is asked once more.)
fn cannot_be_found(host: &str) -> bool {
    let host = host_alone(host).trim_start_matches('[').trim_end_matches(']');
    (host, 0).to_socket_addrs().is_err()
}

/// What rustls says, wherever it is.
fn of_rustls(error: &ureq::Error) -> Option<&rustls::Error> {
    match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref(),
        _ => None,
    }
}

fn certificate_is_bad(error: &ureq::Error) -> bool {
    use rustls::Error::{InvalidCertificate, NoCertificatesPresented, UnsupportedNameType};
    matches!(of_rustls(error), Some(InvalidCertificate(_) | NoCertificatesPresented | UnsupportedNameType))
}

/// Whether whoever answered there does not speak TLS.
pub fn speaks_no_tls(error: &ureq::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, UnexpectedEof};
    match of_rustls(error) {
        Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => true,
        Some(rustls::Error::AlertReceived(alert)) => *alert == AlertDescription::UnrecognisedName,
        Some(_) => false,
        None => matches!(error, ureq::Error::Io(error) if matches!(
            error.kind(),
            ConnectionAborted | ConnectionRefused | ConnectionReset | UnexpectedEof
        )),
    }
}

// ANCHOR: again
/// Does `attempt` until it works, or until nothing suggests that it will. It is told to
/// [`Tries`] when something came of an attempt that failed: a layer that arrives in a hundred
/// pieces arrives. `note` is told of each pause.
pub fn again<T>(
    note: impl Fn(&str),
    mut attempt: impl FnMut(&mut Tries) -> std::result::Result<T, Trouble>,
) -> Result<T> {
    let mut tries = Tries::default();
    loop {
        let (error, after, cost) = match attempt(&mut tries) {
            Ok(done) => return Ok(done),
            Err(Trouble::Final(error)) => return Err(error),
            Err(Trouble::Passing { error, after, cost }) => (error, after, cost),
        };
        tries.made += cost;
        if tries.made >= TRIES {
            return Err(error).context("gave up after several tries");
        }
        let pause = after.unwrap_or(FIRST_PAUSE * (1 << (tries.made - 1)));
        if pause > LONGEST_PAUSE {
            let seconds = pause.as_secs();
            return Err(error).with_context(|| format!("the registry asks to come back in {seconds} s"));
        }
        note(&format!("{error:#}; trying again in {:.1} s", pause.as_secs_f32()));
        sleep(pause);
    }
}
// ANCHOR_END: again

/// How often something was tried without any progress.
#[derive(Debug, Default)]
pub struct Tries {
    made: u32,
}

impl Tries {
    /// Something came of it: the next failure is the first one again.
    pub fn progress(&mut self) {
        self.made = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use anyhow::anyhow;

    use super::{TRIES, Trouble, again};

    fn at_once() -> Trouble {
        Trouble::Passing { error: anyhow!("broken"), after: Some(Duration::ZERO), cost: 1 }
    }

    #[test]
    fn it_gives_up_but_not_while_there_is_progress() {
        let count = Cell::new(0);
        let failed = again(
            |_| (),
            |_| -> Result<(), Trouble> {
                count.set(count.get() + 1);
                Err(at_once())
            },
        );
        assert!(failed.is_err() && count.get() == TRIES, "{failed:?} {count:?}");

        let done = again(
            |_| (),
            |tries| {
                count.set(count.get() + 1);
                tries.progress();
                if count.get() < 100 { Err(at_once()) } else { Ok(()) }
            },
        );
        assert!(done.is_ok(), "{done:?}");
    }

    #[test]
    fn what_cannot_work_is_tried_once_and_nobody_waits_for_hours() {
        for trouble in [
            || Trouble::Final(anyhow!("no")),
            || Trouble::Passing { error: anyhow!("busy"), after: Some(Duration::from_secs(7200)), cost: 1 },
        ] {
            let count = Cell::new(0);
            let failed = again(
                |_| (),
                |_| -> Result<(), Trouble> {
                    count.set(count.get() + 1);
                    Err(trouble())
                },
            );
            assert!(failed.is_err() && count.get() == 1, "{failed:?} {count:?}");
        }
    }
}
