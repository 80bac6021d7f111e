//! Recognises how a file is being read and says what to fetch before it is asked for.
//!
//! A pure function of the reads of one inode, and of when they come. Opens cost no request, so there are no handles to go
//! by: of each file several readers are followed at once, each known by where it has come to. Who goes from front to back gets
//! a window ahead ([`stream`]); who takes even steps gets the next few places ([`stride`]); anybody else gets nothing.
//!
//! Memory is bounded: a fixed table of [`SLOTS`] files, with up to [`READERS`] readers each; files that meet in one slot take turns.

mod reader;
mod stream;
mod stride;

use std::sync::Arc;
use std::time::Instant;

use dfs_model::ByteRange;
use parking_lot::Mutex;

pub(super) use reader::{Reader, Waiting};
#[cfg(test)]
use stream::MAX_WINDOW;
use stream::Stream;
use stride::Stride;

/// Files followed at once.
const SLOTS: usize = 1024;

/// Readers followed of one file: as many processes often load one.
const READERS: usize = 8;

/// All readers of a mount.
#[derive(Debug)]
pub(super) struct Streams {
    slots: Box<[Mutex<Slot>]>,
    begun: Instant,
}

#[derive(Debug, Default)]
struct Slot {
    nid: u64,
    /// Who was met last comes last.
    streams: Vec<Stream>,
    stride: Stride,
}

/// What a read says about its file's reader.
#[derive(Debug, Clone)]
pub(super) enum Observed {
    /// Reads jump about.
    Random,
    /// Reads advance; what there is should be fetched now.
    Advancing(Option<Ahead>),
    /// Reads are one step apart; these places are next.
    Striding(Vec<ByteRange>),
}

/// What a reader will want.
#[derive(Debug, Clone)]
pub(super) struct Ahead {
    /// What was not said of it before.
    pub(super) news: ByteRange,
    /// Where the reader is taken to go on: all that is ahead of it with what is being read, and who it is.
    pub(super) stream: Option<(ByteRange, Arc<Reader>)>,
}

impl Streams {
    /// None yet.
    pub(super) fn new(now: Instant) -> Self {
        Self { slots: (0..SLOTS).map(|_| Mutex::default()).collect(), begun: now }
    }

    /// Takes note of a read of the file `nid`.
    pub(super) fn observe(&self, nid: u64, read: ByteRange, now: Instant) -> Observed {
        let mut slot = self.slot(nid).lock();
        if slot.nid != nid {
            *slot = Slot { nid, ..Slot::default() };
        }
        slot.observe(read, now - self.begun)
    }

    /// Somebody waits for these bytes of a file: its reader is there until this is dropped.
    pub(super) fn waits(&self, nid: u64, read: ByteRange) -> Option<Waiting> {
        let slot = self.slot(nid).lock();
        let stream = slot.streams.iter().rfind(|stream| stream.is_at(read))?;
        (slot.nid == nid).then(|| stream.reader().waits())
    }

    /// How long nobody has seen a reader; none while it waits.
    pub(super) fn away(&self, reader: &Reader, now: Instant) -> std::time::Duration {
        reader.away(now - self.begun)
    }

    fn slot(&self, nid: u64) -> &Mutex<Slot> {
        let spread = nid.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        &self.slots[spread as usize % SLOTS]
    }
}

impl Slot {
    fn observe(&mut self, read: ByteRange, now: std::time::Duration) -> Observed {
        let nearest = self.streams.iter().enumerate().filter(|(_, stream)| stream.is_at(read));
        let nearest = nearest.min_by_key(|(_, stream)| stream.distance(read));
        let Some((known, _)) = nearest else {
            self.admit(Stream::begun(read, now));
            return match self.stride.observe(read) {
                Some(next) => Observed::Striding(next),
                None => Observed::Random,
            };
        };
        let mut stream = self.streams.remove(known);
        let observed = stream.observe(read, now);
        self.streams.push(stream);
        observed
    }

