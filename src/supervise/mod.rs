//! Day 14: supervision. *Can it look after itself?*
//!
//! What is done with a container while it runs: it is held up and goes on ([`pause`]), its
//! processes are shown ([`top`]), its limits and its name are changed ([`update`], [`rename`]).

pub mod commit;
pub mod hold;
pub mod pause;
pub mod process;
pub mod rename;
pub mod top;
pub mod update;

const DAY: u8 = 14;
