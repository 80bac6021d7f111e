//! (dfs-peer)
pub mod hashtree;
pub mod conductor;
pub mod digests;
