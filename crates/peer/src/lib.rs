//! (dfs-peer)
pub mod hashtree;
pub mod conductor;
pub mod digests;
pub mod dial;
pub mod limits;
pub mod wire;
pub mod engine;
pub mod store;
pub mod swarm;

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
