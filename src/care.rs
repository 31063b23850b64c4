//! What is done for a container without anybody there: when it is started again, and how it is found
//! out whether it is well. Of the plan, as data. (day 14)

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

// ANCHOR: restart
/// When a container that has ended is started again, by the `run` that looks after it. (day 14)
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Never.
    #[default]
    No,
    /// When its exit code is not 0, and at most so often; `None`: as often as it happens.
    OnFailure(Option<u32>),
    /// Whatever it exits with, unless a person ended it; and after a boot.
    Always,
    /// The same; but after a boot only if no person had ended it before.
    UnlessStopped,
}
// ANCHOR_END: restart

impl Restart {
    /// Whether it is never started again.
    pub fn is_no(&self) -> bool {
        *self == Restart::No
    }
}

/// As people type it: `on-failure:3`.
impl fmt::Display for Restart {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Restart::No => f.write_str("no"),
            Restart::OnFailure(None) => f.write_str("on-failure"),
            Restart::OnFailure(Some(times)) => write!(f, "on-failure:{times}"),
            Restart::Always => f.write_str("always"),
            Restart::UnlessStopped => f.write_str("unless-stopped"),
        }
    }
}

// ANCHOR: health_check
/// How to find out whether a container is well: a command, as an image says it too. What is 0 is
/// not said. (OCI image-spec: Docker's extension `Healthcheck`; Dockerfile reference, HEALTHCHECK)
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HealthCheck {
    /// `CMD` and words, or `CMD-SHELL` and a line for the shell; `NONE`: there is none.
    #[serde(deserialize_with = "null_is_default")]
    pub test: Vec<String>,
    /// From one check to the next, in nanoseconds, as all that follows.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// How long one may take.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// How long, from its start on, one that fails does not count.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// From one check to the next in that time.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// How many must fail, one after the other, until it is not well.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_zero")]
    pub retries: i64,
}
// ANCHOR_END: health_check

fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// Go writes `null` for a list or a map that is empty.
pub fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
