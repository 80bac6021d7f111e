//! Recognises files that are read from front to back and says what to fetch before it is asked for.
//!
//! A pure function of the reads of one inode: an advancing reader gets a window ahead of its front that
//! doubles up to [`MAX_WINDOW`], and goes on through the file from [`STREAM`] on; any other pattern gets nothing. The kernel keeps several requests in
//! flight and they arrive out of order, so "next" allows a few requests' distance.
//!
//! Memory is bounded: a fixed table of [`SLOTS`] streams; inodes that meet in one slot take turns.

use dfs_model::ByteRange;
use parking_lot::Mutex;

/// Largest window.
pub(super) const MAX_WINDOW: u64 = 32 << 20;

/// Window from which a reader is taken to read on: its neighbours give it what follows by turns.
const STREAM: u64 = 1 << 20;

/// Smallest window.
const FIRST_WINDOW: u64 = 256 << 10;

/// How many requests of the same size a read may be away from the front and still count as advancing.
const SLACK_REQUESTS: u64 = 4;

/// Advancing reads in a row before read-ahead begins.
const RUN: u32 = 2;

/// Streams followed at once.
const SLOTS: usize = 1024;

/// All streams of a mount.
#[derive(Debug)]
pub(super) struct Streams {
    slots: Box<[Mutex<Slot>]>,
}

#[derive(Debug, Default)]
struct Slot {
    nid: u64,
    stream: Stream,
}

impl Default for Streams {
    fn default() -> Self {
        Self { slots: (0..SLOTS).map(|_| Mutex::default()).collect() }
    }
}

impl Streams {
    /// Takes note of a read of the file `nid`.
    pub(super) fn observe(&self, nid: u64, read: ByteRange) -> Observed {
        let spread = nid.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let mut slot = self.slots[spread as usize % SLOTS].lock();
        if slot.nid != nid {
            *slot = Slot { nid, stream: Stream::default() };
        }
        slot.stream.observe(read)
    }
}

/// What a read says about its file's reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Observed {
    /// Reads jump about.
    Random,
    /// Reads advance; what there is should be fetched now.
    Advancing(Option<Ahead>),
}

/// What a reader will want.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ahead {
    /// What was not said of it before.
    pub(super) news: ByteRange,
    /// All of it and what is being read, where the reader is taken to go on.
    pub(super) stream: Option<ByteRange>,
}

#[derive(Debug, Default)]
struct Stream {
    /// End of the furthest read of this run.
    front: u64,
    /// End of what was asked to be fetched ahead.
    issued: u64,
    window: u64,
    run: u32,
}

impl Stream {
    fn observe(&mut self, read: ByteRange) -> Observed {
        let slack = read.len().saturating_mul(SLACK_REQUESTS);
        let near = read.start <= self.front.saturating_add(slack)
            && read.end.saturating_add(slack) >= self.front;
        if !near {
            *self = Self { front: read.end, issued: read.end, window: 0, run: 1 };
            return Observed::Random;
        }
        if read.end > self.front {
            self.front = read.end;
            self.run = self.run.saturating_add(1);
        }
        if self.run < RUN {
            return Observed::Random;
        }
        Observed::Advancing(self.advance(read))
    }

    /// The next part to fetch, once half of the window before the front is used up.
    fn advance(&mut self, read: ByteRange) -> Option<Ahead> {
        if self.issued > self.front.saturating_add(self.window / 2) {
            return None;
        }
        let window = (self.window * 2).max(read.len().saturating_mul(2));
        self.window = window.clamp(FIRST_WINDOW, MAX_WINDOW);
        let is_stream = self.window >= STREAM;
        // What a stream is waiting for now is to come as the rest of it does.
        let waiting = if is_stream { read.start } else { self.front };
        let start = if self.issued > self.front { self.issued } else { waiting };
        let end = self.front.saturating_add(self.window);
        self.issued = end;
        let stream = is_stream.then(|| ByteRange::new(read.start, end));
        let news = ByteRange::new(start, end);
        (!news.is_empty()).then_some(Ahead { news, stream })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ahead(observed: Observed) -> Option<ByteRange> {
        match observed {
            Observed::Advancing(ahead) => ahead.map(|ahead| ahead.news),
            Observed::Random => None,
        }
    }

    #[test]
    fn a_front_to_back_reader_gets_a_growing_window() {
        let streams = Streams::default();
        let mut issued_to = 0;
        let mut largest = 0;
        for at in 0..1000 {
            let read = ByteRange::at(at * 131_072, 131_072);
            if let Some(range) = ahead(streams.observe(5, read)) {
                assert!(range.start >= issued_to, "nothing is asked for twice");
                issued_to = range.end;
            }
            largest = largest.max(issued_to.saturating_sub(read.end));
            assert!(at == 0 || issued_to > read.end, "the reader never catches up");
        }
        assert_eq!(largest, MAX_WINDOW);
    }

    #[test]
    fn who_goes_on_reading_is_a_stream_with_all_that_is_ahead_of_it() {
        for size in [4096, 131_072, 1 << 20] {
            let streams = Streams::default();
            let mut streamed = 0;
            for at in 0..(16 << 20) / size {
                let read = ByteRange::at(at * size, size);
                let Observed::Advancing(Some(ahead)) = streams.observe(5, read) else { continue };
                let Some(stream) = ahead.stream else {
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
        assert_eq!(ahead(Streams::default().observe(5, ByteRange::new(0, 4096))), None);
    }

    #[test]
    fn requests_that_overtake_each_other_still_advance() {
        let streams = Streams::default();
        let order = [1, 0, 3, 2, 5, 4, 7, 6];
        let all = order.map(|at| streams.observe(5, ByteRange::at(at * 131_072, 131_072)));
        assert!(all[2..].iter().all(|seen| *seen != Observed::Random), "{all:?}");
    }

    proptest! {
        #[test]
        fn reads_far_from_each_other_fetch_nothing_ahead(places in prop::collection::vec(0u64..1 << 20, 1..200)) {
            let streams = Streams::default();
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
            let streams = Streams::default();
            for (start, length) in reads {
                let read = ByteRange::at(start, length);
                if let Some(range) = ahead(streams.observe(1, read)) {
                    prop_assert!(range.len() <= MAX_WINDOW);
                }
            }
        }
    }
}
