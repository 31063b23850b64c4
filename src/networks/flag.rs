//! Day 14: `run --network`, with the names of networks, and `--network-alias`.

use std::net::Ipv4Addr;

use anyhow::{Context, bail};
use clap::ValueEnum;

use crate::container::{Container, Mechanism};
use crate::error::Result;
use crate::netns::Netns;
use crate::plan::{Attachment, Network};

use super::store::check_name;

/// The flags of day 8, as they are from day 14 on.
#[derive(Debug, clap::Args)]
pub struct NetworkFlags {
    /// The container's network: bridge (without this flag), none, host, or the name of one that
    /// network create has made; of those it may have several. Also: name=NETWORK,alias=ALIAS,ip=ADDRESS
    #[arg(long = "net", visible_alias = "network", value_name = "NETWORK", value_parser = word)]
    networks: Vec<String>,

    /// What else it is called on its (first) network
    #[arg(long, value_name = "NAME")]
    network_alias: Vec<String>,

    #[arg(skip)]
    netns: Option<Netns>,
}

impl Mechanism for NetworkFlags {
    fn prepare(&mut self, container: &mut Container) -> Result<()> {
        let (network, attachments) = match container.plan.network {
            // It was planned before: this is another start of a container.
            Some(network) if self.networks.is_empty() => {
                (network, std::mem::take(&mut container.plan.networks))
            }
            _ => self.parse()?,
        };
        container.plan.networks = attachments;
        self.netns.insert(Netns::new(network)).prepare(container)
    }

    fn enter(&mut self, container: &mut Container) -> Result<()> {
        self.netns.as_mut().map_or(Ok(()), |netns| netns.enter(container))
    }
}

impl NetworkFlags {
    // ANCHOR: parse
    /// What the flags say: one of the kinds that are always there, or networks by name.
    fn parse(&self) -> Result<(Network, Vec<Attachment>)> {
        let kind = |word: &str| match word {
            "default" => Some(Network::Bridge),
            word => Network::from_str(word, false).ok(),
        };
        let by_default = self.networks.is_empty().then(Network::default);
        let mut kinds = self.networks.iter().filter_map(|word| kind(word));
        if let Some(kind) = by_default.or_else(|| kinds.next()) {
            if self.networks.len() > 1 {
                bail!(
                    "--net {}: expected networks that have been made, where there is more than one; \
                     bridge, none and host go alone",
                    self.networks.join(" --net ")
                );
            }
            if !self.network_alias.is_empty() {
                bail!(
                    "--network-alias: names are found on networks that have been made, and this \
                     container is on none; make one (tiny-docker network create NAME), and add --net NAME"
                );
            }
            return Ok((kind, vec![]));
        }
        let mut attachments: Vec<Attachment> = Vec::new();
        for word in &self.networks {
            let attachment = attachment(word)?;
            if attachments.iter().any(|other| other.network == attachment.network) {
                bail!("--net {}: given twice; once is enough", attachment.network);
            }
            attachments.push(attachment);
        }
        for alias in &self.network_alias {
            check_alias(alias).context("--network-alias")?;
        }
        attachments[0].aliases.extend(self.network_alias.iter().cloned());
        Ok((Network::User, attachments))
    }
    // ANCHOR_END: parse
}

/// Errors, as day 8 does, if `word` is neither a kind of network nor the name of one.
fn word(word: &str) -> std::result::Result<String, String> {
    match attachment(word) {
        Ok(_) => Ok(word.into()),
        Err(error) => Err(format!(
            "{error:#}\n  [possible values: host, none, bridge, or the name of a network that network create has made]"
        )),
    }
}

/// `NAME`, or `name=NAME,alias=ALIAS,ip=ADDRESS` as Docker has it, with any number of aliases.
fn attachment(word: &str) -> Result<Attachment> {
    let mut attachment = Attachment { network: String::new(), aliases: vec![], ip: None };
    if !word.contains('=') {
        check_name(word)?;
        attachment.network = word.into();
        return Ok(attachment);
    }
    for field in word.split(',') {
        match field.split_once('=') {
            Some(("name", name)) => attachment.network = name.into(),
            Some(("alias", alias)) => {
                check_alias(alias)?;
                attachment.aliases.push(alias.into());
            }
            Some(("ip", ip)) => attachment.ip = Some(address(ip)?),
            _ => bail!("{field:?}: expected name=NETWORK, alias=NAME or ip=ADDRESS"),
        }
    }
    if attachment.network.is_empty() {
        bail!("it names no network; expected name=NETWORK among the fields");
    }
    check_name(&attachment.network)?;
    Ok(attachment)
}

fn address(text: &str) -> Result<Ipv4Addr> {
    text.parse().ok().with_context(|| format!("{text:?}: expected an IPv4 address, such as 10.20.0.5"))
}

/// Errors if no name server could be asked for `alias`. (RFC 1035, 2.3.4)
pub fn check_alias(alias: &str) -> Result<()> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let labels = alias.split('.').all(|label| (1..=63).contains(&label.len()));
    if alias.len() > 253 || !labels || !alias.chars().all(fine) {
        bail!("{alias:?}: expected a name of letters, digits, '_', '.' and '-', such as db");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{NetworkFlags, attachment};

    #[test]
    fn what_is_no_network_is_refused_in_words() {
        for (word, said) in [
            ("", "such as backend"),
            ("../up", "such as backend"),
            ("name=web,alias=", "such as db"),
            ("name=web,ip=10.20.0", "IPv4 address"),
            ("alias=db", "names no network"),
            ("name=web,color=red", "expected name=NETWORK"),
        ] {
            let error = format!("{:#}", attachment(word).unwrap_err());
            assert!(error.contains(said), "{word}: {error}");
        }
        let all = attachment("name=web,alias=a,alias=b.c,ip=10.20.0.9").unwrap();
        assert_eq!((all.network.as_str(), all.aliases.len(), all.ip.unwrap().octets()[3]), ("web", 2, 9));
    }

    #[test]
    fn kinds_go_alone() {
        let parse = |networks: &[&str], aliases: &[&str]| {
            let words = |words: &[&str]| words.iter().map(|word| word.to_string()).collect();
            let flags =
                NetworkFlags { networks: words(networks), network_alias: words(aliases), netns: None };
            flags.parse().map_err(|error| format!("{error:#}"))
        };
        assert_eq!(parse(&["web", "back"], &["x"]).unwrap().1[0].aliases, ["x"]);
        assert!(parse(&["web", "host"], &[]).unwrap_err().contains("go alone"));
        assert!(parse(&["web", "web"], &[]).unwrap_err().contains("twice"));
        assert!(parse(&["bridge"], &["x"]).unwrap_err().contains("network create"));
    }
}
