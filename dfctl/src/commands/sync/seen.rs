//! What is known to be in a bucket, from one run to the next, so that a run which finds nothing changed asks
//! the store for nothing but its listing.
//!
//! One fingerprint for each object that was written, or asked about: its key, the ETag that the store lists, and
//! length and time of the file it is of. An object of the same fingerprint is of the same file; of any other the
//! store is asked for the time it was told. What is lost here costs requests and nothing else, so it is written
//! as it comes and a torn end is of no account.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::item::Item;

const BYTES: usize = 16;

/// Fingerprints that are remembered: 64 MiB of them.
const MAX_KNOWN: usize = 4 << 20;

type Fingerprint = [u8; BYTES];

/// The fingerprints of one destination.
pub struct Seen {
    path: PathBuf,
    known: Vec<Fingerprint>,
    /// Those that held in this run.
    confirmed: Vec<Fingerprint>,
    file: File,
}

impl Seen {
    /// What earlier runs left in `dir` about `destination`.
    pub fn open(dir: &Path, destination: &str) -> io::Result<Self> {
        let name = blake3::hash(destination.as_bytes()).to_hex();
        let path = dir.join(format!("{}.seen", &name[..32]));
        let mut options = OpenOptions::new();
        let file = options.create(true).append(true).read(true).mode(0o600).open(&path)?;
        let mut bytes = Vec::new();
        (&file).take((MAX_KNOWN * BYTES) as u64).read_to_end(&mut bytes)?;
        let (whole, torn) = bytes.as_chunks::<BYTES>();
        if !torn.is_empty() {
            file.set_len((whole.len() * BYTES) as u64)?;
        }
        let mut known = whole.to_vec();
        known.sort_unstable();
        Ok(Self { path, known, confirmed: Vec::new(), file })
    }

    /// Whether the object with this tag is known to be of `item`.
    pub fn has(&mut self, item: &Item, tag: &str) -> bool {
        let Some(fingerprint) = fingerprint(item, tag) else { return false };
        let known = self.known.binary_search(&fingerprint).is_ok();
        if known {
            self.confirm(fingerprint);
        }
        known
    }

    /// The object with this tag is of `item`.
    pub fn note(&mut self, item: &Item, tag: &str) {
        let Some(fingerprint) = fingerprint(item, tag) else { return };
        self.confirm(fingerprint);
        // What cannot be kept is asked for again.
        let _ = self.file.write_all(&fingerprint);
    }

    fn confirm(&mut self, fingerprint: Fingerprint) {
        if self.confirmed.len() < MAX_KNOWN {
            self.confirmed.push(fingerprint);
        }
    }

    /// Keeps what held in this run, which looked at everything, and nothing else.
    pub fn settle(self) -> io::Result<()> {
        let dir = self.path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        file.write_all(self.confirmed.as_flattened())?;
        file.persist(&self.path).map_err(|error| error.error)?;
        Ok(())
    }
}

/// `None` for what has no time: nothing would say that it changed.
fn fingerprint(item: &Item, tag: &str) -> Option<Fingerprint> {
    let time = item.time()?;
    let mut hasher = blake3::Hasher::new_derive_key("dfs sync 1: an object and the file it is of");
    hasher.update(&item.entry.length.to_le_bytes());
    hasher.update(&time.seconds.to_le_bytes()).update(&time.nanos.to_le_bytes());
    hasher.update(&(item.entry.path.len() as u64).to_le_bytes()).update(&item.entry.path);
    hasher.update(tag.trim_matches('"').as_bytes());
    hasher.finalize().as_bytes().first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::EntryKind;
    use crate::backend::fake::entry;

    #[test]
    fn what_was_seen_is_known_again_and_a_torn_end_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let item =
            |name: &str, length| Item { entry: entry(name, EntryKind::File, length), tag: None };
        let open = || Seen::open(dir.path(), "s3://b/p/").unwrap();
        let mut seen = open();
        assert!(!seen.has(&item("a", 1), "\"t\""));
        seen.note(&item("a", 1), "\"t\"");
        seen.note(&item("b", 1), "u");
        seen.file.write_all(b"torn").unwrap();
        // As after a kill: nothing was settled.
        let mut seen = open();
        assert!(seen.has(&item("a", 1), "t") && seen.has(&item("b", 1), "\"u\""));
        for (other, tag) in [(item("a", 2), "t"), (item("c", 1), "t"), (item("a", 1), "u")] {
            assert!(!seen.has(&other, tag));
        }
        let mut later = item("a", 1);
        later.entry.mtime.1 += 1;
        assert!(!seen.has(&later, "t"));
        // What did not hold any more is forgotten.
        let mut seen = open();
        assert!(seen.has(&item("a", 1), "t"));
        seen.settle().unwrap();
        let mut seen = open();
        assert!(seen.has(&item("a", 1), "t") && !seen.has(&item("b", 1), "u"));
    }
}
