//! A table's JSON. Both formats have the same.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;

use super::TocError;

/// Most objects in the JSON of a table: an entry takes a few hundred bytes of memory.
const MOST_OBJECTS: usize = 1 << 20;
/// What writers put in the place of bytes that are no text.
const LOST: char = '\u{fffd}';

#[derive(Deserialize)]
struct Table<'a> {
    version: u64,
    #[serde(borrow)]
    entries: Vec<Row<'a>>,
}

/// An entry, or a further piece of the file before it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row<'a> {
    #[serde(rename = "type", borrow)]
    pub kind: Cow<'a, str>,
    #[serde(borrow, default)]
    pub name: Cow<'a, str>,
    #[serde(borrow, default)]
    pub link_name: Cow<'a, str>,
    #[serde(default)]
    pub mode: i64,
    #[serde(default)]
    pub uid: i64,
    #[serde(default)]
    pub gid: i64,
    #[serde(borrow, default)]
    pub modtime: Option<Cow<'a, str>>,
    #[serde(default)]
    pub dev_major: u64,
    #[serde(default)]
    pub dev_minor: u64,
    /// In base 64.
    #[serde(borrow, default)]
    pub xattrs: Option<BTreeMap<Cow<'a, str>, Option<Cow<'a, str>>>>,
    #[serde(default)]
    pub size: u64,
    #[serde(default)]
    pub offset: u64,
    #[serde(default)]
    pub inner_offset: u64,
    #[serde(default)]
    pub chunk_offset: u64,
    #[serde(default)]
    pub chunk_size: u64,
    #[serde(borrow, default)]
    pub chunk_type: Cow<'a, str>,
    #[serde(borrow, default)]
    pub chunk_digest: Cow<'a, str>,
    #[serde(borrow, default)]
    pub digest: Cow<'a, str>,
}

/// The rows of a table.
pub(super) fn read(json: &[u8]) -> Result<Vec<Row<'_>>, TocError> {
    if json.iter().filter(|&&byte| byte == b'{').count() > MOST_OBJECTS {
        return Err(TocError::TooMuch("entries"));
    }
    let table: Table<'_> =
        serde_json::from_slice(json).map_err(|error| TocError::Json(error.to_string()))?;
    if table.version != 1 {
        return Err(TocError::Table("its version is not 1"));
    }
    if table.entries.iter().any(Row::is_lossy) {
        return Err(TocError::Table("a name in it was not text, and is lost"));
    }
    Ok(table.entries)
}

impl Row<'_> {
    /// Whether it has a name that is another one in the tar.
    fn is_lossy(&self) -> bool {
        let mut names = self.xattrs.iter().flat_map(BTreeMap::keys);
        let is_lost = |name: &str| name.contains(LOST);
        is_lost(&self.name) || is_lost(&self.link_name) || names.any(|name| is_lost(name))
    }
}
