//! Merging neighbouring wanted ranges into few requests.

use dfs_model::ByteRange;

/// The requests that cover every wanted byte: in order, apart, none longer than `max_request`
/// bytes. Wanted ranges that lie at most `max_gap` bytes apart share a request, the gap included;
/// one that is longer than `max_request` is cut. Empty ranges want nothing. A `max_request` of 0 is
/// taken as 1.
pub fn merge_ranges(wanted: &[ByteRange], max_gap: u64, max_request: u64) -> Vec<ByteRange> {
    let max_request = max_request.max(1);
    let mut wanted: Vec<ByteRange> =
        wanted.iter().copied().filter(|range| !range.is_empty()).collect();
    wanted.sort_by_key(|range| (range.start, range.end));

    let mut requests: Vec<ByteRange> = Vec::new();
    for range in wanted {
        let mut start = range.start;
        if let Some(last) = requests.last_mut() {
            start = start.max(last.end);
            let limit = last.start.saturating_add(max_request);
            let near = start - last.end <= max_gap && start < limit;
            if near && start < range.end {
                last.end = range.end.min(limit);
                start = last.end;
            }
        }
        while start < range.end {
            let request = ByteRange::at(start, max_request.min(range.end - start));
            start = request.end;
            requests.push(request);
        }
    }
    requests
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn merged(wanted: &[(u64, u64)], gap: u64, max: u64) -> Vec<(u64, u64)> {
        let wanted: Vec<_> =
            wanted.iter().map(|&(start, end)| ByteRange::new(start, end)).collect();
        merge_ranges(&wanted, gap, max).iter().map(|range| (range.start, range.end)).collect()
    }

    #[test]
    fn neighbours_share_a_request_and_far_ones_do_not() {
        assert_eq!(merged(&[(10, 20), (0, 5)], 5, 100), [(0, 20)]);
        assert_eq!(merged(&[(10, 20), (0, 5)], 4, 100), [(0, 5), (10, 20)]);
        assert_eq!(merged(&[(0, 5), (3, 4), (5, 9)], 0, 100), [(0, 9)]);
        assert_eq!(merged(&[(0, 25)], 0, 10), [(0, 10), (10, 20), (20, 25)]);
        assert_eq!(merged(&[(0, 8), (9, 30)], 1, 10), [(0, 10), (10, 20), (20, 30)]);
        assert_eq!(merged(&[(0, 8), (12, 14)], 4, 10), [(0, 8), (12, 14)]);
        assert_eq!(merged(&[(5, 5)], 0, 10), []);
        assert_eq!(merged(&[(u64::MAX - 2, u64::MAX)], 9, u64::MAX), [(u64::MAX - 2, u64::MAX)]);
    }

    proptest! {
        #[test]
        fn every_wanted_byte_is_asked_for_once_and_little_else(
            wanted in proptest::collection::vec((0u64..300, 0u64..40), 0..20),
            gap in 0u64..20,
            max in 1u64..60,
        ) {
            let wanted: Vec<_> = wanted.iter().map(|&(at, length)| ByteRange::at(at, length)).collect();
            let requests = merge_ranges(&wanted, gap, max);
            let wants = |byte: u64| wanted.iter().any(|range| (range.start..range.end).contains(&byte));
            let mut unwanted_run = 0;
            let mut before = None;
            for request in &requests {
                prop_assert!(!request.is_empty() && request.len() <= max);
                prop_assert!(before.is_none_or(|end| end <= request.start));
                prop_assert!(wants(request.start) && wants(request.end - 1));
                for byte in request.start..request.end {
                    unwanted_run = if wants(byte) { 0 } else { unwanted_run + 1 };
                    prop_assert!(unwanted_run <= gap);
                }
                before = Some(request.end);
            }
            for byte in 0..400 {
                let times = requests.iter().filter(|r| (r.start..r.end).contains(&byte)).count();
                prop_assert!(times <= 1);
                prop_assert!(times == 1 || !wants(byte));
            }
        }
    }
}
