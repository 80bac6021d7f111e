//! What PAX and GNU extended headers say of the entry behind them.

use super::header::{Header, owner};
use super::sparse::Told;
use super::{acl, ascii_number};
use crate::erofs::xattr::split_name;
use crate::tree::{MAX_XATTR_VALUE, Meta, Mtime, Xattrs};

const XATTR: &[u8] = b"SCHILY.xattr.";
const ACCESS: &[u8] = b"system.posix_acl_access";
const DEFAULT: &[u8] = b"system.posix_acl_default";

/// Values that take the place of a header's.
#[derive(Debug, Clone, Default)]
pub(super) struct Overrides {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    /// Says that the body is not simply the file's bytes.
    pub sparse: Told,
    /// Says that the body goes on in, or comes from, another volume.
    pub volume: bool,
    mtime: Option<Mtime>,
    uid: Option<u32>,
    gid: Option<u32>,
    xattrs: Xattrs,
    /// Access control lists that are said in text, as attributes: those that are said as such come first.
    acls: Xattrs,
}

impl Overrides {
    /// Whether anything was said that belongs to the next entry.
    pub fn any(&self) -> bool {
        self.path.is_some()
            || self.link.is_some()
            || self.size.is_some()
            || self.mtime.is_some()
            || self.uid.is_some()
            || self.gid.is_some()
            || !self.xattrs.is_empty()
            || !self.acls.is_empty()
            || self.sparse.is_any()
            || self.volume
    }

    /// Reads the records `length key=value\n` of a PAX header.
    pub fn read_pax(&mut self, mut body: &[u8]) -> Result<(), &'static str> {
        let bad = "a PAX record is broken";
        while !body.is_empty() && body[0] != 0 {
            let space = body.iter().take(20).position(|&byte| byte == b' ').ok_or(bad)?;
            let length: usize = ascii_number(&body[..space]).ok_or(bad)?;
            let record = body.get(space + 1..length).ok_or(bad)?;
            let record = record.strip_suffix(b"\n").ok_or(bad)?;
            let equals = record.iter().position(|&byte| byte == b'=').ok_or(bad)?;
            self.record(&record[..equals], &record[equals + 1..])?;
            body = &body[length..];
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let number = || -> Result<Option<u64>, &'static str> {
            match value {
                b"" => Ok(None),
                _ => ascii_number(value).map(Some).ok_or("a number in a PAX record cannot be read"),
            }
        };
        let id = || -> Result<Option<u32>, &'static str> {
            let digits = value.strip_prefix(b"-").unwrap_or(value);
            let sign = if digits.len() < value.len() { -1 } else { 1 };
            match (value, ascii_number::<i64>(digits)) {
                (b"", _) => Ok(None),
                (_, Some(id)) => Ok(Some(owner(sign * id))),
                (_, None) => Err("an owner in a PAX record cannot be read"),
            }
        };
        let bytes = || (!value.is_empty()).then(|| value.to_vec());
        match key {
            b"path" => self.path = bytes(),
            b"linkpath" => self.link = bytes(),
            b"size" => self.size = number()?,
            b"uid" => self.uid = id()?,
            b"gid" => self.gid = id()?,
            b"mtime" if value.is_empty() => self.mtime = None,
            b"mtime" => {
                self.mtime = Some(time(value).ok_or("a time in a PAX record cannot be read")?);
            }
            b"SCHILY.acl.access" => self.acl(ACCESS, acl::access(value)),
            b"SCHILY.acl.default" => self.acl(DEFAULT, acl::default(value)),
            b"GNU.volume.offset" | b"GNU.volume.filename" => self.volume = true,
            _ => match key.strip_prefix(b"GNU.sparse.") {
                Some(key) => self.sparse.record(key, value)?,
                None => self.xattr(key, value),
            },
        }
        Ok(())
    }

    /// Keeps an attribute.
    fn xattr(&mut self, key: &[u8], value: &[u8]) {
        if let Some(name) = key.strip_prefix(XATTR).and_then(|name| attribute(name, value)) {
            self.xattrs.insert(name, value.to_vec());
        }
    }

    fn acl(&mut self, name: &[u8], value: Option<Vec<u8>>) {
        if let Some(value) = value.filter(|value| value.len() <= MAX_XATTR_VALUE) {
            self.acls.insert(name.to_vec(), value);
        }
    }

    /// The attributes of an entry: what is said of it, of all entries, or in its header.
    pub fn meta(&self, global: &Self, header: &Header<'_>) -> Meta {
        let said = [&global.acls, &self.acls, &global.xattrs, &self.xattrs];
        let xattrs: Xattrs = said.into_iter().flat_map(Xattrs::clone).collect();
        Meta {
            mode: mode_with(&xattrs, header.mode),
            uid: self.uid.or(global.uid).unwrap_or(header.uid),
            gid: self.gid.or(global.gid).unwrap_or(header.gid),
            mtime: self.mtime.or(global.mtime).unwrap_or(header.mtime),
            xattrs,
        }
    }
}

