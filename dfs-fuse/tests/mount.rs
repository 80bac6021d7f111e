//! Real mounts, driven through the kernel: what programs see of a tree.
//!
//! Run as root; one test re-runs this binary as `nobody` to mount without privileges.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "mount/faults.rs"]
mod faults;
#[path = "mount/lifecycle.rs"]
mod lifecycle;
#[path = "mount/reading.rs"]
mod reading;
#[path = "mount/support.rs"]
mod support;
#[path = "mount/unprivileged.rs"]
mod unprivileged;
