//! Day 9: nftables' words: tables, chains, rules, and the expressions that a
//! rule is made of. `nat` makes sentences of them, `nfnetlink` sends them.
//!
//! Beside each message stands the command of nft(8) that would send it.
//! (linux/netfilter/nf_tables.h)

use std::fmt;

use netlink_packet_core::{DefaultNla, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP};
use netlink_packet_netfilter::nftables::*;
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily as Family};

/// The policy of a chain. (linux/netfilter.h)
pub const NF_DROP: u32 = 0;
/// The other policy.
pub const NF_ACCEPT: u32 = 1;

/// Loads what is known about the packet.
pub fn load(key: MetaKey) -> Expressions {
    Expressions::Meta(vec![Meta::Key(key), Meta::DestinationRegister(Register::Reg1)])
}

/// Loads, from the network header (base 1), 4 bytes from byte 12 on. (RFC 791, 3.1)
pub fn load_source_address() -> Expressions {
    let register = Payload::DestinationRegister(Register::Reg1);
    Expressions::Payload(vec![register, Payload::Base(1), Payload::Offset(12), Payload::Len(4)])
}

/// Loads the state of the connection: attribute 1 is the register, 2 the key.
pub fn load_ct_state() -> Expressions {
    other("ct", &[(1, Register::Reg1.into()), (2, 0)])
}

/// Ends the rule, unless the packet is for this host: the routing table is asked what kind of
/// address its destination is. (Attributes: 1 the register, 2 what is asked for, of which 3 is
/// the kind, 3 about which address, of which 1 << 1 is the destination. linux/rtnetlink.h: the
/// kind 2 is RTN_LOCAL.)
pub fn is_for_this_host() -> [Expressions; 2] {
    let ask = other("fib", &[(1, Register::Reg1.into()), (2, 3), (3, 1 << 1)]);
    [ask, compare(Operator::Equal, &2_u32.to_ne_bytes())]
}

/// Ends the rule, unless the connection's destination was changed on this host: its status has
/// the bit 1 << 5. (linux/netfilter/nf_conntrack_common.h, IPS_DST_NAT)
pub fn is_redirected() -> Vec<Expressions> {
    let load_status = other("ct", &[(1, Register::Reg1.into()), (2, 2)]);
    vec![load_status, and((1_u32 << 5).to_ne_bytes()), compare(Operator::NotEqual, &[0; 4])]
}

/// Keeps the bits of `mask`.
pub fn and(mask: [u8; 4]) -> Expressions {
    Expressions::Bitwise(vec![
        Bitwise::SourceRegister(Register::Reg1),
        Bitwise::DestinationRegister(Register::Reg1),
        Bitwise::Length(4),
        Bitwise::Mask(DataAttribute::Value(mask.into())),
        Bitwise::Xor(DataAttribute::Value(vec![0; 4])),
    ])
}

/// Ends the rule, unless the comparison with `value` holds.
pub fn compare(operator: Operator, value: &[u8]) -> Expressions {
    let value = DataAttribute::Value(value.into());
    Expressions::Cmp(vec![Cmp::SourceRegister(Register::Reg1), Cmp::Op(operator), Cmp::Data(value)])
}

/// Decides.
pub fn verdict(code: u32) -> Expressions {
    let code = DataAttribute::Verdict(vec![VerdictAttribute::Code(Verdict::Other(code))]);
    Expressions::Immediate(vec![Immediate::DestinationRegister(Register::Verdict), Immediate::Data(code)])
}

/// An expression that the library has no type for.
pub fn other(name: &str, attributes: &[(u16, u32)]) -> Expressions {
    let attribute = |&(kind, value): &(u16, u32)| DefaultNla::new(kind, value.to_be_bytes().into());
    Expressions::Other {
        expression_type: name.into(),
        attributes: attributes.iter().map(attribute).collect(),
    }
}

/// Compared with its zero byte, a name is compared to its end.
pub fn c_string(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

/// As nft and iptables read it: type 0, length, text. (NFTNL_UDATA_RULE_COMMENT)
fn comment(text: &str) -> Vec<u8> {
    [&[0, text.len() as u8 + 1], &c_string(text)[..]].concat()
}

/// A change: the command of nft(8), and the message that it would send.
#[derive(Clone)]
pub struct Command {
    /// For nft(8).
    pub text: String,
    /// Of the message. (netlink(7))
    pub flags: u16,
    /// For the kernel.
    pub message: NetfilterMessage,
}

/// Changes that are made together, or not at all.
#[derive(Default)]
pub struct Batch {
    /// What they are for.
    pub title: Vec<String>,
    /// In the order in which they are made.
    pub commands: Vec<Command>,
}

impl Command {
    /// One of a table of this family.
    pub fn new(text: String, flags: u16, family: Family, message: NfTablesMessage) -> Command {
        Command { text, flags, message: NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), message) }
    }
}

/// `add table ip NAME`
pub fn add_table(name: &str) -> Command {
    let message = NfTablesMessage::NewTable(table(name));
    Command::new(format!("add table ip {name}"), NLM_F_CREATE, Family::IPv4, message)
}

/// `add table ip NAME { flags owner; }`: nobody else may change it, and it is gone as soon as
/// the socket that this is sent by is closed, for whatever reason. (Linux 5.12)
pub fn add_owned_table(name: &str) -> Command {
    let attributes = vec![TableAttribute::Name(name.into()), TableAttribute::Flags(TableFlags::Owner)];
    let message = NfTablesMessage::NewTable(TableMessage { attributes });
    Command::new(format!("add table ip {name}"), NLM_F_CREATE, Family::IPv4, message)
}

