//! Day 12: images. *Can I run what somebody else has packed?*
//!
//! An image is three kinds of files, each named by the SHA-256 of what is in it: a
//! **manifest**, which names the others; a **configuration**, which says what to execute; and
//! **layers**, archives that lie one on top of the other. A tag is a name for a manifest. All
//! that a registry does is to hand these files out.
//!
//! | what | where |
//! | --- | --- |
//! | names | [`reference`], [`digest`], [`platform`] |
//! | what is in the files | [`spec`] |
//! | HTTP | [`http`], [`request`], [`retry`] |
//! | who you are to a registry | [`auth`], [`helper`], [`access`], [`token`], [`login`], [`prompt`] |
//! | from and to a registry | [`registry`], [`pull`], [`fetch`], [`download`], [`push`], [`upload`], [`parallel`], [`progress`] |
//! | on this machine's disk | [`store`], [`place`], [`index`], [`partial`], [`aside`], [`unflushed`], [`collect`], [`list`], [`rmi`], [`archive`], [`load`], [`commit`], [`pack`], [`change`] |
//! | a layer becomes a directory | [`unpack`], [`decompress`], [`entries`], [`header`], [`sparse`], [`tree`], [`remove`] |
//! | a container of it | [`config`] |

pub mod access;
pub mod archive;
pub mod aside;
pub mod auth;
pub mod change;
pub mod collect;
pub mod commit;
pub mod config;
pub mod decompress;
pub mod digest;
pub mod download;
pub mod entries;
pub mod fetch;
pub mod header;
pub mod helper;
pub mod http;
pub mod index;
pub mod list;
pub mod load;
pub mod login;
pub mod pack;
pub mod parallel;
pub mod partial;
pub mod place;
pub mod platform;
pub mod progress;
pub mod prompt;
pub mod pull;
pub mod push;
pub mod reference;
pub mod registry;
pub mod remove;
pub mod request;
pub mod retry;
pub mod rmi;
pub mod sparse;
pub mod spec;
pub mod store;
pub mod token;
pub mod tree;
pub mod unflushed;
pub mod unpack;
pub mod upload;

/// Of the narration.
pub const DAY: u8 = 12;
