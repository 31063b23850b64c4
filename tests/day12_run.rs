//! Day 12: containers of images: what `run --image` makes of a configuration, and the way from
//! a registry into a container and back.
#![allow(clippy::unwrap_used)]

mod common;

use common::layout::{Layout, Packed, sha256, tar_of, tar_with};
use common::registry::{ADDRESS, Door, PASSWORD, Registry, USER, run};
use common::{World, busybox};
use serde_json::json;

#[test]
#[ignore = "privileged: make vm-test"]
fn task0_the_registry_of_the_tests_is_a_real_one() {
    for door in [Door::Open, Door::Https, Door::Password, Door::Token] {
        let world = World::new();
        let registry = Registry::start(&world, door);
        let mut layout = Layout::new(&world, "layout");
        let layers = [
            layout.layer(&tar_of(&busybox()), Packed::Gzip),
            layout.layer(&tar_with(&[("srv/", 0o755, b""), ("srv/a", 0o644, b"a\n")]), Packed::Plain),
            layout.layer(&tar_with(&[("srv/b", 0o600, b"b\n")]), Packed::Zstd),
        ];
        let amd64 = layout.image(&layers, json!({"Cmd": ["sh"]}));
        let arm64 = layout.image_for("arm64", &layers[1..], json!({"Cmd": ["sh"]}));
        let index = layout.index(&[amd64, arm64]);
        layout.tag("v1", &index);
        registry.fill(&layout, "v1", "lab/busybox:v1");
        let raw = registry.raw("lab/busybox:v1");
        assert_eq!(raw["manifests"].as_array().unwrap().len(), 2, "{raw}");
        let blob = registry.blob(layers[0].descriptor["digest"].as_str().unwrap());
        assert_eq!(sha256(&std::fs::read(blob).unwrap()), layers[0].descriptor["digest"]);
        if door == Door::Token {
            let asked = registry.tokens_asked();
            assert!(
                asked.iter().any(|line| line.starts_with(&format!("{USER} repository:lab/busybox:"))),
                "{asked:?}"
            );
        }
        let _ = (ADDRESS, PASSWORD, run);
    }
}
