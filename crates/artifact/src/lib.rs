//! (dfs-artifact)
