//! Sets of pieces, one row each, in one allocation.

/// Bits in a word.
const WORD: usize = u64::BITS as usize;

/// A table of sets that all have the same number of pieces.
#[derive(Debug, Clone)]
pub(super) struct Rows {
    pieces: usize,
    words: usize,
    rows: usize,
    bits: Vec<u64>,
}

impl Rows {
    pub(super) fn new(pieces: usize) -> Self {
        Self { pieces, words: pieces.div_ceil(WORD), rows: 0, bits: Vec::new() }
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

    /// Puts every piece in.
    pub(super) fn fill(&mut self, row: usize) {
        for piece in 0..self.pieces {
            self.put(row, piece, true);
        }
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

/// The same, from a bit on and around.
pub(super) fn pieces_from(word: usize, bits: u64, turn: u32) -> impl Iterator<Item = usize> {
    let around = move |bit: usize| word * WORD + (bit + turn as usize) % WORD;
    pieces_in(0, bits.rotate_right(turn)).map(around)
}
