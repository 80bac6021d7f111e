//! Regular files with holes: bytes that lie nowhere, are never fetched and read as zeros.

use super::Location;

/// Most chunk indexes of one file: 8 MiB of index.
pub const MAX_CHUNKS: u64 = 1 << 20;

/// A part of a file that lies somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Offset in the file, in bytes.
    pub at: u64,
    /// Bytes in it; never 0.
    pub length: u64,
    /// Where they begin.
    pub location: Location,
}

impl Run {
    fn end(&self) -> u64 {
        self.at + self.length
    }

    /// Whether `next` goes on where this ends, in the file and in the space.
    fn continues_in(&self, next: &Self) -> bool {
        self.end() == next.at
            && self.location.space == next.location.space
            && self.location.offset + self.length == next.location.offset
    }
}

/// The content of a regular file with holes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SparseFile {
    length: u64,
    runs: Box<[Run]>,
}

impl SparseFile {
    /// Takes the runs of a file in ascending order; `None` when they overlap or reach beyond its end.
    pub fn new(length: u64, runs: impl IntoIterator<Item = Run>) -> Option<Self> {
        let mut merged: Vec<Run> = Vec::new();
        let mut end = 0;
        for run in runs.into_iter().filter(|run| run.length > 0) {
            let next = run.at.checked_add(run.length).filter(|&next| next <= length)?;
            run.location.offset.checked_add(run.length)?;
            if run.at < end {
                return None;
            }
            end = next;
            match merged.last_mut() {
                Some(last) if last.continues_in(&run) => last.length += run.length,
                _ => merged.push(run),
            }
        }
        Some(Self { length, runs: merged.into() })
    }

    /// Bytes in it, holes included.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// What is not holes.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// The largest chunk, as a power of two of at most `limit`, that every run begins and ends with;
    /// `None` when that takes chunks shorter than `1 << least`, or more than [`MAX_CHUNKS`] of them.
    pub fn chunk_log2(&self, least: u32, limit: u32) -> Option<u32> {
        let edge = |end: u64| if end == self.length { 0 } else { end };
        let edges = self.runs.iter().fold(0, |bits, run| bits | run.at | edge(run.end()));
        let log2 = edges.trailing_zeros().min(limit);
        let fits = log2 >= least && self.length.div_ceil(1 << log2) <= MAX_CHUNKS;
        fits.then_some(log2)
    }

    /// Where the chunks of this size lie, holes being `None`.
    pub(crate) fn chunks(&self, log2: u32) -> impl Iterator<Item = Option<Location>> + '_ {
        let mut runs = self.runs.iter().peekable();
        (0..self.length.div_ceil(1 << log2)).map(move |chunk| {
            let at = chunk << log2;
            while runs.next_if(|run| run.end() <= at).is_some() {}
            let run = runs.peek().filter(|run| run.at <= at)?;
            let Location { space, offset } = run.location;
            Some(Location { space, offset: offset + (at - run.at) })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(at: u64, length: u64, offset: u64) -> Run {
        Run { at, length, location: Location { space: 0, offset } }
    }

    #[test]
    fn neighbours_join_and_disorder_is_refused() {
        let file = SparseFile::new(100, [run(0, 10, 512), run(10, 5, 522), run(20, 0, 0)]).unwrap();
        assert_eq!(file.runs(), [run(0, 15, 512)]);
        for bad in [
            vec![run(10, 5, 0), run(0, 5, 0)],
            vec![run(0, 5, 0), run(4, 1, 0)],
            vec![run(96, 5, 0)],
            vec![run(u64::MAX, 2, 0)],
            vec![run(0, 2, u64::MAX)],
        ] {
            assert_eq!(SparseFile::new(100, bad), None);
        }
    }

    #[test]
    fn chunks_are_as_long_as_the_runs_allow() {
        let file = SparseFile::new(10_000, [run(4096, 4096, 0), run(8192, 1808, 8192)]).unwrap();
        assert_eq!(file.chunk_log2(9, 40), Some(12));
        let offsets: Vec<_> = file.chunks(12).map(|at| at.map(|at| at.offset)).collect();
        assert_eq!(offsets, [None, Some(0), Some(8192)]);
        let odd = SparseFile::new(10_000, [run(0, 700, 0)]).unwrap();
        assert_eq!(odd.chunk_log2(9, 40), None);
        let hole = SparseFile::new(1 << 50, []).unwrap();
        assert_eq!(hole.chunk_log2(9, 40), Some(40));
        let scattered = SparseFile::new(1 << 50, [run(512, 512, 0)]).unwrap();
        assert_eq!(scattered.chunk_log2(9, 40), None);
    }
}
