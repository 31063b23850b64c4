//! Day 11: layers.
#![allow(clippy::unwrap_used)]

mod common;
