//! Recognises who reads one small file after the other, as they stand in a directory.
//!
//! Each such file costs a request. An index has the files of a directory in the order of their names, and all but a few
//! inodes of files are of one length: so their numbers are even steps apart, and the next ones can be stored before they
//! are asked for. Whoever reads only some of them, or in another order, is left alone.

use crate::core::NodeId;

/// How many are stored first, and at most.
const WINDOW: (u64, u64) = (4, 64);

/// Longest step between the numbers of neighbours.
const LONGEST_STEP: u64 = 32;

/// A reader of small files.
#[derive(Debug)]
pub(super) struct Files {
    /// The file that was read last.
    last: u64,
    /// Between it and the one before; none of who jumps about.
    step: Option<u64>,
    /// The last one that was named to be stored, or read.
    told: u64,
    window: u64,
}

impl Default for Files {
    fn default() -> Self {
        Self { last: 0, step: None, told: 0, window: WINDOW.0 }
    }
}

impl Files {
    /// Takes note of a small file that was read whole; those that may be the next ones and are to be stored now.
    pub(super) fn observe(&mut self, file: NodeId) -> Vec<NodeId> {
        let number = file.raw();
        let past = number.checked_sub(self.last).filter(|past| *past > 0);
        self.last = number;
        match (self.step, past) {
            // It came before it was stored.
            (Some(step), Some(past)) if number <= self.told && past.is_multiple_of(step) => {
                Vec::new()
            }
            (Some(step), Some(_)) if self.told.checked_add(step) == Some(number) => {
                let next: Vec<NodeId> = (1..=self.window)
                    .filter_map(|at| Some(NodeId::from_raw(number.checked_add(at * step)?)))
                    .collect();
                self.told = next.last().map_or(number, |last| last.raw());
                self.window = (self.window * 2).min(WINDOW.1);
                next
            }
            _ => {
                let step = past.filter(|past| *past <= LONGEST_STEP);
                *self = Self { last: number, step, told: number, ..Self::default() };
                Vec::new()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `files` cost a request, and how many were named that nobody read.
    fn read(files: impl IntoIterator<Item = u64>) -> (usize, usize) {
        let (mut reader, mut named) = (Files::default(), Vec::new());
        let (mut asked, mut spared) = (0, 0);
        for number in files {
            if named.contains(&number) {
                spared += 1;
                continue;
            }
            asked += 1;
            named.extend(reader.observe(NodeId::from_raw(number)).into_iter().map(NodeId::raw));
        }
        (asked, named.len() - spared)
    }

    #[test]
    fn who_reads_files_in_order_asks_for_few() {
        let (asked, in_vain) = read((100..30_000).step_by(3));
        assert!(asked < 9967 / 50, "{asked}");
        assert!(in_vain <= 64, "{in_vain}");
    }

    #[test]
    fn what_stands_between_the_files_of_two_directories_does_not_matter_for_long() {
        let dirs = (0..10).flat_map(|dir| (0..100).map(move |at| 1000 + dir * 307 + at * 3));
        let (asked, in_vain) = read(dirs);
        assert!(asked < 1000 / 8, "{asked}");
        assert!(in_vain < 1000, "{in_vain}");
    }

    #[test]
    fn who_reads_them_backwards_or_here_and_there_is_left_alone() {
        assert_eq!(read((0..900).map(|at| 3000 - at * 3)), (900, 0));
        assert_eq!(read((1..1000).map(|at| at * 7919 % 20_011)).1, 0);
    }

    #[test]
    fn what_is_read_before_it_could_be_stored_is_not_named_again() {
        let mut reader = Files::default();
        let mut named = Vec::new();
        for number in (100..3000).step_by(3) {
            let next = reader.observe(NodeId::from_raw(number));
            assert!(next.len() as u64 <= WINDOW.1);
            named.extend(next.into_iter().map(NodeId::raw));
        }
        assert!(named.is_sorted_by(|one, next| one < next), "{named:?}");
    }

    #[test]
    fn no_number_makes_it_overflow() {
        let mut reader = Files::default();
        for number in [u64::MAX - 2, u64::MAX - 1, u64::MAX, 0, u64::MAX, u64::MAX] {
            reader.observe(NodeId::from_raw(number));
        }
    }
}
