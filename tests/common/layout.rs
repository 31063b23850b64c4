//! Images that a test writes: an OCI image layout, which skopeo reads.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::World;

/// How a layer is packed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Packed {
    Plain,
    Gzip,
    Zstd,
}

/// A layer that is in the layout.
#[derive(Debug, Clone)]
pub struct Layer {
    /// What a manifest says of it.
    pub descriptor: Value,
    /// The digest of its tar archive.
    pub diff_id: String,
}

/// An OCI image layout in the test's directory.
pub struct Layout {
    pub dir: PathBuf,
    manifests: Vec<Value>,
}

const OCI: &str = "application/vnd.oci.image";

impl Layout {
    pub fn new(world: &World, name: &str) -> Layout {
        let dir = world.dir().join(name);
        fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
        Layout { dir, manifests: vec![] }
    }

    /// Puts `bytes` into the layout, whatever they are; their descriptor.
    pub fn blob(&self, bytes: &[u8], media_type: &str) -> Value {
        let digest = sha256(bytes);
        fs::write(self.dir.join("blobs/sha256").join(&digest[7..]), bytes).unwrap();
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    /// A layer of this archive.
    pub fn layer(&self, tar: &[u8], packed: Packed) -> Layer {
        let (bytes, ending) = match packed {
            Packed::Plain => (tar.to_vec(), ""),
            Packed::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
                encoder.write_all(tar).unwrap();
                (encoder.finish().unwrap(), "+gzip")
            }
            Packed::Zstd => {
                let level = ruzstd::encoding::CompressionLevel::Fastest;
                (ruzstd::encoding::compress_to_vec(tar, level), "+zstd")
            }
        };
        let descriptor = self.blob(&bytes, &format!("{OCI}.layer.v1.tar{ending}"));
        Layer { descriptor, diff_id: sha256(tar) }
    }

    /// An image of these layers, the lowest first, for amd64. `config` is what is to be
    /// executed: `{"Cmd": ["sh"]}`. Returns the descriptor of its manifest.
    pub fn image(&self, layers: &[Layer], config: Value) -> Value {
        self.image_for("amd64", layers, config)
    }

    pub fn image_for(&self, architecture: &str, layers: &[Layer], config: Value) -> Value {
        let diff_ids: Vec<_> = layers.iter().map(|layer| layer.diff_id.clone()).collect();
        let history: Vec<_> = (1..=layers.len())
            .map(|number| json!({"created": "2026-01-01T00:00:00Z", "created_by": format!("step {number}")}))
            .collect();
        let platform = json!({"architecture": architecture, "os": "linux"});
        let image = json!({
            "created": "2026-01-01T00:00:00Z", "architecture": architecture, "os": "linux",
            "config": config, "rootfs": {"type": "layers", "diff_ids": diff_ids}, "history": history,
        });
        let config = self.blob(image.to_string().as_bytes(), &format!("{OCI}.config.v1+json"));
        let descriptors: Vec<_> = layers.iter().map(|layer| layer.descriptor.clone()).collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": format!("{OCI}.manifest.v1+json"),
            "config": config, "layers": descriptors,
        });
        let mut descriptor = self.blob(manifest.to_string().as_bytes(), &format!("{OCI}.manifest.v1+json"));
        descriptor["platform"] = platform;
        descriptor
    }

    /// An index of these images, one for each platform.
    pub fn index(&self, images: &[Value]) -> Value {
        let index = json!({
            "schemaVersion": 2, "mediaType": format!("{OCI}.index.v1+json"), "manifests": images,
        });
        self.blob(index.to_string().as_bytes(), &format!("{OCI}.index.v1+json"))
    }

    /// From here on `oci:DIR:TAG` is this image, or this index.
    pub fn tag(&mut self, tag: &str, descriptor: &Value) {
        let mut named = descriptor.clone();
        named["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        self.manifests.push(named);
        let index = json!({"schemaVersion": 2, "manifests": self.manifests});
        fs::write(self.dir.join("index.json"), index.to_string()).unwrap();
    }

    /// The file that is called `digest`.
    pub fn path(&self, digest: &str) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap())
    }
}

/// As a descriptor has it.
pub fn sha256(bytes: &[u8]) -> String {
    let hex: String = digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// An archive of all that is in `dir`, as it is there.
pub fn tar_of(dir: &Path) -> Vec<u8> {
    let mut tar = tar::Builder::new(vec![]);
    tar.follow_symlinks(false);
    tar.append_dir_all("", dir).unwrap();
    tar.into_inner().unwrap()
}

/// An archive of files that are root's: their names, modes and contents. A name that ends
/// with `/` is a directory.
pub fn tar_with(files: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(vec![]);
    for (name, mode, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(*mode);
        header.set_mtime(1_700_000_000);
        header.set_size(content.len() as u64);
        header.set_entry_type(match name.ends_with('/') {
            true => tar::EntryType::Directory,
            false => tar::EntryType::Regular,
        });
        tar.append_data(&mut header, name, *content).unwrap();
    }
    tar.into_inner().unwrap()
}