/// `delete table ip NAME`
pub fn delete_table(name: &str) -> Command {
    Command::new(
        format!("delete table ip {name}"),
        0,
        Family::IPv4,
        NfTablesMessage::DeleteTable(table(name)),
    )
}

fn table(name: &str) -> TableMessage {
    TableMessage { attributes: vec![TableAttribute::Name(name.into())] }
}

/// A chain that is there, or is to be.
pub struct Chain {
    /// Whose packets it sees: `ip`, or more.
    pub family: Family,
    /// The table that it is in.
    pub table: String,
    name: String,
    /// It is asked about IPv4 packets that are forwarded.
    pub forwards: bool,
    /// It is asked about IPv4 packets that arrive, before it is known where they go.
    pub arrives: bool,
    /// It drops what no rule decides.
    pub drops: bool,
    /// How many.
    pub rules: u32,
    comment: Vec<u8>,
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let family = if self.family == Family::Inet { "inet" } else { "ip" };
        write!(f, "{family} {} {}", self.table, self.name)
    }
}

impl Chain {
    /// One of a table of family ip.
    pub fn ours(table: &str, name: &str) -> Chain {
        Chain::new(Family::IPv4, table.into(), name.into())
    }

    fn new(family: Family, table: String, name: String) -> Chain {
        Chain {
            family,
            table,
            name,
            forwards: false,
            arrives: false,
            drops: false,
            rules: 0,
            comment: vec![],
        }
    }

    /// One that the kernel told of.
    pub fn read(family: Family, attributes: Vec<ChainAttribute>) -> Chain {
        let ipv4 = matches!(family, Family::IPv4 | Family::Inet);
        let mut chain = Chain::new(family, String::new(), String::new());
        for attribute in attributes {
            match attribute {
                ChainAttribute::Table(name) => chain.table = name,
                ChainAttribute::Name(name) => chain.name = name,
                ChainAttribute::Hook(hook) => {
                    let is = |at: InetHookNumber| ipv4 && hook.contains(&Hook::Number(at.into()));
                    chain.forwards = is(InetHookNumber::Forward);
                    chain.arrives = is(InetHookNumber::PreRouting);
                }
                ChainAttribute::Policy(policy) => chain.drops = policy == NF_DROP,
                ChainAttribute::Use(rules) => chain.rules = rules,
                ChainAttribute::UserData(comment) => chain.comment = comment,
                _ => {}
            }
        }
        chain
    }

    /// By family, table and name.
    pub fn is(&self, other: &Chain) -> bool {
        (self.family, &self.table, &self.name) == (other.family, &other.table, &other.name)
    }

    /// What stands in its comment.
    pub fn has_comment(&self, text: &str) -> bool {
        self.comment == comment(text)
    }

    /// `add chain …`, a base chain with policy accept. Its hook is its name.
    pub fn add(&self, kind: &str, hook: InetHookNumber, priority: i32, about: &str) -> Command {
        let attributes = vec![
            ChainAttribute::Table(self.table.clone()),
            ChainAttribute::Name(self.name.clone()),
            ChainAttribute::Hook(vec![Hook::Number(hook.into()), Hook::Priority(priority as u32)]),
            ChainAttribute::Type(kind.into()),
            ChainAttribute::Policy(NF_ACCEPT),
            ChainAttribute::UserData(comment(about)),
        ];
        let base = format!("type {kind} hook {} priority {priority}; policy accept", self.name);
        let text = format!("add chain {self} {{ {base}; comment \"{about}\"; }}");
        Command::new(text, NLM_F_CREATE, self.family, NfTablesMessage::NewChain(ChainMessage { attributes }))
    }

    /// `add rule …`: after those that are there.
    pub fn add_rule(&self, text: &str, rule: Vec<Expressions>) -> Command {
        let message = self.rule(RuleAttribute::Expressions(rule.into_iter().map(Into::into).collect()));
        let flags = NLM_F_CREATE | NLM_F_APPEND;
        Command::new(format!("add rule {self} {text}"), flags, self.family, NfTablesMessage::NewRule(message))
    }

    /// `insert rule …`: before those that are there.
    pub fn insert_rule(&self, text: &str, rule: Vec<Expressions>, about: &str) -> Command {
        let mut message = self.rule(RuleAttribute::Expressions(rule.into_iter().map(Into::into).collect()));
        message.attributes.push(RuleAttribute::UserData(comment(about)));
        let text = format!("insert rule {self} {text} comment \"{about}\"");
        Command::new(text, NLM_F_CREATE, self.family, NfTablesMessage::NewRule(message))
    }

    /// `delete rule … handle N`
    pub fn delete_rule(&self, handle: u64) -> Command {
        let message = NfTablesMessage::DeleteRule(self.rule(RuleAttribute::Handle(handle)));
        Command::new(format!("delete rule {self} handle {handle}"), 0, self.family, message)
    }

    /// `list chain …`
    pub fn list(&self) -> Command {
        let message = NfTablesMessage::GetRule(RuleMessage { attributes: self.path() });
        Command::new(format!("list chain {self}"), NLM_F_DUMP, self.family, message)
    }

    fn rule(&self, attribute: RuleAttribute) -> RuleMessage {
        RuleMessage { attributes: [self.path(), vec![attribute]].concat() }
    }

    fn path(&self) -> Vec<RuleAttribute> {
        vec![RuleAttribute::Table(self.table.clone()), RuleAttribute::Chain(self.name.clone())]
    }
}
