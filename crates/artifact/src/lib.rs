//! What a URL names, and the index that makes a tree of it (design §8).
//!
//! [`tree::TreeBuilder`] collects entries whose bytes lie in *spaces*; [`erofs`] writes and reads the
//! metadata image; [`index`] adds what dfs needs to go back to source. [`spaces`] lays a listing out,
//! [`tar`] and [`zip`] scan archives, [`unpack`] opens compressed ones, [`toc`] reads what some layers say of themselves; [`image`] reads what container images are
//! made of and merges their layers, [`rafs`] those that Nydus made. [`resolve()`] puts them together: URL → recipes and index; [`origin`] turns a
//! recipe back into bytes. Everything read from outside is hostile until checked. Nothing is kept on disk.

pub mod chunks;
mod encoding;
pub mod erofs;
pub mod image;
pub mod index;
pub mod members;
pub mod ondisk;
pub mod origin;
pub mod parts;
mod placing;
pub mod rafs;
pub mod recipe;
pub mod resolve;
pub mod spaces;
pub mod tar;
pub mod toc;
pub mod tree;
pub mod unpack;
pub mod zip;

pub use chunks::ChunkTable;
pub use index::{Facts, ImageFacts, Index, IndexError};
pub use members::{Member, MemberTable};
pub use ondisk::ImagesOnDisk;
pub use origin::{MembersHere, Origin, ask_permission, open_inside, open_origin, open_unpacked};
pub use parts::PartTable;
pub use recipe::{OriginRecipe, Place, Recipe};
pub use resolve::{Artifact, ResolveError, ResolveOptions, View, resolve};
