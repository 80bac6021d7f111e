//! Which bytes of a listing lie where: a pure plan from members to at most 256 spaces.
//!
//! The largest members are spaces of their own (and so the same tasks as their URLs), other large ones
//! lie side by side, small ones in packs. Packs and shared spaces are chosen by a hash of the path: one
//! changed member re-cuts one of them. The plan does not depend on the order of the members.

use crate::erofs::{BlockSize, MAX_SPACES};
use crate::members::{MemberTable, MemberTableError, TableWriter};
use crate::tree::{Location, printable};

/// Members up to this many bytes go into packs.
pub const PACKED_UP_TO: u64 = 1 << 20;
/// Members from this many bytes on may be spaces of their own.
pub const OWN_SPACE_FROM: u64 = 8 << 20;

/// Most members that are spaces of their own.
const MAX_OWN: usize = 96;
/// Most shared spaces, and most packs; what is left to 256 is for ones that would grow too long.
const MAX_BUCKETS: u64 = 64;
const SHARED_BYTES: u64 = 256 << 20;
const PACK_BYTES: u64 = 4 << 20;
/// Members begin at multiples of a block.
const BLOCK: BlockSize = BlockSize::B4096;
/// Longest space: what 32-bit addresses of blocks reach.
const MAX_SPACE: u64 = (u32::MAX as u64 - 1) << 12;

/// A member as listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed<'a> {
    /// Its path below the listing.
    pub path: &'a [u8],
    /// Bytes in it.
    pub length: u64,
    /// Its version, as [`crate::members::encode_validator`] makes it.
    pub validator: &'a [u8],
}

/// Where every member lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpacePlan {
    /// The spaces, by number.
    pub tables: Vec<MemberTable>,
    /// Where each member given begins, in the order given; `None` for empty ones, which lie nowhere.
    pub locations: Vec<Option<Location>>,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A member that no space can hold.
    #[error("'{path}' of {length} bytes is longer than a space can be")]
    TooLong {
        /// The member, made printable.
        path: String,
        /// Bytes in it.
        length: u64,
    },
    /// Everything together is too much.
    #[error("the listing needs more than 256 spaces")]
    TooManySpaces,
    /// Two members of one path, or a path that is not one.
    #[error(transparent)]
    Table(#[from] MemberTableError),
    /// The same path twice.
    #[error("'{path}' is listed twice")]
    Duplicate {
        /// The member, made printable.
        path: String,
    },
}

