//! One header record.

use super::RECORD;
use crate::tree::{DeviceNumber, Mtime};

/// The fields of a header that an index needs.
#[derive(Debug)]
pub(super) struct Header<'a> {
    pub kind: u8,
    pub size: u64,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Mtime,
    pub link: &'a [u8],
    name: &'a [u8],
    prefix: &'a [u8],
    device: (u64, u64),
}

/// A field up to its first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// An octal number, or GNU's base 256; blank is 0.
fn number(field: &[u8]) -> Option<i64> {
    let (&first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        let negative = first & 0x40 != 0;
        let start = if negative { i64::from(first) - 0x100 } else { i64::from(first & 0x7f) };
        return rest
            .iter()
            .try_fold(start, |sum, &byte| sum.checked_mul(256)?.checked_add(i64::from(byte)));
    }
    let digits = text(field).trim_ascii();
    digits.iter().try_fold(0i64, |sum, &digit| {
        let digit = matches!(digit, b'0'..=b'7').then(|| i64::from(digit - b'0'))?;
        sum.checked_mul(8)?.checked_add(digit)
    })
}

pub(super) fn unsigned<T: TryFrom<i64>>(field: &[u8]) -> Option<T> {
    T::try_from(number(field)?).ok()
}

/// Whether the header's sum is right; some old writers summed signed bytes.
pub(super) fn checksum_matches(record: &[u8; RECORD]) -> bool {
    let Some(stated) = number(&record[148..156]) else { return false };
    let blanked = |at: usize| if (148..156).contains(&at) { b' ' } else { record[at] };
    let plain: i64 = (0..RECORD).map(|at| i64::from(blanked(at))).sum();
    let signed: i64 = (0..RECORD).map(|at| i64::from(blanked(at).cast_signed())).sum();
    stated == plain || stated == signed
}

/// An owner as a kernel has it: negative ones wrap round, others that do not fit are nobody.
pub(crate) fn owner(id: i64) -> u32 {
    const NOBODY: u32 = 65534;
    let wrapped = || i32::try_from(id).ok().map(i32::cast_unsigned);
    u32::try_from(id).ok().or_else(wrapped).unwrap_or(NOBODY)
}

/// What POSIX puts in front of the name; GNU and older dialects have other things there, and star
/// keeps times behind a shorter one.
fn prefix(record: &[u8; RECORD]) -> &[u8] {
    if &record[257..263] != b"ustar\0" {
        return b"";
    }
    let star = record[475] == 0 && matches!(record[476], b'0'..=b'7') && record[487] == b' ';
    text(if star { &record[345..476] } else { &record[345..500] })
}

/// Whether a record without any magic is a header as the seventh edition of Unix wrote them.
pub(super) fn is_v7(record: &[u8; RECORD]) -> bool {
    let plain = matches!(record[156], 0 | b'0'..=b'6') && record[0] > b' ';
    plain && record[257..329].iter().all(|&byte| byte == 0) && Header::parse(record).is_ok()
}

impl<'a> Header<'a> {
    pub fn parse(record: &'a [u8; RECORD]) -> Result<Self, &'static str> {
        if !checksum_matches(record) {
            return Err("the sum of a header does not match");
        }
        let bad = "a number in a header cannot be read";
        let secs = number(&record[136..148]).ok_or(bad)?;
        // Only devices have these; others may hold anything there.
        let device = unsigned(&record[329..337]).zip(unsigned(&record[337..345]));
        Ok(Self {
            kind: record[156],
            size: unsigned(&record[124..136]).ok_or(bad)?,
            mode: (number(&record[100..108]).ok_or(bad)? & 0o7777) as u16,
            uid: owner(number(&record[108..116]).ok_or(bad)?),
            gid: owner(number(&record[116..124]).ok_or(bad)?),
            mtime: Mtime { secs, nanos: 0 },
            link: text(&record[157..257]),
            name: text(&record[..100]),
            prefix: prefix(record),
            device: device.unwrap_or_default(),
        })
    }

    /// Name, with POSIX's prefix in front.
    pub fn path(&self) -> Vec<u8> {
        if self.prefix.is_empty() {
            return self.name.to_vec();
        }
        [self.prefix, self.name].join(&b'/')
    }

    /// Numbers of a device node.
    pub fn device(&self) -> DeviceNumber {
        device_number(self.device.0, self.device.1)
    }
}

/// A number cut to what a kernel has.
pub(crate) fn device_number(major: u64, minor: u64) -> DeviceNumber {
    DeviceNumber { major: (major & 0xfff) as u32, minor: (minor & 0xf_ffff) as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0"), Some(0));
        assert_eq!(number(&[0x80, 0, 1, 0]), Some(256));
        assert_eq!(number(&[0xff, 0xff, 0xff, 0xfe]), Some(-2));
        assert_eq!(number(b"12x"), None);
        assert_eq!(number(&[0x80, 255, 255, 255, 255, 255, 255, 255, 255, 255]), None);
    }
}
