//! Extended attributes as they stand behind an inode.

use super::format::{FormatError, Put, u16_at, u32_at};
use crate::tree::Xattrs;

/// Bytes before the entries.
const HEADER_BYTES: usize = 12;
const ENTRY_BYTES: usize = 4;
/// Most bytes that listing one file's attributes may take: shared ones can be pointed at repeatedly.
pub(super) const MAX_LISTED_BYTES: usize = 1 << 20;

/// Namespaces, by their number on disk.
const PREFIXES: [(u8, &[u8]); 5] = [
    (1, b"user."),
    (2, b"system.posix_acl_access"),
    (3, b"system.posix_acl_default"),
    (4, b"trusted."),
    (6, b"security."),
];

/// Number of the namespace and what follows it; `None` when no kernel would take the name.
pub(crate) fn split_name(name: &[u8]) -> Option<(u8, &[u8])> {
    if name.len() > 255 || name.contains(&0) {
        return None;
    }
    PREFIXES.iter().find_map(|&(index, prefix)| {
        let rest = name.strip_prefix(prefix)?;
        let whole = matches!(index, 2 | 3);
        (rest.is_empty() == whole).then_some((index, rest))
    })
}

/// Bytes these attributes take behind an inode; 0 for none.
pub(super) fn body_bytes(xattrs: &Xattrs) -> usize {
    if xattrs.is_empty() {
        return 0;
    }
    let entry = |(name, value): (&Vec<u8>, &Vec<u8>)| {
        let suffix = split_name(name).map_or(0, |(_, suffix)| suffix.len());
        (ENTRY_BYTES + suffix + value.len()).next_multiple_of(4)
    };
    HEADER_BYTES + xattrs.iter().map(entry).sum::<usize>()
}

/// The count field of an inode whose attributes take `body` bytes.
pub(super) fn count_field(body: usize) -> u16 {
    if body == 0 {
        return 0;
    }
    u16::try_from((body - HEADER_BYTES) / 4 + 1).expect("the tree bounds attributes to 192 KiB")
}

/// Bytes behind an inode with this count field.
pub(super) fn body_of_count(count: u16) -> usize {
    if count == 0 { 0 } else { HEADER_BYTES + 4 * (usize::from(count) - 1) }
}

/// The bytes behind the inode.
pub(super) fn encode(xattrs: &Xattrs) -> Vec<u8> {
    let mut out = Vec::with_capacity(body_bytes(xattrs));
    if xattrs.is_empty() {
        return out;
    }
    out.put(&[0; HEADER_BYTES]);
    for (name, value) in xattrs {
        let (index, suffix) = split_name(name).expect("the tree checks attribute names");
        let name_len = u8::try_from(suffix.len()).expect("the tree checks attribute names");
        let value_len = u16::try_from(value.len()).expect("the tree checks attribute values");
        out.u8(name_len).u8(index).u16(value_len).put(suffix).put(value);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    out
}

/// One attribute as it lies in the image.
pub(super) struct RawXattr<'a> {
    pub index: u8,
    pub suffix: &'a [u8],
    pub value: &'a [u8],
}

impl RawXattr<'_> {
    /// The full name; `None` in a namespace that is not shown.
    pub fn name(&self) -> Option<Vec<u8>> {
        let (_, prefix) = PREFIXES.iter().find(|(index, _)| *index == self.index)?;
        Some([prefix, self.suffix].concat())
    }
}

/// Calls `visit` for each attribute of the body, then for each shared one (`shared` is the image from
/// the shared area on), until it returns `true`.
pub(super) fn visit<'a>(
    nid: u64,
    body: &'a [u8],
    shared: &'a [u8],
    mut visit: impl FnMut(RawXattr<'a>) -> bool,
) -> Result<(), FormatError> {
    let corrupt = || FormatError::Corrupt { nid, what: "an extended attribute leaves its place" };
    if body.is_empty() {
        return Ok(());
    }
    let count = usize::from(*body.get(4).ok_or_else(corrupt)?);
    let mut at = HEADER_BYTES + count * 4;
    while at < body.len() {
        let (entry, size) = entry_at(body, at).ok_or_else(corrupt)?;
        if visit(entry) {
            return Ok(());
        }
        at += size;
    }
    for number in 0..count {
        let id = u32_at(body, HEADER_BYTES + number * 4).ok_or_else(corrupt)?;
        let at = usize::try_from(u64::from(id) * 4).map_err(|_| corrupt())?;
        let (entry, _) = entry_at(shared, at).ok_or_else(corrupt)?;
        if visit(entry) {
            return Ok(());
        }
    }
    Ok(())
}

fn entry_at(bytes: &[u8], at: usize) -> Option<(RawXattr<'_>, usize)> {
    let (name_len, index) = (usize::from(*bytes.get(at)?), *bytes.get(at + 1)?);
    let value_len = usize::from(u16_at(bytes, at + 2)?);
    let data = bytes.get(at + ENTRY_BYTES..)?.get(..name_len + value_len)?;
    let (suffix, value) = data.split_at(name_len);
    let size = (ENTRY_BYTES + data.len()).next_multiple_of(4);
    Some((RawXattr { index, suffix, value }, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_need_a_namespace_of_the_kernel() {
        assert_eq!(split_name(b"user.a"), Some((1, &b"a"[..])));
        assert_eq!(split_name(b"system.posix_acl_access"), Some((2, &b""[..])));
        for bad in [&b"user."[..], b"system.posix_acl_accessx", b"other.x", b"", b"user.a\0"] {
            assert_eq!(split_name(bad), None, "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn a_body_reads_back_in_the_order_of_names() {
        let xattrs: Xattrs = [
            (b"user.b".to_vec(), b"12345".to_vec()),
            (b"security.capability".to_vec(), vec![0; 20]),
            (b"trusted.empty".to_vec(), Vec::new()),
        ]
        .into();
        let body = encode(&xattrs);
        assert_eq!(body.len(), body_bytes(&xattrs));
        assert_eq!(body.len(), body_of_count(count_field(body.len())));
        let mut back = Xattrs::new();
        visit(1, &body, &[], |raw| {
            back.insert(raw.name().unwrap(), raw.value.to_vec());
            false
        })
        .unwrap();
        assert_eq!(back, xattrs);
    }
}
