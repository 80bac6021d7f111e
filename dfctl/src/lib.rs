//! The command line of dfs: `dfctl`.
//!
//! [`cli`] parses, [`commands`] holds one file per leaf command, [`backend`] is the joint to whatever does the
//! work, [`output`] and [`error`] are the only places that decide what a person or a program sees.

// Help texts are doc comments, and URLs in them are examples as people type them.
#![allow(rustdoc::bare_urls)]

mod ask;
pub mod backend;
pub mod cli;
mod closed;
pub mod codes;
mod commands;
pub mod completion;
mod context;
mod error;
mod fstab;
mod help;
mod interrupt;
mod launch;
mod links;
mod locator;
mod near;
mod outdir;
mod output;
mod part;
mod reach;
mod replace;
mod runtime;
mod settings;
mod transfer;

pub use error::{CliError, Outcome};
