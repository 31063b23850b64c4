//! Day 9: how the words of `nftables` reach the kernel, and its answers us: over
//! a netlink socket. A change is a batch of messages, of which the kernel takes
//! all or none. (netlink(7), linux/netfilter/nfnetlink.h)

use std::io;

use anyhow::{Context, anyhow};
use netlink_packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR,
    NetlinkBuffer, NetlinkMessage, NlasIterator, ParseableParametrized, parse_i32, parse_string,
    parse_u64_be,
};
use netlink_packet_netfilter::nftables::{ChainMessage, GenAttribute, GenMessage, NfTablesMessage};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner as Inner, NetfilterProtoFamily as Family,
};
use netlink_sys::{Socket, protocols::NETLINK_NETFILTER};
use rustix::net::sockopt::set_socket_send_buffer_size_force;

use crate::error::Result;
use crate::explain::step;
use crate::net::nftables::{Batch, Chain};

const DAY: u8 = 9;

/// The part of netfilter that is nftables.
const NFNL_SUBSYS_NFTABLES: u16 = 10;
/// What a batch begins with, and its attribute: the generation it was planned for.
const NFNL_MSG_BATCH_BEGIN: u8 = 16;
const NFNL_BATCH_GENID: u16 = 1;
/// In bytes: more than this is not sent without asking for room. (socket(7), SO_SNDBUF)
const ROOM: usize = 64 << 10;
/// Attributes of a rule, and of a refusal.
const NFTA_RULE_HANDLE: u16 = 3;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_RULE_USERDATA: u16 = 7;
const NLMSGERR_ATTR_MSG: u16 = 1;

// ANCHOR: change
/// Looks, has `plan` say what to change, and changes it.
///
/// The kernel numbers the generations of its ruleset, and refuses a batch that
/// was planned for one that has passed: somebody else was faster, so look again.
pub fn change(plan: impl Fn(&Netlink, &[Chain]) -> Result<Batch>) -> Result<()> {
    let netlink = Netlink::open()?;
    loop {
        let (generation, chains) = netlink.chains()?;
        let batch = plan(&netlink, &chains)?;
        if batch.commands.is_empty() || netlink.commit(DAY, Some(generation), &batch)? {
            return Ok(());
        }
    }
}
// ANCHOR_END: change

/// A socket, with the kernel at its other end. (netlink(7))
#[derive(Debug)]
pub struct Netlink(Socket);

impl Netlink {
    /// Opens one in the network namespace of this process.
    pub fn open() -> Result<Netlink> {
        let open = || {
            let socket = Socket::new(NETLINK_NETFILTER)?;
            // Of an error more than a number, but not the request once again.
            socket.set_ext_ack(true)?;
            socket.set_cap_ack(true)?;
            Ok(Netlink(socket))
        };
        let describe = "socket(AF_NETLINK, SOCK_DGRAM, NETLINK_NETFILTER)";
        open().map_err(|error: io::Error| refused(error, "")).context(describe)
    }

    // ANCHOR: chains
    /// The generation, and the chains of it. Both are asked for at once: every
    /// start of a container waits for this.
    fn chains(&self) -> Result<(u32, Vec<Chain>)> {
        let get = |message| NetfilterMessage::new(NetfilterHeader::new(Family::Unspec, 0, 0), message);
        let generation = get(NfTablesMessage::GetGen(GenMessage { attributes: vec![] }));
        let chains = get(NfTablesMessage::GetChain(ChainMessage { attributes: vec![] }));
        let requests = [packet(0, 0, generation), packet(1, NLM_F_DUMP, chains)].concat();
        let messages =
            step(DAY, || ("nft: list chains".into(), "nft list chains".into()), || self.list(&requests))?;
        let (mut generation, mut chains) = (0, vec![]);
        for (kind, bytes) in messages {
            let message = NetfilterMessage::parse_with_param(&bytes[..], kind)?;
            match message.inner {
                Inner::NfTables(NfTablesMessage::NewChain(chain)) => {
                    chains.push(Chain::read(message.header.family, chain.attributes))
                }
                Inner::NfTables(NfTablesMessage::NewGen(answer)) => {
                    let id = |attribute| if let GenAttribute::Id(id) = attribute { Some(id) } else { None };
                    generation = answer.attributes.into_iter().find_map(id).unwrap_or(0);
                }
                _ => {}
            }
        }
        Ok((generation, chains))
    }
    // ANCHOR_END: chains

