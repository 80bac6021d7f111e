//! The index against the kernel that mounts it and the `fsck.erofs` that checks it. Needs root.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod archives;
mod import;
mod mount;
mod oracle;
mod trees;
