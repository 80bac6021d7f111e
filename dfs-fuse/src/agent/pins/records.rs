//! Pins as they are written down: a file each, that outlives the machine's power.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use dfs_proto::convert;
use dfs_proto::node::PinRecord;
use dfs_service::private_file::{self, Outlives};

/// The only format that there is.
pub(super) const FORMAT: u32 = 1;

/// Where in the data directory.
const DIR: &str = "pins";

/// The longest record of a pin.
const RECORD_BYTES: u64 = 256 << 10;

/// The files of an agent's pins, by their ids.
#[derive(Debug)]
pub(super) struct Records {
    data_dir: PathBuf,
}

impl Records {
    /// Those below an agent's data directory.
    pub fn in_dir(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_owned() }
    }

    fn dir(&self) -> PathBuf {
        self.data_dir.join(DIR)
    }

    /// All of them that can be read, at most so many. What cannot be read as one is left there and said.
    pub fn load(&self, most: usize) -> BTreeMap<String, PinRecord> {
        let dir = self.dir();
        private_file::sweep(&dir);
        let files = match fs::read_dir(&dir) {
            Ok(files) => files,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::error!(dir = %dir.display(), %error, "pins cannot be read");
                }
                return BTreeMap::new();
            }
        };
        let mut records = BTreeMap::new();
        for path in files.flatten().map(|file| file.path()) {
            match named(&path).filter(|_| records.len() < most) {
                Some((id, record)) => drop(records.insert(id, record)),
                None => {
                    tracing::warn!(file = %path.display(), "is no pin that this version can read")
                }
            }
        }
        records
    }

    /// Writes one down, in place of the one before.
    pub fn write(&self, id: &str, record: &PinRecord) -> io::Result<()> {
        let dir = self.dir();
        if !dir.is_dir() {
            fs::create_dir_all(&dir)?;
            File::open(&self.data_dir)?.sync_all()?;
        }
        private_file::replace(&dir.join(id), &convert::encode_pin(record), Outlives::Power)
    }

    /// Forgets one.
    pub fn remove(&self, id: &str) -> io::Result<()> {
        let dir = self.dir();
        match fs::remove_file(dir.join(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        File::open(dir)?.sync_all()
    }
}

/// The pin that a file is, with its id.
fn named(path: &Path) -> Option<(String, PinRecord)> {
    let id = path.file_name()?.to_str()?;
    let is_id = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_id || !path.symlink_metadata().ok()?.is_file() {
        return None;
    }
    let bytes = private_file::read(path, RECORD_BYTES).ok()??;
    let record = convert::decode_pin(&bytes).ok().filter(|record| record.format == FORMAT)?;
    Some((id.to_owned(), record))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_that_is_written_down_is_found_whatever_else_lies_there() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::in_dir(dir.path());
        assert!(records.load(9).is_empty());
        let (one, other) = ("1".repeat(64), "a".repeat(64));
        let record = PinRecord { format: FORMAT, files: 7, ..PinRecord::default() };
        for id in [&one, &other] {
            records.write(id, &record).unwrap();
        }
        let pins = dir.path().join("pins");
        fs::create_dir(pins.join("2".repeat(64))).unwrap();
        fs::write(pins.join("3".repeat(64)), b"\xff").unwrap();
        fs::write(pins.join("other"), b"").unwrap();
        let fifo = pins.join("4".repeat(64));
        let mode = rustix::fs::Mode::RUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let later = PinRecord { format: FORMAT + 1, ..record.clone() };
        records.write(&"5".repeat(64), &later).unwrap();
        let found = records.load(9);
        assert_eq!(found.keys().collect::<Vec<_>>(), [&one, &other]);
        assert_eq!(found[&one], record);
        assert_eq!(records.load(1).len(), 1);
        records.remove(&one).unwrap();
        records.remove(&one).unwrap();
        assert_eq!(records.load(9).len(), 1);
        assert!(pins.join("5".repeat(64)).exists(), "it is left to who can read it");
    }
}
