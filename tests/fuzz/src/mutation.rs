//! Input that is nearly sound: a piece of a corpus, changed a little in the ways that break parsers.

/// A stream of numbers that a seed determines (SplitMix64: Steele, Lea and Flood, 2014).
#[derive(Debug, Clone)]
pub struct Numbers(u64);

impl Numbers {
    /// Those of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One below `limit`; 0 where that is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// Lengths, offsets and counts that are wrong by one, or by everything.
const EXTREMES: [u64; 12] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    u64::MAX - 1,
    u64::MAX,
];

/// Longest input that is made.
const LONGEST: usize = 1 << 20;

/// One of `corpus`, changed in one to four places.
pub fn mutate(corpus: &[Vec<u8>], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = pick(corpus, numbers).to_vec();
    for _ in 0..=numbers.below(4) {
        change(&mut bytes, corpus, numbers);
    }
    bytes.truncate(LONGEST);
    bytes
}

fn pick<'a>(corpus: &'a [Vec<u8>], numbers: &mut Numbers) -> &'a [u8] {
    corpus.get(numbers.below(corpus.len())).map(Vec::as_slice).unwrap_or_default()
}

fn change(bytes: &mut Vec<u8>, corpus: &[Vec<u8>], numbers: &mut Numbers) {
    let at = numbers.below(bytes.len());
    match numbers.below(8) {
        0 => flip(bytes, at, numbers),
        1 | 2 => number(bytes, at, numbers),
        3 => bytes.truncate(at),
        4 => drop(bytes.drain(at..(at + numbers.below(64)).min(bytes.len()))),
        5 => repeat(bytes, at, numbers),
        6 => splice(bytes, at, pick(corpus, numbers), numbers),
        _ => {
            let byte = numbers.next() as u8;
            bytes.splice(at..at, std::iter::repeat_n(byte, numbers.below(32)));
        }
    }
}

fn flip(bytes: &mut [u8], at: usize, numbers: &mut Numbers) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << numbers.below(8);
    }
}

/// Writes an extreme number of 1, 2, 4 or 8 bytes in either order.
fn number(bytes: &mut [u8], at: usize, numbers: &mut Numbers) {
    let value = EXTREMES[numbers.below(EXTREMES.len())];
    let width = 1 << numbers.below(4);
    let value = match numbers.below(2) {
        0 => value.to_le_bytes()[..width].to_vec(),
        _ => value.to_be_bytes()[8 - width..].to_vec(),
    };
    bytes.iter_mut().skip(at).zip(value).for_each(|(byte, new)| *byte = new);
}

fn repeat(bytes: &mut Vec<u8>, at: usize, numbers: &mut Numbers) {
    let end = (at + numbers.below(512)).min(bytes.len());
    let run = bytes[at.min(end)..end].to_vec();
    bytes.splice(at..at, run);
}

fn splice(bytes: &mut Vec<u8>, at: usize, other: &[u8], numbers: &mut Numbers) {
    let from = numbers.below(other.len());
    let end = (from + numbers.below(512)).min(other.len());
    let until = (at + numbers.below(512)).min(bytes.len());
    bytes.splice(at..until.max(at), other[from..end].iter().copied());
}
