//! Heads of requests, and the text of paths and dates.

use std::io::{self, BufRead};

const MAX_HEAD_BYTES: usize = 64 * 1024;

/// A request's head.
#[derive(Debug, Clone)]
pub struct Head {
    /// `GET`, `HEAD`, ….
    pub method: String,
    /// Its path, percent-decoded, without the query.
    pub path: Vec<u8>,
    /// What stands behind the question mark, as it came.
    pub query: String,
    /// Whether the connection stays open afterwards.
    pub keep_alive: bool,
    headers: Vec<(String, String)>,
}

impl Head {
    /// The next head of a connection; `None` at its end.
    pub fn read(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
        let Some(line) = head_line(reader)? else { return Ok(None) };
        let mut words = line.split(' ');
        let (Some(method), Some(target), Some(version)) =
            (words.next(), words.next(), words.next())
        else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, line));
        };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut head = Self {
            method: method.to_owned(),
            path: decode(path),
            query: query.to_owned(),
            keep_alive: version != "HTTP/1.0",
            headers: Vec::new(),
        };
        let mut size = line.len();
        while let Some(line) = head_line(reader)?.filter(|line| !line.is_empty()) {
            size += line.len();
            if size > MAX_HEAD_BYTES {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the head is too long"));
            }
            if let Some((name, value)) = line.split_once(':') {
                head.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
        }
        if head.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            head.keep_alive = false;
        }
        Ok(Some(head))
    }

    /// The first header of this lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// What `Range` asks for of `length` bytes; `None` when it asks for all or for several parts,
    /// an error when nothing of it is there.
    pub fn range(&self, length: u64) -> Option<Result<(u64, u64), Unsatisfiable>> {
        let (first, last) = self.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
        let (start, end) = match (first.parse::<u64>(), last.parse::<u64>()) {
            (Ok(start), Ok(last)) => (start, last.saturating_add(1).min(length)),
            (Ok(start), Err(_)) if last.is_empty() => (start, length),
            (Err(_), Ok(count)) if first.is_empty() => (length.saturating_sub(count), length),
            _ => return None,
        };
        Some(if start < end { Ok((start, end)) } else { Err(Unsatisfiable) })
    }

    /// As it is shown and counted.
    pub fn shown_path(&self) -> String {
        String::from_utf8_lossy(&self.path).into_owned()
    }
}

/// No byte of the range exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsatisfiable;

fn head_line(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    if io::Read::take(&mut *reader, MAX_HEAD_BYTES as u64).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&line);
    Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
}

/// A path of a URL without its escapes.
pub fn decode(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let pair = (byte == b'%').then(|| after.get(..2)).flatten();
        let value =
            pair.and_then(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
        match value {
            Some(value) => {
                bytes.push(value);
                rest = &after[2..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    bytes
}

/// A path as it stands in a URL.
pub fn encode(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for &byte in path {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// `Fri, 20 Nov 2026 09:07:22 GMT`.
pub fn http_date(seconds: u64) -> String {
    let (year, month, day) = civil(seconds / 86_400);
    let weekday =
        ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][(seconds / 86_400 % 7) as usize];
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{weekday}, {day:02} {month} {year} {hour:02}:{minute:02}:{second:02} GMT")
}

/// `20-Nov-2026 09:07`, as in nginx's listings.
pub fn listing_date(seconds: u64) -> String {
    let (year, month, day) = civil(seconds / 86_400);
    format!("{day:02}-{month}-{year} {:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60)
}

/// Year, month and day of a day since 1970; not the product's, whose reading of these dates is compared with the
/// files' own times, by the 400-year cycle that begins in March.
fn civil(days: u64) -> (u64, &'static str, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = (from_march + 2) % 12;
    let year = era * 400 + year_of_era + u64::from(month < 2);
    (year, MONTHS[month as usize], day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Head {
        Head::read(&mut text.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn a_head_is_read_with_its_path_decoded() {
        let head =
            head("GET /a%20b/%ff?x=y HTTP/1.1\r\nRange: bytes=1-2\r\nConnection: close\r\n\r\n");
        assert_eq!((head.method.as_str(), &head.path[..]), ("GET", &b"/a b/\xff"[..]));
        assert!(!head.keep_alive);
        assert_eq!(head.range(10), Some(Ok((1, 3))));
        assert_eq!(encode(&head.path), "/a%20b/%FF");
        assert!(Head::read(&mut &b""[..]).unwrap().is_none());
    }

    #[test]
    fn ranges_are_those_of_the_protocol() {
        let range = |value: &str| head(&format!("GET / HTTP/1.1\nRange: {value}\n\n")).range(10);
        assert_eq!(range("bytes=0-"), Some(Ok((0, 10))));
        assert_eq!(range("bytes=-3"), Some(Ok((7, 10))));
        assert_eq!(range("bytes=5-99"), Some(Ok((5, 10))));
        assert_eq!(range("bytes=10-11"), Some(Err(Unsatisfiable)));
        assert_eq!(range("bytes=0-1,4-5"), None);
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(http_date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(http_date(951_782_400), "Tue, 29 Feb 2000 00:00:00 GMT");
        assert_eq!(http_date(1_795_165_642), "Fri, 20 Nov 2026 09:07:22 GMT");
        assert_eq!(listing_date(1_795_165_642), "20-Nov-2026 09:07");
    }
}
