//! Shares of links that are fair: nobody can have more without somebody having less who has no more ("max-min").

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::links::Path;

/// What each stream gets, by progressive filling: the link with the least for each of its streams decides what these
/// get; then the next, of what is left.
pub fn shares(rates: &[f64], paths: &[Path]) -> Vec<f64> {
    let mut left = rates.to_vec();
    let mut users: Vec<Vec<u32>> = vec![Vec::new(); rates.len()];
    for (stream, path) in paths.iter().enumerate() {
        path.links().for_each(|link| users[link as usize].push(stream as u32));
    }
    let mut open: Vec<usize> = users.iter().map(Vec::len).collect();
    let mut given: Vec<Option<f64>> = vec![None; paths.len()];
    // Numbers that are not negative are in the order of their bits.
    let entry = |share: f64, link: usize| Reverse((share.max(0.0).to_bits(), link));
    let used = (0..rates.len()).filter(|link| open[*link] > 0);
    let mut next: BinaryHeap<_> =
        used.map(|link| entry(left[link] / open[link] as f64, link)).collect();
    while let Some(Reverse((bits, link))) = next.pop() {
        if open[link] == 0 {
            continue;
        }
        let share = (left[link] / open[link] as f64).max(0.0);
        if share > f64::from_bits(bits) {
            next.push(entry(share, link));
            continue;
        }
        for stream in &users[link] {
            let given = &mut given[*stream as usize];
            if given.is_some() {
                continue;
            }
            *given = Some(share);
            for other in paths[*stream as usize].links() {
                left[other as usize] -= share;
                open[other as usize] -= 1;
            }
        }
    }
    given.into_iter().map(Option::unwrap_or_default).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_stream_cannot_use_others_get() {
        let path = |links: &[u32]| links.iter().copied().collect::<Path>();
        // The second stream shares a link of 9 with the third, and has 2 itself.
        let rates = [4.0, 2.0, 9.0, 100.0];
        let paths = [path(&[0, 3]), path(&[1, 2]), path(&[3, 2]), path(&[0, 3])];
        assert_eq!(shares(&rates, &paths), [2.0, 2.0, 7.0, 2.0]);
        assert_eq!(shares(&[0.0, 5.0], &[path(&[0, 1]), path(&[1])]), [0.0, 5.0]);
    }
}
