//! What a container image is made of: its documents, its layers, and the one tree that they make.
//!
//! [`manifest`] reads indexes and manifests, [`config`] what an image says of itself, [`platform`] chooses among
//! images, [`artifact`] is what has a manifest and is no image, [`merge`] lays the trees of layers over one another. All of it is
//! pure and bounded, and everything read is hostile until it is checked: nothing here asks a registry.

pub mod artifact;
pub mod attached;
pub mod config;
pub mod graph;
pub mod manifest;
pub mod media;
pub mod merge;
pub mod platform;

pub use config::ImageConfig;
pub use dfs_source::oci::{ContentDigest, Mismatch, verify};
pub use manifest::{Descriptor, Document, Manifest, ManifestError, parse};
pub use merge::{Layer, MergeError, Merged, merge};
pub use platform::{NoSuchPlatform, Platform, PlatformError, check, choose};
