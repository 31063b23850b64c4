//! Day 14: a command in a container that runs.
#![allow(clippy::unwrap_used)]

mod common;
