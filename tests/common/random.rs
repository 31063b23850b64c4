//! Random images: random trees, and random layers over them.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use super::layout::{Layout, Packed};

/// The same numbers for the same seed, on every machine. (xorshift64*)
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % sides
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.roll(all.len() as u64) as usize]
    }
}

/// What a path is: its type, and all else that is in a header.
#[derive(Clone)]
struct Node {
    kind: EntryType,
    mode: u32,
    owner: (u64, u64),
    time: u64,
    attribute: Option<String>,
    /// Of a link: where it leads.
    target: String,
    content: Vec<u8>,
}

/// What a layer adds to, and what came of it: path to node. A hard link is one more node.
type Tree = BTreeMap<String, Node>;

/// The image number `seed`: two to five layers. The descriptor of its manifest.
pub fn random_image(layout: &Layout, seed: u64) -> Value {
    let mut dice = Dice::new(seed);
    let mut tree = Tree::new();
    tree.insert(".".into(), node(&mut dice, EntryType::Directory));
    let layers: Vec<_> = (0..2 + dice.roll(4))
        .map(|_| {
            let archive = random_layer(&mut dice, &mut tree);
            layout.layer(&archive, *dice.one_of(&[Packed::Gzip, Packed::Plain]))
        })
        .collect();
    layout.image(&layers, json!({"Cmd": ["true"]}))
}

fn random_layer(dice: &mut Dice, tree: &mut Tree) -> Vec<u8> {
    let mut layer = Archive { tar: Builder::new(vec![]), written: vec![] };
    let below: Vec<String> = tree.keys().filter(|path| *path != ".").cloned().collect();
    layer.directory(".", tree);
    // First what goes, then what comes: as the tools write it.
    for path in &below {
        if !tree.contains_key(path) || dice.roll(8) > 0 {
            continue;
        }
        let (dir, name) = path.rsplit_once('/').unwrap_or((".", path));
        if tree[path].kind == EntryType::Directory && dice.roll(2) == 0 {
            layer.directory(path, tree);
            layer.marker(&format!("{path}/.wh..wh..opq"));
            tree.retain(|other, _| !other.starts_with(&format!("{path}/")));
        } else {
            layer.directory(dir, tree);
            layer.marker(&format!("{dir}/.wh.{name}"));
            tree.retain(|other, _| other != path && !other.starts_with(&format!("{path}/")));
        }
    }
    for _ in 0..5 + dice.roll(25) {
        add(dice, tree, &mut layer);
    }
    layer.tar.into_inner().unwrap()
}

fn add(dice: &mut Dice, tree: &mut Tree, layer: &mut Archive) {
    const NAMES: [&str; 8] = ["a", "b", "c d", "e.txt", "lib", "x-ü", "bin", "deep"];
    let is_dir = |path: &&String| tree[*path].kind == EntryType::Directory;
    let dirs: Vec<String> = tree.keys().filter(is_dir).cloned().collect();
    let dir = dice.one_of(&dirs).clone();
    let name = match dice.roll(20) {
        0 => "n".repeat(120 + dice.roll(100) as usize),
        _ => dice.one_of(&NAMES).to_string(),
    };
    let path = if dir == "." { name } else { format!("{dir}/{name}") };
    // What this layer has written already stays as it is.
    if path.len() > 900 || layer.written.contains(&path) {
        return;
    }
    let kinds = [
        EntryType::Directory,
        EntryType::Directory,
        EntryType::Regular,
        EntryType::Regular,
        EntryType::Regular,
        EntryType::Symlink,
        EntryType::Fifo,
        EntryType::Char,
        EntryType::Link,
    ];
    let kind = *dice.one_of(&kinds);
    let mut new = node(dice, kind);
    if new.kind == EntryType::Link {
        let is_file = |path: &&String| tree.get(*path).is_some_and(|node| node.kind == EntryType::Regular);
        let files: Vec<String> = layer.written.iter().filter(is_file).cloned().collect();
        if files.is_empty() {
            return;
        }
        let target = dice.one_of(&files).clone();
        // As tools write it: what is said of a file is the same under each of its names.
        new =
            Node { kind: EntryType::Link, target: target.clone(), attribute: None, ..tree[&target].clone() };
    }
    // A file where a directory was takes all of it away.
    if new.kind != EntryType::Directory {
        tree.retain(|other, _| !other.starts_with(&format!("{path}/")));
        if layer.written.iter().any(|other| other.starts_with(&format!("{path}/"))) {
            return;
        }
    }
    layer.directory(&dir, tree);
    layer.write(&path, &new);
    tree.insert(path, new);
}

fn node(dice: &mut Dice, kind: EntryType) -> Node {
    let modes = match kind {
        EntryType::Directory => [0o755, 0o700, 0o1777, 0o2750],
        _ => [0o644, 0o600, 0o4755, 0o400],
    };
    let may_have = matches!(kind, EntryType::Directory | EntryType::Regular);
    Node {
        kind,
        mode: *dice.one_of(&modes),
        owner: (*dice.one_of(&[0, 1000, 65534, 100_000]), *dice.one_of(&[0, 50, 1000, 2_500_000])),
        time: 1 + dice.roll(1_900_000_000),
        attribute: (may_have && dice.roll(5) == 0).then(|| format!("value {}", dice.roll(1000))),
        target: (*dice.one_of(&["a", "../b", "/lib/e.txt", "nowhere", "/"])).into(),
        content: (0..*dice.one_of(&[0, 1, 100, 511, 512, 513, 5000])).map(|_| dice.roll(256) as u8).collect(),
    }
}

struct Archive {
    tar: Builder<Vec<u8>>,
    written: Vec<String>,
}

impl Archive {
    /// The directory `path`, and those above it: as tools write them, before what is in them.
    fn directory(&mut self, path: &str, tree: &Tree) {
        let above = path.match_indices('/').map(|(at, _)| &path[..at]);
        for path in std::iter::once(".").chain(above).chain([path]) {
            if !self.written.iter().any(|written| written == path) {
                self.write(path, &tree[path]);
            }
        }
    }

    fn write(&mut self, path: &str, node: &Node) {
        if let Some(value) = &node.attribute {
            let attributes = [("SCHILY.xattr.user.lab", value.as_bytes())];
            self.tar.append_pax_extensions(attributes).unwrap();
        }
        let mut header = Header::new_gnu();
        header.set_entry_type(node.kind);
        header.set_mode(node.mode);
        header.set_uid(node.owner.0);
        header.set_gid(node.owner.1);
        header.set_mtime(node.time);
        header.set_size(0);
        match node.kind {
            EntryType::Regular => {
                header.set_size(node.content.len() as u64);
                self.tar.append_data(&mut header, path, &node.content[..]).unwrap();
            }
            EntryType::Symlink | EntryType::Link => {
                self.tar.append_link(&mut header, path, &node.target).unwrap()
            }
            EntryType::Char => {
                header.set_device_major(1).unwrap();
                header.set_device_minor(3).unwrap();
                self.tar.append_data(&mut header, path, &[][..]).unwrap();
            }
            EntryType::Directory => self.tar.append_data(&mut header, format!("{path}/"), &[][..]).unwrap(),
            _ => self.tar.append_data(&mut header, path, &[][..]).unwrap(),
        }
        self.written.push(path.into());
    }

    fn marker(&mut self, path: &str) {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o600);
        header.set_size(0);
        self.tar.append_data(&mut header, path.trim_start_matches("./"), &[][..]).unwrap();
    }
}
