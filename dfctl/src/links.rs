//! Where a name leads by symbolic links.

use std::path::{Path, PathBuf};

/// As many links one after the other as the kernel follows.
const MOST: usize = 40;

/// The places that `name` leads to, one link further each: absolute, without links on the way. The first is the
/// name itself.
pub fn places(name: &Path) -> impl Iterator<Item = PathBuf> {
    let further = |place: &PathBuf| {
        let target = place.read_link().ok()?;
        Some(without_links_above(&place.parent().unwrap_or(Path::new("/")).join(target)))
    };
    std::iter::successors(Some(without_links_above(name)), further).take(MOST + 1)
}

/// The absolute name, in which only the last element may be a link.
fn without_links_above(dir: &Path) -> PathBuf {
    let lexical = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let parent = lexical.parent().and_then(|parent| parent.canonicalize().ok());
    match (parent, lexical.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => lexical,
    }
}
