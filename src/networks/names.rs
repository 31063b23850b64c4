//! Day 14: who is called what, on the networks of one container. Read anew for each question.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use crate::error::Result;

use super::members::{Member, Members, networks_of};

/// Where one container looks.
#[derive(Debug)]
pub struct Names {
    /// The directory of this host's networks.
    pub place: PathBuf,
    /// The container that asks.
    pub container: String,
}

impl Names {
    // ANCHOR: addresses
    /// The addresses of the containers that are called `name`; `None`: none is. The first
    /// network decides that knows one. `name.network` means the one on that network.
    pub fn addresses(&self, name: &str) -> Result<Option<Vec<Ipv4Addr>>> {
        // ANCHOR: day14_task5_addresses_solution
        for (_, list) in networks_of(&self.place, &self.container)? {
            let end = name.len().saturating_sub(list.network.len() + 1);
            let short = name.split_at_checked(end).and_then(|(short, rest)| {
                let network = rest.strip_prefix('.')?;
                network.eq_ignore_ascii_case(&list.network).then_some(short)
            });
            let mut found = Vec::new();
            for (id, member) in &list.members {
                let is_meant =
                    member.is_called(id, name) || short.is_some_and(|short| member.is_called(id, short));
                if is_meant && member.runs()? {
                    found.push(member.address);
                }
            }
            if !found.is_empty() {
                return Ok(Some(found));
            }
        }
        Ok(None)
        // ANCHOR_END: day14_task5_addresses_solution
    }
    // ANCHOR_END: addresses

    /// The name of the container that has `address`, with its network's.
    pub fn name_of(&self, address: Ipv4Addr) -> Result<Option<String>> {
        for (_, list) in networks_of(&self.place, &self.container)? {
            let has = |(_, member): &(&String, &Member)| member.address == address;
            if let Some((id, member)) = list.members.iter().find(has)
                && member.runs()?
            {
                return Ok(Some(format!("{}.{}", member.title(id), list.network)));
            }
        }
        Ok(None)
    }

    /// Whether other name servers may be asked for this container. Where no network of its lets
    /// anything out, a question that leaves would be a way out: its name can carry anything.
    /// (CVE-2024-29018)
    pub fn may_ask_outside(&self) -> Result<bool> {
        let networks = networks_of(&self.place, &self.container)?;
        Ok(networks.iter().any(|(_, Members { internal, .. })| !internal))
    }
}
