//! Files that say something of registries: short ones, and directories of such.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Longest one.
const MAX_BYTES: usize = 1 << 20;
/// Most of a directory.
const MOST: usize = 256;

/// What stands in one.
pub(super) fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    // Never moved while it grows: what is left behind would not be wiped.
    let mut bytes = Zeroizing::new(Vec::with_capacity(2 * MAX_BYTES));
    File::open(path)?.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    match bytes.len() > MAX_BYTES {
        true => Err(io::Error::new(io::ErrorKind::FileTooLarge, "it has more than 1 MiB")),
        false => Ok(bytes),
    }
}

/// The same as text.
pub(super) fn read_text(path: &Path) -> io::Result<Zeroizing<String>> {
    let text = std::str::from_utf8(&read(path)?).map(|text| Zeroizing::new(text.to_owned()));
    text.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
}

/// Those in a directory whose names end so, in the order of these.
pub(super) fn in_directory(dir: &Path, endings: &[&str]) -> io::Result<Vec<PathBuf>> {
    let is_one = |path: &Path| {
        let ending = path.extension().and_then(|ending| ending.to_str());
        ending.is_some_and(|ending| endings.contains(&ending)) && path.is_file()
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let below = entry?.path();
        if is_one(&below) {
            found.push(below);
        }
        if found.len() > MOST {
            return Err(io::Error::other(format!("it has more than {MOST} files")));
        }
    }
    found.sort();
    Ok(found)
}
