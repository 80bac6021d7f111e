//! (dfs-tests)
