//! What a listing tells of its entries, packed: there may be millions of them.

use std::cmp::Ordering;

use dfs_model::Validator;
use dfs_source::{Attributes, Entry, EntryKind, Timestamp};

use crate::encoding::put_validator;
use crate::spaces::Listed;

/// Entries of which everything that a tree needs is known.
#[derive(Default)]
pub struct Rows {
    /// Of each row its path and, behind it, its version, encoded.
    text: Vec<u8>,
    rows: Vec<Row>,
}

/// An entry without its texts.
pub struct Row {
    at: usize,
    path_bytes: u16,
    text_bytes: u32,
    /// What it is; a file where that is `None`.
    other: Option<Box<EntryKind>>,
    /// Of a file; elsewhere 0.
    pub length: u64,
    /// When it was last changed, as far as that is known.
    pub modified: Option<Timestamp>,
    /// Whether the origin gives ranges of it.
    pub ranges: bool,
    /// What only file systems know.
    pub attributes: Option<Box<Attributes>>,
}

impl Row {
    /// What it is.
    pub fn kind(&self) -> &EntryKind {
        self.other.as_deref().unwrap_or(&EntryKind::File)
    }
}

impl Rows {
    /// Takes an entry; of a file its length and version.
    pub fn take(&mut self, entry: Entry, length: u64, validator: &Validator, ranges: bool) {
        let at = self.text.len();
        self.text.extend_from_slice(&entry.path);
        put_validator(&mut self.text, validator);
        let path_bytes = u16::try_from(entry.path.len()).expect("the path of an entry is short");
        let text_bytes = u32::try_from(self.text.len() - at).expect("versions are short");
        self.rows.push(Row {
            at,
            path_bytes,
            text_bytes,
            other: (entry.kind != EntryKind::File).then(|| Box::new(entry.kind)),
            length,
            modified: entry.modified.or_else(|| Timestamp::of_validator(validator)),
            ranges,
            attributes: entry.attributes.map(Box::new),
        });
    }

    /// Puts them into the order of their paths; no more are to come.
    pub fn sort(&mut self) {
        let Self { text, rows } = self;
        text.shrink_to_fit();
        rows.shrink_to_fit();
        let path = |row: &Row| &text[row.at..row.at + usize::from(row.path_bytes)];
        let in_order = |a: &Row, b: &Row| path(a).cmp(path(b));
        // Listings come in runs that are in order.
        if !rows.is_sorted_by(|a, b| in_order(a, b) != Ordering::Greater) {
            rows.sort_by(in_order);
        }
    }

    /// The rows, by number.
    pub fn all(&self) -> &[Row] {
        &self.rows
    }

    /// The path of a row.
    pub fn path(&self, row: &Row) -> &[u8] {
        &self.text[row.at..row.at + usize::from(row.path_bytes)]
    }

    /// The version of a row, encoded.
    fn validator(&self, row: &Row) -> &[u8] {
        &self.text[row.at + usize::from(row.path_bytes)..row.at + row.text_bytes as usize]
    }

    /// A row as a space is planned with it.
    pub fn listed(&self, row: &Row) -> Listed<'_> {
        Listed { path: self.path(row), length: row.length, validator: self.validator(row) }
    }

    /// The row of this path; they are in order.
    pub fn find(&self, path: &[u8]) -> Option<&Row> {
        let at = self.rows.binary_search_by(|row| self.path(row).cmp(path)).ok()?;
        self.rows.get(at)
    }
}
