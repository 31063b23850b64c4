//! Day 12: auth.