/// The name of an attribute that a kernel could have, as a tar names it; others (of another system) are left out.
pub(crate) fn attribute(name: &[u8], value: &[u8]) -> Option<Vec<u8>> {
    let name = unescaped(name);
    (split_name(&name).is_some() && value.len() <= MAX_XATTR_VALUE).then_some(name)
}

/// The permissions of what has these attributes.
pub(crate) fn mode_with(xattrs: &Xattrs, mode: u16) -> u16 {
    xattrs.get(ACCESS).map_or(mode, |list| acl::permissions_with(list, mode))
}

/// GNU tar writes `=` and `%` in attribute names as `%3D` and `%25`.
fn unescaped(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&first, tail)) = rest.split_first() {
        let (byte, tail) = match rest {
            [b'%', b'3', b'D', tail @ ..] => (b'=', tail),
            [b'%', b'2', b'5', tail @ ..] => (b'%', tail),
            _ => (first, tail),
        };
        out.push(byte);
        rest = tail;
    }
    out
}

/// Decimal seconds with a fraction, cut to nanoseconds towards the past.
fn time(text: &[u8]) -> Option<Mtime> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(text) => (true, text),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |&byte| byte == b'.');
    let secs: i64 = ascii_number(parts.next()?)?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digit = |at: usize| u32::from(fraction.get(at).map_or(0, |digit| digit - b'0'));
    let nanos = (0..9).fold(0, |sum, at| sum * 10 + digit(at));
    match (negative, nanos) {
        (false, _) => Some(Mtime { secs, nanos }),
        (true, 0) => Some(Mtime { secs: -secs, nanos: 0 }),
        (true, _) => Some(Mtime { secs: -secs - 1, nanos: 1_000_000_000 - nanos }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_their_nanoseconds_also_before_1970() {
        assert_eq!(time(b"12.5"), Some(Mtime { secs: 12, nanos: 500_000_000 }));
        assert_eq!(time(b"-1.25"), Some(Mtime { secs: -2, nanos: 750_000_000 }));
        assert_eq!(time(b"-3"), Some(Mtime { secs: -3, nanos: 0 }));
        assert_eq!(time(b"7.1234567899"), Some(Mtime { secs: 7, nanos: 123_456_789 }));
        for bad in [&b""[..], b"x", b"1.x", b"--1", b"99999999999999999999"] {
            assert_eq!(time(bad), None, "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn records_take_the_place_of_the_header_and_empty_ones_do_not() {
        let mut overrides = Overrides::default();
        overrides.read_pax(b"12 path=a/b\n27 SCHILY.xattr.user.x%3D=\n\n").unwrap_err();
        overrides.read_pax(b"12 path=a/b\n11 size=10\n").unwrap();
        assert_eq!((overrides.path.as_deref(), overrides.size), (Some(&b"a/b"[..]), Some(10)));
        overrides.read_pax(b"8 path=\n").unwrap();
        assert_eq!(overrides.path, None);
        for bad in [&b"99 path=a\n"[..], b"3 \n", b"x path=a\n", b"11 size=-1\n", b"5 a=b\n"] {
            assert!(overrides.read_pax(bad).is_err(), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn escaped_attribute_names_are_read() {
        assert_eq!(unescaped(b"user.a%3Db%25c%4"), b"user.a=b%c%4");
    }
}
