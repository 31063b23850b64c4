//! Day 14: supervision. *Can it look after itself?*
//!
//! What goes on with a container while it runs: it is held up and goes on ([`pause`]).

pub mod commit;
pub mod hold;
pub mod pause;

const DAY: u8 = 14;
