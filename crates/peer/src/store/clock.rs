//! The time that eviction goes by: it starts at the machine's, and from then on no setting of the machine's clock
//! moves it. What was read lately is not old because somebody set the clock.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

/// A clock of milliseconds since 1970.
#[derive(Debug)]
pub(super) struct StoreClock {
    /// At `began`.
    base: AtomicU64,
    began: Instant,
}

/// Milliseconds since 1970; zero for what is before. Fine enough to tell which of two reads was later, and coarse
/// enough that not every read of a task writes to memory that others read.
pub(super) fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The time so many milliseconds after 1970.
pub(super) fn from_millis(millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
}

impl StoreClock {
    /// One that starts at `began`, when the machine's clock said `wall`.
    pub(super) fn start(wall: SystemTime, began: Instant) -> Self {
        Self { base: AtomicU64::new(millis(wall)), began }
    }

    /// Something was read then: in the time of an earlier process, which may have had another clock.
    pub(super) fn is_past(&self, time: SystemTime) {
        self.base.fetch_max(millis(time).saturating_add(1), Relaxed);
    }

    /// The time at `instant`.
    pub(super) fn at(&self, instant: Instant) -> SystemTime {
        from_millis(self.base.load(Relaxed)) + instant.saturating_duration_since(self.began)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_from_the_latest_that_is_known() {
        let began = Instant::now();
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let clock = StoreClock::start(at(1000), began);
        clock.is_past(at(900));
        assert_eq!(clock.at(began), at(1000));
        clock.is_past(at(5000));
        assert_eq!(clock.at(began + Duration::from_secs(7)), at(5007) + Duration::from_millis(1));
        assert_eq!(StoreClock::start(at(0) - Duration::from_secs(9), began).at(began), at(0));
    }
}
