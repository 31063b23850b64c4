//! Day 14: `network ls` and `network inspect`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;

use crate::error::{self, Result};
use crate::metadata::output::{Format, columns, print};
use crate::metadata::state::State;
use crate::net::subnet::{colons, hardware_address};

use super::members::{Member, Members};
use super::store::{Definition, Store};

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    #[serde(rename = "ID")]
    id: String,
    name: String,
    driver: &'static str,
    scope: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subnet: Option<String>,
    internal: bool,
}

/// `network ls`. Those that are always there have no id: they are in no state directory.
pub fn list(state: &State, quiet: bool, format: Format) -> Result<u8> {
    let (networks, complaints) = Store::of(state).list()?;
    complaints.iter().for_each(error::say);
    if quiet {
        return print(&networks.iter().map(|network| format!("{}\n", network.id)).collect::<String>());
    }
    let always = [("bridge", "bridge"), ("host", "host"), ("none", "null")].map(|(name, driver)| Row {
        id: "-".into(),
        name: name.into(),
        driver,
        scope: "local",
        subnet: None,
        internal: false,
    });
    let mut rows: Vec<Row> = always.into();
    rows.extend(networks.into_iter().map(|one| {
        let (subnet, internal) = (Some(one.subnet), one.internal);
        Row { id: one.id, name: one.name, driver: "bridge", scope: "local", subnet, internal }
    }));
    rows.sort_by(|one, other| one.name.cmp(&other.name));
    let mut text = String::new();
    match format {
        Format::Table => {
            let rows: Vec<Vec<String>> = rows
                .into_iter()
                .map(|row| vec![row.id, row.name, row.driver.into(), row.scope.into()])
                .collect();
            text = columns(&["NETWORK ID", "NAME", "DRIVER", "SCOPE"], &rows);
        }
        Format::Json => {
            for row in rows {
                writeln!(text, "{}", serde_json::to_string(&row)?)?;
            }
        }
    }
    print(&text)
}

/// A network as Docker's `network inspect` shows it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shown {
    name: String,
    id: String,
    created: Timestamp,
    scope: &'static str,
    driver: &'static str,
    #[serde(rename = "EnableIPv6")]
    enable_ipv6: bool,
    #[serde(rename = "IPAM")]
    ipam: serde_json::Value,
    internal: bool,
    containers: BTreeMap<String, ShownMember>,
    options: BTreeMap<&'static str, String>,
    labels: BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ShownMember {
    name: Option<String>,
    aliases: Vec<String>,
    interface: String,
    mac_address: String,
    #[serde(rename = "IPv4Address")]
    ipv4_address: String,
}

impl Shown {
    fn new(network: Definition, members: Members) -> Result<Shown> {
        let bits = network.lan()?.bits;
        let show = |(id, member): (String, Member)| {
            let shown = ShownMember {
                name: member.name,
                aliases: member.aliases,
                interface: member.interface,
                mac_address: colons(&hardware_address(member.address)),
                ipv4_address: format!("{}/{bits}", member.address),
            };
            (id, shown)
        };
        Ok(Shown {
            ipam: json!({
                "Driver": "default",
                "Options": {},
                "Config": [{ "Subnet": network.subnet, "Gateway": network.gateway }],
            }),
            name: network.name,
            id: network.id,
            created: network.created_at,
            scope: "local",
            driver: "bridge",
            enable_ipv6: false,
            internal: network.internal,
            containers: members.members.into_iter().map(show).collect(),
            options: BTreeMap::from([("com.docker.network.bridge.name", network.bridge)]),
            labels: network.labels,
        })
    }
}

/// `network inspect`: a JSON array. Returns the exit code: 1 if one of them is unknown.
pub fn inspect(state: &State, words: &[String]) -> Result<u8> {
    let store = Store::of(state);
    let mut shown = Vec::new();
    let code = error::for_each(words, |word| {
        let network = store.get(word)?;
        let members = Members::now(&network)?;
        shown.push(Shown::new(network, members)?);
        Ok(())
    });
    print(&(serde_json::to_string_pretty(&shown)? + "\n"))?;
    Ok(code)
}