    /// The handles of the rules in `chain` that have this comment.
    pub fn rules(&self, chain: &Chain, comment: &str) -> Result<Vec<u64>> {
        let list = chain.list();
        let describe = || (format!("nft: {}", list.text), format!("nft --handle {}", list.text));
        let request = packet(0, list.flags, list.message.clone());
        let rules = step(DAY, describe, || self.list(&request))?;
        Ok(rules.iter().filter_map(|(_, rule)| handle_if_marked(rule, comment)).collect())
    }

    // ANCHOR: commit
    /// Makes all changes, or none. Returns whether the batch was still in time, if it was planned
    /// for a generation.
    pub fn commit(&self, day: u8, generation: Option<u32>, batch: &Batch) -> Result<bool> {
        let texts: Vec<&str> = batch.commands.iter().map(|command| &command.text[..]).collect();
        let describe = || (format!("nft: {}", batch.title.join(", ")), format!("nft '{}'", texts.join("; ")));
        step(day, describe, || {
            let answer = self.ask(&packets(generation, batch))?;
            match answer.errno {
                0 => Ok(true),
                libc::ERESTART => Ok(false),
                errno => {
                    let which = texts.get(answer.request as usize).copied().unwrap_or("commit");
                    let error = io::Error::from_raw_os_error(errno);
                    Err(refused(error, &answer.said)).with_context(|| which.to_string())
                }
            }
        })
    }
    // ANCHOR_END: commit

    /// All messages of an answer. One that a change interrupted is not of one
    /// piece: ask again.
    pub fn list(&self, requests: &[u8]) -> Result<Vec<(u16, Vec<u8>)>> {
        loop {
            let answer = self.ask(requests)?;
            if answer.errno != 0 {
                return Err(refused(io::Error::from_raw_os_error(answer.errno), &answer.said));
            }
            if !answer.interrupted {
                return Ok(answer.messages);
            }
        }
    }

    /// Sends `requests`, and reads until the first of them has been answered to its end.
    pub fn ask(&self, requests: &[u8]) -> Result<Answer> {
        if requests.len() > ROOM {
            // More than people may ask for, and we are root. (socket(7), SO_SNDBUFFORCE)
            set_socket_send_buffer_size_force(&self.0, requests.len())
                .context("setsockopt(SO_SNDBUFFORCE)")?;
        }
        self.0.send(requests, 0).context("send")?;
        let mut answer = Answer::default();
        let mut buffer = Vec::with_capacity(1 << 16);
        loop {
            buffer.clear();
            self.0.recv(&mut buffer, 0).context("recv")?;
            let mut rest = &buffer[..];
            while !rest.is_empty() {
                let packet = NetlinkBuffer::new_checked(rest)?;
                answer.interrupted |= packet.flags() & NLM_F_DUMP_INTR != 0;
                // What ends an answer begins with an errno, negative. What is said
                // of it stands behind that; in NLMSG_ERROR the header of the
                // request, of 16 bytes, comes first.
                match packet.message_type() {
                    NLMSG_DONE => return Ok(answer.end(&packet, 4)),
                    NLMSG_ERROR => return Ok(answer.end(&packet, 4 + 16)),
                    kind => answer.messages.push((kind, packet.payload().into())),
                }
                let length = (packet.length() as usize).next_multiple_of(4);
                rest = rest.get(length..).unwrap_or_default();
            }
        }
    }
}

/// What came back: messages, each with its type. If it was no, then the errno,
/// the number of the request that it is about, and what was said of it.
#[derive(Debug, Default)]
pub struct Answer {
    messages: Vec<(u16, Vec<u8>)>,
    interrupted: bool,
    /// 0: it was no refusal.
    pub errno: i32,
    request: u32,
    said: String,
}

