//! Day 12: what others have packed: from a registry, into the store, into a container.
#![allow(clippy::unwrap_used)]

mod common;

use common::World;

#[test]
#[ignore = "privileged: make vm-test"]
fn task1_a_name_with_capitals_is_refused() {
    let world = World::new();
    let output = world.tiny_docker(["pull", "Alpine"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", common::said(&output));
}
