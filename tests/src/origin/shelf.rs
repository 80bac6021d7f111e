//! A bucket of as many objects as wanted, made up on the way: `ListObjectsV2` for anybody, and the objects.
//!
//! Keys are `d0000/o0000000` and so on, in the order of their numbers, with so many to a directory; objects that
//! were put are among them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::content::Body;
use super::request::{decode, encode};

const KEYS_A_PAGE: usize = 1000;
/// When everything in it was written.
const MODIFIED: &str = "2026-09-21T14:13:20.000Z";

/// What is in the bucket.
#[derive(Debug, Clone)]
pub struct Shelf {
    objects: u64,
    per_directory: u64,
    /// Keys that were put and how often: further ones, or new versions of those that are made up.
    put: BTreeMap<String, u64>,
}

/// One object.
#[derive(Debug)]
pub struct Object {
    /// Its bytes.
    pub body: Body,
    /// Its ETag, with the quotes.
    pub etag: String,
}

/// What a listing asks for.
#[derive(Debug, Default)]
struct Question {
    prefix: String,
    after: String,
    by_directory: bool,
    limit: usize,
}

impl Shelf {
    /// `objects` of them, so many to a directory; all in one where that is 0.
    pub fn new(objects: u64, per_directory: u64) -> Self {
        Self { objects, per_directory, put: BTreeMap::new() }
    }

    /// A further object, or a new version of one.
    pub fn put(&mut self, key: &str) {
        *self.put.entry(key.to_owned()).or_default() += 1;
    }

    /// The key of the object of this number.
    pub fn key(&self, number: u64) -> String {
        match number.checked_div(self.per_directory) {
            Some(directory) => format!("d{directory:04}/o{number:07}"),
            None => format!("o{number:07}"),
        }
    }

    /// How many of the made-up keys come before `key`.
    fn before(&self, key: &str) -> u64 {
        let (mut low, mut high) = (0, self.objects);
        while low < high {
            let middle = u64::midpoint(low, high);
            if self.key(middle).as_str() < key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// The object of this key.
    pub fn object(&self, key: &str) -> Option<Object> {
        let number = self.before(key);
        let is_made_up = number < self.objects && self.key(number) == key;
        let is_there = is_made_up || self.put.contains_key(key);
        is_there.then(|| self.made_up(key, number))
    }

    /// The object of this key, which is there.
    fn made_up(&self, key: &str, number: u64) -> Object {
        let version = self.put.get(key).copied();
        let seed = number.wrapping_mul(31).wrapping_add(version.unwrap_or(0));
        // As an MD5 is written.
        let high = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let etag = format!("\"{high:016x}{:016x}\"", high.rotate_left(29) ^ seed);
        Object { body: Body::noise(seed, 1000 + seed.wrapping_mul(7919) % 9000), etag }
    }

    fn write(&self, key: &str, number: Option<u64>, out: &mut String) {
        let number = number.unwrap_or_else(|| self.before(key));
        let Object { body, etag } = self.made_up(key, number);
        let (length, name) = (body.length().unwrap_or(0), encode(key.as_bytes()));
        let _ = write!(
            out,
            "<Contents><Key>{name}</Key><LastModified>{MODIFIED}</LastModified><ETag>{}</ETag>\
             <Size>{length}</Size><StorageClass>STANDARD</StorageClass></Contents>",
            etag.replace('"', "&quot;"),
        );
    }

    /// The keys from `from` on, `from` itself included; a made-up one with its number.
    fn from<'a>(&'a self, from: &str) -> impl Iterator<Item = (String, Option<u64>)> + use<'a> {
        let mut numbers = self.before(from)..self.objects;
        let mut put = self.put.range(from.to_owned()..).map(|(key, _)| key).peekable();
        let mut made_up = numbers.next().map(|number| (self.key(number), number));
        std::iter::from_fn(move || {
            let (key, number) = match (&made_up, put.peek()) {
                (Some((key, _)), Some(other)) if *other < key => (put.next()?.clone(), None),
                (None, _) => (put.next()?.clone(), None),
                (Some((key, _)), other) => {
                    // A new version of one that is made up is the same key.
                    let is_same = other.is_some_and(|other| *other == key);
                    if is_same {
                        put.next();
                    }
                    let (key, number) = made_up.take()?;
                    made_up = numbers.next().map(|number| (self.key(number), number));
                    (key, Some(number))
                }
            };
            Some((key, number))
        })
    }

