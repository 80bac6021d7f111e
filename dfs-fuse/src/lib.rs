//! The node agent's filesystem: a tree and its content, mounted.
//!
//! Three layers, each knowing only the one below: the kernel adapter ([`mount`], with all of FUSE), the
//! filesystem core ([`core`], inodes and reads without FUSE), and the joints to the rest of dfs
//! ([`tree`], the index; [`content`], the bytes). [`trace`] is what is learnt from reads for the next mount. [`snapshotter`]
//! shows images to containerd, and [`web`] is what others than the kernel are served.

pub mod agent;
pub mod assemble;
pub mod content;
pub mod core;
pub mod errno;
mod fanotify;
mod fuse;
pub mod holder;
pub mod lane;
pub mod metrics;
pub mod mount;
pub mod options;
pub mod snapshotter;
pub mod trace;
pub mod tree;
pub mod web;
