//! Day 13: more of nftables' words than day 9 needs: maps, and what a rule needs to look
//! something up and to redirect. (linux/netfilter/nf_tables.h)

use netlink_packet_core::NLM_F_CREATE;
use netlink_packet_netfilter::NetfilterProtoFamily as Family;
use netlink_packet_netfilter::nftables::*;

use crate::net::nftables::{Command, other};

/// nft(8)'s numbers for its data types, by which it shows what is in a map. Of a concatenation
/// each has six bits.
const IPV4_ADDR: u32 = 7;
const INET_PROTO: u32 = 12;
const INET_SERVICE: u32 = 13;

/// As many elements go into one message: the length of what is nested in it has 16 bits.
const ELEMENTS: usize = 1000;

/// A map from ports of the host to ports of a container.
pub struct Map<'a> {
    /// The table that it is in.
    pub table: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Whether the host's address is part of the key.
    pub by_address: bool,
}

impl Map<'_> {
    /// `add map …`
    pub fn add(&self) -> Command {
        let (key_words, key_type, key_length) = match self.by_address {
            false => ("inet_proto . inet_service", (INET_PROTO << 6) | INET_SERVICE, 8),
            true => {
                let key = (IPV4_ADDR << 12) | (INET_PROTO << 6) | INET_SERVICE;
                ("ipv4_addr . inet_proto . inet_service", key, 12)
            }
        };
        let attributes = vec![
            SetAttribute::Table(self.table.into()),
            SetAttribute::Name(self.name.into()),
            SetAttribute::Flags(SetFlags::Map),
            SetAttribute::KeyType(key_type),
            SetAttribute::KeyLen(key_length),
            SetAttribute::DataType((IPV4_ADDR << 6) | INET_SERVICE),
            SetAttribute::DataLen(8),
            // For others of the same batch, which know it by its name.
            SetAttribute::Id(1),
        ];
        let message = NfTablesMessage::NewSet(SetMessage { attributes });
        let (table, name) = (self.table, self.name);
        let text = format!("add map ip {table} {name} {{ type {key_words} : ipv4_addr . inet_service; }}");
        Command::new(text, NLM_F_CREATE, Family::IPv4, message)
    }

    /// `add element …`, in as few messages as can be. Each is a key, what it leads to, and both
    /// in words.
    pub fn add_elements(&self, elements: &[(Vec<u8>, Vec<u8>, String)]) -> Vec<Command> {
        elements.chunks(ELEMENTS).map(|some| self.add_some(some)).collect()
    }

    fn add_some(&self, elements: &[(Vec<u8>, Vec<u8>, String)]) -> Command {
        let value = |bytes: &[u8]| DataAttribute::Value(bytes.into());
        let element = |(key, data, _): &(Vec<u8>, Vec<u8>, String)| {
            ListAttribute::Element(vec![
                SetElementAttribute::Key(value(key)),
                SetElementAttribute::Data(value(data)),
            ])
        };
        let attributes = vec![
            SetElementList::Table(self.table.into()),
            SetElementList::Set(self.name.into()),
            SetElementList::Elements(elements.iter().map(element).collect()),
        ];
        let message = NfTablesMessage::NewSetElement(SetElementMessage { attributes });
        let words: Vec<&str> = elements.iter().map(|(.., words)| &words[..]).collect();
        let text = format!("add element ip {} {} {{ {} }}", self.table, self.name, words.join(", "));
        Command::new(text, NLM_F_CREATE, Family::IPv4, message)
    }

    /// Ends the rule, unless the packet is for something in this map: then its address and port
    /// are loaded. The words of the key are what nft(8) calls them.
    pub fn look_up(&self) -> (&'static str, Vec<Expressions>) {
        let mut rule = Vec::new();
        let mut registers = [Register::Reg32_00, Register::Reg32_01, Register::Reg32_02].into_iter();
        let mut next = || registers.next().unwrap_or(Register::Reg32_03);
        if self.by_address {
            rule.push(load_destination_address(next()));
        }
        let protocol = vec![Meta::Key(MetaKey::L4Proto), Meta::DestinationRegister(next())];
        rule.push(Expressions::Meta(protocol));
        rule.push(load_destination_port(next()));
        rule.push(Expressions::Lookup(vec![
            Lookup::Set(self.name.into()),
            Lookup::SourceRegister(Register::Reg1),
            Lookup::DestinationRegister(Register::Reg1),
        ]));
        let words =
            if self.by_address { "ip daddr . meta l4proto . th dport" } else { "meta l4proto . th dport" };
        (words, rule)
    }
}

/// Loads, from the network header (base 1), 4 bytes from byte 16 on. (RFC 791, 3.1)
pub fn load_destination_address(register: Register) -> Expressions {
    let register = Payload::DestinationRegister(register);
    Expressions::Payload(vec![register, Payload::Base(1), Payload::Offset(16), Payload::Len(4)])
}

/// Loads, from the transport header (base 2), 2 bytes from byte 2 on: of TCP and of UDP the
/// destination port. (RFC 9293, 3.1; RFC 768)
fn load_destination_port(register: Register) -> Expressions {
    let register = Payload::DestinationRegister(register);
    Expressions::Payload(vec![register, Payload::Base(2), Payload::Offset(2), Payload::Len(2)])
}

/// Redirects the connection to the address and the port that are loaded. (Attributes: 1 the
/// kind, of which 1 is DNAT, 2 the family, 3 the register of the address, 5 that of the port.)
pub fn redirect() -> Expressions {
    let (address, port) = (Register::Reg1, Register::Reg32_01);
    other("nat", &[(1, 1), (2, u8::from(Family::IPv4).into()), (3, address.into()), (5, port.into())])
}
