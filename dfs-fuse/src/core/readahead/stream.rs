//! One who reads from front to back: the window ahead of it.
//!
//! It doubles up to what the reader takes in about a second, at least [`LEAST_WINDOW`] and at most [`MAX_WINDOW`]: more would
//! be fetched for who may leave, and take the link from others. The kernel keeps several requests in flight and they arrive out of
//! order, so "next" allows a few requests' distance.

use std::sync::Arc;
use std::time::Duration;

use dfs_model::ByteRange;

use super::{Ahead, Observed, Reader};

/// Largest window.
pub(super) const MAX_WINDOW: u64 = 32 << 20;

/// What a window grows to however slow its reader is: with less, links of some delay are not filled.
const LEAST_WINDOW: u64 = 8 << 20;

/// Window from which a reader is taken to read on: its neighbours give it what follows by turns.
const STREAM: u64 = 1 << 20;

/// Smallest window.
const FIRST_WINDOW: u64 = 256 << 10;

/// How many requests of the same size a read may be away from the front and still count as advancing.
const SLACK_REQUESTS: u64 = 4;

/// Advancing reads in a row before read-ahead begins.
const RUN: u32 = 2;

/// Over how long a reader's rate is taken.
const RATE_OVER: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(super) struct Stream {
    /// End of the furthest read of this run.
    front: u64,
    /// End of what was asked to be fetched ahead.
    issued: u64,
    window: u64,
    /// What the window may grow to.
    limit: u64,
    run: u32,
    /// When its rate was taken last, and where it was then.
    marked: (Duration, u64),
    reader: Arc<Reader>,
}

impl Stream {
    /// Who may be about to read on from here.
    pub(super) fn begun(read: ByteRange, now: Duration) -> Self {
        Self {
            front: read.end,
            issued: read.end,
            window: 0,
            limit: LEAST_WINDOW,
            run: 1,
            marked: (now, read.end),
            reader: Arc::default(),
        }
    }

    pub(super) fn reader(&self) -> &Arc<Reader> {
        &self.reader
    }

    /// Whether it was met more than once.
    pub(super) fn is_established(&self) -> bool {
        self.run >= RUN
    }

    /// Whether a read may be its.
    pub(super) fn is_at(&self, read: ByteRange) -> bool {
        let slack = read.len().saturating_mul(SLACK_REQUESTS);
        read.start <= self.front.saturating_add(slack)
            && read.end.saturating_add(slack) >= self.front
    }

    /// How far a read is from where it has come to.
    pub(super) fn distance(&self, read: ByteRange) -> u64 {
        read.start.abs_diff(self.front)
    }

    /// Takes note of a read of its.
    pub(super) fn observe(&mut self, read: ByteRange, now: Duration) -> Observed {
        self.reader.seen(now);
        if read.end > self.front {
            self.front = read.end;
            self.run = self.run.saturating_add(1);
        }
        if self.reader.was_withdrawn() {
            (self.issued, self.window) = (self.front, 0);
        }
        self.take_rate(now);
        if self.is_established() {
            Observed::Advancing(self.advance(read))
        } else {
            Observed::Random
        }
    }

    fn take_rate(&mut self, now: Duration) {
        let (since, from) = self.marked;
        let past = now.saturating_sub(since);
        if past < RATE_OVER {
            return;
        }
        let rate = (self.front - from) as f64 / past.as_secs_f64();
        self.limit = (rate as u64).clamp(LEAST_WINDOW, MAX_WINDOW);
        self.marked = (now, self.front);
    }

    /// The next part to fetch, once half of the window before the front is used up.
    fn advance(&mut self, read: ByteRange) -> Option<Ahead> {
        if self.issued > self.front.saturating_add(self.window / 2) {
            return None;
        }
        let window = (self.window * 2).max(read.len().saturating_mul(2));
        self.window = window.clamp(FIRST_WINDOW, self.limit);
        let is_stream = self.window >= STREAM;
        // What a stream is waiting for now is to come as the rest of it does.
        let waiting = if is_stream { read.start } else { self.front };
        let start = if self.issued > self.front { self.issued } else { waiting };
        let end = self.front.saturating_add(self.window);
        self.issued = self.issued.max(end);
        let stream = is_stream.then(|| (ByteRange::new(read.start, end), Arc::clone(&self.reader)));
        let news = ByteRange::new(start.min(end), end);
        (!news.is_empty()).then_some(Ahead { news, stream })
    }
}
