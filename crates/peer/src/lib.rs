//! (dfs-peer)
