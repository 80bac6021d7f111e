//! Checkpoints being made of a stream that is unpacked from front to back.
//!
//! How far they are apart: a window, compressed, takes about as many bytes as the 32 KiB that it stands for
//! take in the stream. One for every 4 MiB that come out is thus 0.8 % of the stream, whatever its ratio,
//! and a read passes over 4 MiB at most that need not be fetched: 1.4 MiB as text is packed. Where hardly
//! anything is gained by compression one is made for every 2 MiB of the stream: 1.6 %. What lies within a
//! block cannot be begun from; known compressors end one after 0.3–3.5 MiB, most after 64 KiB of the stream.
//! A place where a member or frame begins needs no window: those may be closer; so are places that only say how
//! far the stream was read when so much had come, so that a read ends where its range does.

use bytes::Bytes;
use dfs_model::Transform;

use super::blocks::Bits;
use super::checkpoints::{Checkpoint, Checkpoints, Entry, Runs};

/// Level that windows are compressed with.
const WINDOW_LEVEL: i32 = 6;
/// Bytes of memory that a checkpoint takes besides its window, about.
const POINT_BYTES: usize = 64;
/// Bytes of memory that all of them may take; where they would take more, every second one is left out.
const MOST_BYTES: usize = 32 << 20;

/// How far checkpoints are apart at least, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spacing {
    /// Of the content, where one needs a window.
    pub content: u64,
    /// Of the stream, where one needs a window and the content is not so far.
    pub packed: u64,
    /// Of the content, where a member or frame begins.
    pub start: u64,
    /// Of the content, where a place only says how far the stream was read.
    pub passed: u64,
}

impl Default for Spacing {
    fn default() -> Self {
        Self { content: 4 << 20, packed: 2 << 20, start: 256 << 10, passed: 128 << 10 }
    }
}

pub(super) struct Marker {
    points: Vec<Checkpoint>,
    /// The last place to begin from: in the stream, in the content.
    last: (u64, u64),
    spacing: Spacing,
    /// Bytes of memory that they may take.
    most: usize,
    /// Bytes of memory that they take.
    bytes: usize,
    /// Where the last member or frame with content ended: in the stream, in the content.
    end: (u64, u64),
}

impl Default for Marker {
    fn default() -> Self {
        Self::new(Spacing::default(), MOST_BYTES)
    }
}

impl Marker {
    /// One whose checkpoints take no more than `most` bytes of memory.
    pub fn new(spacing: Spacing, most: usize) -> Self {
        let (points, nowhere) = (Vec::new(), (0, 0));
        let mut marker = Self { points, last: nowhere, spacing, most, bytes: 0, end: nowhere };
        marker.push(Checkpoint { packed: 0, at: 0, entry: Entry::Start });
        marker
    }

    /// Whether a checkpoint is to be made as soon as one can be.
    pub fn is_due(&self, packed: u64, at: u64) -> bool {
        let (last_packed, last) = self.last;
        packed - last_packed >= self.spacing.packed || at - last >= self.spacing.content
    }

    /// So much had come when so much of the stream was read.
    pub fn pass(&mut self, packed: u64, at: u64) {
        let point = Checkpoint { packed, at, entry: Entry::Passed };
        if self.has_room_for(&point) {
            self.push(point);
        }
    }

    /// A member or frame may begin here.
    pub fn start(&mut self, packed: u64, at: u64) {
        let point = Checkpoint { packed, at, entry: Entry::Start };
        if self.has_room_for(&point) {
            self.push(point);
        }
    }

    /// A block ended behind these bytes, which have `bits` of the next one.
    pub fn block(&mut self, packed: u64, at: u64, bits: Bits, window: &[u8]) {
        // Without memory for it there is a checkpoint less, which is as right as one more.
        if let Ok(window) = zstd::bulk::compress(window, WINDOW_LEVEL) {
            let entry = Entry::Block { bits, window: Bytes::from(window) };
            self.push(Checkpoint { packed, at, entry });
        }
    }

    /// A member or frame ended behind these bytes.
    pub fn end(&mut self, packed: u64, at: u64) {
        if at > self.end.1 {
            self.end = (packed, at);
        }
    }

    /// The table of a stream that has ended.
    pub fn finish(mut self, transform: Transform) -> Checkpoints {
        let (packed, length) = self.end;
        // What seemed to begin behind the end was nothing.
        self.points.retain(|point| point.at < length);
        let points = self.points;
        Checkpoints { transform, runs: Runs::On, packed, length, points }
    }

    /// Whether it is as far from those before as those of its kind are to be.
    fn has_room_for(&self, point: &Checkpoint) -> bool {
        let last = self.points.last().map_or(0, |last| last.at);
        match point.entry {
            Entry::Start => point.at - self.last.1 >= self.spacing.start,
            Entry::Block { .. } => self.is_due(point.packed, point.at),
            Entry::Passed => point.at - last >= self.spacing.passed,
        }
    }

    fn push(&mut self, point: Checkpoint) {
        // Places ascend, and one to begin from says all that the other kind does.
        let is_same = |last: &mut Checkpoint| {
            last.entry == Entry::Passed && (last.packed == point.packed || last.at == point.at)
        };
        if let Some(last) = self.points.pop_if(is_same) {
            self.bytes -= cost(&last);
        }
        self.append(point);
        while self.bytes > self.most && self.points.len() > 1 {
            self.thin();
        }
    }

    fn append(&mut self, point: Checkpoint) {
        if point.entry != Entry::Passed {
            self.last = (point.packed, point.at);
        }
        self.bytes += cost(&point);
        self.points.push(point);
    }

    /// Doubles the spacing, and leaves out what is closer now.
    fn thin(&mut self) {
        let Spacing { content, packed, start, passed } = self.spacing;
        let [content, packed, start, passed] = [content, packed, start, passed].map(|far| 2 * far);
        self.spacing = Spacing { content, packed, start, passed };
        self.bytes = 0;
        for point in std::mem::take(&mut self.points) {
            if self.points.is_empty() || self.has_room_for(&point) {
                self.append(point);
            }
        }
    }
}

fn cost(point: &Checkpoint) -> usize {
    POINT_BYTES
        + match &point.entry {
            Entry::Start | Entry::Passed => 0,
            Entry::Block { window, .. } => window.len(),
        }
}
