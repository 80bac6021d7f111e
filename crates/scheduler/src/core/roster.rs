//! Who takes part in a task, in no order: for sampling, of everybody or of one data centre.

use std::collections::BTreeMap;
use std::sync::Arc;

use dfs_model::HostId;

/// The hosts of a task. Each is in the list of all, and in the one of its data centre.
#[derive(Debug, Default)]
pub struct Roster {
    all: Vec<HostId>,
    by_idc: BTreeMap<Arc<str>, Vec<HostId>>,
    places: BTreeMap<HostId, Place>,
}

/// Where a host stands in the two lists.
#[derive(Debug)]
struct Place {
    all: usize,
    idc: Arc<str>,
    in_idc: usize,
}

impl Roster {
    /// Everybody.
    pub fn all(&self) -> &[HostId] {
        &self.all
    }

    /// Everybody in a data centre, named as [`Host::idc`](super::Host) names it; nobody where it has no name.
    pub fn in_idc(&self, idc: &str) -> &[HostId] {
        let known = self.by_idc.get(idc).filter(|_| !idc.is_empty());
        known.map(Vec::as_slice).unwrap_or_default()
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether nobody takes part.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Adds a host; one that is there already is where it was.
    pub(super) fn enter(&mut self, host: HostId, idc: &Arc<str>) {
        if self.places.contains_key(&host) {
            return;
        }
        let mates = self.by_idc.entry(Arc::clone(idc)).or_default();
        let place = Place { all: self.all.len(), idc: Arc::clone(idc), in_idc: mates.len() };
        mates.push(host);
        self.all.push(host);
        self.places.insert(host, place);
    }

    /// Takes a host out.
    pub(super) fn exit(&mut self, host: &HostId) {
        let Some(Place { all, idc, in_idc }) = self.places.remove(host) else { return };
        self.all.swap_remove(all);
        if let Some(place) = self.all.get(all).and_then(|moved| self.places.get_mut(moved)) {
            place.all = all;
        }
        let Some(mates) = self.by_idc.get_mut(&idc) else { return };
        mates.swap_remove(in_idc);
        if let Some(place) = mates.get(in_idc).and_then(|moved| self.places.get_mut(moved)) {
            place.in_idc = in_idc;
        }
        if mates.is_empty() {
            self.by_idc.remove(&idc);
        }
    }

    /// A host that takes part is in this data centre now.
    pub(super) fn moves(&mut self, host: HostId, idc: &Arc<str>) {
        if self.places.get(&host).is_some_and(|place| place.idc != *idc) {
            self.exit(&host);
            self.enter(host, idc);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn both_lists_have_everybody_once(
            steps in proptest::collection::vec((0..3u8, 0..20u8, 0..3u8), 0..200)
        ) {
            let mut roster = Roster::default();
            let mut model: BTreeMap<HostId, Arc<str>> = BTreeMap::new();
            let idcs: [Arc<str>; 3] = ["", "a", "b"].map(Arc::from);
            for (what, host, idc) in steps {
                let (host, idc) = (HostId::from_bytes([host; 16]), &idcs[usize::from(idc)]);
                match what {
                    0 => {
                        roster.enter(host, idc);
                        model.entry(host).or_insert_with(|| Arc::clone(idc));
                    }
                    1 => {
                        roster.exit(&host);
                        model.remove(&host);
                    }
                    _ => {
                        roster.moves(host, idc);
                        model.entry(host).and_modify(|known| *known = Arc::clone(idc));
                    }
                }
                let all: BTreeSet<_> = roster.all().iter().copied().collect();
                prop_assert_eq!(&all, &model.keys().copied().collect());
                prop_assert_eq!(roster.len(), model.len());
                for idc in &idcs[1..] {
                    let here: BTreeSet<_> = roster.in_idc(idc).iter().copied().collect();
                    let there = model.iter().filter(|(_, known)| *known == idc);
                    prop_assert_eq!(&here, &there.map(|(host, _)| *host).collect());
                    prop_assert_eq!(roster.in_idc(idc).len(), here.len());
                }
                prop_assert!(roster.in_idc("").is_empty());
            }
        }
    }
}