/// Lays the members out.
pub fn plan_spaces(members: &[Listed<'_>]) -> Result<SpacePlan, PlanError> {
    let mut order: Vec<usize> = (0..members.len()).collect();
    order.sort_unstable_by(|&a, &b| members[a].path.cmp(members[b].path));
    for pair in order.windows(2) {
        if members[pair[0]].path == members[pair[1]].path {
            return Err(PlanError::Duplicate { path: printable(members[pair[0]].path) });
        }
    }
    let mut groups = own_spaces(members, &order);
    let own: Vec<usize> = groups.iter().flatten().copied().collect();
    let own: std::collections::HashSet<usize> = own.into_iter().collect();
    let rest = order.iter().copied().filter(|at| members[*at].length > 0 && !own.contains(at));
    let (small, large): (Vec<_>, Vec<_>) = rest.partition(|&at| members[at].length <= PACKED_UP_TO);
    groups.extend(buckets(members, &large, SHARED_BYTES));
    groups.extend(buckets(members, &small, PACK_BYTES));
    lay_out(members, groups)
}

/// The largest members, each alone, in the order of their paths.
fn own_spaces(members: &[Listed<'_>], order: &[usize]) -> Vec<Vec<usize>> {
    let mut largest: Vec<usize> =
        order.iter().copied().filter(|&at| members[at].length >= OWN_SPACE_FROM).collect();
    // Stable: equal lengths stay in the order of their paths.
    largest.sort_by_key(|&at| std::cmp::Reverse(members[at].length));
    largest.truncate(MAX_OWN);
    largest.sort_by(|&a, &b| members[a].path.cmp(members[b].path));
    largest.into_iter().map(|at| vec![at]).collect()
}

/// Members by a hash of their path, in about as many buckets of `wanted` bytes as they fill.
fn buckets(members: &[Listed<'_>], chosen: &[usize], wanted: u64) -> Vec<Vec<usize>> {
    let total = chosen.iter().fold(0u64, |sum, &at| sum.saturating_add(members[at].length));
    let count = total.div_ceil(wanted).clamp(1, MAX_BUCKETS).next_power_of_two();
    let mut buckets = vec![Vec::new(); count as usize];
    for &at in chosen {
        let hash = blake3::hash(members[at].path);
        let hash = u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("32 is more than 8"));
        buckets[(hash % count) as usize].push(at);
    }
    buckets.retain(|bucket| !bucket.is_empty());
    buckets
}

fn lay_out(members: &[Listed<'_>], groups: Vec<Vec<usize>>) -> Result<SpacePlan, PlanError> {
    let mut plan = SpacePlan { tables: Vec::new(), locations: vec![None; members.len()] };
    for group in groups {
        let mut table = TableWriter::default();
        for at in group {
            let Listed { path, length, validator } = members[at];
            if length > MAX_SPACE {
                return Err(PlanError::TooLong { path: printable(path), length });
            }
            let mut offset = table.end().next_multiple_of(BLOCK.bytes());
            if offset + length > MAX_SPACE {
                plan.tables.push(std::mem::take(&mut table).finish());
                offset = 0;
            }
            if plan.tables.len() >= MAX_SPACES {
                return Err(PlanError::TooManySpaces);
            }
            let space = u16::try_from(plan.tables.len()).map_err(|_| PlanError::TooManySpaces)?;
            plan.locations[at] = Some(Location { space, offset });
            table.add(path, offset, length, validator)?;
        }
        plan.tables.push(table.finish());
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::members::encode_validator;
    use dfs_model::Validator;
    use proptest::prelude::*;

    /// A member that is not borrowed.
    #[derive(Clone)]
    struct Owned {
        path: Vec<u8>,
        length: u64,
        validator: Vec<u8>,
    }

    impl Owned {
        fn of_version(&mut self, etag: &str) {
            let etag = Some(format!("\"{etag}\""));
            self.validator = encode_validator(&Validator { etag, ..Validator::default() });
        }
    }

    fn listed(path: &str, length: u64) -> Owned {
        let mut owned = Owned { path: path.into(), length, validator: Vec::new() };
        owned.of_version(path);
        owned
    }

    fn planned(members: &[Owned]) -> Result<SpacePlan, PlanError> {
        let listed = members.iter().map(|Owned { path, length, validator }| Listed {
            path,
            length: *length,
            validator,
        });
        let listed: Vec<_> = listed.collect();
        plan_spaces(&listed)
    }

    fn many(count: u64, length: impl Fn(u64) -> u64) -> Vec<Owned> {
        (0..count).map(|number| listed(&format!("d/{number}"), length(number))).collect()
    }

    #[test]
    fn one_changed_small_member_changes_one_pack() {
        let members = many(10_000, |number| 1000 + number % 5000);
        let before = planned(&members).unwrap();
        assert!(before.tables.len() > 4 && before.tables.len() <= 64);
        let mut changed = members;
        changed[77].of_version("new");
        let after = planned(&changed).unwrap();
        let digests =
            |plan: &SpacePlan| -> Vec<_> { plan.tables.iter().map(MemberTable::digest).collect() };
        let pairs = digests(&before).into_iter().zip(digests(&after));
        assert_eq!(pairs.filter(|(before, after)| before != after).count(), 1);
    }

    #[test]
    fn large_members_are_spaces_of_their_own_while_there_are_few() {
        let plan = planned(&many(10, |_| OWN_SPACE_FROM)).unwrap();
        assert_eq!(plan.tables.len(), 10);
        assert!(plan.tables.iter().all(|table| table.member(0).unwrap().offset == 0));
        let plan = planned(&many(5000, |number| OWN_SPACE_FROM + number)).unwrap();
        assert_eq!(plan.tables.iter().filter(|table| table.count() == 1).count(), MAX_OWN);
    }

    #[test]
    fn what_cannot_be_placed_is_an_error() {
        let twice = planned(&[listed("a", 1), listed("a", 1)]);
        assert!(matches!(twice, Err(PlanError::Duplicate { .. })));
        let long = planned(&[listed("a", u64::MAX)]);
        assert!(matches!(long, Err(PlanError::TooLong { .. })));
        let much = planned(&many(300, |_| MAX_SPACE));
        assert_eq!(much, Err(PlanError::TooManySpaces));
        assert_eq!(planned(&many(256, |_| MAX_SPACE)).map(|plan| plan.tables.len()), Ok(256));
    }

    proptest! {
        #[test]
        fn plans_are_complete_and_independent_of_order(
            lengths in proptest::collection::vec(0u64..20_000_000, 0..300),
            seed: u64,
        ) {
            let members: Vec<_> = lengths
                .iter()
                .enumerate()
                .map(|(number, &length)| listed(&format!("{number:x}/{length}"), length))
                .collect();
            let plan = planned(&members).unwrap();
            prop_assert!(plan.tables.len() <= MAX_SPACES);
            for (member, location) in members.iter().zip(&plan.locations) {
                let Some(location) = location else {
                    prop_assert_eq!(member.length, 0);
                    continue;
                };
                prop_assert_eq!(location.offset % 4096, 0);
                let mut table = plan.tables[usize::from(location.space)].members();
                let there = table.find(|there| there.offset == location.offset).unwrap();
                prop_assert_eq!((&there.path, there.length), (&member.path, member.length));
            }
            let mut shuffled = members;
            let count = shuffled.len().max(1);
            shuffled.rotate_left((seed as usize) % count);
            prop_assert_eq!(planned(&shuffled).unwrap().tables, plan.tables);
        }
    }
}
