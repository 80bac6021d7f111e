//! How much comes into a data centre at a time. Its way in may be narrower than the uplinks that fill it: what is leased
//! beyond that waits, is withdrawn, and comes again.

use super::Micros;
use super::leases::{End, Out};

/// So many times what an uplink is leased at a time is let in at first; at least as much as one is.
const FIRST: u32 = 2;

/// The way into one area.
#[derive(Debug, Clone, Copy, Default)]
struct Gate {
    /// Pieces on their way in, the most of them since the window was changed, and the window.
    coming: u32,
    most: u32,
    window: u32,
    changed: Micros,
    /// Whether it has ever been too much.
    is_full: bool,
}

/// The ways into all areas.
#[derive(Debug)]
pub(super) struct Gates {
    /// Pieces that an uplink is leased at a time at least.
    uplink: u32,
    /// By area; one that was never entered has none.
    all: Vec<Gate>,
}

impl Gates {
    pub(super) fn new(uplink: u32) -> Self {
        Self { uplink, all: Vec::new() }
    }

    fn new_gate(&self) -> Gate {
        Gate { window: self.uplink.saturating_mul(FIRST), ..Gate::default() }
    }

    /// Pieces that may begin their way into an area now.
    pub(super) fn room(&self, area: u32) -> u32 {
        let gate = self.all.get(area as usize).copied().unwrap_or_else(|| self.new_gate());
        gate.window.saturating_sub(gate.coming)
    }

    /// Nobody is in an area any more; its number may become another one's.
    pub(super) fn forget(&mut self, area: u32) {
        let new = self.new_gate();
        if let Some(gate) = self.all.get_mut(area as usize) {
            *gate = new;
        }
    }

    /// So many pieces begin their way into an area.
    pub(super) fn begins(&mut self, area: u32, pieces: u32) {
        let new = self.new_gate();
        self.all.resize(self.all.len().max(area as usize + 1), new);
        let gate = &mut self.all[area as usize];
        gate.coming += pieces;
        gate.most = gate.most.max(gate.coming);
    }

    /// What a lease was to bring into an area has come, or is given up. While all comes in good time twice as much is let
    /// in as came, once for each time that something goes all the way; half as much where it was late, and then a piece
    /// more each time.
    pub(super) fn ends(&mut self, area: u32, out: &Out, end: End, now: Micros) {
        let least = self.uplink;
        let Some(gate) = self.all.get_mut(area as usize) else { return };
        gate.coming = gate.coming.saturating_sub(out.lease.count);
        if out.since < gate.changed {
            return;
        }
        let (may, took) = (out.may_take(), now.0.saturating_sub(out.since.0));
        if took > may / 4 {
            (gate.window, gate.is_full) = ((gate.window / 2).max(least), true);
        } else if end == End::Brought && took <= may / 8 {
            let more = match gate.is_full {
                true => gate.most.min(gate.window) + 1,
                false => gate.most.saturating_mul(2),
            };
            gate.window = gate.window.max(more);
        } else {
            return;
        }
        (gate.most, gate.changed) = (gate.coming, now);
    }
}

#[cfg(test)]
mod tests {
    use super::super::PeerNumber;
    use super::super::leases::Leases;
    use super::*;

    const UPLINK: u32 = 10;
    const AREA: u32 = 3;

    /// Leases as many pieces as there is room for, all of which take so long of so many milliseconds at most; how many.
    fn round(gates: &mut Gates, clock: &mut u64, took: u64, most: u64) -> u32 {
        let mut leases = Leases::named_from(0);
        leases.reach(2);
        let since = Micros(*clock);
        *clock += took * 1000;
        let mut out = Vec::new();
        while gates.room(AREA) > 0 {
            gates.begins(AREA, 1);
            let due = Micros(since.0 + most * 1000);
            let lease = leases.add([PeerNumber(0), PeerNumber(1)], 0..1, [since, due], true);
            out.push(leases.take(lease.id).unwrap());
        }
        let end = if took < most { End::Brought } else { End::GivenUp };
        out.iter().for_each(|out| gates.ends(AREA, out, end, Micros(*clock)));
        *clock += 1;
        out.len() as u32
    }

    #[test]
    fn twice_as_much_is_let_in_until_it_is_too_much_and_then_half_and_a_little_more_each_time() {
        let (mut gates, mut clock) = (Gates::new(UPLINK), 0);
        let mut quick = |gates: &mut Gates| round(gates, &mut clock, 10, 1000);
        assert_eq!([(); 3].map(|()| quick(&mut gates)), [20, 40, 80]);
        let mut clock = 1_000_000_000;
        assert_eq!(round(&mut gates, &mut clock, 200, 1000), 160, "neither quick nor late");
        assert_eq!(round(&mut gates, &mut clock, 1000, 1000), 160);
        assert_eq!([(); 3].map(|()| round(&mut gates, &mut clock, 10, 1000)), [80, 81, 82]);
    }

    #[test]
    fn what_one_uplink_is_leased_is_let_in_however_late_it_is() {
        let (mut gates, mut clock) = (Gates::new(UPLINK), 0);
        let late = [(); 4].map(|()| round(&mut gates, &mut clock, 1000, 1000));
        assert_eq!(late, [20, 10, 10, 10]);
        assert_eq!(gates.room(AREA + 1), 20, "another area is another way");
        gates.forget(AREA);
        assert_eq!(gates.room(AREA), 20, "it is another area now");
    }
}
