//! Day 13: `port`: which of the host's ports lead to a container.

use anyhow::bail;

use crate::error::{self, Result};
use crate::metadata::output::print;
use crate::metadata::record::Record;
use crate::metadata::state::State;
use crate::plan::PublishedPort;
use crate::ports::flag::{parse_port, parse_protocol};

/// List the host's ports that lead to a container
#[derive(Debug, clap::Args)]
pub struct Port {
    #[command(flatten)]
    state: State,

    /// Its id or name
    container: String,

    /// One of the container's ports, such as 80 or 53/udp: print where it is, and nothing else
    #[arg(value_name = "PORT[/PROTOCOL]")]
    port: Option<String>,
}

impl Port {
    /// Prints them. Returns the exit code.
    pub fn execute(self) -> Result<u8> {
        let record = self.state.find(&self.container).and_then(|record| self.state.settle(record));
        let text = record.and_then(|record| text(&record, self.port.as_deref()));
        print(&text.map_err(error::failed)?)
    }
}

// ANCHOR: text
/// What `port` prints, as Docker does: a line for each of the host's addresses.
fn text(record: &Record, asked: Option<&str>) -> Result<String> {
    // ANCHOR: day13_task5_text_solution
    let mut ports = record.ports.clone();
    ports.sort_unstable();
    let lines = |port: &PublishedPort, before: &str| {
        let line = |host: String| format!("{before}{host}:{}\n", port.host_port);
        port.hosts().into_iter().map(line).collect::<String>()
    };
    let Some(asked) = asked else {
        let all =
            ports.iter().map(|port| lines(port, &format!("{}/{} -> ", port.container_port, port.protocol)));
        return Ok(all.collect());
    };
    let (number, protocol) = asked.split_once('/').unwrap_or((asked, "tcp"));
    let (number, protocol) = (parse_port(number)?, parse_protocol(protocol)?);
    let is_asked = |port: &&PublishedPort| (port.container_port, port.protocol) == (number, protocol);
    let found: String = ports.iter().filter(is_asked).map(|port| lines(port, "")).collect();
    if found.is_empty() {
        let title = record.title();
        bail!(
            "no public port '{number}/{protocol}' published for {title}; tiny-docker port {title} lists those that are"
        );
    }
    Ok(found)
    // ANCHOR_END: day13_task5_text_solution
}
// ANCHOR_END: text
