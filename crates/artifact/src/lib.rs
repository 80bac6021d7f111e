//! What a URL names, and the index that makes a tree of it (design §8).
//!
//! [`tree::TreeBuilder`] collects entries whose bytes lie in *spaces*; [`erofs`] writes and reads the
//! metadata image.

pub mod erofs;
pub mod tree;
