//! (dfs-proto)
