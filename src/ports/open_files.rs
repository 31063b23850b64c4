//! Day 13: each published port is an open file of the runtime, and each connection that it
//! copies is some more. A process may have 1024, where nobody asked for more: it asks, up to
//! what it may have. The container's own limit stays what it was. (getrlimit(2), RLIMIT_NOFILE)

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::error::Result;
use crate::explain::step;

use super::DAY;

/// The limit as it was.
#[derive(Debug)]
pub struct OpenFiles(Rlimit);

impl OpenFiles {
    /// Raises the limit of this process, and with it that of its children, as far as it may.
    pub fn raise() -> Result<OpenFiles> {
        // Of a container that is started again by this process: what it was the first time.
        static BEFORE: OnceLock<Rlimit> = OnceLock::new();
        let before = *BEFORE.get_or_init(|| getrlimit(Resource::Nofile));
        set(Rlimit { current: before.maximum, maximum: before.maximum })?;
        Ok(OpenFiles(before))
    }

    /// Child: has the limit again that it would have had.
    pub fn restore(self) -> Result<()> {
        set(self.0)
    }
}

fn set(limit: Rlimit) -> Result<()> {
    let count = limit.current.map_or("unlimited".into(), |count| count.to_string());
    let describe = || (format!("setrlimit(RLIMIT_NOFILE, {count})"), format!("ulimit -Sn {count}"));
    step(DAY, describe, || setrlimit(Resource::Nofile, limit))
}
