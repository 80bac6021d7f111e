//! (dfs-fuse)
