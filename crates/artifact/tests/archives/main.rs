//! Archives made by the tools that people use, against what these tools unpack from them. Needs root, for
//! owners, devices and attributes.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

#[allow(dead_code, reason = "the kernel's tests use the rest")]
#[path = "../kernel/import.rs"]
mod import;
mod packed;
mod seen;
mod tars;
mod zips;
