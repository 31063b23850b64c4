//! Day 12: progress.
