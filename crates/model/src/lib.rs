//! The nouns of dfs as types: identities, ranges, layouts, hosts, units. No I/O, no clock, no randomness.
//!
//! Everything that is frozen on disk or on the wire by its byte layout ([`TaskId`], [`RouteKey`],
//! rendezvous ranking, [`GroupSet`]'s encoding) is defined here once and pinned by test vectors.

mod calendar;
mod digest;
mod group_set;
mod host;
mod id;
mod layout;
mod measure;
mod priority;
mod range;
mod route;
mod sabotage;
pub mod statistics;
mod task;
mod text;
mod units;
mod url;
mod validator;

pub use calendar::{date_of, days_of};
pub use digest::{Digest, DigestParseError};
pub use group_set::{GroupSet, GroupSetDecodeError};
pub use host::{HostInfo, HostKind, Location, same_idc};
pub use id::{HostId, IdParseError, TaskId};
pub use layout::PieceLayout;
pub use measure::{Measure, REST, WHOLE};
pub use priority::Priority;
pub use range::{ByteRange, GROUP_BYTES, GroupRange, RangeParseError, groups_in};
pub use route::{Nearest, RouteKey, order_areas, rank, rank_areas};
pub use sabotage::Invariant;
pub use task::{TaskInfo, TaskKey, TaskKind, Transform};
pub use text::{is_hidden, printable, shortened};
pub use units::{ByteSize, Capacity, Rate, UnitParseError, parse_duration};
pub use url::{CanonicalUrl, UrlError, redact};
pub use validator::{Validator, ValidatorStrength};
