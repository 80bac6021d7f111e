//! Sets of pieces, one row each, in one allocation.

/// Bits in a word.
const WORD: usize = u64::BITS as usize;

/// A table of sets of the same pieces.
#[derive(Debug, Clone)]
pub(super) struct Rows {
    words: usize,
    rows: usize,
    bits: Vec<u64>,
}

impl Rows {
    pub(super) fn new(pieces: usize) -> Self {
        Self { words: pieces.div_ceil(WORD), rows: 0, bits: Vec::new() }
    }

    /// Adds an empty set; its number.
    pub(super) fn add(&mut self) -> usize {
        self.bits.resize(self.bits.len() + self.words, 0);
        self.rows += 1;
        self.rows - 1
    }

    pub(super) fn row(&self, row: usize) -> &[u64] {
        &self.bits[row * self.words..(row + 1) * self.words]
    }

    pub(super) fn has(&self, row: usize, piece: usize) -> bool {
        self.row(row)[piece / WORD] & (1 << (piece % WORD)) != 0
    }

    /// Puts a piece in or takes it out; whether that changed anything.
    pub(super) fn put(&mut self, row: usize, piece: usize, is_in: bool) -> bool {
        let word = &mut self.bits[row * self.words + piece / WORD];
        let (before, bit) = (*word, 1 << (piece % WORD));
        *word = if is_in { before | bit } else { before & !bit };
        *word != before
    }

    /// Takes every piece out.
    pub(super) fn clear(&mut self, row: usize) {
        self.bits[row * self.words..(row + 1) * self.words].fill(0);
    }

    pub(super) fn count(&self, row: usize) -> usize {
        self.row(row).iter().map(|word| word.count_ones() as usize).sum()
    }
}

/// The pieces in a word of a row.
pub(super) fn pieces_in(word: usize, bits: u64) -> impl Iterator<Item = usize> {
    let mut rest = bits;
    std::iter::from_fn(move || {
        let bit = rest.trailing_zeros() as usize;
        rest = if rest == 0 { return None } else { rest & (rest - 1) };
        Some(word * WORD + bit)
    })
}

/// The pieces that `can` has by word, from one on and around.
pub(super) fn pieces_around(
    start: usize,
    words: usize,
    can: impl Fn(usize) -> u64,
) -> impl Iterator<Item = usize> {
    let (first, turn) = (start / WORD, start % WORD);
    (first..first + words).flat_map(move |at| {
        let word = if at < words { at } else { at - words };
        let turned = pieces_in(0, can(word).rotate_right(turn as u32));
        turned.map(move |bit| word * WORD + (bit + turn) % WORD)
    })
}
