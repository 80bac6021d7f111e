//! Names of entries that lead through symbolic links, as archives may have them: followed within the
//! tree where `tar` would, and never out of it.

use super::{Content, NodeId, TreeBuilder};

/// Most links on the way to one entry.
const MAX_LINKS: usize = 40;
/// Most elements of a path, what its links put in their place included.
const MAX_ELEMENTS: usize = 4096;

impl TreeBuilder {
    /// The path without links of what `path` names, its last element taken as it is. `None` where a link
    /// on the way is absolute, climbs, leads nowhere or round in circles: nothing may be put there.
    pub fn follow(&self, path: &[u8]) -> Option<Vec<u8>> {
        let (parents, name) = super::split(path)?;
        // What a link put there must be a directory already; the rest may be made.
        let mut ahead: Vec<(&[u8], bool)> = elements(parents).map(|name| (name, false)).collect();
        ahead.reverse();
        let mut real: Vec<&[u8]> = Vec::with_capacity(ahead.len() + 1);
        let (mut at, mut links) = (Some(Self::ROOT), 0);
        while let Some((element, of_a_link)) = ahead.pop() {
            let next = at.and_then(|at| self.child(at, element));
            match next.map(|next| &self.nodes[next].content) {
                Some(Content::Symlink(target)) => {
                    let target = safe_target(target)?;
                    ahead.extend(target.into_iter().rev().map(|element| (element, true)));
                    links += 1;
                    if links > MAX_LINKS || ahead.len() + real.len() > MAX_ELEMENTS {
                        return None;
                    }
                    continue;
                }
                Some(Content::Directory) => at = next,
                _ if of_a_link => return None,
                _ => at = None,
            }
            real.push(element);
        }
        real.push(name);
        Some(real.join(&b'/'))
    }

    /// Takes whatever is no directory out of the way of a new entry at `path`.
    pub fn clear_way(&mut self, path: &[u8]) {
        let mut at = Self::ROOT;
        let mut parents = path.split(|&byte| byte == b'/').peekable();
        while let Some(element) = parents.next() {
            let Some(next) = self.child(at, element) else { return };
            if parents.peek().is_none() {
                return;
            }
            if !matches!(self.nodes[next].content, Content::Directory) {
                self.nodes[at].children_mut().remove(element);
                return;
            }
            at = next;
        }
    }

    fn child(&self, at: NodeId, name: &[u8]) -> Option<NodeId> {
        self.nodes[at].children().get(name).copied()
    }
}

fn elements(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|element| !matches!(*element, b"" | b"."))
}

/// The elements of a link's target that can only lead further down.
fn safe_target(target: &[u8]) -> Option<Vec<&[u8]>> {
    let target = (target.first() != Some(&b'/')).then(|| elements(target).collect::<Vec<_>>())?;
    (!target.contains(&&b".."[..])).then_some(target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Meta;

    fn tree() -> TreeBuilder {
        let mut tree = TreeBuilder::new();
        let mut add = |path: &[u8], content| tree.add(path, Meta::default(), content).unwrap();
        add(b"d/e", Content::Directory);
        add(b"d/f", Content::Fifo);
        for (path, target) in [
            (&b"to-d"[..], &b"./d"[..]),
            (b"to-e", b"to-d/e"),
            (b"d/beside", b"e"),
            (b"to-f", b"d/f"),
            (b"up", b"../x"),
            (b"root", b"/"),
            (b"nowhere", b"gone"),
            (b"round", b"round"),
            (b"here", b"."),
        ] {
            add(path, Content::Symlink(target.to_vec()));
        }
        tree
    }

    #[test]
    fn links_are_followed_within_the_tree() {
        let tree = tree();
        for (path, real) in [
            (&b"to-d/new"[..], &b"d/new"[..]),
            (b"to-e/new/below", b"d/e/new/below"),
            (b"to-d", b"to-d"),
            (b"d/e", b"d/e"),
            (b"fresh/path", b"fresh/path"),
            (b"here/to-d/x", b"d/x"),
            (b"d/f/x", b"d/f/x"),
        ] {
            assert_eq!(tree.follow(path).as_deref(), Some(real), "{}", path.escape_ascii());
        }
    }

    #[test]
    fn links_that_leave_circle_or_end_are_not() {
        let tree = tree();
        for path in [&b"up/x"[..], b"root/x", b"nowhere/x", b"round/x", b"to-f/x"] {
            assert_eq!(tree.follow(path), None, "{}", path.escape_ascii());
        }
    }
}
