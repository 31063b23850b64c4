//! Day 12: registry.
