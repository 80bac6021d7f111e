//! The piece engine that every byte-moving role uses: the store, the hash tree, the piece plane, the
//! download's pure core and the shell that carries its decisions out.
//!
//! [`engine::Engine`] is the whole of it for a process; [`opener`] goes from a URL to open tasks. Arrows
//! inside: `areas`, `hashtree` and `conductor` are pure and know nobody; `store`, `digests` and `wire` know the tree;
//! `engine` and `swarm` know all of them.

pub mod areas;
pub mod classes;
pub mod conductor;
pub mod dial;
pub mod digests;
pub mod engine;
pub mod hashtree;
pub mod host;
pub mod limits;
pub mod opener;
pub mod store;
pub mod swarm;
pub mod targets;
pub mod wire;

/// An error with its causes, in one line.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}
