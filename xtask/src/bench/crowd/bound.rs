//! The least time that a crowd can take: nobody takes faster than a link, and all that is taken is sent by somebody.

use std::time::Duration;

/// What the crowd and its links are.
#[derive(Debug, Clone, PartialEq)]
pub struct Crowd {
    /// Bytes that each wants.
    pub size: u64,
    /// How many want them.
    pub nodes: usize,
    /// Uplinks beside theirs.
    pub sources: usize,
    /// Bytes in a second that one transfer gets over one link, as measured.
    pub goodput: f64,
    /// Uplinks of nodes that are slower, as shares of a link.
    pub slow: Vec<f64>,
    /// The uplink of each data centre, as a share of a link.
    pub idc: Option<f64>,
    /// From the first that comes to the last.
    pub spread: Duration,
}

impl Crowd {
    /// From the first start to the last end.
    pub fn bound(&self) -> Duration {
        let one = self.size as f64 / self.goodput;
        let full = (self.sources + self.nodes).saturating_sub(self.slow.len());
        let uplinks = full as f64 + self.slow.iter().sum::<f64>();
        let all = self.nodes as f64 * one / uplinks;
        let into_idc = self.idc.map_or(0.0, |share| one / share);
        let last_comer = self.spread.as_secs_f64() + one;
        Duration::from_secs_f64(last_comer.max(all).max(into_idc))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crowd() -> Crowd {
        Crowd {
            size: 1000,
            nodes: 4,
            sources: 1,
            goodput: 100.0,
            slow: Vec::new(),
            idc: None,
            spread: Duration::ZERO,
        }
    }

    #[test]
    fn with_an_uplink_each_a_link_is_the_limit() {
        assert_eq!(crowd().bound(), Duration::from_secs(10));
        let last = Crowd { spread: Duration::from_secs(30), ..crowd() };
        assert_eq!(last.bound(), Duration::from_secs(40));
    }

    #[test]
    fn with_fewer_uplinks_than_takers_their_sum_is() {
        let slow = Crowd { slow: vec![0.25, 0.25, 0.5], ..crowd() };
        // 4000 bytes over three uplinks' worth.
        assert_eq!(slow.bound(), Duration::from_secs_f64(4000.0 / 300.0));
        let idcs = Crowd { idc: Some(0.5), ..crowd() };
        assert_eq!(idcs.bound(), Duration::from_secs(20));
    }
}
