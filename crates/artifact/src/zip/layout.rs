//! In which space each member of a zip lies. Why so: `docs/decisions/0006`.

use std::collections::{HashMap, HashSet};

use super::ZipError;
use super::entry::Entry;
use super::member::LOCAL_BYTES;
use crate::erofs::MAX_SPACES;
use crate::parts::{Method, Part, Refusal, SHORT};
use crate::tree::Location;

const BLOCK: u64 = 512;
/// Longest space: what 32-bit addresses of blocks reach.
const MAX_SPACE: u64 = (u32::MAX as u64 - 1) * BLOCK;
/// Members that cannot be read share no group with others, so that their errors do not spread.
const GROUP: u64 = dfs_model::GROUP_BYTES;
/// Most long deflated members that are streams of their own; the largest are chosen.
const MAX_STREAMS: usize = MAX_SPACES - 3;
/// Stored members from this many bytes on may lie in the zip itself.
const DIRECT_FROM: u64 = 64 * 1024;

/// Where a member's bytes lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Laid {
    /// Nowhere: it has none.
    Empty,
    /// In this space from this offset on.
    At(Location),
    /// No space is long enough.
    TooLong,
}

impl Laid {
    fn at(space: u16, offset: Option<u64>) -> Self {
        offset.map_or(Self::TooLong, |offset| Self::At(Location { space, offset }))
    }
}

/// What each space is made of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Spaces {
    /// Whether space 0 is the zip itself.
    pub archive: bool,
    /// The others in their order: bytes, parts.
    pub parts: Vec<(u64, Vec<Part>)>,
}

/// A space that grows.
#[derive(Default)]
struct Growing {
    end: u64,
    parts: Vec<Part>,
}

impl Growing {
    fn push(&mut self, part: Part, align: u64) -> Option<u64> {
        let offset = self.end.next_multiple_of(align);
        let end = offset.checked_add(part.length).filter(|&end| end <= MAX_SPACE)?;
        self.end = end;
        self.parts.push(Part { offset, ..part });
        Some(offset)
    }
}

/// The members of a zip in the order in which they stand in it.
pub(crate) struct Layout<'a> {
    entries: &'a [Entry],
    /// Places of the members that have bytes, by where these stand.
    order: Vec<usize>,
    /// Where something else than the member begins, by its place.
    until: Vec<u64>,
    shift: u64,
}

impl<'a> Layout<'a> {
    /// Orders the members of a zip whose directory begins at `end`.
    pub fn new(entries: &'a [Entry], shift: u64, end: u64) -> Result<Self, ZipError> {
        let mut order: Vec<usize> = (0..entries.len()).collect();
        order.sort_by_key(|&at| entries[at].from);
        let mut until = vec![0; entries.len()];
        let mut next = end;
        for &at in order.iter().rev() {
            let entry = &entries[at];
            let from = entry.from.checked_add(shift).filter(|&from| from < end);
            let Some(from) = from else { continue };
            let least = from.checked_add(LOCAL_BYTES).and_then(|at| at.checked_add(entry.packed));
            if least.is_none_or(|least| least > next) {
                return Err(ZipError::Overlap { at: next });
            }
            until[at] = next;
            next = from;
        }
        Ok(Self { entries, order, until, shift })
    }

    /// The part that a member is, its place in a space apart.
    pub fn part(&self, at: usize) -> Part {
        let Entry { length, packed, method, crc, .. } = self.entries[at];
        let (until, from) = (self.until[at], self.entries[at].from.saturating_add(self.shift));
        match method {
            // It was not found within the zip.
            _ if until == 0 => refused(length, Refusal::Lies),
            Method::Refused(why) => refused(length, why),
            _ => Part { offset: 0, length, from, until, packed, method, crc },
        }
    }

    /// The members, by their places, in the order in which they stand in the zip.
    pub fn in_order(&self) -> impl Iterator<Item = usize> + '_ {
        self.order.iter().copied()
    }

    /// Where a stored member's bytes begin if nothing but its name stands between, or if nothing stands
    /// behind them: places that are worth a look when they are at a block.
    pub fn may_be_direct(&self, at: usize) -> bool {
        let part = self.part(at);
        let plain = part.from + LOCAL_BYTES + self.entries[at].name_bytes;
        let behind = part.until.saturating_sub(part.packed);
        let aligned = plain.is_multiple_of(BLOCK) || behind.is_multiple_of(BLOCK);
        part.method == Method::Stored && part.length >= DIRECT_FROM && aligned
    }

    /// Lays all regular members out; those in `direct` lie in the zip itself, from these offsets on.
    pub fn lay_out(
        &self,
        is_file: impl Fn(usize) -> bool,
        direct: &HashMap<usize, u64>,
    ) -> (Vec<Laid>, Spaces) {
        let files: Vec<usize> =
            self.in_order().filter(|&at| is_file(at) && self.entries[at].length > 0).collect();
        let streams = self.streams(&files);
        let mut homes: [Growing; 2] = Default::default();
        let mut laid = vec![Laid::Empty; self.entries.len()];
        for &at in files.iter().filter(|at| !streams.contains(at) && !direct.contains_key(at)) {
            let part = self.part(at);
            let (home, align) = match part.method {
                Method::Refused(_) => (1, GROUP),
                _ => (0, BLOCK),
            };
            let offset = homes[home].push(part, align);
            laid[at] = Laid::at(home as u16, offset);
        }
        let mut spaces = Spaces { archive: !direct.is_empty(), parts: Vec::new() };
        let first = u16::from(spaces.archive);
        let second = first + u16::from(!homes[0].parts.is_empty());
        for laid in &mut laid {
            if let Laid::At(location) = laid {
                location.space = if location.space == 0 { first } else { second };
            }
        }
        let filled = homes.into_iter().filter(|home| !home.parts.is_empty());
        spaces.parts.extend(filled.map(|home| (home.end, home.parts)));
        for at in files.into_iter().filter(|at| streams.contains(at)) {
            let part = self.part(at);
            let space = first + spaces.parts.len() as u16;
            laid[at] = Laid::at(space, (part.length <= MAX_SPACE).then_some(0));
            if laid[at] != Laid::TooLong {
                spaces.parts.push((part.length, vec![part]));
            }
        }
        for (&at, &offset) in direct {
            laid[at] = Laid::at(0, Some(offset));
        }
        (laid, spaces)
    }

    /// The long deflated members that are streams of their own.
    fn streams(&self, files: &[usize]) -> HashSet<usize> {
        let long = |at: &usize| {
            let part = self.part(*at);
            part.method == Method::Deflated && part.length.max(part.packed) > SHORT
        };
        let mut long: Vec<usize> = files.iter().copied().filter(long).collect();
        // Stable: equal lengths stay in their order.
        long.sort_by_key(|&at| std::cmp::Reverse(self.entries[at].length));
        long.truncate(MAX_STREAMS);
        long.into_iter().collect()
    }
}

fn refused(length: u64, why: Refusal) -> Part {
    let method = Method::Refused(why);
    Part { offset: 0, length, from: 0, until: 0, packed: 0, method, crc: 0 }
}