    /// In the place of one that has not been met again, if there is one, else of whoever was not met for longest.
    fn admit(&mut self, stream: Stream) {
        if self.streams.len() >= READERS {
            let once = self.streams.iter().position(|stream| !stream.is_established());
            self.streams.remove(once.unwrap_or(0));
        }
        self.streams.push(stream);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    /// Readers, and a clock that stands still unless it is said otherwise.
    struct Watched(Streams, Instant);

    impl Default for Watched {
        fn default() -> Self {
            let now = Instant::now();
            Self(Streams::new(now), now)
        }
    }

    impl Watched {
        fn observe(&self, nid: u64, read: ByteRange) -> Observed {
            self.0.observe(nid, read, self.1)
        }
    }

    fn ahead(observed: Observed) -> Option<ByteRange> {
        match observed {
            Observed::Advancing(ahead) => ahead.map(|ahead| ahead.news),
            Observed::Random | Observed::Striding(_) => None,
        }
    }

    /// What a reader of `rate` bytes a second is told in `seconds`, as it reads on by `size`.
    fn told(rate: u64, size: u64, seconds: u64) -> Vec<ByteRange> {
        let mut watched = Watched::default();
        let mut told = Vec::new();
        for at in 0..rate * seconds / size {
            watched.1 += Duration::from_secs_f64(size as f64 / rate as f64);
            told.extend(ahead(watched.observe(5, ByteRange::at(at * size, size))));
        }
        told
    }

    #[test]
    fn a_window_is_about_what_its_reader_takes_in_a_second() {
        let least = 8 << 20;
        for (rate, wanted) in [(1 << 20, least), (16 << 20, 16 << 20), (1 << 30, MAX_WINDOW)] {
            let size = 1 << 20;
            let told = told(rate, size, 12.max(64 / (rate >> 20)));
            let ahead = told.iter().map(|part| part.end).max().unwrap();
            let read = rate * 12.max(64 / (rate >> 20));
            let window = ahead - read + size;
            assert!(window <= wanted * 5 / 4 + 2 * size, "{rate}: {window}");
            assert!(window >= wanted / 2, "{rate}: {window}");
        }
    }

    #[test]
    fn several_readers_of_one_file_are_each_fetched_ahead_of() {
        let streams = Watched::default();
        let (size, part) = (131_072, 64 << 20);
        let mut told = [0; 8];
        for step in 0..100 {
            for reader in 0..8 {
                let read = ByteRange::at(reader * part + step * size, size);
                if let Some(range) = ahead(streams.observe(5, read)) {
                    assert!(range.start >= reader * part && range.end <= (reader + 1) * part);
                    told[reader as usize] += range.len();
                }
            }
        }
        assert!(told.iter().all(|bytes| *bytes > 8 << 20), "{told:?}");
    }

    #[test]
    fn who_reads_here_and_there_does_not_drive_out_who_reads_on() {
        let streams = Watched::default();
        let mut told = 0;
        for step in 0..200_u64 {
            told += ahead(streams.observe(5, ByteRange::at(step * 131_072, 131_072)))
                .map_or(0, |range| range.len());
            for other in 0..6 {
                let place = (step * 6 + other).wrapping_mul(0x9e37_79b9_7f4a_7c15) % (1 << 40);
                streams.observe(5, ByteRange::at((1 << 30) + place * 4096, 4096));
            }
        }
        assert!(told > 16 << 20, "{told}");
    }

    #[test]
    fn who_takes_even_steps_gets_the_next_places() {
        for step in [1_i64 << 20, -(1 << 20)] {
            let streams = Watched::default();
            let mut next = Vec::new();
            for at in 0..32_i64 {
                let read = ByteRange::at(((1 << 30) + at * step) as u64, 4096);
                if let Observed::Striding(places) = streams.observe(5, read) {
                    assert!(places.iter().all(|place| !next.contains(place)), "said twice");
                    next.extend(places);
                }
                let was_told = next.contains(&read);
                assert_eq!(was_told, at > 3, "{at}: {next:?}");
            }
            assert!(next.len() < 32 + 20, "a few at a time");
        }
    }

    #[test]
    fn a_reader_is_there_while_it_reads_and_while_it_waits() {
        let mut watched = Watched::default();
        let mut reader = None;
        for at in 0..64 {
            if let Observed::Advancing(Some(Ahead { stream: Some((_, found)), .. })) =
                watched.observe(5, ByteRange::at(at * 131_072, 131_072))
            {
                reader = Some(found);
            }
        }
        let reader = reader.unwrap();
        watched.1 += Duration::from_secs(20);
        assert_eq!(watched.0.away(&reader, watched.1), Duration::from_secs(20));
        let waiting = watched.0.waits(5, ByteRange::at(64 * 131_072, 131_072)).unwrap();
        assert_eq!(watched.0.away(&reader, watched.1), Duration::ZERO);
        drop(waiting);
        assert!(watched.0.away(&reader, watched.1) > Duration::from_secs(19));
        assert!(watched.0.waits(5, ByteRange::at(1 << 40, 10)).is_none());
        assert!(watched.0.waits(6, ByteRange::at(64 * 131_072, 131_072)).is_none());
    }

    #[test]
    fn what_was_withdrawn_from_a_reader_is_said_to_it_again() {
        let watched = Watched::default();
        let mut at = 0;
        let mut read = || {
            at += 1;
            watched.observe(5, ByteRange::at((at - 1) * 131_072, 131_072))
        };
        let (mut last, mut reader) = (None, None);
        for _ in 0..64 {
            if let Observed::Advancing(Some(ahead)) = read() {
                last = Some(ahead.news);
                reader = ahead.stream.map(|(_, reader)| reader);
            }
        }
        reader.unwrap().withdrawn();
        let again = ahead(read()).unwrap();
        assert!(again.start < last.unwrap().end, "{again} {last:?}");
    }

    #[test]
    fn a_front_to_back_reader_gets_a_growing_window() {
        let mut watched = Watched::default();
        let mut issued_to = 0;
        let mut largest = 0;
        for at in 0..1000 {
            let read = ByteRange::at(at * 131_072, 131_072);
            watched.1 += Duration::from_millis(1);
            if let Some(range) = ahead(watched.observe(5, read)) {
                assert!(range.start >= issued_to, "nothing is asked for twice");
                issued_to = range.end;
            }
            largest = largest.max(issued_to.saturating_sub(read.end));
            assert!(at == 0 || issued_to > read.end, "the reader never catches up");
        }
        assert!(largest <= MAX_WINDOW && largest > MAX_WINDOW / 2, "{largest}");
    }

    #[test]
    fn who_goes_on_reading_is_a_stream_with_all_that_is_ahead_of_it() {
        for size in [4096, 131_072, 1 << 20] {
            let streams = Watched::default();
            let mut streamed = 0;
            for at in 0..(16 << 20) / size {
                let read = ByteRange::at(at * size, size);
                let Observed::Advancing(Some(ahead)) = streams.observe(5, read) else { continue };
                let Some((stream, _)) = ahead.stream else {
                    assert!(read.end < 1 << 20 && streamed == 0, "{read} is small");
                    continue;
                };
                assert_eq!((stream.start, stream.end), (read.start, ahead.news.end));
                streamed += 1;
            }
            assert!(streamed > 2, "{size}");
        }
    }

    #[test]
    fn one_read_of_the_beginning_fetches_nothing_ahead() {
        assert_eq!(ahead(Watched::default().observe(5, ByteRange::new(0, 4096))), None);
    }

    #[test]
    fn requests_that_overtake_each_other_still_advance() {
        let streams = Watched::default();
        let order = [1, 0, 3, 2, 5, 4, 7, 6];
        let all = order.map(|at| streams.observe(5, ByteRange::at(at * 131_072, 131_072)));
        assert!(all[2..].iter().all(|seen| !matches!(seen, Observed::Random)), "{all:?}");
    }

    proptest! {
        #[test]
        fn reads_far_from_each_other_fetch_nothing_ahead(places in prop::collection::vec(0u64..1 << 20, 1..200)) {
            let streams = Watched::default();
            let mut last = None;
            for place in places {
                if last.is_some_and(|last: u64| last.abs_diff(place) < 2) || place < 2 {
                    continue;
                }
                last = Some(place);
                let read = ByteRange::at(place << 20, 4096);
                prop_assert_eq!(ahead(streams.observe(9, read)), None);
            }
        }

        #[test]
        fn no_read_makes_it_overflow_or_exceed_the_window(
            reads in prop::collection::vec((any::<u64>(), 0u64..1 << 20), 1..100),
        ) {
            let streams = Watched::default();
            for (start, length) in reads {
                let read = ByteRange::at(start, length);
                if let Some(range) = ahead(streams.observe(1, read)) {
                    prop_assert!(range.len() <= MAX_WINDOW);
                }
            }
        }
    }
}
