//! The EROFS metadata image: a directory hierarchy laid over the bytes of spaces.
//!
//! [`write_image`] makes one from a [`crate::tree::TreeBuilder`], [`Image`] reads one. The image holds no
//! file content: every regular file is chunk indexes into the devices ("spaces") of the device table, so
//! that the kernel can mount image and content files as they are.

mod dir;
mod format;
mod inode;
mod reader;
mod walk;
mod writer;
pub(crate) mod xattr;

pub use format::{BlockSize, FormatError, MAX_SPACES, Space};
pub(crate) use format::{MAGIC, SUPER_OFFSET, u32_at, u64_at};
pub use inode::{Attr, Kind};
pub use reader::{DirEntry, Extent, Image};
pub use walk::{Visit, Walk};
pub use writer::{ImageOptions, WriteError, WrittenImage, write_image};
