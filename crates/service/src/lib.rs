//! (dfs-service)
