//! Classes of numbers: few are told apart where nothing but their order matters.

/// So few have a class each.
const EXACT: u64 = 8;

/// The class of a number: from [`EXACT`] on numbers are told apart to one part in `parts` of their power of two. `parts`
/// is a power of two, at most [`EXACT`].
pub(super) const fn class_of(number: u64, parts: u64) -> usize {
    if number < EXACT {
        return number as usize;
    }
    let power = number.ilog2();
    let part = (number >> (power - parts.ilog2())) % parts;
    (EXACT + (power - EXACT.ilog2()) as u64 * parts + part) as usize
}

/// The least number of a class.
pub(super) const fn least_of(class: usize, parts: u64) -> u64 {
    let class = class as u64;
    if class < EXACT {
        return class;
    }
    let (octave, part) = ((class - EXACT) / parts, (class - EXACT) % parts);
    (parts + part) << (octave + (EXACT.ilog2() - parts.ilog2()) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_rise_with_numbers_and_leave_none_out() {
        for parts in [1, 2, 4, 8] {
            let all: Vec<usize> = (0..100_000).map(|number| class_of(number, parts)).collect();
            assert!(all.windows(2).all(|two| two[1] == two[0] || two[1] == two[0] + 1));
            for (number, class) in (0..).zip(all) {
                let least = least_of(class, parts);
                assert_eq!(class_of(least, parts), class);
                assert!(least <= number && number <= least * (parts + 1) / parts);
            }
        }
    }
}
