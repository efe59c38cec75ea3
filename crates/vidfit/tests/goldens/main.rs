//! Goldens: what the program says and makes, held to what it said and made at one commit.
//!
//! README.md beside this file says what is frozen, and how to write it anew.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))] // Systems say errors in their own words.
#![allow(clippy::unwrap_used)] // A test may panic.

mod commands;
mod golden;
mod normal;
mod orders;
mod queue;
mod runs;
mod sandbox;
mod shell;
mod stored;
#[path = "../support/mod.rs"]
mod support;
