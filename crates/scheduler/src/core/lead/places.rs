//! Numbers for the names of places.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::Host;
use crate::matcher::Place;

/// Every name of a data centre and of a rack in it has a number as long as anybody is there.
#[derive(Debug, Default)]
pub struct Places {
    known: BTreeMap<Name, (Place, u32)>,
    last: u32,
}

/// A data centre and a rack, in small letters.
type Name = (Arc<str>, Arc<str>);

impl Places {
    fn name(host: &Host) -> Name {
        (Arc::clone(&host.idc), Arc::clone(&host.rack))
    }

    /// Where a host is; one that nobody is at has a number that nobody has.
    pub(in super::super) fn of(&mut self, host: &Host) -> Place {
        let name = Self::name(host);
        if let Some((place, _)) = self.known.get(&name) {
            return *place;
        }
        let same_idc = self.known.iter().find(|((idc, _), _)| *idc == name.0);
        let idc = same_idc.map(|(_, (place, _))| place.idc);
        self.last = self.last.wrapping_add(1);
        let place = Place { idc: idc.unwrap_or(self.last), rack: self.last };
        self.known.insert(name, (place, 0));
        place
    }

    /// Somebody is there from now on.
    pub(in super::super) fn enter(&mut self, place: Place) {
        let known = self.known.values_mut().find(|(known, _)| *known == place);
        known.into_iter().for_each(|(_, count)| *count += 1);
    }

    /// Somebody is there no more.
    pub(in super::super) fn leave(&mut self, place: Place) {
        self.known.retain(|_, (known, count)| {
            *count -= u32::from(*known == place);
            *known != place || *count > 0
        });
    }
}
