//! The index against the kernel that mounts it (and overlays layers) and the `fsck.erofs` that checks it. Needs root.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod archives;
mod import;
mod layers;
mod mount;
mod oracle;
mod trees;