impl Answer {
    fn end(mut self, packet: &NetlinkBuffer<&[u8]>, said: usize) -> Answer {
        let payload = packet.payload();
        self.errno = payload.get(..4).and_then(|code| parse_i32(code).ok()).map_or(0, i32::abs);
        self.request = packet.sequence_number();
        let mut attributes = NlasIterator::new(payload.get(said..).unwrap_or_default()).flatten();
        let message = attributes.find(|attribute| attribute.kind() == NLMSGERR_ATTR_MSG);
        self.said = message.and_then(|text| parse_string(text.value()).ok()).unwrap_or_default();
        self
    }
}

/// A message with its header. The kernel's answer repeats the number.
pub fn packet(number: u32, flags: u16, message: NetfilterMessage) -> Vec<u8> {
    let mut packet = NetlinkMessage::from(message);
    packet.header.sequence_number = number;
    packet.header.flags = NLM_F_REQUEST | flags;
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    bytes
}

/// All messages of a batch: one for each command, and one at either end.
fn packets(generation_of: Option<u32>, batch: &Batch) -> Vec<u8> {
    let control = |message: ControlMessage| {
        let header = NetfilterHeader::new(Family::Unspec, 0, NFNL_SUBSYS_NFTABLES);
        packet(u32::MAX, 0, NetfilterMessage::new(header, message))
    };
    let generation = |number: u32| DefaultNla::new(NFNL_BATCH_GENID, number.to_be_bytes().into());
    let (message_type, attributes) =
        (NFNL_MSG_BATCH_BEGIN, generation_of.map(generation).into_iter().collect());
    let mut bytes = control(ControlMessage::Other { message_type, attributes });
    for (number, command) in batch.commands.iter().enumerate() {
        // Unless it is asked to say so, the kernel says nothing when all is well.
        let last = if number + 1 == batch.commands.len() { NLM_F_ACK } else { 0 };
        bytes.extend(packet(number as u32, command.flags | last, command.message.clone()));
    }
    bytes.extend(control(ControlMessage::BatchEnd));
    bytes
}

/// The handle of a rule, if `comment` is in it: in its user data, where nft
/// writes it, or in an expression, where iptables-restore puts it. In both it
/// stands between bytes that are not text.
fn handle_if_marked(rule: &[u8], comment: &str) -> Option<u64> {
    let (mut handle, mut marked) = (None, false);
    for attribute in NlasIterator::new(rule.get(4..)?).flatten() {
        match attribute.kind() {
            NFTA_RULE_HANDLE => handle = parse_u64_be(attribute.value()).ok(),
            NFTA_RULE_EXPRESSIONS | NFTA_RULE_USERDATA => {
                let mut texts = attribute.value().split(u8::is_ascii_control);
                marked |= texts.any(|text| text == comment.as_bytes())
            }
            _ => {}
        }
    }
    handle.filter(|_| marked)
}

/// What the kernel answered, and what to do about it.
fn refused(error: io::Error, said: &str) -> anyhow::Error {
    let advice = match error.raw_os_error() {
        Some(libc::EPERM) => {
            "; this needs the capability CAP_NET_ADMIN: run it with sudo, or in the lab's virtual machine \
             (make vm-shell)"
        }
        Some(libc::E2BIG) => {
            "; the kernel takes 1024 chains at one hook, and each container with published ports has one there: \
             stop some of them"
        }
        // EINVAL is what a kernel without nftables says to a question.
        Some(libc::EPROTONOSUPPORT | libc::EINVAL | libc::ENOENT | libc::EOPNOTSUPP) => {
            "; the kernel does not know what it is asked for: nftables, or a part of it, may be missing. \
             Try modprobe -a nf_tables nft_chain_nat nft_masq nft_ct, or a kernel with CONFIG_NF_TABLES, \
             CONFIG_NF_TABLES_IPV4, CONFIG_NFT_NAT, CONFIG_NFT_MASQ and CONFIG_NFT_CT"
        }
        _ => "",
    };
    let said = if said.is_empty() { String::new() } else { format!(" ({said})") };
    anyhow!("{error}{said}{advice}")
}
