//! Who feeds whom in one task: edges from parent to child, never a cycle.

use std::collections::{BTreeMap, BTreeSet};

use dfs_model::HostId;

/// A directed acyclic graph of peers.
#[derive(Debug, Default)]
pub struct Dag {
    parents: BTreeMap<HostId, Vec<HostId>>,
    children: BTreeMap<HostId, BTreeSet<HostId>>,
}

impl Dag {
    /// The parents of `child`, best first.
    pub fn parents(&self, child: &HostId) -> &[HostId] {
        self.parents.get(child).map_or(&[], Vec::as_slice)
    }

    /// The children of `parent`.
    pub fn children(&self, parent: &HostId) -> impl Iterator<Item = HostId> + '_ {
        self.children.get(parent).into_iter().flatten().copied()
    }

    /// Everybody who lives, directly or not, on `from`; without `from` itself.
    pub fn descendants(&self, from: &HostId) -> BTreeSet<HostId> {
        let mut seen = BTreeSet::new();
        let mut open: Vec<HostId> = self.children(from).collect();
        while let Some(host) = open.pop() {
            if seen.insert(host) {
                open.extend(self.children(&host));
            }
        }
        seen
    }

    /// Adds an edge; whether it is new. One that would close a circle is refused: `descendants` are those of the child,
    /// which more parents of it do not change.
    pub fn connect(
        &mut self,
        parent: HostId,
        child: HostId,
        descendants: &BTreeSet<HostId>,
    ) -> bool {
        debug_assert_eq!(*descendants, self.descendants(&child));
        if parent == child || descendants.contains(&parent) {
            return false;
        }
        if !self.children.entry(parent).or_default().insert(child) {
            return false;
        }
        self.parents.entry(child).or_default().push(parent);
        true
    }

    /// Takes all parents from `child`, and says who they were.
    pub fn orphan(&mut self, child: &HostId) -> Vec<HostId> {
        let parents = self.parents.remove(child).unwrap_or_default();
        for parent in &parents {
            self.forget_child(parent, child);
        }
        parents
    }

    /// Takes all children from `parent`, and says who they were.
    pub fn childless(&mut self, parent: &HostId) -> Vec<HostId> {
        let children = self.children.remove(parent).unwrap_or_default();
        for child in &children {
            if let Some(parents) = self.parents.get_mut(child) {
                parents.retain(|other| other != parent);
                if parents.is_empty() {
                    self.parents.remove(child);
                }
            }
        }
        children.into_iter().collect()
    }

    fn forget_child(&mut self, parent: &HostId, child: &HostId) {
        if let Some(children) = self.children.get_mut(parent) {
            children.remove(child);
            if children.is_empty() {
                self.children.remove(parent);
            }
        }
    }

    /// Number of edges.
    #[cfg(test)]
    pub fn edges(&self) -> impl Iterator<Item = (HostId, HostId)> + '_ {
        self.children.iter().flat_map(|(p, children)| children.iter().map(|c| (*p, *c)))
    }

    /// Whether nothing is kept.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.parents.is_empty() && self.children.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn host(n: u8) -> HostId {
        HostId::from_bytes([n; 16])
    }

    #[test]
    fn a_circle_is_refused() {
        let mut dag = Dag::default();
        let connect = |dag: &mut Dag, parent, child| {
            let descendants = dag.descendants(&host(child));
            dag.connect(host(parent), host(child), &descendants)
        };
        assert!(connect(&mut dag, 1, 2));
        assert!(connect(&mut dag, 2, 3));
        assert!(!connect(&mut dag, 3, 1));
        assert!(!connect(&mut dag, 1, 1));
        assert!(!connect(&mut dag, 1, 2), "twice is once");
        assert_eq!(dag.orphan(&host(2)), [host(1)]);
        assert!(connect(&mut dag, 3, 1));
    }

    proptest! {
        #[test]
        fn both_directions_always_agree(
            steps in prop::collection::vec((0u8..3, 0u8..8, 0u8..8), 0..200),
        ) {
            let mut dag = Dag::default();
            for (step, a, b) in steps {
                match step {
                    0 => {
                        let descendants = dag.descendants(&host(b));
                        dag.connect(host(a), host(b), &descendants);
                    }
                    1 => { dag.orphan(&host(a)); }
                    _ => { dag.childless(&host(a)); }
                }
                for n in 0..8 {
                    prop_assert!(!dag.descendants(&host(n)).contains(&host(n)));
                    for parent in dag.parents(&host(n)) {
                        prop_assert!(dag.children(parent).any(|child| child == host(n)));
                    }
                    let up = dag.parents(&host(n)).len();
                    prop_assert_eq!(dag.edges().filter(|(_, child)| *child == host(n)).count(), up);
                }
            }
            for n in 0..8 {
                dag.orphan(&host(n));
            }
            prop_assert!(dag.is_empty());
        }
    }
}
