//! Whether bytes of two versions of an artifact are the same, as far as their origins' versions tell.

use std::sync::Arc;

use dfs_artifact::{OriginRecipe, Recipe};
use dfs_model::ByteRange;
use dfs_peer::opener::OpenArtifact;

use crate::tree::Extent;

/// Says of two extents of equal length, of `before` and of `after`, whether they have the same bytes.
pub(super) fn bytes(
    before: &OpenArtifact,
    after: &OpenArtifact,
) -> impl Fn(Extent, Extent) -> bool + use<> {
    let (before, after) = (recipes(before), recipes(after));
    move |was, is| match (place(&before, was), place(&after, is)) {
        (Some(was), Some(is)) => are_same(was, is),
        _ => false,
    }
}

fn place(recipes: &[Recipe], extent: Extent) -> Option<(&Recipe, ByteRange)> {
    match extent {
        Extent::Data { space, offset, length } => {
            Some((recipes.get(usize::from(space))?, ByteRange::at(offset, length)))
        }
        Extent::Zero { .. } => None,
    }
}

fn recipes(opened: &OpenArtifact) -> Arc<[Recipe]> {
    let recipes = opened.index.as_ref().map(|index| index.index.spaces());
    recipes.unwrap_or_default().into()
}

fn are_same((was, before): (&Recipe, ByteRange), (is, after): (&Recipe, ByteRange)) -> bool {
    if was.key == is.key && before == after {
        return true;
    }
    let (OriginRecipe::Members { base, table }, OriginRecipe::Members { base: other, table: to }) =
        (&was.origin, &is.origin)
    else {
        return false;
    };
    let is_of_one = base == other && was.key.domain == is.key.domain;
    let mut members = table.touched(before);
    let mut others = to.touched(after);
    is_of_one
        && members.len() == others.len()
        && members.by_ref().zip(others.by_ref()).all(|(one, other)| {
            one.is_as(&other)
                && one.offset.wrapping_sub(before.start) == other.offset.wrapping_sub(after.start)
        })
}