    /// A page of the listing that these parameters ask for.
    pub fn page(&self, query: &[(String, Vec<u8>)]) -> String {
        let mut asked = Question { limit: KEYS_A_PAGE, ..Question::default() };
        for (name, value) in query {
            let text = String::from_utf8_lossy(value).into_owned();
            match name.as_str() {
                "prefix" => asked.prefix = text,
                "start-after" if asked.after.is_empty() => asked.after = text,
                "continuation-token" => asked.after = text,
                "delimiter" => asked.by_directory = text == "/",
                "max-keys" => asked.limit = text.parse().unwrap_or(KEYS_A_PAGE).min(KEYS_A_PAGE),
                _ => {}
            }
        }
        self.answer(&asked)
    }

    fn answer(&self, asked: &Question) -> String {
        let mut found = String::new();
        let mut directories = BTreeSet::new();
        let (mut count, mut last) = (0, None);
        // The least text behind what was there last.
        let mut keys = self.from(&asked.prefix.clone().max(format!("{}\0", asked.after)));
        let mut is_over = true;
        while let Some((key, number)) =
            keys.next().filter(|(key, _)| key.starts_with(&asked.prefix))
        {
            if count == asked.limit {
                is_over = false;
                break;
            }
            count += 1;
            let below = key[asked.prefix.len()..].find('/').filter(|_| asked.by_directory);
            last = Some(match below {
                Some(end) => {
                    let directory = key[..=asked.prefix.len() + end].to_owned();
                    let behind = format!("{directory}\u{10ffff}");
                    keys = self.from(&behind);
                    directories.insert(directory);
                    behind
                }
                None => {
                    self.write(&key, number, &mut found);
                    key
                }
            });
        }
        for directory in directories {
            let name = encode(directory.as_bytes());
            let _ = write!(found, "<CommonPrefixes><Prefix>{name}</Prefix></CommonPrefixes>");
        }
        let next = last.filter(|_| !is_over).map(|last| {
            let token = encode(last.as_bytes());
            format!("<NextContinuationToken>{token}</NextContinuationToken>")
        });
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>lab</Name>\
             <EncodingType>url</EncodingType><KeyCount>{count}</KeyCount>\
             <IsTruncated>{}</IsTruncated>{}{found}</ListBucketResult>",
            !is_over,
            next.unwrap_or_default(),
        )
    }
}

/// The parameters of a request, decoded.
pub fn parameters(query: &str) -> Vec<(String, Vec<u8>)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let decoded = |text: &str| decode(&text.replace('+', "%20"));
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (name.to_owned(), decoded(value)))
        .map(|(name, value)| match name.as_str() {
            // It was written with its own escapes.
            "continuation-token" => {
                let text = String::from_utf8_lossy(&value).into_owned();
                (name, decode(&text))
            }
            _ => (name, value),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(page: &str) -> Vec<&str> {
        page.split("<Key>")
            .skip(1)
            .filter_map(|rest| rest.split_once('<'))
            .map(|pair| pair.0)
            .collect()
    }

    fn token(page: &str) -> Option<&str> {
        let (_, rest) = page.split_once("<NextContinuationToken>")?;
        rest.split_once('<').map(|pair| pair.0)
    }

    #[test]
    fn pages_hold_every_key_once_and_in_order() {
        let mut shelf = Shelf::new(2500, 100);
        shelf.put("d0003/more");
        shelf.put(&shelf.key(7));
        let (mut found, mut query) = (Vec::new(), "list-type=2&prefix=".to_owned());
        loop {
            let page = shelf.page(&parameters(&query));
            found.extend(keys(&page).into_iter().map(str::to_owned));
            let Some(next) = token(&page) else { break };
            query = format!("list-type=2&continuation-token={}", encode(next.as_bytes()));
        }
        assert_eq!(found.len(), 2501);
        assert!(found.is_sorted() && found.contains(&"d0003/more".to_owned()));
        let page =
            shelf.page(&parameters("list-type=2&prefix=d0003%2F&start-after=d0003%2Fo0000397"));
        assert_eq!(keys(&page), ["d0003/o0000398", "d0003/o0000399"]);
        let page =
            shelf.page(&parameters("list-type=2&delimiter=%2F&max-keys=2&start-after=d0004"));
        assert_eq!(keys(&page).len(), 0);
        assert_eq!(page.matches("<Prefix>").count(), 2);
    }

    #[test]
    fn what_is_put_is_another_version() {
        let mut shelf = Shelf::new(10, 0);
        let key = shelf.key(3);
        let before = shelf.object(&key).unwrap().etag;
        shelf.put(&key);
        assert_ne!(shelf.object(&key).unwrap().etag, before);
        assert!(shelf.object("none").is_none());
        shelf.put("none");
        assert!(shelf.object("none").is_some());
    }
}
