//! Archives that no tool makes: every byte of a header is the test's.

/// An archive in the making.
#[derive(Default, Clone)]
pub struct RawTar(Vec<u8>);

/// What a header says, where it is not what everybody says.
pub struct Head<'a> {
    pub kind: u8,
    pub link: &'a [u8],
    pub mode: u64,
    pub owner: (u64, u64),
    pub time: u64,
    pub device: (u64, u64),
    /// What it says of its size; `None`: how much there is.
    pub size: Option<u64>,
}

impl Default for Head<'_> {
    fn default() -> Self {
        Head {
            kind: b'0',
            link: b"",
            mode: 0o644,
            owner: (0, 0),
            time: 1_000_000_000,
            device: (0, 0),
            size: None,
        }
    }
}

impl RawTar {
    pub fn file(self, name: impl AsRef<[u8]>, content: &[u8]) -> RawTar {
        self.with(name, Head::default(), content)
    }

    pub fn dir(self, name: impl AsRef<[u8]>) -> RawTar {
        self.with(name, Head { kind: b'5', mode: 0o755, ..Head::default() }, b"")
    }

    pub fn link(self, name: impl AsRef<[u8]>, to: &str) -> RawTar {
        self.with(name, Head { kind: b'2', link: to.as_bytes(), mode: 0o777, ..Head::default() }, b"")
    }

    pub fn hard_link(self, name: impl AsRef<[u8]>, to: &str) -> RawTar {
        self.with(name, Head { kind: b'1', link: to.as_bytes(), ..Head::default() }, b"")
    }

    pub fn device(self, name: impl AsRef<[u8]>, kind: u8, device: (u64, u64)) -> RawTar {
        self.with(name, Head { kind, device, ..Head::default() }, b"")
    }

    /// PAX records for the next entry.
    pub fn pax(self, records: &[(&str, &[u8])]) -> RawTar {
        let mut text = vec![];
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (1..).find(|length: &usize| length - length.to_string().len() == rest).unwrap();
            text.extend(format!("{length} {key}=").bytes());
            text.extend(*value);
            text.push(b'\n');
        }
        self.with("pax", Head { kind: b'x', ..Head::default() }, &text)
    }

    /// One entry.
    pub fn with(mut self, name: impl AsRef<[u8]>, head: Head, content: &[u8]) -> RawTar {
        let name = name.as_ref();
        // A name that does not fit goes before it, as GNU tar does it.
        if name.len() > 100 {
            self = self.with("././@LongLink", Head { kind: b'L', ..Head::default() }, name);
        }
        let mut header = [0u8; 512];
        let short = &name[..name.len().min(100)];
        header[..short.len()].copy_from_slice(short);
        number(&mut header[100..108], head.mode);
        number(&mut header[108..116], head.owner.0);
        number(&mut header[116..124], head.owner.1);
        number(&mut header[124..136], head.size.unwrap_or(content.len() as u64));
        number(&mut header[136..148], head.time);
        header[156] = head.kind;
        header[157..157 + head.link.len()].copy_from_slice(head.link);
        header[257..265].copy_from_slice(b"ustar  \0");
        number(&mut header[329..337], head.device.0);
        number(&mut header[337..345], head.device.1);
        header[148..156].fill(b' ');
        let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        self.0.extend(header);
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// All of it, with its end.
    pub fn bytes(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }

    /// All of it so far, and no end.
    pub fn unfinished(self) -> Vec<u8> {
        self.0
    }
}

/// Octal, or, if that does not fit, base 256.
fn number(field: &mut [u8], value: u64) {
    let width = field.len() - 1;
    let octal = format!("{value:0width$o}\0");
    if octal.len() == field.len() {
        field.copy_from_slice(octal.as_bytes());
    } else {
        let bytes = u128::from(value).to_be_bytes();
        field.copy_from_slice(&bytes[16 - field.len()..]);
        field[0] |= 0x80;
    }
}
