//! (dfs-cluster)
