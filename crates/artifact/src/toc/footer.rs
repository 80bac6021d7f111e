//! The end of an eStargz layer: an empty member of gzip whose extra field has the offset of the table.

use dfs_model::ByteRange;

use super::TocError;
use super::announced::LONGEST;

const BEGIN: &[u8] = &[0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0];
const END: &[u8] = &[1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0];
/// The extra field in front of the digits, of eStargz and of its elder.
const EXTRA: [&[u8]; 2] = [&[26, 0, b'S', b'G', 22, 0], &[22, 0]];
const MAGIC: &[u8] = b"STARGZ";
const DIGITS: usize = 16;

/// Where the table lies of a layer of `length` bytes that ends in `tail`.
pub(super) fn table(tail: &[u8], length: u64) -> Result<ByteRange, TocError> {
    let found = EXTRA.into_iter().find_map(|extra| {
        let footer = BEGIN.len() + 1 + extra.len() + DIGITS + MAGIC.len() + END.len();
        let rest = tail.get(tail.len().checked_sub(footer)?..)?.strip_prefix(BEGIN)?;
        // The operating system differs.
        let rest = rest.get(1..)?.strip_prefix(extra)?.strip_suffix(END)?;
        Some((rest.strip_suffix(MAGIC)?, footer as u64))
    });
    let (digits, footer) = found.ok_or(TocError::NoFooter)?;
    let is_hex = digits.iter().all(u8::is_ascii_hexdigit);
    let digits = std::str::from_utf8(digits).ok().filter(|_| is_hex);
    let start = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    let start = start.ok_or(TocError::NoFooter)?;
    let end = length.checked_sub(footer).ok_or(TocError::Bounds)?;
    let lies_inside = start < end && end - start <= LONGEST;
    if lies_inside { Ok(ByteRange::new(start, end)) } else { Err(TocError::Bounds) }
}
