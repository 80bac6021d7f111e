//! The index against the kernel that mounts it and the `fsck.erofs` that checks it. Needs root.

mod archives;
mod import;
mod mount;
mod oracle;
mod trees;
